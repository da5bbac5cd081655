package transport

import (
	"fmt"

	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/observability"
)

// Module is the HTTP server and the protocols.
//
// Provides *Server, as configs.Root too, and a start fact.
// Requires events.Processor (modules/events) and *observability.Health (modules/observability).
// Config section: "transport".
func Module() configs.Module {
	return configs.Module{
		Name:   "transport",
		Config: DefaultConfig(),
		Options: fx.Provide(
			provideServer,
			func(server *Server) configs.Root { return server },
			configs.AsStartFact(listening),
			configs.AsStartFact(trial),
		),
		Requires: []configs.Requirement{
			configs.Require[events.Processor]("modules/events"),
			configs.Require[*observability.Health]("modules/observability"),
		},
	}
}

func provideServer(config Config, processor events.Processor, health *observability.Health, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle, shutdowner fx.Shutdowner) (*Server, error) {
	server, err := NewServer(config, processor, health, log, scope, func(err error) {
		log.Error("serving failed, stopping", zap.Error(err))
		if err := shutdowner.Shutdown(fx.ExitCode(1)); err != nil {
			log.Error("stopping after a failure", zap.Error(err))
		}
	})
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: server.Start, OnStop: server.Stop})
	return server, nil
}

func listening(server *Server) configs.StartFact {
	return configs.StartFact{Rank: 10, Name: "listening", Text: func() string { return configs.URL(server.Addr()) }}
}

func trial(server *Server) configs.StartFact {
	return configs.StartFact{Rank: 90, Name: "try", Text: func() string {
		return fmt.Sprintf(`curl %s/capture/ -d '{"api_key":"phc_test","event":"hello","distinct_id":"me"}'`, configs.URL(server.Addr()))
	}}
}
