package otlp

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/route"
)

// Module takes OpenTelemetry's traces and logs.
//
// Provides routes in the value group "routes".
// Requires *decode.Decoder, *memory.Budget and the section transport.posthog (transport), *configs.Live (app),
// events.Processor (modules/events) and tally.Scope (modules/observability).
// Config section: "otlp".
func Module() module.Module {
	return module.Module{
		Name:   "otlp",
		Config: DefaultConfig(),
		Metrics: module.Metrics{
			"json_repaired_total": "OTLP requests that were mended: bytes that are no UTF-8, known faults of JSON, " +
				"or values that their fields cannot hold.",
			"spans_ignored_total": "Spans that are not about AI, and become no event.",
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
