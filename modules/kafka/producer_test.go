package kafka_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

func TestStopFlushesMessagesInFlight(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Linger = time.Second // so that the messages are in flight when Stop begins
	producer, scope := start(t, cfg)
	var sent []*reports
	size := 0
	for i := range 10 {
		list := spread(cfg.Topics.Events, 20*i, 20)
		for j := range list {
			size += list[j].Size()
		}
		sent = append(sent, send(producer, list))
	}
	require.EqualValues(t, size, scope.Snapshot().Gauges()["buffered_bytes+"].Value())
	require.NoError(t, producer.Stop(t.Context()))
	for _, r := range sent {
		r.requireAcknowledged(t)
	}
	require.Zero(t, scope.Snapshot().Gauges()["buffered_bytes+"].Value())
	requireAllArrived(t, cfg.Brokers, cfg.Topics.Events, 200)

	after := send(producer, messages(cfg.Topics.Events, 0, 2))
	after.requireFailed(t, produce.Unavailable)
	require.ErrorContains(t, after.errs[0], "stopping")
}

func TestStopTellsTheOwnersOfMessagesThatWereNotFlushed(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.FlushTimeout = 200 * time.Millisecond
	producer, scope := start(t, cfg)
	came := watch(broker)
	release := hold(broker)
	defer release()
	inFlight := send(producer, messages(cfg.Topics.Events, 0, 12))
	came.await(t, cfg.Topics.Events, 1)
	behind := send(producer, messages(cfg.Topics.Events, 12, 5))
	began := time.Now()
	require.NoError(t, producer.Stop(t.Context()), "their owners know whether they are kept elsewhere")
	require.Less(t, time.Since(began), cfg.AckTimeout/2)
	release()
	for i, err := range append(inFlight.wait(t), behind.wait(t)...) {
		require.False(t, produce.IsRefusal(err), "message %d: %v", i, err)
		require.True(t, i < 12 || err != nil, "message %d was sent after the end", i)
	}
	require.Eventually(t, func() bool { return scope.Snapshot().Gauges()["buffered_bytes+"].Value() == 0 },
		patience, time.Millisecond)
}

func TestFlushWaitsForEveryReport(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	require.NoError(t, producer.Flush(t.Context()), "there is nothing")
	release := hold(broker)
	defer release()
	r := send(producer, messages(cfg.Topics.Events, 0, 3))
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, producer.Flush(short), context.DeadlineExceeded)
	release()
	require.NoError(t, producer.Flush(t.Context()))
	select {
	case <-r.done:
	default:
		require.Fail(t, "messages have no report")
	}
	r.requireAcknowledged(t)
}

// The producer is stopped while a refusal is being reported and another message waits behind the refused one.
func TestWhatWaitsBehindAReportWhenStoppingHasAReport(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.FlushTimeout = 50 * time.Millisecond
	producer, _ := start(t, cfg)
	refuse(broker, cfg.Topics.Events, kerr.InvalidRecord, 2) // the batch of both, and then the first alone
	r := sendAnd(producer, messages(cfg.Topics.Events, 0, 2), func(i int, _ error) {
		if i == 0 {
			_ = producer.Stop(context.Background())
		}
	})
	errs := r.wait(t)
	require.True(t, produce.IsRefusal(errs[0]), "%v", errs[0])
	require.ErrorContains(t, errs[1], "stopping")
}

func TestStopIsQuickWhileStillConnecting(t *testing.T) {
	t.Parallel()
	// A listener that never answers.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			})
		}
	})
	defer connections.Wait()
	defer listener.Close() //nolint:errcheck // nothing was written
	cfg := config(listener.Addr().String())
	cfg.ConnectTimeout = 300 * time.Millisecond
	cfg.AckTimeout = time.Second
	producer, _ := newProducer(t, cfg)
	began := time.Now()
	require.NoError(t, producer.Start(t.Context()))
	require.Error(t, producer.Ready())
	send(producer, messages(cfg.Topics.Events, 0, 3)).requireFailed(t, produce.Unavailable)
	require.NoError(t, producer.Stop(t.Context()))
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestABrokerThatAppearsAfterTheStartIsFound(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	cfg := config(address)
	cfg.ConnectTimeout = 500 * time.Millisecond
	producer, scope := newProducer(t, cfg)
	r := send(producer, messages(cfg.Topics.Events, 0, 1))
	r.requireFailed(t, produce.Unavailable)
	require.NoError(t, producer.Start(t.Context()), "an unreachable cluster does not end the service")
	require.ErrorContains(t, producer.Ready(), address)
	r = send(producer, messages(cfg.Topics.Events, 0, 2))
	select {
	case <-r.done:
	default:
		require.Fail(t, "there is nothing to wait for")
	}
	r.requireFailed(t, produce.Unavailable)
	require.ErrorContains(t, r.errs[0], "not connected to Kafka")
	require.EqualValues(t, 3, counter(scope, "messages_failed_total+class=unavailable"))

	startEmbedded(t, address)
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, 10*time.Millisecond)
	deliver(t, producer, messages(cfg.Topics.Events, 0, 2))
}

func TestANameThatDoesNotResolveEndsNothing(t *testing.T) {
	t.Parallel()
	cfg := config("kafka.invalid:9092")
	cfg.ConnectTimeout = 500 * time.Millisecond
	producer, _ := newProducer(t, cfg)
	require.NoError(t, producer.Start(t.Context()))
	require.ErrorContains(t, producer.Ready(), "kafka.invalid:9092")
	require.NoError(t, producer.Stop(t.Context()))
}

func TestEveryTopicIsCreatedWhenConnecting(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics = kafka.DefaultConfig().Topics
	cfg.Topics.AIOverflow = "ai_overflow"
	cfg.Topics.Custom = []string{"quarantine", "vip"}
	start(t, cfg)
	for _, topic := range []string{
		"clickhouse_events", "clickhouse_session_recording_events", "historical_events", "client_warnings",
		"exceptions", "events_overflow",
		"session_recording_overflow", "heatmaps", "ai_events", "ai_overflow", "logs", "events_dlq", "quarantine", "vip",
	} {
		require.NotNil(t, broker.TopicInfo(topic), topic)
	}
}

func TestTopicsThatMayNotBeCreatedAreNamedWhenNotReady(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics.Create = false
	producer, _ := newProducer(t, cfg)
	require.NoError(t, producer.Start(t.Context()))
	require.Eventually(t, func() bool {
		err := producer.Ready()
		return err != nil && strings.Contains(err.Error(), cfg.Topics.Events)
	}, patience, 10*time.Millisecond)
	require.NoError(t, broker.CreateTopic(cfg.Topics.Events, 1, nil))
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, 10*time.Millisecond)
}

func TestTopicsThatTakeTooLittleAreNamed(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics.Exceptions += "-exceptions"
	require.NoError(t, broker.CreateTopic(cfg.Topics.Events, 1, map[string]string{"max.message.bytes": "1001024"}))
	require.NoError(t, broker.CreateTopic(cfg.Topics.Exceptions, 1, map[string]string{"max.message.bytes": "20000"}))
	core, logs := observer.New(zap.WarnLevel)
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	producer, err := kafka.NewProducer(cfg, bootstrap, zap.New(core), tally.NewTestScope("", nil))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, producer.Stop(context.Background())) })
	require.NoError(t, producer.Start(t.Context()))
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, 10*time.Millisecond)
	warnings := logs.FilterMessageSnippet("max.message.bytes").All()
	require.Len(t, warnings, 1)
	require.Equal(t, map[string]any{"topics": []any{cfg.Topics.Exceptions}, "needed": int64(1001024)},
		warnings[0].ContextMap())
}

// The memory of batches and requests is used again. No record in Kafka may show that: each record is one whole message,
// even where connections were cut and batches were sent again.
func TestMemoryThatIsUsedAgainNeverMixesMessages(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	requests := 0
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if requests++; requests%7 == 0 {
			return nil, errCut, true
		}
		return nil, nil, false
	})
	cfg := config(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	const callers, rounds = 6, 25
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			for round := range rounds {
				list := spread(cfg.Topics.Events, 1000*c+10*round, 1+(c+round)%10)
				for i := range list {
					text := strings.Repeat(string(list[i].Value)+" ", 1+(c*round+i)%40)
					list[i].Headers = []produce.Header{{Key: list[i].Value, Value: []byte(text)}}
				}
				deliver(t, producer, list)
				for i := range list {
					clear(list[i].Value) // the value is the caller's again
				}
			}
		})
	}
	group.Wait()
	n := 0
	for c := range callers {
		for round := range rounds {
			n += 1 + (c+round)%10
		}
	}
	arrived := map[string]bool{}
	for _, r := range consume(t, cfg.Brokers, cfg.Topics.Events, n) {
		value := string(r.Value)
		require.Equal(t, value, string(r.Key))
		require.Equal(t, value, r.Headers[0].Key)
		require.Empty(t, strings.ReplaceAll(string(r.Headers[0].Value), value+" ", ""))
		require.False(t, arrived[value], value)
		arrived[value] = true
	}
}
