package auth

import (
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/events"
)

// lookup outcomes, for the metric.
const (
	lookupFound = iota
	lookupUnknown
	lookupBroken
	lookupFailed
	lookupOutcomes
)

var lookupNames = [lookupOutcomes]string{"found", "unknown", "broken", "failed"}

type metrics struct {
	asked    [verdicts]tally.Counter
	refused  map[events.Reason]tally.Counter
	lookups  [lookupOutcomes]tally.Counter
	projects tally.Gauge
	broken   tally.Gauge
}

func newMetrics(scope tally.Scope) *metrics {
	m := &metrics{
		refused:  map[events.Reason]tally.Counter{},
		projects: scope.Gauge("projects"), broken: scope.Gauge("broken_records"),
	}
	for verdict, name := range verdictNames {
		m.asked[verdict] = scope.Tagged(map[string]string{"project": name}).Counter("requests_total")
	}
	for _, err := range refusals {
		m.refused[err.Reason] = scope.Tagged(map[string]string{"reason": string(err.Reason)}).Counter("refused_total")
	}
	for outcome, name := range lookupNames {
		m.lookups[outcome] = scope.Tagged(map[string]string{"outcome": name}).Counter("lookups_total")
	}
	return m
}
