package delivery

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/delivery/encode"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

// readiness says whether requests are answered 200, by what happens to them. For each mode in use it knows when events were made
// safe last, and when that failed last. Where nothing happens, for example because a load balancer has turned away, it goes by
// whether the spool and Kafka would take events.
type readiness struct {
	d      *Delivery
	topics [modeCount][]string // of the lanes with that mode
	seen   [modeCount]evidence
}

// evidence is what was seen of one mode.
type evidence struct {
	safe, failed atomic.Int64 // the moments at which that happened last; 0: never
	why          atomic.Pointer[error]
}

const (
	// counts is how long an outcome says something about the next one.
	counts = 5 * time.Second
	// allFails is how long nothing but failures is seen until the service is not ready: one topic that is in trouble, or one
	// moment, is no reason to turn all traffic away.
	allFails = time.Second
)

func newReadiness(d *Delivery, topics produce.Topics) *readiness {
	r := &readiness{d: d}
	for _, lane := range events.Lanes() {
		m := d.modes[lane]
		r.topics[m] = append(r.topics[m], encode.Topic(&topics, lane))
	}
	return r
}

// record notes how a request has ended, by the modes of its events.
func (r *readiness) record(safe, failed *[modeCount]bool, batch *events.Batch) {
	now := moment(time.Now())
	for m := range r.seen {
		if safe[m] {
			r.seen[m].safe.Store(now)
		}
		if failed[m] {
			r.seen[m].fail(now, firstFailure(batch))
		}
	}
}

// crowded notes that a request, whose events have failed, has found no room in the buffer.
func (r *readiness) crowded(modes []mode, batch *events.Batch) {
	var safe, failed [modeCount]bool
	for i := range batch.Events {
		if batch.Events[i].Outcome.State == events.StateFailed {
			failed[modes[batch.Events[i].Lane]] = true
		}
	}
	r.record(&safe, &failed, batch)
}

func (e *evidence) fail(now int64, why error) {
	e.failed.Store(now)
	e.why.Store(&why)
}

// firstFailure returns why the first event of the batch that has failed has.
func firstFailure(batch *events.Batch) error {
	for i := range batch.Events {
		if outcome := &batch.Events[i].Outcome; outcome.State == events.StateFailed {
			return outcome.Err
		}
	}
	return nil
}

// check returns nil if events can be made safe, or what is wrong.
func (r *readiness) check() error {
	for m := range r.seen {
		if len(r.topics[m]) == 0 {
			continue
		}
		if err := r.checkMode(mode(m)); err != nil {
			return fmt.Errorf("ack %s: %w", mode(m), err)
		}
	}
	return r.fill()
}

func (r *readiness) checkMode(m mode) error {
	seen := &r.seen[m]
	safe, failed := time.Duration(seen.safe.Load()), time.Duration(seen.failed.Load())
	now := time.Duration(moment(time.Now()))
	switch {
	case now-failed < counts && failed-safe > allFails:
		return fmt.Errorf("requests fail: %w", *seen.why.Load())
	case now-safe < counts:
		return nil
	default:
		return r.possible(m)
	}
}

// possible returns nil if events of the mode would be made safe, as far as is known without trying.
func (r *readiness) possible(m mode) error {
	for _, topic := range r.topics[m] {
		switch {
		case r.d.spooling.isBlocked(topic):
			return fmt.Errorf("topic %s: %w", topic, errBlocked)
		case m == modeKafka && r.d.topic(topic).isWaiting():
			return fmt.Errorf("topic %s: %w", topic, errWaits)
		}
	}
	if m == modeMemory {
		return nil
	}
	kafka := r.d.producer.Ready()
	if m == modeKafka {
		return kafka
	}
	unusable := r.d.spooling.usable()
	switch {
	case unusable == nil:
		return nil
	case kafka != nil:
		return fmt.Errorf("neither the spool nor Kafka takes events: %w; %w", unusable, kafka)
	case r.d.waits():
		return fmt.Errorf("the spool takes no further events, and what waits in it goes first: %w", unusable)
	}
	return nil
}

// fill says when the spool is about to be full while it is needed, so that traffic goes elsewhere in time.
func (r *readiness) fill() error {
	limit := r.d.cfg.Spool.UnreadyFill
	if limit == 1 || len(r.topics[modeSpool])+len(r.topics[modeAuto]) == 0 || !r.d.spooling.isOpen() {
		return nil
	}
	usage := r.d.spooling.usage()
	fill := float64(usage.Bytes) / float64(max(usage.Bytes+usage.Room, 1))
	// A disk that somebody else has filled is no reason while all events go straight to Kafka.
	if fill < limit || !r.d.waits() && r.d.producer.Ready() == nil {
		return nil
	}
	return fmt.Errorf("the spool in %s is %.0f%% full: see why Kafka does not take its events, or give it more room (delivery.spool.max_bytes, and the disk)",
		r.d.cfg.Spool.Dir, 100*fill)
}

// Ready returns nil if events can be made safe, or what is wrong.
func (d *Delivery) Ready(context.Context) error { return d.readiness.check() }

// Override returns why the service is ready although Kafka does not answer, or "" if it is not.
func (d *Delivery) Override(context.Context) string {
	switch {
	case d.readiness.check() != nil:
		return ""
	case d.spooling.usable() == nil && len(d.readiness.topics[modeSpool])+len(d.readiness.topics[modeAuto]) > 0:
		return "the spool in " + filepath.Clean(d.cfg.Spool.Dir) + " takes what Kafka does not"
	default:
		return "requests are answered as delivery.ack says"
	}
}
