package memory

import (
	"runtime"
	"sync"
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

// Budget bounds the bytes that all requests of the process hold at once. It never waits for a holder: if it has no room,
// its user refuses the request. A nil Budget is unbounded. It is safe for concurrent use.
//
// What large holders have given back is litter until the garbage collector has taken it, and litter is memory, too. So
// a large holder gets its bytes only when they, all that is held, and the litter fit into the budget together; where
// they do not, it waits for a collection. Without that, memory would grow with what is sent while a collection lasts,
// and on a busy machine that is long.
type Budget struct {
	limit  atomic.Int64
	kept   atomic.Int64
	inUse  atomic.Int64
	litter atomic.Int64

	collecting sync.Mutex
	collect    func() // returns when all that was garbage at its call is free
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget {
	b := &Budget{collect: runtime.GC}
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
	isLarge := n > Small-held
	for {
		limit := b.limit.Load()
		room := limit
		if isLarge {
			room -= b.kept.Load()
		}
		inUse := b.inUse.Load()
		switch {
		case n > room-inUse:
			return false
		case isLarge && n > limit-inUse-b.litter.Load():
			b.clear(limit - n)
		case b.inUse.CompareAndSwap(inUse, inUse+n):
			return true
		}
	}
}

// clear waits for a collection, unless what is held and the litter are at most most bytes by now. All who wait at once
// share the collection.
func (b *Budget) clear(most int64) {
	b.collecting.Lock()
	defer b.collecting.Unlock()
	if b.inUse.Load()+b.litter.Load() > most {
		litter := b.litter.Load()
		b.collect()
		b.litter.Add(-litter)
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

// discard is release for bytes that the garbage collector has to take. Those of a small holder do not matter.
func (b *Budget) discard(n, held int64) {
	if b != nil && held > Small {
		b.litter.Add(n) // first, so that the bytes are counted at any moment
	}
	b.release(n)
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
