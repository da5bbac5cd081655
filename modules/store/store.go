package store

import (
	"errors"
	"time"
)

// ErrUnavailable means that the store did not answer in time, or that the breaker is open. It is not known whether the
// store has done what the call asked for.
var ErrUnavailable = errors.New("the store does not answer")

// Store is all that an implementation gives.
type Store interface {
	Reserver
	Counters
	Records
	PostHog

	// Now is the time of the store's clock, as far as the node knows it. The clocks of the nodes may differ by seconds;
	// all nodes see the same time here, but for the time that an answer takes.
	Now() time.Time
}
