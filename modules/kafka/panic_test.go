package kafka_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

// watched starts a producer and returns the producer and its log.
func watched(t *testing.T, cfg kafka.Config, options ...zap.Option) (*kafka.Producer, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	producer, err := kafka.NewProducer(cfg, bootstrap, zap.New(core, options...), tally.NoopScope)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, producer.Stop(context.Background())) })
	require.NoError(t, producer.Start(t.Context()))
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, time.Millisecond)
	return producer, logs
}

// requirePanics requires that at least n lines tell of panics of who, each with a stack that names the function.
func requirePanics(t *testing.T, logs *observer.ObservedLogs, who string, n int, function string) {
	t.Helper()
	told := func() []observer.LoggedEntry { return logs.FilterMessage(who + " panicked").All() }
	require.Eventually(t, func() bool { return len(told()) >= n }, patience, time.Millisecond)
	for _, line := range told() {
		require.Contains(t, line.ContextMap()["stack"], function)
	}
	require.Len(t, told(), n)
}

// requireWorks requires that the producer gets messages acknowledged, if need be after a while of failures.
func requireWorks(t *testing.T, producer *kafka.Producer, topic string, first int) {
	t.Helper()
	require.Eventually(t, func() bool {
		r := send(producer, messages(topic, first, 3))
		for _, err := range r.wait(t) {
			if err != nil {
				require.Equal(t, produce.Unavailable, produce.ClassOf(err), "%v", err)
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond)
}

func TestAReportThatPanicsIsOneReport(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, logs := watched(t, cfg)
	topic, before := cfg.Topics.Events, panics.Count()
	var made atomic.Int32
	producer.Produce(messages(topic, 0, 10), func(i int, err error) {
		made.Add(1)
		if i%2 == 0 {
			panic("no paper")
		}
	})
	send(producer, messages(topic, 10, 5)).requireAcknowledged(t)
	require.EqualValues(t, 10, made.Load())
	requirePanics(t, logs, "who takes the producer's reports", 5, "TestAReportThatPanicsIsOneReport")
	require.GreaterOrEqual(t, panics.Count(), before+5)
	require.NoError(t, producer.Flush(t.Context()))
	requireArrived(t, cfg.Brokers, topic, values(0, 15))
}

func TestAReportOfARefusalThatPanicsIsOneReport(t *testing.T) {
	t.Parallel()
	cfg := plain(freeAddress(t))
	producer, _ := newProducer(t, cfg)
	var made atomic.Int32
	producer.Produce(messages("topic", 0, 3), func(int, error) {
		made.Add(1)
		panic("no paper")
	})
	require.EqualValues(t, 3, made.Load())
}

// After a panic of the encoding nobody knows whether the batch went out. Its messages fail, and the next batch has
// another epoch.
func TestABatchWhoseEncodingPanicsFailsAndTheNextIsSent(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	gate := watch(broker)
	cfg := plain(broker.ListenAddrs()...)
	producer, logs := watched(t, cfg)
	topic := cfg.Topics.Events
	requireWorks(t, producer, topic, 0)
	release := hold(broker)
	first := send(producer, messages(topic, 3, 2))
	require.Eventually(t, producer.IsSending, patience, time.Millisecond)
	second := send(producer, messages(topic, 5, 4))
	require.Equal(t, 4, producer.Spoil(topic))
	release()
	first.requireAcknowledged(t)
	second.requireFailed(t, produce.Unavailable)
	requirePanics(t, logs, "the producer's connection to a broker", 1, "kafka.(*link).fill")
	requireWorks(t, producer, topic, 9)
	batches := gate.of(topic)
	require.NotEqual(t, batches[0].epoch, batches[len(batches)-1].epoch)
}

func TestAnAnswerWhoseHandlingPanicsFailsWhatHasNoReport(t *testing.T) {
	t.Parallel()
	broker := fake(t, kfake.NumBrokers(1))
	cfg := plain(broker.ListenAddrs()...)
	cfg.Topics.Partitions = 4
	producer, logs := watched(t, cfg)
	topic := cfg.Topics.Events
	gate := watch(broker)
	release := hold(broker)
	list := messages(topic, 0, 40)
	for i := range list {
		list[i].Key = []byte(strconv.Itoa(i))
	}
	sent := send(producer, list)
	gate.await(t, topic, 1)
	require.True(t, producer.Disown(topic, true))
	release()
	for i, err := range sent.wait(t) {
		if err != nil {
			require.Equal(t, produce.Unavailable, produce.ClassOf(err), "message %d: %v", i, err)
		}
	}
	requirePanics(t, logs, "the producer", 1, "kafka.(*link).answered")
	requireWorks(t, producer, topic, 100)
	require.NoError(t, producer.Flush(t.Context()))
}

func TestProduceThatPanicsReportsEveryMessage(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, logs := watched(t, cfg)
	producer.Forget()
	send(producer, messages(cfg.Topics.Events, 0, 5)).requireFailed(t, produce.Unavailable)
	requirePanics(t, logs, "the producer", 1, "kafka.(*core).take")
	requireWorks(t, producer, cfg.Topics.Events, 5)
	require.NoError(t, producer.Flush(t.Context()))
}

func TestTheAlarmThatPanicsRingsAgain(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.Linger = time.Millisecond // so that each batch needs an alarm
	gate, topic := watch(broker), cfg.Topics.Events
	producer, logs := watched(t, cfg)
	requireWorks(t, producer, topic, 0)
	producer.Ring()
	requirePanics(t, logs, "the producer", 1, "kafka.(*core).ring")
	requireWorks(t, producer, topic, 3)
	batches := gate.of(topic)
	first, last := batches[0], batches[len(batches)-1]
	require.Equal(t, first.id, last.id)
	require.Greater(t, last.epoch, first.epoch,
		"Kafka would take the batch, whose numbers begin at 0 again, for a copy")
	requireArrived(t, cfg.Brokers, topic, values(0, 6))
}

func TestQuestionsThatPanicAreAskedAgain(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, logs := watched(t, cfg)
	requireWorks(t, producer, cfg.Topics.Events, 0)
	producer.Ask()
	requirePanics(t, logs, "the producer", 1, "kafka.(*core).resolve")
	requireWorks(t, producer, cfg.Topics.Events, 3)
}

func TestASupervisionThatPanicsConnectsAnew(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	var left atomic.Int32
	left.Store(1)
	producer, logs := watched(t, cfg, zap.Hooks(func(entry zapcore.Entry) error {
		if entry.Message == "connected to Kafka" && left.Add(-1) >= 0 {
			panic("no ink")
		}
		return nil
	}))
	requirePanics(t, logs, "the supervision of the connection to Kafka", 1, "kafka.(*Producer).supervise")
	requireWorks(t, producer, cfg.Topics.Events, 0)
}

// However often its state is in disorder, the producer makes one report on each message. Every message that it reports
// as acknowledged is in Kafka.
func TestEveryMessageHasOneReportWhileTheProducerPanics(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.Topics.Partitions = 3
	producer, logs := watched(t, cfg)
	topic := cfg.Topics.Events
	const callers, calls, each, apart = 4, 60, 7, 1_000_000
	var callersDone sync.WaitGroup
	all := make([][]*reports, callers)
	for c := range callers {
		callersDone.Go(func() {
			for n := 0; n < calls || logs.FilterMessageSnippet("panicked").Len() < 30; n++ {
				list := messages(topic, c*apart+n*each, each)
				for i := range list {
					list[i].Key = []byte(strconv.Itoa(c))
				}
				r := send(producer, list)
				all[c] = append(all[c], r)
				if n%3 == 0 {
					r.wait(t)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		callersDone.Wait()
	}()
	for broken := 0; ; broken++ {
		select {
		case <-done:
		case <-time.After(time.Millisecond):
			switch broken % 3 {
			case 0:
				producer.Spoil(topic)
			case 1:
				producer.Disown(topic, false)
			case 2:
				producer.Ring()
			}
			continue
		}
		break
	}
	acked := map[string]bool{}
	for c := range callers {
		for n, r := range all[c] {
			for i, err := range r.wait(t) {
				if err == nil {
					acked[strconv.Itoa(c*apart+n*each+i)] = true
				}
			}
		}
	}
	require.Positive(t, logs.FilterMessageSnippet("panicked").Len())
	requireWorks(t, producer, topic, callers*apart)
	require.NoError(t, producer.Flush(t.Context()))
	require.Zero(t, producer.Buffered(), "bytes of messages that have their reports")
	t.Logf("%d messages acknowledged, %d panics",
		len(acked), logs.FilterMessageSnippet("panicked").Len())
	if len(acked) > 0 {
		consumeUntil(t, cfg.Brokers, topic, func(_, value string) bool {
			delete(acked, value)
			return len(acked) == 0
		})
	}
}
