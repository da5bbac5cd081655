package transport

import (
	"fmt"

	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/listen"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	v1 "github.com/opencapture/capture/transport/posthog/v1"
	"github.com/opencapture/capture/transport/route"
	"github.com/opencapture/capture/transport/setup"
)

// Module is the HTTP server and PostHog's protocols.
//
// Provides *Server, as module.Root too; *decode.Decoder and the *memory.Budget that it draws on, for modules that serve
// a route; start facts; the commands "send" and "healthcheck".
// Requires events.Processor and events.Gates (modules/events) and *observability.Health (modules/observability); takes
// the value group "routes" of route.Route (see route.As).
// Config section: "transport".
func Module() module.Module {
	return module.Module{
		Name:    "transport",
		Config:  DefaultConfig(),
		Metrics: described,
		Options: fx.Provide(
			newBudget,
			newDecoder,
			posthog.NewHandler,
			v1.NewHandler,
			route.As((*posthog.Handler).Routes),
			route.As((*v1.Handler).Routes),
			route.As(newSetup),
			fx.Annotate(provideServer, fx.ParamTags(``, ``, `group:"routes"`)),
			func(server *Server) module.Root { return server },
			module.AsStartFact(listening),
			module.AsStartFact(trial),
		),
		Requires: []module.Requirement{
			module.Require[events.Processor]("modules/events"),
			module.Require[events.Gates]("modules/events"),
			module.Require[*observability.Health]("modules/observability"),
		},
		Commands: []module.Command{sendCommand(), healthcheckCommand()},
	}
}

// newBudget makes the budget of the configuration at start. The server resizes it when the configuration changes.
func newBudget(config Config, limit module.MemoryLimit) *memory.Budget {
	budget := memory.NewBudget(0)
	config.sized(limit).size(budget)
	return budget
}

func newDecoder(live *configs.Live, budget *memory.Budget) (*decode.Decoder, error) {
	limit, err := configs.NewValue(live, func(c Config) (int64, error) { return int64(c.MaxDecoded), nil })
	if err != nil {
		return nil, err
	}
	return decode.New(limit.In, budget), nil
}

// newSetup returns the routes of the set-up calls, which are setup.Answers. Where the section names an upstream, it
// returns the route of the proxy, which takes every path that nothing here serves, in their place.
func newSetup(
	config Config, live *configs.Live, budget *memory.Budget, log *zap.Logger, lifecycle fx.Lifecycle,
) ([]route.Route, error) {
	if config.Upstream == "" {
		answers, err := setup.NewAnswers(live)
		if err != nil {
			return nil, err
		}
		return answers.Routes(), nil
	}
	proxy, err := setup.NewProxy(config.Upstream, config.UpstreamTimeout, budget, log)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.StopHook(proxy.Close))
	return proxy.Routes(), nil
}

func provideServer(
	live *configs.Live, limit module.MemoryLimit, routes []route.Route, gates events.Gates, budget *memory.Budget,
	health *observability.Health, log *zap.Logger, scope tally.Scope,
	lifecycle fx.Lifecycle, shutdowner fx.Shutdowner,
) (*Server, error) {
	server, err := NewServer(live, limit, routes, gates, budget, health, log, scope, func(err error) {
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

func listening(server *Server) module.StartFact {
	return module.StartFact{Rank: 10, Name: "listening", Text: func() string { return listen.URL(server.Addr()) }}
}

func trial(server *Server) module.StartFact {
	return module.StartFact{Rank: 90, Name: "try", Text: func() string {
		return fmt.Sprintf(`curl %s/capture/ -d '{"api_key":"phc_test","event":"hello","distinct_id":"me"}'`,
			listen.URL(server.Addr()))
	}}
}
