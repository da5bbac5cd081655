package kafka

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// A message's state says who may still touch what. Exactly one side wins the change from waiting: sarama's verdict
// (settled), after which the owner of the parcel reads err, or the owner's patience (abandoned), after which a verdict only frees
// memory and is told to whoever was left behind to hear it.
const (
	stateWaiting uint32 = iota
	stateSettled
	stateAbandoned
)

// parcel is messages on their way. It never refers to the batch, which belongs to the caller again when Write returns, while
// sarama may hold messages for longer.
type parcel struct {
	producer *Producer
	set      *Set
	size     int64 // of all messages
	packed   int64 // bytes held of the producer's packing
	held     int64 // bytes held of the producer's budget
	sent     time.Time
	// strict has every failure stop what is behind it, also one of a message that is itself at fault: it may be sent again alone.
	strict bool

	unsettled atomic.Int64
	done      chan struct{} // closed when every message is settled
	late      func(i int, err error)

	users   atomic.Int32 // the owner, and sarama: who still uses the set
	tainted atomic.Bool  // a message failed or was abandoned: the set is not to be used again
	failed  atomic.Bool  // a message is to be sent again: those behind it wait
}

var _ events.Parcel = (*parcel)(nil)

func newParcel(p *Producer, set *Set) *parcel {
	d := &parcel{producer: p, set: set, done: make(chan struct{})}
	for i := range set.Messages {
		m := &set.Messages[i]
		m.parcel, m.index = d, i
		d.size += messageSize + int64(m.size)
	}
	d.unsettled.Store(int64(len(set.Messages)))
	d.users.Store(1)
	if len(set.Messages) == 0 {
		close(d.done)
	}
	return d
}

func (d *parcel) Len() int { return len(d.set.Messages) }

func (d *parcel) Event(i int) int { return d.set.Messages[i].event }

func (d *parcel) Done() <-chan struct{} { return d.done }

func (d *parcel) Read(i int, into *events.Message) {
	m := &d.set.Messages[i]
	into.Topic, into.Key, into.Value, into.Time = m.Topic, m.key, m.value, m.Timestamp
	into.Headers = into.Headers[:0]
	for _, header := range m.Headers {
		into.Headers = append(into.Headers, events.Header{Key: header.Key, Value: header.Value})
	}
}

// Send hands the messages to sarama in their order; those that it does not take in time are settled here.
func (d *parcel) Send(ctx context.Context) {
	p, messages := d.producer, d.set.Messages
	if len(messages) == 0 {
		return
	}
	d.sent = time.Now()
	held := min(d.size, int64(p.cfg.Buffer))
	if err := p.budget.Acquire(ctx, held); err != nil {
		d.refuse(events.Errorf(events.Unavailable, "no room in kafka.buffer (%s): %w", p.cfg.Buffer, context.Cause(ctx)))
		return
	}
	conn, err := p.begin(len(messages))
	if err != nil {
		p.budget.Release(held)
		d.refuse(err)
		return
	}
	defer p.senders.Done()
	d.held = held
	p.metrics.buffer(held)
	p.packing.Release(d.packed)
	d.packed = 0
	d.users.Add(1)
	input := conn.async.Input()
	for i := range messages {
		var err error
		select {
		case input <- &messages[i].ProducerMessage:
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-p.cut:
			err = errStopping
		}
		for j := range messages[i:] {
			p.settle(&messages[i+j].ProducerMessage, err)
		}
		return
	}
}

// refuse ends a parcel of which sarama has got nothing.
func (d *parcel) refuse(err error) {
	d.tainted.Store(true)
	for i := range d.set.Messages {
		m := &d.set.Messages[i]
		m.err = err
		m.state.Store(stateSettled)
	}
	d.producer.metrics.failed[classify(err)].Inc(int64(len(d.set.Messages)))
	d.unsettled.Store(0)
	close(d.done)
}

// settle takes a message's verdict and returns how many bytes were acknowledged by it.
func (d *parcel) settle(m *Message, err error) (acknowledged int64) {
	p := d.producer
	m.err = err
	awaited := m.state.CompareAndSwap(stateWaiting, stateSettled)
	if awaited {
		p.awaited.Add(-1)
	}
	if awaited && err != nil && p.cutting.Load() {
		p.unflushed.Add(1)
	}
	if err != nil {
		d.tainted.Store(true)
		if d.strict || !final(err) {
			d.failed.Store(true)
		}
	} else {
		acknowledged = int64(m.size)
	}
	switch {
	case err != nil && awaited:
		p.metrics.failed[classify(err)].Inc(1)
	case err == nil && awaited:
		p.metrics.acked.Inc(1)
	case err == nil:
		p.metrics.lateAcks.Inc(1)
	}
	if !awaited && d.late != nil {
		d.late(m.index, refusal(err))
	}
	if d.unsettled.Add(-1) == 0 {
		p.metrics.latency.Record(time.Since(d.sent))
		p.release(d.held)
		close(d.done)
		d.leave()
	}
	return acknowledged
}

// leave recycles the messages when both their owner and sarama have done with them. That sarama has is certain only of what
// it acknowledged.
func (d *parcel) leave() {
	if d.users.Add(-1) == 0 && !d.tainted.Load() {
		d.producer.encoder.Recycle(d.set)
	}
}

func (d *parcel) Verdict(i int) (bool, error) {
	m := &d.set.Messages[i]
	if m.state.Load() != stateSettled {
		return false, nil
	}
	m.told = true
	return true, refusal(m.err)
}

// Settle accepts an event when all of its messages, which follow one another, are acknowledged. Of several verdicts against it the
// one counts by which the client sends it again: only then are all of its messages there, or is it certain that they cannot be.
func (d *parcel) Settle(ctx context.Context, batch *events.Batch) {
	messages := d.set.Messages
	for i := 0; i < len(messages); {
		index, verdict := messages[i].event, error(nil)
		for ; i < len(messages) && messages[i].event == index; i++ {
			if err := d.verdict(ctx, &messages[i]); err != nil && (verdict == nil || final(verdict)) {
				verdict = err
			}
		}
		judge(&batch.Events[index], verdict)
	}
}

// verdict returns what became of a message that is no longer waited for: nil means acknowledged.
func (d *parcel) verdict(ctx context.Context, m *Message) error {
	m.told = true
	if !d.abandon(m) {
		return m.err
	}
	err := context.Cause(ctx)
	d.producer.metrics.failed[classify(err)].Inc(1)
	return err
}

// abandon gives a message up, unless it has its verdict.
func (d *parcel) abandon(m *Message) bool {
	if !m.state.CompareAndSwap(stateWaiting, stateAbandoned) {
		return false
	}
	d.tainted.Store(true)
	d.producer.awaited.Add(-1)
	return true
}

func (d *parcel) Leave(late func(i int, err error)) {
	d.producer.packing.Release(d.packed)
	if late != nil {
		d.late = late
	}
	if !d.sent.IsZero() {
		for i := range d.set.Messages {
			m := &d.set.Messages[i]
			if !m.told && !d.abandon(m) && late != nil && m.state.Load() == stateSettled {
				late(i, refusal(m.err))
			}
		}
	}
	d.leave()
}
