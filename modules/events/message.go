package events

import (
	"context"
	"time"
)

// Message is an event, or a part of one, as it is written to Kafka.
type Message struct {
	Topic string
	// Key decides which partition the message belongs to, in which messages keep their order; nil is any.
	Key     []byte
	Value   []byte
	Headers []Header
	// Time is the message's own time; zero is when it is written.
	Time time.Time
}

// Header is one header of a Message.
type Header struct{ Key, Value []byte }

// Carrier is a base sink that lets a layer deal with the messages that events become: keep a copy of those that are late, and
// send what it has kept. It is safe for concurrent use.
type Carrier interface {
	Sink

	// Pack builds the messages of the batch's pending events and rejects those that can never be one. It needs no connection. An
	// error, of code Unavailable, means that there was no room in memory until ctx was over.
	Pack(ctx context.Context, batch *Batch) (Parcel, error)

	// Load makes a parcel of messages from elsewhere, whose bytes must stay as they are until all have their verdict, and if that is
	// against one of them, for ever. None of them is sent behind one that has failed, in whatever way.
	Load(messages []Message) Parcel

	// DeadLetterTopic is the topic of messages that cannot be where they belong.
	DeadLetterTopic() string

	// Ready returns nil if messages are taken, as far as is known, or what is wrong. It asks nobody.
	Ready(ctx context.Context) error

	// Flush returns when every message that was sent has its verdict, or with the context's error when that is over.
	Flush(ctx context.Context) error

	// Start connects and Stop disconnects. The carrier's own hooks call them; a command, for which no hook runs, does so itself.
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// Parcel is messages that travel together and in order. It belongs to one goroutine, until that has called Leave.
type Parcel interface {
	Len() int

	// Event returns the index of the event that message i is of, or of a part of. Those of one event follow one another.
	Event(i int) int

	// Read fills into with message i. What it holds is valid until Leave.
	Read(i int, into *Message)

	// Send hands the messages over in their order. Those that are not taken before ctx is over have failed; so have those behind
	// one that failed in a way that could be different the next time, if they had not been sent yet: it will be sent again, and
	// they must not be there before it. Send is called once at most.
	Send(ctx context.Context)

	// Done is closed when every message has its verdict.
	Done() <-chan struct{}

	// Verdict tells whether message i has its verdict, and what it is: nil means that all in-sync replicas have the message, a
	// *RefusedError that the same message will never be taken, and anything else that sending it again is right, although it may be
	// there already.
	Verdict(i int) (settled bool, err error)

	// Settle ends the batch's pending events by the verdicts of their messages. Messages without one have failed with the context's
	// cause.
	Settle(ctx context.Context, batch *Batch)

	// Leave ends the caller's use of the parcel. Unless late is nil it is called, from any goroutine, for every message whose
	// verdict the caller has not been told, when that comes.
	Leave(late func(i int, err error))
}

// TopicReader reads what lies in Kafka. It is safe for concurrent use.
type TopicReader interface {
	// ReadTopic calls each for the messages of a topic, partition by partition, from the oldest to what is the newest at the time of
	// the call; the offset is a message's number in its partition. An error of each ends it and is returned. What each is given is
	// valid until it returns.
	ReadTopic(ctx context.Context, topic string, each func(partition int32, offset int64, m *Message) error) error
}

// RefusedError is the verdict against a message that is at fault itself, or may not be written where it belongs.
type RefusedError struct {
	// Reason is a word for metrics: "too_large", "invalid", "unauthorized" or "timestamp", which is about the message's Time.
	Reason string
	err    error
}

// Refused makes a RefusedError.
func Refused(reason string, err error) *RefusedError { return &RefusedError{Reason: reason, err: err} }

func (r *RefusedError) Error() string { return r.err.Error() }

// Unwrap returns what the refusal was made of.
func (r *RefusedError) Unwrap() error { return r.err }

// Ack says what made a batch's accepted events safe.
type Ack uint8

// The acks, the strongest first. The zero value is that of a sink that says nothing.
const (
	AckUnsaid Ack = iota
	// AckKafka: all in-sync replicas have them.
	AckKafka
	// AckSpool: they are on this machine's disk, and Kafka follows.
	AckSpool
	// AckMemory: nothing did.
	AckMemory
)

var ackNames = [...]string{"", "kafka", "spool", "memory"}

func (a Ack) String() string { return ackNames[a] }
