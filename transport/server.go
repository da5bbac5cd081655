package transport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

// Server is the HTTP server that the SDKs talk to. It is started once and then stopped once. It follows changes of its
// section: the limits, networks and groups of a request are those in force when the server had read its head, and the
// time-outs those in force when its first byte came.
type Server struct {
	live    *configs.Live
	terms   *configs.Value[*terms]
	log     *zap.Logger
	health  *observability.Health
	fiber   *fiber.App
	handler fasthttp.RequestHandler
	paths   []route.Route
	// rest answers requests that no other route takes.
	rest     rest
	budget   *memory.Budget
	bodies   *bodies
	gates    events.Gates
	fail     func(error)
	metrics  serverMetrics
	refusals *refusals

	listener    net.Listener
	connections *connections
	shares      *shares
	inFlight    atomic.Int64
	turnedAway  atomic.Int64    // clients that are heard out after they were refused a connection
	draining    atomic.Bool     // every answer is the last on its connection
	stopping    context.Context // over when the listener closes
	close       context.CancelFunc
	accepted    chan struct{} // closed when accept has ended

	// contexts, readers and writers have what a connection needs for a request, and a reader for itself.
	contexts, readers, writers *sync.Pool
}

// terms is the section of one configuration, with its trusted networks parsed.
type terms struct {
	Config
	trusted networks
}

func newTerms(config Config) (*terms, error) {
	trusted, err := newNetworks(config.TrustedProxies.Items())
	if err != nil {
		return nil, fmt.Errorf("transport.trusted_proxies: %w", err)
	}
	return &terms{Config: config, trusted: trusted}, nil
}

// NewServer returns a server of the routes that does not listen yet. The bytes that it reads of bodies count against
// the budget, of which the limit of the process gives the size where the section does not. The server calls fail at
// most once, when serving ends with an error at run time.
func NewServer(
	live *configs.Live, limit module.MemoryLimit, routes []route.Route, gates events.Gates, budget *memory.Budget,
	health *observability.Health, log *zap.Logger,
	scope tally.Scope, fail func(error),
) (*Server, error) {
	terms, err := configs.NewValue(live, func(c Config) (*terms, error) { return newTerms(c.sized(limit)) })
	if err != nil {
		return nil, err
	}
	s := &Server{
		live:     live,
		terms:    terms,
		log:      log,
		health:   health,
		gates:    gates,
		budget:   budget,
		bodies:   &bodies{buffers: memory.NewBuffers(budget)},
		fail:     fail,
		metrics:  newServerMetrics(scope),
		refusals: newRefusals(log),

		connections: newConnections(),
		shares:      newShares(),
		accepted:    make(chan struct{}),
		contexts:    newContexts(),
		readers:     newReaders(),
		writers:     newWriters(),
	}
	s.fiber = fiber.New(fiber.Config{
		CaseSensitive:         true,
		DisableStartupMessage: true,
		ErrorHandler:          s.refuse,
	})
	if err := s.routes(routes); err != nil {
		return nil, err
	}
	s.stopping, s.close = context.WithCancel(context.Background())
	s.handler = s.fiber.Handler()
	return s, configs.Follow(live, func(_, after Config) (configs.Change, error) {
		return configs.Change{Commit: func() { after.sized(limit).size(budget) }}, nil
	})
}

// Root marks the server as a module.Root, a value for whose sake an Fx graph exists.
func (s *Server) Root() {}

// Addr returns the address that the server listens on; nil before Start.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Start binds the listener and serves until Stop. If the address is in use, Start returns the error.
func (s *Server) Start(ctx context.Context) error {
	listener, err := listen.TCP(ctx, "transport.listen", s.terms.Now().Listen)
	if err != nil {
		return err
	}
	s.listener = listener
	panics.Go(s.log, "the listener", func() {
		defer close(s.accepted)
		err := panics.Try(s.log, "the listener", func() error { return s.acceptFrom(listener) })
		if s.stopping.Err() == nil {
			s.fail(fmt.Errorf("serve transport.listen: %w", err))
		}
	})
	s.health.SetStarted()
	return nil
}

// Stop turns readiness false and goes on serving for the drain delay, in which every answer is the last on its
// connection. Then it closes the listener and the idle connections, and waits for the requests in flight. If some have
// not ended when the stop timeout or ctx is over, its error gives their number.
func (s *Server) Stop(ctx context.Context) error {
	s.health.SetStopping()
	s.draining.Store(true)
	config := s.terms.Now().Config
	drain := time.NewTimer(config.DrainDelay)
	defer drain.Stop()
	select {
	case <-drain.C:
	case <-ctx.Done():
	case <-s.stopping.Done():
	}
	ctx, cancel := context.WithTimeout(ctx, config.StopTimeout)
	defer cancel()
	s.close()
	_ = s.listener.Close()
	<-s.accepted
	open, err := s.connections.leave(ctx)
	if err == nil {
		return nil
	}
	if n := s.inFlight.Load(); n > 0 {
		return fmt.Errorf("transport: %d requests unfinished: %w", n, err)
	}
	// The connections that are left are idle, or only a part of a request has come on them. The server has promised
	// nothing on such a connection, so the deadline may cut it off.
	s.connections.cut()
	s.log.Warn("connections were cut off", zap.Int("connections", open))
	return nil
}

// handler answers one request. It judges the request by the view's configuration and writes status and body to c.
type handler func(c *fiber.Ctx, view *configs.View, terms *terms)

// routes registers every path. The section decides at each request whether a path is served (see observe). Fiber
// matches each path with and without a trailing slash. Two routes of one method and path are an error, because chance
// would decide which of the two answers.
func (s *Server) routes(routes []route.Route) error {
	s.fiber.Use(s.enter)
	s.paths = []route.Route{{Path: "/"}, {Path: "/_liveness"}, {Path: "/_readiness"}}
	s.get("/", func(c *fiber.Ctx, _ *configs.View, _ *terms) { writeText(c, http.StatusOK, "capture") })
	s.get("/_liveness", func(c *fiber.Ctx, _ *configs.View, _ *terms) { writeText(c, http.StatusOK, "ok") })
	s.get("/_readiness", s.readiness)
	var faults []error
	taken := map[string]bool{"GET /": true, "GET /_liveness": true, "GET /_readiness": true}
	for _, r := range routes {
		methods := r.Methods
		if r.Path == route.Rest {
			methods = []string{http.MethodGet} // There is one such route, whatever its methods.
		}
		for _, method := range methods {
			if name := method + " " + r.Path; taken[name] {
				faults = append(faults, fmt.Errorf("two modules serve %s: leave one out", name))
			} else {
				taken[name] = true
			}
		}
		byMethod := s.handlers(r)
		if r.Path == route.Rest {
			s.rest = rest{group: r.Group, byMethod: byMethod}
			continue
		}
		s.paths = append(s.paths, r)
		for method, answer := range byMethod {
			s.fiber.Add(method, r.Path, answer)
		}
	}
	return errors.Join(faults...)
}

// rest is the route of the paths that no other route has. Without one, its methods are none.
type rest struct {
	group    route.Group
	byMethod map[string]fiber.Handler
}

// orRest lets the rest answer a request that no other route has taken. err is what Fiber, or a route whose group is not
// served, has returned; nil: a route has answered.
func (s *Server) orRest(c *fiber.Ctx, err error) error {
	var known *fiber.Error
	if !errors.As(err, &known) || known.Code == http.StatusMethodNotAllowed && s.hasPath(c.Path()) {
		return err
	}
	c.Response().Header.Del(fiber.HeaderAllow)
	if s.rest.byMethod == nil || !s.terms.Now().serves(s.rest.group) {
		return fiber.ErrNotFound
	}
	if answer := s.rest.byMethod[c.Method()]; answer != nil {
		return answer(c)
	}
	c.Set(fiber.HeaderAllow, strings.Join(slices.Sorted(maps.Keys(s.rest.byMethod)), ", "))
	return fiber.ErrMethodNotAllowed
}

// enter writes the request id and the CORS headers into every answer. It also answers the preflight that a browser
// sends before a request, on any path.
func (s *Server) enter(c *fiber.Ctx) error {
	c.Response().Header.Set(fiber.HeaderXRequestID, requestID(c))
	allowOrigin(c.Context())
	if !isPreflight(c.Context()) {
		return s.orRest(c, c.Next())
	}
	c.Status(http.StatusOK)
	s.metrics.preflight.count(http.StatusOK)
	return nil
}

func (s *Server) get(path string, answer handler) {
	s.fiber.Get(path, s.observe(s.metrics.route(path), always, answer))
}

// handlers returns the handlers of a route: those of the route's own methods and, unless the route has these methods
// itself, those that answer OPTIONS and, where the route takes GET, HEAD. With them a client only asks whether the path
// is there.
func (s *Server) handlers(r route.Route) map[string]fiber.Handler {
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
	byMethod := map[string]fiber.Handler{fiber.MethodOptions: ask}
	if slices.Contains(r.Methods, fiber.MethodGet) {
		byMethod[fiber.MethodHead] = ask
	}
	for _, method := range r.Methods {
		byMethod[method] = take
	}
	return byMethod
}

// limit returns the largest body that a route takes, in bytes. It is at most half of what the budget has for large
// requests, because a growing body holds its old and its new buffer at once, and at most the share of an address. A
// larger body could never be read, so the server refuses it as too large: after a 503 the client would send it again.
func (t *terms) limit(r *route.Route, view *configs.View) int64 {
	limit := int64(t.MaxBody)
	if r.MaxBody != nil {
		limit = r.MaxBody(view)
	}
	return min(limit, (int64(t.MaxInFlight)-t.kept())/2, t.share(int64(t.MaxInFlight)))
}

// always is the group of the routes that every installation serves.
const always route.Group = ""

// observe wraps a route's handler. It takes the configuration that judges the request, counts and times the request,
// and turns a panic into a 500. A request of a group that is not served is answered as one without a route.
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

// handle reads the body and lets the route answer.
func (s *Server) handle(c *fiber.Ctx, r *route.Route, view *configs.View, terms *terms) {
	header := &c.Request().Header
	client := terms.clientIP(c)
	// The strings alias the server's buffers: a route keeps no part of a request after it has answered.
	request := &route.Request{
		Method:          c.Method(),
		Path:            c.Path(),
		RawQuery:        string(c.Request().URI().QueryString()),
		ContentType:     string(header.ContentType()),
		ContentEncoding: string(header.Peek(fiber.HeaderContentEncoding)),
		Header:          header,
		ClientIP:        client.String(),
		Secure:          terms.secure(c),
		Config:          view,
		TraceParent:     traceParent(header.Peek("traceparent")),
		RequestID:       c.GetRespHeader(fiber.HeaderXRequestID),
		Received:        c.Context().Time().UTC(),
	}
	if err := s.admit(c, r, request); err != nil {
		s.write(c, r, r.Refuse(request, err), terms)
		return
	}
	part := share{shares: s.shares, address: terms.counted(client), most: terms.share(int64(terms.MaxInFlight))}
	defer part.release()
	read, err := s.bodies.read(c, terms.limit(r, view), &part)
	if err != nil {
		s.write(c, r, r.Refuse(request, err), terms)
		return
	}
	if read != nil {
		defer s.bodies.buffers.Put(read)
		request.Body = read.Bytes
	}
	s.metrics.received.Inc(int64(len(request.Body)))
	if request.Method == http.MethodGet && len(request.Body) > 0 && slices.Contains(r.Methods, http.MethodPost) &&
		r.Path != route.Rest {
		request.Method = http.MethodPost
	}
	s.write(c, r, r.Handle(context.Background(), request), terms)
}

// admit asks the gates before the server reads the body. If the gates refuse the request, the server reads no more of
// it and ends the connection with the answer.
func (s *Server) admit(c *fiber.Ctx, r *route.Route, request *route.Request) error {
	if len(s.gates) == 0 {
		return nil
	}
	request.Gates = s.gates
	request.Caller = events.Caller{
		ClientIP: request.ClientIP, Method: request.Method, Path: request.Path,
		Group: string(r.Group), Header: request.Get, Config: request.Config,
	}
	if r.Token != nil {
		// The protocol reports a faulty token itself, so admit does not look at the error.
		request.Caller.Token, _ = r.Token(request)
	}
	err := s.gates.Admit(context.Background(), &request.Caller)
	if err != nil {
		c.Context().SetConnectionClose()
	}
	return err
}

// refused logs that a request was refused.
func (s *Server) refused(c *fiber.Ctx, route string, status int, answer string, terms *terms) {
	s.refusals.add(refused{route, status}, c.Path(), answer, c.GetRespHeader(fiber.HeaderXRequestID), terms.clientIP(c))
}

func (s *Server) write(c *fiber.Ctx, r *route.Route, response route.Response, terms *terms) {
	if response.Status >= http.StatusBadRequest {
		s.refused(c, r.Path, response.Status, response.Body, terms)
	}
	if response.Status < http.StatusOK || response.Status > 599 {
		s.log.Error("a route answers with a status that is none", zap.String("path", strings.Clone(c.Path())),
			zap.Int("status", response.Status))
		response.Status = http.StatusInternalServerError
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
	body := &held{Reader: bytes.NewReader(response.Bytes), log: s.log, done: response.Done}
	c.Response().SetBodyStream(body, len(response.Bytes))
}

// headerAck is the header that names what made a request's events safe: kafka, spool or memory.
const headerAck = "X-Capture-Ack"

// seconds writes a duration for Retry-After: in whole seconds, rounded up, one at least.
func seconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}

// held is the body of an answer, with a function to call when the answer is over. fasthttp closes the body once,
// whether it has written the answer or given it up.
type held struct {
	*bytes.Reader
	log  *zap.Logger
	done func()
}

// Close calls the function.
func (h *held) Close() error {
	if h.done != nil {
		panics.Do(h.log, "the end of an answer", h.done)
	}
	return nil
}

func writeText(c *fiber.Ctx, status int, text string) {
	c.Status(status)
	c.Set(fiber.HeaderContentType, fiber.MIMETextPlainCharsetUTF8)
	c.Response().SetBodyString(text)
}

// readiness answers whether traffic should come here and, if not, which checks are missing. The answer leaves out the
// checks' reasons: they name addresses and belong on the operators' listener.
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

// refuse answers a request that reached no route.
func (s *Server) refuse(c *fiber.Ctx, err error) error {
	allowOrigin(c.Context())
	status := http.StatusInternalServerError
	var known *fiber.Error
	if errors.As(err, &known) {
		status = known.Code
	}
	text := strings.ToLower(http.StatusText(status))
	switch status {
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		skip(c, int64(s.terms.Now().MaxBody))
	}
	s.metrics.unrouted.count(status)
	writeText(c, status, text)
	s.refused(c, "", status, text, s.terms.Now())
	return nil
}

// hasPath reports whether a served route other than the rest has the path, whatever its methods.
func (s *Server) hasPath(path string) bool {
	terms := s.terms.Now()
	path = strings.TrimRight(path, "/")
	return slices.ContainsFunc(s.paths, func(r route.Route) bool {
		return terms.serves(r.Group) && fiber.RoutePatternMatch(path, r.Path, fiber.Config{CaseSensitive: true})
	})
}

// maxRequestID is the longest request id, in bytes, that the server takes over from a client.
const maxRequestID = 128

// requestID returns the client's id for the request if that is short and printable, else a new one.
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

func (t *terms) clientIP(c *fiber.Ctx) netip.Addr {
	address, _ := netip.AddrFromSlice(c.Context().RemoteIP())
	forwarded := c.Request().Header.PeekAll(fiber.HeaderXForwardedFor)
	if len(forwarded) == 0 {
		return address.Unmap()
	}
	lists := make([]string, len(forwarded))
	for i, list := range forwarded {
		lists[i] = string(list)
	}
	return clientIP(address, lists, t.trusted)
}

// secure reports whether a trusted proxy says that the client reached it by TLS.
func (t *terms) secure(c *fiber.Ctx) bool {
	peer, _ := netip.AddrFromSlice(c.Context().RemoteIP())
	return t.trusted.contain(peer.Unmap()) && string(c.Request().Header.Peek(fiber.HeaderXForwardedProto)) == "https"
}

// counted returns the address that counts what a client holds, and the zero address if nobody counts it. A trusted
// address is a proxy's that has not said whose request it passes on.
func (t *terms) counted(client netip.Addr) netip.Addr {
	if t.MaxAddressShare == 1 || t.trusted.contain(client.WithZone("")) {
		return netip.Addr{}
	}
	return holder(client)
}
