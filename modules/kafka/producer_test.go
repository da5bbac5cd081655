package kafka_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // both are sarama's: one a process, and one that ends by itself ten seconds after a partition had no leader
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"),
		goleak.IgnoreAnyFunction("github.com/eapache/go-resiliency/breaker.(*Breaker).timer"))
}

// Section 4.7 of the protocol: what is accepted has been acknowledged, in the order of the request.
func TestAcceptedEventsAreInKafkaInOrder(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, scope := start(t, cfg)
	for first := 0; first < 100; first += 20 {
		b := batch(first, 20)
		producer.Write(t.Context(), b)
		requireAll(t, b, events.StateAccepted, "")
	}
	records := consume(t, cfg.Brokers, cfg.Topics.Events, 100)
	for i, r := range records {
		require.Equal(t, i, r.n)
		require.Equal(t, "phc_test:user", string(r.Key))
		require.Equal(t, records[0].Partition, r.Partition)
		require.Equal(t, r.value.UUID, string(r.Headers[4].Value))
	}
	require.EqualValues(t, 100, counter(scope, "messages_acked_total+"))
	require.Positive(t, counter(scope, "bytes_total+"))
	require.Zero(t, scope.Snapshot().Gauges()["buffered_bytes+"].Value())
}

// Section 4.7 of the protocol.
func TestConcurrentWritersKeepEachKeysOrder(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Linger = time.Millisecond
	producer, _ := start(t, cfg)
	const writers, each = 8, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := 0; n < each; n += 5 {
				b := batch(n, 5)
				for i := range b.Events {
					b.Events[i].DistinctID = fmt.Sprint(w)
				}
				producer.Write(t.Context(), b)
				requireAll(t, b, events.StateAccepted, "")
			}
		})
	}
	wg.Wait()
	next := map[string]int{}
	for _, r := range consume(t, cfg.Brokers, cfg.Topics.Events, writers*each) {
		require.Equal(t, next[string(r.Key)], r.n, "%s", r.Key)
		next[string(r.Key)]++
	}
	require.Len(t, next, writers)
}

// Sections 0 and 4.7 of the protocol.
func TestAnOversizeEventDoesNotHurtItsNeighbours(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, scope := start(t, cfg)
	b := batch(0, 3)
	b.Events[1].Raw.Properties = []byte(`{"x":"` + strings.Repeat("x", 999_600) + `"}`)
	producer.Write(t.Context(), b)
	require.Equal(t, events.StateAccepted, b.Events[0].Outcome.State)
	require.Equal(t, events.StateRejected, b.Events[1].Outcome.State)
	require.Equal(t, events.ReasonTooLarge, b.Events[1].Outcome.Reason)
	require.Equal(t, events.StateAccepted, b.Events[2].Outcome.State)
	records := consume(t, cfg.Brokers, cfg.Topics.Events, 2)
	require.Equal(t, []int{0, 2}, []int{records[0].n, records[1].n})
	require.EqualValues(t, 1, counter(scope, "messages_failed_total+class=too_large"))
}

func TestAnEventJustUnderTheLimitIsTaken(t *testing.T) {
	t.Parallel()
	brokers := cluster(t)
	for _, compression := range []string{"none", "lz4", "gzip", "snappy", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			cfg := config(brokers...)
			cfg.Compression = compression
			producer, _ := start(t, cfg)
			b := batch(7, 1)
			b.Events[0].Raw.Properties = []byte(`{"n":7,"x":"` + strings.Repeat("x", 998_000) + `"}`)
			producer.Write(t.Context(), b)
			requireAll(t, b, events.StateAccepted, "")
			require.Equal(t, 7, consume(t, cfg.Brokers, cfg.Topics.Events, 1)[0].n)
		})
	}
}

func TestACreatedTopicTakesWhatTheLimitAllows(t *testing.T) {
	t.Parallel()
	brokers := cluster(t)
	cfg := config(brokers...)
	cfg.MaxMessageBytes, cfg.Compression = 3_000_000, "none"
	producer, _ := start(t, cfg)
	b := batch(0, 2)
	b.Events[1].Raw.Properties = fmt.Appendf(nil, `{"n":1,"x":%q}`, strings.Repeat("x", 2_500_000))
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
	require.Len(t, consume(t, brokers, cfg.Topics.Events, 2, kgo.FetchMaxBytes(8<<20), kgo.FetchMaxPartitionBytes(8<<20)), 2)
}

func TestMissingTopicsAreCreatedAsConfigured(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Topics.Partitions = 5
	cfg.Topics.Exceptions += "-exceptions"
	producer, _ := start(t, cfg)
	b := batch(0, 40)
	for i := range b.Events {
		b.Events[i].DistinctID = fmt.Sprint(i)
		b.Events[i].Lane = events.LaneExceptions
	}
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
	partitions := map[int32]bool{}
	for _, r := range consume(t, cfg.Brokers, cfg.Topics.Exceptions, 40) {
		partitions[r.Partition] = true
	}
	require.Len(t, partitions, 5)
}

func TestStopFlushesEventsInFlight(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Linger = time.Second // so that they are in flight when Stop begins
	producer, scope := start(t, cfg)
	const writers, each = 10, 20
	var wg sync.WaitGroup
	inFlight := 0
	for w := range writers {
		b := batch(w*each, each)
		messages := kafka.NewEncoder(cfg).Encode(b).Messages
		for i := range messages {
			inFlight += kafka.MessageSize + messages[i].ByteSize(2)
		}
		wg.Go(func() {
			producer.Write(t.Context(), b)
			requireAll(t, b, events.StateAccepted, "")
		})
	}
	require.Eventually(t, func() bool { return int(scope.Snapshot().Gauges()["buffered_bytes+"].Value()) == inFlight }, patience, time.Millisecond)
	require.NoError(t, producer.Stop(t.Context()))
	wg.Wait()
	require.Len(t, consume(t, cfg.Brokers, cfg.Topics.Events, writers*each), writers*each)

	b := batch(0, 2)
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateFailed, events.ReasonUnavailable)
	require.Equal(t, events.Unavailable, events.CodeOf(b.Events[0].Outcome.Err))
}

func TestABrokerThatAppearsAfterTheStartIsFound(t *testing.T) {
	address := freeAddress(t)
	cfg := config(address)
	cfg.ConnectTimeout = 500 * time.Millisecond
	producer, _ := newProducer(t, cfg)
	require.NoError(t, producer.Start(t.Context()), "an unreachable cluster does not end the service")
	require.ErrorContains(t, producer.Ready(t.Context()), address)

	b := batch(0, 2)
	began := time.Now()
	producer.Write(t.Context(), b)
	require.Less(t, time.Since(began), time.Second, "nothing to wait for")
	requireAll(t, b, events.StateFailed, events.ReasonUnavailable)
	require.Equal(t, events.Unavailable, events.CodeOf(b.Events[0].Outcome.Err))

	startEmbedded(t, address)
	require.Eventually(t, func() bool { return producer.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)
	b = batch(0, 2)
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
}

func TestANameThatDoesNotResolveEndsNothing(t *testing.T) {
	t.Parallel()
	cfg := config("kafka.invalid:9092")
	cfg.ConnectTimeout = 500 * time.Millisecond
	producer, _ := newProducer(t, cfg)
	require.NoError(t, producer.Start(t.Context()))
	require.ErrorContains(t, producer.Ready(t.Context()), "kafka.invalid:9092")
	require.NoError(t, producer.Stop(t.Context()))
}

func TestReadyTellsWhenTheBrokerGoesAway(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer broker.Close()
	producer, _ := start(t, config(broker.ListenAddrs()...))
	broker.Close()
	require.Eventually(t, func() bool { return producer.Ready(t.Context()) != nil }, patience, 50*time.Millisecond)
}

// fake starts a broker whose answers the test controls.
func fake(t *testing.T, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	broker, err := kfake.NewCluster(append(options, kfake.NumBrokers(1))...)
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	return broker
}

// hold keeps produce requests unanswered until the returned function is called.
func hold(broker *kfake.Cluster) (release func()) {
	released := make(chan struct{})
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		broker.SleepControl(func() { <-released })
		return nil, nil, false
	})
	return sync.OnceFunc(func() { close(released) })
}

// Section 4.6 of the protocol: the time that a message has.
func TestWriteReturnsAtTheDeadlineWhenTheBrokerHangs(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	producer, scope := start(t, config(broker.ListenAddrs()...))
	release := hold(broker)
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	b := batch(0, 3)
	began := time.Now()
	producer.Write(ctx, b)
	require.Less(t, time.Since(began), 2*time.Second)
	requireAll(t, b, events.StateFailed, events.ReasonTimeout)
	require.Equal(t, events.Unavailable, events.CodeOf(b.Events[0].Outcome.Err))
	require.EqualValues(t, 3, counter(scope, "messages_failed_total+class=timeout"))
	require.Positive(t, scope.Snapshot().Gauges()["buffered_bytes+"].Value(), "sarama still holds them")

	release()
	require.Eventually(t, func() bool {
		return counter(scope, "late_acks_total+") == 3 && scope.Snapshot().Gauges()["buffered_bytes+"].Value() == 0
	}, patience, 5*time.Millisecond, "a late verdict frees the buffer")
	requireAll(t, b, events.StateFailed, events.ReasonTimeout)
}

func TestWriteWaitsForRoomInTheBuffer(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.MaxMessageBytes = 20 * configs.KiB
	cfg.Buffer = 40 * configs.KiB
	producer, _ := start(t, cfg)
	release := hold(broker)
	defer release()

	first := batch(0, 3)
	for i := range first.Events {
		first.Events[i].Raw.Properties = []byte(`{"n":1,"x":"` + strings.Repeat("x", 13_000) + `"}`)
	}
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		producer.Write(t.Context(), first)
	}()
	waiting := batch(0, 1)
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		waiting = batch(0, 1)
		producer.Write(ctx, waiting)
		return strings.Contains(waiting.Events[0].Outcome.Err.Error(), "no room in kafka.buffer")
	}, patience, 10*time.Millisecond)
	requireAll(t, waiting, events.StateFailed, events.ReasonTimeout)

	release()
	<-returned
	requireAll(t, first, events.StateAccepted, "")
	after := batch(0, 1)
	producer.Write(t.Context(), after)
	requireAll(t, after, events.StateAccepted, "")
}

func TestABatchLargerThanTheBufferIsTaken(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.MaxMessageBytes = 20 * configs.KiB
	cfg.Buffer = 40 * configs.KiB
	producer, _ := start(t, cfg)
	b := batch(0, 500)
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
}

func TestATransientErrorIsTriedAgain(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	producer, _ := start(t, config(broker.ListenAddrs()...))
	refuse(broker, kerr.NotLeaderForPartition, 2)
	b := batch(0, 3)
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
}

// Section 4.7 of the protocol: what a message is refused for.
func TestWhatKafkaRefusesForGoodIsRejected(t *testing.T) {
	t.Parallel()
	for err, reason := range map[*kerr.Error]events.Reason{
		kerr.MessageTooLarge: events.ReasonTooLarge,
		kerr.InvalidRecord:   events.ReasonRefused,
	} {
		t.Run(err.Message, func(t *testing.T) {
			broker := fake(t)
			producer, _ := start(t, config(broker.ListenAddrs()...))
			refuse(broker, err, 1)
			b := batch(0, 1)
			producer.Write(t.Context(), b)
			requireAll(t, b, events.StateRejected, reason)
			b = batch(0, 1)
			producer.Write(t.Context(), b)
			requireAll(t, b, events.StateAccepted, "")
		})
	}
}

func TestAnEventOfSeveralMessagesIsAcceptedOnlyWithAllOfThem(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		event, heatmap *kerr.Error
		state          events.State
		reason         events.Reason
		acked          int64
	}{
		"all are acknowledged":                   {nil, nil, events.StateAccepted, "", 3},
		"the second fails":                       {nil, kerr.TopicAuthorizationFailed, events.StateFailed, events.ReasonUnavailable, 2},
		"the first fails":                        {kerr.TopicAuthorizationFailed, nil, events.StateFailed, events.ReasonUnavailable, 2},
		"the second is refused":                  {nil, kerr.InvalidRecord, events.StateRejected, events.ReasonRefused, 2},
		"the first is refused":                   {kerr.MessageTooLarge, nil, events.StateRejected, events.ReasonTooLarge, 2},
		"the first is refused, the second fails": {kerr.MessageTooLarge, kerr.TopicAuthorizationFailed, events.StateFailed, events.ReasonUnavailable, 1},
		"the first fails, the second is refused": {kerr.TopicAuthorizationFailed, kerr.MessageTooLarge, events.StateFailed, events.ReasonUnavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			broker := fake(t)
			cfg := config(broker.ListenAddrs()...)
			cfg.Topics.Heatmaps += "-heatmaps"
			cfg.Topics.Exceptions += "-exceptions"
			producer, scope := start(t, cfg)
			answer(broker, func(topic string) *kerr.Error {
				switch topic {
				case cfg.Topics.Events:
					return test.event
				case cfg.Topics.Heatmaps:
					return test.heatmap
				default:
					return nil
				}
			}, -1)
			b := batch(0, 2)
			b.Events[0].Heatmap = []byte(`{"$heatmap_data":{}}`)
			b.Events[1].Lane = events.LaneExceptions
			producer.Write(t.Context(), b)
			require.Equal(t, test.state, b.Events[0].Outcome.State, "%v", b.Events[0].Outcome.Err)
			require.Equal(t, test.reason, b.Events[0].Outcome.Reason)
			require.Equal(t, events.StateAccepted, b.Events[1].Outcome.State, "a neighbour has its own verdict")
			require.Equal(t, test.acked, counter(scope, "messages_acked_total+"), "messages are counted, not events")
			require.Zero(t, scope.Snapshot().Gauges()["buffered_bytes+"].Value())
		})
	}
}

func TestASplitRecordingArrivesWholeAndInOrder(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Compression = "none"
	producer, scope := start(t, cfg)
	b := batch(0, 3)
	event := &b.Events[1]
	event.Lane, event.SessionID, event.Raw = events.LaneRecordings, "session-1", events.Raw{}
	event.Recording = &events.Recording{Source: "web", Lib: "web"}
	const snapshots = 100
	for i := range snapshots {
		event.Recording.Items = append(event.Recording.Items, events.Snapshot{JSON: fmt.Appendf(nil, `{"n":%d,"x":%q}`, i, strings.Repeat("x", 50_000))})
	}
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")

	records := consume(t, cfg.Brokers, cfg.Topics.Events, 8, kgo.FetchMaxBytes(8<<20))
	require.Len(t, records, 8, "six parts and two others")
	require.EqualValues(t, 8, counter(scope, "messages_acked_total+"))
	next, ids := 0, map[string]bool{}
	for _, r := range records {
		if string(r.Key) != "session-1" {
			continue
		}
		ids[r.value.UUID] = true
		var data struct {
			Properties struct {
				Items []struct{ N int } `json:"$snapshot_items"`
			}
		}
		require.NoError(t, json.Unmarshal([]byte(r.value.Data), &data))
		for _, item := range data.Properties.Items {
			require.Equal(t, next, item.N)
			next++
		}
	}
	require.Equal(t, snapshots, next)
	require.Len(t, ids, 6)
	require.True(t, ids[event.UUID.String()])
}

func TestEventsWithoutAnOrderGoToAllPartitions(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, _ := start(t, cfg)
	b := batch(0, 60)
	for i := range b.Events {
		b.Events[i].Routing.SkipPerson = true
	}
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
	partitions := map[int32]bool{}
	for _, r := range consume(t, cfg.Brokers, cfg.Topics.Events, 60) {
		require.Nil(t, r.Key)
		partitions[r.Partition] = true
	}
	require.Len(t, partitions, 3)
}

func TestHeatmapDataThatIsTooLargeIsCountedAndItsEventAccepted(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, scope := start(t, cfg)
	b := batch(0, 2)
	b.Events[0].Heatmap = []byte(`{"x":"` + strings.Repeat("x", 1_000_000) + `"}`)
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
	require.Len(t, consume(t, cfg.Brokers, cfg.Topics.Events, 2), 2)
	require.EqualValues(t, 1, counter(scope, "heatmaps_dropped_total+"))
	require.EqualValues(t, 2, counter(scope, "messages_acked_total+"))
	require.Zero(t, counter(scope, "messages_failed_total+class=too_large"))
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
		"clickhouse_events", "clickhouse_session_recording_events", "historical_events", "client_warnings", "exceptions", "events_overflow",
		"session_recording_overflow", "heatmaps", "ai_events", "ai_overflow", "logs", "events_dlq", "quarantine", "vip",
	} {
		require.NotNil(t, broker.TopicInfo(topic), topic)
	}
}

// The memory of acknowledged messages is used again. That must never show: whatever lies in Kafka is one event, whole, also
// where requests were cut off or refused and sent again.
func TestRecycledMemoryNeverMixesEvents(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	var requests atomic.Int64
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if requests.Add(1)%7 == 0 {
			return nil, errors.New("cut off"), true
		}
		return nil, nil, false
	})
	cfg := config(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	const writers, rounds = 6, 25
	var accepted sync.Map
	var count atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for round := range rounds {
				b := batch(round, 1+(w+round)%5)
				sign(b, w*round)
				producer.Write(t.Context(), b)
				for i := range b.Events {
					if b.Events[i].Outcome.State == events.StateAccepted {
						accepted.Store(b.Events[i].UUID.String(), true)
						count.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	require.Positive(t, count.Load())
	arrived := signed(t, consume(t, cfg.Brokers, cfg.Topics.Events, int(count.Load())))
	accepted.Range(func(id, _ any) bool {
		require.Equal(t, 1, arrived[id.(string)], "%s", id)
		return true
	})
}

// A message that its writer has given up may still lie in sarama: what is written meanwhile must not touch it.
func TestAbandonedMessagesAreNotOverwritten(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Linger = time.Second
	producer, _ := start(t, cfg)
	abandoned, following := batch(0, 20), batch(0, 20)
	sign(abandoned, 3)
	sign(following, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	producer.Write(ctx, abandoned)
	requireAll(t, abandoned, events.StateFailed, events.ReasonTimeout)
	producer.Write(t.Context(), following)
	requireAll(t, following, events.StateAccepted, "")
	arrived := signed(t, consume(t, cfg.Brokers, cfg.Topics.Events, 40))
	for _, b := range []*events.Batch{abandoned, following} {
		for i := range b.Events {
			require.Equal(t, 1, arrived[b.Events[i].UUID.String()])
		}
	}
}

// sign makes every part of an event name the event, at a length that depends on salt.
func sign(b *events.Batch, salt int) {
	for i := range b.Events {
		e := &b.Events[i]
		e.DistinctID = e.UUID.String()
		e.Raw.Properties = fmt.Appendf(nil, `{"n":0,"x":%q}`, strings.Repeat(e.DistinctID, 1+(salt+i)%40))
	}
}

// signed checks that every record is one event, whole, and counts them by UUID.
func signed(t *testing.T, records []record) map[string]int {
	t.Helper()
	arrived := map[string]int{}
	for _, r := range records {
		require.Equal(t, "phc_test:"+r.value.UUID, string(r.Key))
		require.Equal(t, r.value.UUID, string(r.Headers[1].Value))
		require.Equal(t, r.value.UUID, string(r.Headers[4].Value))
		var data struct {
			Properties struct{ X string }
		}
		require.NoError(t, json.Unmarshal([]byte(r.value.Data), &data))
		require.NotEmpty(t, data.Properties.X)
		require.Empty(t, strings.ReplaceAll(data.Properties.X, r.value.UUID, ""))
		arrived[r.value.UUID]++
	}
	return arrived
}

// refuse answers the next requests with an error for every partition.
func refuse(broker *kfake.Cluster, code *kerr.Error, times int) {
	answer(broker, func(string) *kerr.Error { return code }, times)
}

// answer answers so many of the next produce requests, or all if that is negative, with what verdict says about each topic.
func answer(broker *kfake.Cluster, verdict func(topic string) *kerr.Error, times int) {
	broker.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if times--; times == 0 {
			broker.DropControl()
		}
		produce := request.(*kmsg.ProduceRequest)
		response := produce.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range produce.Topics {
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition = partition.Partition
				if code := verdict(topic.Topic); code != nil {
					p.ErrorCode = code.Code
				}
				answer.Partitions = append(answer.Partitions, p)
			}
			response.Topics = append(response.Topics, answer)
		}
		return response, nil, true
	})
}

func TestTopicsThatMayNotBeCreatedAreNamedWhenNotReady(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics.Create = false
	producer, _ := newProducer(t, cfg)
	require.NoError(t, producer.Start(t.Context()))
	require.Eventually(t, func() bool {
		err := producer.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), cfg.Topics.Events)
	}, patience, 10*time.Millisecond)
	require.NoError(t, broker.CreateTopic(cfg.Topics.Events, 1, nil))
	require.Eventually(t, func() bool { return producer.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)
}

func TestEventsFailWhileTheBrokerIsGoneAndGoThroughWhenItIsBack(t *testing.T) {
	address, dir := freeAddress(t), t.TempDir()
	listen := kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, address) })
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), listen)
	require.NoError(t, err)
	cfg := config(address)
	cfg.AckTimeout = 500 * time.Millisecond
	producer, _ := start(t, cfg)
	b := batch(0, 1)
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")

	broker.Close()
	// Not more: after three failures sarama tries no partition again for ten seconds.
	for range 2 {
		b := batch(0, 1)
		producer.Write(t.Context(), b)
		require.Equal(t, events.StateFailed, b.Events[0].Outcome.State)
		require.Equal(t, events.Unavailable, events.CodeOf(b.Events[0].Outcome.Err))
	}
	require.Eventually(t, func() bool { return producer.Ready(t.Context()) != nil }, patience, 10*time.Millisecond)

	broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), listen)
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	require.Eventually(t, func() bool {
		b := batch(0, 1)
		producer.Write(t.Context(), b)
		return b.Events[0].Outcome.State == events.StateAccepted
	}, 3*patience, 100*time.Millisecond)
	require.Eventually(t, func() bool { return producer.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)
}

func TestReadyTellsThatMessagesFailThoughTheBrokerAnswers(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.AckTimeout = 200 * time.Millisecond
	producer, _ := start(t, cfg)
	refuse(broker, kerr.KafkaStorageError, 1_000)
	b := batch(0, 1)
	producer.Write(t.Context(), b)
	require.Equal(t, events.StateFailed, b.Events[0].Outcome.State)
	require.Eventually(t, func() bool { return producer.Ready(t.Context()) != nil }, patience, time.Millisecond)
	require.ErrorContains(t, producer.Ready(t.Context()), "messages are not acknowledged")
}

func TestOneForbiddenTopicLeavesTheProducerReady(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	refuse(broker, kerr.TopicAuthorizationFailed, 1)
	b := batch(0, 1)
	producer.Write(t.Context(), b)
	require.Equal(t, events.StateFailed, b.Events[0].Outcome.State)
	require.NoError(t, producer.Ready(t.Context()))
}

func TestBackoffHasAPauseForEveryFurtherAttempt(t *testing.T) {
	for _, retry := range []int{1, 2, 10, 100} {
		require.Positive(t, kafka.Backoff(retry))
		require.LessOrEqual(t, kafka.Backoff(retry), time.Second)
	}
	require.Zero(t, kafka.Backoff(0), "there was no attempt")
}

// leaderless makes the broker say that the topic's partitions have no leader, for as long as still says so. Topics that do not
// exist are unknown.
func leaderless(t *testing.T, broker *kfake.Cluster, name string, still func() bool) {
	t.Helper()
	host, text, err := net.SplitHostPort(broker.ListenAddrs()[0])
	require.NoError(t, err)
	port, err := strconv.ParseInt(text, 10, 32)
	require.NoError(t, err)
	broker.ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		response := request.ResponseKind().(*kmsg.MetadataResponse)
		response.Brokers, response.ControllerID = []kmsg.MetadataResponseBroker{{Host: host, Port: int32(port)}}, 0
		for _, asked := range request.(*kmsg.MetadataRequest).Topics {
			topic := kmsg.NewMetadataResponseTopic()
			topic.Topic = asked.Topic
			info := broker.TopicInfo(*asked.Topic)
			if info == nil {
				topic.ErrorCode = kerr.UnknownTopicOrPartition.Code
				response.Topics = append(response.Topics, topic)
				continue
			}
			topic.TopicID = info.TopicID
			for _, info := range broker.PartitionInfos(*asked.Topic) {
				partition := kmsg.NewMetadataResponseTopicPartition()
				partition.Partition, partition.Leader, partition.LeaderEpoch = info.Partition, info.Leader, info.Epoch
				if *asked.Topic == name && still() {
					partition.ErrorCode, partition.Leader = kerr.LeaderNotAvailable.Code, -1
				}
				topic.Partitions = append(topic.Partitions, partition)
			}
			response.Topics = append(response.Topics, topic)
		}
		return response, nil, true
	})
}

func TestAPartitionWithoutALeaderHoldsNoOtherUp(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics.Exceptions += "-exceptions"
	for _, topic := range cfg.Topics.Names() {
		require.NoError(t, broker.CreateTopic(topic, 1, nil))
	}
	leaderless(t, broker, cfg.Topics.Exceptions, func() bool { return true })
	producer, _ := start(t, cfg)
	stuck := batch(0, 1000)
	for i := range stuck.Events {
		stuck.Events[i].Lane = events.LaneExceptions
	}
	producer.Write(t.Context(), stuck)
	requireAll(t, stuck, events.StateFailed, events.ReasonUnavailable)
	b := batch(0, 10)
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
}

// Kafka has created a topic a moment before its partitions have leaders.
func TestTheFirstEventsOfACreatedTopicAreTaken(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	var asked atomic.Int64
	leaderless(t, broker, cfg.Topics.Events, func() bool { return asked.Add(1) <= 60 })
	producer, _ := start(t, cfg)
	b := batch(0, 10)
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
}

func TestStopSaysHowManyMessagesWereNotFlushed(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.FlushTimeout = 200 * time.Millisecond
	cfg.AckTimeout = 2 * time.Second
	producer, _ := start(t, cfg)
	asked, release := make(chan struct{}, 1), make(chan struct{})
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		select {
		case asked <- struct{}{}:
		default:
		}
		broker.SleepControl(func() { <-release })
		return nil, nil, false
	})
	b := batch(0, 12)
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		producer.Write(t.Context(), b)
	}()
	<-asked
	began := time.Now()
	require.EqualError(t, producer.Stop(t.Context()), "kafka: 12 messages unflushed")
	require.Less(t, time.Since(began), 2*time.Second)
	close(release)
	<-returned
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
	require.Error(t, producer.Ready(t.Context()))
	require.NoError(t, producer.Stop(t.Context()))
	require.Less(t, time.Since(began), 5*time.Second)
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
	require.Eventually(t, func() bool { return producer.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)
	warnings := logs.FilterMessageSnippet("max.message.bytes").All()
	require.Len(t, warnings, 1)
	require.Equal(t, map[string]any{"topics": []any{cfg.Topics.Exceptions}, "needed": int64(1001024)}, warnings[0].ContextMap())
}
