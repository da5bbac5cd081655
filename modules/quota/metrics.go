package quota

import (
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
)

// descriptions are the metrics of the module.
func descriptions() module.Metrics {
	return module.Metrics{
		"events_total": "Events under limits, by resource and how they stood: passed, over_quota, over_rate, " +
			"over_billing (PostHog's own limits), uncounted (they passed while the store did not answer) or " +
			"unknown (they failed for that reason).",
		"refunded_total": "Events that were counted against a quota, were not accepted, and were given back, by " +
			"resource.",
		"draws_total": "Round trips to the store, by what came of them: ok and failed for requests, returned and " +
			"return_failed for giving back what nobody used.",
		"full_total": "Requests that found no room for the accounts of their project, which quota.max_accounts " +
			"bounds.",
		"accounts":      "Limits of projects that the node keeps account of.",
		"held_events":   "Events that the node may let pass without asking the store, over all quotas.",
		"user_accounts": "Users that the node keeps account of, since they send much for their rates.",
		"user_events_total": "Events of users with accounts that did not simply pass, by how they stood: over_rate, " +
			"or uncounted (they passed while the store did not answer).",
		"journal_ok":     "Whether what the node holds is in a file, so that a kill loses nothing: 1 or 0.",
		"billing_tokens": "Projects that are over one of PostHog's own limits, by resource.",
		"billing_errors_total": "Attempts to read PostHog's own limits that failed. The limits that were read before " +
			"stay in force.",
	}
}

// The outcomes of draws.
const (
	drawOK = iota
	drawFailed
	drawReturned
	drawReturnFailed
	drawOutcomes
)

var drawNames = [drawOutcomes]string{"ok", "failed", "returned", "return_failed"}

type metrics struct {
	passed, quota, rate, billing, open, lost, refunded [events.ResourceCount]tally.Counter

	draws         [drawOutcomes]tally.Counter
	full          tally.Counter
	usersOver     tally.Counter
	usersOpen     tally.Counter
	users         tally.Gauge
	accounts      tally.Gauge
	held          tally.Gauge
	journal       tally.Gauge
	billingTokens [events.ResourceCount]tally.Gauge
	billingErrors tally.Counter
}

func newMetrics(scope tally.Scope) *metrics {
	m := &metrics{
		full: scope.Counter("full_total"), accounts: scope.Gauge("accounts"), held: scope.Gauge("held_events"),
		journal: scope.Gauge("journal_ok"), billingErrors: scope.Counter("billing_errors_total"),
	}
	m.users = scope.Gauge("user_accounts")
	m.usersOver = scope.Tagged(map[string]string{"outcome": "over_rate"}).Counter("user_events_total")
	m.usersOpen = scope.Tagged(map[string]string{"outcome": "uncounted"}).Counter("user_events_total")
	for i, name := range drawNames {
		m.draws[i] = scope.Tagged(map[string]string{"outcome": name}).Counter("draws_total")
	}
	for _, r := range events.Resources() {
		of := func(outcome string) tally.Counter {
			return scope.Tagged(map[string]string{"resource": r.String(), "outcome": outcome}).Counter("events_total")
		}
		m.passed[r], m.quota[r], m.rate[r] = of("passed"), of("over_quota"), of("over_rate")
		m.billing[r], m.open[r], m.lost[r] = of("over_billing"), of("uncounted"), of("unknown")
		tagged := scope.Tagged(map[string]string{"resource": r.String()})
		m.refunded[r], m.billingTokens[r] = tagged.Counter("refunded_total"), tagged.Gauge("billing_tokens")
	}
	return m
}

// count counts a request's events of a resource.
func (m *metrics) count(r events.Resource, v *visit) {
	rest := v.need[r] - v.charged[r] - v.loose[r] - v.over[r] - v.open[r]
	add(m.passed[r], v.charged[r])
	add(m.rate[r], v.over[r])
	add(m.open[r], v.open[r]+v.loose[r])
	if v.lost[r] {
		add(m.lost[r], rest)
	} else {
		add(m.quota[r], rest)
	}
}

func add(counter tally.Counter, n int64) {
	if n > 0 {
		counter.Inc(n)
	}
}
