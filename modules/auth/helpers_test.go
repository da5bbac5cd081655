package auth

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/transport/route"
)

// shared is a store of projects that can fail.
type shared struct {
	store.Store

	mu      sync.Mutex
	records map[string]store.Fields
	strings map[string]string // nil: there is no Redis of PostHog's
	fault   error
	// hold, if set, keeps a Get until it is closed, or the deadline of the Get.
	hold chan struct{}
	gets int
	// watch is whom Put tells of a change.
	watch func(string)
}

func newShared() *shared { return &shared{records: map[string]store.Fields{}} }

func (s *shared) Get(ctx context.Context, kind, name string) (store.Fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	found, fault := s.records[name], s.fault
	if kind != project.Kind {
		found = nil
	}
	if hold := s.hold; hold != nil {
		s.mu.Unlock()
		defer s.mu.Lock()
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
		}
	}
	return found, fault
}

func (s *shared) Watch(kind string, changed func(string)) {
	if kind == project.Kind {
		s.watch = changed
	}
}

func (s *shared) HasPostHog() bool { return s.strings != nil }

func (s *shared) Strings(_ context.Context, keys ...string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	values := make([]string, len(keys))
	for i, key := range keys {
		values[i] = s.strings[key]
	}
	return values, s.fault
}

// put writes a record as another node does, and tells of it.
func (s *shared) put(token string, fields store.Fields) {
	s.write(token, fields)
	s.watch(token)
}

// write writes a record as somebody does by hand.
func (s *shared) write(token string, fields store.Fields) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[token] = fields
}

func (s *shared) fail(fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// hang keeps every Get that begins now until the channel is closed.
func (s *shared) hang() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = make(chan struct{})
	return s.hold
}

func (s *shared) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets
}

// newAuthOf returns an Auth that is not started.
func newAuthOf(
	t testing.TB, config Config, shared store.Store, authenticators ...Authenticator,
) (*Auth, tally.TestScope) {
	t.Helper()
	require.NoError(t, config.Validate())
	scope := tally.NewTestScope("", nil)
	auth, err := New(configs.Fixed(config), shared, true, authenticators, zap.NewNop(), scope)
	require.NoError(t, err)
	return auth, scope
}

func config(mode string) Config {
	c := DefaultConfig()
	c.Mode, c.Replica = mode, ""
	return c
}

// callerOf returns a caller with a token, from nowhere in particular.
func callerOf(token string) *events.Caller {
	return &events.Caller{
		Token: token, ClientIP: "192.0.2.1", Group: string(route.Analytics),
		Header: func(string) string { return "" },
	}
}

// reasonOf returns why the caller is refused; "" if it is not.
func reasonOf(t testing.TB, auth *Auth, caller *events.Caller) events.Reason {
	t.Helper()
	if err := auth.Admit(t.Context(), caller); err != nil {
		return events.ReasonOf(err, "no reason")
	}
	return ""
}

func counted(scope tally.TestScope, name string) int64 {
	if counter := scope.Snapshot().Counters()[name]; counter != nil {
		return counter.Value()
	}
	return 0
}
