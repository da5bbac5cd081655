package usage

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/client"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
)

// Module counts what each token sends.
//
// Provides a stage that only looks (see events.AsStage), operators' endpoints, and *Meter. Requires *zap.Logger and
// tally.Scope (modules/observability). Its command requires client.Own (modules/admin). Config section: "usage".
func Module() module.Module {
	return module.Module{
		Name:   "usage",
		Config: DefaultConfig(),
		Probes: []configs.Rule{probe},
		Metrics: module.Metrics{
			"tokens":              "Tokens that are counted each for itself.",
			"others_total":        "Requests that were counted together with those of other tokens, for want of room.",
			"save_failures_total": "Times that usage could not be kept on the disk as it should be.",
		},
		Options: fx.Provide(
			newMeter,
			events.AsStage(func(m *Meter) *Meter { return m }),
			endpoint.AsEach((*Meter).Endpoints),
		),
		Requires: []module.Requirement{
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
			module.Require[client.Own]("modules/admin"),
		},
		Commands: []module.Command{command()},
	}
}

func newMeter(config Config, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle) *Meter {
	meter := NewMeter(config, log, scope)
	lifecycle.Append(fx.Hook{OnStart: meter.Start, OnStop: meter.Stop})
	return meter
}
