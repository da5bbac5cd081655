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

// Causes logs the failures of something that is tried again and again, such as writing to Kafka. It logs a line when
// the attempts begin to fail, a line for each new cause, and a line when they work again. Two lines about the same
// cause are at least an interval apart, however often the cause is reported and however causes take turns. Causes is
// safe for concurrent use.
type Causes struct {
	log            *zap.Logger
	failing, works string
	interval       time.Duration
	now            func() time.Time

	fails atomic.Bool // whether an attempt has failed since the last one that worked

	mu       sync.Mutex
	logged   map[string]time.Time // when a line last told of a cause, by the cause's class
	since    time.Time            // when the first attempt failed since the last one that worked
	failures int                  // how many have failed since the last one that worked
	told     bool                 // whether a line has told of one of these failures
}

// maxCauses is how many causes are told apart within an interval. Further causes are not logged.
const maxCauses = 16

// NewCauses returns a Causes. Its lines about a failure have the level error, with failing and the root cause as the
// message, as in "events cannot be produced: connection refused". Its line about the end of the failures has the level
// info, with works as the message. No cause is logged twice within the interval.
func NewCauses(log *zap.Logger, failing, works string, interval time.Duration) *Causes {
	return &Causes{
		log: log.WithOptions(zap.AddCallerSkip(1)), failing: failing, works: works, interval: interval,
		now: time.Now, logged: map[string]time.Time{},
	}
}

// Log takes the result of an attempt; nil means that the attempt has worked. The caller reports every attempt: a cause
// that was logged within the interval is logged again only if it is reported after the interval. While all attempts
// work, Log costs next to nothing.
//
// A line about a failure has the fields "error" (the whole error) and "failures" (since the last attempt that worked).
// The line about the end has "failures" and "failed_for".
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

// isDue reports whether to log a line about the cause, and notes that the line is logged.
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

// numbers matches what differs between two texts of one class, such as the ports of two connections.
var numbers = regexp.MustCompile(`\d+`)

// RootCause returns the innermost error of the chain that tells something: "connection refused" of "produce 3 events:
// dial tcp 10.0.0.1:9092: connect: connection refused". Of joined errors it follows the first. An end of input tells
// nothing: of "read the answer of broker 1: EOF" the root cause is the whole error. The root cause of nil is nil.
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
