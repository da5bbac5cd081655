package setup

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

// patience is how long a test waits before it says that something hangs. It measures no speed.
const patience = 2 * time.Minute

// upstream is a PostHog host that keeps the requests that it got.
type upstream struct {
	*Proxy
	budget *memory.Budget
	logs   *observer.ObservedLogs
	asked  chan asked
}

type asked struct {
	*http.Request
	body string
}

func startUpstream(t *testing.T, path string, answer http.HandlerFunc) *upstream {
	u := &upstream{budget: memory.NewBudget(64 << 20), asked: make(chan asked, 100)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			u.asked <- asked{r, string(body)}
		}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	core, logs := observer.New(zapcore.DebugLevel)
	u.Proxy, u.logs = NewProxy(server.URL+path, patience, u.budget, zap.New(core)), logs
	t.Cleanup(u.Close)
	return u
}

// request returns a request. header holds names and values in turn.
func request(method, path, query, body string, header ...string) *route.Request {
	var headers fasthttp.RequestHeader
	headers.SetHost("capture.example")
	for i := 0; i < len(header); i += 2 {
		headers.Add(header[i], header[i+1])
	}
	return &route.Request{
		Method: method, Path: path, RawQuery: query, Header: &headers, Body: []byte(body), ClientIP: "203.0.113.7",
	}
}

// forward passes a request on and takes the answer as the server does. The budget must then be empty.
func (u *upstream) forward(t *testing.T, request *route.Request) (route.Response, string) {
	response := u.Forward(ctx, request)
	body := response.Body
	if response.Bytes != nil {
		require.Empty(t, body)
		require.GreaterOrEqual(t, u.budget.InUse(), int64(len(response.Bytes)), "the answer counts until it is written")
		body = string(response.Bytes)
		response.Done()
	}
	require.Zero(t, u.budget.InUse())
	return response, body
}

func TestARequestReachesTheUpstreamAsItIs(t *testing.T) {
	u := startUpstream(t, "/behind/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, `{"flags":{}}`)
	})
	body := "\x1f\x8b\x08\x00not to be touched"
	response, got := u.forward(t, request("POST", "/flags/", "v=2&x=%zz&y=a+b", body,
		"Content-Type", "text/plain", "Content-Encoding", "gzip", "Authorization", "Bearer phx_test",
		"Accept-Encoding", "br",
		"X-Own", "1", "X-Own", "2", "Origin", "http://shop.example"))
	require.Equal(t, http.StatusTeapot, response.Status)
	require.Equal(t, "application/json; charset=utf-8", response.ContentType)
	require.Equal(t, `{"flags":{}}`, got)
	require.False(t, response.Retry)

	asked := <-u.asked
	require.Equal(t, "POST", asked.Method)
	require.Equal(t, "/behind/flags/?v=2&x=%zz&y=a+b", asked.RequestURI)
	require.Equal(t, body, asked.body)
	require.EqualValues(t, len(body), asked.ContentLength)
	require.Equal(t, strings.TrimSuffix(strings.TrimPrefix(u.upstream, "http://"), "/behind"), asked.Host)
	for name, want := range map[string][]string{
		"Content-Type": {"text/plain"}, "Content-Encoding": {"gzip"}, "Authorization": {"Bearer phx_test"},
		"Accept-Encoding": {"br"},
		"X-Own":           {"1", "2"}, "Origin": {"http://shop.example"},
		"X-Forwarded-For": {"203.0.113.7"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"capture.example"},
	} {
		require.Equal(t, want, asked.Header[name], name)
	}
	require.NotContains(t, asked.Header, "User-Agent")
}

// RFC 9110, 7.6.1, lists the hop-by-hop headers. PostHog must not see the cookies of the site that this service is part
// of.
func TestWhatIsNotForTheUpstreamStaysHere(t *testing.T) {
	u := startUpstream(t, "", func(http.ResponseWriter, *http.Request) {})
	response, _ := u.forward(t, request("GET", "/array/phc_test/config.js", "", "",
		"Cookie", "session=secret", "Connection", "keep-alive, X-Hop ,x-other", "X-Hop", "1", "X-Other", "1",
		"Keep-Alive", "timeout=5", "TE", "trailers", "Upgrade", "websocket", "Expect", "100-continue",
		"Proxy-Authorization", "Basic c2VjcmV0", "Proxy-Connection", "keep-alive",
		"X-Forwarded-For", "1.2.3.4", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "gopher",
		"Forwarded", "for=1.2.3.4", "X-Real-IP", "1.2.3.4",
		"User-Agent", "Mozilla"))
	require.Equal(t, 200, response.Status)
	asked := <-u.asked
	require.Equal(t, http.Header{
		"User-Agent": {"Mozilla"}, "X-Forwarded-For": {"203.0.113.7"}, "X-Forwarded-Proto": {"http"},
		"X-Forwarded-Host": {"capture.example"},
	}, asked.Header)
	require.Empty(t, asked.TransferEncoding)

	u.forward(t, request("GET", "/array/phc_test/config", "", "", "X-Forwarded-Proto", "https"))
	asked = <-u.asked
	require.Equal(t, "https", asked.Header.Get("X-Forwarded-Proto"), "a proxy in front knows better")
}

func TestAnAnswerComesBackWithoutWhatSpeaksForTheUpstreamsHost(t *testing.T) {
	u := startUpstream(t, "", func(w http.ResponseWriter, _ *http.Request) {
		for _, field := range [][2]string{
			{"Cache-Control", "public, max-age=60"}, {"ETag", `"1"`}, {"Vary", "Accept-Encoding"}, {"Vary", "Origin"},
			{"Content-Encoding", "gzip"},
			{"Content-Type", "application/javascript"},
			{"Set-Cookie", "a=b"}, {"Access-Control-Allow-Origin", "*"}, {"Access-Control-Expose-Headers", "X"},
			{"Strict-Transport-Security", "max-age=1"},
			{"Alt-Svc", `h3=":443"`}, {"X-Request-Id", "theirs"}, {"Connection", "X-Hop"}, {"X-Hop", "1"},
			{"Keep-Alive", "timeout=5"},
		} {
			w.Header().Add(field[0], field[1])
		}
		_, _ = io.WriteString(w, "\x1f\x8b\x08\x00not to be touched")
	})
	response, body := u.forward(t, request("GET", "/static/array.js", "", ""))
	require.Equal(t, "\x1f\x8b\x08\x00not to be touched", body)
	require.Equal(t, "application/javascript", response.ContentType)
	require.ElementsMatch(t, []route.Field{
		{Name: "Cache-Control", Value: "public, max-age=60"}, {Name: "Etag", Value: `"1"`},
		{Name: "Content-Encoding", Value: "gzip"},
		{Name: "Vary", Value: "Accept-Encoding"}, {Name: "Vary", Value: "Origin"},
	}, response.Header)
}

func TestWhatIsKnownAndWhatIsElsewhereIsForTheClientToKnow(t *testing.T) {
	u := startUpstream(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"1"` {
			w.Header().Set("ETag", `"1"`)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Location", "https://elsewhere.example/x?token=phc_test")
		w.WriteHeader(http.StatusFound)
	})
	response, body := u.forward(t, request("GET", "/flags/definitions", "token=phc_test", "", "If-None-Match", `"1"`))
	require.Equal(t, 304, response.Status)
	require.Empty(t, body)
	require.Equal(t, []string{`"1"`}, header(response, "Etag"))

	response, body = u.forward(t, request("GET", "/static/recorder.js", "v=1", ""))
	require.Equal(t, 302, response.Status)
	require.Empty(t, body)
	require.Equal(t, []string{"https://elsewhere.example/x?token=phc_test"}, header(response, "Location"))
	require.Len(t, u.asked, 2, "nobody went there")
}

// A path such as /static/../api leads to paths that are not served here.
func TestAPathThatClimbsIsNotPassedOn(t *testing.T) {
	u := startUpstream(t, "", func(http.ResponseWriter, *http.Request) {})
	for _, path := range []string{
		"/static/../api/users", "/static/%2e%2E/api/users", "/static/..%2fapi", `/static/..\api`, "/static/x/..",
		"/array/./x", "/static/%zz", "/static/a\x00b",
	} {
		response, _ := u.forward(t, request("GET", path, "", ""))
		require.Equal(t, 404, response.Status, path)
	}
	require.Empty(t, u.asked)
	response, _ := u.forward(t, request("GET", "/static/a..b/...js%20c", "", ""))
	require.Equal(t, 200, response.Status)
	asked := <-u.asked
	require.Equal(t, "/static/a..b/...js%20c", asked.RequestURI)
}

func requireFailed(t *testing.T, response route.Response, body, want string) {
	t.Helper()
	require.Equal(t, 502, response.Status)
	require.Equal(t, want, body)
	require.Equal(t, route.TypeText, response.ContentType)
	require.True(t, response.Retry, "another time it may work")
}

func TestAnUpstreamThatCannotBeReachedIsSaidAndLoggedOnce(t *testing.T) {
	u := startUpstream(t, "", nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	u.upstream = "http://" + listener.Addr().String()
	for range 3 {
		response, body := u.forward(t, request("POST", "/flags/", "v=2&token=phc_test", "{}"))
		requireFailed(t, response, body, "the upstream did not answer")
	}
	require.Equal(t, 1, u.logs.Len())
	require.Contains(t, u.logs.All()[0].ContextMap()["error"], "refused")
	require.NotContains(t, u.logs.All()[0].ContextMap()["error"], "phc_test")
}

// An upstream may be slow to begin its answer, or to end it.
func TestAnUpstreamHasItsTimeAndNoMore(t *testing.T) {
	u := startUpstream(t, "", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/static") {
			_, _ = io.WriteString(w, "the beginning")
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	})
	u.timeout = 100 * time.Millisecond
	for _, path := range []string{"/flags/", "/static/x.js"} {
		response, body := u.forward(t, request("GET", path, "", ""))
		requireFailed(t, response, body, "the upstream did not answer")
	}
}

// The stream after a change of protocols has no end, and no timeout reaches it.
func TestAChangeOfProtocolsIsNoAnswer(t *testing.T) {
	u := startUpstream(t, "", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			_, _ = io.WriteString(conn,
				"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		}
	})
	answered := make(chan route.Response, 1)
	go func() {
		answered <- u.Forward(ctx, request("GET", "/static/socket", "", "", "Connection", "Upgrade",
			"Upgrade", "websocket"))
	}()
	select {
	case response := <-answered:
		require.Equal(t, 502, response.Status)
	case <-time.After(patience):
		require.Fail(t, "nobody answers")
	}
}

func TestAnAnswerThatIsCutShortIsNone(t *testing.T) {
	u := startUpstream(t, "", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "short")
	})
	response, body := u.forward(t, request("GET", "/static/x.js", "", ""))
	requireFailed(t, response, body, "the upstream did not answer")
}

func TestAnAnswerIsPassedOnUpToItsLimit(t *testing.T) {
	part := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	u := startUpstream(t, "", func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.URL.Query().Get("size"))
		if r.URL.Query().Has("said") {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		for size > 0 {
			n, err := w.Write(part[:min(size, len(part))])
			if err != nil {
				return
			}
			size -= n
		}
	})
	for _, said := range []string{"", "&said"} {
		for _, size := range []int{0, 1, firstBuffer - 1, firstBuffer, firstBuffer + 1, maxAnswer} {
			response, body := u.forward(t, request("GET", "/static/x.js", "size="+strconv.Itoa(size)+said, ""))
			require.Equal(t, 200, response.Status)
			require.Len(t, body, size)
		}
		for _, size := range []int{maxAnswer + 1, 2 * maxAnswer} {
			response, body := u.forward(t, request("GET", "/static/x.js", "size="+strconv.Itoa(size)+said, ""))
			requireFailed(t, response, body, "the upstream's answer exceeds 33554432 bytes")
		}
	}
}

func TestWithoutMemoryNothingIsPassedOn(t *testing.T) {
	u := startUpstream(t, "", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) })
	taken := u.budget.Lease()
	require.True(t, taken.Reserve(u.budget.Limit()-100))
	for _, body := range []string{"", strings.Repeat("x", 101)} {
		response := u.Forward(ctx, request("POST", "/flags/", "", body))
		require.Equal(t, 503, response.Status)
		require.True(t, response.Retry)
		require.Equal(t, taken.Held(), u.budget.InUse())
	}
	require.Len(t, u.asked, 1, "a request that there is no memory for is not sent")
}

// The server uses a request's memory again after the answer. An upstream may answer before it has read the whole
// request. The race detector sees who reads the memory then.
func TestARequestIsNotUsedAfterItsAnswer(t *testing.T) {
	received := make(chan string, 1)
	answered := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "{}")
		_ = control.Flush()
		<-answered
		body, _ := io.ReadAll(r.Body)
		received <- string(body)
	}))
	defer server.Close()
	proxy := NewProxy(server.URL, patience, nil, zap.NewNop())
	defer proxy.Close()
	in := request("POST", "/flags/", "", strings.Repeat("a", 16<<20)) // more than sockets hold
	require.Equal(t, 200, proxy.Forward(ctx, in).Status)
	close(answered)
	for i := range in.Body {
		in.Body[i] = 'b'
	}
	require.NotContains(t, <-received, "b")
}

func TestConnectionsAreKeptUntilClose(t *testing.T) {
	connections := make(chan http.ConnState, 100)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{}")
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew || state == http.StateClosed {
			connections <- state
		}
	}
	server.Start()
	defer server.Close()
	proxy := NewProxy(server.URL, patience, nil, zap.NewNop())
	for range 5 {
		require.Equal(t, 200, proxy.Forward(ctx, request("POST", "/flags/", "v=2", "{}")).Status)
	}
	require.Equal(t, http.StateNew, <-connections)
	require.Empty(t, connections)
	proxy.Close()
	select {
	case state := <-connections:
		require.Equal(t, http.StateClosed, state)
	case <-time.After(patience):
		require.Fail(t, "the connection is still open")
	}
}
