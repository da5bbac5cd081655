package posthog

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
)

// claim is what a session holds of the budget for all requests.
type claim struct {
	budget *decode.Budget
	// reserved is all of it, forMany the part that is for many events.
	reserved, forMany int64
}

func (c *claim) reserve(n int64) bool {
	if !c.budget.Reserve(n) {
		return false
	}
	c.reserved += n
	return true
}

// reserveMany makes the part for many events n bytes, unless it is more already.
func (c *claim) reserveMany(n int64) bool {
	if n <= c.forMany {
		return true
	}
	if !c.reserve(n - c.forMany) {
		return false
	}
	c.forMany = n
	return true
}

// release gives everything back.
func (c *claim) release() {
	c.budget.Release(c.reserved)
	c.reserved, c.forMany = 0, 0
}

// arena is memory for the JSON that is written anew for some events of a request. Its first chunk is used again for the next
// request; further ones are made as they are needed and accounted for.
type arena struct {
	chunk   []byte
	first   []byte
	reserve func(n int64) bool
}

// firstChunk is what a session keeps, and does not account for.
const firstChunk = 64 << 10

// take returns an empty slice with room for n bytes.
func (a *arena) take(n int) ([]byte, *events.Error) {
	if cap(a.chunk)-len(a.chunk) < n {
		switch size := max(n, firstChunk); {
		case a.first == nil && size == firstChunk:
			a.first = make([]byte, 0, size)
			a.chunk = a.first
		case !a.reserve(int64(size)):
			return nil, decode.ErrSpent
		default:
			a.chunk = make([]byte, 0, size)
		}
	}
	start := len(a.chunk)
	a.chunk = a.chunk[:start+n]
	return a.chunk[start : start : start+n], nil
}

// reset makes the memory ready for another request.
func (a *arena) reset() { a.chunk = a.first }
