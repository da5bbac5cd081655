package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/listen"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits before it says that something hangs. It is no measure of speed.
const patience = 2 * time.Minute

// plan is how a server is to be started.
type plan struct {
	// settings maps keys of the section to their values.
	settings  map[string]string
	checks    []observability.Check
	endpoints []endpoint.Endpoint
	// peer and bound replace the addresses that the connections come from and are bound to. Without them both are
	// loopback.
	peer, bound net.Addr
}

// running is a started server with the parts that it was made of.
type running struct {
	*Server
	live     *configs.Live
	registry *prometheus.Registry
	health   *observability.Health
	logs     *observer.ObservedLogs
	failures chan error
	audited  *synced // what the audit log wrote where there is no file for it

	mu       sync.Mutex
	settings map[string]string
}

// synced is a buffer that may be read while it is written.
type synced struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *synced) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *synced) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.ReadTimeout, cfg.WriteTimeout, cfg.StopTimeout = patience, patience, patience
	return cfg
}

// load loads the section with the settings.
func (r *running) load() (*configs.Set, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var environ []string
	for key, value := range r.settings {
		environ = append(environ, "CAPTURE_ADMIN__"+strings.ToUpper(strings.ReplaceAll(key, ".", "__"))+"="+value)
	}
	return configs.Load([]configs.Section{{Name: "admin", Defaults: testConfig()}}, configs.Source{Environ: environ})
}

// set changes a setting. The change takes effect with the next reload.
func (r *running) set(key, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settings[key] = value
}

// reload puts the settings in force.
func (r *running) reload(t *testing.T) {
	t.Helper()
	_, err := r.live.Reload()
	require.NoError(t, err)
}

// start starts a server on a free port and stops it when the test ends.
func start(t *testing.T, with plan) *running {
	t.Helper()
	health, err := observability.NewHealth(nil, with.checks...)
	require.NoError(t, err)
	core, logs := observer.New(zap.DebugLevel)
	r := &running{
		registry: observability.NewRegistry(), health: health, logs: logs,
		failures: make(chan error, 1), settings: map[string]string{},
	}
	for key, value := range with.settings {
		r.set(key, value)
	}
	set, err := r.load()
	require.NoError(t, err)
	r.live = configs.NewLive(set, r.load)
	log := zap.New(core)
	r.audited = &synced{}
	auditLog := audit.New(func() string { return r.config.Now().Audit.File }, r.audited, log,
		tally.NoopScope.Counter("x"))
	t.Cleanup(auditLog.Close)
	endpoints := append(Endpoints(r.registry, health, r.live, auditLog, log), with.endpoints...)
	r.Server, err = NewServer(r.live, "v1", endpoints, log, func(err error) { r.failures <- err })
	require.NoError(t, err)
	if with.peer == nil && with.bound == nil {
		require.NoError(t, r.Start(t.Context()))
	} else {
		listener, err := listen.TCP(t.Context(), "admin.listen", r.config.Now().Listen)
		require.NoError(t, err)
		r.serveOn(elsewhere{listener, with.peer, with.bound})
	}
	t.Cleanup(func() {
		if r.running.Err() == nil {
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

// elsewhere is a listener that reports another bound address, and other peers, than it really has.
type elsewhere struct {
	net.Listener

	peer, bound net.Addr
}

func (l elsewhere) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.peer == nil {
		return conn, err
	}
	return connFrom{conn, l.peer}, nil
}

func (l elsewhere) Addr() net.Addr {
	if l.bound == nil {
		return l.Listener.Addr()
	}
	return l.bound
}

type connFrom struct {
	net.Conn

	peer net.Addr
}

func (c connFrom) RemoteAddr() net.Addr { return c.peer }

// port returns an address where a client reaches the server, whatever address the server reports.
func (r *running) port() string {
	if wrapped, ok := r.listener.(elsewhere); ok {
		return wrapped.Listener.Addr().String()
	}
	return r.Addr().String()
}

// response is an answer that has been read whole.
type response struct {
	status int
	header http.Header
	body   string
}

// send sends a request. header holds names and values in turn; it may hold the Host.
func (r *running) send(t *testing.T, method, path string, header ...string) response {
	t.Helper()
	got, err := r.try(t.Context(), method, path, nil, header...)
	require.NoError(t, err)
	return got
}

func (r *running) get(t *testing.T, path string, header ...string) response {
	t.Helper()
	return r.send(t, http.MethodGet, path, header...)
}

// try is send for a goroutine, which must not end the test, and for a client that leaves before the answer.
func (r *running) try(ctx context.Context, method, path string, body io.Reader, header ...string) (response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+r.port()+path, body)
	if err != nil {
		return response{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
			continue
		}
		request.Header.Add(header[i], header[i+1])
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       patience,
	}
	answer, err := client.Do(request)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return response{status: answer.StatusCode, header: answer.Header, body: string(text)}, err
}

// dial opens a connection and writes to it.
func (r *running) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", r.port())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	return conn
}

// read reads an answer from a connection.
func read(t *testing.T, conn net.Conn) response {
	t.Helper()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return response{status: answer.StatusCode, header: answer.Header, body: string(text)}
}

// serves returns an endpoint of a test.
func serves(pattern string, handler http.HandlerFunc) endpoint.Endpoint {
	return endpoint.Endpoint{Pattern: pattern, About: "A test.", Access: endpoint.Reader, Handler: handler}
}

func TestMetricsShowTheRuntimeTheProcessAndTheService(t *testing.T) {
	r := start(t, plan{})
	scope, closer := observability.NewScope(r.registry, nil, zap.NewNop())
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
	r := start(t, plan{})
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
	away := func(context.Context) error { return errors.New("away") }
	r := start(t, plan{checks: []observability.Check{{Name: "kafka", Ready: away}}})
	got := r.get(t, "/healthz")
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "ok\n", got.body)
}

func TestReadyzFollowsTheServiceAndNamesWhatIsMissing(t *testing.T) {
	var missing error
	r := start(t, plan{checks: []observability.Check{
		{Name: "store", Ready: func(context.Context) error { return nil }},
		{Name: "kafka", Ready: func(context.Context) error { return missing }},
	}})
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
	expect(503, `{"ready":false,"phase":"running","checks":[`+
		`{"name":"kafka","ready":false,"reason":"no metadata yet"},{"name":"store","ready":true}]}`)
	missing = nil
	r.health.SetStopping()
	expect(503, `{"ready":false,"phase":"stopping","checks":`+bothPass+`}`)
}

func TestOtherPathsAndMethodsAreRefused(t *testing.T) {
	r := start(t, plan{})
	for _, path := range []string{"/index.html", "/metrics/", "/debug", "/admin", "/debug/pprof/nonsense"} {
		require.Equal(t, http.StatusNotFound, r.get(t, path).status, path)
	}
	got := r.send(t, http.MethodPost, "/metrics")
	require.Equal(t, http.StatusMethodNotAllowed, got.status)
	require.Equal(t, "GET, HEAD", got.header.Get("Allow"))
	require.Equal(t, http.StatusOK, r.send(t, http.MethodHead, "/metrics").status)
}

func TestAPanicInAHandlerIsAnsweredCountedAndLoggedOnce(t *testing.T) {
	r := start(t, plan{endpoints: []endpoint.Endpoint{{
		Pattern: "GET /broken", About: "It panics.",
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }),
	}}})
	before := panics.Count()
	got := r.get(t, "/broken")
	require.Equal(t, http.StatusInternalServerError, got.status)
	require.NotContains(t, got.body, "boom")
	require.Equal(t, before+1, panics.Count())
	require.Equal(t, http.StatusOK, r.get(t, "/healthz").status)
	require.Equal(t, 1, r.logs.Len())
	entry := r.logs.FilterMessage("a handler panicked").All()[0]
	require.Equal(t, "/broken", entry.ContextMap()["path"])
	require.Equal(t, "boom", entry.ContextMap()["panic"])
	require.Contains(t, entry.ContextMap()["stack"].(string), "server_test.go")
}

func TestAPanicAfterTheAnswerHasBegunCutsItOff(t *testing.T) {
	r := start(t, plan{endpoints: []endpoint.Endpoint{
		serves("GET /half", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
			panic("boom")
		}),
		serves("GET /given-up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
	}})
	before := panics.Count()
	_, err := r.try(t.Context(), http.MethodGet, "/half", nil)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Len(t, r.logs.FilterMessage("a handler panicked").All(), 1)
	_, err = r.try(t.Context(), http.MethodGet, "/given-up", nil)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, before+1, panics.Count(), "a handler that gives its answer up by net/http's own means is no panic")
	require.Equal(t, 1, r.logs.Len())
}

func TestAPortInUseFailsTheStartAndNamesTheKey(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	cfg := testConfig()
	cfg.Listen = taken.Addr().String()
	server, err := NewServer(configs.Fixed(cfg), "v1", nil, zap.NewNop(), func(error) {})
	require.NoError(t, err)

	err = server.Start(t.Context())

	require.ErrorContains(t, err, "admin.listen: ")
	require.ErrorContains(t, err, cfg.Listen)
	require.ErrorContains(t, err, "address already in use")
}

func TestAServerNeedsItsSection(t *testing.T) {
	_, err := NewServer(configs.Fixed(), "v1", nil, zap.NewNop(), func(error) {})
	require.ErrorContains(t, err, "no section of this build is a admin.Config")
}

func TestEndpointsThatCannotBeServedFailTheStartAndAreNamed(t *testing.T) {
	handler := http.NotFoundHandler()
	good := endpoint.Endpoint{Pattern: "GET /keys", About: "Keys.", Handler: handler}
	pattern := func(pattern string) endpoint.Endpoint {
		return endpoint.Endpoint{Pattern: pattern, About: "A test.", Handler: handler}
	}
	for name, test := range map[string]struct {
		endpoint endpoint.Endpoint
		want     string
	}{
		"twice": {pattern("GET /keys"),
			`"GET /keys": two endpoints have this pattern: change one, or leave out a module`},
		"the index":  {pattern("GET /{$}"), `the operators' endpoint "GET /{$}": two endpoints have this pattern`},
		"overlap":    {pattern("GET /{any}"), `matches the same requests as GET /{`},
		"invalid":    {pattern("GET /{"), `the operators' endpoint "GET /{": parsing "GET /{": `},
		"no method":  {pattern("/keys"), `the operators' endpoint "/keys": its Pattern must be a method and a path`},
		"a host":     {pattern("GET example.com/keys"), `must be a method and a path`},
		"no pattern": {pattern(""), `the operators' endpoint "": its Pattern must be a method and a path`},
		"no about": {endpoint.Endpoint{Pattern: "GET /b", Handler: handler},
			`"GET /b": its About must say what the endpoint does`},
		"no handler": {endpoint.Endpoint{Pattern: "GET /b", About: "B."}, `"GET /b": its Handler is missing`},
		"no access": {endpoint.Endpoint{Pattern: "GET /b", About: "B.", Handler: handler, Access: 7},
			`its Access must be `},
	} {
		others := []endpoint.Endpoint{good, pattern("GET /keys/{name}/more"), test.endpoint}
		if name == "overlap" {
			others = append(others, pattern("GET /{one}"))
		}
		_, err := NewServer(configs.Fixed(testConfig()), "v1", others, zap.NewNop(), func(error) {})
		require.ErrorContains(t, err, test.want, name)
	}
	bad := []endpoint.Endpoint{pattern("a"), pattern("b")}
	_, err := NewServer(configs.Fixed(testConfig()), "v1", bad, zap.NewNop(), func(error) {})
	require.ErrorContains(t, err, `endpoint "a"`)
	require.ErrorContains(t, err, `endpoint "b"`, "all are named at once")
}

func TestServingThatEndsByItselfIsAFailure(t *testing.T) {
	r := start(t, plan{})
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
		r := start(t, plan{})
		require.NoError(t, r.Stop(t.Context()))
		<-r.served
		_, err := net.Dial("tcp", r.Addr().String())
		require.Error(t, err)
	}
}

func TestStopLeavesARequestThatRunsTooLongAndSaysSo(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := start(t, plan{
		settings: map[string]string{"stop_timeout": "50ms"},
		checks: []observability.Check{{Name: "stuck", Ready: func(context.Context) error {
			close(entered)
			<-leave
			return nil
		}}},
	})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		// No particular answer is promised to a request that was left behind.
		_, _ = r.try(context.Background(), http.MethodGet, "/readyz", nil)
	}()
	<-entered

	require.NoError(t, r.Stop(t.Context()))

	require.Len(t, r.logs.FilterMessage("requests were still running when the stop timeout was over").All(), 1)
	close(leave)
	<-answered
}

func TestStopWaitsForARequestAndNotForAConnectionWithout(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan struct{})
	r := start(t, plan{
		// net/http would wait 5 s for a connection that has had no request.
		settings: map[string]string{"stop_timeout": "4s"},
		endpoints: []endpoint.Endpoint{serves("GET /slow", func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
			close(ended)
			_, _ = io.WriteString(w, "whole")
		})},
	})
	unused := r.dial(t, "")
	idle := r.dial(t, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.Equal(t, http.StatusOK, read(t, idle).status)
	slow := r.dial(t, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
	<-entered
	require.Eventually(t, func() bool { return r.open() == 3 }, patience, time.Millisecond)

	require.NoError(t, r.Stop(t.Context()))

	<-ended
	require.Equal(t, "whole", read(t, slow).body)
	require.Zero(t, r.logs.Len())
	for _, conn := range []net.Conn{unused, idle} {
		_, err := conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
}

func TestAHeadThatIsTooLargeIsRefused(t *testing.T) {
	r := start(t, plan{})
	large := "X-Large: " + strings.Repeat("x", 2*maxHeaderBytes)
	got := read(t, r.dial(t, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"+large+"\r\n\r\n"))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, got.status)
}

func TestABodyIsLimitedInSizeAndInTime(t *testing.T) {
	errs := make(chan error, 1)
	r := start(t, plan{
		settings: map[string]string{"read_timeout": "500ms"},
		endpoints: []endpoint.Endpoint{serves("POST /body", func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			errs <- err
		})},
	})
	_, err := r.try(t.Context(), http.MethodPost, "/body", strings.NewReader(strings.Repeat("x", maxBodyBytes)))
	require.NoError(t, err)
	require.NoError(t, <-errs)

	_, _ = r.try(t.Context(), http.MethodPost, "/body", strings.NewReader(strings.Repeat("x", maxBodyBytes+1)))
	var tooLarge *http.MaxBytesError
	require.ErrorAs(t, <-errs, &tooLarge)

	r.dial(t, "POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
	var late net.Error
	require.ErrorAs(t, <-errs, &late)
	require.True(t, late.Timeout())
}

func TestARequestMayTakeLongerThanItsReading(t *testing.T) {
	const reading = 500 * time.Millisecond
	r := start(t, plan{
		settings: map[string]string{"read_timeout": reading.String()},
		endpoints: []endpoint.Endpoint{serves("POST /long", func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			select {
			case <-r.Context().Done():
				http.Error(w, r.Context().Err().Error(), http.StatusTeapot)
			case <-time.After(2 * reading):
			}
		})},
	})
	for _, body := range []string{"", "body"} {
		got, err := r.try(t.Context(), http.MethodPost, "/long", strings.NewReader(body))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, got.status, got.body)
	}
}

func TestTimeoutsHoldForConnectionsThatComeAfterAReload(t *testing.T) {
	const head, end = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n", "\r\n"
	for setting, test := range map[string]struct{ before, after string }{
		"read_timeout": {head, end},
		"idle_timeout": {head + end, head + end},
	} {
		r := start(t, plan{settings: map[string]string{"idle_timeout": "1h"}})
		old := r.dial(t, test.before)
		if setting == "idle_timeout" {
			require.Equal(t, http.StatusOK, read(t, old).status)
		}
		require.Eventually(t, func() bool { return r.open() == 1 }, patience, time.Millisecond)
		r.set(setting, "50ms")
		r.reload(t)

		for range 2 {
			_, err := io.Copy(io.Discard, r.dial(t, test.before))
			require.NoError(t, err, "the server has closed the connection")
		}
		_, err := io.WriteString(old, test.after)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, read(t, old).status)
	}
}

func TestAnAnswerThatNobodyReadsIsGivenUp(t *testing.T) {
	errs := make(chan error, 1)
	endless := serves("GET /endless", func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for part := make([]byte, 1<<20); err == nil; {
			_, err = w.Write(part)
		}
		errs <- err
	})
	r := start(t, plan{endpoints: []endpoint.Endpoint{endless}})
	require.Equal(t, http.StatusOK, r.get(t, "/healthz").status, "with the old timeout")
	r.set("write_timeout", "50ms")
	r.reload(t)
	r.dial(t, "GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
	var late net.Error
	require.ErrorAs(t, <-errs, &late)
	require.True(t, late.Timeout())
}

func TestTheStartLineAndTheLogWarnOffLoopbackWithoutAToken(t *testing.T) {
	const warning = "the operators' listener is off loopback without a token"
	address := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 8001} }
	for _, test := range []struct {
		bound net.Addr
		token string
		line  string
		warns bool
	}{
		{address("127.0.0.1"), "", "http://127.0.0.1:8001/metrics", false},
		{address("127.8.8.8"), "", "http://127.8.8.8:8001/metrics", false},
		{address("::1"), "", "http://[::1]:8001/metrics", false},
		{address("0.0.0.0"), "secret", "http://localhost:8001/metrics", false},
		{address("0.0.0.0"), "", "http://localhost:8001/metrics", true},
		{address("::"), "", "http://localhost:8001/metrics", true},
		{address("10.1.2.3"), "", "http://10.1.2.3:8001/metrics", true},
	} {
		r := start(t, plan{bound: test.bound, settings: map[string]string{"token": test.token}})
		if !test.warns {
			require.Equal(t, test.line, r.StartLine())
			require.Zero(t, r.logs.Len(), test.bound)
			continue
		}
		require.Equal(t, test.line+
			" (off loopback without admin.token: whoever reaches it reads the inside of the service)", r.StartLine())
		require.Equal(t, 1, r.logs.FilterLevelExact(zap.WarnLevel).Len())
		require.Contains(t, r.logs.All()[0].Message, warning)
		require.Contains(t, fmt.Sprint(r.logs.All()[0].ContextMap()), test.bound.String())
	}
}
