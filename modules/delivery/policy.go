package delivery

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/opencapture/capture/modules/delivery/encode"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

var _ events.Sink = (*Delivery)(nil)

var (
	errTimeout = produce.Errorf(produce.Timeout, "no acknowledgement in time (delivery.timeout)")
	errLeft    = errors.New("the client has left")
	errOpen    = errors.New("messages for this topic were not acknowledged in time, and it is left alone for a moment")
	errWaits   = errors.New("events of the topic wait in the spool, and new events must not come to Kafka before " +
		"them (delivery.ack is kafka)")
	errBlocked = errors.New("events of the topic wait in a spool that cannot be written: " +
		"make it writable, or move it away")
)

// Write makes the pending events of the batch as safe as their lanes ask. It takes at most delivery.timeout, and beyond
// that only the time that the disk needs. A batch whose messages may take more than an eighth of the buffer is written
// in portions, one after the other, which takes that time again at most.
func (d *Delivery) Write(ctx context.Context, batch *events.Batch) {
	terms := d.terms.In(batch.Config)
	started := time.Now()
	var at encode.Cursor
	for !at.IsEnd(batch) {
		var err error
		if at != (encode.Cursor{}) && time.Since(started) > terms.Timeout {
			err = errTimeout
		} else {
			err = d.write(ctx, batch, &at, terms)
		}
		if err != nil {
			batch.FailPending(events.ReasonTimeout, err)
			d.readiness.crowded(terms.modes, batch)
			break
		}
	}
	d.metrics.acks[batch.Ack].Inc(1)
}

// portionShare is the part of delivery.buffer that a portion of a batch may take. The records of a portion that goes to
// the spool are copies, and copies again in the spool's commit, so a portion is small beside the buffer.
const portionShare = 8

// write makes a portion of the batch safe, from the cursor on, and moves the cursor. With an error the portion's events
// have no outcome.
func (d *Delivery) write(ctx context.Context, batch *events.Batch, at *encode.Cursor, terms *terms) error {
	r, err := d.encode(ctx, batch, at, terms)
	if err != nil {
		return err
	}
	defer r.leave()
	if len(r.items) == 0 {
		return nil
	}
	for i := range r.items {
		u := r.of(&r.items[i])
		u.mode = stricter(u.mode, terms.modes[batch.Events[r.set.Events[i]].Lane])
	}
	r.run(ctx)
	r.settle(batch, *at)
	return nil
}

// encode makes a request of a portion of the batch's pending events. It rejects events that are too large.
func (d *Delivery) encode(
	ctx context.Context, batch *events.Batch, at *encode.Cursor, terms *terms,
) (*request, error) {
	// The size of a batch's messages is known only once they are built. So encode reserves room for the worst case
	// first, and then gives the unused part back. A message that needs more than the whole buffer takes the whole
	// buffer.
	started := time.Now()
	limit := int64(d.cfg.Buffer) / portionShare
	bound := min(d.encoder.Bound(batch, *at, limit), int64(d.cfg.Buffer))
	if err := d.reserve(ctx, bound, terms.Timeout); err != nil {
		return nil, err
	}
	r := d.requests.get(d, terms)
	r.started, r.reserved = started, bound
	encoded := false
	defer func() {
		if !encoded { // encoding has panicked
			r.leave()
		}
	}()
	r.set = d.encoder.Next(batch, at, limit)
	r.reserved = min(r.set.Bytes(), bound)
	d.release(bound - r.reserved)
	d.metrics.heatmapsDropped.Inc(int64(r.set.HeatmapsDropped))
	r.fill(r.set.Messages)
	encoded = true
	return r, nil
}

// reserve takes room in the buffer, and waits for room at most for timeout.
func (d *Delivery) reserve(ctx context.Context, bytes int64, timeout time.Duration) error {
	if d.buffer.TryAcquire(bytes) {
		return nil
	}
	slow := panics.AfterFunc(d.log, "the watch over delivery.buffer", d.times.slow, d.readiness.full)
	defer slow.Stop()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := d.buffer.Acquire(ctx, bytes); err != nil {
		return events.Errorf(events.Unavailable, "no room in delivery.buffer (%s): %w", d.cfg.Buffer, err)
	}
	return nil
}

func (d *Delivery) release(bytes int64) { d.buffer.Release(bytes) }

// run makes every message safe as its mode asks, and gives it its fate.
func (r *request) run(ctx context.Context) {
	r.pass(ctx)
	for i := range r.uses {
		u := &r.uses[i]
		var err error
		if u.plan, err = r.admit(ctx, u); err != nil {
			r.failAll(i, err)
		}
	}
	r.produce(planProduce)
	r.letGo()
	if r.has(planSpool) {
		r.append(ctx, func(u *use, _ *item) bool { return u.plan == planSpool })
		r.produce(planDirect)
	}
	if r.has(planProduce) && r.d.spooling.isOpen() {
		r.wait(ctx, r.terms.SpoolAfter)
		r.collect(ctx, false)
		r.append(ctx, (*use).isLate)
	}
	r.wait(ctx, min(r.d.times.slow, r.terms.Timeout))
	if r.awaited.Load() > 0 {
		r.d.readiness.slow(r)
		r.wait(ctx, r.terms.Timeout)
	}
	r.collect(ctx, true)
	r.tellBreakers()
}

// pass waits for the last records of a topic to leave the spool, so that the request need not go to the spool too.
func (r *request) pass(ctx context.Context) {
	for i := range r.uses {
		r.waitFor(ctx, r.uses[i].door.Load(), r.d.times.doorShut)
	}
}

// admit decides what is done with the messages of a use. In mode kafka, as after a change of the mode, the messages
// wait until the records of their topic have left the spool for Kafka. They wait at most until readiness would call the
// request slow.
func (r *request) admit(ctx context.Context, u *use) (plan, error) {
	for {
		p, err := r.d.admit(u.topic, u.mode)
		left := r.d.times.slow - time.Since(r.started)
		if !errors.Is(err, errWaits) || left <= 0 || ctx.Err() != nil || r.d.producer.Ready() != nil {
			return p, err
		}
		u.eager.Store(true)
		r.waitFor(ctx, u.rested.Load(), left)
	}
}

// waitFor waits until the channel is closed, or until most or ctx is over. A nil channel needs no wait.
func (r *request) waitFor(ctx context.Context, closed *chan struct{}, most time.Duration) {
	if closed == nil {
		return
	}
	r.timer.Reset(most)
	defer r.timer.Stop()
	select {
	case <-*closed:
	case <-r.timer.C:
	case <-ctx.Done():
	}
}

// admit decides what is done with messages for a topic. If records of the topic wait in the spool, the messages go
// behind them or fail.
func (d *Delivery) admit(t *topic, m mode) (plan, error) {
	opened := d.spooling.isOpen()
	switch {
	case d.spooling.isBlocked(t.name):
		return planFail, errBlocked
	case t.isWaiting() && m == modeKafka:
		return planFail, errWaits
	case t.isWaiting():
		if m != modeSpool {
			t.eager.Store(true)
		}
		return planSpool, nil
	case m == modeSpool && opened:
		return planSpool, nil
	case m == modeMemory || t.breaker.allow(time.Now()):
		return planProduce, nil
	case m == modeAuto && opened:
		return planSpool, nil
	default:
		return planFail, errOpen
	}
}

// failAll fails the messages of a use.
func (r *request) failAll(use int, err error) {
	for i := range r.items {
		if it := &r.items[i]; it.use == use {
			it.fail(err)
		}
	}
}

// has reports whether any messages have the plan.
func (r *request) has(wanted plan) bool {
	return slices.ContainsFunc(r.uses, func(u use) bool { return u.plan == wanted })
}

// isLate reports whether a message goes to the spool because Kafka has not acknowledged it in time, or has failed to
// take it.
func (u *use) isLate(it *item) bool {
	if u.plan != planProduce || u.mode != modeAuto {
		return false
	}
	return it.fate == fateFailed || it.fate == fateOpen && it.state.Load() == stateSent
}

// letGo stops waiting for the messages of mode memory that the producer has. A message whose report is already an error
// stays open: collect fails it, or makes it a dead letter.
func (r *request) letGo() {
	for i := range r.items {
		it := &r.items[i]
		u := r.of(it)
		if it.fate != fateOpen || u.plan != planProduce || u.mode != modeMemory {
			continue
		}
		if r.abandon(it) || it.err == nil {
			it.fate = fateMemory
		}
	}
}

// collect gives fates to the messages that have their reports. With last set, it fails the messages without a report.
func (r *request) collect(ctx context.Context, last bool) {
	refused := false
	for i := range r.items {
		it := &r.items[i]
		u := r.of(it)
		if it.fate != fateOpen || u.plan != planProduce && u.plan != planDirect {
			continue
		}
		if it.state.Load() == stateSent {
			if !last {
				continue
			}
			if r.leaveLate(i) {
				it.fail(late(ctx))
				if ctx.Err() == nil { // a client that has left says nothing about Kafka
					u.failed++
				}
				continue
			}
		}
		switch {
		case it.err == nil:
			it.fate = fateKafka
			u.acked++
		case produce.IsRefusal(it.err):
			refused = true
			u.acked++ // a refusal is an answer: Kafka is not away
		default:
			u.failed++
			it.fail(it.err)
		}
	}
	if refused {
		r.d.letters.keep(ctx, r)
	}
}

// late returns why a message has no report.
func late(ctx context.Context) error {
	if ctx.Err() != nil {
		return errLeft
	}
	return errTimeout
}

func (it *item) fail(err error) { it.fate, it.why = fateFailed, err }

// tellBreakers reports the outcome to the breakers of the topics. A topic of which Kafka has taken one message is not
// away.
func (r *request) tellBreakers() {
	for i := range r.uses {
		switch u := &r.uses[i]; {
		case u.acked > 0:
			u.breaker.succeeded()
		case u.failed > 0:
			u.breaker.failed(time.Now())
		}
	}
}

// settle gives the batch's events their outcomes. An event is safe when all its messages are, and its acknowledgement
// is that of its least safe message. An event of which more messages come with the next portion stays pending unless it
// has failed.
func (r *request) settle(batch *events.Batch, at encode.Cursor) {
	var safe [modeCount]bool
	var failed [modeCount]error
	for i := 0; i < len(r.items); {
		index, ack, why := r.set.Events[i], events.AckUnsaid, error(nil)
		var later *events.Late
		lost := at.Within(index) // what is not sent yet is not safe
		for ; i < len(r.items) && r.set.Events[i] == index; i++ {
			it := &r.items[i]
			if it.fate == fateFailed {
				why = it.why
				lost = lost || it.later == nil || it.state.Load() != stateAbandoned
			}
			if it.later != nil {
				later = it.later
			}
			ack = max(ack, acks[it.fate])
		}
		if later != nil {
			later.Report(!lost)
		}
		mode := r.terms.modes[batch.Events[index].Lane]
		if why == nil {
			if !at.Within(index) {
				batch.Events[index].Accept()
			}
			batch.Ack = max(batch.Ack, ack)
			safe[mode] = true
			continue
		}
		failed[mode] = why
		cause := events.Errorf(events.Unavailable, "make the event safe: %w", why)
		switch {
		case later != nil && !lost:
			batch.Events[index].FailLate(later, cause)
		case produce.ClassOf(why) == produce.Timeout || errors.Is(why, errLeft):
			batch.Events[index].Fail(events.ReasonTimeout, cause) // Kafka may have the messages, or the disk
		default:
			batch.Events[index].Fail(events.ReasonUnavailable, cause)
		}
		batch.RetryAfter = max(batch.RetryAfter, r.d.retryAfter(why))
	}
	r.d.readiness.record(&safe, &failed)
	r.d.causes.Log(first(failed[:]))
}

// first returns the first error that says something about the service. errLeft does not: the client has left.
func first(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, errLeft) {
			return err
		}
	}
	return nil
}
