package observability

import (
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/uber-go/tally/v4"
	tallyprom "github.com/uber-go/tally/v4/prometheus"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

const (
	metricPrefix = "capture"

	// reportInterval is how old a counter, gauge or histogram of a scope may be in a scrape. Timers report as they record.
	reportInterval = time.Second
)

// NewRegistry returns a registry that has the collectors of the Go runtime and of the process.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// NewScope returns the root scope of the service's metrics, which are shown in the registry with the prefix "capture". What
// was counted is in the registry at most a second later, and all of it once the closer is closed, which also ends the
// scope's goroutine.
//
// For durations use a Timer: it is a Prometheus histogram in seconds with buckets from 100 us to 30 s, and it reports at
// once and exactly. (A tally Histogram reports each value as its bucket's upper bound, so that its sum is too high, and
// beyond the last bucket infinite.)
//
// A metric that the registry refuses, such as a name used with two sets of tags, is logged as an error and not shown; it
// works otherwise.
func NewScope(registry prometheus.Registerer, log *zap.Logger) (tally.Scope, io.Closer) {
	buckets := latencyBuckets()
	seconds := buckets.AsValues()
	reporter := tallyprom.NewReporter(tallyprom.Options{
		Registerer:              registry,
		DefaultTimerType:        tallyprom.HistogramTimerType,
		DefaultHistogramBuckets: seconds,
		OnRegisterError: func(err error) {
			panics.Do(log, "the log of a metric's fault", func() {
				log.Error("a metric could not be registered and will be missing", zap.Error(err))
			})
		},
	})
	sanitize := tallyprom.DefaultSanitizerOpts
	// A label's value may be any text; the default would make one of "events.dlq" and "events_dlq".
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

// latencyBuckets reach from what a stage takes in memory to the longest that a request may wait for Kafka.
func latencyBuckets() tally.DurationBuckets {
	const us, ms, s = time.Microsecond, time.Millisecond, time.Second
	return tally.DurationBuckets{
		100 * us, 250 * us, 500 * us,
		1 * ms, 2500 * us, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms,
		1 * s, 2500 * ms, 5 * s, 10 * s, 30 * s,
	}
}

// NewGatherer adds collectors to the registry and returns what a scrape reads. A collector that the registry refuses is an
// error. What a collector panics with is logged; a scrape has what it had collected by then, and all of the others.
//
// It is apart from NewRegistry because a collector may belong to a part that counts in a scope, and the scope needs the
// registry first.
func NewGatherer(registry *prometheus.Registry, log *zap.Logger, collectors ...prometheus.Collector) (prometheus.Gatherer, error) {
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

// contained is a collector whose panics end its own part of a scrape alone. The registry calls it in goroutines of its own.
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
