package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/panics"
)

// connections are the settings by which the server serves a connection until its end.
type connections struct {
	header, body, write, idle time.Duration
	maxHeader                 configs.ByteSize
}

func (c Config) connections() connections {
	return connections{
		header: c.HeaderTimeout, body: c.BodyTimeout, write: c.WriteTimeout, idle: c.IdleTimeout,
		maxHeader: c.MaxHeader,
	}
}

// engine serves the connections that were accepted while one configuration was in force. The settings of its
// fasthttp.Server cannot change while that serves. So after a change a new engine takes the new connections, and the
// old engine serves its own to their end.
type engine struct {
	server *fasthttp.Server
	inbox  *inbox
	served chan struct{} // closed when serve has ended
}

// newEngine returns an engine that does not serve yet.
func (s *Server) newEngine(config Config) *engine {
	app := s.fiber.Server()
	return &engine{
		server: &fasthttp.Server{
			Handler:                      s.contained(s.fiber.Handler()),
			ErrorHandler:                 s.containedErrors(app.ErrorHandler),
			Logger:                       app.Logger,
			Concurrency:                  app.Concurrency,
			MaxRequestBodySize:           app.MaxRequestBodySize,
			NoDefaultServerHeader:        app.NoDefaultServerHeader,
			StreamRequestBody:            app.StreamRequestBody,
			DisablePreParseMultipartForm: app.DisablePreParseMultipartForm,
			ReadBufferSize:               int(config.MaxHeader),
			ReadTimeout:                  config.HeaderTimeout,
			WriteTimeout:                 config.WriteTimeout,
			IdleTimeout:                  config.IdleTimeout,
			CloseOnShutdown:              true,
			HeaderReceived: func(header *fasthttp.RequestHeader) fasthttp.RequestConfig {
				panics.Do(s.log, "the head of a request", func() { frame(header) })
				return fasthttp.RequestConfig{ReadTimeout: config.BodyTimeout}
			},
		},
		inbox:  newInbox(),
		served: make(chan struct{}),
	}
}

// contained answers 500 where a handler panics outside a route: what a route does is contained by observe.
func (s *Server) contained(handler fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		defer func() {
			if caught := panics.Caught(recover()); caught != nil {
				panics.Log(s.log, "request", caught, zap.ByteString("path", bytes.Clone(ctx.Path())))
				ctx.Error("internal server error", fasthttp.StatusInternalServerError)
			}
		}()
		handler(ctx)
	}
}

// containedErrors is contained for what answers a request that could not be read.
func (s *Server) containedErrors(answer func(*fasthttp.RequestCtx, error)) func(*fasthttp.RequestCtx, error) {
	return func(ctx *fasthttp.RequestCtx, err error) {
		s.contained(func(ctx *fasthttp.RequestCtx) { answer(ctx, err) })(ctx)
	}
}

// serve takes connections until the inbox is closed.
func (e *engine) serve() {
	defer close(e.served)
	// The only error of an inbox is io.EOF at its end, and for that fasthttp returns no error.
	_ = e.server.Serve(e.inbox)
}

// open returns how many connections are open. It may be called once serve has ended.
func (e *engine) open() int32 {
	// fasthttp leaves out the connection that Serve waits for, and Serve waits no longer.
	return e.server.GetOpenConnectionsCount() + 1
}

// engines is the engine in force and the older ones that still have connections.
type engines struct {
	log *zap.Logger

	mu      sync.Mutex
	all     []*engine // the last one is in force
	started bool
}

// start lets the engine in force take connections.
func (e *engines) start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started = true
	e.run(e.all[len(e.all)-1])
}

func (e *engines) run(next *engine) { panics.Go(e.log, "the HTTP server", next.serve) }

// change puts an engine in force and forgets the older ones that have no connections left.
func (e *engines) change(next *engine) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.started {
		e.all = []*engine{next}
		return
	}
	kept := make([]*engine, 0, len(e.all)+1)
	for _, old := range e.all {
		_ = old.inbox.Close()
		// Only after serve has ended does the count include a connection that the inbox has just handed over.
		<-old.served
		if old.open() > 0 {
			kept = append(kept, old)
		}
	}
	kept = append(kept, next)
	e.all = kept
	e.run(next)
}

// take hands a connection to the engine in force.
func (e *engines) take(conn net.Conn) {
	for {
		e.mu.Lock()
		current := e.all[len(e.all)-1]
		e.mu.Unlock()
		select {
		case current.inbox.conns <- conn:
			return
		case <-current.served:
			e.mu.Lock()
			ended := e.all[len(e.all)-1] == current
			e.mu.Unlock()
			if ended {
				_ = conn.Close()
				return
			}
		}
	}
}

// stop waits until the engines have answered every request on their connections, or until ctx is over. It returns how
// many connections are still open.
func (e *engines) stop(ctx context.Context) (open int32, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	errs := make([]error, len(e.all))
	group := panics.NewGroup(e.log)
	for i, engine := range e.all {
		_ = engine.inbox.Close()
		group.Go("the stop of the HTTP server", func() {
			errs[i] = engine.server.ShutdownWithContext(ctx)
			<-engine.served
		})
	}
	group.Wait()
	for _, engine := range e.all {
		open += engine.open()
	}
	return open, errors.Join(errs...)
}

// inbox is the listener of an engine. Its connections are those that the server's own listener has accepted.
type inbox struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

var _ net.Listener = (*inbox)(nil)

func newInbox() *inbox {
	closed := make(chan struct{})
	return &inbox{conns: make(chan net.Conn), closed: closed, close: sync.OnceFunc(func() { close(closed) })}
}

// Accept returns the next connection, or io.EOF after Close.
func (i *inbox) Accept() (net.Conn, error) {
	select {
	case conn := <-i.conns:
		return conn, nil
	case <-i.closed:
		return nil, io.EOF
	}
}

// Close ends Accept. It may be called more than once.
func (i *inbox) Close() error {
	i.close()
	return nil
}

// Addr implements net.Listener.
func (i *inbox) Addr() net.Addr { return &net.TCPAddr{} }
