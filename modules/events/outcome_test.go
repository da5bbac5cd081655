package events

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnEventKeepsItsFirstOutcome(t *testing.T) {
	cause := errors.New("cause")
	endings := map[Outcome]func(*Event){
		{State: StateAccepted}:                                   func(e *Event) { e.Accept() },
		{State: StateAccepted, Reason: ReasonDuplicate}:          func(e *Event) { e.AcceptDuplicate() },
		{State: StateDropped, Reason: "dropped"}:                 func(e *Event) { e.Drop("dropped") },
		{State: StateRejected, Reason: "rejected", Err: cause}:   func(e *Event) { e.Reject("rejected", cause) },
		{State: StateFailed, Reason: ReasonInFlight, Err: cause}: func(e *Event) { e.Fail(ReasonInFlight, cause) },
	}
	for want, end := range endings {
		for later, endAgain := range endings {
			t.Run(want.State.String()+" then "+later.State.String(), func(t *testing.T) {
				var e Event
				require.True(t, e.Pending())
				end(&e)
				require.False(t, e.Pending())
				require.Equal(t, want, e.Outcome)
				endAgain(&e)
				require.Equal(t, want, e.Outcome)
			})
		}
	}
}

func TestFailPendingLeavesAloneWhatHasEnded(t *testing.T) {
	batch := &Batch{Events: make([]Event, 3)}
	batch.Events[1].Drop("policy")
	require.Equal(t, 2, batch.Pending())

	cause := errors.New("cause")
	batch.FailPending(ReasonStage, cause)

	require.Zero(t, batch.Pending())
	failed := Outcome{State: StateFailed, Reason: ReasonStage, Err: cause}
	require.Equal(t, failed, batch.Events[0].Outcome)
	require.Equal(t, Outcome{State: StateDropped, Reason: "policy"}, batch.Events[1].Outcome)
	require.Equal(t, failed, batch.Events[2].Outcome)
}

func TestCodeOfFindsTheFirstCodeInTheChain(t *testing.T) {
	inner := Errorf(Invalid, "bad byte")
	for name, test := range map[string]struct {
		err  error
		want Code
	}{
		"nil":                  {nil, Internal},
		"no code":              {errors.New("plain"), Internal},
		"coded":                {inner, Invalid},
		"wrapped by fmt":       {fmt.Errorf("read: %w", inner), Invalid},
		"wrapped by code":      {Errorf(Unavailable, "produce: %w", inner), Unavailable},
		"code below no wrap":   {Errorf(TooLarge, "produce: %v", inner), TooLarge},
		"joined with a plain":  {errors.Join(errors.New("plain"), inner), Invalid},
		"context as the cause": {Errorf(SlowClient, "read: %w", context.DeadlineExceeded), SlowClient},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, CodeOf(test.err)) })
	}
}

func TestErrorfWrapsItsCause(t *testing.T) {
	err := Errorf(Unavailable, "produce %d events: %w", 3, context.DeadlineExceeded)
	require.EqualError(t, err, "produce 3 events: context deadline exceeded")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	both := Errorf(Unavailable, "%w after %w", context.Canceled, context.DeadlineExceeded)
	require.ErrorIs(t, both, context.Canceled)
	require.ErrorIs(t, both, context.DeadlineExceeded)
}
