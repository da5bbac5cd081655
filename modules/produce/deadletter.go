package produce

import "slices"

// These are the headers that a dead letter has beside those of its message: why the message became a dead letter, which
// step of the service says so, when it became one, and the topic that the message was meant for. HeaderDLQRule is there
// if a rule of the operator's set the event aside, and says which one.
const (
	HeaderDLQReason = "dlq_reason"
	HeaderDLQStep   = "dlq_step"
	HeaderDLQTime   = "dlq_timestamp"
	HeaderDLQTopic  = "dlq_topic"
	HeaderDLQRule   = "dlq_rule"

	// DLQTimeFormat is the format of HeaderDLQTime: RFC 3339 with milliseconds.
	DLQTimeFormat = "2006-01-02T15:04:05.000Z07:00"
)

// WithoutDLQHeaders returns a copy of the headers without those of a dead letter. A message that was a dead letter
// before has such headers.
func WithoutDLQHeaders(headers []Header) []Header {
	return slices.DeleteFunc(slices.Clone(headers), func(h Header) bool {
		switch string(h.Key) {
		case HeaderDLQReason, HeaderDLQStep, HeaderDLQTime, HeaderDLQTopic, HeaderDLQRule:
			return true
		default:
			return false
		}
	})
}
