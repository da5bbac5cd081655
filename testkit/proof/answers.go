package proof

import (
	"net/http"
	"sync"
	"time"
)

// Answers tells how a service has answered of late: always 200, always 503, or neither. It is safe for concurrent use.
type Answers struct {
	mu     sync.Mutex
	status int       // of the last answer; 0: an attempt was not answered
	since  time.Time // when the first answer with this status came, of an unbroken row
	last   time.Time
}

// lively is how old the last answer may be. After a longer silence Answers says nothing about the service.
const lively = time.Second

// Add takes an answer, or status 0 for an attempt that was not answered.
func (a *Answers) Add(status int, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// A service that gives no answers for a while may have changed its mind.
	if status != a.status || at.Sub(a.last) > lively {
		a.status, a.since = status, at
	}
	a.last = at
}

// Uniform reports whether all answers were alike during the given time up to now, and whether that answer was 200
// (safe). Only answers of 200 and of 503 count as alike.
func (a *Answers) Uniform(now time.Time, during time.Duration) (safe, alike bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.last) > lively || now.Sub(a.since) < during {
		return false, false
	}
	return a.status == http.StatusOK, a.status == http.StatusOK || a.status == http.StatusServiceUnavailable
}
