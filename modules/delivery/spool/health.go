package spool

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"

	"github.com/opencapture/capture/modules/panics"
)

// ErrNoAnswer means that a small write to the disk has been under way for so long that it may never end.
var ErrNoAnswer = errors.New("the disk does not answer")

const (
	// probeAfter is how long after the last successful commit or probe Usable trusts that the next one would succeed,
	// too.
	probeAfter = 5 * time.Second
	// probePatience is how long Usable waits for a probe.
	probePatience = time.Second
	// smallRecord is the payload size of the record that Usable asks room for.
	smallRecord = 1 << 10
)

// prober names the goroutine that tries the disk, for the log lines about its panics.
const prober = "the probe of the spool's disk"

// health is how the last commit or probe went. Its methods are safe for concurrent use. All but close never wait for
// the disk.
type health struct {
	log *zap.Logger

	mu      sync.Mutex
	closed  bool
	good    time.Time     // when a commit or a probe has last succeeded
	tried   time.Time     // when the last probe began
	failure error         // of the last probe; nil if it, or a commit since then, has succeeded
	probing chan struct{} // closed when the probe that is under way has ended; nil without one
}

// succeeded notes that a commit has succeeded.
func (h *health) succeeded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.good, h.failure = time.Now(), nil
}

// begin returns the probe that is under way, and when it began. If no probe is under way and one is due, begin starts
// it. A probe is due if it is urgent, if the last probe has failed, or if nothing has succeeded for probeAfter. It is
// never due within pause after the last probe began.
func (h *health) begin(urgent bool, pause time.Duration, probe func() error) (probing chan struct{}, began time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	due := urgent || h.failure != nil || time.Since(h.good) >= probeAfter
	if h.probing == nil && !h.closed && due && time.Since(h.tried) >= pause {
		h.probing, h.tried = make(chan struct{}), time.Now()
		ended := h.probing
		panics.Go(h.log, prober, func() { h.run(probe, ended) })
	}
	return h.probing, h.tried
}

func (h *health) run(probe func() error, ended chan struct{}) {
	err := panics.Try(h.log, prober, probe) // so that the callers that wait for the probe learn of its panic
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.probing, h.failure = nil, err; err == nil {
		h.good = time.Now()
	}
	close(ended)
}

func (h *health) last() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failure
}

// close lets no further probe begin, and waits for the probe that is under way.
func (h *health) close() {
	h.mu.Lock()
	h.closed = true
	probing := h.probing
	h.mu.Unlock()
	if probing != nil {
		<-probing
	}
}

// Usable returns nil if an Append of a small record would succeed now, as far as is known, or else the reason why not.
// It costs next to nothing, so that it can be called every second: it knows the outcome of each log's last commit. It
// probes the disk only if no commit has succeeded for five seconds, or the last one has failed, and at most once a
// second. A probe writes a small file, syncs it and removes it. It also looks whether the files of all logs still
// exist. Usable waits for a probe for up to a second, and returns ErrNoAnswer (wrapped) until the probe has ended.
// Meanwhile it holds no lock that an Append needs.
func (s *Spool) Usable() error {
	if s.isClosed() {
		return fmt.Errorf("spool: %s: %w", s.cfg.Dir, ErrClosed)
	}
	probing, began := s.health.begin(s.failure() != nil || !s.hasRoom(), s.failFast, s.probe)
	if probing != nil {
		timer := time.NewTimer(probePatience - time.Since(began))
		defer timer.Stop()
		select {
		case <-probing:
		case <-timer.C:
			return s.unusable(errors.Join(fmt.Errorf("%w: a write of %s has been under way for %v",
				ErrNoAnswer, approx(probeSize), time.Since(began).Round(time.Millisecond)), s.failure()))
		}
	}
	if err := s.failure(); err != nil {
		return s.unusable(err)
	}
	if !s.hasRoom() {
		return s.unusable(fmt.Errorf("%w: it takes %s of %s, and %s of the disk are to stay free", ErrFull,
			approx(s.used.Load()), approx(s.maxBytes.Load()), approx(s.keepFree.Load())))
	}
	return nil
}

// approx formats a number of bytes for people.
func approx(bytes int64) string { return configs.ByteSize(bytes).Approx() }

func (s *Spool) unusable(err error) error {
	return fmt.Errorf("spool: the directory %s cannot be written to: %w", s.cfg.Dir, err)
}

func (s *Spool) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// failure returns why the last commit of a log has failed, or else why the last probe has failed.
func (s *Spool) failure() error {
	for _, l := range s.all() {
		if err := l.lastFailure(); err != nil {
			return err
		}
	}
	return s.health.last()
}

// hasRoom reports whether a small record fits.
func (s *Spool) hasRoom() bool { return s.Usage().Room >= headerSize+headSize+smallRecord }

// probe tries what an Append would do. It makes a removed directory anew, and gives up removed files of logs.
func (s *Spool) probe() error {
	if err := s.directory.hold(); err != nil {
		return err
	}
	if err := probe(s.fs, s.cfg.Dir); err != nil {
		return err
	}
	for _, l := range s.all() {
		l.examine()
	}
	if !s.hasRoom() {
		s.reclaim()
	}
	return nil
}
