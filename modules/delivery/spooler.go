package delivery

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/delivery/spool"
)

// spooler keeps the records of one topic that wait for Kafka. It consists of the log, and of the drain, which sends the
// records from the log to Kafka in their order. It lives as long as the spool. While any record waits, new messages for
// the topic go into the log behind it.
//
// A message is held if it was handed to the producer before its record was appended to the log: the producer may still
// get the message acknowledged. The drain begins only when no message is held. So it neither sends such a message a
// second time, nor sends a record in front of it. The reports on held messages come from the producer's goroutines,
// which only note them; the drain's goroutine settles them.
type spooler struct {
	d     *Delivery
	topic *topic
	log   *spool.Log

	wake chan struct{}

	mu        sync.Mutex
	appending int       // calls that are adding records
	held      int       // messages that the producer holds, and whose records are in the log or are being appended
	reports   []settled // reports on held messages that are not settled yet
	spare     []settled // memory for the next reports
	since     time.Time // when the first record was spooled, as far as is known
}

// settled is the report on a held message.
type settled struct {
	seq uint64
	err error
}

func newSpooler(d *Delivery, t *topic, log *spool.Log) *spooler {
	s := &spooler{d: d, topic: t, log: log, wake: make(chan struct{}, 1)}
	if log.Stats().Records > 0 {
		s.enter()
	}
	return s
}

// enter makes the topic wait. The caller holds mu, or is the only user of the spooler.
func (s *spooler) enter() {
	if !s.topic.waiting.Load() {
		rested := make(chan struct{})
		s.topic.rested.Store(&rested)
		s.topic.waiting.Store(true)
		s.since = time.Now()
	}
}

// begin announces an append of records. The producer holds "held" of their messages. The caller calls end after it.
func (s *spooler) begin(held int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enter()
	s.appending++
	s.held += held
}

// end says that the append that begin has announced is over: the records are in the log, or the caller has given the
// append up and the log decides. released is how many of the announced messages are no longer held, because their
// append has failed.
func (s *spooler) end(released int) {
	s.mu.Lock()
	s.appending--
	s.held -= released
	s.restLocked()
	s.mu.Unlock()
	s.stir()
}

// report notes the producer's report on a held message, and wakes run.
func (s *spooler) report(seq uint64, err error) {
	s.mu.Lock()
	s.reports = append(s.reports, settled{seq: seq, err: err})
	s.mu.Unlock()
	s.stir()
}

// settle marks the records of held messages that were acknowledged as done in the log. If that panics, the records
// stay, and are sent again.
func (s *spooler) settle() {
	s.mu.Lock()
	reports := s.reports
	s.reports, s.spare = s.spare[:0], nil
	s.mu.Unlock()
	if len(reports) == 0 {
		return
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held -= len(reports)
		s.spare = reports[:0]
	}()
	acked := make([]uint64, 0, len(reports))
	for _, r := range reports {
		if r.err == nil {
			acked = append(acked, r.seq)
		}
	}
	if len(acked) > 0 {
		s.log.Done(acked...)
	}
}

// stir wakes run.
func (s *spooler) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// drainable reports whether records may be sent.
func (s *spooler) drainable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.log.Stats()
	if stats.Records+stats.Pending > 0 {
		s.enter() // also for records whose request has stopped waiting
	}
	return s.topic.waiting.Load() && s.held == 0 && len(s.reports) == 0
}

// rest ends the topic's wait if no record waits any more.
func (s *spooler) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restLocked()
}

// restLocked is rest for a caller that holds mu.
func (s *spooler) restLocked() {
	if s.appending == 0 && s.isEmptyLocked() {
		s.topic.waiting.Store(false)
		if rested := s.topic.rested.Swap(nil); rested != nil {
			close(*rested)
		}
		s.since = time.Time{}
		s.topic.open()
	}
}

// isEmpty reports whether the log holds no record, and no message is held. Calls that are about to add records do not
// count. Their requests run at the same time as the caller's, and a new message may come before or behind theirs.
func (s *spooler) isEmpty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isEmptyLocked()
}

func (s *spooler) isEmptyLocked() bool {
	stats := s.log.Stats()
	return s.held == 0 && stats.Records+stats.Pending == 0
}

// seen notes when the first record was spooled.
func (s *spooler) seen(first time.Time) {
	if first.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = first
}

// oldest returns when the first record was spooled, or the zero time if there is none.
func (s *spooler) oldest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// drain names the spooler's goroutine.
func (s *spooler) drain() string { return "the drain of topic " + s.topic.name }

// run drains the log until ctx is over. After a panic it begins again with the first record that is not delivered.
func (s *spooler) run(ctx context.Context) {
	defer s.topic.open()
	c := newChunk(s)
	// After an attempt that has delivered nothing, run waits before the next one, longer each time.
	first, last := s.d.times.firstPause, s.d.times.lastPause
	pause := first
	for ctx.Err() == nil {
		s.settle()
		if !s.drainable() {
			s.topic.open() // a held message may take long
			s.await(ctx)
			continue
		}
		loaded, err := c.load()
		if err != nil {
			s.d.log.Error("the spool cannot be read: trying again", zap.String("topic", s.topic.name), zap.Error(err))
		}
		switch {
		case loaded && !s.drainable():
			c.unload() // the chunk may hold the record of a message that is held by now
		case loaded && c.deliver(ctx):
			pause = first
		case !loaded && err == nil:
			s.rest()
			s.shut()
			s.await(ctx)
		default:
			s.topic.open()
			s.d.pause(pause)
			pause = min(2*pause, last)
		}
	}
}

// shut closes the topic's door if the log holds no record but those that are being appended, so that the topic can stop
// waiting. Under a steady load there would otherwise always be another request that is about to append, because the
// topic waits.
func (s *spooler) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topic.waiting.Load() && s.topic.eager.Swap(false) {
		door := make(chan struct{})
		s.topic.door.Store(&door)
	}
}

// await waits until there may be something to do.
func (s *spooler) await(ctx context.Context) {
	select {
	case <-s.log.Changed():
	case <-s.wake:
	case <-ctx.Done():
	}
}

// topic is the state of a topic, with a spool or without.
type topic struct {
	name    string
	breaker breaker
	// waiting is set while records wait in the topic's log, or are being appended.
	waiting atomic.Bool
	// rested is closed when no record waits any more; it is nil while none waits.
	rested  atomic.Pointer[chan struct{}]
	spooler atomic.Pointer[spooler] // nil: it has none yet

	// eager is set when a request has gone to the spool only because records of the topic wait there.
	eager atomic.Bool
	// door is not nil, and shut, for the moment in which the last records leave the log. New requests wait until it
	// opens.
	door atomic.Pointer[chan struct{}]
}

// open opens the topic's door, if it is shut.
func (t *topic) open() {
	if t.door.Load() == nil {
		return
	}
	if door := t.door.Swap(nil); door != nil {
		close(*door)
	}
}

func (t *topic) isWaiting() bool { return t.waiting.Load() }

// isEmpty reports whether no record of the topic is in the spool, and no message of it is held.
func (t *topic) isEmpty() bool {
	s := t.spooler.Load()
	return s == nil || s.isEmpty()
}
