package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"
)

// action is what a scripted stage or sink does about one event.
type action int

const (
	actNothing action = iota
	actAccept
	actDrop
	actReject
	actFail
	actError // the stage gives up; a sink does nothing
	actPanic
	actionCount
)

var errScripted = errors.New("scripted")

// script does its actions in turn over the events of a batch; each batch, told apart by its second, starts at another one.
type script []action

func (s script) run(who string, batch *Batch) error {
	for i := range batch.Events {
		e := &batch.Events[i]
		switch s[(i+int(batch.Received.Unix()))%len(s)] {
		case actAccept:
			e.Accept()
		case actDrop:
			e.Drop(Reason(who + "_dropped"))
		case actReject:
			e.Reject(Reason(who+"_rejected"), errScripted)
		case actFail:
			e.Fail(Reason(who+"_failed"), errScripted)
		case actError:
			return errScripted
		case actPanic:
			panic(errScripted)
		}
	}
	return nil
}

func drawScript(t *rapid.T, label string) script {
	return rapid.SliceOfN(rapid.Map(rapid.IntRange(0, int(actionCount)-1), func(n int) action { return action(n) }), 1, 6).Draw(t, label)
}

type sinkFunc func(ctx context.Context, batch *Batch)

func (f sinkFunc) Write(ctx context.Context, batch *Batch) { f(ctx, batch) }

// process calls Process as a protocol does, which survives a panic.
func process(ctx context.Context, processor Processor, batch *Batch) {
	defer func() {
		if cause := recover(); cause != nil && cause != errScripted { //nolint:errorlint // the value itself was thrown
			panic(cause)
		}
	}()
	processor.Process(ctx, batch)
}

func TestEveryEventEndsInExactlyOneOutcomeAndTheLedgerBalancesAtAnyMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stages []Stage
		for i := range rapid.IntRange(0, 4).Draw(t, "stages") {
			name := fmt.Sprintf("stage%d", i)
			script := drawScript(t, name)
			stages = append(stages, stage{phase: Phase(i), name: name, judge: func(b *Batch) error { return script.run(name, b) }})
		}
		pipeline, err := NewPipeline(tally.NoopScope, stages...)
		require.NoError(t, err)
		sinkScript := drawScript(t, "sink")
		sink := sinkFunc(func(_ context.Context, b *Batch) { _ = sinkScript.run("sink", b) })
		ledger := NewLedger()
		processor := NewProcessor(pipeline, sink, ledger, zap.NewNop(), tally.NoopScope)

		protocol := drawScript(t, "protocol")
		batches := make([]*Batch, rapid.IntRange(1, 8).Draw(t, "batches"))
		for i := range batches {
			batches[i] = &Batch{Events: make([]Event, rapid.IntRange(0, 12).Draw(t, "events"))}
			batches[i].Received = time.Unix(int64(i), 0)
			for j := range batches[i].Events {
				// A protocol only ever drops or rejects by itself.
				switch protocol[j%len(protocol)] {
				case actDrop:
					batches[i].Events[j].Drop("protocol_dropped")
				case actReject:
					batches[i].Events[j].Reject("protocol_rejected", errScripted)
				}
			}
		}

		var calls sync.WaitGroup
		for _, batch := range batches {
			calls.Go(func() { process(context.Background(), processor, batch) })
		}
		done := make(chan struct{})
		go func() { defer close(done); calls.Wait() }()
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			totals := ledger.Snapshot()
			require.Equal(t, totals.Received, totals.Ended())
		}

		want := NewLedger().Snapshot()
		for _, batch := range batches {
			for i := range batch.Events {
				want.Received++
				switch outcome := batch.Events[i].Outcome; outcome.State {
				case StateAccepted:
					want.Accepted++
				case StateDropped:
					want.Dropped[outcome.Reason]++
				case StateRejected:
					want.Rejected[outcome.Reason]++
				case StateFailed:
					want.Failed[outcome.Reason]++
				case StatePending:
					t.Fatalf("an event was left without an outcome")
				}
			}
		}
		require.Equal(t, want, ledger.Snapshot())
	})
}

func TestWhatASinkLeavesUndecidedHasFailed(t *testing.T) {
	pipeline, err := NewPipeline(tally.NoopScope)
	require.NoError(t, err)
	ledger := NewLedger()
	sink := sinkFunc(func(_ context.Context, b *Batch) { b.Events[0].Accept() })
	batch := &Batch{Events: make([]Event, 2)}

	NewProcessor(pipeline, sink, ledger, zap.NewNop(), tally.NoopScope).Process(t.Context(), batch)

	require.Equal(t, StateAccepted, batch.Events[0].Outcome.State)
	require.Equal(t, StateFailed, batch.Events[1].Outcome.State)
	require.Equal(t, ReasonUnsettled, batch.Events[1].Outcome.Reason)
	require.Equal(t, Totals{
		Received: 2, Accepted: 1,
		Dropped: map[Reason]uint64{}, Rejected: map[Reason]uint64{}, Failed: map[Reason]uint64{ReasonUnsettled: 1},
	}, ledger.Snapshot())
}

func TestAPanicReachesTheCallerAfterItsEventsAreCounted(t *testing.T) {
	pipeline, err := NewPipeline(tally.NoopScope, stage{name: "broken", judge: func(*Batch) error { panic("boom") }})
	require.NoError(t, err)
	ledger := NewLedger()
	processor := NewProcessor(pipeline, sinkFunc(func(context.Context, *Batch) {}), ledger, zap.NewNop(), tally.NoopScope)

	require.PanicsWithValue(t, "boom", func() { processor.Process(t.Context(), &Batch{Events: make([]Event, 3)}) })

	require.Equal(t, map[Reason]uint64{ReasonUnsettled: 3}, ledger.Snapshot().Failed)
}

func TestASinkIsNotWrittenToWhenNothingIsPending(t *testing.T) {
	pipeline, err := NewPipeline(tally.NoopScope)
	require.NoError(t, err)
	sink := sinkFunc(func(context.Context, *Batch) { t.Error("written to") })
	batch := &Batch{Events: make([]Event, 1)}
	batch.Events[0].Reject(ReasonInvalidEvent, errScripted)
	NewProcessor(pipeline, sink, NewLedger(), zap.NewNop(), tally.NoopScope).Process(t.Context(), batch)
}

func TestStagesAndSinkAreTimedOncePerBatch(t *testing.T) {
	scope := tally.NewTestScope("", nil)
	pipeline, err := NewPipeline(scope, stage{phase: 1, name: "auth"}, stage{phase: 2, name: "broken", judge: func(b *Batch) error {
		if len(b.Events) > 1 {
			return errScripted
		}
		return nil
	}})
	require.NoError(t, err)
	processor := NewProcessor(pipeline, sinkFunc(func(context.Context, *Batch) {}), NewLedger(), zap.NewNop(), scope)

	processor.Process(t.Context(), &Batch{Events: make([]Event, 1)})
	processor.Process(t.Context(), &Batch{Events: make([]Event, 2)})

	recorded := map[string]int{}
	for key, timer := range scope.Snapshot().Timers() {
		recorded[key] = len(timer.Values())
	}
	require.Equal(t, map[string]int{"stage_seconds+stage=auth": 2, "stage_seconds+stage=broken": 2, "sink_seconds+": 1}, recorded)
}

func TestWhatIsNotAcceptedIsExplainedAtLevelDebug(t *testing.T) {
	pipeline, err := NewPipeline(tally.NoopScope)
	require.NoError(t, err)
	core, logged := observer.New(zap.DebugLevel)
	sink := sinkFunc(func(_ context.Context, b *Batch) { b.Events[0].Accept() })
	batch := &Batch{Token: "phc_1", RequestID: "r1", Events: make([]Event, 2)}
	batch.Events[1].Name, batch.Events[1].DistinctID = "late", "u1"
	batch.Events[1].Reject(ReasonTooLarge, Errorf(TooLarge, "2 bytes"))

	NewProcessor(pipeline, sink, NewLedger(), zap.New(core), tally.NoopScope).Process(t.Context(), batch)

	require.Len(t, logged.All(), 1)
	require.Equal(t, "event rejected", logged.All()[0].Message)
	require.Equal(t, map[string]any{
		"event_id": "00000000-0000-0000-0000-000000000000", "token": "phc_1", "distinct_id": "u1", "event": "late",
		"reason": "event_too_large", "request_id": "r1", "error": "2 bytes",
	}, logged.All()[0].ContextMap())

	quiet, nothing := observer.New(zap.InfoLevel)
	NewProcessor(pipeline, sink, NewLedger(), zap.New(quiet), tally.NoopScope).Process(t.Context(), batch)
	require.Empty(t, nothing.All())
}
