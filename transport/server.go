package transport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/uber-go/tally/v4"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/listen"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

// Server is the HTTP server that the SDKs talk to. It is started once and then stopped once. It follows its section: a
// request is judged by the limits, networks and groups that were in force when its head had been read, a connection by
// the time-outs that were in force when it was accepted.
type Server struct {
	live     *configs.Live
	terms    *configs.Value[*terms]
	log      *zap.Logger
	health   *observability.Health
	fiber    *fiber.App
	paths    []route.Route
	engines  engines
	bodies   *bodies
	gates    events.Gates
	fail     func(error)
	inFlight atomic.Int64
	stopping atomic.Bool
	listener net.Listener
	accepted chan struct{} // closed when no connection is accepted any more
	metrics  serverMetrics
}

// terms is what one configuration asks of a request.
type terms struct {
	Config
	trusted []netip.Prefix
}

func newTerms(config Config) (*terms, error) {
	trusted, err := parseNetworks(config.TrustedProxies)
	if err != nil {
		return nil, fmt.Errorf("transport.trusted_proxies: %w", err)
	}
	return &terms{Config: config, trusted: trusted}, nil
}

// NewServer makes a server of the routes that is not listening yet. What it reads of bodies counts against the budget.
// fail is called, once, when serving ends by an error at run time.
func NewServer(
	live *configs.Live, routes []route.Route, gates events.Gates, budget *memory.Budget,
	health *observability.Health, log *zap.Logger,
	scope tally.Scope, fail func(error),
) (*Server, error) {
	terms, err := configs.NewValue(live, newTerms)
	if err != nil {
		return nil, err
	}
	s := &Server{
		live:     live,
		terms:    terms,
		log:      log,
		health:   health,
		gates:    gates,
		bodies:   &bodies{buffers: memory.NewBuffers(budget)},
		fail:     fail,
		accepted: make(chan struct{}),
		metrics:  newServerMetrics(scope),
	}
	s.fiber = fiber.New(fiber.Config{
		CaseSensitive:                true,
		DisableStartupMessage:        true,
		DisablePreParseMultipartForm: true,
		StreamRequestBody:            true,
		// The server below must hand over every body as a stream; bodies are limited where they are read.
		BodyLimit:    math.MaxInt,
		ErrorHandler: s.refuse,
	})
	if err := s.routes(routes); err != nil {
		return nil, err
	}
	s.engines.log = log
	s.engines.change(s.newEngine(terms.Now().Config))
	return s, configs.Follow(live, func(before, after Config) (configs.Change, error) {
		return configs.Change{Commit: func() {
			budget.Resize(int64(after.MaxInFlight))
			if before.connections() != after.connections() {
				s.engines.change(s.newEngine(after))
			}
		}}, nil
	})
}

// frame ends a connection after the answer to a request that a proxy in front may take for a longer or a shorter one
// than fasthttp does. fasthttp joins folded header lines, and takes a Transfer-Encoding of identity for no body. After
// every other request whose length is in doubt, fasthttp itself ends the connection.
func frame(header *fasthttp.RequestHeader) {
	hasLength := header.ContentLength() >= -1
	for line := range bytes.Lines(header.RawHeaders()) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		isFolded := line[0] == ' ' || line[0] == '\t'
		isIdentity := !hasLength && bytes.EqualFold(name, []byte(fiber.HeaderTransferEncoding))
		if isFolded || isIdentity {
			header.SetConnectionClose()
			return
		}
	}
}

// Root marks the server as what a graph exists for.
func (s *Server) Root() {}

// Addr is where the server listens; nil before Start.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Start binds the listener, so that an address in use is an error here, and serves until Stop.
func (s *Server) Start(ctx context.Context) error {
	listener, err := listen.TCP(ctx, "transport.listen", s.terms.Now().Listen)
	if err != nil {
		return err
	}
	s.listener = listener
	s.engines.start()
	panics.Go(s.log, "the listener", func() {
		defer close(s.accepted)
		if err := panics.Try(s.log, "the listener", s.accept); !s.stopping.Load() {
			s.fail(fmt.Errorf("serve transport.listen: %w", err))
		}
	})
	s.health.SetStarted()
	return nil
}

// accept hands every new connection to the engine in force, until the listener fails.
func (s *Server) accept() error {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return err
		}
		s.engines.take(conn)
	}
}

// Stop turns readiness false, goes on serving for the drain delay, then takes no new connections and waits for the
// requests in flight. It returns an error that says how many had not ended when their time, or ctx, was over.
func (s *Server) Stop(ctx context.Context) error {
	s.health.SetStopping()
	config := s.terms.Now().Config
	drain := time.NewTimer(config.DrainDelay)
	defer drain.Stop()
	select {
	case <-drain.C:
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(ctx, config.StopTimeout)
	defer cancel()
	s.stopping.Store(true)
	_ = s.listener.Close()
	<-s.accepted
	open, err := s.engines.stop(ctx)
	if err == nil {
		return nil
	}
	if n := s.inFlight.Load(); n > 0 {
		return fmt.Errorf("transport: %d requests unfinished: %w", n, err)
	}
	// Connections on which nobody asks anything, or not yet all, may outlive the deadline:
	// nothing was promised on them.
	s.log.Warn("connections were cut off", zap.Int32("connections", open))
	return nil
}

// handler answers one request by the configuration of the view; status and body are written to c.
type handler func(c *fiber.Ctx, view *configs.View, terms *terms)

// routes registers every path; which of them are served is the section's to say. Fiber takes each with and without a
// trailing slash. Two routes of one method and path are an error, as which of them answers would be chance.
func (s *Server) routes(routes []route.Route) error {
	s.fiber.Use(s.enter)
	s.paths = append(slices.Clip(routes), route.Route{Path: "/"}, route.Route{Path: "/_liveness"},
		route.Route{Path: "/_readiness"})
	s.get("/", func(c *fiber.Ctx, _ *configs.View, _ *terms) { writeText(c, http.StatusOK, "capture") })
	s.get("/_liveness", func(c *fiber.Ctx, _ *configs.View, _ *terms) { writeText(c, http.StatusOK, "ok") })
	s.get("/_readiness", s.readiness)
	var faults []error
	taken := map[string]bool{"GET /": true, "GET /_liveness": true, "GET /_readiness": true}
	for _, r := range routes {
		for _, method := range r.Methods {
			if name := method + " " + r.Path; taken[name] {
				faults = append(faults, fmt.Errorf("two modules serve %s: leave one out", name))
			} else {
				taken[name] = true
			}
		}
		s.add(r)
	}
	return errors.Join(faults...)
}

// enter gives every request its id and its CORS headers, and answers what a browser asks before it sends the request
// itself, whatever the path.
func (s *Server) enter(c *fiber.Ctx) error {
	c.Response().Header.Set(fiber.HeaderXRequestID, requestID(c))
	allowOrigin(c)
	if !isPreflight(c) {
		return c.Next()
	}
	c.Status(http.StatusOK)
	s.metrics.preflight.count(http.StatusOK)
	return nil
}

func (s *Server) get(path string, answer handler) {
	s.fiber.Get(path, s.observe(s.metrics.route(path), always, answer))
}

// add serves one route: its own methods, and unless they are among these OPTIONS and HEAD, which
// only ask whether it is there.
func (s *Server) add(r route.Route) {
	if r.Refuse == nil {
		r.Refuse = func(_ *route.Request, err error) route.Response { return route.Refusal(err) }
	}
	metrics := s.metrics.route(r.Path)
	take := s.observe(metrics, r.Group,
		func(c *fiber.Ctx, view *configs.View, terms *terms) { s.handle(c, &r, view, terms) })
	ask := s.observe(metrics, r.Group, func(c *fiber.Ctx, _ *configs.View, _ *terms) {
		c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
		c.Status(http.StatusOK)
		c.Response().SetBodyString(`{"status":"Ok"}`)
	})
	for _, method := range r.Methods {
		s.fiber.Add(method, r.Path, take)
	}
	if !slices.Contains(r.Methods, fiber.MethodOptions) {
		s.fiber.Add(fiber.MethodOptions, r.Path, ask)
	}
	if slices.Contains(r.Methods, fiber.MethodGet) && !slices.Contains(r.Methods, fiber.MethodHead) {
		s.fiber.Add(fiber.MethodHead, r.Path, ask)
	}
}

// limit is the largest body that a route takes. One that the budget could never hold, with the buffer that it outgrows,
// is too large and not to be sent again later.
func (t *terms) limit(r *route.Route, view *configs.View) int64 {
	limit := int64(t.MaxBody)
	if r.MaxBody != nil {
		limit = r.MaxBody(view)
	}
	return min(limit, int64(t.MaxInFlight)/2)
}

// always is the group of what every installation serves.
const always route.Group = ""

// observe takes the configuration that a request is judged by, counts and times a route's requests, and turns a panic
// into a 500. A request of a group that is not served is one of no route.
func (s *Server) observe(metrics *routeMetrics, group route.Group, answer handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		view := s.live.View()
		terms := s.terms.In(view)
		if !terms.serves(group) {
			return fiber.ErrNotFound
		}
		begin := time.Now()
		s.inFlight.Add(1)
		defer func() {
			if caught := panics.Caught(recover()); caught != nil {
				panics.Log(s.log, "request", caught, zap.String("path", strings.Clone(c.Path())),
					zap.String("request_id", strings.Clone(c.GetRespHeader(fiber.HeaderXRequestID))))
				writeText(c, http.StatusInternalServerError, "internal server error")
			}
			s.inFlight.Add(-1)
			metrics.count(c.Response().StatusCode())
			metrics.latency.Record(time.Since(begin))
		}()
		answer(c, view, terms)
		return nil
	}
}

// handle reads the body and has the route answer.
func (s *Server) handle(c *fiber.Ctx, r *route.Route, view *configs.View, terms *terms) {
	header := &c.Request().Header
	// The strings alias the server's buffers: a route keeps nothing of a request after it has answered.
	request := &route.Request{
		Method:          c.Method(),
		Path:            c.Path(),
		RawQuery:        string(c.Request().URI().QueryString()),
		ContentType:     string(header.ContentType()),
		ContentEncoding: string(header.Peek(fiber.HeaderContentEncoding)),
		Header:          header,
		ClientIP:        terms.clientIP(c),
		Config:          view,
		TraceParent:     traceParent(header.Peek("traceparent")),
		RequestID:       c.GetRespHeader(fiber.HeaderXRequestID),
	}
	if err := s.admit(c, r, request); err != nil {
		s.write(c, r.Refuse(request, err), terms)
		return
	}
	read, err := s.bodies.read(c, terms.limit(r, view))
	if err != nil {
		s.write(c, r.Refuse(request, err), terms)
		return
	}
	if read != nil {
		defer s.bodies.buffers.Put(read)
		request.Body = read.Bytes
	}
	s.metrics.received.Inc(int64(len(request.Body)))
	request.Received = time.Now().UTC()
	if request.Method == http.MethodGet && len(request.Body) > 0 && slices.Contains(r.Methods, http.MethodPost) {
		request.Method = http.MethodPost
	}
	s.write(c, r.Handle(context.Background(), request), terms)
}

// admit asks the gates before the body is read. Of a request that they refuse nothing more is read: the
// connection ends with the answer.
func (s *Server) admit(c *fiber.Ctx, r *route.Route, request *route.Request) error {
	if len(s.gates) == 0 {
		return nil
	}
	request.Gates = s.gates
	request.Caller = events.Caller{
		ClientIP: request.ClientIP, Method: request.Method, Path: request.Path, Header: request.Get,
		Config: request.Config,
	}
	if r.Token != nil {
		// What is wrong with the token is the protocol's to say.
		request.Caller.Token, _ = r.Token(request)
	}
	err := s.gates.Admit(context.Background(), &request.Caller)
	if err != nil {
		c.Context().SetConnectionClose()
	}
	return err
}

func (s *Server) write(c *fiber.Ctx, response route.Response, terms *terms) {
	if response.Status >= http.StatusBadRequest {
		if entry := s.log.Check(zap.DebugLevel, "request refused"); entry != nil {
			entry.Write(zap.String("request_id", strings.Clone(c.GetRespHeader(fiber.HeaderXRequestID))),
				zap.String("path", strings.Clone(c.Path())),
				zap.Int("status", response.Status), zap.String("answer", response.Body))
		}
	}
	c.Status(response.Status)
	for _, field := range response.Header {
		c.Response().Header.Add(field.Name, field.Value)
	}
	if response.Retry {
		c.Set(fiber.HeaderRetryAfter, seconds(cmp.Or(response.RetryAfter, terms.RetryAfter)))
	}
	if response.Ack != events.AckUnsaid {
		c.Set(headerAck, response.Ack.String())
	}
	if response.ContentType == "" {
		return
	}
	c.Set(fiber.HeaderContentType, response.ContentType)
	if response.Bytes == nil {
		c.Response().SetBodyString(response.Body)
		return
	}
	c.Response().SetBodyStream(&held{Reader: bytes.NewReader(response.Bytes), done: response.Done}, len(response.Bytes))
}

// headerAck names what made a request's events safe: kafka, spool or memory.
const headerAck = "X-Capture-Ack"

// seconds is a duration as Retry-After has it: in whole seconds, one at least.
func seconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}

// held is a body that somebody waits to be done with. The server below closes it, once, whatever becomes of the answer.
type held struct {
	*bytes.Reader
	done func()
}

// Close is the end of the answer.
func (h *held) Close() error {
	if h.done != nil {
		h.done()
	}
	return nil
}

func writeText(c *fiber.Ctx, status int, text string) {
	c.Status(status)
	c.Set(fiber.HeaderContentType, fiber.MIMETextPlainCharsetUTF8)
	c.Response().SetBodyString(text)
}

// readiness answers whether traffic should come here, and if not, for lack of what. The reasons, which name addresses,
// are for the operators' listener.
func (s *Server) readiness(c *fiber.Ctx, _ *configs.View, _ *terms) {
	report := s.health.Report(context.Background())
	if report.Ready {
		writeText(c, http.StatusOK, "ok")
		return
	}
	text := "not ready: " + report.Phase
	for _, check := range report.Checks {
		if check.Missing() {
			text += ", without " + check.Name
		}
	}
	writeText(c, http.StatusServiceUnavailable, text)
}

// refuse answers what reached no route, or was no readable request.
func (s *Server) refuse(c *fiber.Ctx, err error) error {
	allowOrigin(c)
	status := http.StatusInternalServerError
	var known *fiber.Error
	if errors.As(err, &known) {
		status = known.Code
	}
	if status == http.StatusMethodNotAllowed && !s.hasPath(c.Path()) {
		status = http.StatusNotFound
		c.Response().Header.Del(fiber.HeaderAllow)
	}
	text := strings.ToLower(http.StatusText(status))
	switch status {
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		skip(c, int64(s.terms.Now().MaxBody))
	case http.StatusBadRequest:
		text = "failed to read request: " + known.Message
	case http.StatusRequestTimeout:
		text = errStopped.Error()
	case http.StatusRequestHeaderFieldsTooLarge:
		text = fmt.Sprintf("request line and headers exceed %d bytes: send the events in the body",
			s.terms.Now().MaxHeader)
	}
	s.metrics.unrouted.count(status)
	writeText(c, status, text)
	return nil
}

// hasPath reports whether the path is one of a route that is served.
func (s *Server) hasPath(path string) bool {
	terms := s.terms.Now()
	path = strings.TrimRight(path, "/")
	return slices.ContainsFunc(s.paths, func(r route.Route) bool {
		return terms.serves(r.Group) && fiber.RoutePatternMatch(path, r.Path, fiber.Config{CaseSensitive: true})
	})
}

// maxRequestID is the longest request id that is taken over from a client.
const maxRequestID = 128

// requestID returns the client's id for the request if it is short and printable, else a new one.
func requestID(c *fiber.Ctx) string {
	given := c.Request().Header.Peek(fiber.HeaderXRequestID)
	if len(given) == 0 || len(given) > maxRequestID {
		return uuid.NewString()
	}
	for _, b := range given {
		if b <= ' ' || b > '~' {
			return uuid.NewString()
		}
	}
	return string(given)
}

func (t *terms) clientIP(c *fiber.Ctx) string {
	address, _ := netip.AddrFromSlice(c.Context().RemoteIP())
	forwarded := c.Request().Header.PeekAll(fiber.HeaderXForwardedFor)
	if len(forwarded) == 0 {
		return address.Unmap().String()
	}
	lists := make([]string, len(forwarded))
	for i, list := range forwarded {
		lists[i] = string(list)
	}
	return clientIP(address, lists, t.trusted).String()
}
