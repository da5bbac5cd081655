package produce

import "context"

// Producer writes messages to Kafka. It is safe for concurrent use, except for Start and Stop, which are called once
// each.
type Producer interface {
	// Produce takes the messages over and returns at once. It calls report exactly once for each message, with the
	// message's index, from any goroutine, possibly before Produce has returned. report must neither block nor wait for
	// a disk or a network, because other messages wait for it. Until the report on a message the caller changes neither
	// the message nor anything that it refers to. After the report the producer does not look at the message any more.
	//
	// The messages of a partition arrive in the order in which they were produced. The producer reports a failed or
	// refused message before it sends any message behind it. If the report asks for the message again, then the
	// producer fails all messages behind it that it holds for the partition, in their order, so that none of them
	// arrives before it. A message that is produced from within such a report is also behind the failed one. So an
	// owner sends a failed message again only later.
	Produce(messages []Message, report func(i int, err error))

	// Flush returns when every message has its report, or with the context's cause when the context is over.
	Flush(ctx context.Context) error

	// Ready returns nil if Kafka answers, as far as the producer knows, or else what is wrong. It asks nobody.
	Ready() error

	// Start connects and Stop disconnects. The module's own hooks call them. A command, for which no hook runs, calls
	// them itself.
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// Reader reads the messages that lie in Kafka. It is safe for concurrent use.
type Reader interface {
	// ReadTopic calls each for the messages of a topic, partition by partition, from the oldest message to the one that
	// is the newest at the time of the call. The offset is a message's number in its partition. A topic that does not
	// exist holds nothing. An error of each ends ReadTopic, which returns it. The message m is valid until each
	// returns.
	ReadTopic(ctx context.Context, topic string, each func(partition int32, offset int64, m *Message) error) error
}
