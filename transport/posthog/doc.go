// Package posthog speaks PostHog's capture protocol. It turns a request into an events.Batch, has the batch processed,
// and turns the outcomes into the answer that the SDKs expect. It knows nothing of the server that carries it.
//
// The JSON is scanned once. The package reads only the few fields that routing, identity and time need; an event's
// properties stay the bytes that the client sent. The scanner (modules/jsonscan) accepts what encoding/json accepts, up
// to 128 levels deep. The faults of real SDKs are repaired before anything else sees the text: a number that is not
// finite becomes null, in whatever spelling, the escape of a lone surrogate becomes \ufffd, a byte that is not UTF-8
// becomes U+FFFD, and a control character is escaped.
//
// The time of an event is that of its client, corrected for the client's clock. It is read in any form that PostHog's
// own service reads. A time that had to be replaced leaves a note on the event, of which the project is told.
//
// There are two generations of the protocol. v0, in this package, takes whatever the SDKs of ten years have sent and
// answers the request as a whole. v1, in the package below, is strict about the request and answers for every event. It
// uses this package for what the two have in common.
//
// One bad event does its neighbours no harm: it is rejected alone, with its reason, and the rest is kept.
package posthog
