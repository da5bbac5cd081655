package otlp

import (
	"time"

	"github.com/opencapture/capture/configs"
)

// Config is the section "otlp".
type Config struct {
	MaxBody    configs.ByteSize `key:"max_body" live:"true" doc:"Largest body on the AI paths, on the wire; a larger one is answered 413. For logs that are sent to /i/v1/logs the limit is transport.max_body."`
	MaxSpans   int              `key:"max_spans" live:"true" doc:"Most spans in one request, of whatever kind; a request with more is answered 400."`
	MaxAISpans int              `key:"max_ai_spans" live:"true" doc:"Most spans in one request that are about AI and become events; a request with more is answered 400."`
	MaxRecords int              `key:"max_records" live:"true" doc:"Most log records in one request; a request with more is answered 413."`

	MaxAttribute configs.ByteSize `key:"max_attribute" live:"true" doc:"Longest text in an attribute of a resource, and longest name or version of a scope, because all their events repeat it. A longer text is cut, and the answer says so. The event's own attributes are limited by the size of the event."`
	MaxResource  configs.ByteSize `key:"max_resource" live:"true" doc:"Most bytes of attributes that a resource adds to each of its events. The attributes behind these are left out, and the answer says so."`
	MaxOutput    configs.ByteSize `key:"max_output" live:"true" doc:"Most bytes that the events of one request may come to, with what they repeat of their resource. They may also come to no more than 1 MiB and 128 times the request, decompressed. A request over either limit is answered 413."`
	MaxTime      time.Duration    `key:"max_time" live:"true" doc:"Longest time for making events of a request. A request that takes longer is answered 503."`
}

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{
		MaxBody: 4 * configs.MiB, MaxSpans: 1000, MaxAISpans: 100, MaxRecords: 10_000,
		MaxAttribute: 16 * configs.KiB, MaxResource: 64 * configs.KiB, MaxOutput: 100 * configs.MiB,
		MaxTime: 10 * time.Second,
	}
}

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.MaxBody > 0 && c.MaxBody <= configs.GiB, "max_body", "must be from 1 to 1GiB, got %s", c.MaxBody)
	faults.Check(c.MaxSpans > 0, "max_spans", "must be positive, got %d", c.MaxSpans)
	faults.Check(c.MaxAISpans > 0 && c.MaxAISpans <= c.MaxSpans, "max_ai_spans",
		"must be from 1 to max_spans (%d), got %d", c.MaxSpans, c.MaxAISpans)
	faults.Check(c.MaxRecords > 0, "max_records", "must be positive, got %d", c.MaxRecords)
	faults.Check(c.MaxAttribute > 0 && c.MaxAttribute <= c.MaxResource, "max_attribute",
		"must be from 1 to max_resource (%s), got %s", c.MaxResource, c.MaxAttribute)
	faults.Check(c.MaxResource > 0 && c.MaxResource <= c.MaxOutput, "max_resource",
		"must be from 1 to max_output (%s), got %s", c.MaxOutput, c.MaxResource)
	faults.Check(c.MaxOutput > 0 && c.MaxOutput <= configs.GiB, "max_output", "must be from 1 to 1GiB, got %s",
		c.MaxOutput)
	faults.Check(c.MaxTime > 0, "max_time", "must be positive, got %s", c.MaxTime)
	return faults.Err()
}
