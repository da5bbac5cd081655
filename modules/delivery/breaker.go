package delivery

import (
	"sync/atomic"
	"time"
)

// breaker keeps requests from waiting, one after the other, for a topic that Kafka does not take messages for. It is
// safe for concurrent use. A new one is closed: it lets everybody through.
//
// failed opens the breaker for openFor. Then allow lets one request through each openFor, which finds out whether the
// topic is back. succeeded closes the breaker.
type breaker struct {
	// openFor is how long the topic is left alone after Kafka has not taken its messages, until the next attempt.
	openFor time.Duration
	// until is when the next request may try, in nanoseconds since 1970; 0: the breaker is closed.
	until atomic.Int64
}

// allow reports whether a request may try.
func (b *breaker) allow(now time.Time) bool {
	until := b.until.Load()
	if until == 0 {
		return true
	}
	return now.UnixNano() >= until && b.until.CompareAndSwap(until, now.Add(b.openFor).UnixNano())
}

func (b *breaker) isOpen() bool { return b.until.Load() != 0 }

func (b *breaker) failed(now time.Time) { b.until.Store(now.Add(b.openFor).UnixNano()) }

func (b *breaker) succeeded() {
	if b.until.Load() != 0 {
		b.until.Store(0)
	}
}
