package routing

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/local"
)

// scriptedStore is a store of this process that can be away, and that has what PostHog's Redis would have.
type scriptedStore struct {
	*local.Store

	mu        sync.Mutex
	fault     error         // of the shared state
	gets      int           // how often a record was read
	lists     int           // how often the rules were listed
	slow      time.Duration // how long a list takes
	hidden    string        // a record that a list leaves out
	posthog   bool
	postFault error // of PostHog's Redis
	strings   map[string]string
	noText    map[string]bool // keys that hold something else than a text
	sets      map[string]map[string]time.Time
}

func newStore(t testing.TB) *scriptedStore {
	t.Helper()
	s := &scriptedStore{
		Store:   local.New(local.Config{Memory: 1 << 20, Counters: 1 << 20}, zap.NewNop(), tally.NoopScope),
		strings: map[string]string{}, sets: map[string]map[string]time.Time{},
	}
	return s
}

// errNoText is what the store says of a key of noText.
var errNoText = errors.New("WRONGTYPE")

// set changes what the store has.
func (s *scriptedStore) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *scriptedStore) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

func (s *scriptedStore) Get(ctx context.Context, kind, name string) (store.Fields, error) {
	s.set(func() { s.gets++ })
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, kind, name)
}

func (s *scriptedStore) List(ctx context.Context, kind, after string, limit int) ([]string, error) {
	var slow time.Duration
	var hidden string
	s.set(func() { s.lists, slow, hidden = s.lists+1, s.slow, s.hidden })
	time.Sleep(slow)
	if err := s.err(); err != nil {
		return nil, err
	}
	names, err := s.Store.List(ctx, kind, after, limit)
	return slices.DeleteFunc(names, func(name string) bool { return name == hidden }), err
}

func (s *scriptedStore) HasPostHog() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posthog
}

func (s *scriptedStore) SortedSet(_ context.Context, key string, now time.Time) (map[string]time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.postFault != nil {
		return nil, s.postFault
	}
	set := maps.Clone(s.sets[key])
	maps.DeleteFunc(set, func(_ string, until time.Time) bool { return until.Before(now) })
	if set == nil {
		set = map[string]time.Time{}
	}
	return set, nil
}

func (s *scriptedStore) Strings(_ context.Context, keys ...string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := make([]string, len(keys))
	for i, key := range keys {
		if s.noText[key] {
			return nil, errNoText
		}
		values[i] = s.strings[key]
	}
	return values, s.postFault
}

// startStage starts the store, if it has not been, and a stage that reads from it. Both end with the test.
func startStage(t testing.TB, live *configs.Live, from *scriptedStore) *Stage {
	t.Helper()
	return startLogged(t, live, from, zap.NewNop(), tally.NoopScope)
}

func startLogged(
	t testing.TB, live *configs.Live, from *scriptedStore, log *zap.Logger, scope tally.Scope,
) *Stage {
	t.Helper()
	stage, err := NewStage(live, from, log, scope)
	require.NoError(t, err)
	require.NoError(t, from.Start(t.Context()))
	require.NoError(t, stage.Start(t.Context()))
	t.Cleanup(func() {
		require.NoError(t, stage.Stop(context.Background()))
		require.NoError(t, from.Stop(context.Background()))
	})
	return stage
}
