package posthog

import (
	"github.com/opencapture/capture/configs"
)

// The values of Config.BatchPolicy.
const (
	// PolicyPartial keeps the sound events of a batch and rejects the bad ones alone.
	PolicyPartial = "partial"
	// PolicyAllOrNothing rejects a whole batch for one bad event, as PostHog's own service does.
	PolicyAllOrNothing = "all_or_nothing"
)

// Config is the configuration section transport.posthog.
type Config struct {
	MaxEvents   int    `key:"max_events" doc:"Most events in one request; then 413, upon which SDKs send smaller batches. An event takes about half a kilobyte beside its text, which counts against transport.max_in_flight."`
	BatchPolicy string `key:"batch_policy" doc:"What one bad event does to its batch: partial (it is rejected alone) or all_or_nothing (the whole batch is, as upstream)."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{MaxEvents: 100_000, BatchPolicy: PolicyPartial} }

// Validate reports every fault.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.MaxEvents > 0, "max_events", "must be positive, got %d", c.MaxEvents)
	faults.Check(c.BatchPolicy == PolicyPartial || c.BatchPolicy == PolicyAllOrNothing, "batch_policy",
		"must be %s or %s, got %q", PolicyPartial, PolicyAllOrNothing, c.BatchPolicy)
	return faults.Err()
}
