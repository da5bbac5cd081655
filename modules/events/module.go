package events

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
)

// Module is the domain: it joins the stages and the sink of a build into a Processor.
//
// Provides Processor, *Pipeline, *Ledger, and the ledger's metrics in the value group "collectors".
// Requires Sink, the base sink (modules/kafka), *zap.Logger and tally.Scope (modules/observability); takes the value groups "stages" of
// Stage (see AsStage), "sink_layers" of Layer (see AsLayer) and "observers" of Observer (see AsObserver), all of which may be
// empty.
// Config section: none.
func Module() configs.Module {
	return configs.Module{
		Name: "events",
		Options: fx.Provide(
			NewLedger,
			fx.Annotate(NewPipeline, fx.ParamTags(``, `group:"stages"`)),
			fx.Annotate(newLayeredProcessor, fx.ParamTags(``, ``, ``, ``, ``, `group:"sink_layers"`, `group:"observers"`)),
			fx.Annotate(NewCollector, fx.ResultTags(`group:"collectors"`)),
		),
		Requires: []configs.Requirement{
			configs.Require[Sink]("modules/kafka"),
			configs.Require[tally.Scope]("modules/observability"),
		},
	}
}

// AsStage annotates a constructor so that its result joins the pipeline. The constructor returns a Stage, or a type that
// implements it, and may return an error as well.
func AsStage(constructor any) any {
	return fx.Annotate(constructor, fx.As(new(Stage)), fx.ResultTags(`group:"stages"`))
}

// AsLayer annotates a constructor so that its result wraps the base sink. The constructor returns a Layer and may return an
// error as well.
func AsLayer(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"sink_layers"`))
}

// AsObserver annotates a constructor so that its result sees every batch when it has ended. The constructor returns an
// Observer, or a type that implements it, and may return an error as well.
func AsObserver(constructor any) any {
	return fx.Annotate(constructor, fx.As(new(Observer)), fx.ResultTags(`group:"observers"`))
}

func newLayeredProcessor(
	pipeline *Pipeline, base Sink, ledger *Ledger, log *zap.Logger, scope tally.Scope, layers []Layer, observers []Observer,
) (Processor, error) {
	sink, err := NewSink(base, layers...)
	if err != nil {
		return nil, err
	}
	return NewProcessor(pipeline, sink, ledger, log, scope, observers...), nil
}
