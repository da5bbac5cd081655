package produce

import "slices"

// The headers that a dead letter has beside its message's own: why it is one, which step of the service says so, since
// when, and the topic that the message was meant for.
const (
	HeaderDLQReason = "dlq_reason"
	HeaderDLQStep   = "dlq_step"
	HeaderDLQTime   = "dlq_timestamp"
	HeaderDLQTopic  = "dlq_topic"

	// DLQTimeFormat is the format of HeaderDLQTime: RFC 3339 with milliseconds.
	DLQTimeFormat = "2006-01-02T15:04:05.000Z07:00"
)

// WithoutDLQHeaders returns a copy of the headers without those of a dead letter, which a
// message has that was one before.
func WithoutDLQHeaders(headers []Header) []Header {
	return slices.DeleteFunc(slices.Clone(headers), func(h Header) bool {
		switch string(h.Key) {
		case HeaderDLQReason, HeaderDLQStep, HeaderDLQTime, HeaderDLQTopic:
			return true
		default:
			return false
		}
	})
}
