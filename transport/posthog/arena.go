package posthog

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

// arena is memory for the JSON that is written anew for some events of a request. The next request uses its first chunk
// again. Further chunks are made as they are needed, and are reserved by the lease.
type arena struct {
	chunk []byte
	first []byte
	lease *memory.Lease
}

// firstChunk is the size in bytes of the chunk that a session keeps. That chunk does not count against the budget.
const firstChunk = 64 << 10

// take returns an empty slice with room for n bytes.
func (a *arena) take(n int) ([]byte, *events.Error) {
	if cap(a.chunk)-len(a.chunk) < n {
		switch size := max(n, firstChunk); {
		case a.first == nil && size == firstChunk:
			a.first = make([]byte, 0, size)
			a.chunk = a.first
		case !a.lease.Reserve(int64(size)):
			return nil, memory.ErrSpent
		default:
			a.chunk = make([]byte, 0, size)
		}
	}
	start := len(a.chunk)
	a.chunk = a.chunk[:start+n]
	return a.chunk[start : start : start+n], nil
}

// reset makes the arena ready for another request.
func (a *arena) reset() { a.chunk = a.first }
