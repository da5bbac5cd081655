package produce

import "time"

// Message becomes one record in Kafka.
type Message struct {
	Topic string
	// Key decides which partition the message belongs to. The messages of a partition keep their order. Nil: any
	// partition.
	Key     []byte
	Value   []byte
	Headers []Header
	// Time is the message's own time. Zero: the moment at which the message is sent.
	Time time.Time
}

// Header is one header of a Message.
type Header struct{ Key, Value []byte }

const (
	// recordOverhead is the most bytes that a record takes beside its key, value and headers: five lengths, an offset,
	// a time and its attributes, all but the last as varints.
	recordOverhead = 5*5 + 10 + 1
	// headerOverhead is the most bytes that the two lengths of a header take.
	headerOverhead = 2 * 5
)

// Size returns the most bytes that the message takes as a record, before compression. kafka.max_message_bytes limits
// it.
func (m *Message) Size() int {
	size := recordOverhead + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		size += headerOverhead + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return size
}
