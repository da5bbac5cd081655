package events

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
)

// twinning is a stage that takes every event for a copy of the first one.
type twinning struct{}

func (twinning) Phase() Phase { return PhaseDedup }
func (twinning) Name() string { return "twinning" }

func (twinning) Process(_ context.Context, batch *Batch) (Settle, error) {
	for i := range batch.Events {
		if batch.Events[i].Identity = 7; i > 0 {
			batch.AcceptTwin(&batch.Events[i])
		}
	}
	return nil, nil
}

// later is a stage behind twinning that changes the batch.
type later func(*Batch)

func (later) Phase() Phase { return PhasePlugins }
func (later) Name() string { return "later" }

func (l later) Process(_ context.Context, batch *Batch) (Settle, error) {
	l(batch)
	return nil, nil
}

func TestATwinIsADuplicateOnlyIfTheOtherEventIsSafe(t *testing.T) {
	accepted := Outcome{State: StateAccepted}
	duplicate := Outcome{State: StateAccepted, Reason: ReasonDuplicate}
	failed := Outcome{State: StateFailed, Reason: ReasonUnavailable, Err: errScripted}
	nothing := later(func(*Batch) {})
	for name, test := range map[string]struct {
		stage later
		end   func(*Event)
		want  []Outcome
	}{
		"safe":   {nothing, func(e *Event) { e.Accept() }, []Outcome{accepted, duplicate}},
		"failed": {nothing, func(e *Event) { e.Fail(ReasonUnavailable, errScripted) }, []Outcome{failed, failed}},
		"rejected": {nothing, func(e *Event) { e.Reject(ReasonTooLarge, errScripted) }, []Outcome{
			{State: StateRejected, Reason: ReasonTooLarge, Err: errScripted},
			{State: StateRejected, Reason: ReasonTooLarge, Err: errScripted},
		}},
		"dropped": {func(b *Batch) { b.Events[0].Drop(ReasonQuota) }, nil, []Outcome{
			{State: StateDropped, Reason: ReasonQuota}, {State: StateDropped, Reason: ReasonQuota},
		}},
		"left without an outcome": {nothing, func(*Event) {}, []Outcome{
			{State: StateFailed, Reason: ReasonUnsettled, Err: errUnsettled},
			{State: StateFailed, Reason: ReasonUnsettled, Err: errUnsettled},
		}},
		"moved": {
			func(b *Batch) { b.Events[0], b.Events[1] = b.Events[1], b.Events[0] },
			func(e *Event) { e.Fail(ReasonUnavailable, errScripted) }, []Outcome{failed, failed},
		},
		"made several": {
			func(b *Batch) { b.Events = append(b.Events, b.Events[0]); b.Events[2].Name = "bad" },
			func(e *Event) {
				if e.Name == "bad" {
					e.Fail(ReasonUnavailable, errScripted)
				}
				e.Accept()
			}, []Outcome{accepted, failed, failed},
		},
		"replaced": {
			func(b *Batch) { b.Events[0] = Event{} }, func(e *Event) { e.Accept() },
			[]Outcome{accepted, {State: StateFailed, Reason: ReasonUnsettled, Err: errUnsettled}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope, twinning{}, test.stage)
			require.NoError(t, err)
			sink := sinkFunc(func(_ context.Context, batch *Batch) {
				for i := range batch.Events {
					if event := &batch.Events[i]; event.Pending() {
						test.end(event)
					}
				}
			})
			ledger := NewLedger()
			batch := &Batch{Events: make([]Event, 2)}
			NewProcessor(pipeline, sink, ledger, zap.NewNop(), tally.NoopScope).Process(t.Context(), batch)
			outcomes := make([]Outcome, len(batch.Events))
			for i := range batch.Events {
				outcomes[i] = batch.Events[i].Outcome
			}
			require.Equal(t, test.want, outcomes)
			totals := ledger.Snapshot()
			require.Equal(t, uint64(len(batch.Events)), totals.Ended())
			require.Equal(t, batch.Summary().Duplicates, int(totals.Duplicates))
		})
	}
}

func TestAnEventThatHasEndedIsNoTwin(t *testing.T) {
	batch := &Batch{Events: []Event{{Identity: 1}, {Identity: 1}}}
	batch.Events[1].Drop(ReasonRule)
	batch.AcceptTwin(&batch.Events[1])
	batch.Events[0].Fail(ReasonTimeout, errScripted)
	batch.conclude()
	require.Equal(t, Outcome{State: StateDropped, Reason: ReasonRule}, batch.Events[1].Outcome)
}
