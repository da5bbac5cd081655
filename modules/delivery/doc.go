// Package delivery decides what a 200 means. It is the sink that the pipeline writes to: it makes messages of a
// request's events and makes each safe in the way that the section's ack says for its lane:
//
//   - kafka: when all in-sync replicas have it. Without Kafka its event fails, and the client is asked to come again.
//   - spool: when it is on this machine's disk. It follows to Kafka from there.
//   - auto: like kafka, and when Kafka takes longer than spool_after, like spool.
//   - memory: at once. What Kafka does not take is lost, and counted.
//
// The contract:
//   - Events of one partition key come to Kafka in the order in which they were answered, whatever the mode, the lane
//     or a restart. A topic of which anything waits in the spool takes new events behind that, or answers 503.
//   - A message leaves the spool only when all in-sync replicas have it, or when it is a dead letter. Delivery is at
//     least once: a process that dies leaves behind at most what was in flight to be sent again.
//   - A message that Kafka refuses by itself becomes a dead letter: in the topic of dead letters or, if that refuses it
//     too, in a log of its own on the disk. A topic that is missing or forbidden is an outage of that topic: its events
//     wait, or fail.
//   - A disk that fails makes the spool unusable and loses nothing that was acknowledged: events go to Kafka directly
//     as long as nothing of their topic waits, and fail otherwise.
//   - A panic, of the producer's or of delivery's own, fails messages at most. A drain begins again with the first record
//     that is not delivered; what a request has taken of the buffer is given back.
//   - Memory is bounded by the section's buffer. A request for which there is no room waits, and fails after timeout.
//
// The parts, each in the file of its name:
//
//   - delivery: the life of the whole, and what there is of each topic.
//   - policy: Write, from the batch to its outcomes: which way a message goes, and what that means to the client.
//   - request: the messages of one Write, and the state of each while the producer has it.
//   - append: the way into the spool.
//   - spooling: the spool, or what is known of one that cannot be opened.
//   - spooler and drain: one for each topic: its log, and the way from there to Kafka.
//   - deadletter: what Kafka refuses.
//   - breaker, ratelimit: who leaves Kafka alone, and for how long.
//   - readiness: whether requests are answered 200, by what happens to them.
//   - encode (a package): from events to messages. spool (a package): the durable log.
package delivery
