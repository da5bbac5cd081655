package events

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
)

// stage is a Stage whose judgement is a function.
type stage struct {
	phase Phase
	name  string
	judge func(*Batch) error
	// settle is the Settle that the stage returns, or nil.
	settle Settle
}

func (s stage) Phase() Phase { return s.phase }
func (s stage) Name() string { return s.name }
func (s stage) Process(_ context.Context, batch *Batch) (Settle, error) {
	if s.judge == nil {
		return s.settle, nil
	}
	return s.settle, s.judge(batch)
}

// Names lists the stages in their order.
func (p *Pipeline) Names() []string {
	names := make([]string, len(p.stages))
	for i, stage := range p.stages {
		names[i] = stage.Name()
	}
	return names
}

func TestStagesRunByPhaseThenNameInWhateverOrderTheyCome(t *testing.T) {
	stages := []Stage{
		stage{phase: PhaseAuth, name: "auth"},
		stage{phase: PhaseValidate, name: "a"},
		stage{phase: PhaseValidate, name: "b"},
		stage{phase: PhaseQuota, name: "a"},
		stage{phase: PhaseRoute, name: "Z"},
	}
	for range 20 {
		rand.Shuffle(len(stages), func(i, j int) { stages[i], stages[j] = stages[j], stages[i] })
		pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope, stages...)
		require.NoError(t, err)
		require.Equal(t, []string{"auth", "a", "b", "a", "Z"}, pipeline.Names())
	}
}

func TestTwoStagesOfOneNameInOnePhaseAreRefused(t *testing.T) {
	_, err := NewPipeline(zap.NewNop(), tally.NoopScope,
		stage{phase: PhaseQuota, name: "limits"}, stage{phase: PhaseAuth, name: "limits"},
		stage{phase: PhaseQuota, name: "limits"})
	require.EqualError(t, err, `two stages are named "limits" in phase 400: rename one or leave it out`)
}

func TestAStageThatFailsEndsThePendingEventsWithItsCode(t *testing.T) {
	cause := errors.New("store is gone")
	pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope,
		stage{phase: 1, name: "first", judge: func(b *Batch) error { b.Events[0].Drop("policy"); return nil }},
		stage{phase: 2, name: "second", judge: func(*Batch) error { return Errorf(Unavailable, "reserve: %w", cause) }},
		stage{phase: 3, name: "third", judge: func(*Batch) error { t.Error("ran after the failure"); return nil }})
	require.NoError(t, err)
	batch := &Batch{Events: make([]Event, 2)}

	pipeline.Run(t.Context(), batch, nil)

	require.Equal(t, Outcome{State: StateDropped, Reason: "policy"}, batch.Events[0].Outcome)
	failed := batch.Events[1].Outcome
	require.Equal(t, StateFailed, failed.State)
	require.Equal(t, ReasonStage, failed.Reason)
	require.EqualError(t, failed.Err, "stage second: reserve: store is gone")
	require.ErrorIs(t, failed.Err, cause)
	require.Equal(t, Unavailable, CodeOf(failed.Err))
}

// A stage that fails may return a Settle beside its error. Run returns it, with those of the stages before. No stage
// runs after the one that failed.
func TestSettlementsAreCollectedUpToTheStageThatFails(t *testing.T) {
	var settled []string
	settle := func(name string) Settle {
		return func(context.Context, *Batch) { settled = append(settled, name) }
	}
	pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope,
		stage{phase: 1, name: "first", settle: settle("first")},
		stage{phase: 2, name: "plain"},
		stage{phase: 3, name: "fails", settle: settle("fails"), judge: func(*Batch) error { return errScripted }},
		stage{phase: 4, name: "late", settle: settle("late")})
	require.NoError(t, err)
	settlements := pipeline.Run(t.Context(), &Batch{Events: make([]Event, 1)}, nil)
	require.Len(t, settlements, 2)
	for i := range settlements {
		settlements[i].run(t.Context(), &Batch{})
	}
	require.Equal(t, []string{"first", "fails"}, settled)
}
