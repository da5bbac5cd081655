package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/private"
	"github.com/opencapture/capture/modules/store"
)

const (
	// maxToken is about how long tokens are. A longer one costs an allocation.
	maxToken = 64
	// tidyEvery is how often what has ended is removed, and the disk is synced.
	tidyEvery = time.Second
	// secretName is the file with the secret that the digests are masked with.
	secretName  = "secret"
	secretBytes = 32
)

// Config is what a Store needs to know.
type Config struct {
	// Dir is the directory that the store keeps its files in. Empty: everything is in memory alone, and a restart
	// resets it.
	Dir string
	// Memory is how many bytes the digests take at most, and Counters about how many the counters do.
	Memory, Counters int64
	// Timeout is how long a call waits for a disk that stalls.
	Timeout time.Duration
	// Now is the clock of the store. Nil: the clock of the system.
	Now func() time.Time
}

// Store is the store of a single node, in its process. Make it with New.
type Store struct {
	store.NoPostHog

	config  Config
	log     *zap.Logger
	metrics metrics
	began   time.Time

	secret   [secretBytes]byte
	digests  *digests
	counters *counters

	kindsMu sync.Mutex
	kinds   map[string]*records

	// dir and the logs are nil without a directory.
	dir        *directory
	digestLog  *digestLog
	counterLog *counterLog
	// tidying is held by the goroutine that tidies, and guards what follows. unsaved is set while the secret and the
	// records are to be written, since the directory was not there.
	tidying sync.Mutex
	unsaved bool
	loaded  bool // what is done and what is used was read
	retry   backoff

	faultMu sync.Mutex
	faults  map[string]fault

	running atomic.Bool
	stop    context.CancelFunc
	group   *panics.Group
}

var _ store.Running = (*Store)(nil)

// fault is what is wrong with the disk.
type fault struct {
	err error
	at  time.Time
}

type metrics struct {
	evicted, full, faults                    tally.Counter
	failing, digests, reservations, counters tally.Gauge
}

// New returns a store that does nothing until Start.
func New(config Config, log *zap.Logger, scope tally.Scope) *Store {
	return newOn(systemDisk{}, config, log, scope)
}

func newOn(disk disk, config Config, log *zap.Logger, scope tally.Scope) *Store {
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Store{
		config: config, log: log, began: config.Now(), kinds: map[string]*records{}, faults: map[string]fault{},
		group: panics.NewGroup(log), counters: newCounters(config.Counters),
		metrics: metrics{
			evicted: scope.Counter("local_evicted_total"), full: scope.Counter("local_full_total"),
			faults: scope.Counter("local_disk_faults_total"), failing: scope.Gauge("local_disk_failing"),
			digests: scope.Gauge("local_digests"), reservations: scope.Gauge("local_reservations"),
			counters: scope.Gauge("local_counters"),
		},
	}
	ended := func(*generation) {}
	if config.Dir != "" {
		s.dir = &directory{disk: disk, path: config.Dir}
		s.counterLog = &counterLog{
			dir: s.dir, log: log, timeout: config.Timeout, onFault: s.onFault("limits"),
			pending: newBatch(), wake: make(chan struct{}, 1),
		}
		s.digestLog = &digestLog{
			dir: s.dir, log: log, clock: config.Now, now: s.now, onFault: s.onFault("digests"),
			wake: make(chan struct{}, 1), files: map[*generation]*savedGeneration{},
		}
		ended = s.digestLog.remove
	}
	s.digests = newDigests(config.Memory, s.metrics.evicted.Inc, ended)
	if s.digestLog != nil {
		s.digestLog.digests = s.digests
	}
	return s
}

// Start reads what the directory has. Until then, every call fails. If the directory cannot be used, the store goes on
// in memory, and uses the directory as soon as that is possible.
func (s *Store) Start(context.Context) error {
	if _, err := rand.Read(s.secret[:]); err != nil {
		return err
	}
	if s.dir != nil {
		s.digestLog.salt = s.salt()
		s.open()
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.running.Store(true)
	if s.dir != nil {
		s.group.Keep(ctx, "the writer of digests", s.digestLog.run)
		s.group.Keep(ctx, "the writer of limits", s.counterLog.run)
	}
	s.group.Keep(ctx, "the tidying of the store", s.tidy)
	return nil
}

// open takes the directory and reads its files. While another process uses the directory, only those are read that this
// process does not change: soon it may be that process that ends and this one that goes on.
func (s *Store) open() {
	err := s.dir.take()
	s.onFault("directory")(err)
	s.unsaved = err != nil
	if errors.Is(err, private.ErrNotPrivate) {
		return // Who knows who has written the files.
	}
	s.loadSecret()
	names := s.names()
	s.loadRecords(names)
	if !errors.Is(err, errInUse) {
		s.load(names)
	}
	if err == nil {
		s.onFault("limits")(s.counterLog.tidy(s.counters))
	}
}

// names returns the names of the files.
func (s *Store) names() []string {
	names, err := s.dir.disk.list(s.dir.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.onFault("directory")(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, newSuffix) && s.dir.held.Load() {
			_ = s.dir.removeIfThere(name) // It was never whole. If it stays, it is removed before it is made again.
		}
	}
	return names
}

// load reads what is done and what is used, and adds it to what the store knows.
func (s *Store) load(names []string) {
	began := time.Now()
	from := newCounters(s.config.Counters)
	s.counterLog.load(names, from)
	from.expire(s.config.Now())
	s.counters.merge(from)
	loaded := s.digestLog.load(names)
	s.loaded = true
	s.log.Info("the store of this node has read its directory", zap.String("directory", s.dir.path),
		zap.Int64("digests", loaded), zap.Int64("counters", from.count.Load()),
		zap.Duration("took", time.Since(began)))
}

// loadSecret reads the secret of the directory, or keeps the new one there if there is none.
func (s *Store) loadSecret() {
	secret, err := s.readSecret()
	if err == nil {
		copy(s.secret[:], secret)
	} else {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Error("the secret of the store cannot be read, and is made anew: events that were delivered before "+
				"are taken for new ones", zap.String("file", s.dir.join(secretName)), zap.Error(err))
		}
		if s.dir.held.Load() {
			s.onFault("directory")(s.saveSecret())
		}
	}
	s.digestLog.salt = s.salt()
}

// salt tells the files of digests of one secret from those of another.
func (s *Store) salt() uint64 { return s.mask("")[0] }

func (s *Store) readSecret() (secret []byte, err error) {
	err = s.dir.read(secretName, func(f readFile) error {
		r, err := newFrameReader(f)
		if err != nil {
			return err
		}
		secret, err = r.next()
		if errors.Is(err, io.EOF) || err == nil && (len(secret) != secretBytes || r.header.kind != kindSecret) {
			err = errDamaged
		}
		return err
	})
	return secret, err
}

func (s *Store) saveSecret() error {
	return s.dir.replace(secretName, func(f file) error {
		frames, err := newFrameFile(f, header{kind: kindSecret})
		if err != nil {
			return err
		}
		return frames.write(append(frames.begin(), s.secret[:]...))
	})
}

// Stop writes what the disk does not have yet, and ends the store. Every later call fails.
func (s *Store) Stop(ctx context.Context) error {
	if !s.running.Swap(false) {
		return nil
	}
	s.stop()
	select {
	case <-s.group.Ended():
	case <-ctx.Done():
		return fmt.Errorf("the disk did not take in time what happened last: %w", ctx.Err())
	}
	if s.dir == nil {
		return nil
	}
	return errors.Join(s.counterLog.close(), s.dir.release())
}

// Status implements store.Running.
func (s *Store) Status() store.Status {
	status := store.Status{Backend: store.Local, Where: "in this process, in memory", Reachable: true}
	if s.dir == nil {
		return status
	}
	status.Where = "in this process and in " + s.dir.path
	status.Waiting = s.digestLog.left()
	part := store.PartStatus{Address: s.dir.path, Reachable: true}
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(s.faults)) {
		fault := s.faults[what]
		part.Reachable, part.LastError, part.LastErrorAt = false, fault.err.Error(), &fault.at
	}
	status.Parts = append(status.Parts, part)
	return status
}

// onFault returns the function that takes note of what is wrong with a part of the files, or of nil.
func (s *Store) onFault(what string) func(error) {
	return func(err error) {
		s.faultMu.Lock()
		defer s.faultMu.Unlock()
		before := len(s.faults)
		if err == nil {
			delete(s.faults, what)
		} else {
			s.faults[what] = fault{err, s.config.Now()}
			s.metrics.faults.Inc(1)
		}
		switch {
		case before == 0 && len(s.faults) > 0:
			s.log.Error("the disk does not take what the store writes: the store goes on in memory, and a restart "+
				"forgets what happens meanwhile", zap.String("directory", s.dir.path), zap.Error(err))
		case before > 0 && len(s.faults) == 0:
			s.log.Info("the disk has all that the store knows again", zap.String("directory", s.dir.path))
		}
		s.metrics.failing.Update(float64(min(1, len(s.faults))))
	}
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

// tidy removes what has ended, now and then, and has the disk keep what there is.
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
	s.tidying.Lock()
	defer s.tidying.Unlock()
	s.digests.sweep(s.now())
	s.counters.expire(s.config.Now())
	s.metrics.digests.Update(float64(s.digests.size()))
	s.metrics.reservations.Update(float64(s.digests.inWork.Load()))
	s.metrics.counters.Update(float64(s.counters.count.Load()))
	if s.dir != nil {
		s.onFault("directory")(s.hold())
		if now := s.now(); s.dir.held.Load() && s.retry.isTime(now) {
			err := s.counterLog.tidy(s.counters)
			s.retry.after(err, now)
			s.onFault("limits")(err)
		}
	}
}

// hold makes the directory anew if it was removed, or could not be made before, and writes everything to it.
func (s *Store) hold() error {
	err := s.dir.look()
	if err == nil && !s.unsaved {
		return nil
	}
	s.unsaved = true
	if err != nil {
		if err := s.dir.take(); err != nil {
			return err
		}
	}
	if !s.loaded {
		names := s.names()
		s.load(names)
		s.loadRecords(names)
	}
	if err := s.saveSecret(); err != nil {
		return err
	}
	s.kindsMu.Lock()
	kinds := maps.Clone(s.kinds)
	s.kindsMu.Unlock()
	for name, k := range kinds {
		if err := s.saveAgain(name, k); err != nil {
			return err
		}
	}
	for _, g := range s.digests.generations() {
		g.unsaved.Store(true)
	}
	s.counterLog.lose()
	s.unsaved = false
	return nil
}

// backoff makes what fails wait, from firstPause up to lastPause.
type backoff struct {
	next  int64
	pause time.Duration
}

const firstPause, lastPause = time.Second, time.Minute

func (b *backoff) isTime(now int64) bool { return now >= b.next }

func (b *backoff) after(err error, now int64) {
	if err == nil {
		b.pause = 0
		return
	}
	b.pause = min(max(2*b.pause, firstPause), lastPause)
	b.next = now + int64(b.pause)
}
