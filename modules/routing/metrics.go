package routing

import (
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/restriction"
)

var described = module.Metrics{
	"applied_total": "Events that rules decided about, by what the rules do with them.",
	"rules":         "Rules in force, by where they come from.",
	"broken_rules":  "Rules that have faults and are not in force, by where they come from.",
	"stale": "1 while the rules of the shared state or of PostHog's Redis are older than routing.rules_stale_after, " +
		"else 0.",
	"read_failures_total": "Times that the rules of the shared state or of PostHog's Redis could not be read.",
	"open_admissions_total": "Events that passed without the rules of the shared state: it had not answered for " +
		"routing.rules_stale_after, and routing.on_store_failure is open.",
	"refused_total": "Events that were answered 503: no rules of the shared state were read yet, and " +
		"routing.on_store_failure is closed.",
}

type metrics struct {
	applied             [restriction.ActionCount]tally.Counter
	admissions, refused tally.Counter

	rules, broken, stale [sourceCount]tally.Gauge
	failures             [sourceCount]tally.Counter
}

func newMetrics(scope tally.Scope) (m metrics) {
	for _, action := range restriction.Actions() {
		m.applied[action] = scope.Tagged(map[string]string{"action": action.String()}).Counter("applied_total")
	}
	m.admissions, m.refused = scope.Counter("open_admissions_total"), scope.Counter("refused_total")
	for from := fromPostHog; from < fromConfig; from++ {
		tagged := scope.Tagged(map[string]string{"source": from.String()})
		m.rules[from], m.broken[from] = tagged.Gauge("rules"), tagged.Gauge("broken_rules")
		m.stale[from], m.failures[from] = tagged.Gauge("stale"), tagged.Counter("read_failures_total")
	}
	return m
}
