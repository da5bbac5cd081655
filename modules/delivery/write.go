package delivery

import (
	"context"
	"sync"

	"github.com/opencapture/capture/modules/events"
)

var _ events.Sink = (*Delivery)(nil)

// Write makes the pending events of the batch as safe as their lanes ask. It takes no longer than delivery.timeout.
func (d *Delivery) Write(ctx context.Context, batch *events.Batch) {
	mode, mixed := d.modeOf(batch)
	if mixed {
		d.writeApart(ctx, batch)
		return
	}
	d.write(ctx, mode, batch)
}

// modeOf returns the mode of the batch's pending events, and whether there is more than one.
func (d *Delivery) modeOf(batch *events.Batch) (found mode, mixed bool) {
	if d.uniform {
		return d.modes[0], false
	}
	found = modeCount
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		switch own := d.modes[event.Lane]; found {
		case own:
		case modeCount:
			found = own
		default:
			return found, true
		}
	}
	return found, false
}

// writeApart writes the events of each mode as a batch of their own.
func (d *Delivery) writeApart(ctx context.Context, batch *events.Batch) {
	var parts [modeCount]events.Batch
	var origins [modeCount][]int
	for i := range batch.Events {
		event := &batch.Events[i]
		if event.Pending() {
			own := d.modes[event.Lane]
			parts[own].Events = append(parts[own].Events, *event)
			origins[own] = append(origins[own], i)
		}
	}
	var writes sync.WaitGroup
	for own := range parts {
		part := &parts[own]
		if len(part.Events) == 0 {
			continue
		}
		pending := part.Events
		*part = *batch
		part.Events = pending
		writes.Go(func() { d.write(ctx, mode(own), part) })
	}
	writes.Wait()
	for own := range parts {
		part := &parts[own]
		for j, i := range origins[own] {
			batch.Events[i].Outcome, batch.Events[i].Notes = part.Events[j].Outcome, part.Events[j].Notes
		}
		batch.Ack, batch.RetryAfter = max(batch.Ack, part.Ack), max(batch.RetryAfter, part.RetryAfter)
	}
}

func (d *Delivery) write(ctx context.Context, mode mode, batch *events.Batch) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.Timeout, errTimeout)
	defer cancel()
	parcel, err := d.carrier.Pack(ctx, batch)
	if err != nil {
		batch.FailPending(events.ReasonTimeout, err)
		return
	}
	switch {
	case parcel.Len() == 0:
		parcel.Leave(nil)
	case mode == modeMemory:
		d.toMemory(ctx, parcel, batch)
	case mode == modeKafka:
		d.toKafka(ctx, parcel, batch)
	case mode == modeAuto && d.spool.Load() != nil:
		d.toEither(ctx, parcel, batch)
	default:
		d.toSpool(ctx, parcel, batch)
	}
	if batch.Ack != events.AckUnsaid {
		d.metrics.acks[batch.Ack].Inc(1)
	}
}

// toKafka accepts what Kafka has acknowledged, or the topic of dead letters in its place.
func (d *Delivery) toKafka(ctx context.Context, parcel events.Parcel, batch *events.Batch) {
	done, err := d.allow()
	if err != nil {
		parcel.Leave(nil)
		batch.FailPending(events.ReasonUnavailable, err)
		batch.RetryAfter = d.openFor
		return
	}
	unsettled, failure := d.send(ctx, parcel)
	done(d.outage(ctx, unsettled, failure))
	d.finish(ctx, parcel, batch)
}

// send sends the parcel and waits until all messages have their verdict or ctx is over.
func (d *Delivery) send(ctx context.Context, parcel events.Parcel) (unsettled int, failure error) {
	parcel.Send(ctx)
	select {
	case <-parcel.Done():
	case <-ctx.Done():
	}
	for i := range parcel.Len() {
		settled, err := parcel.Verdict(i)
		switch {
		case !settled:
			unsettled++
		case err != nil && failure == nil:
			failure = err
		}
	}
	return unsettled, failure
}

// finish ends the batch by the verdicts, as it is not to be spooled.
func (d *Delivery) finish(ctx context.Context, parcel events.Parcel, batch *events.Batch) {
	d.buryRefused(ctx, parcel, batch)
	parcel.Settle(ctx, batch)
	parcel.Leave(nil)
	batch.Ack = max(batch.Ack, events.AckKafka)
}

// buryRefused accepts the events whose messages are all in Kafka but those that it has refused for good, once these are in the
// dead letters.
func (d *Delivery) buryRefused(ctx context.Context, parcel events.Parcel, batch *events.Batch) {
	for i := 0; i < parcel.Len(); {
		index, refused, safe := parcel.Event(i), false, true
		for ; i < parcel.Len() && parcel.Event(i) == index; i++ {
			settled, err := parcel.Verdict(i)
			if err == nil {
				safe = safe && settled
				continue
			}
			refused = true
			var m events.Message
			parcel.Read(i, &m)
			safe = d.bury(ctx, &m, err) == nil && safe
		}
		if refused && safe {
			batch.Events[index].Accept()
		}
	}
}

// toMemory accepts what Kafka's client has taken into memory.
func (d *Delivery) toMemory(ctx context.Context, parcel events.Parcel, batch *events.Batch) {
	short, cancel := context.WithTimeoutCause(ctx, d.cfg.SpoolAfter, errLate)
	parcel.Send(short)
	cancel()
	for i := 0; i < parcel.Len(); {
		index, taken := parcel.Event(i), true
		for ; i < parcel.Len() && parcel.Event(i) == index; i++ {
			_, err := parcel.Verdict(i)
			taken = taken && err == nil
		}
		if taken {
			batch.Events[index].Accept()
			batch.Ack = events.AckMemory
		}
	}
	// What is left is what was not taken, and has its verdict.
	if batch.Pending() > 0 {
		for i := range parcel.Len() {
			if _, err := parcel.Verdict(i); err != nil {
				batch.Events[parcel.Event(i)].Fail(events.ReasonUnavailable, events.Errorf(events.Unavailable, "hand over to Kafka: %w", err))
			}
		}
	}
	parcel.Leave(func(_ int, err error) {
		if err != nil {
			d.metrics.lost.Inc(1)
		}
	})
}

// toEither is auto: what Kafka has not acknowledged after spool_after goes to the spool.
func (d *Delivery) toEither(ctx context.Context, parcel events.Parcel, batch *events.Batch) {
	if d.isBusy(parcel) {
		d.spill(ctx, parcel, batch, false)
		return
	}
	done, err := d.allow()
	if err != nil {
		d.spill(ctx, parcel, batch, false)
		return
	}
	soon, cancel := context.WithTimeoutCause(ctx, d.cfg.SpoolAfter, errLate)
	defer cancel()
	unsettled, failure := d.send(soon, parcel)
	done(d.outage(ctx, unsettled, failure))
	if unsettled == 0 && failure == nil {
		parcel.Settle(ctx, batch)
		parcel.Leave(nil)
		batch.Ack = max(batch.Ack, events.AckKafka)
		return
	}
	d.spill(ctx, parcel, batch, true)
}

// toSpool accepts what is in the spool. Where that cannot be used, and nothing is in front of them there, Kafka has them directly.
func (d *Delivery) toSpool(ctx context.Context, parcel events.Parcel, batch *events.Batch) {
	if d.spool.Load() == nil {
		d.toKafka(ctx, parcel, batch)
		return
	}
	d.spill(ctx, parcel, batch, false)
}
