package quota

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/local"
)

// nodes are several nodes on one store.
type nodes struct {
	t     testing.TB
	store store.Store
	stop  func() // ends the store before the test ends
	// takes counts the round trips for counters.
	takes atomic.Int64

	mu sync.Mutex
	// fault, if set, is asked before a draw, one at a time. A draw that it returns an error for fails; if lost is set,
	// the store makes the draw all the same, and the answer is lost.
	fault func() (lost bool, err error)
	// hold, if set, is received from before each draw.
	hold chan struct{}
	// ahead is how much the nodes' idea of the store's clock is ahead, until the store has been asked.
	ahead time.Duration
	// billed are PostHog's own limits. Nil: there is no Redis of PostHog's.
	billed      map[string]map[string]time.Time
	billedFault error
}

func newStore(t testing.TB) *nodes {
	t.Helper()
	shared := local.New(local.Config{Memory: 1 << 20, Counters: 64 << 20}, zap.NewNop(), tally.NoopScope)
	require.NoError(t, shared.Start(context.Background()))
	stop := func() { require.NoError(t, shared.Stop(context.Background())) }
	t.Cleanup(stop)
	return &nodes{t: t, store: shared, stop: stop}
}

// shared is the store as the nodes see it.
type shared struct {
	store.Store
	*nodes
}

func (s shared) Take(ctx context.Context, token string, quotas []store.QuotaDraw, rates []store.RateDraw) error {
	s.takes.Add(1)
	s.mu.Lock()
	fault, hold := s.fault, s.hold
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if fault == nil {
		return s.Store.Take(ctx, token, quotas, rates)
	}
	lost, err := s.ask(fault)
	if err == nil {
		return s.Store.Take(ctx, token, quotas, rates)
	}
	if lost {
		_ = s.Store.Take(ctx, token, slices.Clone(quotas), slices.Clone(rates))
	}
	return err
}

func (s shared) ask(fault func() (bool, error)) (lost bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fault()
}

func (s shared) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Now().Add(s.ahead)
}

func (s shared) HasPostHog() bool { return s.billed != nil }

func (s shared) SortedSet(_ context.Context, key string, now time.Time) (map[string]time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]time.Time{}
	for token, until := range s.billed[key] {
		if !until.Before(now) {
			found[token] = until
		}
	}
	return found, s.billedFault
}

var errAsked = fmt.Errorf("asked for: %w", store.ErrUnavailable)

func (n *nodes) fails(fault func() (bool, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = fault
}

// skew sets how much the nodes' idea of the store's clock is ahead.
func (n *nodes) skew(ahead time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ahead = ahead
}

func away() (bool, error) { return false, errAsked }

// node is a node, whose section may be changed.
type node struct {
	*Quota
	t     testing.TB
	dir   string
	scope tally.TestScope
	logs  *observer.ObservedLogs
	ended bool
}

// in returns a section with a directory of its own.
func in(dir string, change func(*Config)) Config {
	c := DefaultConfig()
	c.Dir, c.MaxAccounts = dir, 1024
	if change != nil {
		change(&c)
	}
	return c
}

func (n *nodes) node(change func(*Config)) *node { return n.start(n.t.TempDir(), change) }

func (n *nodes) start(dir string, change func(*Config)) *node {
	n.t.Helper()
	config := in(dir, change)
	require.NoError(n.t, config.Validate())
	core, logs := observer.New(zap.InfoLevel)
	scope := tally.NewTestScope("", nil)
	live := configs.Fixed(config)
	q, err := New(live, shared{n.store, n}, zap.New(core), scope)
	require.NoError(n.t, err)
	require.NoError(n.t, q.Start(context.Background()))
	one := &node{Quota: q, t: n.t, dir: dir, scope: scope, logs: logs}
	n.t.Cleanup(func() {
		if !one.ended {
			_ = one.stop()
		}
	})
	return one
}

func (n *node) stop() error {
	n.ended = true
	return n.Stop(context.Background())
}

// kill ends the node as a kill of its process does: nothing is given back, and nothing is closed in an orderly way.
func (n *node) kill() {
	n.ended = true
	n.cancel()
	n.work.Wait()
	n.stopped.Store(true)
	n.table.all(func(s *subject) { s.close(n.now()) })
	n.journal.mu.Lock()
	n.journal.free = nil
	n.journal.mu.Unlock()
	n.journal.release()
}

func project(limits *events.Limits) *events.Project { return &events.Project{ID: "1", Limits: limits} }

// batch returns a batch of n events of the resource "events".
func batchOf(token string, limits *events.Limits, n int) *events.Batch {
	b := &events.Batch{Token: token, Events: make([]events.Event, n)}
	if limits != nil {
		b.Project = project(limits)
	}
	for i := range b.Events {
		b.Events[i] = events.Event{Name: "e", DistinctID: "u"}
	}
	return b
}

// judge passes a batch through the stage and reports how many events may go on.
func (n *node) judge(batch *events.Batch) (passed int, settle events.Settle) {
	settle, err := n.Process(context.Background(), batch)
	require.NoError(n.t, err)
	return batch.Pending(), settle
}

// send judges n events, lets the sink accept those that pass, and returns their number.
func (n *node) send(token string, limits *events.Limits, count int) int {
	batch := batchOf(token, limits, count)
	passed, settle := n.judge(batch)
	accept(batch, settle)
	return passed
}

func accept(batch *events.Batch, settle events.Settle) {
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
	if settle != nil {
		settle(context.Background(), batch)
	}
}

func fail(batch *events.Batch, settle events.Settle) {
	batch.FailPending(events.ReasonUnavailable, errAsked)
	if settle != nil {
		settle(context.Background(), batch)
	}
}

func quotas(texts ...string) *events.Limits {
	limits := &events.Limits{}
	for _, text := range texts {
		quota, err := events.ParseQuota(text)
		if err != nil {
			panic(err)
		}
		limits.Quotas = append(limits.Quotas, quota)
	}
	return limits
}

func rates(texts ...string) *events.Limits {
	limits := &events.Limits{}
	for _, text := range texts {
		rate, err := events.ParseRate(text)
		if err != nil {
			panic(err)
		}
		limits.Rates = append(limits.Rates, rate)
	}
	return limits
}

// used returns what the store says that is used of the first quota.
func (n *node) used(token string, limits *events.Limits) events.Allowance {
	usage, err := n.Usage(context.Background(), token, limits)
	require.NoError(n.t, err)
	return usage[0]
}
