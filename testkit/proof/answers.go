package proof

import (
	"net/http"
	"sync"
	"time"
)

// Answers tells what a service has answered of late: always 200, always 503, or neither. It is safe for concurrent use.
type Answers struct {
	mu     sync.Mutex
	status int       // of the last answer; 0: an attempt was not answered
	since  time.Time // when the first one came of those that were all alike
	last   time.Time
}

// lively is how long ago the last answer may be of a service that has something to say.
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

// Uniform reports whether all answers of a time up to now were alike, and whether they were 200 or 503.
func (a *Answers) Uniform(now time.Time, during time.Duration) (safe, alike bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.last) > lively || now.Sub(a.since) < during {
		return false, false
	}
	return a.status == http.StatusOK, a.status == http.StatusOK || a.status == http.StatusServiceUnavailable
}
