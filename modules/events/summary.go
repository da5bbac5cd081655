package events

// Summary tells how the events of a batch have ended, as far as an answer to the whole batch needs to know. The counts
// except Duplicates add up to the number of events.
type Summary struct {
	// Accepted events are safe. Duplicates are those of them that were safe before.
	Accepted, Duplicates int
	// Dropped events were not kept by policy, for reasons other than those of the next two fields.
	Dropped int
	// Limited events were dropped because the project has used up its quota.
	Limited int
	// Ignored events were dropped by the protocol itself, which takes them out before it looks at the others.
	Ignored int
	// Rejected events are themselves at fault. Rejection is the first rejected event.
	Rejected  int
	Rejection *Event
	// Failed events should be sent again. Failure is the first failed event.
	Failed  int
	Failure *Event
}

// Summary sums up a batch whose events have ended. It counts an event without an outcome as failed, as the ledger does.
func (b *Batch) Summary() Summary {
	var sum Summary
	for i := range b.Events {
		event := &b.Events[i]
		switch outcome := &event.Outcome; outcome.State {
		case StateAccepted:
			sum.Accepted++
			if outcome.Reason == ReasonDuplicate {
				sum.Duplicates++
			}
		case StateDropped:
			switch outcome.Reason {
			case ReasonQuota:
				sum.Limited++
			case ReasonPerformanceEvent:
				sum.Ignored++
			default:
				sum.Dropped++
			}
		case StateRejected:
			sum.Rejected++
			if sum.Rejection == nil {
				sum.Rejection = event
			}
		default:
			sum.Failed++
			if sum.Failure == nil {
				sum.Failure = event
			}
		}
	}
	return sum
}
