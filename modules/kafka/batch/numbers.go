package batch

// Producer is the producer id and epoch under which Kafka counts sequence numbers.
type Producer struct {
	ID    int64
	Epoch int16
}

// NoProducer stands for the time before Kafka has given a producer id.
var NoProducer = Producer{ID: -1}

// Behind returns the sequence number that follows n records of which the first has the given number. As in Kafka, the
// number after the largest is 0.
func Behind(sequence int32, n int) int32 { return int32((int64(sequence) + int64(n)) & 0x7fffffff) }
