package observability

import (
	"errors"
	"io"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Causes logs why something fails that is tried again and again, such as writing to Kafka: a line when it begins to
// fail, a line for each new cause, and one when it works again. Two lines about one cause are at least an interval
// apart, however often it is reported and however causes take turns. It is safe for concurrent use.
type Causes struct {
	log            *zap.Logger
	failing, works string
	interval       time.Duration
	now            func() time.Time

	fails atomic.Bool // whether there has been a failure since it last worked

	mu       sync.Mutex
	logged   map[string]time.Time // when a line told of a cause, by its class
	since    time.Time            // of the first failure since it last worked
	failures int                  // since it last worked
	told     bool                 // whether a line has told of one of them
}

// maxCauses is how many causes are told apart within an interval. What comes on top of them is not logged.
const maxCauses = 16

// NewCauses returns a Causes that logs at error, with failing and the root cause as the message, as in "events cannot
// be produced: connection refused", and at info, with works as the message, when that is over. No cause is logged twice
// within the interval.
func NewCauses(log *zap.Logger, failing, works string, interval time.Duration) *Causes {
	return &Causes{
		log: log.WithOptions(zap.AddCallerSkip(1)), failing: failing, works: works, interval: interval,
		now: time.Now, logged: map[string]time.Time{},
	}
}

// Log takes the result of an attempt; nil says that it has worked. It is to be told of every attempt, since a cause
// that was logged within the interval is logged again only when it is reported after that. While all works it costs
// next to nothing.
//
// The fields of a line are "error" (all of the error) and "failures" (since it last worked), and once it works
// "failed_for".
func (c *Causes) Log(err error) {
	if err == nil && !c.fails.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if err == nil {
		if c.told {
			c.log.Info(c.works, zap.Int("failures", c.failures), zap.Duration("failed_for", now.Sub(c.since)))
		}
		c.fails.Store(false)
		c.failures, c.told = 0, false
		return
	}
	if c.failures == 0 {
		c.fails.Store(true)
		c.since = now
	}
	c.failures++
	if cause := RootCause(err); c.isDue(cause, now) {
		c.told = true
		c.log.Error(c.failing+": "+cause.Error(), zap.Int("failures", c.failures), zap.Error(err))
	}
}

// isDue reports whether a line is to tell of the cause, and notes that it does.
func (c *Causes) isDue(cause error, now time.Time) bool {
	class := numbers.ReplaceAllString(cause.Error(), "0")
	if last, found := c.logged[class]; found && now.Sub(last) < c.interval {
		return false
	}
	for other, last := range c.logged {
		if now.Sub(last) >= c.interval {
			delete(c.logged, other)
		}
	}
	if len(c.logged) == maxCauses {
		return false
	}
	c.logged[class] = now
	return true
}

// numbers are what tells apart two texts of one class, such as the ports of two connections.
var numbers = regexp.MustCompile(`\d+`)

// RootCause returns the innermost error of the chain that says something: "connection refused" of "produce 3 events:
// dial tcp 10.0.0.1:9092: connect: connection refused". Of joined errors it follows the first. An end of input says
// nothing: of "read the answer of broker 1: EOF" the whole is the cause. The root cause of nil is nil.
func RootCause(err error) error {
	for {
		inner := unwrap(err)
		if inner == nil || inner.Error() == "" || errors.Is(inner, io.EOF) && unwrap(inner) == nil {
			return err
		}
		err = inner
	}
}

// unwrap returns the error inside, or nil.
func unwrap(err error) error {
	switch err := err.(type) { //nolint:errorlint // the chain is walked here
	case interface{ Unwrap() error }:
		return err.Unwrap()
	case interface{ Unwrap() []error }:
		for _, inner := range err.Unwrap() {
			if inner != nil {
				return inner
			}
		}
	}
	return nil
}
