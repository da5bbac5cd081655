package warnings

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
)

// Module tells projects about their faulty events.
//
// Provides a stage that only looks (see events.AsStage). It starts after the sink and stops before it. Requires
// events.Sink (modules/delivery), *zap.Logger and tally.Scope (modules/observability). Config section: "warnings".
func Module() module.Module {
	return module.Module{
		Name:   "warnings",
		Config: DefaultConfig(),
		Metrics: module.Metrics{
			"sent_total":      "Warnings to projects that were written, by type.",
			"throttled_total": "Warnings that were held back because the project was warned just before, by type.",
			"dropped_total":   "Warnings that were lost, by type: too many waited, or nothing took them.",
		},
		Options: fx.Provide(events.AsStage(newStage)),
		Requires: []module.Requirement{
			module.Require[events.Sink]("modules/delivery"),
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

func newStage(
	live *configs.Live, sink events.Sink, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle,
) (*Warner, error) {
	warner, err := NewWarner(live, sink, log, scope)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: warner.Start, OnStop: warner.Stop})
	return warner, nil
}
