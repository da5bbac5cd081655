package ai

import "github.com/opencapture/capture/configs"

// Config is the section "ai".
type Config struct {
	MaxSumOfParts configs.ByteSize `key:"max_sum_of_parts" doc:"Most that the parts of one request may hold together; then 413. The body on the wire may be a tenth larger."`
	MaxEvent      configs.ByteSize `key:"max_event" doc:"Largest AI event, its properties included; then 413. 0: no limit but that of the parts. Kafka's own (kafka.max_message_bytes) applies all the same."`
}

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{MaxSumOfParts: 25 * configs.MiB, MaxEvent: 8 * configs.MiB}
}

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.MaxSumOfParts > 0 && c.MaxSumOfParts <= configs.GiB, "max_sum_of_parts", "must be from 1 to 1GiB, got %s", c.MaxSumOfParts)
	faults.Check(c.MaxEvent >= 0, "max_event", "must not be negative, got %s", c.MaxEvent)
	return faults.Err()
}

// maxBody is the largest body on the wire: the parts and what multipart puts around them.
func (c Config) maxBody() int64 { return int64(c.MaxSumOfParts) + int64(c.MaxSumOfParts)/10 }
