package delivery

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/events"
)

func TestTheDrainIsAsFastAsItsShareOfWhatComesIn(t *testing.T) {
	t.Parallel()
	l := newRateLimiter(func() DrainConfig { return DrainConfig{Speed: 4, MinRate: configs.MiB} })
	now := l.lastMeasure
	require.InDelta(t, float64(configs.MiB), float64(l.limiter.Limit()), 0)
	for range 50 {
		l.came(3 << 20)
		l.went(1 << 20)
		now = now.Add(time.Second)
		l.measure(now)
	}
	require.InEpsilon(t, float64(3<<20), l.coming(), 0.01)
	require.InEpsilon(t, float64(1<<20), l.drained(), 0.01)
	require.InEpsilon(t, float64(12<<20), float64(l.limiter.Limit()), 0.01)
	for range 50 {
		now = now.Add(time.Second)
		l.measure(now)
	}
	require.InEpsilon(t, float64(configs.MiB), float64(l.limiter.Limit()), 0.01, "and never slower than the least")
	l.measure(now.Add(-time.Hour)) // somebody has set the clock back
	require.InEpsilon(t, float64(configs.MiB), float64(l.limiter.Limit()), 0.01)
}

func TestADrainThatMayTakeAllWaitsForNothing(t *testing.T) {
	t.Parallel()
	narrow := func() DrainConfig { return DrainConfig{Speed: 4, MinRate: 64 * configs.KiB} }
	l := newRateLimiter(narrow)
	l.unlimited = true
	require.NoError(t, l.wait(t.Context(), 1<<30))
	l.measure(l.lastMeasure.Add(time.Second))
	require.NoError(t, l.wait(t.Context(), 1<<30))
	slow := newRateLimiter(narrow)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, slow.wait(ctx, 10*chunkBytes))
}

func TestTheTimeUntilTheSpoolIsFull(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 50, untilFull(500, 10), 0)
	require.True(t, math.IsInf(untilFull(500, 0), 1))
	require.True(t, math.IsInf(untilFull(500, -3), 1))
	require.InDelta(t, 0, untilFull(0, 10), 0)
}

func TestWhenToComeAgainFollowsFromTheDrain(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	d := newScripted(t, scriptConfig(t, modeAuto), k, tally.NoopScope)
	full := spool.ErrFull
	require.Zero(t, d.retryAfter(full), "nothing waits: the disk is somebody else's to clear")
	require.Equal(t, d.times.openFor, d.retryAfter(errOpen), "when the breaker lets the next one through")
	require.Zero(t, d.retryAfter(errTimeout))

	d.topic("main").waiting.Store(true)
	require.Equal(t, time.Second, d.retryAfter(errWaits))
	k.always(errAway)
	require.Equal(t, time.Minute, d.retryAfter(errWaits), "nobody knows")
	require.Equal(t, time.Minute, d.retryAfter(full))

	require.Equal(t, 32*time.Second, drainTime(32<<20, 1<<20))
	require.Equal(t, time.Second, drainTime(1<<20, 1<<30))
}

func TestTheStateOfTheSpoolIsShown(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	d, _ := begin(t, scriptConfig(t, modeAuto), k)
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(NewCollector(d)))
	requireSafe(t, write(t, d, "a"), events.AckKafka)
	k.always(errAway)
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
	require.InDelta(t, 1, samples["capture_delivery_breaker_open{topic=main}"], 0)
	require.InDelta(t, 1, samples["capture_delivery_spool_usable"], 0)
	require.Zero(t, samples["capture_delivery_corrupt_records_total{topic=main}"])
	for _, name := range []string{
		"spool_oldest_seconds{topic=main}", "spool_seconds_until_full", "spool_in_bytes_per_second",
		"drain_bytes_per_second",
		"torn_bytes_total{topic=main}", "unreadable_cursors_total{topic=main}",
	} {
		require.Contains(t, samples, "capture_delivery_"+name)
	}
}
