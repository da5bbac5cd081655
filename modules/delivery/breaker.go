package delivery

import (
	"sync/atomic"
	"time"
)

// began is when the process began, or a little later.
var began = time.Now()

// instant returns a time as a number greater than 0, for atomic variables: nanoseconds since the process began. A clock
// that jumps does not change it.
func instant(t time.Time) int64 { return max(1, int64(t.Sub(began))) }

// breaker keeps requests from waiting, one after the other, for a topic that Kafka takes no messages for. It is safe
// for concurrent use. A new breaker is closed: it lets all requests through.
//
// failed opens the breaker for openFor. From then on allow lets one request through each openFor. That request finds
// out whether the topic is back. succeeded closes the breaker.
type breaker struct {
	// openFor is how long the breaker keeps requests from a topic after Kafka has not taken messages for it.
	openFor time.Duration
	// until is the instant at which the next request may try; 0: the breaker is closed.
	until atomic.Int64
}

// allow reports whether a request may try.
func (b *breaker) allow(now time.Time) bool {
	until := b.until.Load()
	if until == 0 {
		return true
	}
	return instant(now) >= until && b.until.CompareAndSwap(until, instant(now.Add(b.openFor)))
}

func (b *breaker) isOpen() bool { return b.until.Load() != 0 }

func (b *breaker) failed(now time.Time) { b.until.Store(instant(now.Add(b.openFor))) }

func (b *breaker) succeeded() {
	if b.until.Load() != 0 {
		b.until.Store(0)
	}
}
