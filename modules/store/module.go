package store

import (
	"maps"

	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
)

// Module keeps the state that the nodes share, in the one of the given backends that the configuration asks for.
//
// Provides Store and each of its ports (Reserver, Counters, Records, PostHog), a check "store" with an override of it
// while no User of the store is closed, a start fact, and the endpoint GET /admin/store. Takes the value group
// "store_users" of User (see AsUser), which may be empty. Requires *zap.Logger and tally.Scope (modules/observability).
// Config section: "store".
func Module(backends ...Backend) module.Module {
	rule, probe := rules(backends)
	metrics := module.Metrics{}
	for _, backend := range backends {
		maps.Copy(metrics, backend.Metrics)
	}
	return module.Module{
		Name:    "store",
		Config:  DefaultConfig(),
		Rules:   []configs.Rule{filesAreThere, rule},
		Probes:  []configs.Rule{probe},
		Metrics: metrics,
		Options: fx.Provide(
			newStore(backends),
			func(s Store) (Reserver, Counters, Records, PostHog) { return s, s, s, s },
			observability.AsCheck(newCheck),
			fx.Annotate(newOverride, fx.ParamTags(``, `group:"store_users"`),
				fx.ResultTags(`group:"health_overrides"`)),
			module.AsStartFact(newFact),
			endpoint.As(newEndpoint),
		),
		Requires: []module.Requirement{
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

// AsUser annotates a constructor so that the User that it returns counts for readiness.
func AsUser(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"store_users"`))
}

func newStore(backends []Backend) any {
	return func(
		cfg Config, live *configs.Live, limit module.MemoryLimit, log *zap.Logger, scope tally.Scope,
		lifecycle fx.Lifecycle,
	) (Store, error) {
		parts := Parts{Config: cfg.sized(int64(limit)), Live: live, Log: log, Scope: scope}
		running, err := Open(parts, backends...)
		if err != nil {
			return nil, err
		}
		lifecycle.Append(fx.Hook{OnStart: running.Start, OnStop: running.Stop})
		return running, nil
	}
}
