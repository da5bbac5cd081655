// Package events is the domain: an Event, the Batch that it came in, the Outcome that it ends with, and the three
// ports that the rest of the service implements: Gate (decides who may send), Stage (judges events, and learns how they
// ended) and Sink (makes them safe).
//
// The contract: every event of a batch that Processor.Process was given ends in exactly one outcome, and at any moment
// received == accepted + dropped + rejected + failed, to the event, in the Ledger. An event is never removed from its
// batch; it is marked, with the reason, so that all of them are counted and each can be explained.
//
// Everybody depends on this package; it depends on nobody but configs and other leaves.
package events
