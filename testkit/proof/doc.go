// Package proof tells whether a service keeps its promise. A Load sends numbered events and keeps the History of every
// answer, Read goes through what lies in Kafka, and the Judge holds the one against the other: its Verdict says what
// was lost, duplicated and reordered. Answers tells what a client was answered of late.
//
// testkit/chaos and testkit/powercut break things meanwhile.
package proof
