package events

// Ack says what made a batch's accepted events safe.
type Ack uint8

// The acks, the strongest first. The zero value is that of a sink that says nothing.
const (
	AckUnsaid Ack = iota
	// AckKafka: all in-sync replicas of the cluster have them.
	AckKafka
	// AckSpool: they are on this machine's disk, and the cluster gets them from there.
	AckSpool
	// AckMemory: nothing did.
	AckMemory
)

var ackNames = [...]string{"", "kafka", "spool", "memory"}

// String returns the ack's word, which a client is told.
func (a Ack) String() string { return ackNames[a] }
