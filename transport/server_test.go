package transport

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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

// processor accepts every event. It calls do first, if do is set.
type processor struct {
	mu  sync.Mutex
	ips []string
	do  func()
	// judge judges a batch before the rest of it is accepted.
	judge func(*events.Batch)
}

func (p *processor) Process(_ context.Context, batch *events.Batch) {
	if p.do != nil {
		p.do()
	}
	if p.judge != nil {
		p.judge(batch)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ips = append(p.ips, strings.Clone(batch.ClientIP))
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
}

type fixture struct {
	*Server
	processor *processor
	budget    *memory.Budget
	health    *observability.Health
	url       string
	failed    chan error
}

// newServer returns a server of PostHog's protocol.
func newServer(
	config Config, budget *memory.Budget, processor events.Processor, health *observability.Health, log *zap.Logger,
	scope tally.Scope, fail func(error),
) (*Server, error) {
	live := configs.Fixed(config)
	decoder, err := newDecoder(live, budget)
	if err != nil {
		return nil, err
	}
	handler, err := posthog.NewHandler(live, decoder, budget, processor, scope)
	if err != nil {
		return nil, err
	}
	return NewServer(live, 0, handler.Routes(), nil, budget, health, log, scope, fail)
}

// patience is how long a test waits before it says that something hangs. It measures no speed.
const patience = 2 * time.Minute

// testConfig gives clients, and a stop, all the time that a busy machine may need.
func testConfig() Config {
	config := DefaultConfig()
	config.Listen = "127.0.0.1:0"
	config.HeaderTimeout, config.BodyTimeout = patience, patience
	config.WriteTimeout, config.StopTimeout = patience, patience
	return config
}

func serve(t *testing.T, change func(*Config)) *fixture { return serveLogged(t, change, zap.NewNop()) }

func serveLogged(t *testing.T, change func(*Config), log *zap.Logger) *fixture {
	config := testConfig()
	if change != nil {
		change(&config)
	}
	require.NoError(t, config.Validate())
	health, err := observability.NewHealth(nil)
	require.NoError(t, err)
	f := &fixture{processor: &processor{}, budget: newBudget(config, 0), health: health, failed: make(chan error, 1)}
	f.Server, err = newServer(config, f.budget, f.processor, health, log, tally.NoopScope,
		func(err error) { f.failed <- err })
	require.NoError(t, err)
	require.NoError(t, f.Start(context.Background()))
	f.url = "http://" + f.Addr().String()
	t.Cleanup(func() { require.NoError(t, f.Stop(context.Background())) })
	return f
}

// serveRoutes starts a server of other routes.
func serveRoutes(t *testing.T, change func(*Config), routes ...route.Route) *fixture {
	config := testConfig()
	if change != nil {
		change(&config)
	}
	require.NoError(t, config.Validate())
	health, err := observability.NewHealth(nil)
	require.NoError(t, err)
	server, err := NewServer(configs.Fixed(config), 0, routes, nil, newBudget(config, 0), health, zap.NewNop(),
		tally.NoopScope, func(error) {})
	require.NoError(t, err)
	require.NoError(t, server.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, server.Stop(context.Background())) })
	return &fixture{Server: server}
}

const event = `{"event":"a","distinct_id":"u","token":"k"}`

// connection is one client connection, on which a test sees what happens to the next request.
type connection struct {
	t *testing.T
	net.Conn
	answers *bufio.Reader
}

func (f *fixture) dial(t *testing.T) *connection {
	conn, err := net.Dial("tcp", f.Addr().String())
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = conn.Close() })
	return &connection{t: t, Conn: conn, answers: bufio.NewReader(conn)}
}

// send writes a request as text and reads the answer.
func (c *connection) send(method, request string) (*http.Response, string) {
	_, err := io.WriteString(c, request)
	require.NoError(c.t, err)
	return c.answer(method)
}

func (c *connection) answer(method string) (*http.Response, string) {
	response, err := http.ReadResponse(c.answers, &http.Request{Method: method})
	require.NoError(c.t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(c.t, err)
	return response, string(body)
}

func request(method, path, headers, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", method, path,
		headers, len(body), body)
}

// requireUsable sends a sound request on the connection, which must still work.
func (c *connection) requireUsable() {
	c.t.Helper()
	response, body := c.send("POST", request("POST", "/e/", "", event))
	require.Equal(c.t, 200, response.StatusCode, body)
}

// requireClosed checks that the server has ended the connection.
func (c *connection) requireClosed() {
	c.t.Helper()
	_, err := c.answers.ReadByte()
	require.Error(c.t, err)
}

// Section 1.2 of the protocol: methods, and slashes at the end.
func TestEveryRouteTakesEveryMethodOfTheProtocol(t *testing.T) {
	f := serve(t, nil)
	c := f.dial(t)
	for _, path := range []string{"/e", "/i/v0/e", "/batch", "/capture", "/track", "/engage", "/test/black_hole"} {
		for _, path := range []string{path, path + "/"} {
			response, body := c.send("POST", request("POST", path, "", event))
			require.Equal(t, 200, response.StatusCode, path)
			require.Equal(t, `{"status":"Ok"}`, body)
			require.Equal(t, "application/json", response.Header.Get("Content-Type"))
			response, body = c.send("OPTIONS", request("OPTIONS", path, "", ""))
			require.Equal(t, 200, response.StatusCode, path)
			require.Equal(t, `{"status":"Ok"}`, body)
			response, _ = c.send("HEAD", "HEAD "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			require.Equal(t, 200, response.StatusCode, path)
			response, body = c.send("GET",
				"GET "+path+"?data=%7B%22event%22%3A%22a%22%2C%22distinct_id%22%3A%22u%22%2C%22token%22%3A%22k%22%7D "+
					"HTTP/1.1\r\nHost: x\r\n\r\n")
			require.Equal(t, 200, response.StatusCode, body)
		}
	}
	response, body := c.send("GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 200, response.StatusCode)
	require.Equal(t, "capture", body)
}

func TestHeadKeepsNothing(t *testing.T) {
	f := serve(t, nil)
	response, err := http.Head(f.url + "/e/?data=" +
		"%7B%22event%22%3A%22a%22%2C%22distinct_id%22%3A%22u%22%2C%22token%22%3A%22k%22%7D")
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, 200, response.StatusCode)
	require.Empty(t, f.processor.ips)
}

// After a 503 the client would send the request again and again.
func TestABodyThatTheBudgetCanNeverHoldIsTooLarge(t *testing.T) {
	f := serveRoutes(t, func(c *Config) {
		c.MaxBody, c.MaxDecoded = 1<<20, 1<<20
		c.PostHog.MaxRecording, c.MaxInFlight, c.MaxAddressShare = 1<<20, 4<<20, 1
	}, route.Route{Group: "own", Path: "/large", MaxBody: route.Fixed(1 << 30), Methods: []string{"POST"},
		Handle: func(context.Context, *route.Request) route.Response { return route.Response{Status: 200} }})
	c := f.dial(t)
	response, _ := c.send("POST", request("POST", "/large", "", strings.Repeat("x", 3<<19)))
	require.Equal(t, 200, response.StatusCode)
	response, _ = c.send("POST", request("POST", "/large", "", strings.Repeat("x", 3<<19+1)))
	require.Equal(t, 413, response.StatusCode)
	require.NoError(t, c.Close())
}

func TestAPathThatIsServedTwiceIsAnErrorAtStart(t *testing.T) {
	config := DefaultConfig()
	answer := func(context.Context, *route.Request) route.Response { return route.Response{Status: 200} }
	serve := func(paths ...string) error {
		var routes []route.Route
		for _, path := range paths {
			routes = append(routes, route.Route{Group: "own", Path: path, Methods: []string{"GET"}, Handle: answer})
		}
		_, err := NewServer(configs.Fixed(config), 0, routes, nil, nil, nil, zap.NewNop(), tally.NoopScope, nil)
		return err
	}
	require.NoError(t, serve("/a", "/b"))
	require.EqualError(t, serve("/a", "/b", "/a"), "two modules serve GET /a: leave one out")
	require.EqualError(t, serve("/_liveness"), "two modules serve GET /_liveness: leave one out",
		"the server itself is one")
	require.NoError(t, serve("/a", route.Rest))
	require.EqualError(t, serve(route.Rest, "/a", route.Rest),
		"two modules serve GET /*: leave one out")
}

// Section 1.2 of the protocol: 404 and 405.
func TestUnknownPathsAndMethodsAreToldApartAndReadableInABrowser(t *testing.T) {
	c := serve(t, nil).dial(t)
	for _, test := range []struct {
		method, path string
		status       int
	}{{"POST", "/nowhere", 404}, {"POST", "/E", 404}, {"PUT", "/e/", 405}, {"DELETE", "/batch", 405},
		{"POST", "/_liveness", 405}} {
		response, body := c.send(test.method,
			request(test.method, test.path, "Origin: https://shop.example\r\n", event))
		require.Equal(t, test.status, response.StatusCode, test.path)
		require.Equal(t, strings.ToLower(http.StatusText(test.status)), body)
		require.Equal(t, "text/plain; charset=utf-8", response.Header.Get("Content-Type"))
		require.Equal(t, "https://shop.example", response.Header.Get("Access-Control-Allow-Origin"))
	}
	c.requireUsable()
}

// Section 1.3 of the protocol.
func TestCORSIsOnEveryAnswer(t *testing.T) {
	c := serve(t, nil).dial(t)
	origin := "Origin: https://shop.example\r\n"
	for _, body := range []string{event, `[`, `[]`} {
		response, _ := c.send("POST", request("POST", "/e/", origin, body))
		require.Equal(t, "https://shop.example", response.Header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, "true", response.Header.Get("Access-Control-Allow-Credentials"))
		require.Contains(t, response.Header.Get("Access-Control-Expose-Headers"), "Retry-After")
		require.Contains(t, response.Header.Get("Vary"), "Origin")
	}
	for _, path := range []string{"/e/", "/nowhere"} {
		response, body := c.send("OPTIONS", request("OPTIONS", path,
			origin+"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,baggage\r\n",
			""))
		require.Equal(t, 200, response.StatusCode)
		require.Empty(t, body)
		require.Equal(t, "content-type,baggage", response.Header.Get("Access-Control-Allow-Headers"))
		require.Equal(t, "GET, POST, OPTIONS", response.Header.Get("Access-Control-Allow-Methods"))
	}
	response, _ := c.send("POST", request("POST", "/e/", "", event))
	require.Empty(t, response.Header.Get("Access-Control-Allow-Origin"))
}

// Section 1.2 of the protocol: a GET with a body is a POST.
func TestGetWithABodyIsReadAsAPost(t *testing.T) {
	f := serve(t, nil)
	c := f.dial(t)
	response, body := c.send("GET", request("GET", "/e/", "", event))
	require.Equal(t, 200, response.StatusCode, body)
	response, body = c.send("GET", "GET /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked(event))
	require.Equal(t, 200, response.StatusCode, body)
	c.requireUsable()
	require.Len(t, f.processor.ips, 3)
	response, body = c.send("GET", "GET /e/ HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 400, response.StatusCode)
	require.Equal(t, "request missing data payload", body)
}

func TestGetWithABodyIsAPostWhereThereAreBoth(t *testing.T) {
	config := DefaultConfig()
	config.Listen = "127.0.0.1:0"
	health, err := observability.NewHealth(nil)
	require.NoError(t, err)
	echo := func(_ context.Context, r *route.Request) route.Response {
		return route.Response{Status: 200, ContentType: route.TypeText, Body: r.Method + " " + string(r.Body)}
	}
	server, err := NewServer(configs.Fixed(config), 0, []route.Route{
		{Group: "own", Path: "/both/:name", Methods: []string{"GET", "POST"}, Handle: echo},
		{Group: "own", Path: "/get/:name", Methods: []string{"GET"}, Handle: echo},
	}, nil, newBudget(config, 0), health, zap.NewNop(), tally.NoopScope, func(error) {})
	require.NoError(t, err)
	require.NoError(t, server.Start(context.Background()))
	defer func() { require.NoError(t, server.Stop(context.Background())) }()
	f := &fixture{Server: server}
	c := f.dial(t)
	for _, test := range []struct{ path, body, want string }{
		{"/both/a", "", "GET "}, {"/both/a", "text", "POST text"}, {"/both/a/", "text", "POST text"},
		{"/get/a", "text", "GET text"},
	} {
		_, body := c.send("GET", request("GET", test.path, "", test.body))
		require.Equal(t, test.want, body, test.path)
	}
	require.NoError(t, c.Close())
}

func TestABodyWhereNoneBelongsDoesNotBecomeTheNextRequest(t *testing.T) {
	f := serve(t, nil)
	large := strings.Repeat(request("POST", "/e/", "", event), 500)
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/_liveness", 200}, {"GET", "/", 200}, {"HEAD", "/e/", 200}, {"HEAD", "/_liveness", 200},
		{"OPTIONS", "/e/", 200},
		{"GET", "/nowhere", 404}, {"PUT", "/e/", 405}, {"BREW", "/e/", 400}, {"BREW", "/nowhere", 400},
	} {
		f.processor.ips = nil
		c := f.dial(t)
		response, _ := c.send(test.method, request(test.method, test.path, "", large))
		require.Equal(t, test.status, response.StatusCode, test.method+test.path)
		response, _ = c.send(test.method,
			test.method+" "+test.path+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked(large))
		require.Equal(t, test.status, response.StatusCode, test.method+test.path)
		c.requireUsable()
		require.Len(t, f.processor.ips, 1, test.method+test.path)
	}
}

// If fasthttp and a proxy in front of it may disagree about where a request ends, no request may follow on the
// connection.
func TestARequestOfDoubtfulLengthIsTheLastOnItsConnection(t *testing.T) {
	f := serve(t, nil)
	hidden := request("POST", "/e/", "", event)
	length := fmt.Sprintf("Content-Length: %d\r\n", len(hidden))
	for name, sent := range map[string]string{
		"a length and another": "POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" +
			length + "\r\n" + hidden,
		"a length and none": "POST /e/ HTTP/1.1\r\nHost: x\r\n" + length +
			"Content-Length: 0\r\n\r\n" + hidden,
		"a length and none for a GET": "GET / HTTP/1.1\r\nHost: x\r\n" + length +
			"Content-Length: 0\r\n\r\n" + hidden,
		"chunks and a length": "POST /e/ HTTP/1.1\r\nHost: x\r\n" + length +
			"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"an encoding that is none": "POST /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n" +
			hidden,
		"an encoding that nobody knows": "POST /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " +
			"xchunked\r\n\r\n0\r\n\r\n" + hidden,
		"an encoding on a line of its own": "POST /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n " +
			"chunked\r\n\r\n0\r\n\r\n" + hidden,
		"an encoding in the old version": "POST /e/ HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n" +
			"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"a length on a line of its own": "POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n 0\r\n\r\n" + hidden,
	} {
		c := f.dial(t)
		response, _ := c.send("POST", sent)
		require.True(t, response.Close, name)
		c.requireClosed()
	}
	require.Empty(t, f.processor.ips)
}

func TestARequestThatBreaksTheProtocolIsRefusedAndIsTheLastOnItsConnection(t *testing.T) {
	f := serve(t, nil)
	hidden := request("POST", "/e/", "", event)
	post := "POST /e/ HTTP/1.1\r\nHost: x\r\n"
	chunks := post + "Transfer-Encoding: chunked\r\n\r\n"
	size := fmt.Sprintf("%x", len(event))
	for name, sent := range map[string]string{
		"equal lengths": post + fmt.Sprintf("Content-Length: %d\r\nContent-Length: %d\r\n\r\n",
			len(event), len(event)) + event,
		"a list of lengths": post + fmt.Sprintf("Content-Length: %d, %d\r\n\r\n",
			len(event), len(event)) + event,
		"a length with a sign":     post + fmt.Sprintf("Content-Length: +%d\r\n\r\n", len(event)) + event,
		"a length below zero":      post + "Content-Length: -1\r\n\r\n",
		"a length that overflows":  post + "Content-Length: 18446744073709551659\r\n\r\n" + event,
		"a space before the colon": post + "Transfer-Encoding : chunked\r\n\r\n" + chunked(event),
		"two encodings":            post + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked(event),
		"two lines of encoding": post +
			"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(event),
		"a control character": post + "Transfer-Encoding: \vchunked\r\n\r\n" + chunked(event),
		"a bare carriage return": post + "X: a\rTransfer-Encoding: chunked\r\n" +
			fmt.Sprintf("Content-Length: %d\r\n\r\n", len(event)) + event,
		"a bare line feed": post + "X: a\nContent-Length: 0\r\n" +
			fmt.Sprintf("Content-Length: %d\r\n\r\n", len(event)) + event,
		"a header that begins folded":    "POST /e/ HTTP/1.1\r\n Content-Length: 0\r\nHost: x\r\n\r\n",
		"two hosts":                      "POST /e/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"a method of strange characters": "P@ST /e/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"a line feed in an extension":    chunks + size + ";a=\"\n\"\r\n" + event + "\r\n0\r\n\r\n",
		"a chunk's size without its end": chunks + size + "\n" + event + "\n0\n\n",
		"a chunk's size of the largest":  chunks + "7fffffffffffffff\r\n" + event,
		"a chunk's size that overflows":  chunks + "1000000000000002b\r\n" + event + "\r\n0\r\n\r\n",
		"a chunk's size below zero":      chunks + "-1\r\n" + event,
		"a chunk's size as 0x":           chunks + "0x" + size + "\r\n" + event + "\r\n0\r\n\r\n",
		"a chunk longer than its size":   chunks + "5\r\n" + event + "\r\n0\r\n\r\n",
		"a chunk without its end":        chunks + size + "\r\n" + event + "XX0\r\n\r\n",
		"a length after the chunks":      chunks + size + "\r\n" + event + "\r\n0\r\nContent-Length: 3\r\n\r\n",
	} {
		c := f.dial(t)
		_, err := io.WriteString(c, sent+hidden)
		require.NoError(t, err)
		response, _ := c.answer("POST")
		require.Equal(t, 400, response.StatusCode, name)
		require.True(t, response.Close, name)
		c.requireClosed()
	}
	require.Empty(t, f.processor.ips)
}

func TestABodyThatBreaksOffIsNotKept(t *testing.T) {
	f := serve(t, nil)
	head := "POST /e/ HTTP/1.1\r\nHost: x\r\n"
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(event), event)
	for _, sent := range []string{
		fmt.Sprintf("Content-Length: %d\r\n\r\n", len(event)+1) + event,
		"Transfer-Encoding: chunked\r\n\r\n" + chunk[:20], "Transfer-Encoding: chunked\r\n\r\n" + chunk,
		"Transfer-Encoding: chunked\r\n\r\n" + chunk + "0\r\n",
	} {
		c := f.dial(t)
		_, err := io.WriteString(c, head+sent)
		require.NoError(t, err)
		require.NoError(t, c.Conn.(*net.TCPConn).CloseWrite())
		response, _ := c.answer("POST")
		require.Equal(t, 400, response.StatusCode, sent)
		c.requireClosed()
	}
	require.Empty(t, f.processor.ips)
	require.Zero(t, f.budget.InUse())
}

func TestChunksMayHaveExtensionsAndTrailers(t *testing.T) {
	f := serve(t, nil)
	c := f.dial(t)
	size := fmt.Sprintf("%x", len(event))
	for _, chunks := range []string{
		size + ";name=value\r\n" + event + "\r\n0;last\r\n\r\n",
		strings.ToUpper(size) + "\r\n" + event + "\r\n000\r\n\r\n",
		size + "\r\n" + event + "\r\n0\r\nX-Checksum: 1\r\n\r\n",
	} {
		response, body := c.send("POST", "POST /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"+chunks)
		require.Equal(t, 200, response.StatusCode, body)
		c.requireUsable()
	}
	require.Len(t, f.processor.ips, 6)
}

// The server skips a small body that no route has read, and ends the connection of a large one.
func TestALargeBodyWhereNoneBelongsEndsTheConnection(t *testing.T) {
	f := serve(t, nil)
	large := strings.Repeat(request("POST", "/e/", "", event), 5000)
	for _, head := range []string{"GET /_liveness", "OPTIONS /e/", "BREW /e/"} {
		for _, body := range []string{
			fmt.Sprintf("Content-Length: %d\r\n\r\n", len(large)) + large,
			"Transfer-Encoding: chunked\r\n\r\n" + chunked(large),
		} {
			c := f.dial(t)
			// The server ends the connection while the client still sends the rest.
			go func() { _, _ = io.WriteString(c, head+" HTTP/1.1\r\nHost: x\r\n"+body) }()
			answer, _ := io.ReadAll(c.answers)
			require.LessOrEqual(t, strings.Count(string(answer), "HTTP/1.1 "), 1, head)
		}
	}
	require.Empty(t, f.processor.ips)
}

func chunked(body string) string {
	var out strings.Builder
	for len(body) > 0 {
		n := min(7, len(body))
		fmt.Fprintf(&out, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return out.String() + "0\r\n\r\n"
}

// Section 1.2 of the protocol: the cap holds while a body is read. The server reads past as much again as the cap.
func TestABodyOverTheLimitLeavesTheConnectionUsable(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxBody = 100_000 })
	want := "maximum event size exceeded: Request body exceeds limit of 100000 bytes"
	c := f.dial(t)
	for _, large := range []string{strings.Repeat("x", 100_001), strings.Repeat("x", 199_000)} {
		response, body := c.send("POST", request("POST", "/e/", "", large))
		require.Equal(t, 413, response.StatusCode)
		require.Equal(t, want, body)
		c.requireUsable()
		response, body = c.send("POST",
			"POST /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked(large))
		require.Equal(t, 413, response.StatusCode)
		require.Equal(t, want, body)
		c.requireUsable()
	}
	exact := event + strings.Repeat(" ", 100_000-len(event))
	response, body := c.send("POST", request("POST", "/e/", "", exact))
	require.Equal(t, 200, response.StatusCode, body)
	response, body = c.send("POST", "POST /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked(exact))
	require.Equal(t, 200, response.StatusCode, body)
	// Far over the limit, the answer comes before the body does, and the connection ends.
	response, body = c.send("POST", "POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: 200001\r\n\r\n"+
		strings.Repeat("x", 10_000))
	require.Equal(t, 413, response.StatusCode)
	require.Equal(t, want, body)
	require.True(t, response.Close)
	c.requireClosed()
	require.Zero(t, f.budget.InUse())
}

// Section 1.4 of the protocol: a body that stops coming is a 408.
func TestAClientThatStopsSendingIsTold(t *testing.T) {
	f := serve(t, func(c *Config) { c.BodyTimeout = 100 * time.Millisecond })
	for _, head := range []string{"Content-Length: 50", "Content-Length: 50000", "Transfer-Encoding: chunked"} {
		c := f.dial(t)
		response, body := c.send("POST", "POST /e/ HTTP/1.1\r\nHost: x\r\n"+head+"\r\n\r\n7\r\n{\"ev")
		require.Equal(t, 408, response.StatusCode, head)
		require.Equal(t, "client stopped sending data", body, head)
		c.requireClosed()
	}
	require.Zero(t, f.budget.InUse())
}

// Section 1.4 of the protocol.
func TestAByteAtATimeIsCutOffByTheBodyTimeout(t *testing.T) {
	f := serve(t, func(c *Config) { c.BodyTimeout = 200 * time.Millisecond })
	c := f.dial(t)
	_, err := io.WriteString(c, "POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"+
		strings.Repeat(" ", 9000))
	require.NoError(t, err)
	stop := make(chan struct{})
	var dripping sync.WaitGroup
	dripping.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if _, err := c.Write([]byte(" ")); err != nil {
					return
				}
			}
		}
	})
	response, body := c.answer("POST")
	close(stop)
	dripping.Wait()
	require.Equal(t, 408, response.StatusCode)
	require.Equal(t, "client stopped sending data", body)
}

func TestABodyThatEndsEarlyIsNotKept(t *testing.T) {
	f := serve(t, nil)
	c := f.dial(t)
	_, err := io.WriteString(c, "POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"+
		event+strings.Repeat(" ", 10_000))
	require.NoError(t, err)
	require.NoError(t, c.Conn.(*net.TCPConn).CloseWrite())
	response, body := c.answer("POST")
	require.Equal(t, 400, response.StatusCode)
	require.Equal(t, "failed to decode request: the body ended before its announced length", body)
	require.Empty(t, f.processor.ips)
}

// Sections 0 and 3 of the protocol: every 503 says when to come again.
func TestASpentBudgetAnswers503WithRetryAfter(t *testing.T) {
	f := serve(t, func(c *Config) { c.RetryAfter = 7 * time.Second })
	budget := f.budget
	release := spend(budget)
	c := f.dial(t)
	response, body := c.send("POST", request("POST", "/e/", "Origin: https://shop.example\r\n", event))
	require.Equal(t, 503, response.StatusCode)
	require.Equal(t, "7", response.Header.Get("Retry-After"))
	require.Equal(t, "https://shop.example", response.Header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, body, "service unavailable")
	release()
	c.requireUsable()
	require.Zero(t, budget.InUse())
}

// spend takes all of a budget, also what is kept for small requests, until release.
func spend(budget *memory.Budget) (release func()) {
	var leases []*memory.Lease
	for part := budget.Limit(); part > 0; {
		lease := budget.Lease()
		if lease.Reserve(part) {
			leases = append(leases, &lease)
		} else {
			part /= 2
		}
	}
	return func() {
		for _, lease := range leases {
			lease.Release()
		}
	}
}

func TestSmallBodiesDoNotHoldTheBuffersOfLargeOnes(t *testing.T) {
	const requests = 50
	f := serve(t, nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	f.processor.do = func() { entered <- struct{}{}; <-leave }
	for _, test := range []struct {
		body string
		held int64
	}{{event + strings.Repeat(" ", 900_000), 4 << 20}, {event, 16 << 10}} {
		var sending sync.WaitGroup
		for range requests {
			sending.Go(func() {
				response, err := http.Post(f.url+"/e/", "application/json", strings.NewReader(test.body))
				if assert.NoError(t, err) {
					assert.NoError(t, response.Body.Close())
					assert.Equal(t, 200, response.StatusCode)
				}
			})
		}
		for range requests {
			<-entered
		}
		require.LessOrEqual(t, f.budget.InUse(), requests*test.held)
		for range requests {
			leave <- struct{}{}
		}
		sending.Wait()
	}
	require.Zero(t, f.budget.InUse())
}

// Section 3 of the protocol: a 500 says nothing about the service's insides.
func TestAPanicIsA500AndTheServerLives(t *testing.T) {
	f := serve(t, nil)
	f.processor.do = func() { panic("boom") }
	c := f.dial(t)
	response, body := c.send("POST", request("POST", "/e/", "", event))
	require.Equal(t, 500, response.StatusCode)
	require.Equal(t, "internal server error", body)
	f.processor.do = nil
	c.requireUsable()
	require.Zero(t, f.budget.InUse())
	require.Zero(t, f.inFlight.Load())
}

// Section 2.2 of the protocol.
func TestRequestIDIsTheClientsIfItIsSane(t *testing.T) {
	c := serve(t, nil).dial(t)
	for given, kept := range map[string]bool{
		"abc-123": true, "with space": false, strings.Repeat("x", 129): false, "": false,
	} {
		response, _ := c.send("POST", request("POST", "/e/", "X-Request-Id: "+given+"\r\n", event))
		if id := response.Header.Get("X-Request-Id"); kept {
			require.Equal(t, given, id)
		} else {
			require.Len(t, id, 36)
		}
	}
}

func TestHeadersOverTheLimitAreTold(t *testing.T) {
	c := serve(t, nil).dial(t)
	response, body := c.send("GET", "GET /e/?data="+strings.Repeat("x", 70_000)+" HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 431, response.StatusCode)
	require.Contains(t, body, "send the events in the body")
}

// The first bytes of TLS need not hold a line feed, and then the head would never end.
func TestAClientThatSpeaksTLSIsToldAtOnce(t *testing.T) {
	hello := "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"
	f := serve(t, func(c *Config) { c.HeaderTimeout = time.Hour })
	for _, sent := range []string{hello, hello + "\n"} {
		response, body := f.dial(t).send("GET", sent)
		require.Equal(t, 400, response.StatusCode)
		require.Contains(t, body, "it begins as TLS does, and this port speaks HTTP")
		require.True(t, response.Close)
	}
}

// Sections 0 and 1.5 of the protocol.
func TestClientIPIsTheNearestAddressThatIsNotTrusted(t *testing.T) {
	f := serve(t, nil)
	c := f.dial(t)
	for _, test := range []struct{ forwarded, want string }{
		{"", "127.0.0.1"},
		{"X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"},
		{"X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.0.0.7\r\n", "203.0.113.9"},
		{"X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 203.0.113.9 , 10.0.0.7\r\n", "203.0.113.9"},
		{"X-Forwarded-For: 203.0.113.9:4711, [::1]:80\r\n", "203.0.113.9"},
		{"X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"},
		{"X-Forwarded-For: 198.51.100.1, nonsense, 10.0.0.7\r\n", "10.0.0.7"},
		{"X-Forwarded-For: 10.0.0.1, 10.0.0.7\r\n", "10.0.0.1"},
		{"X-Forwarded-For: ::ffff:203.0.113.9, ::ffff:10.0.0.7\r\n", "203.0.113.9"},
		{"X-Forwarded-For: 203.0.113.9, [::ffff:10.0.0.7]:4711\r\n", "203.0.113.9"},
	} {
		f.processor.ips = nil
		response, body := c.send("POST", request("POST", "/e/", test.forwarded, event))
		require.Equal(t, 200, response.StatusCode, body)
		require.Equal(t, []string{test.want}, f.processor.ips, test.forwarded)
	}
	nobody := serve(t, func(c *Config) { c.TrustedProxies = configs.List{} })
	nobody.dial(t).send("POST", request("POST", "/e/", "X-Forwarded-For: 203.0.113.9\r\n", event))
	require.Equal(t, []string{"127.0.0.1"}, nobody.processor.ips)
}

func TestOnlyATrustedProxySaysThatAClientUsedTLS(t *testing.T) {
	for _, test := range []struct {
		head   string
		change func(*Config)
		want   bool
	}{
		{"X-Forwarded-Proto: https\r\n", nil, true},
		{"X-Forwarded-Proto: http\r\n", nil, false},
		{"", nil, false},
		{"X-Forwarded-Proto: https\r\n", func(c *Config) { c.TrustedProxies = configs.List{} }, false},
	} {
		asked := make(chan bool, 1)
		f := serveRoutes(t, test.change, route.Route{Group: "own", Path: "/x", Methods: []string{"GET"},
			Handle: func(_ context.Context, r *route.Request) route.Response {
				asked <- r.Secure
				return route.Response{Status: 200}
			}})
		response, _ := f.dial(t).send("GET", request("GET", "/x", test.head, ""))
		require.Equal(t, 200, response.StatusCode)
		require.Equal(t, test.want, <-asked, test.head)
	}
}

func TestStopLetsRequestsInFlightEnd(t *testing.T) {
	f := serve(t, nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	f.processor.do = func() { close(entered); <-leave }
	idle := f.dial(t)
	c := f.dial(t)
	_, err := io.WriteString(c, request("POST", "/e/", "", event))
	require.NoError(t, err)
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- f.Stop(context.Background()) }()
	require.Eventually(t, func() bool { return f.health.Ready(context.Background()) != nil },
		patience, time.Millisecond)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", f.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, patience, time.Millisecond, "no new connections are taken")
	close(leave)
	response, body := c.answer("POST")
	require.Equal(t, 200, response.StatusCode, body)
	require.NoError(t, idle.Close())
	require.NoError(t, <-stopped)
}

func TestStopSaysHowManyRequestsItCutOff(t *testing.T) {
	config := testConfig()
	config.StopTimeout = 50 * time.Millisecond
	health, err := observability.NewHealth(nil)
	require.NoError(t, err)
	entered, leave := make(chan struct{}), make(chan struct{})
	held := &processor{do: func() { close(entered); <-leave }}
	server, err := newServer(config, newBudget(config, 0), held, health, zap.NewNop(), tally.NoopScope, func(error) {})
	require.NoError(t, err)
	require.NoError(t, server.Start(context.Background()))
	conn, err := net.Dial("tcp", server.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, request("POST", "/e/", "", event))
	require.NoError(t, err)
	<-entered
	require.ErrorContains(t, server.Stop(context.Background()), "transport: 1 requests unfinished")
	close(leave)
}

// closed is a gate that admits nobody.
type closed struct{}

func (closed) Phase() events.Phase { return events.PhaseQuota }
func (closed) Name() string        { return "closed" }
func (closed) Admit(context.Context, *events.Caller) error {
	return events.Errorf(events.RateLimited, "not now")
}

// What a gate refuses is not read, also where it is short.
func TestTheConnectionEndsWithARequestThatAGateRefuses(t *testing.T) {
	f := serve(t, nil)
	config := testConfig()
	server, err := newServer(config, newBudget(config, 0), f.processor, f.health, zap.NewNop(), tally.NoopScope,
		func(error) {})
	require.NoError(t, err)
	server.gates = events.Gates{closed{}}
	require.NoError(t, server.Start(context.Background()))
	defer func() { require.NoError(t, server.Stop(context.Background())) }()
	c := (&fixture{Server: server}).dial(t)
	response, body := c.send("POST", request("POST", "/e/", origin, event))
	require.Equal(t, 429, response.StatusCode)
	require.Contains(t, body, "not now")
	require.True(t, response.Close)
	requireCORS(t, response, "https://shop.example")
	c.requireEnd()
	require.Empty(t, f.processor.ips)
}

func TestStartNamesTheKeyOfAnAddressInUse(t *testing.T) {
	f := serve(t, nil)
	config := DefaultConfig()
	config.Listen = f.Addr().String()
	server, err := newServer(config, newBudget(config, 0), f.processor, f.health, zap.NewNop(),
		tally.NoopScope, func(error) {})
	require.NoError(t, err)
	require.ErrorContains(t, server.Start(context.Background()), "transport.listen: cannot listen on "+config.Listen)
}

// Section 1.2 of the protocol: root, liveness and readiness.
func TestHealthRoutesSayWhatTheServiceIs(t *testing.T) {
	config := testConfig()
	config.DrainDelay = patience
	down := true
	health, err := observability.NewHealth(nil, observability.Check{Name: "kafka", Ready: func(context.Context) error {
		if down {
			return events.Errorf(events.Unavailable, "no broker answers")
		}
		return nil
	}})
	require.NoError(t, err)
	server, err := newServer(config, newBudget(config, 0), &processor{}, health, zap.NewNop(),
		tally.NoopScope, func(error) {})
	require.NoError(t, err)
	require.NoError(t, server.Start(context.Background()))
	f := &fixture{Server: server}
	get := func(path string) (int, string) {
		response, body := f.dial(t).send("GET", "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		return response.StatusCode, body
	}
	status, body := get("/_readiness")
	require.Equal(t, 503, status)
	require.Equal(t, "not ready: running, without kafka", body)
	down = false
	status, _ = get("/_readiness")
	require.Equal(t, 200, status)
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Stop(ctx) }()
	require.Eventually(t, func() bool { status, _ = get("/_readiness"); return status == 503 },
		patience, time.Millisecond)
	status, _ = get("/_liveness")
	require.Equal(t, 200, status, "during the drain delay the service goes on serving")
	cancel()
	require.NoError(t, <-stopped)
}

func TestServingThatEndsByItselfIsAFailure(t *testing.T) {
	f := serve(t, nil)
	require.NoError(t, f.listener.Close())
	select {
	case err := <-f.failed:
		require.ErrorContains(t, err, "serve transport.listen: ")
	case <-time.After(patience):
		t.Fatal("the failure was not reported")
	}
}

// Section 1.4 of the protocol: headers that do not end.
func TestConnectionsThatDoNothingAreEnded(t *testing.T) {
	f := serve(t, func(c *Config) { c.HeaderTimeout = 100 * time.Millisecond })
	end := func(sent string) string {
		c := f.dial(t)
		_, err := io.WriteString(c, sent)
		require.NoError(t, err)
		rest, err := io.ReadAll(c.answers)
		require.NoError(t, err)
		return string(rest)
	}
	end("")
	// On a busy machine the time may be over before the server has read the half that is there. Then the server says
	// nothing.
	require.Eventually(t, func() bool { return strings.Contains(end("POST /e/ HTTP/1.1\r\nHost"), "408") },
		patience, time.Millisecond)
	idle := serve(t, func(c *Config) { c.IdleTimeout = 50 * time.Millisecond }).dial(t)
	idle.requireUsable()
	idle.requireClosed()
}

func TestAnAnswerThatNobodyReadsDoesNotHoldTheConnection(t *testing.T) {
	f := serve(t, func(c *Config) { c.WriteTimeout = 100 * time.Millisecond })
	c := f.dial(t)
	// The client writes requests and reads no answers, until both sides' buffers are full and the server gives up.
	batch := strings.Repeat(request("GET", "/", "", ""), 1000)
	var err error
	for err == nil {
		_, err = io.WriteString(c, batch)
	}
	var timeout net.Error
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the server has ended the connection: %v", err)
}

func TestConfigReportsEveryFault(t *testing.T) {
	config := DefaultConfig()
	config.Listen, config.BodyTimeout, config.MaxInFlight = "", -time.Second, 1
	config.TrustedProxies, config.PostHog.BatchPolicy = configs.ListOf("10.0.0.0/33"), "none"
	err := config.Validate()
	for _, want := range []string{
		"listen: must be host:port", "body_timeout: must be positive, got -1s",
		"max_in_flight: must hold at least one request",
		"trusted_proxies: 10.0.0.0/33: is neither",
		`posthog.batch_policy: must be partial or all_or_nothing, got "none"`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.NoError(t, DefaultConfig().Validate())
}

func TestAnUpstreamIsTheURLOfAHost(t *testing.T) {
	for upstream, sound := range map[string]bool{
		"": true, "https://us.i.posthog.com": true, "http://127.0.0.1:8000/": true, "http://[::1]:8000/behind": true,
		"us.i.posthog.com": false, "ftp://host": false, "https://": false, "https://:80": false, "/path": false,
		"https://user:secret@host": false,
		"https://host/?a=1":        false, "https://host?": false, "https://host/#a": false,
	} {
		config := DefaultConfig()
		config.Upstream = upstream
		if err := config.Validate(); sound {
			require.NoError(t, err, upstream)
		} else {
			require.ErrorContains(t, err, "upstream: must be a URL", upstream)
		}
	}
}
