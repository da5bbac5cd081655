package delivery

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sony/gobreaker/v2"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
)

func TestKafkaAcceptsWhatKafkaHas(t *testing.T) {
	kafka := newStub()
	for _, ack := range []mode{modeKafka, modeAuto} {
		d, scope, stop := begin(t, testConfig(t, ack), kafka)
		requireSafe(t, write(t, d, "a", "b"), events.AckKafka)
		require.EqualValues(t, 1, count(scope, "acks_total+ack=kafka"))
		require.Zero(t, d.busy.Load())
		stop()
	}
	require.Equal(t, []string{"a", "b", "a", "b"}, kafka.values("main"))
}

func TestKafkaFailsWithoutKafkaAndOnlyTheFirstRequestWaits(t *testing.T) {
	kafka := newStub()
	kafka.hold()
	d, _, _ := beginWith(t, testConfig(t, modeKafka), kafka, time.Hour)
	requireFailed(t, write(t, d, "a"), events.ReasonTimeout)
	require.Equal(t, gobreaker.StateOpen, d.breaker.State())

	batch := write(t, d, "b")
	requireFailed(t, batch, events.ReasonUnavailable)
	require.Equal(t, time.Hour, batch.RetryAfter)
	require.Equal(t, 1, kafka.sent(), "the second was not even tried")
}

func TestAfterAMomentKafkaIsTriedAgain(t *testing.T) {
	kafka := newStub()
	kafka.goAway()
	d, _, _ := begin(t, testConfig(t, modeKafka), kafka)
	requireFailed(t, write(t, d, "a"), events.ReasonUnavailable)
	kafka.comeBack()
	require.Eventually(t, func() bool { return write(t, d, "c").Ack == events.AckKafka }, patience, 10*time.Millisecond)
}

func TestALateAcknowledgementTakesTheEventOutOfTheSpool(t *testing.T) {
	kafka := newStub()
	kafka.hold()
	d, _, _ := begin(t, testConfig(t, modeAuto), kafka)
	requireSafe(t, write(t, d, "a", "b"), events.AckSpool)
	requireSafe(t, write(t, d, "c"), events.AckSpool)
	require.Equal(t, 2, kafka.sent(), "nothing is sent while Kafka's client holds what is before it")
	kafka.release(nil)
	requireArrived(t, d, kafka, "main", "a", "b", "c")
}

func TestWhatKafkaGivesUpIsSentAgainInItsOrder(t *testing.T) {
	kafka := newStub()
	kafka.hold()
	d, scope, _ := begin(t, testConfig(t, modeAuto), kafka)
	requireSafe(t, write(t, d, names(0, 50)...), events.AckSpool)
	requireSafe(t, write(t, d, names(50, 50)...), events.AckSpool)
	kafka.goAway()
	requireSafe(t, write(t, d, names(100, 50)...), events.AckSpool)
	kafka.comeBack()
	requireArrived(t, d, kafka, "main", names(0, 150)...)
	require.EqualValues(t, 150, count(scope, "drain_records_total+"))
	require.Eventually(t, func() bool { return write(t, d, "last").Ack == events.AckKafka }, patience, 10*time.Millisecond, "then events go straight to Kafka again")
}

func TestOfAPartlyAcknowledgedBatchOnlyTheRestIsSpooled(t *testing.T) {
	kafka := newStub()
	refused := true
	kafka.set(func(k *stub) {
		k.judge = func(m *events.Message) error {
			if string(m.Value) == "b" && refused {
				refused = false
				return errAway
			}
			return nil
		}
	})
	d, scope, _ := begin(t, testConfig(t, modeAuto), kafka)
	requireSafe(t, write(t, d, "a", "b", "c"), events.AckSpool)
	requireArrived(t, d, kafka, "main", "a", "b", "c")
	require.EqualValues(t, 2, count(scope, "drain_records_total+"))
}

func TestAnEventOfSeveralMessagesIsSafeWithAllOfThem(t *testing.T) {
	kafka := newStub()
	kafka.set(func(k *stub) {
		k.judge = func(m *events.Message) error {
			if m.Topic == "heatmaps" {
				return errAway
			}
			return nil
		}
	})
	d, _, _ := begin(t, testConfig(t, modeAuto), kafka)
	batch := batchOf(events.LaneMain, "a")
	batch.Events[0].Heatmap = []byte("{}")
	d.Write(t.Context(), batch)
	requireSafe(t, batch, events.AckSpool)
	kafka.comeBack()
	requireArrived(t, d, kafka, "heatmaps", "a")
	require.Equal(t, []string{"a"}, kafka.values("main"))
}

func TestSpoolAnswersFromTheSpoolAndKafkaFollows(t *testing.T) {
	kafka := newStub()
	d, _, _ := begin(t, testConfig(t, modeSpool), kafka)
	requireSafe(t, write(t, d, "a"), events.AckSpool)
	requireSafe(t, write(t, d, "b"), events.AckSpool)
	requireArrived(t, d, kafka, "main", "a", "b")
	kafka.goAway()
	requireSafe(t, write(t, d, "c"), events.AckSpool)
	kafka.comeBack()
	requireArrived(t, d, kafka, "main", "a", "b", "c")
}

func TestMemoryAnswersAtOnceAndCountsWhatIsLost(t *testing.T) {
	kafka := newStub()
	kafka.hold()
	d, scope, _ := begin(t, testConfig(t, modeMemory), kafka)
	requireSafe(t, write(t, d, "a", "b"), events.AckMemory)
	kafka.goAway()
	require.EqualValues(t, 2, count(scope, "lost_total+"))
	requireFailed(t, write(t, d, "c"), events.ReasonUnavailable)
	require.Empty(t, kafka.values("main"))
}

func TestLanesHaveAcksOfTheirOwn(t *testing.T) {
	kafka := newStub()
	kafka.goAway()
	cfg := testConfig(t, modeAuto)
	cfg.Lanes.Exceptions, cfg.Lanes.Recordings = "kafka", "spool"
	d, _, _ := begin(t, cfg, kafka)
	batch := batchOf(events.LaneMain, "a", "b", "c")
	batch.Events[1].Lane, batch.Events[2].Lane = events.LaneExceptions, events.LaneRecordings
	d.Write(t.Context(), batch)
	require.Equal(t, events.StateAccepted, batch.Events[0].Outcome.State)
	require.Equal(t, events.StateFailed, batch.Events[1].Outcome.State)
	require.Equal(t, events.StateAccepted, batch.Events[2].Outcome.State)
	require.Equal(t, events.AckSpool, batch.Ack)
	kafka.comeBack()
	requireArrived(t, d, kafka, "main", "a")
	require.Equal(t, []string{"c"}, kafka.values("recordings"))
	require.Empty(t, kafka.values("exceptions"))
}

func TestAnEventThatHasEndedIsLeftAlone(t *testing.T) {
	kafka := newStub()
	d, _, _ := begin(t, testConfig(t, modeAuto), kafka)
	batch := batchOf(events.LaneMain, "a", "b")
	batch.Events[0].Drop(events.ReasonRule)
	d.Write(t.Context(), batch)
	require.Equal(t, events.StateDropped, batch.Events[0].Outcome.State)
	require.Equal(t, []string{"b"}, kafka.values("main"))
}

func TestAFullSpoolFailsEventsAndSaysWhenToComeAgain(t *testing.T) {
	kafka := newStub()
	kafka.goAway()
	cfg := testConfig(t, modeAuto)
	cfg.Spool.MaxBytes = 2 * cfg.Spool.SegmentBytes
	d, scope, _ := begin(t, cfg, kafka)
	accepted := 0
	var batch *events.Batch
	for range 1000 {
		if batch = write(t, d, names(accepted, 100)...); batch.Ack != events.AckSpool {
			break
		}
		accepted += 100
	}
	requireFailed(t, batch, events.ReasonUnavailable)
	require.Positive(t, batch.RetryAfter)
	require.EqualValues(t, 1, count(scope, "spool_refused_total+"))
	require.ErrorContains(t, d.Ready(t.Context()), "full: see why Kafka does not take its events")
	kafka.comeBack()
	requireArrived(t, d, kafka, "main", names(0, accepted)...)
	require.Eventually(t, func() bool { return d.Ready(t.Context()) == nil }, patience, time.Millisecond)
}

func TestAFullSpoolLeavesOtherTopicsTheirWayToKafka(t *testing.T) {
	kafka := newStub()
	kafka.set(func(k *stub) {
		k.judge = func(m *events.Message) error {
			if m.Topic == "ai" {
				return errAway
			}
			return nil
		}
	})
	cfg := testConfig(t, modeSpool)
	cfg.Spool.MaxBytes = 2 * cfg.Spool.SegmentBytes
	d, _, _ := begin(t, cfg, kafka)
	for _, n := range []int{100, 1} { // until not even a small one has room
		for ack := events.AckSpool; ack == events.AckSpool; {
			batch := batchOf(events.LaneAI, names(0, n)...)
			d.Write(t.Context(), batch)
			ack = batch.Ack
		}
	}
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 20 {
				batch := batchOf(events.LaneMain, "a")
				d.Write(t.Context(), batch)
				if batch.Events[0].Outcome.State != events.StateAccepted || batch.Ack != events.AckKafka {
					t.Errorf("%s by %q: %v", batch.Events[0].Outcome.State, batch.Ack, batch.Events[0].Outcome.Err)
				}
			}
		})
	}
	writers.Wait()
	require.Len(t, kafka.values("main"), 160)
}

func TestWithoutASpoolEventsGoToKafkaOrFail(t *testing.T) {
	for _, ack := range []mode{modeSpool, modeAuto} {
		kafka := newStub()
		cfg := testConfig(t, ack)
		cfg.Spool.Dir = filepath.Join(cfg.Spool.Dir, "file")
		require.NoError(t, os.WriteFile(cfg.Spool.Dir, nil, 0o600))
		d, _, _ := begin(t, cfg, kafka)
		require.NoError(t, d.Ready(t.Context()))
		require.Empty(t, d.Spare(t.Context()), "readiness needs Kafka")
		requireSafe(t, write(t, d, "a"), events.AckKafka)
		kafka.goAway()
		requireFailed(t, write(t, d, "b"), events.ReasonUnavailable)
		require.ErrorContains(t, d.Ready(t.Context()), "neither Kafka nor the spool takes events")
	}
}

func TestARefusedMessageIsADeadLetterAndItsNeighboursArrive(t *testing.T) {
	for _, ack := range []mode{modeKafka, modeSpool, modeAuto} {
		kafka := newStub()
		kafka.set(func(k *stub) {
			k.judge = func(m *events.Message) error {
				if string(m.Value) == "b" && m.Topic == "main" {
					return events.Refused("invalid", errAway)
				}
				return nil
			}
		})
		d, scope, _ := begin(t, testConfig(t, ack), kafka)
		batch := write(t, d, "a", "b", "c")
		if ack == modeKafka { // nothing else can be said of what is behind it
			require.Equal(t, events.StateAccepted, batch.Events[1].Outcome.State)
			require.Equal(t, []string{"b"}, kafka.values("dead"))
			continue
		}
		requireSafe(t, batch, events.AckSpool)
		requireArrived(t, d, kafka, "main", "a", "c")
		require.Equal(t, []string{"b"}, kafka.values("dead"))
		require.EqualValues(t, 1, count(scope, "dead_letters_total+reason=invalid,to=topic"))
		headers := map[string]string{}
		for _, header := range kafka.stored[1].Headers {
			headers[string(header.Key)] = string(header.Value)
		}
		require.Equal(t, "invalid", headers["dlq_reason"])
		require.Equal(t, "main", headers["dlq_topic"])
		require.Equal(t, "delivery", headers["dlq_step"])
		require.NotEmpty(t, headers["dlq_timestamp"])
	}
}

func TestADeadLetterThatIsRefusedTooIsKeptOnTheDisk(t *testing.T) {
	kafka := newStub()
	kafka.set(func(k *stub) {
		k.judge = func(m *events.Message) error {
			if string(m.Value) == "b" {
				return events.Refused("too_large", errAway)
			}
			return nil
		}
	})
	d, scope, _ := begin(t, testConfig(t, modeAuto), kafka)
	requireSafe(t, write(t, d, "a", "b", "c"), events.AckSpool)
	requireArrived(t, d, kafka, "main", "a", "c")
	require.EqualValues(t, 1, count(scope, "dead_letters_total+reason=too_large,to=disk"))
	require.EqualValues(t, 1, d.spool.Load().Log(deadLetters).Stats().Records)
}

func TestAMessageWhoseTimeIsRefusedIsSentWithAnother(t *testing.T) {
	kafka := newStub()
	kafka.set(func(k *stub) {
		k.judge = func(m *events.Message) error {
			if string(m.Value) == "b" && (!m.Time.IsZero() || m.Topic == "dead") {
				return events.Refused("timestamp", errAway)
			}
			return nil
		}
	})
	d, _, _ := begin(t, testConfig(t, modeSpool), kafka)
	requireSafe(t, write(t, d, "a", "b", "c"), events.AckSpool)
	requireArrived(t, d, kafka, "main", "a", "b", "c")
	require.Empty(t, kafka.values("dead"))
}

func TestTheNextProcessSendsWhatTheSpoolHolds(t *testing.T) {
	kafka := newStub()
	kafka.goAway()
	cfg := testConfig(t, modeAuto)
	d, _, stop := begin(t, cfg, kafka)
	requireSafe(t, write(t, d, "a", "b"), events.AckSpool)
	stop()

	d, _, _ = begin(t, cfg, kafka)
	require.Positive(t, d.busy.Load())
	requireSafe(t, write(t, d, "c"), events.AckSpool)
	kafka.comeBack()
	requireArrived(t, d, kafka, "main", "a", "b", "c")
}

func TestARecordOfANewerVersionIsKept(t *testing.T) {
	kafka := newStub()
	kafka.goAway()
	cfg := testConfig(t, modeAuto)
	d, _, stop := begin(t, cfg, kafka)
	requireSafe(t, write(t, d, "a", "b"), events.AckSpool)
	_, err := d.spool.Load().Log("main").Append(t.Context(), [][]byte{{recordVersion + 1, 1, 2, 3}})
	require.NoError(t, err)
	requireSafe(t, write(t, d, "c"), events.AckSpool)
	kafka.comeBack()
	require.Eventually(t, func() bool { return d.spool.Load().Log("main").Stats().Records == 2 }, patience, time.Millisecond)
	require.Equal(t, []string{"a", "b"}, kafka.values("main"))
	stop()
	out, err := runOnSpool(t, cfg, kafka, "verify")
	require.ErrorContains(t, err, "record 3: the record is not one of this version of the service", out)
}

func TestStopWaitsForVerdictsAndKeepsWhatHasNone(t *testing.T) {
	kafka := newStub()
	kafka.hold()
	cfg := testConfig(t, modeAuto)
	d, _, stop := begin(t, cfg, kafka)
	requireSafe(t, write(t, d, "a"), events.AckSpool)
	acked := make(chan struct{})
	go func() {
		defer close(acked)
		<-d.ctx.Done()
		kafka.release(nil)
	}()
	stop()
	<-acked
	d, _, stop = begin(t, cfg, kafka)
	require.Zero(t, d.busy.Load(), "the late acknowledgement has been noted")

	kafka.hold()
	requireSafe(t, write(t, d, "b"), events.AckSpool)
	stop()
	kafka.release(errAway)
	d, _, _ = begin(t, cfg, kafka)
	requireArrived(t, d, kafka, "main", "a", "b")
}

func TestASecondProcessGetsTheSpoolWhenTheFirstHasEnded(t *testing.T) {
	kafka := newStub()
	cfg := testConfig(t, modeAuto)
	_, _, stop := begin(t, cfg, kafka)
	d, _, _ := begin(t, cfg, kafka)
	require.NotNil(t, d.broken.Load())
	stop()
	require.NoError(t, d.open())
	kafka.goAway()
	requireSafe(t, write(t, d, "a"), events.AckSpool)
}

func TestASinkThatIsNoCarrierIsLeftAlone(t *testing.T) {
	base := events.Sink(struct{ events.Sink }{})
	d, err := NewDelivery(testConfig(t, modeAuto), base, zap.NewNop(), tally.NoopScope)
	require.NoError(t, err)
	require.NoError(t, d.Start(t.Context()))
	require.Equal(t, base, d.Layer().Wrap(base))
	require.NoError(t, d.Ready(t.Context()))
	require.Empty(t, d.Spare(t.Context()))
	require.Contains(t, d.String(), "as safe as the sink makes them")
	require.NoError(t, d.Stop(t.Context()))
}

func TestReadinessDoesWithoutKafkaWhereTheSpoolTakesEvents(t *testing.T) {
	for ack, spare := range map[mode]bool{modeKafka: false, modeMemory: false, modeSpool: true, modeAuto: true} {
		kafka := newStub()
		kafka.goAway()
		d, _, _ := begin(t, testConfig(t, ack), kafka)
		require.NoError(t, d.Ready(t.Context()))
		require.Equal(t, spare, d.Spare(t.Context()) != "", ack)
	}
}
