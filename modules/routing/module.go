package routing

import (
	"go.uber.org/fx"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
)

// Module applies the operator's own rules.
//
// Provides a stage (see events.AsStage), which does nothing if no rule is configured. Requires *configs.Live, which the
// app provides. Config section: "routing".
func Module() module.Module {
	return module.Module{
		Name:    "routing",
		Config:  DefaultConfig(),
		Rules:   []configs.Rule{topicsAreKept},
		Options: fx.Provide(events.AsStage(NewStage)),
	}
}
