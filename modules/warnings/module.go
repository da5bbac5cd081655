package warnings

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
)

// Module tells projects what became of their events.
//
// Provides an observer (see events.AsObserver), which starts after the sink and stops before it.
// Requires events.Sink (modules/delivery), *zap.Logger and tally.Scope (modules/observability).
// Config section: "warnings".
func Module() module.Module {
	return module.Module{
		Name:    "warnings",
		Config:  DefaultConfig(),
		Options: fx.Provide(events.AsObserver(newObserver)),
		Requires: []module.Requirement{
			module.Require[events.Sink]("modules/delivery"),
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

func newObserver(cfg Config, sink events.Sink, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle) events.Observer {
	if !cfg.Enabled {
		return silent{}
	}
	warner := NewWarner(cfg, sink, log, scope)
	lifecycle.Append(fx.Hook{OnStart: warner.Start, OnStop: warner.Stop})
	return warner
}

// silent stands in for the Warner where warnings are not enabled.
type silent struct{}

func (silent) Observe(*events.Batch) {}
