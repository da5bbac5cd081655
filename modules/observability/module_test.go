package observability

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

func TestTheModuleGathersCollectorsChecksAndScopes(t *testing.T) {
	defer goleak.VerifyNone(t)
	var (
		gatherer prometheus.Gatherer
		health   *Health
		scope    tally.Scope
	)
	app := fx.New(
		fx.NopLogger,
		fx.Supply(configs.Fixed(Module().Config), module.Build{Version: "v1"},
			module.Metrics{"n": "Things that were counted."}),
		fx.Module("observability", Module().Options),
		fx.Provide(
			// A collector and a check belong to parts that log and count, so both depend on what the module provides.
			AsCollector(func(tally.Scope, *zap.Logger) prometheus.Collector {
				return prometheus.NewGauge(prometheus.GaugeOpts{Name: "own", Help: "own"})
			}),
			AsCheck(func(tally.Scope, *zap.Logger) Check { return check("kafka", errors.New("away")) }),
		),
		fx.Populate(&gatherer, &health, &scope),
	)
	require.NoError(t, app.Err())
	require.NoError(t, app.Start(t.Context()))
	health.SetStarted()
	require.EqualError(t, health.Ready(t.Context()), "kafka: away")
	scope.Counter("n").Inc(1)
	require.NoError(t, app.Stop(t.Context()))

	families := gather(t, gatherer)
	require.Contains(t, families, "own")
	require.Contains(t, families, "capture_build_info")
	require.Equal(t, "Things that were counted.", families["capture_n"].GetHelp())
	require.InDelta(t, 1, families["capture_n"].GetMetric()[0].GetCounter().GetValue(), 0)
}
