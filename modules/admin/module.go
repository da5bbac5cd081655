package admin

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/listen"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
)

// Module is the operators' listener.
//
// Provides *Server, a member of the background parts, and a start fact.
// Requires prometheus.Gatherer and *observability.Health (modules/observability).
// Config section: "admin".
func Module() module.Module {
	return module.Module{
		Name:   "admin",
		Config: DefaultConfig(),
		Options: fx.Provide(
			newServer,
			module.AsBackground(func(s *Server) *Server { return s }),
			module.AsStartFact(newStartFact),
		),
		Requires: []module.Requirement{
			module.Require[prometheus.Gatherer]("modules/observability"),
			module.Require[*observability.Health]("modules/observability"),
			module.Require[*zap.Logger]("modules/observability"),
		},
	}
}

func newServer(
	cfg Config, gatherer prometheus.Gatherer, health *observability.Health, log *zap.Logger,
	lifecycle fx.Lifecycle, shutdowner fx.Shutdowner,
) *Server {
	server := NewServer(cfg, gatherer, health, log, func(err error) {
		log.Error("the operators' listener failed: the service stops", zap.Error(err))
		if err := shutdowner.Shutdown(fx.ExitCode(1)); err != nil {
			log.Error("the service could not be told to stop", zap.Error(err))
		}
	})
	lifecycle.Append(fx.Hook{OnStart: server.Start, OnStop: server.Stop})
	return server
}

func newStartFact(server *Server) module.StartFact {
	return module.StartFact{Rank: 50, Name: "metrics", Text: func() string { return listen.URL(server.Addr()) + "/metrics" }}
}
