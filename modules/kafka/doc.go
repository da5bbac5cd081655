// Package kafka writes messages to Kafka and reads them back. Producer is the produce.Producer of a build; Reader reads whole
// topics for commands; the command "tail" prints what arrives.
//
// The contract of Producer:
//   - Each message has exactly one report. Nil means that all in-sync replicas have the message. A message that was not
//     acknowledged within ack_timeout has failed, although Kafka may have it: delivery is at least once.
//   - The messages of a partition keep their order, also over failures: see produce.Producer. The producer is idempotent: what
//     it sends again itself neither comes twice nor late.
//   - Only the messages are refused that are at fault themselves. What each of Kafka's error codes means stands in rules
//     (codes.go) and in docs/delivery.md.
//   - The producer copies no message. Its memory is that of what it was given, and of one request a broker.
//   - A broker that is away when the service starts, or goes away later, ends nothing. The connection is tried again until it
//     stands.
//   - A panic ends nothing but what panicked: a report, a request, the questions to the cluster. If the state of the core
//     cannot be trusted after it, then every message has failed, and the core begins anew.
//
// The parts, each in the file of its name:
//
//   - producer: the life of the whole: connecting, looking after the connection, stopping.
//   - core: from Produce to the report: messages gather by partition. partition is what one of them knows, link is the
//     connection to one broker, resolve asks the cluster for leaders and for a producer id, codes says what an answer means.
//   - batch (a package): from messages to the record batches of a request.
//   - topics: missing topics are made, and topics that take too little are named.
//   - client, credentials: sarama's configuration: TLS, logins, and the files that are read again when they change.
//   - registry: keeps sarama from counting what nobody reads.
package kafka
