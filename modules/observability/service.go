package observability

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
)

// NewServiceCollectors returns the metrics of the service as a whole: its build, the number of panics that were caught,
// and the configuration in force.
func NewServiceCollectors(build module.Build, live *configs.Live) []prometheus.Collector {
	var succeeded atomic.Pointer[time.Time]
	live.Report(func(status configs.Status) {
		if status.Error == "" {
			succeeded.Store(&status.Loaded)
		}
	})
	first := live.Status().Since
	succeeded.CompareAndSwap(nil, &first)
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metricPrefix + "_" + name, Help: help}, value)
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metricPrefix + "_build_info",
			Help: "Which build this is, by its labels; always 1.",
			ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision(),
				"goversion": build.GoVersion},
		}, func() float64 { return 1 }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: metricPrefix + "_panics_total",
			Help: "Panics in parts of the service that were caught: each is logged with its stack.",
		}, func() float64 { return float64(panics.Count()) }),
		gauge("config_number", "Which configuration of the process is in force: 1 is the first.",
			func() float64 { return float64(live.Status().Number) }),
		gauge("config_last_reload_successful",
			"Whether the configuration that was loaded last is in force (1) or was refused (0).",
			func() float64 {
				if live.Status().Error != "" {
					return 0
				}
				return 1
			}),
		gauge("config_last_reload_success_timestamp_seconds",
			"When a configuration was loaded last that was not refused, in Unix seconds.",
			func() float64 { return float64(succeeded.Load().UnixMilli()) / 1000 }),
	}
}
