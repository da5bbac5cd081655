package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/listen"
	"github.com/opencapture/capture/modules/observability"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp's clock for the Date header, one per process, and the sweepers of its worker pools, which end up to 10 s
		// after their server.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

// patience is how long a test waits before it says that something hangs. It is no measure of speed.
const patience = 2 * time.Minute

// running is a started server and what it was made from.
type running struct {
	*Server
	registry *prometheus.Registry
	health   *observability.Health
	logs     *observer.ObservedLogs
	failures chan error
}

func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.ReadTimeout, cfg.WriteTimeout, cfg.StopTimeout = patience, patience, patience
	return cfg
}

// start starts a server on a free port and stops it when the test ends.
func start(t *testing.T, cfg Config, checks ...observability.Check) *running {
	t.Helper()
	health, err := observability.NewHealth(nil, checks...)
	require.NoError(t, err)
	core, logs := observer.New(zap.DebugLevel)
	r := &running{registry: observability.NewRegistry(), health: health, logs: logs, failures: make(chan error, 1)}
	r.Server = NewServer(cfg, r.registry, health, zap.New(core), func(err error) { r.failures <- err })
	require.NoError(t, r.Start(t.Context()))
	t.Cleanup(func() {
		select {
		case <-r.stopping:
		default:
			require.NoError(t, r.Stop(context.Background()))
		}
		select {
		case err := <-r.failures:
			t.Errorf("serving failed: %v", err)
		default:
		}
	})
	return r
}

// answer is a response that has been read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (r *running) get(t *testing.T, path string) answer {
	t.Helper()
	got, err := r.fetch(path)
	require.NoError(t, err)
	return got
}

// fetch is get for a goroutine, which must not end the test.
func (r *running) fetch(path string) (answer, error) {
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       patience,
	}
	response, err := client.Get(listen.URL(r.Addr()) + path)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, header: response.Header, body: string(body)}, err
}

func TestMetricsShowTheRuntimeTheProcessAndTheService(t *testing.T) {
	r := start(t, testConfig())
	scope, closer := observability.NewScope(r.registry, zap.NewNop())
	scope.SubScope("kafka").Counter("bytes").Inc(42)
	require.NoError(t, closer.Close())

	got := r.get(t, "/metrics")

	require.Equal(t, http.StatusOK, got.status)
	require.Contains(t, got.header.Get("Content-Type"), "text/plain; version=0.0.4")
	require.Contains(t, got.body, "\ncapture_kafka_bytes 42\n")
	require.Contains(t, got.body, "\ngo_goroutines ")
	require.Contains(t, got.body, "\nprocess_start_time_seconds ")
}

func TestMetricsOfWhatStillWorksAreShownWhenACollectorFails(t *testing.T) {
	r := start(t, testConfig())
	broken := prometheus.NewDesc("broken", "broken", nil, nil)
	r.registry.MustRegister(collectorFunc(func(metrics chan<- prometheus.Metric) {
		metrics <- prometheus.NewInvalidMetric(broken, errors.New("counter is lost"))
	}))

	got := r.get(t, "/metrics")

	require.Equal(t, http.StatusOK, got.status)
	require.Contains(t, got.body, "\ngo_goroutines ")
	require.Len(t, r.logs.FilterLevelExact(zap.ErrorLevel).All(), 1)
	require.Contains(t, r.logs.All()[0].Message, "counter is lost")
}

// collectorFunc is an unchecked collector.
type collectorFunc func(chan<- prometheus.Metric)

func (f collectorFunc) Describe(chan<- *prometheus.Desc)         {}
func (f collectorFunc) Collect(metrics chan<- prometheus.Metric) { f(metrics) }

func TestHealthzAnswersWhateverTheReadiness(t *testing.T) {
	r := start(t, testConfig(), observability.Check{Name: "kafka", Ready: func(context.Context) error { return errors.New("away") }})
	got := r.get(t, "/healthz")
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "ok\n", got.body)
}

func TestReadyzFollowsTheServiceAndNamesWhatIsMissing(t *testing.T) {
	var missing error
	r := start(t, testConfig(),
		observability.Check{Name: "store", Ready: func(context.Context) error { return nil }},
		observability.Check{Name: "kafka", Ready: func(context.Context) error { return missing }})
	expect := func(status int, body string) {
		t.Helper()
		got := r.get(t, "/readyz")
		require.Equal(t, status, got.status)
		require.Equal(t, "application/json", got.header.Get("Content-Type"))
		require.Equal(t, body, got.body)
	}
	const bothPass = `[{"name":"kafka","ready":true},{"name":"store","ready":true}]`

	expect(503, `{"ready":false,"phase":"starting","checks":`+bothPass+`}`)
	r.health.SetStarted()
	expect(200, `{"ready":true,"phase":"running","checks":`+bothPass+`}`)
	missing = errors.New("no metadata yet")
	expect(503, `{"ready":false,"phase":"running","checks":[{"name":"kafka","ready":false,"reason":"no metadata yet"},{"name":"store","ready":true}]}`)
	missing = nil
	r.health.SetStopping()
	expect(503, `{"ready":false,"phase":"stopping","checks":`+bothPass+`}`)
}

func TestProfilesAreServed(t *testing.T) {
	r := start(t, testConfig())
	for path, want := range map[string]string{
		"/debug/pprof/":                     "Types of profiles available",
		"/debug/pprof/goroutine?debug=1":    "goroutine profile: total",
		"/debug/pprof/heap?debug=1":         "heap profile:",
		"/debug/pprof/cmdline":              "admin.test",
		"/debug/pprof/symbol":               "num_symbols",
		"/debug/pprof/trace?seconds=0.01":   "go 1.",
		"/debug/pprof/allocs?debug=1":       "heap profile:",
		"/debug/pprof/threadcreate?debug=1": "threadcreate profile",
	} {
		got := r.get(t, path)
		require.Equal(t, http.StatusOK, got.status, path)
		require.Contains(t, got.body, want, path)
	}
	cpu := r.get(t, "/debug/pprof/profile?seconds=1")
	require.Equal(t, http.StatusOK, cpu.status)
	require.Equal(t, "application/octet-stream", cpu.header.Get("Content-Type"))
	require.Equal(t, "\x1f\x8b", cpu.body[:2], "a profile is gzipped")

	redirected := r.get(t, "/debug/pprof")
	require.Equal(t, http.StatusFound, redirected.status)
	require.Equal(t, "/debug/pprof/", redirected.header.Get("Location"))
}

func TestOtherPathsAndMethodsAreRefused(t *testing.T) {
	r := start(t, testConfig())
	for _, path := range []string{"/", "/metrics/", "/debug", "/debug/pprof/nonsense"} {
		require.Equal(t, http.StatusNotFound, r.get(t, path).status, path)
	}
	response, err := http.Post(listen.URL(r.Addr())+"/metrics", "text/plain", nil)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusMethodNotAllowed, response.StatusCode)
	http.DefaultClient.CloseIdleConnections()
}

func TestAPanicInAHandlerIsAnsweredAndLogged(t *testing.T) {
	r := start(t, testConfig())
	broken := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "broken"}, func() float64 { panic("boom") })
	r.registry.MustRegister(broken)
	require.Equal(t, http.StatusInternalServerError, r.get(t, "/metrics").status)
	require.Equal(t, http.StatusOK, r.get(t, "/healthz").status)
	entry := r.logs.FilterMessage("a handler panicked").All()[0]
	require.Equal(t, "/metrics", entry.ContextMap()["path"])
	require.Equal(t, "boom", entry.ContextMap()["panic"])
	require.Contains(t, entry.ContextMap()["stack"].(string), "server_test.go")
}

func TestAPortInUseFailsTheStartAndNamesTheKey(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	health, err := observability.NewHealth(nil)
	require.NoError(t, err)
	cfg := testConfig()
	cfg.Listen = taken.Addr().String()

	err = NewServer(cfg, prometheus.NewRegistry(), health, zap.NewNop(), func(error) {}).Start(t.Context())

	require.ErrorContains(t, err, "admin.listen: ")
	require.ErrorContains(t, err, cfg.Listen)
	require.ErrorContains(t, err, "address already in use")
}

func TestServingThatEndsByItselfIsAFailure(t *testing.T) {
	r := start(t, testConfig())
	require.NoError(t, r.listener.Close())
	select {
	case err := <-r.failures:
		require.ErrorContains(t, err, "serve admin.listen: ")
	case <-time.After(patience):
		t.Fatal("the failure was not reported")
	}
}

func TestStopRightAfterStartLeavesNothingBehind(t *testing.T) {
	for range 20 {
		r := start(t, testConfig())
		require.NoError(t, r.Stop(t.Context()))
		<-r.served
		_, err := net.Dial("tcp", r.Addr().String())
		require.Error(t, err)
	}
}

func TestStopEndsARunningProfileEarly(t *testing.T) {
	r := start(t, testConfig())
	answered := make(chan error, 1)
	go func() {
		got, err := r.fetch("/debug/pprof/profile?seconds=300")
		if err == nil && got.status != http.StatusOK {
			err = fmt.Errorf("status %d: %s", got.status, got.body)
		}
		answered <- err
	}()
	stacks := make([]byte, 1<<20)
	require.Eventually(t, func() bool {
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("net/http/pprof.sleep"))
	}, patience, 5*time.Millisecond)

	require.NoError(t, r.Stop(t.Context()))
	require.NoError(t, <-answered)
	require.Zero(t, r.logs.Len())
}

func TestStopLeavesARequestThatRunsTooLongAndSaysSo(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	cfg := testConfig()
	cfg.StopTimeout = 50 * time.Millisecond
	r := start(t, cfg, observability.Check{Name: "stuck", Ready: func(context.Context) error {
		close(entered)
		<-leave
		return nil
	}})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = r.fetch("/readyz") // what a request that was left behind is answered is not promised
	}()
	<-entered

	require.NoError(t, r.Stop(t.Context()))

	require.Len(t, r.logs.FilterMessage("requests were still running when the stop timeout was over").All(), 1)
	close(leave)
	<-answered
}
