package routing

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/store"
)

// Module applies the operator's own rules.
//
// Provides a stage (see events.AsStage), a user of the store (see store.AsUser) and the endpoint GET /admin/routing.
// Requires store.Store (modules/store), *zap.Logger and tally.Scope (modules/observability), and *configs.Live, which
// the app provides. Config section: "routing".
func Module() module.Module {
	return module.Module{
		Name:    "routing",
		Config:  DefaultConfig(),
		Rules:   []configs.Rule{topicsAreKept},
		Metrics: described,
		Options: fx.Provide(
			buildStage,
			events.AsStage(func(s *Stage) *Stage { return s }),
			store.AsUser((*Stage).User),
			endpoint.As((*Stage).Endpoint),
		),
		Requires: []module.Requirement{
			module.Require[store.Store]("modules/store"),
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

// buildStage asks for the store, so that the store starts before the stage and stops after it.
func buildStage(
	live *configs.Live, from store.Store, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle,
) (*Stage, error) {
	stage, err := NewStage(live, from, log, scope)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: stage.Start, OnStop: stage.Stop})
	return stage, nil
}
