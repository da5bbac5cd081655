package delivery

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

func TestTheDrainIsAsFastAsItsShareOfWhatComesIn(t *testing.T) {
	p := newPace(DrainConfig{Speed: 4, MinRate: configs.MiB})
	now := p.lastMeasure
	require.InDelta(t, float64(configs.MiB), float64(p.limiter.Limit()), 0)
	for range 50 {
		p.came(3 << 20)
		p.went(1 << 20)
		now = now.Add(time.Second)
		p.measure(now)
	}
	require.InEpsilon(t, float64(3<<20), p.coming(), 0.01)
	require.InEpsilon(t, float64(1<<20), p.drained(), 0.01)
	require.InEpsilon(t, float64(12<<20), float64(p.limiter.Limit()), 0.01)
	for range 50 {
		now = now.Add(time.Second)
		p.measure(now)
	}
	require.InEpsilon(t, float64(configs.MiB), float64(p.limiter.Limit()), 0.01, "and never slower than the least")
	p.measure(now.Add(-time.Hour)) // a clock that was set back
	require.InEpsilon(t, float64(configs.MiB), float64(p.limiter.Limit()), 0.01)
}

func TestTheTimeUntilTheSpoolIsFull(t *testing.T) {
	require.InDelta(t, 50, untilFull(500, 10), 0)
	require.True(t, math.IsInf(untilFull(500, 0), 1))
	require.True(t, math.IsInf(untilFull(500, -3), 1))
	require.InDelta(t, 0, untilFull(0, 10), 0)
}

func TestWhenToComeAgainFollowsFromTheDrain(t *testing.T) {
	d, err := NewDelivery(DefaultConfig(), newStub(), nil, tally.NoopScope)
	require.NoError(t, err)
	require.Equal(t, time.Minute, d.retryAfter(), "nobody knows")
	rate := func(bytes float64) { d.pace.outRate.Store(math.Float64bits(bytes)) }
	rate(float64(configs.MiB))
	require.Equal(t, 32*time.Second, d.retryAfter(), "until a segment of 32 MiB is free")
	rate(float64(configs.GiB))
	require.Equal(t, time.Second, d.retryAfter())
	rate(1)
	require.Equal(t, 5*time.Minute, d.retryAfter())
}

func TestTheStateOfTheSpoolIsShown(t *testing.T) {
	kafka := newStub()
	d, _, _ := begin(t, testConfig(t, modeAuto), kafka)
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(NewCollector(d)))
	requireSafe(t, write(t, d, "a"), events.AckKafka)
	kafka.goAway()
	requireSafe(t, write(t, d, "b", "c"), events.AckSpool)

	samples := map[string]float64{}
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += "{" + label.GetName() + "=" + label.GetValue() + "}"
			}
			samples[name] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	require.InDelta(t, 2, samples["capture_delivery_spool_records{topic=main}"], 0)
	require.Positive(t, samples["capture_delivery_spool_bytes"])
	require.InDelta(t, float64(d.cfg.Spool.MaxBytes), samples["capture_delivery_spool_max_bytes"], 0)
	require.Contains(t, samples, "capture_delivery_spool_oldest_seconds{topic=main}")
	require.Contains(t, samples, "capture_delivery_spool_seconds_until_full")
	require.Contains(t, samples, "capture_delivery_breaker_open")
	require.Zero(t, samples["capture_delivery_corrupt_records_total{topic=main}"])
	require.Contains(t, samples, "capture_delivery_torn_bytes_total{topic=main}")
	require.Contains(t, samples, "capture_delivery_unreadable_cursors_total{topic=main}")
}
