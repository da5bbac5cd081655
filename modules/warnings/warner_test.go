package warnings_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/warnings"
	"github.com/opencapture/capture/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// maxQueued is how many warnings may wait to be written.
const maxQueued = 1024

var received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// patience is how long a test waits before it says that something hangs. It is no measure of speed.
const patience = 2 * time.Minute

// testConfig gives a stop all the time that a busy machine may need.
func testConfig() warnings.Config {
	cfg := warnings.DefaultConfig()
	cfg.StopTimeout = patience
	return cfg
}

type fixture struct {
	*warnings.Warner
	sink  *testkit.Sink
	scope tally.TestScope
	logs  *observer.ObservedLogs
}

func newFixture(t *testing.T, cfg warnings.Config) *fixture {
	core, logs := observer.New(zap.WarnLevel)
	f := &fixture{sink: testkit.NewSink(), scope: tally.NewTestScope("", nil), logs: logs}
	var err error
	f.Warner, err = warnings.NewWarner(configs.Fixed(cfg), f.sink, zap.New(core), f.scope)
	require.NoError(t, err)
	require.NoError(t, f.Start(t.Context()))
	return f
}

// observe shows the batch to the warner as one that has ended.
func (f *fixture) observe(batch *events.Batch) { observe(f.Warner, batch) }

func observe(stage events.Stage, batch *events.Batch) {
	settle, err := stage.Process(context.Background(), batch)
	if err == nil && settle != nil {
		settle(context.Background(), batch)
	}
}

// count is the value of a counter, by type.
func (f *fixture) count(name, kind string) int64 {
	if counter, found := f.scope.Snapshot().Counters()[name+"+type="+kind]; found {
		return counter.Value()
	}
	return -1
}

func bad(token string, reason events.Reason) *events.Batch {
	return &events.Batch{Token: token, Received: received, Events: []events.Event{
		{Name: "good", DistinctID: "me", Outcome: events.Outcome{State: events.StateAccepted}},
		{Name: "bad", DistinctID: "me", Outcome: events.Outcome{State: events.StateRejected, Reason: reason}},
	}}
}

func TestAWarningGoesToTheSinkOnceAnInterval(t *testing.T) {
	f := newFixture(t, testConfig())
	for range 5 {
		f.observe(bad("phc_a", events.ReasonInvalidUUID))
	}
	f.observe(bad("phc_b", events.ReasonInvalidUUID))
	f.observe(bad("phc_a", events.ReasonMissingName))
	f.observe(bad("", events.ReasonInvalidToken))
	later := bad("phc_a", events.ReasonInvalidUUID)
	later.Received = received.Add(time.Minute)
	f.observe(later)
	require.NoError(t, f.Stop(t.Context()))

	kept := f.sink.Events()
	require.Len(t, kept, 4)
	for i, want := range []string{`"phc_a"`, `"phc_b"`, `"phc_a"`, `"phc_a"`} {
		require.Equal(t, events.LaneClientWarnings, kept[i].Lane)
		require.Equal(t, "me", kept[i].DistinctID)
		require.Equal(t, want, string(kept[i].Raw.Token))
	}
	require.Contains(t, string(kept[0].Raw.Properties), `"suppressed":0`)
	require.Contains(t, string(kept[3].Raw.Properties), `"suppressed":4`)
	require.EqualValues(t, 3, f.count("sent_total", "invalid_event"))
	require.EqualValues(t, 4, f.count("throttled_total", "invalid_event"))
	require.EqualValues(t, 1, f.count("sent_total", "missing_event_name"))
	require.EqualValues(t, 0, f.count("throttled_total", "missing_event_name"))
	require.EqualValues(t, 0, f.count("dropped_total", "missing_event_name"))
}

func TestABatchIsWarnedOfEachKindOfTrouble(t *testing.T) {
	f := newFixture(t, testConfig())
	batch := bad("phc_a", events.ReasonTooLarge)
	batch.Repaired = true
	batch.Events[0].Notes = events.NoteDistinctIDCut
	f.observe(batch)
	require.NoError(t, f.Stop(t.Context()))
	require.Len(t, f.sink.Events(), 3)
	for _, kind := range []string{"json_repaired", "distinct_id_truncated", "message_size_too_large"} {
		require.EqualValues(t, 1, f.count("sent_total", kind), kind)
	}
}

func TestAWarningThatTheSinkDoesNotTakeIsDroppedAndNotTriedAgain(t *testing.T) {
	f := newFixture(t, testConfig())
	f.sink.FailNext(1)
	f.observe(bad("phc_a", events.ReasonMissingName))
	f.observe(bad("phc_b", events.ReasonMissingName))
	require.NoError(t, f.Stop(t.Context()))
	require.Len(t, f.sink.Events(), 1)
	require.EqualValues(t, 1, f.count("sent_total", "missing_event_name"))
	require.EqualValues(t, 1, f.count("dropped_total", "missing_event_name"))
}

// A sink that hangs costs warnings and nothing else: observe returns although nothing is written.
func TestWhatDoesNotFitTheQueueIsDropped(t *testing.T) {
	f := newFixture(t, testConfig())
	release := f.sink.Hold()
	f.observe(bad("phc_first", events.ReasonMissingName))
	require.Eventually(t, func() bool { return f.sink.Held() == 1 }, patience, time.Millisecond)
	for i := range maxQueued + 10 {
		f.observe(bad("phc_"+time.Duration(i).String(), events.ReasonMissingName))
	}
	require.EqualValues(t, 10, f.count("dropped_total", "missing_event_name"))
	release()
	require.NoError(t, f.Stop(t.Context()))
	require.Len(t, f.sink.Events(), 1+maxQueued)
	require.Zero(t, f.logs.Len())
}

func TestAStopWaitsNoLongerThanItMay(t *testing.T) {
	cfg := testConfig()
	cfg.StopTimeout = 50 * time.Millisecond
	f := newFixture(t, cfg)
	release := f.sink.Hold()
	defer release()
	for _, token := range []string{"phc_a", "phc_b", "phc_c"} {
		f.observe(bad(token, events.ReasonMissingName))
	}
	require.NoError(t, f.Stop(context.Background()), "the sink hangs until the test is over")
	require.Empty(t, f.sink.Events())
	require.EqualValues(t, 3, f.count("dropped_total", "missing_event_name"))
	require.Equal(t, 1, f.logs.FilterField(zap.Int("warnings", 3)).Len(), "what was lost is said")
}

// A request that outlives the stop may still settle.
func TestWhatIsObservedAfterTheStopIsDropped(t *testing.T) {
	f := newFixture(t, testConfig())
	require.NoError(t, f.Stop(t.Context()))
	f.observe(bad("phc_a", events.ReasonMissingName))
	require.Empty(t, f.sink.Events())
	require.EqualValues(t, 1, f.count("dropped_total", "missing_event_name"))
}

// goodBatch is a batch that deserves no warning.
func goodBatch() *events.Batch {
	batch := &events.Batch{Token: "phc_a", Received: received, Events: make([]events.Event, 50)}
	for i := range batch.Events {
		batch.Events[i].Outcome.State = events.StateAccepted
	}
	return batch
}

func TestAGoodBatchCostsNoAllocation(t *testing.T) {
	f := newFixture(t, testConfig())
	batch := goodBatch()
	require.Zero(t, testing.AllocsPerRun(100, func() { f.observe(batch) }))
	throttled := bad("phc_a", events.ReasonMissingName)
	f.observe(throttled)
	require.Zero(t, testing.AllocsPerRun(100, func() { f.observe(throttled) }), "nor does one that is held back")
	require.NoError(t, f.Stop(t.Context()))
}

func BenchmarkAGoodBatch(b *testing.B) {
	live := configs.Fixed(warnings.DefaultConfig())
	warner, err := warnings.NewWarner(live, testkit.NewSink(), zap.NewNop(), tally.NoopScope)
	require.NoError(b, err)
	batch := goodBatch()
	b.ReportAllocs()
	for b.Loop() {
		observe(warner, batch)
	}
}

// broken is a sink that panics with its first batches.
type broken struct {
	events.Sink
	left int
}

func (b *broken) Write(ctx context.Context, batch *events.Batch) {
	if b.left--; b.left >= 0 {
		panic("no paper")
	}
	b.Sink.Write(ctx, batch)
}

func TestASinkThatPanicsLosesItsWarningAlone(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	sink, scope := testkit.NewSink(), tally.NewTestScope("", nil)
	w, err := warnings.NewWarner(configs.Fixed(testConfig()), &broken{Sink: sink, left: 2}, zap.New(core), scope)
	require.NoError(t, err)
	require.NoError(t, w.Start(t.Context()))
	for _, token := range []string{"phc_a", "phc_b", "phc_c"} {
		observe(w, bad(token, events.ReasonInvalidUUID))
	}
	require.NoError(t, w.Stop(t.Context()))
	require.Len(t, sink.Events(), 1)
	told := logs.FilterMessage("the writer of warnings panicked").All()
	require.Len(t, told, 2)
	require.Contains(t, told[0].ContextMap()["stack"], "warnings_test.(*broken).Write")
	dropped := int64(0)
	for _, counter := range scope.Snapshot().Counters() {
		if counter.Name() == "dropped_total" {
			dropped += counter.Value()
		}
	}
	require.EqualValues(t, 2, dropped)
}
