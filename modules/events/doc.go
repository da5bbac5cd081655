// Package events is the domain: an Event, the Batch that it came in, the Outcome that it ends with, and the three ports
// that the rest of the service implements: Gate (decides who may send), Stage (judges events, and learns how they
// ended) and Sink (makes them safe).
//
// The contract: every event of a batch that Processor.Process is given ends in exactly one outcome, and at any moment
// received == accepted + dropped + rejected + failed, to the event, in the Ledger. Nobody removes an event from its
// batch. A stage marks the event, with a reason, so that every event is counted and every outcome can be explained.
//
// All parts of the service depend on this package. It depends only on configs and other leaves.
package events
