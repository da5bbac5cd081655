package ai

import "github.com/opencapture/capture/configs"

// Config is the section "ai".
type Config struct {
	MaxSumOfParts configs.ByteSize `key:"max_sum_of_parts" live:"true" doc:"Largest sum of the parts of one request; a larger one is answered 413. The body on the wire may be a tenth larger. transport.posthog.max_ai_event limits the event."`
}

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{MaxSumOfParts: 25 * configs.MiB}
}

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.MaxSumOfParts > 0 && c.MaxSumOfParts <= configs.GiB, "max_sum_of_parts",
		"must be from 1 to 1GiB, got %s", c.MaxSumOfParts)
	return faults.Err()
}

// maxBody returns the largest body on the wire: the parts, and a tenth more for what multipart puts around them.
func (c Config) maxBody() int64 { return int64(c.MaxSumOfParts) + int64(c.MaxSumOfParts)/10 }
