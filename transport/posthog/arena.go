package posthog

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

// arena is memory for the JSON that is written anew for some events of a request. Its first chunk is used again for the
// next request; further ones are made as they are needed and accounted for.
type arena struct {
	chunk []byte
	first []byte
	lease *memory.Lease
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

// reset makes the memory ready for another request.
func (a *arena) reset() { a.chunk = a.first }
