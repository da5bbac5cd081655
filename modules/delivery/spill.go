package delivery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/events"
)

// place is where in the spool a message is; the zero value is nowhere.
type place struct {
	*queue
	seq uint64
}

func isSpooled(p place) bool { return p.queue != nil }

// spill puts the messages of the parcel that Kafka has not acknowledged into the spool and accepts their events. sent says that
// the parcel was sent.
func (d *Delivery) spill(ctx context.Context, parcel events.Parcel, batch *events.Batch, sent bool) {
	places := make([]place, parcel.Len())
	err := d.spoolParcel(ctx, parcel, places, sent)
	ack := events.AckKafka // by now, that is
	if slices.ContainsFunc(places, isSpooled) {
		ack = events.AckSpool
	}
	if accept(parcel, batch, places) {
		batch.Ack = max(batch.Ack, ack)
	}
	if err != nil {
		d.unspooled(ctx, parcel, batch, places, sent, err)
	}
	parcel.Leave(func(i int, err error) {
		place := places[i]
		if !isSpooled(place) {
			return // its event has failed
		}
		if err == nil {
			place.log.Done(place.seq)
		}
		place.release(1)
	})
}

// accept accepts the events whose messages are all in the spool or acknowledged, and reports whether there are any.
func accept(parcel events.Parcel, batch *events.Batch, places []place) (some bool) {
	for i := 0; i < parcel.Len(); {
		index, safe := parcel.Event(i), true
		for ; i < parcel.Len() && parcel.Event(i) == index; i++ {
			if !isSpooled(places[i]) {
				settled, err := parcel.Verdict(i)
				safe = safe && settled && err == nil
			}
		}
		if safe {
			batch.Events[index].Accept()
			some = true
		}
	}
	return some
}

// unspooled deals with a parcel that the spool has not taken, or not all of. Kafka may still acknowledge what was sent; what was
// not is sent now, unless something else is in front of it in the spool.
func (d *Delivery) unspooled(ctx context.Context, parcel events.Parcel, batch *events.Batch, places []place, sent bool, cause error) {
	d.metrics.refused.Inc(1)
	if errors.Is(cause, spool.ErrFull) {
		batch.RetryAfter = d.retryAfter()
	}
	switch {
	case sent:
		select {
		case <-parcel.Done():
		case <-ctx.Done():
		}
	case !slices.ContainsFunc(places, isSpooled) && !d.any(parcel, (*queue).holds):
		if done, err := d.allow(); err == nil {
			unsettled, failure := d.send(ctx, parcel)
			done(d.outage(ctx, unsettled, failure))
			d.buryRefused(ctx, parcel, batch)
		}
	}
	if accept(parcel, batch, places) {
		batch.Ack = max(batch.Ack, events.AckKafka)
	}
	batch.FailPending(events.ReasonUnavailable, events.Errorf(events.Unavailable, "neither Kafka nor the spool took the event: %w", cause))
}

// group is the records of one topic.
type group struct {
	topic   string
	indexes []int // of the messages in the parcel
	held    int   // messages that Kafka's client has as well
	text    []byte
	ends    []int // of the records in text
	records [][]byte
}

// groups is memory that one spill needs and the next one uses again.
type groups struct{ list []group }

var groupsPool = sync.Pool{New: func() any { return new(groups) }}

// maxPooledText is the largest text of a group that is kept for another spill.
const maxPooledText = 1 << 20

// of returns the group of the topic.
func (g *groups) of(topic string) *group {
	for i := range g.list {
		if g.list[i].topic == topic {
			return &g.list[i]
		}
	}
	if len(g.list) == cap(g.list) {
		g.list = append(g.list, group{})
	} else {
		g.list = g.list[:len(g.list)+1]
	}
	found := &g.list[len(g.list)-1]
	*found = group{topic: topic, indexes: found.indexes[:0], text: found.text[:0], ends: found.ends[:0], records: found.records[:0]}
	return found
}

func (g *groups) recycle() {
	for i := range g.list {
		if cap(g.list[i].text) > maxPooledText {
			return
		}
	}
	g.list = g.list[:0]
	groupsPool.Put(g)
}

// spoolParcel appends the messages of the parcel that are not acknowledged to the logs of their topics, and notes their places.
func (d *Delivery) spoolParcel(ctx context.Context, parcel events.Parcel, places []place, sent bool) error {
	g := groupsPool.Get().(*groups)
	defer g.recycle()
	now := time.Now()
	var m events.Message
	for i := range parcel.Len() {
		settled, err := parcel.Verdict(i)
		if settled && err == nil {
			continue
		}
		parcel.Read(i, &m)
		if m.Time.IsZero() {
			m.Time = now
		}
		to := g.of(m.Topic)
		to.text = appendRecord(to.text, &m)
		to.ends = append(to.ends, len(to.text))
		to.indexes = append(to.indexes, i)
		if sent && !settled {
			to.held++
		}
	}
	if len(g.list) == 1 {
		return d.spoolGroup(ctx, &g.list[0], places)
	}
	faults := make([]error, len(g.list))
	var appends sync.WaitGroup
	for i := range g.list {
		appends.Go(func() { faults[i] = d.spoolGroup(ctx, &g.list[i], places) })
	}
	appends.Wait()
	return errors.Join(faults...)
}

// spoolGroup appends one topic's records.
func (d *Delivery) spoolGroup(ctx context.Context, g *group, places []place) error {
	q := d.queue(g.topic)
	if q == nil {
		return errNoSpool
	}
	start := 0
	for _, end := range g.ends {
		g.records = append(g.records, g.text[start:end])
		start = end
	}
	q.begin(g.held)
	defer q.end()
	first, err := q.log.Append(ctx, g.records)
	if err != nil {
		q.release(g.held)
		return err
	}
	d.pace.came(len(g.text))
	for k, i := range g.indexes {
		places[i] = place{queue: q, seq: first + uint64(k)}
	}
	return nil
}
