package events

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/module"
)

// Module is the domain: it joins the stages and the sink of a build into a Processor.
//
// Provides Processor, *Pipeline, Gates, *Ledger, and the ledger's metrics in the value group "collectors". Requires
// Sink (modules/delivery), *zap.Logger and tally.Scope (modules/observability). It takes the value groups "stages" of
// Stage (see AsStage) and "gates" of Gate (see AsGate), which may be empty. Config section: none.
func Module() module.Module {
	return module.Module{
		Name: "events",
		Metrics: module.Metrics{
			"stage_seconds": "How long a stage of the pipeline took for a batch, in seconds, by stage.",
			"sink_seconds":  "How long it took to make a batch safe, in seconds.",
		},
		Options: fx.Provide(
			NewLedger,
			fx.Annotate(NewGates, fx.ParamTags(`group:"gates"`)),
			fx.Annotate(NewPipeline, fx.ParamTags(``, ``, `group:"stages"`)),
			NewProcessor,
			fx.Annotate(NewCollector, fx.ResultTags(`group:"collectors"`)),
		),
		Requires: []module.Requirement{
			module.Require[Sink]("modules/delivery"),
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

// AsGate annotates a constructor so that its result joins the gates. The constructor returns a Gate, or a type that
// implements it, and may return an error as well.
func AsGate(constructor any) any {
	return fx.Annotate(constructor, fx.As(new(Gate)), fx.ResultTags(`group:"gates"`))
}

// AsStage annotates a constructor so that its result joins the pipeline. The constructor returns a Stage, or a type
// that implements it, and may return an error as well.
func AsStage(constructor any) any {
	return fx.Annotate(constructor, fx.As(new(Stage)), fx.ResultTags(`group:"stages"`))
}
