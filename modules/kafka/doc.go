// Package kafka writes messages to Kafka and reads them back. Producer is the produce.Producer of a build. Reader reads
// whole topics for commands. The command "tail" prints events as they arrive.
//
// The contract of Producer:
//   - Each message has exactly one report. Nil means that all in-sync replicas have the message. A message that is not
//     acknowledged within ack_timeout has failed, although Kafka may have it: delivery is at least once.
//   - The messages of a partition keep their order, also over failures: see produce.Producer. The producer is
//     idempotent: a batch that the producer itself sends again is stored once and in its place.
//   - Kafka's refusal of a batch fails only the faulty messages in it. The rules (codes.go) and docs/delivery.md say
//     what each of Kafka's error codes means.
//   - The producer copies no message. It holds the messages that it was given, and memory for one request to each
//     broker.
//   - The producer lives through the absence of a broker, at the start or later. It tries to connect until the
//     connection stands.
//   - A panic ends only the work that panicked: a report, a request, or the questions to the cluster. If a panic leaves
//     the state of the core in doubt, the core fails all messages that are not in flight, and begins anew.
//
// The parts, each in the file of its name:
//
//   - producer: the life of the whole: it connects, looks after the connection, and stops.
//   - core: from Produce to the report. The core gathers messages by partition. partition is the state of one
//     partition, link is the connection to one broker, resolve asks the cluster for leaders and for a producer id, and
//     codes says what an answer means.
//   - batch (a package): from messages to the record batches of a request.
//   - greet: says why a broker cannot be used, before sarama's client tries.
//   - topics: creates missing topics, and warns of topics whose limit of message size is too low.
//   - client, credentials: sarama's configuration: TLS, logins, and the files that are read again when they change.
//   - registry: keeps sarama from counting metrics that nobody reads.
package kafka
