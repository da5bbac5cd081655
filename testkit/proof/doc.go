// Package proof tells whether a service keeps its promise. A Load sends numbered events and keeps the History of all
// answers. Read goes through the messages that lie in Kafka. The Judge compares the two: its Verdict says which events
// were lost, duplicated and reordered. Answers tells how the service has answered clients of late.
//
// testkit/chaos and testkit/powercut break things meanwhile.
package proof
