package events

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"
)

type groups struct {
	fx.In

	Processor  Processor
	Pipeline   *Pipeline
	Collectors []prometheus.Collector `group:"collectors"`
}

func build(t *testing.T, options ...fx.Option) (groups, error) {
	t.Helper()
	var got groups
	app := fx.New(
		fx.NopLogger,
		fx.Provide(func() tally.Scope { return tally.NoopScope }, func() *zap.Logger { return zap.NewNop() }),
		fx.Provide(func() Sink {
			return sinkFunc(func(_ context.Context, b *Batch) { b.FailPending(ReasonUnavailable, nil) })
		}),
		Module().Options, fx.Options(options...),
		fx.Invoke(func(g groups) { got = g }),
	)
	return got, app.Err()
}

func TestTheModuleJoinsStagesLayersSinkAndLedger(t *testing.T) {
	got, err := build(t, fx.Provide(
		AsStage(func() stage { return stage{phase: 2, name: "second"} }),
		AsStage(func() (Stage, error) { return stage{phase: 1, name: "first"}, nil }),
		AsLayer(func() Layer {
			return Layer{Order: 1, Name: "spool", Wrap: func(next Sink) Sink {
				return sinkFunc(func(ctx context.Context, b *Batch) {
					b.Events[0].Accept()
					next.Write(ctx, b)
				})
			}}
		}),
	))
	require.NoError(t, err)
	require.Equal(t, []string{"first", "second"}, got.Pipeline.Names())

	got.Processor.Process(t.Context(), &Batch{Events: make([]Event, 2)})

	registry := prometheus.NewPedanticRegistry()
	require.Len(t, got.Collectors, 1)
	require.NoError(t, registry.Register(got.Collectors[0]))
	require.Equal(t, map[string]float64{
		"capture_events_received_total":                        2,
		"capture_events_accepted_total":                        1,
		"capture_events_failed_total{reason=sink_unavailable}": 1,
	}, scrape(t, registry))
}

func TestTheModuleWorksWithoutStagesAndLayers(t *testing.T) {
	got, err := build(t)
	require.NoError(t, err)
	require.Empty(t, got.Pipeline.Names())
}

func TestTheGraphIsRefusedWhenTwoLayersHaveOneOrder(t *testing.T) {
	layer := func(name string) any {
		return AsLayer(func() Layer { return Layer{Order: 1, Name: name, Wrap: func(next Sink) Sink { return next }} })
	}
	_, err := build(t, fx.Provide(layer("spool"), layer("tee")))
	require.ErrorContains(t, err, "both have order 1")
}
