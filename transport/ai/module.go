package ai

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/route"
)

// Module takes AI events as multipart/form-data.
//
// Provides a route in the value group "routes".
// Requires *decode.Decoder, *memory.Budget and the section transport.posthog (transport), *configs.Live (app),
// events.Processor (modules/events) and tally.Scope (modules/observability).
// Config section: "ai".
func Module() module.Module {
	return module.Module{
		Name:   "ai",
		Config: DefaultConfig(),
		Metrics: module.Metrics{
			"json_repaired_total": "AI events with a known fault of SDKs in their JSON that was mended.",
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
