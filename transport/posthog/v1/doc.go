// Package v1 is the second generation of PostHog's capture protocol. It is strict where v0 (package posthog) is
// lenient: a request says in its headers who sends what and when, every event has a UUID of the client's, and the
// answer has a result for each event. A fault of the whole request refuses the request before anything is kept. Every
// other fault concerns one event alone.
package v1
