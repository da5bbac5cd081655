package delivery

import (
	"sync/atomic"
	"time"
)

// breaker keeps requests from waiting, one after the other, for a topic that Kafka does not take messages for. It is safe for
// concurrent use; the zero value is closed: it lets everybody through.
//
// failed opens the breaker for openFor. Then allow lets one request through each openFor, which finds out whether the topic is
// back. succeeded closes the breaker.
type breaker struct {
	// until is the moment at which the next request may try; 0: the breaker is closed.
	until atomic.Int64
}

// openFor is how long a topic is left alone after Kafka has not taken its messages, until the next attempt.
const openFor = time.Second

// allow reports whether a request may try.
func (b *breaker) allow(now time.Time) bool {
	until := b.until.Load()
	if until == 0 {
		return true
	}
	return moment(now) >= until && b.until.CompareAndSwap(until, moment(now.Add(openFor)))
}

func (b *breaker) isOpen() bool { return b.until.Load() != 0 }

func (b *breaker) failed(now time.Time) { b.until.Store(moment(now.Add(openFor))) }

func (b *breaker) succeeded() {
	if b.until.Load() != 0 {
		b.until.Store(0)
	}
}

// beginning is what moments are counted from. It is before anything that this process has seen.
var beginning = time.Now().Add(-time.Hour)

// moment returns a time as nanoseconds of this process's monotonic clock: they go on evenly when the machine's clock jumps.
func moment(t time.Time) int64 { return int64(t.Sub(beginning)) }
