package delivery_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
)

func TestKafkaAcceptsWhatKafkaHas(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"kafka", "auto"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			s := c.start(config(t, ack))
			requireSafe(t, s.write("a", "b"), events.AckKafka)
			require.EqualValues(t, 1, s.count("acks_total+ack=kafka"))
			require.Equal(t, []string{"a", "b"}, c.names(mainTopic))
			require.Zero(t, s.Waiting())
		})
	}
}

func TestKafkaFailsWithoutKafkaAndOnlyTheFirstRequestWaits(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "kafka")
	cfg.SpoolAfter, cfg.Timeout = time.Millisecond, 20*time.Millisecond
	release := c.hang()
	s := c.start(cfg)
	defer release()
	requireFailed(t, s.write("a"), events.ReasonTimeout)
	s.eventually(func() bool { return s.write("b").Events[0].Outcome.Reason == events.ReasonUnavailable },
		"requests do not wait any more")
	require.True(t, delivery.IsLeftAlone(s.Delivery, mainTopic))
	batch := batchOf(events.LaneMain, "c")
	s.writeBatch(batch)
	for batch.Events[0].Outcome.Reason != events.ReasonUnavailable {
		batch = s.write("c")
	}
	require.Positive(t, batch.RetryAfter, "the client is told when Kafka is tried again")
}

func TestAfterAMomentKafkaIsTriedAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "kafka"))
	mend := c.fail(mainTopic, away)
	requireFailed(t, s.write("a"), events.ReasonUnavailable)
	require.True(t, delivery.IsLeftAlone(s.Delivery, mainTopic))
	mend()
	s.eventually(func() bool { return s.write("b").Ack == events.AckKafka })
	require.False(t, delivery.IsLeftAlone(s.Delivery, mainTopic))
	requireSafe(t, s.writeTo(events.LaneExceptions, "x"), events.AckKafka)
}

func TestAClientThatLeavesSaysNothingAboutKafka(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "kafka"))
	release := c.hang()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	batch := batchOf(events.LaneMain, "a")
	s.Write(ctx, batch)
	requireFailed(t, batch, events.ReasonTimeout)
	require.False(t, delivery.IsLeftAlone(s.Delivery, mainTopic))
	release()
	requireSafe(t, s.write("b"), events.AckKafka)
}

func TestAPartlyAcknowledgedRequestHasOnlyTheRestSpooled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "auto"))
	mend := c.fail(exceptionsTopic, away)
	batch := batchOf(events.LaneMain, "a", "b", "c")
	batch.Events[1].Lane = events.LaneExceptions
	requireSafe(t, s.writeBatch(batch), events.AckSpool)
	require.EqualValues(t, 1, s.Waiting())
	mend()
	s.requireArrived(c, mainTopic, "a", "c")
	require.Equal(t, []string{"b"}, c.names(exceptionsTopic))
	require.EqualValues(t, 1, s.count("drain_records_total"))
	s.eventually(func() bool { return s.writeTo(events.LaneExceptions, "d").Ack == events.AckKafka },
		"then events go straight to Kafka again")
}

func TestAnEventOfSeveralMessagesIsAsSafeAsTheLeastSafeOfThem(t *testing.T) {
	t.Parallel()
	for _, failing := range []string{mainTopic, heatmapsTopic} {
		for _, ack := range []string{"auto", "kafka"} {
			t.Run(ack+", without "+failing, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t)
				s := c.start(config(t, ack))
				mend := c.fail(failing, away)
				batch := batchOf(events.LaneMain, "a")
				batch.Events[0].Heatmap = []byte("{}")
				s.writeBatch(batch)
				if ack == "kafka" {
					requireFailed(t, batch, events.ReasonUnavailable)
					return
				}
				requireSafe(t, batch, events.AckSpool)
				mend()
				s.requireArrived(c, heatmapsTopic, "$$heatmap")
				require.Equal(t, []string{"a"}, c.names(mainTopic))
			})
		}
	}
}

func TestSpoolAnswersFromTheSpoolAndKafkaFollows(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "spool"))
	requireSafe(t, s.write("a"), events.AckSpool)
	requireSafe(t, s.write("b"), events.AckSpool)
	s.requireArrived(c, mainTopic, "a", "b")
	mend := c.fail("", away)
	requireSafe(t, s.write("c"), events.AckSpool)
	mend()
	s.requireArrived(c, mainTopic, "a", "b", "c")
	require.EqualValues(t, 3, s.count("acks_total+ack=spool"))
}

func TestMemoryAnswersAtOnceAndCountsWhatIsLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "memory"))
	requireSafe(t, s.write("before"), events.AckMemory)
	s.eventually(func() bool { return len(c.names(mainTopic)) == 1 })
	release := c.hang()
	requireSafe(t, s.write("a", "b"), events.AckMemory)
	c.fail(mainTopic, away)
	release()
	s.eventually(func() bool { return s.count("lost_total") == 2 })
	require.Equal(t, []string{"before"}, c.names(mainTopic))
	require.EqualValues(t, 2, s.count("acks_total+ack=memory"))
}

func TestMemoryDoesNotAnswer200ForWhatTheProducerDoesNotTake(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.cut.Store(true)
	s := c.start(config(t, "memory"))
	requireFailed(t, s.write("a"), events.ReasonUnavailable)
	require.Zero(t, s.count("lost_total"))
}

func TestNoModeTakesMoreMemoryThanItsBuffer(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"memory", "auto"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := config(t, ack)
			cfg.Buffer, cfg.SpoolAfter, cfg.Timeout = configs.MiB, time.Millisecond, 50*time.Millisecond
			if ack == "auto" { // without a spool, so that only Kafka can take the events
				cfg.Spool.Dir = filepath.Join(cfg.Spool.Dir, "file")
				require.NoError(t, os.WriteFile(cfg.Spool.Dir, nil, 0o600))
			}
			release := c.hang()
			s := c.start(cfg)
			full := func() bool {
				batch := batchOf(events.LaneMain, "a")
				pad(&batch.Events[0], 100_000)
				failure := s.writeBatch(batch).Events[0].Outcome.Err
				return failure != nil && strings.Contains(failure.Error(), "no room in delivery.buffer (1MiB)")
			}
			s.eventually(full, "there is no room any more")
			release()
			s.eventually(func() bool { return delivery.HasRoom(s.Delivery, int64(cfg.Buffer)) },
				"the reports give all of it back")
			s.eventually(func() bool { return s.write("b").Events[0].Outcome.State == events.StateAccepted })
		})
	}
}

func TestLanesHaveAcksOfTheirOwn(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	cfg.Lanes.Exceptions, cfg.Lanes.Heatmaps = "kafka", "spool"
	s := c.start(cfg)
	mend := c.fail("", away)
	batch := batchOf(events.LaneMain, "a", "b", "c")
	batch.Events[1].Lane, batch.Events[2].Lane = events.LaneExceptions, events.LaneHeatmaps
	s.writeBatch(batch)
	require.Equal(t, events.StateAccepted, batch.Events[0].Outcome.State)
	require.Equal(t, events.StateFailed, batch.Events[1].Outcome.State)
	require.Equal(t, events.StateAccepted, batch.Events[2].Outcome.State)
	require.Equal(t, events.AckSpool, batch.Ack)
	mend()
	s.requireArrived(c, mainTopic, "a")
	require.Equal(t, []string{"c"}, c.names(heatmapsTopic))
	require.Empty(t, c.names(exceptionsTopic))
}

func TestAnEventThatHasEndedIsLeftAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "auto"))
	batch := batchOf(events.LaneMain, "a", "b")
	batch.Events[0].Drop(events.ReasonRule)
	s.writeBatch(batch)
	require.Equal(t, events.StateDropped, batch.Events[0].Outcome.State)
	require.Equal(t, []string{"b"}, c.names(mainTopic))
	all := batchOf(events.LaneMain, "c")
	all.Events[0].Drop(events.ReasonRule)
	s.writeBatch(all)
	require.Equal(t, events.AckUnsaid, all.Ack)
}

func TestALateAcknowledgementTakesTheEventsOutOfTheSpoolWithoutACopy(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(impatient(config(t, "auto")))
	release := c.hang()
	requireSafe(t, s.write("a", "b"), events.AckSpool)
	requireSafe(t, s.write("c"), events.AckSpool)
	require.EqualValues(t, 3, s.Waiting())
	release()
	s.requireArrived(c, mainTopic, "a", "b", "c")
	require.EqualValues(t, 1, s.count("drain_records_total"), "only c was sent from the spool")
}

func TestALateFailureLeavesTheEventsToTheDrain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(impatient(config(t, "auto")))
	release := c.hang()
	requireSafe(t, s.write(numbered(0, 50)...), events.AckSpool)
	requireSafe(t, s.write(numbered(50, 50)...), events.AckSpool)
	mend := c.fail("", away)
	release()
	s.eventually(func() bool { return delivery.IsLeftAlone(s.Delivery, mainTopic) }, "the drain has tried, and failed")
	requireSafe(t, s.write(numbered(100, 50)...), events.AckSpool)
	mend()
	s.requireArrived(c, mainTopic, numbered(0, 150)...)
	require.EqualValues(t, 150, s.count("drain_records_total"))
}

// A broker that has waited in vain for its replicas may have appended the messages all the same. But its answer is no
// acknowledgement.
func TestATimeoutOfReplicasIsNoAcknowledgement(t *testing.T) {
	t.Parallel()
	for _, code := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := config(t, "auto")
			cfg.Lanes.Exceptions = "kafka"
			s := c.start(cfg, func(k *kafka.Config) { k.AckTimeout = 50 * time.Millisecond })
			mend := c.fail("", code)
			requireSafe(t, s.write("a"), events.AckSpool)
			batch := s.writeTo(events.LaneExceptions, "x")
			require.Equal(t, events.StateFailed, batch.Events[0].Outcome.State)
			mend()
			s.drained()
			require.Contains(t, c.names(mainTopic), "a")
		})
	}
}

func TestTheNextProcessSendsWhatTheSpoolHolds(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	s := c.start(cfg)
	mend := c.fail("", away)
	requireSafe(t, s.write("a", "b"), events.AckSpool)
	s = c.startAnew(s, cfg, "auto")
	require.EqualValues(t, 2, s.Waiting())
	requireSafe(t, s.write("c"), events.AckSpool)
	mend()
	s.requireArrived(c, mainTopic, "a", "b", "c")
}

func TestStopWaitsForReportsAndKeepsWhatHasNone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := impatient(config(t, "auto"))
	s := c.start(cfg)
	release := c.hang()
	requireSafe(t, s.write("a"), events.AckSpool)
	stopping := make(chan struct{})
	go func() {
		defer close(stopping)
		s.stop()
	}()
	release()
	<-stopping
	s = c.start(cfg)
	require.Zero(t, s.Waiting(), "the late acknowledgement was noted")
	s.stop()

	cfg.StopTimeout = time.Millisecond
	s = c.start(cfg, func(k *kafka.Config) { k.FlushTimeout = 10 * time.Millisecond })
	release = c.hang()
	requireSafe(t, s.write("b"), events.AckSpool)
	s.stop()
	release()
	s = c.start(cfg)
	s.drained()
	require.Equal(t, []string{"a", "b"}, uniqued(c.names(mainTopic)),
		"b may be there twice: nobody knew what became of it")
}

func TestWithoutASpoolEventsGoToKafkaOrFail(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"spool", "auto"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := config(t, ack)
			cfg.Spool.Dir = filepath.Join(cfg.Spool.Dir, "file")
			require.NoError(t, os.WriteFile(cfg.Spool.Dir, nil, 0o600))
			s := c.start(cfg)
			require.NoError(t, s.Ready(t.Context()))
			require.Contains(t, s.String(), "without a spool")
			requireSafe(t, s.write("a"), events.AckKafka)
			c.fail("", away)
			requireFailed(t, s.write("b"), events.ReasonUnavailable)
			require.Zero(t, s.Usage())
		})
	}
}

func TestStopAfterAStartWithoutKafkaOrSpool(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.cut.Store(true)
	cfg := config(t, "auto")
	cfg.Spool.Dir = filepath.Join(cfg.Spool.Dir, "file")
	require.NoError(t, os.WriteFile(cfg.Spool.Dir, nil, 0o600))
	s := c.start(cfg)
	requireFailed(t, s.write("a"), events.ReasonUnavailable)
	s.stop()

	producer, end := c.newProducer(c.clientConfig())
	defer end()
	d, err := delivery.NewDelivery(configs.Fixed(cfg), settings(), producer, zap.NewNop(), tally.NoopScope)
	require.NoError(t, err)
	require.NoError(t, d.Stop(t.Context()), "also without a start")
}

func TestTheMessagesOfARecordingKeepTogether(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "auto"))
	mend := c.fail(recordingsTopic, away)
	batch := batchOf(events.LaneRecordings, "$snapshot", "$snapshot")
	for i := range batch.Events {
		event := &batch.Events[i]
		event.SessionID, event.Raw = "session", events.Raw{}
		event.Recording = &events.Recording{WindowID: []byte(`"w"`), Source: "web", Lib: "web"}
		for range 3 {
			event.Recording.Items = append(event.Recording.Items,
				events.Snapshot{JSON: []byte(`"` + strings.Repeat("x", 600_000) + `"`)})
		}
	}
	requireSafe(t, s.writeBatch(batch), events.AckSpool)
	require.EqualValues(t, 6, s.Waiting())
	mend()
	s.drained()
	var ids []string
	for _, m := range c.messages(recordingsTopic) {
		ids = append(ids, headerOf(&m, "uuid"))
	}
	require.Len(t, uniqued(ids), 6)
	require.Equal(t, batch.Events[0].UUID.String(), ids[0])
	require.Equal(t, batch.Events[1].UUID.String(), ids[3])
}
