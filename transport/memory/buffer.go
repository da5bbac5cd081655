package memory

import (
	"math/bits"
	"sync"
)

const (
	// MaxPooled is the capacity of the largest buffer that is kept for another request, in bytes. Pooled buffers have
	// capacities of 4 KiB, 8 KiB and so on up to MaxPooled. Larger buffers are made to measure and left to the garbage
	// collector, so that no burst of large requests leaves its memory behind.
	MaxPooled = 1 << 20

	minPooled = 4 << 10

	classes = 9 // from minPooled to MaxPooled in powers of two
)

// Buffer is memory whose capacity is reserved from the budget for as long as the buffer is out of the pool.
type Buffer struct {
	Bytes []byte
	whole int64 // what the holder will have, as far as it is known
}

// Buffers hands out buffers under a budget. A buffer has 4 KiB, or at most twice the size that was asked for: a small
// request with a large buffer would take that memory from all other requests. Buffers is safe for concurrent use.
type Buffers struct {
	budget *Budget
	pools  [classes]sync.Pool
}

// NewBuffers returns Buffers that reserve from the budget; a nil budget is unbounded.
func NewBuffers(budget *Budget) *Buffers { return &Buffers{budget: budget} }

// Get returns an empty buffer with room for at least size bytes. It fails only if the budget has no room for it: with
// ErrSpent, or with ErrNever.
func (p *Buffers) Get(size int64) (*Buffer, error) { return p.GetFor(size, size) }

// GetFor is Get for what will grow to whole bytes: a large holder is one from its first buffer on (see Budget.Keep).
func (p *Buffers) GetFor(size, whole int64) (*Buffer, error) {
	size = capacity(size)
	if !p.budget.reserve(size, max(0, whole-size)) {
		return nil, p.budget.refusal(max(size, whole))
	}
	if size <= MaxPooled {
		if b, ok := p.pools[class(size)].Get().(*Buffer); ok {
			b.whole = whole
			return b, nil
		}
	}
	return &Buffer{Bytes: make([]byte, 0, size), whole: whole}, nil
}

// Put takes a buffer back. A nil buffer is ignored.
func (p *Buffers) Put(b *Buffer) {
	if b == nil {
		return
	}
	size := int64(cap(b.Bytes))
	p.budget.release(size, size)
	if size <= MaxPooled {
		b.Bytes = b.Bytes[:0]
		p.pools[class(size)].Put(b)
	}
}

// Grow returns a buffer with the same content and room for at least size bytes, and takes the old buffer back. With an
// error it returns the old buffer.
func (p *Buffers) Grow(b *Buffer, size int64) (*Buffer, error) {
	larger, err := p.GetFor(size, max(size, b.whole))
	if err != nil {
		return b, err
	}
	larger.Bytes = append(larger.Bytes, b.Bytes...)
	p.Put(b)
	return larger, nil
}

// capacity rounds a size up to the capacity of a pooled buffer. A size over MaxPooled stays as it is.
func capacity(size int64) int64 {
	switch {
	case size <= minPooled:
		return minPooled
	case size <= MaxPooled:
		return 1 << bits.Len64(uint64(size-1))
	default:
		return size
	}
}

func class(capacity int64) int { return bits.Len64(uint64(capacity)) - bits.Len64(minPooled) }
