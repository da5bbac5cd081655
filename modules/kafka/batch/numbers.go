package batch

// Producer says to Kafka which sequence numbers belong together.
type Producer struct {
	ID    int64
	Epoch int16
}

// NoProducer is what there is before Kafka has given an ID.
var NoProducer = Producer{ID: -1}

// Behind returns the sequence number behind n records, of which the first has the given one. The number that follows the
// largest is 0, as Kafka has it.
func Behind(sequence int32, n int) int32 { return int32((int64(sequence) + int64(n)) & 0x7fffffff) }
