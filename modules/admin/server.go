package admin

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/listen"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
)

// Server is the operators' listener. Start and Stop are each called once, Start first; Addr may be called at any time after
// Start has returned.
type Server struct {
	cfg       Config
	log       *zap.Logger
	onFailure func(error)
	app       *fiber.App
	listener  net.Listener
	stopping  chan struct{}
	served    chan struct{}
}

var _ module.Background = (*Server)(nil)

// NewServer returns a server that shows what the gatherer and the health say. If serving ends other than by Stop, onFailure
// is called once with the cause.
func NewServer(cfg Config, gatherer prometheus.Gatherer, health *observability.Health, log *zap.Logger, onFailure func(error)) *Server {
	s := &Server{
		cfg:       cfg,
		log:       log,
		onFailure: onFailure,
		app: fiber.New(fiber.Config{
			DisableStartupMessage: true,
			StrictRouting:         true,
			ReadTimeout:           cfg.ReadTimeout,
			WriteTimeout:          cfg.WriteTimeout,
			IdleTimeout:           cfg.IdleTimeout,
		}),
		stopping: make(chan struct{}),
		served:   make(chan struct{}),
	}
	s.app.Use(s.recoverPanic)
	route(s.app, gatherer, health, log)
	return s
}

// Background marks the server as a part that runs beside the root.
func (s *Server) Background() {}

// Start binds the address, so that a port in use fails the start of the service, and serves until Stop.
func (s *Server) Start(ctx context.Context) error {
	listener, err := listen.TCP(ctx, "admin.listen", s.cfg.Listen)
	if err != nil {
		return err
	}
	s.listener = listener
	panics.Go(s.log, server, s.serve)
	return nil
}

// server is the server in the log lines about its panics.
const server = "the operators' listener"

func (s *Server) serve() {
	defer close(s.served)
	err := panics.Try(s.log, server, func() error { return s.app.Listener(s.listener) })
	select {
	case <-s.stopping:
	default:
		if err == nil {
			err = errors.New("the listener was closed")
		}
		s.onFailure(fmt.Errorf("serve admin.listen: %w", err))
	}
}

// Stop closes the listener and waits for the requests that are running, for as long as the configuration or ctx allow,
// whichever is shorter. What runs longer is left behind and logged; it is no error, because nothing but an operator's own
// profile is lost.
func (s *Server) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StopTimeout)
	defer cancel()
	close(s.stopping)
	err := s.app.ShutdownWithContext(ctx)
	// A stop may come before the serving goroutine has handed the listener over; then the shutdown has not closed it.
	_ = s.listener.Close()
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		s.log.Warn("requests were still running when the stop timeout was over",
			zap.Int32("connections", s.app.Server().GetOpenConnectionsCount()), zap.Duration("stop_timeout", s.cfg.StopTimeout))
		return nil
	case err != nil && !errors.Is(err, net.ErrClosed):
		return fmt.Errorf("stop serving admin.listen: %w", err)
	}
	select {
	case <-s.served:
	case <-ctx.Done():
	}
	return nil
}

// Addr returns the address that is bound, which has the port where the configuration says 0.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// recoverPanic answers 500 instead of ending the process, as fasthttp would have it.
func (s *Server) recoverPanic(c *fiber.Ctx) (err error) {
	defer func() {
		if caught := panics.Caught(recover()); caught != nil {
			panics.Log(s.log, "a handler", caught, zap.String("path", string(c.Context().Path())))
			err = fiber.ErrInternalServerError
		}
	}()
	return c.Next()
}
