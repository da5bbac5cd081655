package observability

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/uber-go/tally/v4"
	tallyprom "github.com/uber-go/tally/v4/prometheus"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
)

const (
	metricPrefix = "capture"

	// reportInterval is how old the value of a scope's counter, gauge or histogram may be in a scrape. A timer reports
	// each record at once.
	reportInterval = time.Second
)

// NewRegistry returns a registry with the collectors of the Go runtime and of the process.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// NewScope returns the root scope of the service's metrics. The registry shows them with the prefix "capture", at most
// a second after they were counted. Closing the closer moves all counts to the registry and ends the scope's goroutine.
//
// For durations use a Timer: it is a Prometheus histogram in seconds with buckets from 100 us to 30 s, and it reports
// each record at once and exactly. (A tally Histogram reports each value as its bucket's upper bound, so that its sum
// is too high, and infinite beyond the last bucket.)
//
// The help of a metric is its sentence in described, which is there by the metric's name without the prefix.
//
// If the registry refuses a metric, such as a name that is used with two sets of tags, the scope logs an error. The
// metric is not shown, and works otherwise.
func NewScope(
	registry prometheus.Registerer, described module.Metrics, log *zap.Logger,
) (tally.Scope, io.Closer) {
	buckets := latencyBuckets()
	seconds := buckets.AsValues()
	reporter := helpful{described: described, Reporter: tallyprom.NewReporter(tallyprom.Options{
		Registerer:              registry,
		DefaultTimerType:        tallyprom.HistogramTimerType,
		DefaultHistogramBuckets: seconds,
		OnRegisterError: func(err error) {
			panics.Do(log, "the log of a metric's fault", func() {
				log.Error("a metric could not be registered and will be missing", zap.Error(err))
			})
		},
	})}
	sanitize := tallyprom.DefaultSanitizerOpts
	// The value of a label may be any text. The default would turn both "events.dlq" and "events_dlq" into one value.
	sanitize.ValueCharacters = tally.ValidCharacters{Ranges: []tally.SanitizeRange{{' ', utf8.MaxRune}}}
	return tally.NewRootScope(tally.ScopeOptions{
		Prefix:                 metricPrefix,
		Separator:              tallyprom.DefaultSeparator,
		CachedReporter:         reporter,
		DefaultBuckets:         buckets,
		SanitizeOptions:        &sanitize,
		OmitCardinalityMetrics: true,
	}, reportInterval)
}

// helpful registers each metric with its help. Without it, tally would make up a help of the metric's name.
type helpful struct {
	tallyprom.Reporter
	described module.Metrics
}

// notDescribed is the help of a metric that its module does not describe.
const notDescribed = "The module that makes this metric does not describe it (see module.Module.Metrics)."

func (h helpful) help(name string) string {
	return cmp.Or(h.described[strings.TrimPrefix(name, metricPrefix+tallyprom.DefaultSeparator)], notDescribed)
}

// The reporter keeps a metric that is registered before it is allocated. Where registering fails, allocating fails as
// well, and the reporter tells so.

// AllocateCounter implements tally.CachedStatsReporter.
func (h helpful) AllocateCounter(name string, tags map[string]string) tally.CachedCount {
	_, _ = h.RegisterCounter(name, slices.Sorted(maps.Keys(tags)), h.help(name))
	return h.Reporter.AllocateCounter(name, tags)
}

// AllocateGauge implements tally.CachedStatsReporter.
func (h helpful) AllocateGauge(name string, tags map[string]string) tally.CachedGauge {
	_, _ = h.RegisterGauge(name, slices.Sorted(maps.Keys(tags)), h.help(name))
	return h.Reporter.AllocateGauge(name, tags)
}

// AllocateTimer implements tally.CachedStatsReporter.
func (h helpful) AllocateTimer(name string, tags map[string]string) tally.CachedTimer {
	_, _ = h.RegisterTimer(name, slices.Sorted(maps.Keys(tags)), h.help(name), nil)
	return h.Reporter.AllocateTimer(name, tags)
}

// latencyBuckets returns buckets from the time that a stage takes in memory to the longest time that a request may wait
// for Kafka.
func latencyBuckets() tally.DurationBuckets {
	const us, ms, s = time.Microsecond, time.Millisecond, time.Second
	return tally.DurationBuckets{
		100 * us, 250 * us, 500 * us,
		1 * ms, 2500 * us, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms,
		1 * s, 2500 * ms, 5 * s, 10 * s, 30 * s,
	}
}

// NewGatherer adds collectors to the registry and returns the gatherer that a scrape reads. If the registry refuses a
// collector, that is an error. A panic of a collector is logged: the scrape then has what that collector had collected
// by then, and everything of the other collectors.
//
// NewGatherer is apart from NewRegistry because a collector may belong to a part that counts in a scope, and the scope
// needs the registry first.
func NewGatherer(
	registry *prometheus.Registry, log *zap.Logger, collectors ...prometheus.Collector,
) (prometheus.Gatherer, error) {
	var faults []error
	for _, collector := range collectors {
		if err := registry.Register(contained{collector, log}); err != nil {
			faults = append(faults, fmt.Errorf("register a collector of metrics: %w", err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return registry, nil
}

// contained is a collector whose panic ends only its own part of a scrape. It is contained here because the registry
// calls collectors in goroutines of its own.
type contained struct {
	prometheus.Collector
	log *zap.Logger
}

// Describe implements prometheus.Collector.
func (c contained) Describe(descs chan<- *prometheus.Desc) {
	panics.Do(c.log, "a collector of metrics", func() { c.Collector.Describe(descs) })
}

// Collect implements prometheus.Collector.
func (c contained) Collect(metrics chan<- prometheus.Metric) {
	panics.Do(c.log, "a collector of metrics", func() { c.Collector.Collect(metrics) })
}
