package events

// Ack says what makes the accepted events of a batch safe.
type Ack uint8

// The acks, the strongest first. The zero value is for a sink that gives no ack.
const (
	AckUnsaid Ack = iota
	// AckKafka means that all in-sync replicas of the cluster have the events.
	AckKafka
	// AckSpool means that the events are on this machine's disk. The cluster gets them from there.
	AckSpool
	// AckMemory means that nothing makes the events safe.
	AckMemory
)

var ackNames = [...]string{"", "kafka", "spool", "memory"}

// String returns the word for the ack that clients are told.
func (a Ack) String() string {
	if int(a) < len(ackNames) {
		return ackNames[a]
	}
	return ""
}
