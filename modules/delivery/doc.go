// Package delivery decides what a 200 means. Its layer stands between the pipeline and Kafka and makes the events of a request
// safe in the way that the section's ack says, for each lane:
//
//   - kafka: when all in-sync replicas have them. Without Kafka they fail, and the client is asked to come again.
//   - spool: when they are on this machine's disk. They follow to Kafka from there.
//   - auto: like kafka, and when Kafka takes longer than spool_after, like spool.
//   - memory: at once. What Kafka does not take is lost, and counted.
//
// The contract:
//   - The spool is one durable log a topic. While a topic's log holds anything, new events of that topic follow it there, so that
//     those of one partition key stay in order through an outage; a log is emptied in its order.
//   - A message that Kafka's client still holds when its event is spooled is not sent a second time before the client's verdict; an
//     acknowledgement that comes late takes it out of the log.
//   - A record leaves the log only when all in-sync replicas have it, or when it is in the dead letters. Delivery is at least once: a
//     process that dies leaves behind at most what was in flight to be sent again.
//   - What Kafka refuses for good goes to the topic of dead letters or, if that refuses it too, into a log of its own on the disk.
//   - A disk that fails makes the spool unusable and loses nothing that was acknowledged: events go to Kafka directly as long as
//     nothing of their topic waits, and fail otherwise.
//
// The promise needs a base sink that is an events.Carrier. In front of any other the layer is not there at all.
package delivery
