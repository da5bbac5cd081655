package events

import (
	"maps"
	"sync"
)

// Ledger counts events by how they ended. It enters a batch as a whole, under one lock. So every Snapshot is exact:
// received equals the sum of the outcomes, to the event. It is safe for concurrent use.
type Ledger struct {
	mu    sync.Mutex
	total Totals
}

// Totals are the counts of a ledger since the process began.
type Totals struct {
	Received uint64
	Accepted uint64
	// Duplicates counts those of the accepted events that an earlier request had brought already.
	Duplicates uint64
	Dropped    map[Reason]uint64
	Rejected   map[Reason]uint64
	Failed     map[Reason]uint64
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{total: Totals{
		Dropped:  map[Reason]uint64{},
		Rejected: map[Reason]uint64{},
		Failed:   map[Reason]uint64{},
	}}
}

// Enter counts a batch whose events all have an outcome.
func (l *Ledger) Enter(batch *Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Received += uint64(len(batch.Events))
	for i := range batch.Events {
		switch outcome := &batch.Events[i].Outcome; outcome.State {
		case StateAccepted:
			l.total.Accepted++
			if outcome.Reason == ReasonDuplicate {
				l.total.Duplicates++
			}
		case StateDropped:
			l.total.Dropped[outcome.Reason]++
		case StateRejected:
			l.total.Rejected[outcome.Reason]++
		case StateFailed:
			l.total.Failed[outcome.Reason]++
		case StatePending:
			l.total.Failed[ReasonUnsettled]++
		}
	}
}

// Snapshot returns the totals at one moment.
func (l *Ledger) Snapshot() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	totals := l.total
	totals.Dropped = maps.Clone(totals.Dropped)
	totals.Rejected = maps.Clone(totals.Rejected)
	totals.Failed = maps.Clone(totals.Failed)
	return totals
}

// Ended returns how many events have an outcome; it equals Received.
func (t Totals) Ended() uint64 {
	sum := t.Accepted
	for _, byReason := range []map[Reason]uint64{t.Dropped, t.Rejected, t.Failed} {
		for _, n := range byReason {
			sum += n
		}
	}
	return sum
}
