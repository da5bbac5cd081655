package memory

import (
	"sync/atomic"

	"github.com/opencapture/capture/modules/events"
)

// ErrSpent is the error of a request for which the budget has no room.
var ErrSpent = events.Errorf(events.Unavailable, "service unavailable: too much is being received at once")

// ErrNever is the error of a request that needs more than the whole budget: to send it again would not help.
var ErrNever = events.Errorf(events.TooLarge,
	"maximum event size exceeded: the request needs more memory than the service has: send smaller batches")

// Small is how many bytes a small holder has at most: a buffer or a lease. See Budget.Keep.
const Small = 64 << 10

// Budget bounds the bytes that all requests of the process hold at once. It never blocks: if it has no room, its user
// refuses the request. A nil Budget is unbounded. It is safe for concurrent use.
type Budget struct {
	limit atomic.Int64
	kept  atomic.Int64
	inUse atomic.Int64
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget {
	b := &Budget{}
	b.Resize(limit)
	return b
}

// Resize sets the budget to limit bytes. Bytes that are reserved beyond the new limit stay reserved until they are
// released.
func (b *Budget) Resize(limit int64) { b.limit.Store(limit) }

// Keep keeps the last n bytes of the budget for small holders, so that a few large requests cannot shut out the many
// small ones. A new budget keeps none.
func (b *Budget) Keep(n int64) { b.kept.Store(n) }

// reserve takes n bytes for a holder that has held bytes already, and reports whether the budget had them. If not, it
// takes none.
func (b *Budget) reserve(n, held int64) bool {
	if b == nil {
		return true
	}
	for {
		limit := b.limit.Load()
		if n > Small-held {
			limit -= b.kept.Load()
		}
		inUse := b.inUse.Load()
		if n > limit-inUse {
			return false
		}
		if b.inUse.CompareAndSwap(inUse, inUse+n) {
			return true
		}
	}
}

// refusal returns the error of a holder to whom reserve has refused to have n bytes in all: ErrNever if even an unused
// budget has not so many, else ErrSpent.
func (b *Budget) refusal(n int64) *events.Error {
	limit := b.limit.Load()
	if n > Small {
		limit -= b.kept.Load()
	}
	if n > limit {
		return ErrNever
	}
	return ErrSpent
}

// release gives n reserved bytes back.
func (b *Budget) release(n int64) {
	if b != nil {
		b.inUse.Add(-n)
	}
}

// InUse returns how many bytes are reserved; always 0 for a nil Budget.
func (b *Budget) InUse() int64 {
	if b == nil {
		return 0
	}
	return b.inUse.Load()
}

// Limit returns how many bytes the budget has in all; 0 for a nil Budget, which has no limit.
func (b *Budget) Limit() int64 {
	if b == nil {
		return 0
	}
	return b.limit.Load()
}
