package warnings

import (
	"time"

	"github.com/opencapture/capture/configs"
)

// Config is the section "warnings".
type Config struct {
	Enabled     bool          `key:"enabled" live:"true" doc:"Warn projects of their faulty events, by messages to kafka.topics.client_warnings."`
	Interval    time.Duration `key:"interval" live:"true" doc:"The least time between two warnings of one type to one project. The next warning says how many were held back in between."`
	Rules       bool          `key:"rules" live:"true" doc:"Warn projects also of events that a rule of the operator's drops (docs/restrictions.md). The warning names the rule. Off: a project does not learn of such a rule, as its clients do not."`
	StopTimeout time.Duration `key:"stop_timeout" doc:"How long a stop waits for the warnings that are not written yet."`
}

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{Enabled: true, Interval: time.Minute, StopTimeout: 2 * time.Second}
}

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.Interval > 0, "interval", "must be positive, got %s", c.Interval)
	faults.Check(c.StopTimeout > 0, "stop_timeout", "must be positive, got %s", c.StopTimeout)
	return faults.Err()
}

// StopBudget is the longest time that a stop takes.
func (c Config) StopBudget() time.Duration {
	if !c.Enabled {
		return 0
	}
	return c.StopTimeout
}
