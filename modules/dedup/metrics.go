package dedup

import (
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/store"
)

var described = module.Metrics{
	"duplicates_total": "Events that were not stored again: an earlier request, or the same one, has brought them.",
	"unidentified_total": "Events that were stored without a look for duplicates: nothing would tell a second such " +
		"event from a resent one.",
	"in_flight_total": "Events that were answered 503: another request with the same event did not end in time.",
	"waits_total":     "Requests that waited for another request with the same event.",
	"wait_seconds":    "How long these requests waited, in seconds.",
	"waiting":         "Requests that wait for another request with the same event.",
	"open_admissions_total": "Events that were stored without a look for duplicates: the store did not answer, and " +
		"on_store_failure is open.",
	"refused_total": "Events that were answered 503: the store did not answer, and on_store_failure is closed.",
	"renewed_total": "Reservations that were made again because their request took long.",
	"lost_total":    "Reservations that ended before their request did: the event may be stored twice.",
	"open_ends_total": "Events that failed while it was not known whether they will be stored: they stay reserved " +
		"for a lease.",
	"late_stored_total": "Events that failed while it was not known whether they will be stored, and that were: " +
		"their copies are duplicates.",
	"late_released_total": "Events that failed while it was not known whether they will be stored, and that were not.",
}

type metrics struct {
	duplicates, unidentified, inFlight, waits, admissions, refused, renewed, lost, open tally.Counter

	lateStored, lateReleased tally.Counter

	wait tally.Timer
}

func newMetrics(scope tally.Scope) metrics {
	return metrics{
		duplicates:   scope.Counter("duplicates_total"),
		unidentified: scope.Counter("unidentified_total"),
		inFlight:     scope.Counter("in_flight_total"),
		waits:        scope.Counter("waits_total"),
		admissions:   scope.Counter("open_admissions_total"),
		refused:      scope.Counter("refused_total"),
		renewed:      scope.Counter("renewed_total"),
		lost:         scope.Counter("lost_total"),
		open:         scope.Counter("open_ends_total"),
		lateStored:   scope.Counter("late_stored_total"),
		lateReleased: scope.Counter("late_released_total"),
		wait:         scope.Timer("wait_seconds"),
	}
}

// countRenewed counts reservations that were made again, by what the store has found.
func (m *metrics) countRenewed(found []store.Claim) {
	m.renewed.Inc(int64(len(found)))
	for _, claim := range found {
		if claim != store.Reserved {
			m.lost.Inc(1)
		}
	}
}
