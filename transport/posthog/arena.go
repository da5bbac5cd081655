package posthog

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

// arena is memory for the JSON and the texts that are written anew for some events of a request. It takes its chunks
// from buffers, which reserve them. lease is for what is made elsewhere.
type arena struct {
	buffers *memory.Buffers
	chunks  []*memory.Buffer
	lease   *memory.Lease
}

// chunkSize is the size in bytes of the smallest chunk.
const chunkSize = 16 << 10

// take returns an empty slice with room for n bytes.
func (a *arena) take(n int) ([]byte, *events.Error) {
	last := len(a.chunks) - 1
	if last < 0 || cap(a.chunks[last].Bytes)-len(a.chunks[last].Bytes) < n {
		chunk, err := a.buffers.Get(int64(max(n, chunkSize)))
		if err != nil {
			return nil, memory.ErrSpent
		}
		a.chunks = append(a.chunks, chunk)
		last++
	}
	chunk := a.chunks[last]
	start := len(chunk.Bytes)
	chunk.Bytes = chunk.Bytes[:start+n]
	return chunk.Bytes[start : start : start+n], nil
}

// reserve reserves n bytes for something that is made elsewhere.
func (a *arena) reserve(n int64) bool { return a.lease.Reserve(n) }

// reset gives the chunks back.
func (a *arena) reset() {
	for _, chunk := range a.chunks {
		a.buffers.Put(chunk)
	}
	clear(a.chunks)
	a.chunks = a.chunks[:0]
}
