package kafka

import gometrics "github.com/rcrowley/go-metrics"

// noMetrics is sarama's registry of metrics. It keeps nothing and its metrics count nothing: sarama would update some
// twenty metrics for each request, and nobody reads them.
type noMetrics struct{}

var _ gometrics.Registry = noMetrics{}

// GetOrRegister returns a metric of the wanted kind that does nothing. For a kind that it does not know it returns
// wanted, unregistered.
func (noMetrics) GetOrRegister(_ string, wanted any) any {
	switch wanted.(type) {
	case gometrics.Meter, func() gometrics.Meter:
		return gometrics.NilMeter{}
	case gometrics.Histogram, func() gometrics.Histogram:
		return gometrics.NilHistogram{}
	case gometrics.Counter, func() gometrics.Counter:
		return gometrics.NilCounter{}
	case gometrics.Gauge, func() gometrics.Gauge:
		return gometrics.NilGauge{}
	case gometrics.GaugeFloat64, func() gometrics.GaugeFloat64:
		return gometrics.NilGaugeFloat64{}
	case gometrics.Timer, func() gometrics.Timer:
		return gometrics.NilTimer{}
	default:
		return wanted
	}
}

// Register keeps nothing.
func (noMetrics) Register(string, any) error { return nil }

// Get finds nothing.
func (noMetrics) Get(string) any { return nil }

// GetAll returns nothing.
func (noMetrics) GetAll() map[string]map[string]any { return nil }

// Each calls nobody.
func (noMetrics) Each(func(string, any)) {}

// Unregister has nothing to remove.
func (noMetrics) Unregister(string) {}

// UnregisterAll has nothing to remove.
func (noMetrics) UnregisterAll() {}

// RunHealthchecks has none to run.
func (noMetrics) RunHealthchecks() {}
