package delivery_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
)

// Events that wait in the spool come before all later events, whatever ack the next process or another lane has.
func TestATopicWithAnythingWaitingTakesNewEventsBehindItOrNone(t *testing.T) {
	t.Parallel()
	for ack, answer := range map[string]events.Ack{
		"kafka": events.AckUnsaid, "spool": events.AckSpool, "auto": events.AckSpool, "memory": events.AckSpool,
	} {
		t.Run("after a restart with "+ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := config(t, "auto")
			s := c.start(cfg)
			mend := c.fail("", away)
			requireSafe(t, s.write("a"), events.AckSpool)
			s = c.startAnew(s, cfg, ack)
			batch := s.write("b")
			want := []string{"a"}
			if answer == events.AckUnsaid {
				requireFailed(t, batch, events.ReasonUnavailable)
				require.Positive(t, batch.RetryAfter)
			} else {
				requireSafe(t, batch, answer)
				want = append(want, "b")
			}
			mend()
			s.requireArrived(c, mainTopic, want...)
			s.eventually(func() bool { return s.write("c").Events[0].Outcome.State == events.StateAccepted })
		})
		t.Run("in a lane with "+ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := config(t, "auto")
			cfg.Lanes.Historical = ack // its topic is the topic of ordinary events
			s := c.start(cfg)
			mend := c.fail("", away)
			requireSafe(t, s.write("a"), events.AckSpool)
			batch := s.writeTo(events.LaneHistorical, "b")
			require.Equal(t, answer, batch.Ack)
			mend()
			s.drained()
			if answer == events.AckUnsaid {
				requireFailed(t, batch, events.ReasonUnavailable)
				require.Equal(t, []string{"a"}, c.names(mainTopic))
				return
			}
			requireSafe(t, batch, answer)
			require.Equal(t, []string{"a", "b"}, c.names(mainTopic))
		})
	}
}

func TestLanesOfOneTopicInOneRequestKeepTheirOrder(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	cfg.Lanes.Historical, cfg.Lanes.Logs = "memory", "spool"
	s := c.start(cfg)
	mend := c.fail("", away)
	batch := batchOf(events.LaneMain, "a", "b", "c", "d")
	batch.Events[1].Lane, batch.Events[2].Lane = events.LaneHistorical, events.LaneLogs
	requireSafe(t, s.writeBatch(batch), events.AckSpool)
	mend()
	s.requireArrived(c, mainTopic, "a", "b", "c", "d")
}

// The events are a, b and c. The resend of a fails for a moment.
func TestADrainThatFailsMidwayKeepsTheOrder(t *testing.T) {
	t.Parallel()
	for _, code := range []*kerr.Error{kerr.MessageTooLarge, kerr.InvalidTimestamp, kerr.UnknownServerError,
		kerr.NotLeaderForPartition, away} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			s := c.start(config(t, "auto"), func(k *kafka.Config) { k.AckTimeout = 2 * time.Second })
			mend := c.fail("", away)
			requireSafe(t, s.write("a", "b", "c"), events.AckSpool)
			// Kafka refuses the batch once, then refuses once the message that is sent alone.
			c.Fault(
				kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: code, Count: 1},
				kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: away, Count: 1},
			)
			mend()
			s.drained()
			want := []string{"a", "b", "c"}
			if dead := c.names(deadTopic); len(dead) > 0 { // Kafka has refused a message that was sent alone
				want = want[len(dead):]
			}
			require.Equal(t, want, c.names(mainTopic))
		})
	}
}

func TestAFullSpoolIsNotOvertaken(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"auto", "spool", "memory"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := small(config(t, "auto"))
			cfg.Lanes.Historical = ack
			s := c.start(cfg)
			mend := c.fail(mainTopic, away)
			accepted := s.fillUp(events.LaneMain)
			refused := s.count("spool_refused_total")
			require.Positive(t, refused)
			// From now on Kafka would take new events. Only the first record of the spool fails.
			stuck := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: mainTopic, Err: away, Count: -1,
				When: holds(accepted[0])})
			mend()
			tried := stuck.Hits() + 5
			s.eventually(func() bool { // the breaker lets some of these requests try
				batch := s.writeTo(events.LaneHistorical, "overtakes")
				requireFailed(t, batch, events.ReasonUnavailable)
				require.Positive(t, batch.RetryAfter)
				return stuck.Hits() >= tried
			})
			require.Greater(t, s.count("spool_refused_total"), refused)
			stuck.Remove()
			s.drained()
			requireSafe(t, s.write("last"), events.AckKafka)
			require.Equal(t, append(accepted, "last"), c.names(mainTopic))
		})
	}
}

// holds returns a condition: a produce request contains the name of an event.
func holds(name string) func(kmsg.Request) bool {
	return func(request kmsg.Request) bool {
		for _, topic := range request.(*kmsg.ProduceRequest).Topics {
			for _, partition := range topic.Partitions {
				if bytes.Contains(partition.Records, []byte(name)) {
					return true
				}
			}
		}
		return false
	}
}

func TestAFullSpoolLeavesOtherTopicsTheirWayToKafka(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"spool", "auto", "kafka", "memory"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := small(config(t, ack))
			cfg.Lanes.Exceptions = "auto"
			s := c.start(cfg)
			c.fail(exceptionsTopic, away)
			s.fillUp(events.LaneExceptions)
			want := events.AckKafka
			if ack == "memory" {
				want = events.AckMemory
			}
			const writers, requests = 4, 10
			ended := make(chan *events.Batch, writers*requests)
			for range writers {
				go func() {
					for range requests {
						batch := batchOf(events.LaneMain, "a")
						pad(&batch.Events[0], 1000) // larger than the room that is left
						s.Write(context.Background(), batch)
						ended <- batch
					}
				}()
			}
			for range writers * requests {
				requireSafe(t, <-ended, want)
			}
			s.eventually(func() bool { return len(c.names(mainTopic)) == writers*requests })
			require.False(t, delivery.IsWaiting(s.Delivery, mainTopic))
		})
	}
}

func TestAnAppendThatFailsWhileRecordsWaitFailsTheEvents(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	s := c.start(cfg)
	mend := c.fail(mainTopic, away)
	requireSafe(t, s.write("a"), events.AckSpool)
	// A directory takes the name of the log's next segment. File modes would not keep a test that runs as root from
	// writing.
	blockSegments(t, cfg.Spool.Dir, mainTopic)
	accepted := []string{"a"}
	s.eventually(func() bool {
		batch := batchOf(events.LaneMain, "large")
		pad(&batch.Events[0], 400_000)
		if s.writeBatch(batch); batch.Ack == events.AckSpool {
			accepted = append(accepted, "large")
		}
		return batch.Events[0].Outcome.State == events.StateFailed
	}, "a segment is full and the next one cannot be made")
	requireFailed(t, s.write("overtakes"), events.ReasonUnavailable)
	mend()
	s.drained()
	require.Equal(t, accepted, c.names(mainTopic))
}

// blockSegments makes directories with the names of a log's next segments.
func blockSegments(t *testing.T, dir, log string) {
	t.Helper()
	for n := 2; n < 20; n++ {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, log, segmentName(n)), 0o700))
	}
}

func segmentName(first int) string {
	return string(bytes.Repeat([]byte("0"), 18)) + string([]byte{byte('0' + first/10), byte('0' + first%10)}) + ".log"
}

func TestASpoolThatOpensLateIsNotOvertaken(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"auto", "spool", "kafka", "memory"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := config(t, "auto")
			first := c.start(cfg)
			mend := c.fail(mainTopic, away)
			requireSafe(t, first.write("a"), events.AckSpool)
			cfg.Ack = ack
			second := c.start(cfg) // the first process has the directory
			require.False(t, delivery.IsOpen(second.Delivery))
			requireFailed(t, second.write("b"), events.ReasonUnavailable)
			require.ErrorContains(t, second.Ready(t.Context()), "cannot be written")
			answer := second.writeTo(events.LaneExceptions, "x")
			if ack == "memory" {
				requireSafe(t, answer, events.AckMemory)
			} else {
				requireSafe(t, answer, events.AckKafka)
			}
			first.stop()
			second.eventually(func() bool { return delivery.IsOpen(second.Delivery) })
			batch := second.write("c")
			mend()
			want := []string{"a"}
			if ack != "kafka" {
				requireSafe(t, batch, events.AckSpool)
				want = append(want, "c")
			}
			second.requireArrived(c, mainTopic, want...)
		})
	}
}

func TestASpoolThatIsGivenUpWhileItWaitsToOpenBlocksNobody(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	first := c.start(cfg)
	mend := c.fail(mainTopic, away)
	requireSafe(t, first.write("a"), events.AckSpool)
	second := c.start(cfg)
	requireFailed(t, second.write("b"), events.ReasonUnavailable)
	mend()
	first.drained()
	second.eventually(func() bool { return second.write("c").Ack == events.AckKafka }, "nothing waits there any more")
	names := c.names(mainTopic)
	require.Equal(t, "a", names[0])
	require.NoError(t, second.Ready(t.Context()))
}

func TestARecordOfANewerVersionIsKeptWithAllThatIsBehindIt(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	s := c.start(cfg)
	mend := c.fail("", away)
	requireSafe(t, s.write("a", "b"), events.AckSpool)
	s.stop()
	appendRecords(t, cfg, mainTopic, []byte{99, 1, 2, 3})
	s = c.start(cfg)
	requireSafe(t, s.write("c"), events.AckSpool)
	mend()
	s.eventually(func() bool { return s.Waiting() == 2 })
	requireSafe(t, s.write("d"), events.AckSpool)
	require.Equal(t, []string{"a", "b"}, c.names(mainTopic))
	s.stop()
	_, err := onSpool(t, c, cfg, "verify")
	require.ErrorContains(t, err, "record 3: the record is not one of this version of the service")
}

func TestAForbiddenTopicIsAnOutageOfThatTopic(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	cfg.Lanes.Exceptions = "kafka"
	s := c.start(cfg)
	allowMain, allowExceptions := c.fail(mainTopic, kerr.TopicAuthorizationFailed),
		c.fail(exceptionsTopic, kerr.TopicAuthorizationFailed)
	requireSafe(t, s.write("a", "b"), events.AckSpool)
	requireSafe(t, s.write("c"), events.AckSpool)
	requireFailed(t, s.writeTo(events.LaneExceptions, "x"), events.ReasonUnavailable)
	requireSafe(t, s.writeTo(events.LaneHeatmaps, "h"), events.AckKafka)
	require.Empty(t, c.names(deadTopic))
	allowMain()
	allowExceptions()
	s.requireArrived(c, mainTopic, "a", "b", "c")
	s.eventually(func() bool { return s.writeTo(events.LaneExceptions, "y").Ack == events.AckKafka })
	require.Empty(t, c.names(deadTopic))
	require.Equal(t, "y", c.names(exceptionsTopic)[0])
}

func TestAMissingTopicIsAnOutageOfThatTopic(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "auto"))
	require.NoError(t, c.DeleteTopic(heatmapsTopic))
	requireSafe(t, s.writeTo(events.LaneHeatmaps, "a"), events.AckSpool)
	requireSafe(t, s.writeTo(events.LaneHeatmaps, "b"), events.AckSpool)
	requireSafe(t, s.write("x"), events.AckKafka)
	require.NoError(t, c.CreateTopic(heatmapsTopic, 2, nil))
	s.requireArrived(c, heatmapsTopic, "a", "b")
	require.Empty(t, c.names(deadTopic))
}

// The retries of clients overtake no event: while a request fails, the next request of the same user comes behind it or
// fails too.
func TestARequestThatGaveUpIsDrainedAtMostBehindTheOthers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "auto"))
	mend := c.fail("", away)
	requireSafe(t, s.write("a"), events.AckSpool)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	batch := batchOf(events.LaneMain, "gone")
	s.Write(ctx, batch)
	require.Zero(t, batch.Pending())
	requireSafe(t, s.write("b"), events.AckSpool)
	mend()
	s.drained()
	names := c.names(mainTopic)
	require.Subset(t, []string{"a", "gone", "b"}, names)
	require.Equal(t, "a", names[0])
	require.Equal(t, "b", names[len(names)-1])
}

// The two events do not fit into one batch. The first batch fails for a passing reason, and Kafka would take the
// second.
func TestWhatIsBehindAMessageThatFailedIsNotSentBeforeIt(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"auto", "spool", "kafka"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			s := c.start(config(t, ack))
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: mainTopic, Err: away, Count: 1})
			batch := batchOf(events.LaneMain, "a", "b")
			for i := range batch.Events {
				pad(&batch.Events[i], 600_000)
			}
			s.writeBatch(batch)
			if ack == "kafka" {
				requireFailed(t, batch, events.ReasonUnavailable)
				s.requireArrived(c, mainTopic)
				return
			}
			requireSafe(t, batch, events.AckSpool)
			s.requireArrived(c, mainTopic, "a", "b")
		})
	}
}

// Under a steady load there is always a request that is about to append while its topic waits, and so the topic goes on
// waiting.
func TestEventsGoToKafkaAgainUnderASteadyLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "auto"))
	mend := c.fail("", away)
	requireSafe(t, s.write("first"), events.AckSpool)
	var load sync.WaitGroup
	var direct atomic.Int64
	stop := make(chan struct{})
	for range 16 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if batch := s.write("x"); batch.Ack == events.AckKafka {
					direct.Add(1)
				}
			}
		})
	}
	mend()
	s.eventually(func() bool { return direct.Load() > 1000 })
	close(stop)
	load.Wait()
	s.drained()
}
