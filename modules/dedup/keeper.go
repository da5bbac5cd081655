package dedup

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencapture/capture/modules/store"
)

// keeper makes the reservations of requests that take long anew, before their leases end. So the lease can be short: it
// is what a retry waits for after the death of a node, and not how long a request may take.
type keeper struct {
	reserver store.Reserver
	metrics  *metrics

	mu    sync.Mutex
	works []*work
	late  map[*overdue]struct{}
	due   []*work // of the round that is under way
}

const (
	// longestKept is how long a request may take. After that its reservations end: whatever holds the request, a retry
	// is to have its turn.
	longestKept = 10 * time.Minute
	// rounds is how often the keeper looks within a lease. A reservation is made anew when half of its lease is over.
	rounds = 8
)

// add has the work's reservations kept until drop.
func (k *keeper) add(w *work, now time.Time) {
	w.mu.Lock()
	w.kept, w.begun, w.due = true, now, now.Add(w.lease/2)
	w.mu.Unlock()
	k.mu.Lock()
	w.slot = len(k.works)
	k.works = append(k.works, w)
	k.mu.Unlock()
}

// drop has the work's reservations kept no longer. If the keeper is just about to make them anew, drop waits for it. A
// work that is not kept stays so. drop reports whether it was kept.
func (k *keeper) drop(w *work) (kept bool) {
	w.mu.Lock()
	kept, w.kept = w.kept, false
	w.mu.Unlock()
	if !kept {
		return false
	}
	k.mu.Lock()
	last := len(k.works) - 1
	k.works[w.slot] = k.works[last]
	k.works[w.slot].slot = w.slot
	k.works[last] = nil
	k.works = k.works[:last]
	k.mu.Unlock()
	return true
}

// addLate has reservations of events that end later kept until dropLate.
func (k *keeper) addLate(l *overdue) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.late == nil {
		k.late = map[*overdue]struct{}{}
	}
	k.late[l] = struct{}{}
}

func (k *keeper) dropLate(l *overdue) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.late, l)
}

// run keeps reservations until ctx is over. lease returns the lease that is configured at present.
func (k *keeper) run(ctx context.Context, lease func() time.Duration) {
	timer := time.NewTimer(lease() / rounds)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-timer.C:
			k.round(ctx, now)
			timer.Reset(lease() / rounds)
		}
	}
}

// round makes those reservations anew whose time has come.
func (k *keeper) round(ctx context.Context, now time.Time) {
	k.mu.Lock()
	k.due = append(k.due[:0], k.works...)
	overdue := slices.Collect(maps.Keys(k.late))
	k.mu.Unlock()
	for i, w := range k.due {
		k.due[i] = nil
		k.renew(ctx, w, now)
	}
	for _, l := range overdue {
		if now.Sub(l.begun) > longestKept {
			k.dropLate(l)
		} else if !now.Before(l.due) {
			l.renew(ctx, now)
		}
	}
}

// renew makes the reservations of a work anew if it is time. The work may have settled meanwhile, and may even be that
// of another request by now: the lock tells.
func (k *keeper) renew(ctx context.Context, w *work, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.kept || now.Before(w.due) || now.Sub(w.begun) > longestKept {
		return
	}
	w.due = now.Add(w.lease / 2)
	digests := w.reserved()
	if len(digests) == 0 {
		return
	}
	w.found = growClaims(w.found, len(digests))
	if err := k.reserver.Reserve(ctx, w.token, w.owner, digests, w.lease, w.found); err != nil {
		// The store says in its own metrics that it does not answer. The next round tries again.
		w.due = now
		return
	}
	k.metrics.countRenewed(w.found)
}
