// Package observability is how the service shows its state: its logs (zap), its metrics (tally, shown to Prometheus)
// and its readiness (Health). The metrics of the service as a whole are its build, the number of panics that were
// caught, and the configuration in force (NewServiceCollectors).
//
// The contract: other modules log, count and check without knowing where their lines, counts and checks go. They take a
// *zap.Logger and a tally.Scope from the graph, and give a Check or a prometheus.Collector to it. A log line is one
// JSON object whose own keys are level, timestamp, caller, msg and logger; all structured fields are below "fields". A
// token or distinct_id is never the label of a metric. Logging neither waits for the reader of the log nor fails when
// the reader is gone (Writer). A failure that repeats is logged once (Causes).
package observability
