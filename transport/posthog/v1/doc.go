// Package v1 is the second generation of PostHog's capture protocol. It is strict where v0 (package posthog) is
// lenient: a request says in its headers who sends what and when, every event has a UUID of the client's, and the
// answer has a result for each. What concerns the whole request refuses it, before anything is kept; everything else is
// one event's own.
package v1
