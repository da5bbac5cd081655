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

// The values of Config.AILane.
const (
	// AIAllowlist takes the six AI events that PostHog's pipeline knows by name.
	AIAllowlist = "allowlist"
	// AIPrefix takes every event whose name begins with $ai_.
	AIPrefix = "prefix"
)

// Config is the configuration section transport.posthog.
type Config struct {
	MaxEvents    int              `key:"max_events" live:"true" doc:"Most events in one request, and most snapshots of a recording. A request with more is answered 413, and SDKs then send smaller batches. Beside its text, an event takes about half a kilobyte, which counts against transport.max_in_flight."`
	MaxRecording configs.ByteSize `key:"max_recording" live:"true" doc:"Largest body of a session recording on the wire, still compressed; a larger one is answered 413."`
	MaxAIEvent   configs.ByteSize `key:"max_ai_event" live:"true" doc:"Largest properties of an AI event, on any path; a larger event is rejected alone. kafka.max_message_bytes holds as well. 0: no other limit."`
	AILane       string           `key:"ai_lane" live:"true" doc:"Which events go to the topic of AI events: allowlist ($ai_generation, $ai_trace, $ai_span, $ai_embedding, $ai_metric, $ai_feedback) or prefix (every $ai_ event)."`
	BatchPolicy  string           `key:"batch_policy" live:"true" doc:"What happens to a batch with a bad event: partial (only the bad event is rejected) or all_or_nothing (the whole batch is rejected, as by PostHog's service)."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxEvents: 100_000, MaxRecording: 25 * configs.MiB, MaxAIEvent: 8 * configs.MiB,
		AILane: AIAllowlist, BatchPolicy: PolicyPartial,
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.MaxEvents > 0, "max_events", "must be positive, got %d", c.MaxEvents)
	faults.Check(c.MaxRecording > 0 && c.MaxRecording <= configs.GiB, "max_recording",
		"must be from 1 to 1GiB, got %s", c.MaxRecording)
	faults.Check(c.MaxAIEvent >= 0, "max_ai_event", "must not be negative, got %s", c.MaxAIEvent)
	faults.Check(c.AILane == AIAllowlist || c.AILane == AIPrefix, "ai_lane",
		"must be %s or %s, got %q", AIAllowlist, AIPrefix, c.AILane)
	faults.Check(c.BatchPolicy == PolicyPartial || c.BatchPolicy == PolicyAllOrNothing, "batch_policy",
		"must be %s or %s, got %q", PolicyPartial, PolicyAllOrNothing, c.BatchPolicy)
	return faults.Err()
}
