package redis

import (
	"fmt"
	"sync/atomic"
	"time"
)

// breaker says whether a server is worth asking. It is closed until so many round trips in a row have failed, and opens
// then until somebody closes it. It is safe for concurrent use.
type breaker struct {
	failures atomic.Int32
	open     atomic.Pointer[opened]
	last     atomic.Pointer[failure]
}

// opened is an open breaker: since when, and what calls are told.
type opened struct {
	since time.Time
	err   error
}

// failure is an error and when it was.
type failure struct {
	err error
	at  time.Time
}

// err returns what a call is told while the breaker is open, or nil.
func (b *breaker) err() error {
	if open := b.open.Load(); open != nil {
		return open.err
	}
	return nil
}

// failed notes that a round trip has failed. It reports whether that has opened the breaker.
func (b *breaker) failed(err error, limit int) bool {
	now := time.Now()
	b.last.Store(&failure{err, now})
	if int(b.failures.Add(1)) < limit {
		return false
	}
	return b.open.CompareAndSwap(nil, &opened{now, unavailable(fmt.Errorf("the breaker is open: %w", err))})
}

// succeeded notes that a round trip has succeeded.
func (b *breaker) succeeded() {
	if b.failures.Load() != 0 {
		b.failures.Store(0)
	}
}

// close closes the breaker, and returns how long it was open.
func (b *breaker) close() time.Duration {
	b.failures.Store(0)
	if open := b.open.Swap(nil); open != nil {
		return time.Since(open.since)
	}
	return 0
}
