package delivery

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/produce"
)

// chunk is the records that are on their way from a log to Kafka. A log has one chunk on its way at a time. The chunk
// sends its failed messages again before it reads the records behind them.
type chunk struct {
	s       *spooler
	records spool.Chunk
	// messages are the messages that are not delivered yet, in their order; seqs are the numbers of their records.
	messages []produce.Message
	seqs     []uint64
	// unread is set when a record behind the messages is to be read again. It is set in a new chunk too: a new chunk
	// does not know which records the chunk before it has read and not delivered.
	unread bool
	// doubtful is set while nobody knows whether Kafka takes messages for the topic again: then one message is sent
	// alone.
	doubtful bool

	errs     []error // the reports
	awaited  atomic.Int32
	reported chan struct{} // gets a value when all messages that were sent have their reports
	report   func(i int, err error)
}

func newChunk(s *spooler) *chunk {
	c := &chunk{s: s, reported: make(chan struct{}, 1), doubtful: true, unread: true}
	c.report = c.take
	return c
}

// load reads the next records once all messages of the chunk are delivered, and reports whether there is anything to
// deliver. If only a newer version of this service understands a record, load keeps that record and all records behind
// it.
func (c *chunk) load() (bool, error) {
	if len(c.messages) > 0 {
		return true, nil
	}
	log := c.s.log
	if c.unread {
		log.Rewind()
		c.unread = false
	}
	if err := log.Read(&c.records, chunkBytes); err != nil {
		return false, err
	}
	records := c.records.Records
	c.messages = slices.Grow(c.messages[:0], len(records))
	c.seqs = c.seqs[:0]
	now := time.Now()
	for i := range records {
		c.messages = c.messages[:i+1]
		m := &c.messages[i]
		if err := readRecord(records[i].Payload, m); err != nil {
			c.messages, c.unread = c.messages[:i], true
			if i == 0 {
				return false, fmt.Errorf("record %d: %w", records[i].Seq, err)
			}
			break
		}
		if m.Time.After(now) {
			m.Time = now // The clock was wrong then. Kafka refuses a time too far ahead.
		}
		c.seqs = append(c.seqs, records[i].Seq)
	}
	if len(c.messages) == 0 {
		return false, nil
	}
	c.s.seen(c.messages[0].Time)
	return true, nil
}

// unload forgets the messages, so that load reads their records again.
func (c *chunk) unload() { c.messages, c.seqs, c.unread = c.messages[:0], c.seqs[:0], true }

// take takes the producer's report on a message.
func (c *chunk) take(i int, err error) {
	c.errs[i] = err
	if c.awaited.Add(-1) == 0 {
		c.reported <- struct{}{}
	}
}

// deliver sends the chunk, waits for all reports, and keeps the messages that are to be sent again. It reports whether
// any message was delivered.
func (c *chunk) deliver(ctx context.Context) bool {
	d := c.s.d
	sent := c.messages
	if c.doubtful {
		sent = sent[:1]
	}
	bytes := 0
	for i := range sent {
		bytes += size(&sent[i])
	}
	if d.rate.wait(ctx, bytes) != nil {
		return false
	}
	c.errs = slices.Grow(c.errs[:0], len(sent))[:len(sent)]
	c.awaited.Store(int32(len(sent)))
	d.producer.Produce(sent, c.report)
	// The wait has an end: the producer reports on every message within kafka.ack_timeout.
	<-c.reported
	d.letters.keepDrained(ctx, sent, c.errs)
	return c.keepFailed(len(sent))
}

// keepFailed marks the delivered records as done in the log, and keeps the rest of the chunk. It reports whether any
// message was delivered.
func (c *chunk) keepFailed(sent int) bool {
	d := c.s.d
	var failure error
	delivered, kept := 0, 0
	done := make([]uint64, 0, sent)
	for i := range c.messages {
		if i < sent && c.errs[i] == nil {
			done = append(done, c.seqs[i])
			delivered += size(&c.messages[i])
			continue
		}
		if i < sent && failure == nil {
			failure = c.errs[i]
		}
		// The two are swapped, so that each message keeps headers of its own: load reads a later record into them.
		c.messages[kept], c.messages[i] = c.messages[i], c.messages[kept]
		c.seqs[kept] = c.seqs[i]
		kept++
	}
	c.s.log.Done(done...)
	d.rate.went(delivered)
	d.metrics.drained.Inc(int64(len(done)))
	c.messages, c.seqs = c.messages[:kept], c.seqs[:kept]
	if kept > 0 {
		c.s.seen(c.messages[0].Time)
	}
	c.doubtful = failure != nil
	switch {
	case len(done) > 0:
		c.s.topic.breaker.succeeded()
	case failure != nil:
		c.s.topic.breaker.failed(time.Now())
	}
	return len(done) > 0
}
