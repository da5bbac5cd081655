package observability

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/panics"
)

// patience is how long a test waits before it says that something hangs. It is no measure of speed.
const patience = 2 * time.Minute

// gather returns the metric families by name.
func gather(t *testing.T, gatherer prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := gatherer.Gather()
	require.NoError(t, err)
	byName := map[string]*dto.MetricFamily{}
	for _, family := range families {
		byName[family.GetName()] = family
	}
	return byName
}

func TestClosingTheScopeReportsTheLastCountsAndEndsItsGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t)
	registry := NewRegistry()
	scope, closer := NewScope(registry, nil, zap.NewNop())
	scope.SubScope("kafka").Counter("bytes").Inc(42)
	require.NoError(t, closer.Close())

	families := gather(t, registry)
	require.InDelta(t, 42, families["capture_kafka_bytes"].GetMetric()[0].GetCounter().GetValue(), 0)
	require.Contains(t, families, "go_goroutines")
	require.Contains(t, families, "process_start_time_seconds")
	for name := range families {
		require.NotContains(t, name, "tally")
	}
}

func TestCountsReachAScrapeWithoutAClose(t *testing.T) {
	registry := NewRegistry()
	scope, closer := NewScope(registry, nil, zap.NewNop())
	defer func() { require.NoError(t, closer.Close()) }()
	scope.Counter("n").Inc(1)
	require.Eventually(t, func() bool {
		return gather(t, registry)["capture_n"].GetMetric()[0].GetCounter().GetValue() == 1
	}, patience, 20*time.Millisecond)
}

func TestATimerIsAnExactHistogramInSecondsAtOnce(t *testing.T) {
	registry := NewRegistry()
	scope, closer := NewScope(registry, nil, zap.NewNop())
	defer func() { require.NoError(t, closer.Close()) }()
	timer := scope.SubScope("events").Tagged(map[string]string{"stage": "dedup"}).Timer("stage_seconds")
	timer.Record(3 * time.Millisecond)
	timer.Record(2 * time.Minute)

	metric := gather(t, registry)["capture_events_stage_seconds"].GetMetric()[0]
	require.Equal(t, "dedup", metric.GetLabel()[0].GetValue())
	histogram := metric.GetHistogram()
	require.EqualValues(t, 2, histogram.GetSampleCount())
	require.InDelta(t, 120.003, histogram.GetSampleSum(), 1e-9)
	within := map[float64]uint64{}
	for _, bucket := range histogram.GetBucket() {
		within[bucket.GetUpperBound()] = bucket.GetCumulativeCount()
	}
	require.EqualValues(t, 0, within[0.0025])
	require.EqualValues(t, 1, within[0.005])
	require.EqualValues(t, 1, within[30])
}

func TestNamesAreSanitizedAndLabelValuesAreNot(t *testing.T) {
	registry := NewRegistry()
	scope, closer := NewScope(registry, nil, zap.NewNop())
	scope.Tagged(map[string]string{"topic.name": "events.dlq-2"}).Counter("a-b.c").Inc(1)
	require.NoError(t, closer.Close())
	label := gather(t, registry)["capture_a_b_c"].GetMetric()[0].GetLabel()[0]
	require.Equal(t, "topic_name", label.GetName())
	require.Equal(t, "events.dlq-2", label.GetValue())
}

func TestAMetricThatCannotBeRegisteredIsLoggedAndStaysUsable(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	registry := NewRegistry()
	scope, closer := NewScope(registry, nil, zap.New(core))
	scope.Counter("n").Inc(1)
	scope.Tagged(map[string]string{"lane": "main"}).Counter("n").Inc(1)
	require.NoError(t, closer.Close())
	require.Len(t, logs.All(), 1)
	require.Contains(t, logs.All()[0].ContextMap()["error"], "capture_n")
	require.Len(t, gather(t, registry)["capture_n"].GetMetric(), 1)
}

func TestCollectorsArePartOfAScrapeAndTwoOfOneNameAreRefused(t *testing.T) {
	gauge := func(name string) prometheus.Collector {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: name})
	}
	gatherer, err := NewGatherer(NewRegistry(), zap.NewNop(), gauge("one"), gauge("two"))
	require.NoError(t, err)
	families := gather(t, gatherer)
	require.Contains(t, families, "one")
	require.Contains(t, families, "two")
	require.Contains(t, families, "go_goroutines")

	_, err = NewGatherer(NewRegistry(), zap.NewNop(), gauge("one"), gauge("one"))
	require.ErrorContains(t, err, "register a collector of metrics")
}

// panickyCollector panics when it describes its metrics, or when it collects them.
type panickyCollector struct {
	prometheus.Collector
	describes bool
}

func (c panickyCollector) Describe(descs chan<- *prometheus.Desc) {
	c.Collector.Describe(descs)
	if c.describes {
		panic("no paper")
	}
}

func (c panickyCollector) Collect(metrics chan<- prometheus.Metric) {
	c.Collector.Collect(metrics)
	panic("no paper")
}

func TestACollectorThatPanicsCostsItsOwnMetricsAtMost(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	gauge := func(name string) prometheus.Collector {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: name})
	}
	gatherer, err := NewGatherer(NewRegistry(), zap.New(core),
		panickyCollector{gauge("one"), false}, panickyCollector{gauge("two"), true}, gauge("three"))
	require.NoError(t, err)
	before := panics.Count()
	families := gather(t, gatherer)
	require.Contains(t, families, "one", "what it had collected by then")
	require.Contains(t, families, "three")
	require.GreaterOrEqual(t, panics.Count(), before+2)
	require.Equal(t, 3, logs.FilterMessage("a collector of metrics panicked").Len())
}
