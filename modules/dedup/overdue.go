package dedup

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
)

// overdue is the part of a request whose events have failed before anybody knew whether they are safe. They stay
// reserved until that is known, which may be long after the answer: so a copy that comes meanwhile waits, is not stored
// beside the event, and is a duplicate once the event is safe. The sink bounds how many there are by what it has in its
// hands.
type overdue struct {
	stage  *Stage
	token  string
	owner  store.Owner
	lease  time.Duration
	window time.Duration
	begun  time.Time
	due    time.Time    // when the keeper makes the reservations again; its goroutine changes it
	ends   []overdueEnd // the events that are to be asked, by the digests that they have

	mu      sync.Mutex
	digests []overdueDigest
	open    int // how many of the digests have not ended
}

// overdueEnd is an event that ends later.
type overdueEnd struct {
	digest int
	end    *events.Late
}

// overdueDigest is a digest whose end is not known as long as some of its events have not ended.
type overdueDigest struct {
	digest  store.Digest
	awaited int
	lost    bool
}

// overdue returns the work's events that end later, or nil if there are none. kept says that the reservations are in
// the store, as far as is known. The batch and the work are the caller's again afterwards.
func (w *work) overdue(batch *events.Batch, kept bool) (l *overdue) {
	var places map[uint32]int
	for i := range batch.Events {
		event := &batch.Events[i]
		end := event.Outcome.Late
		if end == nil || !w.has(event.Identity) {
			continue
		}
		index := event.Identity - 1
		if w.claims[index] != store.Reserved || w.ends[index] != endLate {
			continue
		}
		if l == nil {
			now := time.Now()
			l = &overdue{
				stage: w.stage, token: strings.Clone(w.token), owner: w.owner, lease: w.lease, window: w.window,
				begun: now, due: now,
			}
			if kept {
				l.due = w.due
			}
			places = map[uint32]int{}
		}
		place, known := places[index]
		if !known {
			place = len(l.digests)
			places[index] = place
			l.digests = append(l.digests, overdueDigest{digest: w.digests[index]})
		}
		l.digests[place].awaited++
		l.ends = append(l.ends, overdueEnd{place, end})
	}
	return l
}

// listen has the keeper keep the reservations, and asks the events how they end.
func (l *overdue) listen() {
	l.open = len(l.digests)
	l.stage.keeper.addLate(l)
	ends := l.ends
	l.ends = nil
	for _, of := range ends {
		of.end.Then(func(safe bool) { l.end(of.digest, safe) })
	}
}

// end takes note of how an event has ended. It does not wait for the store.
func (l *overdue) end(index int, safe bool) {
	l.mu.Lock()
	d := &l.digests[index]
	d.awaited--
	d.lost = d.lost || !safe
	ended, lost, digest := d.awaited == 0, d.lost, d.digest
	if ended {
		l.open--
	}
	last := l.open == 0
	l.mu.Unlock()
	if !ended {
		return
	}
	digests := []store.Digest{digest}
	if lost {
		l.stage.metrics.lateReleased.Inc(1)
		l.stage.reserver.Settle(l.token, l.owner, nil, l.window, digests)
	} else {
		l.stage.metrics.lateStored.Inc(1)
		l.stage.reserver.Settle(l.token, l.owner, digests, l.window, nil)
	}
	if last {
		l.stage.keeper.dropLate(l)
	}
}

// digestsThat returns the digests that match.
func (l *overdue) digestsThat(match func(d *overdueDigest) bool) (all []store.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.digests {
		if d := &l.digests[i]; match(d) {
			all = append(all, d.digest)
		}
	}
	return all
}

// renew makes the reservations again.
func (l *overdue) renew(ctx context.Context, now time.Time) {
	open := map[store.Digest]bool{}
	digests := l.digestsThat(func(d *overdueDigest) bool {
		if d.awaited > 0 {
			open[d.digest] = true
		}
		return d.awaited > 0
	})
	if len(digests) == 0 {
		return
	}
	found := make([]store.Claim, len(digests))
	if err := l.stage.reserver.Reserve(ctx, l.token, l.owner, digests, l.lease, found); err == nil {
		l.due = now.Add(l.lease / 2)
		l.stage.metrics.countRenewed(found)
	}
	// What was released meanwhile may have been reserved again.
	again := l.digestsThat(func(d *overdueDigest) bool { return open[d.digest] && d.awaited == 0 && d.lost })
	if len(again) > 0 {
		l.stage.reserver.Settle(l.token, l.owner, nil, l.window, again)
	}
}
