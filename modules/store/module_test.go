package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/store"
)

// scripted is a store that only says how it is.
type scripted struct {
	store.Store
	status           store.Status
	started, stopped bool
}

func (s *scripted) Start(context.Context) error { s.started = true; return nil }
func (s *scripted) Stop(context.Context) error {
	s.stopped = true
	return errors.New("2 settlements are lost")
}
func (s *scripted) Status() store.Status { return s.status }

func backend(name string, s *scripted) store.Backend {
	return store.Backend{Name: name, New: func(store.Parts) (store.Running, error) { return s, nil }}
}

// parts is what the module gives to the graph.
type parts struct {
	fx.In

	Store     store.Store
	Reserver  store.Reserver
	Counters  store.Counters
	Records   store.Records
	PostHog   store.PostHog
	Checks    []observability.Check    `group:"health_checks"`
	Overrides []observability.Override `group:"health_overrides"`
	Facts     []module.StartFact       `group:"start_facts"`
	Endpoints []endpoint.Endpoint      `group:"endpoints"`
}

func start(t *testing.T, cfg store.Config, backends []store.Backend, users ...store.User) (parts, *fxtest.App) {
	t.Helper()
	var got parts
	var extra []fx.Option
	for _, user := range users {
		extra = append(extra, fx.Provide(store.AsUser(func() store.User { return user })))
	}
	app := fxtest.New(t, fx.NopLogger, store.Module(backends...).Options, fx.Options(extra...),
		fx.Supply(cfg, configs.Fixed(cfg), module.MemoryLimit(0), zap.NewNop(),
			fx.Annotate(tally.NoopScope, fx.As(new(tally.Scope)))),
		fx.Populate(&got))
	app.RequireStart()
	return got, app
}

func TestTheBackendFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	for name, addrs := range map[string][]string{store.Local: nil, store.InRedis: {"127.0.0.1:6379"}} {
		local, redis := &scripted{}, &scripted{}
		cfg := store.DefaultConfig()
		cfg.Redis.Addrs = addrs
		got, app := start(t, cfg, []store.Backend{backend(store.Local, local), backend(store.InRedis, redis)})
		chosen, other := local, redis
		if name == store.InRedis {
			chosen, other = redis, local
		}
		require.Same(t, chosen, got.Store)
		for _, port := range []any{got.Reserver, got.Counters, got.Records, got.PostHog} {
			require.Same(t, chosen, port, "every port is the same store")
		}
		require.True(t, chosen.started)
		require.False(t, other.started)
		require.ErrorContains(t, app.Stop(t.Context()), "2 settlements are lost")
		require.True(t, chosen.stopped)
	}
}

// reader is a reader of PostHog's Redis that says how it is.
type reader struct {
	store.NoPostHog
	stopped bool
}

func (*reader) HasPostHog() bool { return true }
func (r *reader) Stop(context.Context) error {
	r.stopped = true
	return errors.New("a connection stays open")
}
func (*reader) Status() store.PartStatus { return store.PartStatus{Address: "b:2", LatencyMS: 0.5} }

func TestTheRedisOfPostHogIsReadBesideAnyStore(t *testing.T) {
	t.Parallel()
	posthog, own := &reader{}, &scripted{status: store.Status{Backend: "local", Reachable: true}}
	reads := store.Backend{
		Name:       store.InRedis,
		NewPostHog: func(store.Parts) (store.RunningPostHog, error) { return posthog, nil },
	}
	cfg := store.DefaultConfig()
	cfg.PostHog.Addrs = []string{"b:2"}
	got, app := start(t, cfg, []store.Backend{backend(store.Local, own), reads})
	require.True(t, own.started)
	require.True(t, got.PostHog.HasPostHog())
	want := own.status
	want.PostHog = &store.PartStatus{Address: "b:2", LatencyMS: 0.5}
	require.Equal(t, want, got.Store.(store.Running).Status())
	err := app.Stop(t.Context())
	require.ErrorContains(t, err, "2 settlements are lost")
	require.ErrorContains(t, err, "a connection stays open")
	require.True(t, own.stopped)
	require.True(t, posthog.stopped)
}

func TestABuildWithoutTheBackendRefusesTheConfiguration(t *testing.T) {
	t.Parallel()
	check := func(yaml string, backends ...store.Backend) error {
		m := store.Module(backends...)
		_, err := configs.Load([]configs.Section{{Name: m.Name, Defaults: m.Config}},
			configs.Source{Environ: []string{yaml}}, m.Rules...)
		return err
	}
	const redis = "CAPTURE_STORE__REDIS__ADDRS=127.0.0.1:6379"
	require.NoError(t, check("", backend(store.Local, nil)))
	require.NoError(t, check(redis, backend(store.InRedis, nil)))
	require.EqualError(t, check(redis, backend(store.Local, nil)), "store.redis.addrs: this build has no backend for "+
		"Redis (it has: local): leave the key empty, or give store.Module the Backend of modules/store/redis "+
		"(CAPTURE_STORE__REDIS__ADDRS)")
	require.EqualError(t, check("CAPTURE_STORE__POSTHOG__ADDRS=127.0.0.1:6379", backend(store.Local, nil)),
		"store.posthog.addrs: this build has no backend for Redis (it has: local): leave the key empty, or give "+
			"store.Module the Backend of modules/store/redis (CAPTURE_STORE__POSTHOG__ADDRS)")
	require.EqualError(t, check(""), "store.redis.addrs: must not be empty: this build has no backend for a single "+
		"node (it has: none); or give store.Module the Backend of modules/store/local")
}

func TestTheServiceIsReadyWithoutTheStoreUnlessAUserIsClosed(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	away := store.Status{Backend: "redis", Where: "Redis at a:1", Parts: []store.PartStatus{
		{Address: "a:1", LastError: "connection refused", BreakerOpenSince: &since},
	}}
	there := &scripted{status: store.Status{Where: "Redis at a:1", Reachable: true}}
	for name, test := range map[string]struct {
		store     *scripted
		users     map[string]bool
		failing   string
		overrides string
	}{
		"reachable": {store: there, overrides: "no feature uses the store"},
		"in memory alone": {&scripted{status: store.Status{Reachable: true, Parts: []store.PartStatus{
			{Address: "./data/store", LastError: "no space left on device"},
		}}}, map[string]bool{"quota": true},
			"the state is in memory alone, and a restart forgets it: ./data/store: no space left on device",
			"the store answers all the same"},
		"all open": {&scripted{status: away}, map[string]bool{"quota": false},
			"a:1 does not answer: connection refused",
			"events pass without the store (on_store_failure is open: quota)"},
		"one closed": {&scripted{status: away}, map[string]bool{"quota": false, "dedup": true},
			"a:1 does not answer: connection refused", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var users []store.User
			for name, closed := range test.users {
				users = append(users, store.User{Name: name, Closed: func() bool { return closed }})
			}
			got, _ := start(t, store.DefaultConfig(), []store.Backend{backend(store.Local, test.store)}, users...)
			require.Len(t, got.Checks, 1)
			require.Len(t, got.Overrides, 1)
			require.Equal(t, got.Checks[0].Name, got.Overrides[0].Check)
			if err := got.Checks[0].Ready(t.Context()); test.failing == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.failing)
			}
			require.Equal(t, test.overrides, got.Overrides[0].Why(t.Context()))
		})
	}
}

func TestOperatorsAreToldHowTheStoreIs(t *testing.T) {
	t.Parallel()
	status := store.Status{Backend: "redis", Where: "Redis at a:1", Waiting: 3, Parts: []store.PartStatus{
		{Address: "a:1", LastError: "connection refused", LatencyMS: 0.5},
	}}
	got, _ := start(t, store.DefaultConfig(), []store.Backend{backend(store.Local, &scripted{status: status})})
	require.Equal(t, "Redis at a:1: a:1 does not answer: connection refused", got.Facts[0].Text())
	require.Equal(t, "GET /admin/store", got.Endpoints[0].Pattern)
	w := httptest.NewRecorder()
	got.Endpoints[0].Handler.ServeHTTP(w, httptest.NewRequest("GET", "/admin/store", nil))
	var shown store.Status
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &shown))
	require.Equal(t, status, shown)
}
