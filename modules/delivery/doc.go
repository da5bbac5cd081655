// Package delivery decides what a 200 means. It is the sink that the pipeline writes to. It turns a request's events
// into messages, and makes each message safe in the way that the section's ack names for the event's lane:
//
//   - kafka: a message is safe when all in-sync replicas have it. Without Kafka the event fails, and the client is
//     asked to send it again later.
//   - spool: a message is safe when it is on this machine's disk. Delivery sends it to Kafka from there.
//   - auto: as kafka. A message that Kafka has not acknowledged after spool_after goes to the spool.
//   - memory: a message counts as safe at once. A message that Kafka does not take is lost, and counted.
//
// The contract:
//   - Events of one partition key come to Kafka in the order in which they were answered, whatever the mode, the lane
//     or a restart. While the spool holds records of a topic, new events of that topic go behind these records, or are
//     answered 503.
//   - A message leaves the spool only when all in-sync replicas have it, or when it is a dead letter. Delivery is at
//     least once: when a process dies, the next one sends again at most the messages that were in flight.
//   - A message that Kafka refuses for a fault of the message becomes a dead letter. The dead letter goes to the topic
//     of dead letters or, if that topic refuses it too, to a log of its own on the disk. A topic that is missing or
//     forbidden is an outage of that topic: its events wait, or fail.
//   - A disk that fails makes the spool unusable, and delivery keeps everything that was acknowledged. Events then go
//     to Kafka directly if no records of their topic wait in the spool; otherwise they fail.
//   - A panic, of the producer or of delivery itself, fails messages at most. A drain begins again with the first
//     record that is not delivered. A request gives back the bytes that it has taken of the buffer.
//   - The section's buffer bounds the memory. A request that finds no room waits, and fails after timeout.
//
// The parts, each in the file of its name:
//
//   - delivery: the life of the whole, and the state of each topic.
//   - policy: Write, from the batch to its outcomes: which way a message goes, and what that means to the client.
//   - request: the messages of one Write, and the state of each while the producer has it.
//   - append: the way into the spool.
//   - spooling: the spool, or what is known of a spool that cannot be opened.
//   - spooler and drain: one of each for a topic: its log, and the way from the log to Kafka.
//   - deadletter: the messages that Kafka refuses.
//   - breaker, ratelimit: when requests and drains leave Kafka alone, and for how long.
//   - readiness: whether requests are answered 200, judged by how requests end.
//   - encode (a package): from events to messages.
//   - spool (a package): the durable log.
package delivery
