// Package produce is the port to Kafka: what a message is, who takes messages, and what is reported about each of them.
//
// The owner of messages hands them to a Producer. The Producer makes exactly one report on each message: Kafka has the
// message (nil), Kafka will never take the message (an Error whose class IsRefusal), or the message was not
// acknowledged and its owner must send it again (any other error). Both sides of the port have to agree on the classes
// of errors, the rule for topic names, the topics of the streams, and the headers of a dead letter. The package defines
// each of these once.
//
// The package is a leaf: of this project it imports only configs.
package produce
