package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

const (
	// maxToken is about how long tokens are. A longer one costs an allocation.
	maxToken = 64
	// tidyEvery is how often what has ended is removed.
	tidyEvery = time.Second
)

// Config is what a Store needs to know.
type Config struct {
	// Memory is how many bytes the digests take at most, and Counters how many the counters do.
	Memory, Counters int64
	// Now is the clock of the store. Nil: the clock of the system.
	Now func() time.Time
}

// Store is a store in this process. Make one with New.
type Store struct {
	config  Config
	log     *zap.Logger
	metrics metrics
	began   time.Time

	secret   [32]byte
	digests  *digests
	counters *counters

	kindsMu sync.Mutex
	kinds   map[string]*records

	running atomic.Bool
	stop    context.CancelFunc
	group   *panics.Group
}

var _ store.Store = (*Store)(nil)

type metrics struct {
	evicted tally.Counter
	full    tally.Counter
}

// New returns a store that does nothing until Start.
func New(config Config, log *zap.Logger, scope tally.Scope) *Store {
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Store{
		config: config, log: log, began: config.Now(), kinds: map[string]*records{}, group: panics.NewGroup(log),
		metrics:  metrics{evicted: scope.Counter("local_evicted_total"), full: scope.Counter("local_full_total")},
		counters: newCounters(config.Counters),
	}
	s.digests = newDigests(config.Memory, s.metrics.evicted.Inc, func(*generation) {})
	return s
}

// Start reads what the directory has. Until then, every call fails.
func (s *Store) Start(context.Context) error {
	if _, err := rand.Read(s.secret[:]); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.running.Store(true)
	s.group.Keep(ctx, "the tidying of the store", s.tidy)
	return nil
}

// Stop ends the store. Every later call fails.
func (s *Store) Stop(context.Context) error {
	if s.running.Swap(false) {
		s.stop()
		s.group.Wait()
	}
	return nil
}

// Now implements store.Store.
func (s *Store) Now() time.Time { return s.config.Now() }

// now is the time since the store was made. A change of the system's clock does not change it.
func (s *Store) now() int64 { return int64(s.config.Now().Sub(s.began)) }

func (s *Store) usable(ctx context.Context) error {
	if !s.running.Load() {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, errNotRunning)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return nil
}

var errNotRunning = errors.New("it is not running")

// tidy removes what has ended, now and then.
func (s *Store) tidy(ctx context.Context) {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.tidyOnce()
		}
	}
}

func (s *Store) tidyOnce() {
	s.digests.sweep(s.now())
	s.counters.expire(s.config.Now())
}
