// Package observability is what the service says about itself: its logs (zap), its metrics (tally, shown to Prometheus)
// and whether it is ready (Health). Of the service as a whole it shows which build it is, how many panics were caught, and
// which configuration is in force (NewServiceCollectors).
//
// The contract: other modules log, count and check without knowing where it goes. They take a *zap.Logger and a
// tally.Scope from the graph, and offer a Check or a prometheus.Collector to it. A log line is one JSON object whose
// own keys are level, timestamp, caller, msg and logger; everything structured is below "fields". A token or
// distinct_id is never the label of a metric. Logging neither waits for the reader of the log nor ends with it
// (Writer), and what fails again and again is told once (Causes).
package observability
