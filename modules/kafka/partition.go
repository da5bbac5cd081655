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
	// waiting are messages of a topic whose partitions are not known yet.
	waiting queue
	// sticky is the partition that messages without a key go to next.
	sticky int
	// limit is the size of the largest batch that the topic takes, as far as its refusals have shown.
	limit    int
	limitAge time.Time // when limit was changed last

	// cause is why the partitions are not known; nil: they are, or nobody has asked.
	cause error
	// missingSince is since when Kafka says that the topic does not exist. Zero: it does, as far as is known.
	missingSince time.Time
	// held is set while reports are made on messages that have waited for the topic in vain.
	held bool
}

// state is where a partition is between two requests.
type state uint8

const (
	// idle: nothing waits.
	idle state = iota
	// ready: the partition waits for its link to send its next batch.
	ready
	// sending: its batch is in a request, or is being reported as failed.
	sending
	// parked: it waits for a leader, for a producer id, or for the end of a pause.
	parked
)

// partition gathers messages and sends them, one batch at a time. The core's mu guards it; batch is also read without mu by
// the link that sends it, during which nobody changes it.
//
// A batch keeps its messages, their times and its numbers from attempt to attempt, so that Kafka recognises a copy. Only a batch
// that Kafka has refused, and therefore not appended, is cut into smaller ones, or gets other times.
type partition struct {
	topic *topic
	id    int32
	link  *link // to the partition's leader; nil: not known
	state state
	// gone is set when the topic has this partition no more.
	gone bool

	waiting queue // behind batch
	batch   []entry
	// suspects is how many messages, from the first of batch on, are of a batch that was refused for one of them. A batch
	// holds none that is behind them.
	suspects int
	// stamp is the time of those messages of the batch that have none, or of all if restamped is set.
	stamp     time.Time
	restamped bool
	// unsure is set when an earlier attempt may have been appended.
	unsure bool

	attempts int   // of the batch, without an acknowledgement
	cause    error // why the last attempt failed
	class    produce.Class
	notUntil time.Time // when the next attempt may be made

	numbering batch.Producer // what next is a number of
	next      int32          // the sequence number of batch's first message
}

// queue is entries in their order.
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

// shift moves entries from the front of the queue to the end of dst: at most most of them, of at most so many bytes, but one
// at least if there is any.
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

// reuse begins again at the front of the memory when nothing is left, and gives up memory that an unusual rush has needed.
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

// rest appends the entries of a queue that a panic may have left in disorder to dst, and gives them up.
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

// oldest returns when the partition's first message was produced.
func (p *partition) oldest() time.Time {
	if len(p.batch) > 0 {
		return p.batch[0].at
	}
	return p.waiting.entries[p.waiting.head].at
}

func (p *partition) isEmpty() bool { return len(p.batch) == 0 && p.waiting.len() == 0 }

// number gives the batch its sequence number under the producer's present id. It is called before the batch's first attempt,
// and again when Kafka knows the partition's numbering no more.
func (p *partition) number(id batch.Producer) {
	if p.numbering != id {
		p.numbering, p.next = id, 0
	}
}

// settled forgets what was about the attempts of a batch that has ended.
func (p *partition) settled() {
	p.batch = nil
	p.attempts, p.cause, p.unsure, p.restamped = 0, nil, false, false
	p.notUntil = time.Time{}
}
