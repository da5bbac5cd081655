package events_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

func TestALateEndIsKnownWithItsLastReport(t *testing.T) {
	t.Parallel()
	for name, reports := range map[string][]bool{"safe": {true, true, true}, "lost": {true, false, true}} {
		late := &events.Late{}
		for range reports {
			late.Await()
		}
		var told []bool
		tell := func(safe bool) { told = append(told, safe) }
		late.Then(tell)
		for i, safe := range reports {
			require.Empty(t, told, "%s: after %d reports", name, i)
			late.Report(safe)
		}
		late.Then(tell)
		require.Equal(t, []bool{name == "safe", name == "safe"}, told, name)
	}
}

func TestAnEventThatEndsLateHasTimedOut(t *testing.T) {
	t.Parallel()
	late := &events.Late{}
	event := events.Event{}
	event.FailLate(late, nil)
	require.Equal(t, events.Outcome{State: events.StateFailed, Reason: events.ReasonTimeout, Late: late}, event.Outcome)
	event = events.Event{}
	event.Accept()
	event.FailLate(late, nil)
	require.Equal(t, events.Outcome{State: events.StateAccepted}, event.Outcome)
}
