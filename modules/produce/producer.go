package produce

import "context"

// Producer writes messages to Kafka. It is safe for concurrent use, but for Start and Stop, which are called once each.
type Producer interface {
	// Produce takes the messages over and returns at once. It calls report exactly once for each of them, with the
	// message's index, from any goroutine, also before Produce has returned. report must not block and must not wait
	// for a disk or a network, since other messages wait for it. Until the report on a message the caller leaves the
	// message and everything that it refers to as they are; from then on the producer does not look at it.
	//
	// The messages of a partition arrive in the order in which they were produced. A message that fails, or is refused,
	// is reported before anything behind it is sent. If it is to be sent again, then all messages behind it that the
	// producer holds for its partition fail as well, in their order, so that none of them arrives before it. Messages
	// that are produced from within such a report are behind it, too: whoever sends again does so later.
	Produce(messages []Message, report func(i int, err error))

	// Flush returns when every message has its report, or with the context's cause when that is over.
	Flush(ctx context.Context) error

	// Ready returns nil if Kafka answers, as far as is known, or what is wrong. It asks nobody.
	Ready() error

	// Start connects and Stop disconnects. The module's own hooks call them; a command, for which no
	// hook runs, calls them itself.
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// Reader reads what lies in Kafka. It is safe for concurrent use.
type Reader interface {
	// ReadTopic calls each for the messages of a topic, partition by partition, from the oldest to what is the newest
	// at the time of the call; the offset is a message's number in its partition. A topic that does not exist holds
	// nothing. An error of each ends ReadTopic and is returned. What each is given is valid until it returns.
	ReadTopic(ctx context.Context, topic string, each func(partition int32, offset int64, m *Message) error) error
}
