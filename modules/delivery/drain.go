package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/events"
)

// chunk is the records that are on their way from the log to Kafka.
type chunk struct {
	records  *spool.Chunk
	messages []events.Message
	// rest are the messages that are not delivered yet, in order, and seqs their records.
	rest []events.Message
	seqs []uint64
	// spoiled is set when Kafka's client may still use the memory, unread when there is a record behind rest that is to be read again.
	spoiled, unread bool
}

// drain empties a queue, in its order, until the service stops.
func (d *Delivery) drain(q *queue) {
	c := chunk{records: new(spool.Chunk)}
	// After a chunk of which nothing was taken, the next attempt waits; longer each time.
	first, last := d.openFor/10, 2*d.openFor
	wait := first
	for d.ctx.Err() == nil {
		if !q.drainable() {
			select {
			case <-q.wake:
			case <-d.ctx.Done():
			}
			continue
		}
		progress := true
		if len(c.rest) == 0 {
			if err := d.load(q, &c); err != nil {
				d.log.Error("the spool cannot be read: trying again", zap.String("topic", q.topic), zap.Error(err))
				progress = false
			}
		}
		switch {
		case len(c.rest) > 0:
			progress = d.deliver(q, &c)
		case progress:
			q.rest()
			select {
			case <-q.log.Changed():
			case <-q.wake:
			case <-d.ctx.Done():
			}
		}
		if progress {
			wait = first
		} else if d.pause(wait) {
			wait = min(2*wait, last)
		}
	}
}

// load reads the next records of the log, if there are any. One that only a newer version of this service understands is kept, with
// all behind it.
func (d *Delivery) load(q *queue, c *chunk) error {
	if c.unread {
		q.log.Rewind()
	}
	if c.spoiled {
		*c = chunk{records: new(spool.Chunk)}
	}
	c.unread = false
	if err := q.log.Read(c.records, chunkBytes); err != nil {
		return err
	}
	c.rest, c.seqs = c.messages[:0], c.seqs[:0]
	now := time.Now()
	for i := range c.records.Records {
		record := &c.records.Records[i]
		if len(c.rest) < cap(c.rest) {
			c.rest = c.rest[:len(c.rest)+1]
		} else {
			c.rest = append(c.rest, events.Message{})
		}
		m := &c.rest[len(c.rest)-1]
		if err := readRecord(record.Payload, m); err != nil {
			c.rest, c.unread = c.rest[:len(c.rest)-1], true
			if i == 0 {
				return fmt.Errorf("record %d: %w", record.Seq, err)
			}
			break
		}
		if m.Time.After(now) {
			m.Time = now // of a clock that was wrong; Kafka does not take what is much too early
		}
		c.seqs = append(c.seqs, record.Seq)
	}
	c.messages = c.rest
	if len(c.rest) > 0 {
		q.seen(c.rest[0].Time)
	}
	return nil
}

// deliver sends the chunk, or while it is not known whether Kafka is back its first message, and keeps in rest what is to be sent
// again. It reports whether anything was delivered.
func (d *Delivery) deliver(q *queue, c *chunk) bool {
	sent := c.rest
	if d.breaker.State() != gobreaker.StateClosed {
		sent = sent[:1]
	}
	bytes := 0
	for i := range sent {
		bytes += size(&sent[i])
	}
	if d.pace.wait(d.ctx, bytes) != nil {
		return false
	}
	done, err := d.allow()
	if err != nil {
		return false
	}
	parcel := d.carrier.Load(sent)
	parcel.Send(d.ctx)
	<-parcel.Done()
	verdicts := make([]error, len(sent))
	var failure error
	for i := range verdicts {
		if _, verdicts[i] = parcel.Verdict(i); verdicts[i] != nil {
			failure, c.spoiled = verdicts[i], true
		}
	}
	done(d.outage(d.ctx, 0, failure))
	parcel.Leave(nil)

	delivered := 0
	var gone []uint64
	kept, seqs := c.rest[:0:0], c.seqs[:0:0]
	for i := range c.rest {
		if i < len(sent) && d.isDelivered(&c.rest[i], verdicts[i], len(sent) == 1) {
			gone = append(gone, c.seqs[i])
			delivered += size(&c.rest[i])
			continue
		}
		kept, seqs = append(kept, c.rest[i]), append(seqs, c.seqs[i])
	}
	q.log.Done(gone...)
	d.pace.went(delivered)
	d.metrics.drained.Inc(int64(len(gone)))
	if c.rest, c.seqs = kept, seqs; len(kept) > 0 {
		q.seen(kept[0].Time)
	}
	return len(gone) > 0
}

// reasonTimestamp is the reason of a refusal that says nothing against the message.
const reasonTimestamp = "timestamp"

// isDelivered reports whether the message is where it belongs, or in the dead letters. Kafka refuses all messages of a batch for
// one of them; who was not alone is sent again by itself.
func (d *Delivery) isDelivered(m *events.Message, verdict error, alone bool) bool {
	var refusal *events.RefusedError
	if verdict == nil || !errors.As(verdict, &refusal) {
		return verdict == nil
	}
	if refusal.Reason == reasonTimestamp {
		// A clock was wrong then, or is now. The next attempt has the time of that.
		m.Time = time.Time{}
		return false
	}
	if !alone {
		if verdict = sendAlone(d.ctx, d.carrier, *m); verdict == nil || !errors.As(verdict, &refusal) {
			return verdict == nil
		}
	}
	return d.bury(d.ctx, m, refusal) == nil
}

// sendAlone sends one message and returns the verdict on it.
func sendAlone(ctx context.Context, carrier events.Carrier, m events.Message) error {
	parcel := carrier.Load([]events.Message{m})
	defer parcel.Leave(nil)
	parcel.Send(ctx)
	select {
	case <-parcel.Done():
	case <-ctx.Done():
	}
	settled, verdict := parcel.Verdict(0)
	if !settled {
		return context.Cause(ctx)
	}
	return verdict
}

// size is about what a message takes in the log.
func size(m *events.Message) int {
	n := len(m.Topic) + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}
