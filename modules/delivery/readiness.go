package delivery

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/delivery/encode"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

// readiness says whether requests are answered 200, judged by how requests end. For each mode in use it knows when
// events were last made safe, and since when requests fail. While no requests come, for example because a load balancer
// has turned away, it asks whether the spool and Kafka would take events.
type readiness struct {
	d    *Delivery
	main string // the topic of ordinary events
	seen [modeCount]evidence
}

// evidence is what readiness has seen of one mode. Its times are instants; 0 means never.
type evidence struct {
	safe    atomic.Int64 // when events were last made safe
	failing atomic.Int64 // when a request failed for the first time since then
	failed  atomic.Int64 // when a request last failed
	why     atomic.Pointer[error]
}

func newReadiness(d *Delivery, topics produce.Topics) *readiness {
	return &readiness{d: d, main: encode.Topic(&topics, events.LaneMain)}
}

// record notes how a request has ended, by the modes of its events. A request with one failed event is answered 503, so
// its safe events are no success.
func (r *readiness) record(safe *[modeCount]bool, failed *[modeCount]error) {
	now := instant(time.Now())
	for m := range r.seen {
		switch {
		case failed[m] != nil:
			r.seen[m].fail(now, failed[m])
		case safe[m]:
			r.seen[m].succeeded(now)
		}
	}
}

// crowded notes that a request has found no room in the buffer, and that its events have failed.
func (r *readiness) crowded(modes []mode, batch *events.Batch) {
	var safe [modeCount]bool
	var failed [modeCount]error
	for i := range batch.Events {
		if event := &batch.Events[i]; event.Outcome.State == events.StateFailed {
			failed[modes[event.Lane]] = event.Outcome.Err
		}
	}
	r.record(&safe, &failed)
}

// slow notes that a request has waited for Kafka longer than a request that is going to succeed.
func (r *readiness) slow(of *request) {
	now := instant(time.Now())
	for i := range of.uses {
		if u := &of.uses[i]; u.plan == planProduce || u.plan == planDirect {
			r.seen[u.mode].fail(now, errSlow)
		}
	}
}

// full notes that a request has waited as long for room in the buffer.
func (r *readiness) full() {
	now, terms := instant(time.Now()), r.d.terms.Now()
	for m := range r.seen {
		if len(terms.topics[m]) > 0 {
			r.seen[m].fail(now, errCrowded)
		}
	}
}

var (
	errSlow    = errors.New("requests wait for Kafka's acknowledgement")
	errCrowded = errors.New("requests wait for room in delivery.buffer")
)

func (e *evidence) succeeded(now int64) {
	e.safe.Store(now)
	if e.failing.Load() != 0 {
		e.failing.Store(0)
	}
}

func (e *evidence) fail(now int64, why error) {
	e.why.Store(&why)
	e.failed.Store(now)
	e.failing.CompareAndSwap(0, now)
}

// check returns nil if events can be made safe, or why they cannot.
func (r *readiness) check() error {
	terms := r.d.terms.Now()
	for m := range r.seen {
		if len(terms.topics[m]) == 0 {
			continue
		}
		if err := r.checkMode(mode(m), terms); err != nil {
			return fmt.Errorf("ack %s: %w", mode(m), err)
		}
	}
	return r.fill(terms)
}

func (r *readiness) checkMode(m mode, terms *terms) error {
	seen := &r.seen[m]
	now := instant(time.Now())
	recent := func(at int64) bool { return at != 0 && now-at < int64(r.d.times.counts) }
	failing, failed := seen.failing.Load(), seen.failed.Load()
	switch {
	case failing != 0 && recent(failed) && failed-failing >= int64(r.d.times.allFails):
		return fmt.Errorf("requests fail: %w", *seen.why.Load())
	case recent(seen.safe.Load()):
		return nil
	case m != terms.modes[events.LaneMain]:
		// An absent Kafka is no reason to turn traffic away while ordinary events do without Kafka.
		return nil
	default:
		return r.possible(m, terms)
	}
}

// possible returns nil if events of the mode would be made safe, as far as is known without trying.
func (r *readiness) possible(m mode, terms *terms) error {
	err := r.trouble(terms.topics[m], func(topic string) error {
		switch {
		case r.d.spooling.isBlocked(topic):
			return errBlocked
		case m == modeKafka && r.d.topic(topic).isWaiting():
			return errWaits
		}
		return nil
	})
	if err != nil {
		return err
	}
	kafka := r.d.producer.Ready()
	switch m {
	case modeKafka:
		return kafka
	case modeMemory:
		// The producer may take messages although Kafka is away. If the last events failed, Kafka has to be there
		// again.
		if r.seen[m].failing.Load() == 0 && r.seen[m].safe.Load() != 0 {
			return nil
		}
		return kafka
	}
	unusable := r.d.spooling.usable()
	switch {
	case unusable == nil:
		return nil
	case kafka != nil:
		return fmt.Errorf("neither the spool nor Kafka takes events: %w; %w", unusable, kafka)
	}
	return r.trouble(terms.topics[m], func(topic string) error {
		if r.d.topic(topic).isWaiting() {
			return fmt.Errorf("the spool takes no further events, and what waits in it goes first: %w", unusable)
		}
		return nil
	})
}

// trouble returns what is wrong with the topic of ordinary events, if that topic has the mode. For other modes it
// returns an error only if all topics of the mode are in trouble: trouble of one topic is no reason to turn the events
// of the others away.
func (r *readiness) trouble(topics []string, with func(topic string) error) error {
	var err error
	for _, topic := range topics {
		if err = with(topic); err == nil {
			return nil
		}
		err = fmt.Errorf("topic %s: %w", topic, err)
		if topic == r.main {
			break
		}
	}
	return err
}

// fill returns an error when the spool is needed and about to be full, so that traffic goes elsewhere in time.
func (r *readiness) fill(terms *terms) error {
	limit := terms.Spool.UnreadyFill
	if limit == 1 || !terms.useSpool() || !r.d.spooling.isOpen() {
		return nil
	}
	usage := r.d.spooling.usage()
	fill := float64(usage.Bytes) / float64(max(usage.Bytes+usage.Room, 1))
	if fill < limit || !r.needsSpool(terms) {
		return nil
	}
	return fmt.Errorf("the spool in %s is %.0f%% full: see why Kafka does not take its events, or give it "+
		"more room (delivery.spool.max_bytes, and the disk)",
		r.d.cfg.Spool.Dir, 100*fill)
}

// needsSpool reports whether new events go to the spool, or soon will. A disk that another program has filled is no
// reason to turn away events that go straight to Kafka.
func (r *readiness) needsSpool(terms *terms) bool {
	if r.d.producer.Ready() != nil {
		return true
	}
	for _, m := range []mode{modeSpool, modeAuto} {
		if r.trouble(terms.topics[m], func(topic string) error {
			if r.d.topic(topic).isWaiting() {
				return errWaits
			}
			return nil
		}) != nil {
			return true
		}
	}
	return false
}

// Ready returns nil if events can be made safe, or why they cannot.
func (d *Delivery) Ready(context.Context) error { return d.readiness.check() }

// Override returns why the service is ready although Kafka does not answer, or "" if the service is not ready.
func (d *Delivery) Override(context.Context) string {
	switch {
	case d.readiness.check() != nil:
		return ""
	case d.spooling.usable() == nil && d.terms.Now().useSpool():
		return "the spool in " + filepath.Clean(d.cfg.Spool.Dir) + " takes what Kafka does not"
	default:
		return "requests are answered as delivery.ack says"
	}
}
