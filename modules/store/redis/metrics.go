package redis

import (
	"errors"
	"time"

	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/store"
)

// kind is a kind of call.
type kind uint8

const (
	callReserve kind = iota
	callTake
	callUsage
	callAdjust
	callGet
	callList
	callPut
	callKinds
)

var kindNames = [callKinds]string{"reserve", "take", "usage", "adjust", "get", "list", "put"}

type metrics struct {
	ok, refused, unavailable [callKinds]tally.Counter

	roundTrip tally.Timer
	trips     tally.Counter
	carried   tally.Counter
	commands  tally.Counter
	failures  tally.Counter
	opened    tally.Counter
	open      tally.Gauge
	waiting   tally.Gauge
	givenUp   tally.Counter
	notices   tally.Counter
}

func newMetrics(scope tally.Scope) *metrics {
	m := &metrics{
		roundTrip: scope.Timer("round_trip_seconds"),
		trips:     scope.Counter("round_trips_total"),
		carried:   scope.Counter("round_trip_calls_total"),
		commands:  scope.Counter("commands_total"),
		failures:  scope.Counter("round_trips_failed_total"),
		opened:    scope.Counter("breaker_opened_total"),
		open:      scope.Gauge("breaker_open"),
		waiting:   scope.Gauge("settlements_waiting"),
		givenUp:   scope.Counter("settlements_given_up_total"),
		notices:   scope.Counter("notices_total"),
	}
	for k, name := range kindNames {
		count := func(outcome string) tally.Counter {
			return scope.Tagged(map[string]string{"call": name, "outcome": outcome}).Counter("calls_total")
		}
		m.ok[k], m.refused[k], m.unavailable[k] = count("ok"), count("error"), count("unavailable")
	}
	return m
}

// described says what the metrics count.
var described = module.Metrics{
	"calls_total": "Calls of the shared store, by what they do and how they ended: ok, error (the call was at fault, " +
		"or a record has changed) or unavailable (no answer in time, or the breaker is open).",
	"round_trip_seconds":       "How long round trips to Redis took, in seconds.",
	"round_trips_total":        "Round trips to Redis. What waits while one is under way goes together in the next.",
	"round_trip_calls_total":   "Calls that the round trips to Redis have carried.",
	"commands_total":           "Commands that Redis was sent. A script that reserves a whole request is one.",
	"round_trips_failed_total": "Round trips to Redis that got no answer in time, or that Redis could not serve.",
	"breaker_opened_total":     "How often a breaker has opened, since Redis did not answer.",
	"breaker_open":             "Servers of Redis whose breaker is open at present: calls fail at once.",
	"settlements_waiting":      "Digests that have been settled and that Redis does not know of yet.",
	"settlements_given_up_total": "Digests that Redis was never told of: such an event, sent again, is a duplicate " +
		"in Kafka.",
	"notices_total": "Notices of Redis that records have changed.",
}

// count counts a call by its end, and returns its error.
func (m *metrics) count(k kind, err error) error {
	switch {
	case err == nil:
		m.ok[k].Inc(1)
	case errors.Is(err, store.ErrUnavailable):
		m.unavailable[k].Inc(1)
	default:
		m.refused[k].Inc(1)
	}
	return err
}

func (m *metrics) tripped(took time.Duration, calls, commands int, err error) {
	m.roundTrip.Record(took)
	m.trips.Inc(1)
	m.carried.Inc(int64(calls))
	m.commands.Inc(int64(commands))
	if err != nil {
		m.failures.Inc(1)
	}
}
