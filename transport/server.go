package transport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/uber-go/tally/v4"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/posthog"
)

// Server is the HTTP server that the SDKs talk to.
type Server struct {
	config   Config
	log      *zap.Logger
	health   *observability.Health
	fiber    *fiber.App
	bodies   *bodies
	trusted  []netip.Prefix
	fail     func(error)
	inFlight atomic.Int64
	stopping atomic.Bool
	listener net.Listener
	served   chan struct{}
	metrics  serverMetrics
}

// NewServer makes a server that is not listening yet. fail is called, once, when serving ends by an error at run time.
func NewServer(config Config, processor events.Processor, health *observability.Health, log *zap.Logger, scope tally.Scope, fail func(error)) (*Server, error) {
	trusted, err := parseNetworks(config.TrustedProxies)
	if err != nil {
		return nil, fmt.Errorf("transport.trusted_proxies: %w", err)
	}
	budget := decode.NewBudget(int64(config.MaxInFlight))
	s := &Server{
		config:  config,
		log:     log,
		health:  health,
		bodies:  newBodies(int64(config.MaxBody), budget),
		trusted: trusted,
		fail:    fail,
		served:  make(chan struct{}),
		metrics: newServerMetrics(scope),
	}
	s.fiber = fiber.New(fiber.Config{
		CaseSensitive:                true,
		DisableStartupMessage:        true,
		DisablePreParseMultipartForm: true,
		StreamRequestBody:            true,
		// The server below must hand over every body as a stream; bodies are limited where they are read.
		BodyLimit:      math.MaxInt,
		ReadBufferSize: int(config.MaxHeader),
		ReadTimeout:    config.HeaderTimeout,
		WriteTimeout:   config.WriteTimeout,
		IdleTimeout:    config.IdleTimeout,
		ErrorHandler:   s.refuse,
	})
	server := s.fiber.Server()
	server.CloseOnShutdown = true
	server.HeaderReceived = func(header *fasthttp.RequestHeader) fasthttp.RequestConfig {
		postIfBody(header)
		return fasthttp.RequestConfig{ReadTimeout: config.BodyTimeout}
	}
	s.routes(posthog.NewHandler(config.PostHog, decode.New(int64(config.MaxDecoded), budget), budget, processor, scope))
	return s, nil
}

// postIfBody makes a GET with a body a POST, which the protocol treats alike: the server below reads no body of a GET, and
// would take it for the next request on the connection.
func postIfBody(header *fasthttp.RequestHeader) {
	if !header.IsGet() && !header.IsHead() {
		return
	}
	if length := header.Peek(fiber.HeaderContentLength); len(length) > 0 && string(length) != "0" ||
		len(header.Peek(fiber.HeaderTransferEncoding)) > 0 {
		header.SetMethod(fiber.MethodPost)
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

// reachable is an address at which this machine reaches the server.
func (s *Server) reachable() string {
	host, port, err := net.SplitHostPort(s.Addr().String())
	if err != nil {
		return s.Addr().String()
	}
	if address, err := netip.ParseAddr(host); err == nil && address.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// Start binds the listener, so that an address in use is an error here, and serves until Stop.
func (s *Server) Start(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		return fmt.Errorf("transport.listen: cannot listen on %s: %w", s.config.Listen, err)
	}
	s.listener = listener
	go func() {
		defer close(s.served)
		if err := s.fiber.Listener(listener); err != nil && !s.stopping.Load() {
			s.fail(fmt.Errorf("transport: serving %s: %w", listener.Addr(), err))
		}
	}()
	s.health.SetStarted()
	return nil
}

// Stop turns readiness false, goes on serving for the drain delay, then takes no new connections and waits for the requests
// in flight. It returns an error that says how many had not ended when their time, or ctx, was over.
func (s *Server) Stop(ctx context.Context) error {
	s.health.SetStopping()
	drain := time.NewTimer(s.config.DrainDelay)
	defer drain.Stop()
	select {
	case <-drain.C:
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.StopTimeout)
	defer cancel()
	s.stopping.Store(true)
	err := s.fiber.ShutdownWithContext(ctx)
	// Where serving had not quite begun, nothing was shut down; without a listener it ends by itself.
	_ = s.listener.Close()
	<-s.served
	// Connections on which nobody asks anything may outlive the deadline; that loses nothing.
	if n := s.inFlight.Load(); err != nil && n > 0 {
		return fmt.Errorf("transport: %d requests unfinished: %w", n, err)
	}
	return nil
}

// handler answers one request; status and body are written to c.
type handler func(c *fiber.Ctx)

// routes registers every path. Fiber takes each with and without a trailing slash.
func (s *Server) routes(protocol *posthog.Handler) {
	s.fiber.Use(s.preflight)
	for _, path := range []string{"/e", "/i/v0/e", "/batch", "/capture", "/track", "/engage"} {
		s.analytics(path, protocol.Capture)
	}
	s.analytics("/test/black_hole", protocol.BlackHole)
	s.get("/", func(c *fiber.Ctx) { writeText(c, http.StatusOK, "capture") })
	s.get("/_liveness", func(c *fiber.Ctx) { writeText(c, http.StatusOK, "ok") })
	s.get("/_readiness", s.readiness)
}

// preflight answers what a browser asks before it sends the request itself, whatever the path.
func (s *Server) preflight(c *fiber.Ctx) error {
	allowOrigin(c)
	if !isPreflight(c) {
		return c.Next()
	}
	s.bodies.skip(c, c.Request().BodyStream())
	c.Status(http.StatusOK)
	return nil
}

func (s *Server) get(path string, answer handler) {
	route := s.metrics.route(path)
	s.fiber.Get(path, s.observe(route, func(c *fiber.Ctx) {
		s.bodies.skip(c, c.Request().BodyStream())
		answer(c)
	}))
}

// analytics serves one path of the protocol: GET and POST carry events, OPTIONS and HEAD only ask whether it is there.
func (s *Server) analytics(path string, capture func(context.Context, *posthog.Request) posthog.Response) {
	route := s.metrics.route(path)
	take := s.observe(route, func(c *fiber.Ctx) { s.capture(c, capture) })
	ask := s.observe(route, func(c *fiber.Ctx) {
		s.bodies.skip(c, c.Request().BodyStream())
		c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
		c.Status(http.StatusOK)
		c.Response().SetBodyString(`{"status":"Ok"}`)
	})
	s.fiber.Add(fiber.MethodGet, path, take)
	s.fiber.Add(fiber.MethodPost, path, take)
	s.fiber.Add(fiber.MethodOptions, path, ask)
	s.fiber.Add(fiber.MethodHead, path, ask)
}

// observe counts and times a route's requests, gives each its id, and turns a panic into a 500.
func (s *Server) observe(route *routeMetrics, answer handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		begin := time.Now()
		s.inFlight.Add(1)
		id := requestID(c)
		c.Response().Header.Set(fiber.HeaderXRequestID, id)
		defer func() {
			if cause := recover(); cause != nil {
				s.log.Error("request panicked", zap.String("request_id", id), zap.String("path", strings.Clone(c.Path())),
					zap.Any("panic", cause), zap.ByteString("stack", debug.Stack()))
				// How much of the body was read is not known any more.
				c.Context().SetConnectionClose()
				writeText(c, http.StatusInternalServerError, "internal server error")
			}
			s.inFlight.Add(-1)
			route.observe(c.Response().StatusCode(), time.Since(begin))
		}()
		answer(c)
		return nil
	}
}

// capture reads the body and has the protocol answer.
func (s *Server) capture(c *fiber.Ctx, capture func(context.Context, *posthog.Request) posthog.Response) {
	read, err := s.bodies.read(c)
	if err != nil {
		s.write(c, posthog.Refusal(err))
		return
	}
	defer s.bodies.release(read)
	s.metrics.received.Inc(int64(len(read.bytes)))
	header := &c.Request().Header
	// The strings alias the server's buffers: the protocol keeps nothing of a request after it has answered.
	s.write(c, capture(context.Background(), &posthog.Request{
		Path:            c.Path(),
		RawQuery:        string(c.Request().URI().QueryString()),
		ContentType:     string(header.ContentType()),
		ContentEncoding: string(header.Peek(fiber.HeaderContentEncoding)),
		Body:            read.bytes,
		ClientIP:        s.clientIP(c),
		RequestID:       c.GetRespHeader(fiber.HeaderXRequestID),
		Received:        time.Now().UTC(),
	}))
}

func (s *Server) write(c *fiber.Ctx, response posthog.Response) {
	if response.Status >= http.StatusBadRequest {
		if entry := s.log.Check(zap.DebugLevel, "request refused"); entry != nil {
			entry.Write(zap.String("request_id", strings.Clone(c.GetRespHeader(fiber.HeaderXRequestID))), zap.String("path", strings.Clone(c.Path())),
				zap.Int("status", response.Status), zap.String("answer", response.Body))
		}
	}
	c.Status(response.Status)
	if response.Retry {
		c.Set(fiber.HeaderRetryAfter, strconv.Itoa(int(s.config.RetryAfter/time.Second)))
	}
	if response.ContentType != "" {
		c.Set(fiber.HeaderContentType, response.ContentType)
		c.Response().SetBodyString(response.Body)
	}
}

func writeText(c *fiber.Ctx, status int, text string) {
	c.Status(status)
	c.Set(fiber.HeaderContentType, fiber.MIMETextPlainCharsetUTF8)
	c.Response().SetBodyString(text)
}

// readiness answers whether traffic should come here, and if not, why.
func (s *Server) readiness(c *fiber.Ctx) {
	if err := s.health.Ready(context.Background()); err != nil {
		writeText(c, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeText(c, http.StatusOK, "ok")
}

// refuse answers what reached no route, or was no readable request.
func (s *Server) refuse(c *fiber.Ctx, err error) error {
	allowOrigin(c)
	status := http.StatusInternalServerError
	var known *fiber.Error
	if errors.As(err, &known) {
		status = known.Code
	}
	text := strings.ToLower(http.StatusText(status))
	switch status {
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		s.bodies.skip(c, c.Request().BodyStream())
	case http.StatusRequestTimeout:
		text = errStopped.Error()
	case http.StatusRequestHeaderFieldsTooLarge:
		text = fmt.Sprintf("request line and headers exceed %d bytes: send the events in the body", s.config.MaxHeader)
	}
	s.metrics.unrouted.observe(status, 0)
	writeText(c, status, text)
	return nil
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

func (s *Server) clientIP(c *fiber.Ctx) string {
	address, _ := netip.AddrFromSlice(c.Context().RemoteIP())
	forwarded := c.Request().Header.PeekAll(fiber.HeaderXForwardedFor)
	if len(forwarded) == 0 {
		return address.Unmap().String()
	}
	lists := make([]string, len(forwarded))
	for i, list := range forwarded {
		lists[i] = string(list)
	}
	return clientIP(address, lists, s.trusted).String()
}
