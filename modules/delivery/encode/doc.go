// Package encode builds the messages of events: PostHog's own messages, field by field and byte by byte. It decides
// which topic an event goes to, which key orders it, what the message's value and headers are, and how a recording is
// split. It needs no Kafka.
//
// The contract:
//   - The messages are in the order of their events. An event has one message, several, or, if it is too large, none.
//   - An event that is too large is rejected. Its neighbours are not touched.
//   - An event that is sent again makes messages with the same identifiers.
//   - The memory for a batch's messages is bounded. Encoder.Bound returns the bound before the messages are built.
package encode
