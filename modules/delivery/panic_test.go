package delivery_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

// panicky is a producer that keeps the messages that it takes, and panics when a test tells it to.
type panicky struct {
	mu     sync.Mutex
	panics func(produce.Message) bool // whether a call with this message panics; nil: none does
	late   []func()                   // reports on the messages of calls that have panicked
	kept   map[string][]string        // ids by topic
}

func newPanicky() *panicky { return &panicky{kept: map[string][]string{}} }

// when makes calls panic from now on if f is true of one of their messages. With a nil f no call panics.
func (p *panicky) when(f func(produce.Message) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.panics = f
}

func always(produce.Message) bool { return true }

func (p *panicky) Produce(messages []produce.Message, report func(int, error)) {
	var taken []int
	func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := range messages {
			if p.panics != nil && p.panics(messages[i]) {
				p.late = append(p.late, func() { report(i, nil) })
				panic("no paper")
			}
			p.kept[messages[i].Topic] = append(p.kept[messages[i].Topic], headerOf(&messages[i], "event"))
			taken = append(taken, i)
			defer func() { report(i, nil) }()
		}
	}()
}

func (p *panicky) Start(context.Context) error { return nil }
func (p *panicky) Stop(context.Context) error  { return nil }
func (p *panicky) Flush(context.Context) error { return nil }
func (p *panicky) Ready() error                { return nil }

// has returns the messages that the producer has taken for a topic.
func (p *panicky) has(topic string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.kept[topic]...)
}

// startWith starts a delivery to a producer, and returns its log lines.
func startWith(
	t *testing.T, cfg delivery.Config, producer produce.Producer,
) (*delivery.Delivery, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	d, err := delivery.NewDelivery(configs.Fixed(cfg), settings(), producer, zap.New(core), tally.NoopScope)
	require.NoError(t, err)
	delivery.Hurry(d)
	require.NoError(t, d.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, d.Stop(context.Background())) })
	return d, logs
}

func requirePanic(t *testing.T, logs *observer.ObservedLogs, who string) {
	t.Helper()
	told := func() []observer.LoggedEntry { return logs.FilterMessage(who + " panicked").All() }
	eventually(t, func() bool { return len(told()) > 0 }, who)
	require.Contains(t, told()[0].ContextMap()["stack"], "delivery")
}

func TestAProducerThatPanicsFailsWhatItWasHanded(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"auto", "kafka", "memory"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, ack)
			producer := newPanicky()
			producer.when(always)
			d, logs := startWith(t, cfg, producer)
			before := panics.Count()
			for i := range 20 {
				batch := batchOf(events.LaneMain, numbered(i, 1)...)
				d.Write(t.Context(), batch)
				if ack == "auto" {
					requireSafe(t, batch, events.AckSpool)
				} else {
					requireFailed(t, batch, events.ReasonUnavailable)
				}
			}
			require.Greater(t, panics.Count(), before)
			requirePanic(t, logs, "the producer")
			require.True(t, delivery.HasRoom(d, int64(cfg.Buffer)), "the room in the buffer is given back")
			producer.when(nil)
			for _, late := range producer.late {
				late() // their owners no longer wait
			}
			eventually(t, func() bool {
				batch := batchOf(events.LaneMain, "after")
				d.Write(t.Context(), batch)
				return batch.Events[0].Outcome.State == events.StateAccepted
			})
			eventually(t, func() bool { return !delivery.Waits(d) })
			if ack == "auto" {
				require.Equal(t, numbered(0, 20), uniqued(producer.has(topics().Events))[:20], "in their order")
			}
			require.True(t, delivery.HasRoom(d, int64(cfg.Buffer)))
		})
	}
}

// The outcome stays for events of another topic, and for messages before the one with which the producer panics.
func TestAProducerThatPanicsWithOneMessageLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	producer := newPanicky()
	producer.when(func(m produce.Message) bool { return m.Topic == topics().Exceptions })
	cfg := config(t, "auto")
	cfg.Lanes.Exceptions = "kafka"
	d, _ := startWith(t, cfg, producer)
	batch := batchOf(events.LaneMain, "1", "2", "3")
	batch.Events[2].Lane = events.LaneExceptions
	d.Write(t.Context(), batch)
	require.Equal(t, events.StateFailed, batch.Events[2].Outcome.State)
	require.Equal(t, []string{"1", "2"}, producer.has(topics().Events))
	again := batchOf(events.LaneMain, "4")
	d.Write(t.Context(), again)
	requireSafe(t, again, events.AckKafka)
	require.True(t, delivery.HasRoom(d, int64(cfg.Buffer)))
}

func TestADrainThatPanicsGoesOnWithTheSpoolIntact(t *testing.T) {
	t.Parallel()
	producer := newPanicky()
	producer.when(always)
	d, logs := startWith(t, config(t, "auto"), producer)
	names := numbered(0, 50)
	for _, name := range names {
		batch := batchOf(events.LaneMain, name)
		d.Write(t.Context(), batch)
		requireSafe(t, batch, events.AckSpool)
	}
	requirePanic(t, logs, "the drain of topic "+topics().Events)
	require.EqualValues(t, 50, d.Waiting())
	calls := 0
	producer.when(func(produce.Message) bool { // every third message from now on, as long as there are any
		calls++
		return calls%3 == 0 && calls < 10
	})
	eventually(t, func() bool { return !delivery.Waits(d) })
	require.Equal(t, names, uniqued(producer.has(topics().Events)), "nothing is lost, and the order is kept")
}

// The committer's goroutine measures an fsync.
func TestASpoolWhoseCommitsPanicIsASpoolThatDoesNotTakeEvents(t *testing.T) {
	t.Parallel()
	cfg, producer := config(t, "spool"), newPanicky()
	core, logs := observer.New(zap.InfoLevel)
	d, err := delivery.NewDelivery(configs.Fixed(cfg), settings(), producer, zap.New(core),
		panickyTimers{tally.NoopScope})
	require.NoError(t, err)
	delivery.Hurry(d)
	require.NoError(t, d.Start(t.Context()))
	batch := batchOf(events.LaneMain, "1")
	d.Write(t.Context(), batch)
	requireSafe(t, batch, events.AckKafka)
	requirePanic(t, logs, "the committer of a log in the spool")
	require.True(t, delivery.HasRoom(d, int64(cfg.Buffer)))
	require.NoError(t, d.Stop(t.Context()))
}

// panickyTimers is a scope whose timers panic.
type panickyTimers struct{ tally.Scope }

func (panickyTimers) Timer(string) tally.Timer { return panickyTimer{} }

type panickyTimer struct{ tally.Timer }

func (panickyTimer) Record(time.Duration) { panic("no watch") }

// The records may then be in the log, so they do not go to Kafka as well; their client sends the events again.
func TestAppendsThatPanicFailTheirEventsAndNoOthers(t *testing.T) {
	t.Parallel()
	cfg := config(t, "spool")
	cfg.Lanes.Exceptions = "kafka"
	producer := newPanicky()
	core, logs := observer.New(zap.InfoLevel)
	d, err := delivery.NewDelivery(configs.Fixed(cfg), settings(), producer, zap.New(core), tally.NoopScope)
	require.NoError(t, err)
	delivery.BreakAppends(d)
	require.NoError(t, d.Start(t.Context()))
	batch := batchOf(events.LaneMain, "1", "2", "3", "4")
	batch.Events[1].Lane = events.LaneHeatmaps // of another topic, so that two goroutines append
	batch.Events[3].Lane = events.LaneExceptions
	d.Write(t.Context(), batch)
	for i, event := range batch.Events[:3] {
		require.Equal(t, events.StateFailed, event.Outcome.State, "event %d", i)
		require.ErrorContains(t, event.Outcome.Err, "panic: ")
	}
	require.Equal(t, events.StateAccepted, batch.Events[3].Outcome.State)
	requirePanic(t, logs, "an append to the spool")
	require.Zero(t, delivery.Appending(d, topics().Events), "or the topic would wait for ever")
	require.True(t, delivery.HasRoom(d, int64(cfg.Buffer)))
	require.NoError(t, d.Stop(t.Context()))

	again, _ := startWith(t, cfg, producer)
	eventually(t, func() bool { return !delivery.Waits(again) })
	require.Equal(t, "1 3", strings.Join(producer.has(topics().Events), " "), "the log is as it was before the panic")
}
