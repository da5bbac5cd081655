package warnings_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/warnings"
	"github.com/opencapture/capture/testkit"
)

// run starts a graph with the module and a sink, and returns the module's stage. The sink counts the events that it has
// when it stops.
func run(t *testing.T, cfg warnings.Config) (stage events.Stage, sink *testkit.Sink, stop func() (before int)) {
	sink = testkit.NewSink()
	before := -1
	app := fx.New(
		fx.NopLogger,
		fx.Supply(configs.Fixed(cfg)),
		fx.Provide(func() tally.Scope { return tally.NoopScope }, zap.NewNop, func(lifecycle fx.Lifecycle) events.Sink {
			lifecycle.Append(fx.StopHook(func() { before = len(sink.Events()) }))
			return sink
		}),
		warnings.Module().Options,
		fx.Invoke(fx.Annotate(func(stages []events.Stage) {
			require.Len(t, stages, 1)
			stage = stages[0]
		}, fx.ParamTags(`group:"stages"`))),
	)
	require.NoError(t, app.Start(t.Context()))
	return stage, sink, func() int {
		require.NoError(t, app.Stop(context.Background()))
		return before
	}
}

func TestWhatIsQueuedIsWrittenBeforeTheSinkStops(t *testing.T) {
	stage, sink, stop := run(t, warnings.DefaultConfig())
	release := sink.Hold()
	observe(stage, bad("phc_a", events.ReasonMissingName))
	observe(stage, bad("phc_b", events.ReasonMissingName))
	release()
	require.Equal(t, 2, stop())
}

func TestNothingIsToldWhereItIsNotWanted(t *testing.T) {
	cfg := warnings.DefaultConfig()
	cfg.Enabled = false
	stage, sink, stop := run(t, cfg)
	observe(stage, bad("phc_a", events.ReasonMissingName))
	require.Zero(t, stop())
	require.Empty(t, sink.Events())
}
