// Package posthog speaks PostHog's capture protocol: it turns a request into an events.Batch, has it processed, and
// turns the outcomes into the answer that the SDKs expect. It knows nothing of the server that carries it.
//
// The JSON is scanned once. An event's properties stay the bytes that the client sent; only the few fields that
// routing, identity and time need are read. The scanner (modules/jsonscan) accepts what encoding/json accepts, up to
// 128 levels deep, and two things more that real SDKs send and that are repaired before anything else sees them: bare
// NaN, Infinity and -Infinity become null, and the escape of a lone surrogate becomes \ufffd.
//
// There are two generations of the protocol. v0, in this package, takes whatever the SDKs of ten years have sent and
// answers the request as a whole. Package v1 below is strict about the request and answers for every event. It takes
// from here what the two have in common.
//
// One bad event does not fail its neighbours: it is rejected alone, with its reason, and the rest is kept.
package posthog
