package setup

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
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
	proxy, err := NewProxy(server.URL+path, patience, u.budget, zap.New(core))
	require.NoError(t, err)
	u.Proxy, u.logs = proxy, logs
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

func TestTheUpstreamIsToldWhatItNeedsOfARequest(t *testing.T) {
	u := startUpstream(t, "/behind/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, `{"flags":{}}`)
	})
	body := "\x1f\x8b\x08\x00not to be touched"
	response, got := u.forward(t, request("POST", "/flags/", "v=2&send_cohorts&y=a+b", body,
		"Content-Type", "text/plain", "Content-Encoding", "gzip", "Authorization", "Bearer phx_test",
		"Accept-Encoding", "br", "Accept-Language", "de", "Accept-Language", "en", "Origin", "http://shop.example",
		"X-PostHog-Project-Id", "7", "PostHog-Sdk-Info", "node/5", "X-Conversations-Token", "t",
		"sec-ch-ua-mobile", "?0"))
	require.Equal(t, http.StatusTeapot, response.Status)
	require.Equal(t, "application/json; charset=utf-8", response.ContentType)
	require.Equal(t, `{"flags":{}}`, got)
	require.False(t, response.Retry)

	asked := <-u.asked
	require.Equal(t, "POST", asked.Method)
	require.Equal(t, "/behind/flags/?v=2&send_cohorts&y=a+b", asked.RequestURI)
	require.Equal(t, body, asked.body)
	require.EqualValues(t, len(body), asked.ContentLength)
	require.Equal(t, u.upstream.Host, asked.Host)
	for name, want := range map[string][]string{
		"Content-Type": {"text/plain"}, "Content-Encoding": {"gzip"}, "Authorization": {"Bearer phx_test"},
		"Accept-Encoding": {"br"}, "Accept-Language": {"de", "en"}, "Origin": {"http://shop.example"},
		"X-Posthog-Project-Id": {"7"}, "Posthog-Sdk-Info": {"node/5"}, "X-Conversations-Token": {"t"},
		"Sec-Ch-Ua-Mobile": {"?0"},
		"X-Forwarded-For":  {"203.0.113.7"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"capture.example"},
	} {
		require.Equal(t, want, asked.Header[name], name)
	}
	require.NotContains(t, asked.Header, "User-Agent")
}

// RFC 9110, 7.6.1, lists the hop-by-hop headers. PostHog must not see the cookies of the site that this service is part
// of. The others are the names by which providers, proxies and frameworks tell another address of the client, another
// path, method or user.
func TestWhatIsNotForTheUpstreamStaysHere(t *testing.T) {
	u := startUpstream(t, "", func(http.ResponseWriter, *http.Request) {})
	response, _ := u.forward(t, request("GET", "/array/phc_test/config.js", "", "",
		"Cookie", "session=secret", "Connection", "keep-alive, X-PostHog-Hop ,referer", "X-PostHog-Hop", "1",
		"Referer", "http://shop.example/",
		"Keep-Alive", "timeout=5", "TE", "trailers", "Upgrade", "websocket", "Expect", "100-continue",
		"Proxy-Authorization", "Basic c2VjcmV0", "Proxy-Connection", "keep-alive", "Trailer", "X", "Via", "1.1 a",
		"X-Forwarded-For", "1.2.3.4", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "gopher",
		"X-Forwarded-Port", "1", "X-Forwarded-Prefix", "/x", "X-Forwarded-Server", "x", "X-Forwarded", "1.2.3.4",
		"Forwarded", "for=1.2.3.4", "X-Real-IP", "1.2.3.4", "X_Forwarded_For", "1.2.3.4",
		"CF-Connecting-IP", "1.2.3.4", "CF-Connecting-IPv6", "::1", "CF-Ray", "1", "CDN-Loop", "x",
		"True-Client-IP", "1.2.3.4", "Fastly-Client-IP", "1.2.3.4", "X-Azure-ClientIP", "1.2.3.4",
		"X-Azure-SocketIP", "1.2.3.4", "Fly-Client-IP", "1.2.3.4", "X-Client-IP", "1.2.3.4",
		"X-Cluster-Client-IP", "1.2.3.4", "X-Vercel-Forwarded-For", "1.2.3.4", "X-Appengine-User-IP", "1.2.3.4",
		"X-Envoy-External-Address", "1.2.3.4", "X-Originating-IP", "1.2.3.4", "X-Remote-Addr", "1.2.3.4",
		"X-Original-URL", "/admin", "X-Original-URI", "/admin", "X-Original-Host", "x", "X-Original-Method", "PUT",
		"X-Rewrite-URL", "/admin", "X-HTTP-Method-Override", "DELETE", "X-HTTP-Method", "DELETE",
		"X-Method-Override", "DELETE", "X-Remote-User", "root", "Remote-User", "root", "X-Auth-Request-User", "root",
		"X-Accel-Redirect", "/x", "X-Middleware-Subrequest", "x", "X-Never-Heard-Of", "1",
		"Accept", "a\x01b", "Content-Type", "text/plain", "Content-Encoding", "gzip",
		"User-Agent", "Mozilla"))
	require.Equal(t, 200, response.Status)
	asked := <-u.asked
	require.Equal(t, http.Header{
		"User-Agent": {"Mozilla"}, "X-Forwarded-For": {"203.0.113.7"}, "X-Forwarded-Proto": {"http"},
		"X-Forwarded-Host": {"capture.example"},
	}, asked.Header)
	require.Empty(t, asked.TransferEncoding)

	for _, secure := range []bool{false, true} {
		r := request("GET", "/array/phc_test/config", "", "", "X-Forwarded-Proto", "https")
		r.Secure = secure
		u.forward(t, r)
		asked = <-u.asked
		require.Equal(t, secure, asked.Header.Get("X-Forwarded-Proto") == "https", "only a trusted proxy is believed")
	}
}

func TestAnAnswerComesBackWithoutWhatSpeaksForTheUpstreamsHost(t *testing.T) {
	u := startUpstream(t, "", func(w http.ResponseWriter, _ *http.Request) {
		for _, field := range [][2]string{
			{"Cache-Control", "public, max-age=60"}, {"ETag", `"1"`}, {"Vary", "Accept-Encoding"}, {"Vary", "Origin"},
			{"Content-Encoding", "gzip"},
			{"Content-Type", "application/javascript"},
			{"Set-Cookie", "a=b"}, {"Access-Control-Allow-Origin", "*"}, {"Access-Control-Expose-Headers", "X"},
			{"Strict-Transport-Security", "max-age=1"},
			{"Alt-Svc", `h3=":443"`}, {"Clear-Site-Data", `"*"`}, {"Service-Worker-Allowed", "/"}, {"Refresh", "0; /x"},
			{"X-Accel-Redirect", "/etc/passwd"}, {"X-Sendfile", "/etc/passwd"}, {"Server", "x"}, {"NEL", "{}"},
			{"Accept-CH", "DPR"}, {"Trailer", "X"}, {"Link", "</x>; rel=preload"},
			{"Content-Security-Policy", "sandbox"},
			{"X-PostHog-Version", "1"},
			{"X-Request-Id", "theirs"}, {"Connection", "Age"}, {"Age", "1"},
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
		{Name: "Content-Encoding", Value: "gzip"}, {Name: "Content-Security-Policy", Value: "sandbox"},
		{Name: "X-Posthog-Version", Value: "1"},
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
		"/array/./x", "/static/..;/api", "/static/%2e%2e%3bx/api", "/static/%zz", "/static/a\x00b",
	} {
		response, _ := u.forward(t, request("GET", path, "", ""))
		require.Equal(t, 404, response.Status, path)
	}
	require.Empty(t, u.asked)
	response, _ := u.forward(t, request("GET", "/static/a..b/...js%20c;..", "", ""))
	require.Equal(t, 200, response.Status)
	asked := <-u.asked
	require.Equal(t, "/static/a..b/...js%20c;..", asked.RequestURI)
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
	u.upstream.Host = listener.Addr().String()
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
func TestAStatusThatIsNoneIsNoAnswer(t *testing.T) {
	for _, status := range []string{
		"101 Switching Protocols", "000 None", "042 None", "099 None", "600 None", "999 None",
	} {
		u := startUpstream(t, "", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				t.Cleanup(func() { _ = conn.Close() })
				_, _ = io.WriteString(conn,
					"HTTP/1.1 "+status+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
			}
		})
		answered := make(chan route.Response, 1)
		go func() {
			answered <- u.Forward(ctx, request("GET", "/static/socket", "", "", "Connection", "Upgrade",
				"Upgrade", "websocket"))
		}()
		select {
		case response := <-answered:
			requireFailed(t, response, response.Body, "the upstream's answer has a status that is none")
			require.Contains(t, u.logs.All()[0].ContextMap()["error"], strings.TrimLeft(status[:3], "0"))
		case <-time.After(patience):
			require.Fail(t, "nobody answers", status)
		}
	}
}

func TestTheHeadOfAnAnswerHasALimit(t *testing.T) {
	u := startUpstream(t, "", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", strings.Repeat("x", 2*maxAnswerHeader))
	})
	response, body := u.forward(t, request("GET", "/static/x.js", "", ""))
	requireFailed(t, response, body, "the upstream did not answer")
}

// An upstream that takes a body with GET for the next request would answer a request that nobody has made.
func TestARequestThatOnlyAsksHasNoBody(t *testing.T) {
	u := startUpstream(t, "", func(http.ResponseWriter, *http.Request) {})
	for _, method := range []string{"GET", "HEAD"} {
		u.forward(t, request(method, "/flags", "", "GET /admin HTTP/1.1\r\n\r\n",
			"Content-Length", "24", "Transfer-Encoding", "chunked", "Content-Type", "text/plain"))
		asked := <-u.asked
		require.Equal(t, method, asked.Method)
		require.Zero(t, asked.ContentLength)
		require.Empty(t, asked.body)
		require.Empty(t, asked.TransferEncoding)
		require.NotContains(t, asked.Header, "Content-Type")
	}
}

func TestTheQueryIsWrittenAnew(t *testing.T) {
	u := startUpstream(t, "", func(http.ResponseWriter, *http.Request) {})
	for query, want := range map[string]string{
		"":                                "",
		"token=phc_a&send_cohorts":        "token=phc_a&send_cohorts",
		"b=2&a=1&b=1":                     "b=2&a=1&b=1",
		"a=1;token=phc_b":                 "a=1%3Btoken%3Dphc_b",
		"a=%zz&b=%&c=%4":                  "a=%25zz&b=%25&c=%254",
		"a=%26token%3Dphc_b":              "a=%26token%3Dphc_b",
		"a=b=c&=d&e=":                     "a=b%3Dc&=d&e=",
		"&&a=1&&":                         "a=1",
		"a=x y\tz\"<'\\":                  "a=x+y%09z%22%3C%27%5C",
		"a=%00%0d%0aX: y&\xff=%FF":        "a=%00%0D%0AX%3A+y&%FF=%FF",
		"a=1#b=2":                         "a=1%23b%3D2",
		"data=%7B%22a%22%3A+1%7D&_=17953": "data=%7B%22a%22%3A+1%7D&_=17953",
	} {
		response, _ := u.forward(t, request("GET", "/api/surveys/", query, ""))
		require.Equal(t, 200, response.Status, query)
		asked := <-u.asked
		require.Equal(t, want, asked.URL.RawQuery, query)
	}
}

func TestAnAnswerTheUpstreamSendsElsewhereStaysOnThisHost(t *testing.T) {
	var location string
	u := startUpstream(t, "/behind", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusMovedPermanently)
	})
	host := "http://" + u.upstream.Host
	for place, want := range map[string]string{
		host + "/behind/api/surveys/?token=phc_a#x": "/api/surveys/?token=phc_a#x",
		"/behind/flags/":                           "/flags/",
		"surveys/":                                 "/api/surveys/",
		host + "/behind//evil.example/":            host + "/behind//evil.example/",
		host + "/elsewhere":                        host + "/elsewhere",
		"https://" + u.upstream.Host + "/behind/x": "https://" + u.upstream.Host + "/behind/x",
		"//elsewhere.example/x":                    "//elsewhere.example/x",
		"https://elsewhere.example/behind/x":       "https://elsewhere.example/behind/x",
		"http://[":                                 "http://[",
	} {
		location = place
		response, _ := u.forward(t, request("GET", "/api/surveys", "", ""))
		require.Equal(t, 301, response.Status)
		require.Equal(t, []string{want}, header(response, "Location"), place)
		<-u.asked
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
	proxy, err := NewProxy(server.URL, patience, nil, zap.NewNop())
	require.NoError(t, err)
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
	proxy, err := NewProxy(server.URL, patience, nil, zap.NewNop())
	require.NoError(t, err)
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

// Whoever reads a query that was written anew finds the same names and values, and nothing that needs interpretation.
func FuzzAQueryThatWasWrittenAnewIsReadByEverybodyAlike(f *testing.F) {
	for _, query := range []string{"token=phc_a&send_cohorts", "a=1;b=2", "a=%zz&%=%4", "a=\xff%00+", "&&=&"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		written := rewrite(query)
		require.Equal(t, written, rewrite(written))
		_, err := url.ParseQuery(written)
		require.NoError(t, err)
		for _, c := range []byte(written) {
			require.True(t, c > ' ' && c < 0x7f && !strings.ContainsRune(`;#"<>\`, rune(c)), written)
		}
		require.LessOrEqual(t, len(written), 3*len(query))
	})
}
