package route

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

type admit func(caller *events.Caller) error

func (admit) Phase() events.Phase                                    { return events.PhaseAuth }
func (admit) Name() string                                           { return "test" }
func (a admit) Admit(_ context.Context, caller *events.Caller) error { return a(caller) }

func TestTheGatesAreAskedAgainAboutATokenThatTheyDoNotKnow(t *testing.T) {
	var asked []string
	request := &Request{Gates: events.Gates{admit(func(caller *events.Caller) error {
		asked = append(asked, caller.Token)
		if caller.Token != "of nobody" {
			caller.Project = &events.Project{ID: caller.Token}
		}
		return nil
	})}}
	request.Caller.Token, request.Caller.Project = "of the head", &events.Project{ID: "of the head"}
	batch := &events.Batch{Token: "of the head"}
	require.NoError(t, request.Admit(t.Context(), batch))
	require.Equal(t, "of the head", batch.Project.ID)
	require.Empty(t, asked)
	batch.Token = "of the body"
	require.NoError(t, request.Admit(t.Context(), batch))
	require.Equal(t, "of the body", batch.Project.ID)
	// A gate that does not know the token of the body leaves nothing behind of what it said about that of the head.
	batch.Token = "of nobody"
	require.NoError(t, request.Admit(t.Context(), batch))
	require.Nil(t, batch.Project)
	require.Equal(t, []string{"of the body", "of nobody"}, asked)
}

// A refusal that is no fault of the client's leaves the events to be sent again.
func TestEventsOfWhomAGateRefusesEndByItsCode(t *testing.T) {
	for _, code := range events.Codes() {
		request := &Request{Gates: events.Gates{admit(func(*events.Caller) error { return events.Errorf(code, "no") })}}
		batch := &events.Batch{Token: "phc_a", Events: make([]events.Event, 2)}
		batch.Events[0].Drop(events.ReasonRule)
		require.Error(t, request.Admit(t.Context(), batch))
		want := events.StateRejected
		if code == events.Internal || code == events.Unavailable {
			want = events.StateFailed
		}
		require.Equal(t, events.StateDropped, batch.Events[0].Outcome.State)
		require.Equal(t, want, batch.Events[1].Outcome.State, code)
		require.Equal(t, events.ReasonNotAdmitted, batch.Events[1].Outcome.Reason)
		request.Gates = events.Gates{admit(func(*events.Caller) error {
			return events.Errorf(code, "no").For(events.ReasonOrigin)
		})}
		batch = &events.Batch{Token: "phc_b", Events: make([]events.Event, 1)}
		require.Error(t, request.Admit(t.Context(), batch))
		require.Equal(t, events.ReasonOrigin, batch.Events[0].Outcome.Reason)
	}
}
