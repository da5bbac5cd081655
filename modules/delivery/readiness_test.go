package delivery_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/events"
)

// agree waits until requests of the lane are answered as wanted and readiness agrees, and returns the error of
// readiness.
func (s *service) agree(lane events.Lane, safe bool) (why error) {
	s.t.Helper()
	s.eventually(func() bool {
		answered := s.writeTo(lane, "a").Events[0].Outcome.State == events.StateAccepted
		why = s.Ready(s.t.Context())
		return answered == safe && safe == (why == nil)
	}, "answers and readiness agree")
	return why
}

// The test goes through each mode, and each state of the spool and of Kafka.
func TestAnswersAndReadinessAgree(t *testing.T) {
	t.Parallel()
	spools := map[string]func(*testing.T, *delivery.Config){
		"spool":           func(*testing.T, *delivery.Config) {},
		"no directory":    func(t *testing.T, cfg *delivery.Config) { cfg.Spool.Dir = fileIn(t, cfg.Spool.Dir) },
		"no reserve left": func(_ *testing.T, cfg *delivery.Config) { cfg.Spool.Reserve = 1 << 60 },
		"no new files":    func(t *testing.T, cfg *delivery.Config) { takeAway(t, *cfg, mainTopic) },
	}
	for _, ack := range []string{"kafka", "spool", "auto", "memory"} {
		for state, change := range spools {
			t.Run(ack+", "+state, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t)
				cfg := config(t, ack)
				change(t, &cfg)
				s := c.start(cfg)
				require.NoError(t, s.Ready(t.Context()), "before the first request")
				_ = s.agree(events.LaneMain, true)
				mend := c.fail(mainTopic, away)
				safeAlone := ack == "memory" || ack != "kafka" && state == "spool"
				why := s.agree(events.LaneMain, safeAlone)
				if !safeAlone {
					require.ErrorContains(t, why, "ack "+ack+": ")
					require.Empty(t, s.Override(t.Context()))
				} else {
					require.NotEmpty(t, s.Override(t.Context()))
				}
				mend()
				_ = s.agree(events.LaneMain, true)
			})
		}
	}
}

func fileIn(t *testing.T, dir string) string {
	t.Helper()
	writeFile(t, dir, "file")
	return filepath.Join(dir, "file")
}

func TestReadinessFollowsKafkaWhereNothingElseMakesEventsSafe(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"kafka", "auto"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := config(t, ack)
			if ack == "auto" {
				cfg.Spool.Dir = fileIn(t, cfg.Spool.Dir)
			}
			s := c.start(cfg)
			c.cut.Store(true)
			s.eventually(func() bool { return s.Ready(t.Context()) != nil }, "without a single request")
			c.cut.Store(false)
			s.eventually(func() bool { return s.Ready(t.Context()) == nil }, "without a single request")
			_ = s.agree(events.LaneMain, true)
		})
	}
}

func TestTheSpoolStandsInForKafka(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.cut.Store(true)
	s := c.start(config(t, "auto"))
	require.Error(t, s.producer.Ready())
	require.NoError(t, s.Ready(t.Context()))
	require.Contains(t, s.Override(t.Context()), "takes what Kafka does not")
	requireSafe(t, s.write("a"), events.AckSpool)
	require.NoError(t, s.Ready(t.Context()))
}

func TestMemoryIsReadyWhenTheProducerTakesMessages(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.cut.Store(true)
	s := c.start(config(t, "memory"))
	_ = s.agree(events.LaneMain, false)
	s.eventually(func() bool {
		why := s.Ready(t.Context())
		require.Error(t, why, "also when nobody asks any more")
		return why.Error() == "ack memory: "+s.producer.Ready().Error()
	})
	c.cut.Store(false)
	s.eventually(func() bool { return s.Ready(t.Context()) == nil })
	_ = s.agree(events.LaneMain, true)
}

func TestALaneWithAnotherAckHasReadinessOfItsOwn(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	cfg.Lanes.Exceptions, cfg.Lanes.Recordings = "kafka", "memory"
	s := c.start(cfg)
	mend := c.fail(exceptionsTopic, away)
	require.ErrorContains(t, s.agree(events.LaneExceptions, false), "ack kafka: ")
	requireSafe(t, s.write("a"), events.AckKafka)
	mend()
	_ = s.agree(events.LaneExceptions, true)
}

// The spool is full of dead letters. Events that go straight to Kafka are answered 200; events that Kafka refuses are
// not.
func TestDeadLettersPastTheLimitAreNoReasonToTurnTheOthersAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(small(config(t, "auto")))
	c.fail(deadTopic, kerr.InvalidRecord)
	s.eventually(func() bool { return s.writeBatch(guilty(1, 0)).Events[0].Outcome.State == events.StateFailed })
	_ = s.agree(events.LaneMain, true)
	mend := c.fail(mainTopic, kerr.InvalidRecord)
	_ = s.agree(events.LaneMain, false)
	mend()
	_ = s.agree(events.LaneMain, true)
}

func TestTheServiceIsUnreadyBeforeTheSpoolIsFull(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(small(config(t, "auto")))
	mend := c.fail(mainTopic, away)
	s.eventually(func() bool {
		requireSafe(t, s.write(numbered(0, 5)...), events.AckSpool)
		return s.Ready(t.Context()) != nil
	})
	require.ErrorContains(t, s.Ready(t.Context()), "full: see why Kafka does not take its events")
	requireSafe(t, s.write("a"), events.AckSpool)
	mend()
	_ = s.agree(events.LaneMain, true)
}

// A topic of another lane fills the spool. Ordinary events go straight to Kafka, and their requests show that the
// service is ready.
func TestAnotherTopicThatFillsTheSpoolTurnsNobodyAway(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"auto", "spool"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			s := c.start(small(config(t, ack)))
			c.fail(heatmapsTopic, away)
			s.fillUp(events.LaneHeatmaps)
			_ = s.agree(events.LaneMain, true)
			batch := batchOf(events.LaneMain, "a")
			pad(&batch.Events[0], 1000) // larger than the room that is left
			requireSafe(t, s.writeBatch(batch), events.AckKafka)
		})
	}
}

func TestOneFailureIsNoReasonToTurnTrafficAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "kafka"))
	mend := c.fail(mainTopic, away)
	requireFailed(t, s.write("a"), events.ReasonUnavailable)
	require.NoError(t, s.Ready(t.Context()))
	_ = s.agree(events.LaneMain, false)
	mend()
	_ = s.agree(events.LaneMain, true)
}

// Each request has a safe event and an event of a topic that Kafka does not take, so all are answered 503.
func TestRequestsThatFailInPartAreFailures(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "kafka"))
	c.fail(heatmapsTopic, away)
	s.eventually(func() bool {
		batch := batchOf(events.LaneMain, "a")
		batch.Events = append(batch.Events, batchOf(events.LaneHeatmaps, "b").Events...)
		s.writeBatch(batch)
		require.Equal(t, events.StateAccepted, batch.Events[0].Outcome.State)
		require.Equal(t, events.StateFailed, batch.Events[1].Outcome.State)
		return s.Ready(t.Context()) != nil
	})
	_ = s.agree(events.LaneMain, true)
}

func TestAFullBufferIsNotReady(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "memory")
	cfg.Buffer, cfg.SpoolAfter, cfg.Timeout = configs.MiB, 1, 2
	release := c.hang()
	s := c.start(cfg)
	large := func() bool {
		batch := batchOf(events.LaneMain, "a")
		pad(&batch.Events[0], 100_000)
		return s.writeBatch(batch).Events[0].Outcome.State == events.StateAccepted
	}
	s.eventually(func() bool { return !large() && s.Ready(t.Context()) != nil })
	require.ErrorContains(t, s.Ready(t.Context()), "no room in delivery.buffer")
	release()
	s.eventually(func() bool { return large() && s.Ready(t.Context()) == nil })
}

// The directory of the spool vanishes while the service runs, and comes back.
func TestASpoolThatVanishesIsSeen(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	cfg.Spool.Dir = filepath.Join(cfg.Spool.Dir, "spool")
	s := c.start(cfg)
	s.broken = true
	mend := c.fail(mainTopic, away)
	_ = s.agree(events.LaneMain, true)
	require.NoError(t, os.RemoveAll(cfg.Spool.Dir))
	writeFile(t, filepath.Dir(cfg.Spool.Dir), "spool")
	_ = s.agree(events.LaneMain, false)
	mend()
	require.NoError(t, os.Remove(cfg.Spool.Dir))
	_ = s.agree(events.LaneMain, true)
}
