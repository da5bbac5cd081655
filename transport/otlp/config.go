package otlp

import "github.com/opencapture/capture/configs"

// Config is the section "otlp".
type Config struct {
	MaxBody    configs.ByteSize `key:"max_body" live:"true" doc:"Largest body on the AI paths, on the wire; a larger one is answered 413. For logs that are sent to /i/v1/logs the limit is transport.max_body."`
	MaxSpans   int              `key:"max_spans" live:"true" doc:"Most spans in one request, of whatever kind; a request with more is answered 400."`
	MaxAISpans int              `key:"max_ai_spans" live:"true" doc:"Most spans in one request that are about AI and become events; a request with more is answered 400."`
	MaxRecords int              `key:"max_records" live:"true" doc:"Most log records in one request; a request with more is answered 413."`
}

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{MaxBody: 4 * configs.MiB, MaxSpans: 1000, MaxAISpans: 100, MaxRecords: 10_000}
}

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.MaxBody > 0 && c.MaxBody <= configs.GiB, "max_body", "must be from 1 to 1GiB, got %s", c.MaxBody)
	faults.Check(c.MaxSpans > 0, "max_spans", "must be positive, got %d", c.MaxSpans)
	faults.Check(c.MaxAISpans > 0 && c.MaxAISpans <= c.MaxSpans, "max_ai_spans",
		"must be from 1 to max_spans (%d), got %d", c.MaxSpans, c.MaxAISpans)
	faults.Check(c.MaxRecords > 0, "max_records", "must be positive, got %d", c.MaxRecords)
	return faults.Err()
}
