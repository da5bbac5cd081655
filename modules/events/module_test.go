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
			return sinkFunc(func(_ context.Context, b *Batch) {
				b.Events[0].Accept()
				b.FailPending(ReasonUnavailable, nil)
			})
		}),
		Module().Options, fx.Options(options...),
		fx.Invoke(func(g groups) { got = g }),
	)
	return got, app.Err()
}

func TestTheModuleJoinsStagesSinkAndLedger(t *testing.T) {
	var seen []*Batch
	got, err := build(t, fx.Provide(
		AsStage(func() stage {
			return stage{phase: 2, name: "second", settle: func(_ context.Context, b *Batch) { seen = append(seen, b) }}
		}),
		AsStage(func() (Stage, error) { return stage{phase: 1, name: "first"}, nil }),
	))
	require.NoError(t, err)
	require.Equal(t, []string{"first", "second"}, got.Pipeline.Names())

	batch := &Batch{Events: make([]Event, 2)}
	got.Processor.Process(t.Context(), batch)
	require.Equal(t, []*Batch{batch}, seen)

	registry := prometheus.NewPedanticRegistry()
	require.Len(t, got.Collectors, 1)
	require.NoError(t, registry.Register(got.Collectors[0]))
	require.Equal(t, map[string]float64{
		"capture_events_received_total":                        2,
		"capture_events_accepted_total":                        1,
		"capture_events_duplicates_total":                      0,
		"capture_events_failed_total{reason=sink_unavailable}": 1,
	}, scrape(t, registry))
}

func TestTheModuleWorksWithoutStages(t *testing.T) {
	got, err := build(t)
	require.NoError(t, err)
	require.Empty(t, got.Pipeline.Names())
}
