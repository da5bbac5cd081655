package csp

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/route"
)

// Module takes the reports of browsers.
//
// Provides a route in the value group "routes".
// Requires *decode.Decoder and *memory.Budget (transport), events.Processor (modules/events) and tally.Scope
// (modules/observability).
func Module() module.Module {
	return module.Module{
		Name: "csp",
		Metrics: module.Metrics{
			"json_repaired_total": "Reports of browsers with a known fault in their JSON that was mended.",
		},
		Options: fx.Provide(
			NewHandler,
			route.As((*Handler).Routes),
		),
		Requires: []module.Requirement{
			module.Require[*decode.Decoder]("transport"),
			module.Require[events.Processor]("modules/events"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}
