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

	"github.com/opencapture/capture/modules/panics"
)

// action is what a scripted stage or sink does with one event.
type action int

const (
	actNothing action = iota
	actAccept
	actDuplicate
	actDrop
	actReject
	actFail
	actError // the stage gives up; a sink does nothing
	actPanic
	actHang // until the deadline
	actionCount
)

var errScripted = errors.New("scripted")

// script holds actions that take turns over the events of a batch. Each batch starts at another action, which its
// second decides.
type script []action

func (s script) run(ctx context.Context, who string, batch *Batch) error {
	for i := range batch.Events {
		e := &batch.Events[i]
		switch s[(i+int(batch.Received.Unix()))%len(s)] {
		case actAccept:
			e.Accept()
		case actDuplicate:
			e.AcceptDuplicate()
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
		case actHang:
			<-ctx.Done()
		}
	}
	return nil
}

// scripted is a stage that follows its script and notes what its settlements see.
type scripted struct {
	phase           Phase
	judge, settling script
	settled         func(stage Phase, batch *Batch)
}

func (s *scripted) Phase() Phase { return s.phase }
func (s *scripted) Name() string { return fmt.Sprintf("stage%d", s.phase) }

func (s *scripted) Process(ctx context.Context, batch *Batch) (Settle, error) {
	settle := func(ctx context.Context, batch *Batch) {
		s.settled(s.phase, batch)
		if err := ctx.Err(); err != nil {
			panic("the client's end reaches a settlement")
		}
		if s.settling[int(batch.Received.Unix())%len(s.settling)] == actPanic {
			panic(errScripted)
		}
	}
	switch s.settling[0] {
	case actNothing:
		return nil, s.judge.run(ctx, s.Name(), batch)
	default:
		err := s.judge.run(ctx, s.Name(), batch)
		return settle, err
	}
}

func drawScript(t *rapid.T, label string) script {
	return rapid.SliceOfN(rapid.Map(rapid.IntRange(0, int(actionCount)-1), func(n int) action { return action(n) }), 1,
		6).Draw(t, label)
}

type sinkFunc func(ctx context.Context, batch *Batch)

func (f sinkFunc) Write(ctx context.Context, batch *Batch) { f(ctx, batch) }

// Stages and sinks may drop, fail, panic, or hang until the deadline. Still every event ends in one outcome, and the
// ledger balances at any moment. Every stage that returned a Settle has it called once, in reverse order, with the
// outcomes that the protocol sees.
func TestEveryEventEndsInExactlyOneOutcomeAndEverySettlementRunsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type settlement struct {
			stage    Phase
			outcomes []Outcome
		}
		var mu sync.Mutex
		settled := map[*Batch][]settlement{}
		outcomes := func(batch *Batch) []Outcome {
			var all []Outcome
			for i := range batch.Events {
				all = append(all, batch.Events[i].Outcome)
			}
			return all
		}
		var stages []Stage
		for i := range rapid.IntRange(0, 4).Draw(t, "stages") {
			stages = append(stages, &scripted{
				phase: Phase(i), judge: drawScript(t, "judge"), settling: drawScript(t, "settling"),
				settled: func(stage Phase, batch *Batch) {
					mu.Lock()
					defer mu.Unlock()
					settled[batch] = append(settled[batch], settlement{stage, outcomes(batch)})
				},
			})
		}
		pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope, stages...)
		require.NoError(t, err)
		sinkScript := drawScript(t, "sink")
		sink := sinkFunc(func(ctx context.Context, b *Batch) { _ = sinkScript.run(ctx, "sink", b) })
		ledger := NewLedger()
		processor := NewProcessor(pipeline, sink, ledger, zap.NewNop(), tally.NoopScope)

		protocol := drawScript(t, "protocol")
		batches := make([]*Batch, rapid.IntRange(1, 8).Draw(t, "batches"))
		for i := range batches {
			batches[i] = &Batch{Events: make([]Event, rapid.IntRange(0, 12).Draw(t, "events"))}
			batches[i].Received = time.Unix(int64(i), 0)
			for j := range batches[i].Events {
				// A protocol by itself only drops or rejects events.
				switch protocol[j%len(protocol)] {
				case actDrop:
					batches[i].Events[j].Drop("protocol_dropped")
				case actReject:
					batches[i].Events[j].Reject("protocol_rejected", errScripted)
				}
			}
		}

		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		var calls sync.WaitGroup
		for _, batch := range batches {
			calls.Go(func() { processor.Process(ctx, batch) })
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
					if outcome.Reason == ReasonDuplicate {
						want.Duplicates++
					}
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
			last := Phase(len(stages))
			for _, s := range settled[batch] {
				require.Less(t, s.stage, last, "settlements run once, in reverse order")
				last = s.stage
				require.Equal(t, outcomes(batch), s.outcomes)
			}
			require.Len(t, settled[batch], expectedSettlements(ctx, stages, batch))
		}
		require.Equal(t, want, ledger.Snapshot())
	})
}

// expectedSettlements counts the stages that return a Settle for a batch, up to the first stage that panics or fails.
func expectedSettlements(ctx context.Context, stages []Stage, of *Batch) int {
	asked := 0
	again := &Batch{Received: of.Received, Events: make([]Event, len(of.Events))}
	for _, s := range stages {
		stage := s.(*scripted)
		var err error
		caught := panics.Catch(func() error { err = stage.judge.run(ctx, stage.Name(), again); return nil })
		if stage.settling[0] != actNothing && caught == nil {
			asked++
		}
		if caught != nil || err != nil {
			break
		}
	}
	return asked
}

func TestWhatASinkLeavesUndecidedHasFailed(t *testing.T) {
	pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope)
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

func TestAPanicEndsTheBatchAndNothingElse(t *testing.T) {
	broken := func(*Batch) error { panic("boom") }
	settled := 0
	count := func(context.Context, *Batch) { settled++ }
	writes := sinkFunc(func(context.Context, *Batch) { panic("boom") })
	for name, test := range map[string]struct {
		stages []Stage
		reason Reason
		line   string
	}{
		"a stage": {[]Stage{stage{phase: 1, name: "counts", settle: count},
			stage{phase: 2, name: "broken", judge: broken}}, ReasonStage, "stage broken panicked"},
		"a sink": {[]Stage{stage{phase: 1, name: "counts", settle: count}}, ReasonUnsettled, "the sink panicked"},
		"a settlement": {[]Stage{stage{phase: 1, name: "counts", settle: count},
			stage{phase: 2, name: "fails", judge: func(b *Batch) error {
				b.FailPending(ReasonStage, Errorf(Unavailable, "no store"))
				return nil
			}, settle: func(context.Context, *Batch) { panic("boom") }}}, ReasonStage,
			"settlement of stage fails panicked"},
	} {
		settled = 0
		core, logged := observer.New(zap.ErrorLevel)
		pipeline, err := NewPipeline(zap.New(core), tally.NoopScope, test.stages...)
		require.NoError(t, err)
		ledger := NewLedger()
		batch := &Batch{RequestID: "r1", Events: make([]Event, 3)}
		before := panics.Count()
		NewProcessor(pipeline, writes, ledger, zap.New(core), tally.NoopScope).Process(t.Context(), batch)
		require.Equal(t, map[Reason]uint64{test.reason: 3}, ledger.Snapshot().Failed, name)
		require.Equal(t, 1, settled, name)
		require.Equal(t, before+1, panics.Count(), name)
		require.Len(t, logged.All(), 1, name)
		require.Equal(t, test.line, logged.All()[0].Message)
		require.Equal(t, "r1", logged.All()[0].ContextMap()["request_id"])
		require.Contains(t, logged.All()[0].ContextMap()["stack"], "TestAPanicEndsTheBatchAndNothingElse")
		if name != "a settlement" {
			require.Equal(t, Internal, CodeOf(batch.Events[0].Outcome.Err), name)
		}
	}
}

// A Settle that a stage makes once, and not for each batch, costs no allocation.
func TestSettlementsCostNoAllocation(t *testing.T) {
	settle := Settle(func(context.Context, *Batch) {})
	pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope,
		stage{phase: 1, name: "asks"}, stage{phase: 2, name: "asks", settle: settle},
		stage{phase: 3, name: "asks", settle: settle})
	require.NoError(t, err)
	accept := sinkFunc(func(_ context.Context, b *Batch) { b.Events[0].Accept() })
	processor := NewProcessor(pipeline, accept, NewLedger(), zap.NewNop(), tally.NoopScope)
	batch := &Batch{Events: make([]Event, 1)}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		batch.Events[0].Outcome = Outcome{}
		processor.Process(context.Background(), batch)
	}))
}

func TestASinkIsNotWrittenToWhenNothingIsPending(t *testing.T) {
	pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope)
	require.NoError(t, err)
	sink := sinkFunc(func(context.Context, *Batch) { t.Error("written to") })
	batch := &Batch{Events: make([]Event, 1)}
	batch.Events[0].Reject(ReasonInvalidEvent, errScripted)
	NewProcessor(pipeline, sink, NewLedger(), zap.NewNop(), tally.NoopScope).Process(t.Context(), batch)
}

func TestStagesAndSinkAreTimedOncePerBatch(t *testing.T) {
	scope := tally.NewTestScope("", nil)
	pipeline, err := NewPipeline(zap.NewNop(), scope, stage{phase: 1, name: "auth"},
		stage{phase: 2, name: "broken", judge: func(b *Batch) error {
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
	require.Equal(t, map[string]int{"stage_seconds+stage=auth": 2, "stage_seconds+stage=broken": 2, "sink_seconds+": 1},
		recorded)
}

func TestLevelDebugHasALineForEveryEventWithItsOutcome(t *testing.T) {
	pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope)
	require.NoError(t, err)
	core, logged := observer.New(zap.DebugLevel)
	sink := sinkFunc(func(_ context.Context, b *Batch) { b.Events[0].Accept(); b.Events[len(b.Events)-1].Accept() })
	batch := &Batch{Token: "phc_1", RequestID: "r1", Events: make([]Event, 2)}
	batch.Events[0].Name, batch.Events[0].DistinctID = "early", "u1"
	batch.Events[1].Name, batch.Events[1].DistinctID = "late", "u1"
	batch.Events[1].Reject(ReasonTooLarge, Errorf(TooLarge, "2 bytes"))
	batch.Events = append(batch.Events, Event{Name: "spam", DistinctID: "u2"}, Event{Name: "aside", DistinctID: "u3"})
	batch.Events[2].DropByRule("store/spam")
	batch.Events[3].Routing = Routing{DLQ: "event_restriction", Rule: "config/dlq/1"}

	NewProcessor(pipeline, sink, NewLedger(), zap.New(core), tally.NoopScope).Process(t.Context(), batch)

	require.Len(t, logged.All(), 4)
	require.Equal(t, "event dropped", logged.All()[2].Message)
	require.Equal(t, "rule", logged.All()[2].ContextMap()["reason"])
	require.Equal(t, "store/spam", logged.All()[2].ContextMap()["rule"])
	require.Equal(t, "event accepted", logged.All()[3].Message)
	require.Equal(t, "config/dlq/1", logged.All()[3].ContextMap()["rule"])
	require.Equal(t, "event accepted", logged.All()[0].Message)
	require.Equal(t, map[string]any{
		"event_id": "00000000-0000-0000-0000-000000000000", "token": "phc_1", "distinct_id": "u1", "event": "early",
		"request_id": "r1",
	}, logged.All()[0].ContextMap())
	require.Equal(t, "event rejected", logged.All()[1].Message)
	require.Equal(t, map[string]any{
		"event_id": "00000000-0000-0000-0000-000000000000", "token": "phc_1", "distinct_id": "u1", "event": "late",
		"reason": "event_too_large", "request_id": "r1", "error": "2 bytes",
	}, logged.All()[1].ContextMap())

	quiet, nothing := observer.New(zap.InfoLevel)
	NewProcessor(pipeline, sink, NewLedger(), zap.New(quiet), tally.NoopScope).Process(t.Context(), batch)
	require.Empty(t, nothing.All())
}

// A stage must not remove events. If it does, the client is asked to send all of them again: a success would lose what
// was removed.
func TestABatchThatAStageRemovesEventsFromFails(t *testing.T) {
	for name, remove := range map[string]func(*Batch){
		"one":         func(b *Batch) { b.Events = append(b.Events[:0], b.Events[1:]...) },
		"all":         func(b *Batch) { b.Events = nil },
		"and accepts": func(b *Batch) { b.Events[0].Accept(); b.Events = b.Events[:1] },
	} {
		pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope, stage{name: "cuts", judge: func(b *Batch) error {
			remove(b)
			return nil
		}})
		require.NoError(t, err)
		ledger := NewLedger()
		sink := sinkFunc(func(context.Context, *Batch) { t.Error("written to") })
		batch := &Batch{Events: make([]Event, 3)}
		NewProcessor(pipeline, sink, ledger, zap.NewNop(), tally.NoopScope).Process(t.Context(), batch)
		require.Len(t, batch.Events, 3, name)
		require.Equal(t, map[Reason]uint64{ReasonStage: 3}, ledger.Snapshot().Failed, name)
		require.EqualError(t, batch.Events[0].Outcome.Err,
			"stage cuts: it removed events from the batch, which no stage may do")
	}
}

// Whatever a stage or a sink writes as an outcome can be counted, so that the accounts balance.
func TestAnOutcomeThatIsNoneIsCountedAsAFailure(t *testing.T) {
	pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope, stage{name: "odd", judge: func(b *Batch) error {
		b.Events[0].Outcome.State = 99
		b.Events[1].Drop("not\xff text")
		return nil
	}})
	require.NoError(t, err)
	ledger := NewLedger()
	batch := &Batch{Events: make([]Event, 2)}
	NewProcessor(pipeline, sinkFunc(func(context.Context, *Batch) {}), ledger, zap.NewNop(), tally.NoopScope).
		Process(t.Context(), batch)
	totals := ledger.Snapshot()
	require.Equal(t, totals.Received, totals.Ended())
	require.Equal(t, map[Reason]uint64{ReasonUnsettled: 1}, totals.Failed)
	require.Equal(t, map[Reason]uint64{ReasonUnreadable: 1}, totals.Dropped)
	require.Empty(t, Ack(77).String())
}

// What ends the request's own context does not end that of a settlement, and its values are there.
func TestTheClientsEndReachesNoSettlement(t *testing.T) {
	type key struct{}
	ctx, leave := context.WithCancel(context.WithValue(t.Context(), key{}, "kept"))
	seen := errScripted
	pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope, stage{name: "settles", settle: func(
		ctx context.Context, _ *Batch,
	) {
		seen = ctx.Err()
		require.Equal(t, "kept", ctx.Value(key{}))
	}})
	require.NoError(t, err)
	sink := sinkFunc(func(context.Context, *Batch) { leave() })
	processor := NewProcessor(pipeline, sink, NewLedger(), zap.NewNop(), tally.NoopScope)
	processor.Process(ctx, &Batch{Events: make([]Event, 1)})
	require.NoError(t, seen)
}

// A settlement finds its batch in the ledger.
func TestABatchIsInTheLedgerBeforeItSettles(t *testing.T) {
	ledger := NewLedger()
	var received uint64
	pipeline, err := NewPipeline(zap.NewNop(), tally.NoopScope, stage{name: "settles", settle: func(
		context.Context, *Batch,
	) {
		received = ledger.Snapshot().Received
	}})
	require.NoError(t, err)
	sink := sinkFunc(func(context.Context, *Batch) {})
	processor := NewProcessor(pipeline, sink, ledger, zap.NewNop(), tally.NoopScope)
	processor.Process(t.Context(), &Batch{Events: make([]Event, 1)})
	require.EqualValues(t, 1, received)
}
