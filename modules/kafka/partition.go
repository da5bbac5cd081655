package kafka

import (
	"time"

	"github.com/opencapture/capture/modules/kafka/batch"
	"github.com/opencapture/capture/modules/produce"
)

// entry is a message that waits for its report.
type entry struct {
	message *produce.Message
	report  func(i int, err error)
	index   int
	size    int
	at      time.Time // when the message was produced
}

// topic is what the producer knows of a topic. The core's mu guards it.
type topic struct {
	name       string
	partitions []*partition
	// waiting holds the messages of a topic whose partitions are not known yet.
	waiting queue
	// sticky numbers the partition, modulo their count, that got the last messages without a key.
	sticky int
	// limit is the size in bytes of the largest batch that the topic takes, as far as its refusals have shown.
	limit    int
	limitAge time.Time // when limit last changed
	// turn is the time between two requests with messages of the topic; 0: there may be any number.
	turn time.Duration

	// cause is why the partitions are not known. Nil: they are known, or nobody has asked.
	cause error
	// missingSince is when Kafka began to say that the topic does not exist. Zero: the topic exists, as far as is
	// known.
	missingSince time.Time
	// held is set while reports are made on messages that have waited for the topic in vain.
	held bool
}

// state is where a partition is between two requests.
type state uint8

const (
	// idle: nothing waits.
	idle state = iota
	// ready: the partition waits until its link sends its next batch.
	ready
	// sending: the partition's batch is in a request, or its failure is being reported.
	sending
	// parked: the partition waits for a leader, for a producer id, or for the end of a pause.
	parked
)

// partition gathers messages and sends them, one batch at a time. The core's mu guards it, with one exception: the link
// that sends batch reads it without mu, and nobody changes batch meanwhile.
//
// A batch keeps its messages, their times and its numbers from attempt to attempt, so that Kafka recognises a copy.
// Only a batch that Kafka has refused, and therefore not appended, is cut into smaller ones or gets other times.
type partition struct {
	topic *topic
	id    int32
	link  *link // to the partition's leader; nil: no leader is known
	state state
	// gone is set when the topic no longer has this partition.
	gone bool

	waiting queue // the messages behind batch
	batch   []entry
	// suspects counts the messages of a batch that Kafka has refused because of one of them. They begin with the first
	// message of batch. No batch reaches beyond them.
	suspects int
	// stamp is the time of the batch's messages that have none of their own, or of all of them if restamped is set.
	stamp     time.Time
	restamped bool
	// unsure is set if the broker may have appended the batch at an earlier attempt.
	unsure bool

	attempts int   // to send the batch, so far in vain
	cause    error // why the last attempt failed
	class    produce.Class
	notUntil time.Time // when the next attempt may be made

	numbering batch.Producer // the id and epoch that next belongs to
	next      int32          // the sequence number of batch's first message
}

// queue holds entries in their order.
type queue struct {
	entries []entry
	head    int
	bytes   int
}

func (q *queue) len() int { return len(q.entries) - q.head }

func (q *queue) push(e entry) {
	if q.head > len(q.entries)/2 && len(q.entries) == cap(q.entries) {
		n := copy(q.entries, q.entries[q.head:])
		clear(q.entries[n:])
		q.entries, q.head = q.entries[:n], 0
	}
	q.entries = append(q.entries, e)
	q.bytes += e.size
}

// shift moves entries from the front of the queue to the end of dst: at most most entries of at most so many bytes
// together, but always one if there is any.
func (q *queue) shift(dst []entry, bytes, most int) []entry {
	n := 0
	for rest := q.entries[q.head:]; n < len(rest) && n < most; n++ {
		if n > 0 && rest[n].size > bytes {
			break
		}
		bytes -= rest[n].size
		q.bytes -= rest[n].size
	}
	taken := q.entries[q.head : q.head+n]
	dst = append(dst, taken...)
	clear(taken)
	q.head += n
	q.reuse()
	return dst
}

// pop removes the first entry and returns it.
func (q *queue) pop() entry {
	e := q.entries[q.head]
	q.entries[q.head] = entry{}
	q.head++
	q.bytes -= e.size
	q.reuse()
	return e
}

// reuse goes back to the front of the memory when the queue is empty. It gives up memory that an unusual rush has
// needed.
func (q *queue) reuse() {
	const kept = 4096
	if q.head < len(q.entries) {
		return
	}
	q.entries, q.head = q.entries[:0], 0
	if cap(q.entries) > kept {
		q.entries = nil
	}
}

// rest appends to dst the entries of a queue that a panic may have left in disorder, and empties the queue.
func (q *queue) rest(dst []entry) []entry {
	for i := range q.entries {
		if q.entries[i].report != nil {
			dst = append(dst, q.entries[i])
		}
	}
	*q = queue{}
	return dst
}

// unshift puts entries in front of the others.
func (q *queue) unshift(front []entry) {
	for i := range front {
		q.bytes += front[i].size
	}
	if q.head >= len(front) {
		q.head -= len(front)
		copy(q.entries[q.head:], front)
		return
	}
	q.entries = append(append(make([]entry, 0, len(front)+q.len()), front...), q.entries[q.head:]...)
	q.head = 0
}

// oldest returns the time at which the partition's first message was produced.
func (p *partition) oldest() time.Time {
	if len(p.batch) > 0 {
		return p.batch[0].at
	}
	return p.waiting.entries[p.waiting.head].at
}

func (p *partition) isEmpty() bool { return len(p.batch) == 0 && p.waiting.len() == 0 }

// number gives the batch a sequence number under the producer's present id. It is called before the batch's first
// attempt, and again when Kafka no longer knows the partition's numbering.
func (p *partition) number(id batch.Producer) {
	if p.numbering != id {
		p.numbering, p.next = id, 0
	}
}

// settled forgets a batch that has ended, and what is known of its attempts.
func (p *partition) settled() {
	p.batch = nil
	p.attempts, p.cause, p.unsure, p.restamped = 0, nil, false, false
	p.notUntil = time.Time{}
}
