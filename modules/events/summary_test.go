package events

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestASummaryCountsEveryEventOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batch := &Batch{Events: make([]Event, rapid.IntRange(0, 30).Draw(t, "events"))}
		var want Summary
		for i := range batch.Events {
			event := &batch.Events[i]
			switch rapid.IntRange(0, 7).Draw(t, "ending") {
			case 0:
				event.Accept()
				want.Accepted++
			case 1:
				event.AcceptDuplicate()
				want.Accepted, want.Duplicates = want.Accepted+1, want.Duplicates+1
			case 2:
				event.Drop(ReasonRule)
				want.Dropped++
			case 3:
				event.Drop(ReasonQuota)
				want.Limited++
			case 4:
				event.Drop(ReasonPerformanceEvent)
				want.Ignored++
			case 5:
				event.Reject(ReasonMissingName, nil)
				if want.Rejected++; want.Rejection == nil {
					want.Rejection = event
				}
			case 6:
				event.Fail(ReasonInFlight, nil)
				if want.Failed++; want.Failure == nil {
					want.Failure = event
				}
			default: // A pending event counts as failed.
				if want.Failed++; want.Failure == nil {
					want.Failure = event
				}
			}
		}
		sum := batch.Summary()
		require.Equal(t, want, sum)
		require.Same(t, want.Failure, sum.Failure)
		require.Same(t, want.Rejection, sum.Rejection)
		require.Equal(t, len(batch.Events), sum.Accepted+sum.Dropped+sum.Limited+sum.Ignored+sum.Rejected+sum.Failed)
	})
}

func TestASummaryCostsNoAllocation(t *testing.T) {
	batch, accepted := mixedBatch(), 0
	require.Zero(t, testing.AllocsPerRun(100, func() { accepted += batch.Summary().Accepted }))
	require.Positive(t, accepted)
}
