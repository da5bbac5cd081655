package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/delivery/spool"
)

// spooling is the spool as delivery uses it. It is open; or it is not open, and spooling knows the topics whose events
// wait in it.
//
// A spool that cannot be opened may hold events all the same. A process that this one replaces may still have it open,
// or its file system may have become read-only. New events must not overtake the events in it. So spooling looks at the
// directory without changing anything, and blocks the topics that have records there. Events of a blocked topic are
// answered 503 until the spool can be opened, or the records are gone. If even the look fails, the service logs that it
// cannot keep the order, and takes events.
type spooling struct {
	d *Delivery

	opened  atomic.Pointer[spool.Spool]
	failure atomic.Pointer[error] // why the spool is not open; never nil, and without meaning once it is open
	blocked atomic.Pointer[map[string]bool]

	mu      sync.Mutex // guards making spoolers; none is made once stopped is set
	stopped bool
	found   uint64 // records that waited when the spool was opened
}

var errNoSpool = errors.New("the spool is not open")

func newSpooling(d *Delivery) *spooling {
	s := &spooling{d: d}
	s.failure.Store(&errNoSpool)
	return s
}

func (s *spooling) isOpen() bool { return s.opened.Load() != nil }

// isBlocked reports whether events of the topic wait in a spool that is not open.
func (s *spooling) isBlocked(topic string) bool {
	blocked := s.blocked.Load()
	return blocked != nil && (*blocked)[topic]
}

// usable returns nil if records can be added to the spool, or why they cannot.
func (s *spooling) usable() error {
	opened := s.opened.Load()
	if opened == nil {
		return *s.failure.Load()
	}
	return opened.Usable()
}

func (s *spooling) usage() spool.Usage {
	if opened := s.opened.Load(); opened != nil {
		return opened.Usage()
	}
	return spool.Usage{}
}

// start opens the spool. If that fails, start goes on trying in the background.
func (s *spooling) start() {
	err := s.open()
	if err == nil {
		return
	}
	s.d.log.Error("the spool cannot be used: events are only safe once Kafka has them. Trying again in the background",
		zap.Error(err))
	unseen := s.look(err, nil)
	s.d.work.Keep(s.d.ctx, "the attempt to open the spool", func(context.Context) {
		for s.d.pause(s.d.times.reopen) {
			err := s.open()
			if err == nil {
				s.d.log.Info("the spool can be used")
				return
			}
			unseen = s.look(err, unseen)
		}
	})
}

// open opens the spool and begins to drain it.
func (s *spooling) open() error {
	opened, err := s.d.cfg.Spool.open(s.d.metrics.synced.Record, s.d.log)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.Join(errNoSpool, opened.Close())
	}
	limitSpool(opened, s.d.terms.Now())
	for _, log := range opened.Logs() {
		if log.Name() != deadLetterLog {
			s.found += log.Stats().Records
			s.add(s.d.topic(log.Name()), log)
		}
	}
	// The topics with records are waiting by now: no event overtakes the records between the block and the open spool.
	s.opened.Store(opened)
	s.blocked.Store(nil)
	if s.found > 0 {
		s.d.log.Info("events of an earlier process wait in the spool", zap.Uint64("records", s.found))
	}
	return nil
}

// limit gives the spool, if it is open, the limits in force.
func (s *spooling) limit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if opened := s.opened.Load(); opened != nil {
		limitSpool(opened, s.d.terms.Now())
	}
}

func limitSpool(opened *spool.Spool, terms *terms) {
	opened.Limit(int64(terms.Spool.MaxBytes), int64(terms.Spool.Reserve))
}

// look finds out which topics have records in a spool that could not be opened because of err, and blocks these topics.
// If it cannot look, it returns why. It logs that only if before, the result of the last look, is nil.
func (s *spooling) look(err, before error) error {
	s.failure.Store(&err)
	inspected, unseen := spool.Inspect(s.d.cfg.Spool.Dir)
	if unseen != nil {
		if before == nil {
			s.d.log.Error("what waits in the spool is not known: "+
				"new events may come to Kafka before events that wait there", zap.Error(unseen))
		}
		s.blocked.Store(nil)
		return unseen
	}
	blocked := map[string]bool{}
	for _, log := range inspected.Logs() {
		if log.Name() != deadLetterLog && log.Stats().Records > 0 {
			blocked[log.Name()] = true
		}
	}
	if err := inspected.Close(); err != nil {
		s.d.log.Debug("close the inspected spool", zap.Error(err))
	}
	known := s.blocked.Load()
	if len(blocked) > 0 && (known == nil || len(*known) != len(blocked)) {
		s.d.log.Error("events wait in a spool that cannot be written: "+
			"new events of their topics are answered 503 until it can",
			zap.Strings("topics", slices.Sorted(maps.Keys(blocked))), zap.Error(err))
	}
	s.blocked.Store(&blocked)
	return nil
}

// spooler returns the spooler of a topic, and makes it if there is none yet.
func (s *spooling) spooler(t *topic) (*spooler, error) {
	if found := t.spooler.Load(); found != nil {
		return found, nil
	}
	opened := s.opened.Load()
	if opened == nil {
		return nil, fmt.Errorf("%w: %w", errNoSpool, *s.failure.Load())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := t.spooler.Load(); found != nil {
		return found, nil
	}
	if s.stopped {
		return nil, errNoSpool
	}
	return s.add(t, opened.Log(t.name)), nil
}

// add makes the spooler of a topic and starts its drain. The caller holds mu.
func (s *spooling) add(t *topic, log *spool.Log) *spooler {
	made := newSpooler(s.d, t, log)
	t.spooler.Store(made)
	s.d.work.Keep(s.d.ctx, made.drain(), made.run)
	return made
}

// stop ends the drains.
func (s *spooling) stop() {
	s.mu.Lock()
	s.stopped = true
	s.d.cancel()
	s.mu.Unlock()
}

// close closes the spool, if it is open.
func (s *spooling) close() error {
	opened := s.opened.Load()
	if opened == nil {
		return nil
	}
	if err := opened.Close(); err != nil {
		return fmt.Errorf("close the spool: %w", err)
	}
	return nil
}
