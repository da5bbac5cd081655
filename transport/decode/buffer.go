package decode

import (
	"math/bits"
	"sync"

	"github.com/opencapture/capture/modules/events"
)

const (
	// The pooled buffers have capacities of 4 KiB, 8 KiB and so on up to maxPooled. Larger ones are made to measure and left to
	// the garbage collector, so that no burst of large requests leaves its memory behind.
	minPooled = 4 << 10
	maxPooled = 1 << 20

	classes = 9 // from minPooled to maxPooled in powers of two
)

// ErrSpent is the answer when the budget has no room. Whoever else takes from the budget gives the same one.
var ErrSpent = events.Errorf(events.Unavailable, "service unavailable: too much is being received at once")

// buffer is memory whose capacity is reserved from the budget for as long as it is out of the pool.
type buffer struct {
	bytes []byte
}

// buffers hands out memory under a budget. It is safe for concurrent use.
type buffers struct {
	budget *Budget
	pools  [classes]sync.Pool
}

// get returns an empty buffer with room for at least size bytes. It fails only if the budget is spent.
func (p *buffers) get(size int64) (*buffer, error) {
	size = capacity(size)
	if !p.budget.Reserve(size) {
		return nil, ErrSpent
	}
	if size <= maxPooled {
		if b, ok := p.pools[class(size)].Get().(*buffer); ok {
			return b, nil
		}
	}
	return &buffer{bytes: make([]byte, 0, size)}, nil
}

// put takes a buffer back; nil is none.
func (p *buffers) put(b *buffer) {
	if b == nil {
		return
	}
	size := int64(cap(b.bytes))
	p.budget.Release(size)
	if size <= maxPooled {
		b.bytes = b.bytes[:0]
		p.pools[class(size)].Put(b)
	}
}

// grow returns a buffer twice as large with the same content and takes the old one back; on an error the old one is kept.
func (p *buffers) grow(b *buffer) (*buffer, error) {
	larger, err := p.get(2 * int64(cap(b.bytes)))
	if err != nil {
		return b, err
	}
	larger.bytes = append(larger.bytes, b.bytes...)
	p.put(b)
	return larger, nil
}

// capacity rounds a size up to that of a pooled buffer, if there are such.
func capacity(size int64) int64 {
	switch {
	case size <= minPooled:
		return minPooled
	case size <= maxPooled:
		return 1 << bits.Len64(uint64(size-1))
	default:
		return size
	}
}

func class(capacity int64) int { return bits.Len64(uint64(capacity)) - bits.Len64(minPooled) }
