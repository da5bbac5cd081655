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

// Budget bounds the bytes that all requests of the process hold at once. Nobody waits for another holder: if the budget
// has no room, its user refuses the request. A nil Budget is unbounded. It is safe for concurrent use.
//
// What a large holder has given back is litter until the garbage collector has come by, and litter is memory, too. So a
// large holder gets its bytes only once all that is held and the litter leave room for them. If they do not, it waits
// for a collection; litter never has a request refused. Without that, the process would grow by all that is sent
// during a collection, which lasts long on a busy machine: the runtime's memory limit does not stop it.
type Budget struct {
	limit atomic.Int64
	kept  atomic.Int64
	inUse atomic.Int64
	// litter is what large holders have given back since the last collection began.
	litter atomic.Int64

	// collecting is held during a collection.
	collecting sync.Mutex
	// collect returns when what was garbage at its call is free.
	collect func()
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
			b.tidy(limit - n)
		case b.inUse.CompareAndSwap(inUse, inUse+n):
			return true
		}
	}
}

// tidy waits for a collection, unless what is held and the litter come to no more than most bytes. All who wait at once
// share one collection.
func (b *Budget) tidy(most int64) {
	b.collecting.Lock()
	defer b.collecting.Unlock()
	litter := b.litter.Load()
	if b.inUse.Load()+litter > most {
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

// release takes n bytes back from a holder that has held bytes. The bytes of a large holder become litter, even if a
// pool keeps the memory: nobody knows whether it will be used again before the collector takes it. The litter of small
// holders is little, and not counted.
func (b *Budget) release(n, held int64) {
	if b == nil {
		return
	}
	if held > Small {
		b.litter.Add(n) // first, so that the bytes are counted at any moment
	}
	b.inUse.Add(-n)
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
