package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/listen"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
)

// maxHeaderBytes is the largest head that a request may have. It is generous because a browser sends the cookies of
// every port of localhost.
const maxHeaderBytes = 64 << 10

// Server is the operators' listener. Start and Stop are each called once, Start first. Addr may be called at any time
// after Start has returned.
type Server struct {
	config    *configs.Value[Config]
	log       *zap.Logger
	onFailure func(error)
	handler   http.Handler
	listener  net.Listener

	// running is the context of every request. end is called when the server stops.
	running context.Context
	end     context.CancelFunc
	served  chan struct{}

	// servers has one server for each set of timeouts that has been in force. Only the serving goroutine uses the list,
	// and after the end of that goroutine Stop.
	servers []*http.Server

	mu    sync.Mutex
	conns map[net.Conn]http.ConnState
}

var _ module.Background = (*Server)(nil)

// NewServer returns a server of the endpoints, of the index that lists them, and of the document that describes them.
// The document names the version of the build. The server follows the section "admin": a
// request is judged by the configuration that is in force when the request begins. If serving ends without a Stop, the
// server calls onFailure once with the cause. An endpoint that cannot be served is an error.
func NewServer(
	live *configs.Live, version string, endpoints []endpoint.Endpoint, log *zap.Logger, onFailure func(error),
) (*Server, error) {
	config, err := configs.Current[Config](live)
	if err != nil {
		return nil, err
	}
	mux, err := newMux(slices.Concat(endpoints, newIndexes(version, endpoints)))
	if err != nil {
		return nil, err
	}
	s := &Server{
		config:    config,
		log:       log,
		onFailure: onFailure,
		served:    make(chan struct{}),
		conns:     map[net.Conn]http.ConnState{},
	}
	s.running, s.end = context.WithCancel(context.Background())
	s.handler = &front{now: config.Now, mux: mux, log: log}
	return s, nil
}

// Background marks the server as a part that runs beside the root.
func (s *Server) Background() {}

// Start binds the address and serves until Stop. A port that is in use makes Start fail, and with it the start of the
// service.
func (s *Server) Start(ctx context.Context) error {
	listener, err := listen.TCP(ctx, "admin.listen", s.config.Now().Listen)
	if err != nil {
		return err
	}
	s.serveOn(listener)
	return nil
}

// serveOn begins to serve.
func (s *Server) serveOn(listener net.Listener) {
	s.listener = listener
	if s.exposed() {
		s.log.Warn("the operators' listener is off loopback without a token: "+
			"whoever reaches it reads the inside of the service; set admin.token", zap.Stringer("address", s.Addr()))
	}
	panics.Go(s.log, "the operators' listener", s.serve)
}

// exposed reports whether other machines may reach the listener and read without a token.
func (s *Server) exposed() bool {
	address, ok := s.Addr().(*net.TCPAddr)
	return s.config.Now().Token == "" && !(ok && address.IP.IsLoopback())
}

func (s *Server) serve() {
	defer close(s.served)
	err := panics.Try(s.log, "the operators' listener", s.accept)
	if s.running.Err() == nil {
		s.onFailure(fmt.Errorf("serve admin.listen: %w", err))
	}
}

// accept serves each connection with the timeouts that are in force when the connection comes.
func (s *Server) accept() error {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return err
		}
		// Serve returns once the connection has a goroutine of its own.
		err = s.serverWith(s.config.Now()).Serve(&oneConn{Listener: s.listener, conn: conn})
		if !errors.Is(err, errNoMore) {
			return err
		}
	}
}

// oneConn is a listener with a single connection.
type oneConn struct {
	net.Listener

	conn net.Conn
}

var errNoMore = errors.New("the listener had one connection")

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	conn := l.conn
	if conn == nil {
		return nil, errNoMore
	}
	l.conn = nil
	return conn, nil
}

// Close implements net.Listener. It leaves the listener below open for the next connections.
func (l *oneConn) Close() error { return nil }

// serverWith returns the server with the timeouts of the configuration. The timeouts of an http.Server must not change
// while it has connections, so other timeouts get another server.
func (s *Server) serverWith(cfg Config) *http.Server {
	for _, server := range s.servers {
		if server.ReadTimeout == cfg.ReadTimeout && server.WriteTimeout == cfg.WriteTimeout &&
			server.IdleTimeout == cfg.IdleTimeout {
			return server
		}
	}
	server := &http.Server{
		Handler:        s.handler,
		ReadTimeout:    cfg.ReadTimeout,
		WriteTimeout:   cfg.WriteTimeout,
		IdleTimeout:    cfg.IdleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		BaseContext:    func(net.Listener) context.Context { return s.running },
		ConnState:      s.track,
		ErrorLog:       zap.NewStdLog(s.log),
	}
	s.servers = append(s.servers, server)
	return server
}

// track notes the state of each open connection.
func (s *Server) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(s.conns, conn)
		return
	}
	s.conns[conn] = state
}

// Stop closes the listener and ends the context of the running requests, which ends profiles early. It waits for these
// requests for as long as the configuration or ctx allows, whichever is shorter. It logs the requests that run longer
// and leaves them behind. It returns no error for them, because only an operator's own request is lost.
func (s *Server) Stop(ctx context.Context) error {
	timeout := s.config.Now().StopTimeout
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s.end()
	err := s.listener.Close()
	<-s.served // at once, since the listener is closed
	s.closeUnused()
	late := false
	for _, server := range s.servers {
		late = server.Shutdown(ctx) != nil || late
	}
	if late {
		s.log.Warn("requests were still running when the stop timeout was over",
			zap.Int("connections", s.open()), zap.Duration("stop_timeout", timeout))
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("stop serving admin.listen: %w", err)
	}
	return nil
}

// closeUnused closes the connections that have had no request. A browser opens such connections, and a shutdown would
// wait for them.
func (s *Server) closeUnused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, state := range s.conns {
		if state == http.StateNew {
			_ = conn.Close()
		}
	}
}

func (s *Server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Addr returns the bound address. Where the configuration has port 0, Addr has the port that was taken.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// StartLine says where the metrics are, and warns if everybody who reaches the listener can read without a token.
func (s *Server) StartLine() string {
	line := listen.URL(s.Addr()) + "/metrics"
	if s.exposed() {
		line += " (off loopback without admin.token: whoever reaches it reads the inside of the service)"
	}
	return line
}
