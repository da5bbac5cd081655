package delivery

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/delivery/encode"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

// request is a set of messages that are made safe together. The goroutine that made the request owns it. Reports come
// on the producer's goroutines, and reach the request only through take.
type request struct {
	d        *Delivery
	terms    *terms // the configuration that the request is handled by
	messages []produce.Message
	items    []item
	uses     []use // the topics, in the order of their first message

	set      *encode.Set // the set that holds the messages; nil for dead letters
	origin   *request    // for dead letters of a request: that request, whose memory the messages refer to
	reserved int64       // bytes of delivery.buffer
	exempt   bool        // its records pass the limits of the spool

	started  time.Time
	timer    *time.Timer
	awaited  atomic.Int32  // items in stateSent
	reported chan struct{} // gets a value when no item is in stateSent any more
	report   func(i int, err error)

	// users counts the owner, one use by the producer for every message that it holds, and one for a request of dead
	// letters whose origin this request is. The last user to leave gives the memory back.
	users atomic.Int32
}

// A message's state says who waits for the producer's report on it. Either the report or the owner makes the change
// from sent; the owner makes it when it stops waiting. Exactly one of the two wins.
//
//	idle ---> sent ---> reported   the owner reads err and decides
//	             |----> spooled    a record of the message is in the spool: the report goes to its spooler
//	             '----> abandoned  nobody waits for the report
const (
	stateIdle uint32 = iota
	stateSent
	stateReported
	stateSpooled
	stateAbandoned
)

// item is the state of one message.
type item struct {
	state atomic.Uint32
	err   error // the report; readable once state is reported
	// later is told the report if nobody waits for it any more. The owner sets it while state is sent. It is nil if
	// the report makes no difference.
	later *events.Late

	// Only the owner touches the following.
	use  int // index in request.uses
	fate fate
	why  error // if fate is fateFailed

	// spooler and seq say where the message's record is, once state is spooled.
	spooler *spooler
	seq     uint64
}

// plan is what is done with a request's messages for one topic.
type plan uint8

const (
	// planFail answers the events of the messages with 503.
	planFail plan = iota
	// planProduce hands the messages to the producer.
	planProduce
	// planSpool appends the messages to the spool.
	planSpool
	// planDirect hands the messages to the producer because the spool has refused them.
	planDirect
)

// fate is what has become of a message.
type fate uint8

const (
	fateOpen   fate = iota
	fateKafka       // all in-sync replicas have it
	fateSpool       // it is in the spool
	fateMemory      // the producer has it
	fateFailed      // the message is not safe
)

// acks maps a fate to what it means to a client.
var acks = [...]events.Ack{
	fateOpen: events.AckUnsaid, fateKafka: events.AckKafka, fateSpool: events.AckSpool, fateMemory: events.AckMemory,
	fateFailed: events.AckUnsaid,
}

// use is a request's use of a topic. All the request's messages for the topic take the same way, so that they keep
// their order.
type use struct {
	*topic
	mode mode // the strictest mode of its messages
	plan plan
	// acked counts the messages that Kafka has answered, refusals included. failed counts the messages whose report is
	// another error, or has not come in time.
	acked, failed int
}

// pool is a pool of requests that are used again.
type pool struct{ sync.Pool }

func (p *pool) get(d *Delivery, terms *terms) *request {
	r, ok := p.Get().(*request)
	if !ok {
		r = &request{d: d, reported: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
		r.timer.Stop()
		r.report = r.take
	}
	r.terms = terms
	r.users.Store(1)
	r.started = time.Now()
	return r
}

// fill makes items of the messages.
func (r *request) fill(messages []produce.Message) {
	const kept = 4096 // a larger list of items is not kept for another request
	r.messages = messages
	if n := len(messages); cap(r.items) < n || cap(r.items) > kept {
		r.items = make([]item, n)
	} else {
		r.items = r.items[:n]
	}
	r.uses = r.uses[:0]
	last := -1
	for i := range messages {
		if last < 0 || r.uses[last].name != messages[i].Topic {
			last = r.useOf(messages[i].Topic)
		}
		it := &r.items[i]
		it.state.Store(stateIdle)
		it.err, it.later, it.why, it.spooler = nil, nil, nil, nil
		it.use, it.fate, it.seq = last, fateOpen, 0
	}
}

// useOf returns the index of the request's use of a topic.
func (r *request) useOf(name string) int {
	for i := range r.uses {
		if r.uses[i].name == name {
			return i
		}
	}
	r.uses = append(r.uses, use{topic: r.d.topic(name), mode: modeMemory})
	return len(r.uses) - 1
}

// of returns the item's use of its topic.
func (r *request) of(it *item) *use { return &r.uses[it.use] }

// produce hands the messages with the wanted plan to the producer.
func (r *request) produce(wanted plan) {
	n := int32(0)
	for i := range r.items {
		if it := &r.items[i]; r.of(it).plan == wanted {
			it.state.Store(stateSent)
			n++
		}
	}
	if n == 0 {
		return
	}
	r.users.Add(n)
	r.awaited.Add(n)
	if int(n) == len(r.items) {
		r.hand(0, len(r.items), r.report)
		return
	}
	for i := 0; i < len(r.items); {
		start := i
		for i < len(r.items) && r.of(&r.items[i]).plan == wanted {
			i++
		}
		if start < i {
			r.hand(start, i, func(j int, err error) { r.take(start+j, err) })
			continue
		}
		i++
	}
}

// hand hands the messages with the indexes from "from" up to, but not including, "to" to the producer.
//
// If the producer panics, hand fails the messages that have no report, because nobody knows whether the producer has
// them. As far as their mode allows, these messages go to the spool; otherwise their client sends them again. The panic
// says nothing about Kafka. The producer may still report on the messages, so the request's memory is used again only
// after these reports. The request's room in the buffer is free at once.
func (r *request) hand(from, to int, report func(int, error)) {
	defer func() {
		caught := panics.Caught(recover())
		if caught == nil {
			return
		}
		panics.Log(r.d.log, "the producer", caught)
		for i := from; i < to; i++ {
			if it := &r.items[i]; r.abandon(it) {
				it.fail(produce.Errorf(produce.Unavailable, "hand the message to the producer: %w", caught))
			}
		}
		for of := r; of != nil; of = of.origin {
			of.d.release(of.reserved)
			of.reserved = 0
		}
	}()
	r.d.producer.Produce(r.messages[from:to], report)
}

// take takes the producer's report on a message.
func (r *request) take(i int, err error) {
	it := &r.items[i]
	it.err = err
	switch {
	case it.state.CompareAndSwap(stateSent, stateReported):
		r.unawait()
	case it.state.Load() == stateSpooled:
		it.spooler.report(it.seq, err)
	case it.later != nil:
		it.later.Report(err == nil)
	case err != nil && r.of(it).mode == modeMemory:
		r.d.metrics.lost.Inc(1)
	}
	r.leave()
}

// unawait counts one message less that is waited for.
func (r *request) unawait() {
	if r.awaited.Add(-1) == 0 {
		select {
		case r.reported <- struct{}{}:
		default:
		}
	}
}

// abandon stops waiting for the report on a message. It returns false if the report has already come.
func (r *request) abandon(it *item) bool {
	if !it.state.CompareAndSwap(stateSent, stateAbandoned) {
		return false
	}
	r.unawait()
	return true
}

// leaveLate abandons a message of an event, and has the report on it told to the event's Late. It returns false if the
// report has already come.
func (r *request) leaveLate(i int) bool {
	it := &r.items[i]
	if r.set == nil {
		return r.abandon(it) // a dead letter
	}
	if it.later = r.laterOf(i); it.later == nil {
		it.later = &events.Late{}
		it.later.Await() // the owner reports in settle
	}
	it.later.Await()
	if r.abandon(it) {
		return true
	}
	it.later.Report(true) // the owner takes the report into account
	return false
}

// laterOf returns the Late of the event that a message belongs to, or nil if the event has none.
func (r *request) laterOf(i int) *events.Late {
	for of := r.set.Events[i]; i >= 0 && r.set.Events[i] == of; i-- {
		if r.items[i].later != nil {
			return r.items[i].later
		}
	}
	return nil
}

// wait returns when every message that was sent has its report. It returns earlier when ctx is over, or when most has
// passed since the request's start.
func (r *request) wait(ctx context.Context, most time.Duration) {
	if r.awaited.Load() == 0 {
		return
	}
	r.timer.Reset(most - time.Since(r.started))
	defer r.timer.Stop()
	for r.awaited.Load() > 0 {
		select {
		case <-r.reported:
		case <-r.timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// leave says that the owner, or the producer with one message, is done with the request.
func (r *request) leave() {
	if r.users.Add(-1) > 0 {
		return
	}
	d, origin := r.d, r.origin
	if r.set != nil {
		d.encoder.Recycle(r.set)
	}
	d.release(r.reserved)
	r.terms, r.messages, r.set, r.origin, r.reserved, r.exempt = nil, nil, nil, nil, 0, false
	for i := range r.items {
		it := &r.items[i]
		it.err, it.later, it.why, it.spooler = nil, nil, nil, nil
	}
	clear(r.uses)
	d.requests.Put(r)
	if origin != nil {
		origin.leave()
	}
}
