package dedup

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/store"
)

// Module keeps an event that is sent again from being stored again.
//
// Provides a stage (see events.AsStage) and a user of the store (see store.AsUser). Requires store.Reserver
// (modules/store), *zap.Logger and tally.Scope (modules/observability). Config section: "dedup".
func Module() module.Module {
	return module.Module{
		Name:    "dedup",
		Config:  DefaultConfig(),
		Metrics: described,
		Options: fx.Provide(
			newStage,
			events.AsStage(func(s *Stage) *Stage { return s }),
			store.AsUser((*Stage).User),
		),
		Requires: []module.Requirement{
			module.Require[store.Reserver]("modules/store"),
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

// newStage asks for the reserver, so that the store starts before the stage and stops after it.
func newStage(
	live *configs.Live, reserver store.Reserver, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle,
) (*Stage, error) {
	stage, err := NewStage(live, reserver, log, scope)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: stage.Start, OnStop: stage.Stop})
	return stage, nil
}
