package dedup

import (
	"slices"
	"sync"
	"time"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
)

// work is what the stage knows of one request, from its Process to its settlement. The next request uses the memory
// again.
type work struct {
	stage  *Stage
	hasher hasher
	table  table

	token string
	owner store.Owner
	lease time.Duration
	// window is how long what is committed is known.
	window time.Duration
	// digests are those of the request's events, each once. The Identity of an event is the index of its digest plus
	// one.
	digests []store.Digest
	// counts counts the events of each digest: in identify all of them, in apply those that go on.
	counts []uint32
	// ends says for each digest how its events have ended.
	ends []end

	// settle is finish, bound once, because binding it allocates.
	settle events.Settle

	// mu guards claims while the keeper knows the work, and what the keeper notes.
	mu     sync.Mutex
	claims []store.Claim
	kept   bool
	slot   int       // among the keeper's works
	begun  time.Time // when the request was reserved for the first time
	due    time.Time // when the keeper makes the reservations again

	// busy, again and found are for the calls that are about a part of the digests.
	busy  []int
	again []store.Digest
	found []store.Claim
}

// end is how the events with a digest have ended. Of several the largest counts.
type end uint8

const (
	endUnknown end = iota
	endSafe
	// endLate: it will be known later whether the event is safe.
	endLate
	endReleased
	// endOpen: the event may become safe although it has failed, and nobody will know.
	endOpen
)

// keptDigests is how many digests' memory is used again.
const keptDigests = 4096

// identify gives the batch's pending events their Identity, and collects their digests. It returns how many of the
// events have no identity.
func (w *work) identify(batch *events.Batch, triple bool) (unidentified int) {
	w.digests, w.counts = w.digests[:0], w.counts[:0]
	w.table.reset(len(batch.Events))
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		digest, numbered, ok := w.hasher.identify(batch, event, triple)
		if !ok {
			event.Identity = 0
			unidentified++
			continue
		}
		index := w.indexOf(digest)
		n := w.counts[index]
		if w.counts[index]++; n > 0 && numbered {
			index = w.indexOf(w.hasher.repeated(digest, n))
		}
		event.Identity = uint32(index + 1)
	}
	return unidentified
}

// indexOf returns the index of a digest, which it adds if it is new.
func (w *work) indexOf(digest store.Digest) int {
	index, found := w.table.find(digest, w.digests)
	if !found {
		w.digests = append(w.digests, digest)
		w.counts = append(w.counts, 0)
	}
	return index
}

// countBusy returns how many of the digests others have reserved.
func (w *work) countBusy() int {
	n := 0
	for _, claim := range w.claims {
		if claim == store.Busy {
			n++
		}
	}
	return n
}

// has reports whether the digest of an Identity is one of this work.
func (w *work) has(identity uint32) bool { return identity > 0 && int(identity) <= len(w.digests) }

// reserved returns the digests that the request has reserved, in the memory for calls. w.mu is locked.
func (w *work) reserved() []store.Digest {
	w.again = w.again[:0]
	for i, claim := range w.claims {
		if claim == store.Reserved {
			w.again = append(w.again, w.digests[i])
		}
	}
	return w.again
}

// prepare makes room for the claims of the digests.
func (w *work) prepare() {
	n := len(w.digests)
	w.claims = slices.Grow(w.claims[:0], n)[:n]
	clear(w.claims)
}

// judge notes how the batch's events have ended.
func (w *work) judge(batch *events.Batch) {
	n := len(w.digests)
	w.ends = slices.Grow(w.ends[:0], n)[:n]
	clear(w.ends)
	for i := range batch.Events {
		event := &batch.Events[i]
		if !w.has(event.Identity) {
			continue
		}
		end := &w.ends[event.Identity-1]
		*end = max(*end, endOf(&event.Outcome))
	}
}

func endOf(outcome *events.Outcome) end {
	switch {
	case outcome.State == events.StateAccepted:
		return endSafe
	case outcome.State == events.StateFailed && outcome.Late != nil:
		return endLate
	case outcome.State == events.StateFailed &&
		(outcome.Reason == events.ReasonTimeout || outcome.Reason == events.ReasonUnsettled):
		return endOpen
	default:
		return endReleased
	}
}

// finish is the settlement: it commits what is safe and releases what is not. It does so at the end of the request, so
// it does not wait for the store.
func (w *work) finish(batch *events.Batch) {
	kept := w.stage.keeper.drop(w)
	w.judge(batch)
	overdue := w.overdue(batch, kept)
	commit, release := w.again[:0], 0
	// The digests to release are moved to the front of the list, which nobody needs any more.
	for i, claim := range w.claims {
		if claim != store.Reserved {
			continue
		}
		switch w.ends[i] {
		case endSafe:
			commit = append(commit, w.digests[i])
		case endReleased:
			w.digests[release] = w.digests[i]
			release++
		case endLate: // see overdue
		case endOpen, endUnknown:
			w.stage.metrics.open.Inc(1)
		}
	}
	w.again = commit
	if len(commit)+release > 0 {
		w.stage.reserver.Settle(w.token, w.owner, commit, w.window, w.digests[:release])
	}
	w.free()
	if overdue != nil {
		overdue.listen()
	}
}

// free gives the memory back. What is left in it keeps no request's memory alive.
func (w *work) free() {
	w.token = ""
	if cap(w.digests) <= keptDigests && cap(w.hasher.head) <= keptDigests {
		w.stage.works.Put(w)
	}
}
