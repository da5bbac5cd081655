package local

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/storetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(m)
}

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// patience is how long a test waits for what happens soon.
const patience = 20 * time.Second

// roomy is a configuration that no test fills.
func roomy(dir string, now func() time.Time) Config {
	return Config{Dir: dir, Memory: 16 << 20, Counters: 16 << 20, Timeout: patience, Now: now}
}

func started(t *testing.T, s *Store) *Store {
	t.Helper()
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	return s
}

// written waits until the disk has what was settled.
func written(t testing.TB, s *Store) {
	t.Helper()
	require.Eventually(t, func() bool { return s.digestLog.left() == 0 }, patience, 100*time.Microsecond)
}

func TestTheStoreInMemoryKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Installation {
		c := &clock{now: time.Now()}
		s := New(roomy("", c.Now), zap.NewNop(), tally.NoopScope)
		var start sync.Once
		return storetest.Installation{
			Node: func(before func(store.Store)) store.Store {
				if before != nil {
					before(s)
				}
				start.Do(func() { started(t, s) })
				return s
			},
			Pass:  c.pass,
			Quick: true,
		}
	})
}

// handle is a node's handle on a store that is started again.
type handle struct{ atomic.Pointer[Store] }

func (h *handle) Reserve(
	ctx context.Context, token string, owner store.Owner, digests []store.Digest, lease time.Duration,
	claims []store.Claim,
) error {
	return h.Load().Reserve(ctx, token, owner, digests, lease, claims)
}

func (h *handle) Settle(
	token string, owner store.Owner, commit []store.Digest, window time.Duration, release []store.Digest,
) {
	h.Load().Settle(token, owner, commit, window, release)
}

func (h *handle) Take(ctx context.Context, token string, quotas []store.QuotaDraw, rates []store.RateDraw) error {
	return h.Load().Take(ctx, token, quotas, rates)
}

func (h *handle) Usage(ctx context.Context, token string) (map[string]store.Usage, error) {
	return h.Load().Usage(ctx, token)
}

func (h *handle) Adjust(ctx context.Context, token, counter string, n int64) (store.Usage, error) {
	return h.Load().Adjust(ctx, token, counter, n)
}

func (h *handle) Get(ctx context.Context, kind, name string) (store.Fields, error) {
	return h.Load().Get(ctx, kind, name)
}

func (h *handle) List(ctx context.Context, kind, after string, limit int) ([]string, error) {
	return h.Load().List(ctx, kind, after, limit)
}

func (h *handle) Put(ctx context.Context, kind, name string, before, after store.Fields) error {
	return h.Load().Put(ctx, kind, name, before, after)
}

func (h *handle) Watch(kind string, changed func(name string)) { h.Load().Watch(kind, changed) }
func (h *handle) HasPostHog() bool                             { return h.Load().HasPostHog() }
func (h *handle) Now() time.Time                               { return h.Load().Now() }

func (h *handle) SortedSet(ctx context.Context, key string, now time.Time) (map[string]time.Time, error) {
	return h.Load().SortedSet(ctx, key, now)
}

func (h *handle) Members(ctx context.Context, key string) ([]string, error) {
	return h.Load().Members(ctx, key)
}

func (h *handle) Strings(ctx context.Context, keys ...string) ([]string, error) {
	return h.Load().Strings(ctx, keys...)
}

// copyFiles copies a directory of the store, as a process that is killed leaves it.
func copyFiles(t testing.TB, from, to string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(to))
	require.NoError(t, os.MkdirAll(to, 0o700))
	entries, err := os.ReadDir(from)
	require.NoError(t, err)
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(from, entry.Name()))
		if os.IsNotExist(err) {
			continue // It has been removed meanwhile.
		}
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, entry.Name()), content, 0o600))
	}
}

func TestTheStoreOnTheDiskKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Installation {
		c := &clock{now: time.Now()}
		base := t.TempDir()
		dir := filepath.Join(base, "store")
		h := &handle{}
		open := func() *Store {
			s := New(roomy(dir, c.Now), zap.NewNop(), tally.NoopScope)
			h.Store(s)
			return s
		}
		start := func() { require.NoError(t, h.Load().Start(context.Background())) }
		open()
		t.Cleanup(func() { require.NoError(t, h.Load().Stop(context.Background())) })
		// goOn starts the store on what a copy of its directory has.
		goOn := func(files string) {
			require.NoError(t, h.Load().Stop(context.Background()))
			copyFiles(t, files, dir)
			open()
			start()
		}
		saves := 0
		save := func() string {
			written(t, h.Load())
			saves++
			files := filepath.Join(base, "copy")
			copyFiles(t, dir, files)
			return files
		}
		var once sync.Once
		return storetest.Installation{
			Node: func(before func(store.Store)) store.Store {
				if before != nil {
					before(h)
				}
				once.Do(start)
				return h
			},
			Pass:    c.pass,
			Quick:   true,
			Restart: func() { goOn(save()) },
			Save: func() func() {
				files := save()
				return func() { goOn(files) }
			},
		}
	})
}
