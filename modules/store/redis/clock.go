package redis

import (
	"strconv"
	"sync/atomic"
	"time"
)

// clock knows how far the server's clock is from the node's. It is safe for concurrent use.
type clock struct{ known atomic.Pointer[reading] }

// reading is what an answer of the server has told.
type reading struct {
	// offset is how far the server's clock is ahead of the node's, and doubt by how much that may be wrong.
	offset, doubt time.Duration
	at            time.Time
}

// drift is by how much two clocks part in a second at most, more than any machine's do.
const drift = time.Millisecond

// learn takes an answer into account that has the server's time: the server gave the answer between the two times. A
// better reading is kept, until it is too old to be better.
func (c *clock) learn(sent, received time.Time, seconds, micros int64) {
	doubt := received.Sub(sent) / 2
	server := time.Unix(seconds, micros*int64(time.Microsecond))
	next := &reading{offset: server.Sub(sent.Round(0).Add(doubt)), doubt: doubt, at: received}
	if old := c.known.Load(); old != nil {
		aged := old.doubt + time.Duration(received.Sub(old.at).Seconds()*float64(drift))
		if aged < doubt && (next.offset-old.offset).Abs() <= doubt+aged {
			return
		}
	}
	c.known.Store(next)
}

// now returns the server's time.
func (c *clock) now() time.Time {
	now := time.Now()
	if known := c.known.Load(); known != nil {
		return now.Add(known.offset)
	}
	return now
}

// clockOf reads the answer to TIME.
func clockOf(answer []any) (seconds, micros int64, ok bool) {
	if len(answer) < 2 {
		return 0, 0, false
	}
	first, _ := answer[0].(string)
	second, _ := answer[1].(string)
	seconds, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	micros, err = strconv.ParseInt(second, 10, 64)
	return seconds, micros, err == nil
}
