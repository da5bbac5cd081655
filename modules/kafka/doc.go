// Package kafka makes events safe in Kafka. Producer is the base events.Sink: it writes every event of a batch as a message, or
// as several, and accepts those that all in-sync replicas have.
//
// The contract:
//   - An event is accepted only after Kafka's own acknowledgement of all its messages. A message whose fate is unknown when the
//     time is over has failed, although it may still arrive: delivery is at-least-once, and the uuid in the value and in the
//     header "uuid" is what a consumer deduplicates on.
//   - The events of one partition key keep their order within a Write and between Writes that follow one another. The producer
//     is idempotent: its own retries neither repeat nor reorder.
//   - Memory is bounded by twice the section's buffer; Write waits for room, and never longer than the section's ack_timeout.
//   - As an events.Carrier it lets a layer follow each message, and send messages of its own. Of a parcel nothing is sent behind a
//     message that failed and is to be sent again.
//   - A broker that is away when the service starts, or goes away later, makes Ready and Write say so; it ends nothing. The
//     connection is tried again until it stands.
//
// The messages themselves are PostHog's: see Encoder. An Encoder needs no broker.
package kafka
