// Package produce is the port to Kafka: what a message is, who takes messages, and what is reported about each of them.
//
// Whoever has messages hands them to a Producer, and is told exactly once for each message what became of it: Kafka has
// it (nil), Kafka will never take it (an Error whose class IsRefusal), or it was not acknowledged and is to be sent
// again (any other error). The package holds, each once, what both sides of the port have to agree on: the classes of
// errors, the rule for topic names, the topics of the streams, and the headers of a dead letter.
//
// It is a leaf: it imports nothing of this project but configs.
package produce
