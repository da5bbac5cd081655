package delivery_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

// smallLane is the lane whose topic takes no large batches.
const smallLane = events.LaneAI

// guilty makes n events for the small topic. The event with the index large is too large for the topic.
func guilty(n, large int) *events.Batch {
	batch := batchOf(smallLane, numbered(0, n)...)
	pad(&batch.Events[large], 2*smallBatch)
	return batch
}

func TestOnlyTheGuiltyBecomeDeadLetters(t *testing.T) {
	t.Parallel()
	for ack, answer := range map[string]events.Ack{
		"kafka": events.AckKafka, "auto": events.AckKafka, "spool": events.AckSpool, "memory": events.AckMemory,
	} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			s := c.start(config(t, ack))
			requireSafe(t, s.writeBatch(guilty(50, 20)), answer)
			innocent := append(numbered(0, 20), numbered(21, 29)...)
			s.drained()
			s.eventually(func() bool { return len(c.names(smallTopic)) == 49 })
			require.Equal(t, innocent, c.names(smallTopic))
			if ack == "memory" { // lost and counted, or a dead letter if Kafka was faster than the answer
				s.eventually(func() bool { return s.count("lost_total")+int64(len(c.names(deadTopic))) == 1 })
				return
			}
			letters := c.messages(deadTopic)
			require.Len(t, letters, 1)
			require.Equal(t, "e00020", headerOf(&letters[0], "event"))
			require.Equal(t, "too_large", headerOf(&letters[0], produce.HeaderDLQReason))
			require.Equal(t, "delivery", headerOf(&letters[0], produce.HeaderDLQStep))
			require.Equal(t, smallTopic, headerOf(&letters[0], produce.HeaderDLQTopic))
			require.NotEmpty(t, headerOf(&letters[0], produce.HeaderDLQTime))
			require.EqualValues(t, 1, s.count("dead_letters_total+reason=too_large,to=topic"))
			require.Zero(t, delivery.OnDisk(s.Delivery))
		})
	}
}

// If a dead letter waits in the spool for its topic, the answer says so: the spool is then the weakest ack of the
// request.
func TestADeadLetterWhoseTopicIsAwayWaitsInTheSpool(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"kafka", "auto", "spool"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			s := c.start(config(t, ack))
			mend := c.fail(deadTopic, away)
			requireSafe(t, s.writeBatch(guilty(3, 1)), events.AckSpool)
			s.eventually(func() bool { return len(c.names(smallTopic)) == 2 && s.Waiting() == 1 })
			mend()
			s.requireArrived(c, deadTopic, "e00001")
			require.Equal(t, []string{"e00000", "e00002"}, c.names(smallTopic))
			require.EqualValues(t, 1, s.count("dead_letters_total+reason=too_large,to=topic"))
		})
	}
}

func TestADeadLetterThatIsRefusedTooIsKeptOnTheDisk(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"kafka", "auto", "spool"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			s := c.start(config(t, ack))
			c.fail(deadTopic, kerr.InvalidRecord)
			requireSafe(t, s.writeBatch(guilty(3, 1)), events.AckSpool)
			s.drained()
			require.Equal(t, []string{"e00000", "e00002"}, c.names(smallTopic))
			require.Empty(t, c.names(deadTopic))
			require.EqualValues(t, 1, delivery.OnDisk(s.Delivery))
			require.EqualValues(t, 1, s.count("dead_letters_total+reason=too_large,to=disk"))
			require.Zero(t, s.count("dead_letters_total+reason=too_large,to=topic"))
		})
	}
}

// An event that a rule has set aside goes to the disk unchanged if the topic of dead letters refuses it.
func TestAnEventOfTheDeadLetterTopicThatIsRefusedGoesToTheDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "kafka"))
	c.fail(deadTopic, kerr.InvalidRecord)
	batch := batchOf(events.LaneMain, "a")
	batch.Events[0].Routing.DLQ = "rule"
	requireSafe(t, s.writeBatch(batch), events.AckSpool)
	require.EqualValues(t, 1, delivery.OnDisk(s.Delivery))
	require.EqualValues(t, 1, s.count("dead_letters_total+reason=other,to=disk"))
}

func TestAFloodOfDeadLettersKeepsToMaxBytesOnTheLivePath(t *testing.T) {
	t.Parallel()
	for ack, code := range map[string]*kerr.Error{
		"kafka": kerr.InvalidRecord, "auto": kerr.InvalidRecord, "spool": away,
	} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			cfg := small(config(t, "auto"))
			cfg.Lanes.AI = ack
			s := c.start(cfg)
			mend := c.fail(deadTopic, code)
			if ack == "spool" { // events of other topics fill the spool, and the dead letter must wait
				away := c.fail(mainTopic, away)
				defer away()
				s.fillUp(events.LaneMain)
			}
			accepted := 0
			for {
				batch := s.writeBatch(guilty(2, 1))
				require.LessOrEqual(t, s.Usage().Bytes, int64(cfg.Spool.MaxBytes))
				require.Equal(t, events.StateAccepted, batch.Events[0].Outcome.State, "the innocent one: %v",
					batch.Events[0].Outcome.Err)
				if batch.Events[1].Outcome.State == events.StateFailed {
					require.Equal(t, events.ReasonUnavailable, batch.Events[1].Outcome.Reason)
					require.Equal(t, events.AckKafka, batch.Ack)
					break
				}
				accepted++
			}
			if code == kerr.InvalidRecord {
				require.EqualValues(t, accepted, delivery.OnDisk(s.Delivery))
			}
			mend()
			s.eventually(func() bool {
				return s.writeBatch(guilty(2, 1)).Events[1].Outcome.State == events.StateAccepted
			}, "the topic of dead letters is back")
		})
	}
}

// A record of which the drain makes a dead letter has room in the spool already.
func TestTheDrainsDeadLettersPassTheLimit(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := small(config(t, "auto"))
	s := c.start(cfg)
	mend := c.fail("", away)
	accepted := s.fillUp(events.LaneMain)
	for _, topic := range []string{mainTopic, deadTopic} {
		c.fail(topic, kerr.InvalidRecord)
	}
	mend()
	s.drained()
	require.Empty(t, c.names(mainTopic))
	require.EqualValues(t, len(accepted), delivery.OnDisk(s.Delivery), "each of them once")
	require.EqualValues(t, len(accepted), s.count("dead_letters_total+reason=invalid,to=disk"))
}

// With the topic of dead letters away as well, a refused record makes one dead letter, however often the drain tries.
func TestTheDrainMakesOneDeadLetterOfARecord(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := c.start(config(t, "auto"))
	mend := c.fail(mainTopic, away)
	requireSafe(t, s.write(numbered(0, 20)...), events.AckSpool)
	back := c.fail(deadTopic, away)
	c.fail(mainTopic, kerr.InvalidRecord)
	mend()
	s.eventually(func() bool { return !delivery.IsWaiting(s.Delivery, mainTopic) }, "the topic's own log is empty")
	require.EqualValues(t, 20, s.Waiting())
	back()
	s.requireArrived(c, deadTopic, numbered(0, 20)...)
}

func TestADeadLetterThatCannotBeKeptStaysInTheSpool(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	s := c.start(cfg)
	mend := c.fail(mainTopic, away)
	requireSafe(t, s.write("a", "b"), events.AckSpool)
	takeAway(t, cfg, "@dead-letters")
	takeAway(t, cfg, deadTopic)
	c.fail(deadTopic, away)
	invalid := c.fail(mainTopic, kerr.InvalidRecord)
	mend()
	s.eventually(func() bool { return s.count("spool_refused_total") > 2 },
		"the dead letter was not taken, more than once")
	require.EqualValues(t, 2, s.Waiting())
	require.Zero(t, s.count("dead_letters_total+reason=invalid,to=topic"))
	invalid()
	s.requireArrived(c, mainTopic, "a", "b")
}

// The memory of refused messages counts in the buffer until the last report on their dead letters.
func TestDeadLettersCountInTheBuffer(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := impatient(config(t, "kafka"))
	cfg.Buffer = 2 * configs.MiB
	s := c.start(cfg)
	produced := c.hang()
	ended := make(chan *events.Batch, 1)
	go func() {
		batch := guilty(2, 1)
		pad(&batch.Events[1], 400_000)
		s.Write(t.Context(), batch)
		ended <- batch
	}()
	s.eventually(func() bool { return !delivery.HasRoom(s.Delivery, int64(cfg.Buffer)) })
	c.fail(deadTopic, kerr.InvalidRecord)
	produced()
	requireSafe(t, <-ended, events.AckSpool)
	s.eventually(func() bool { return delivery.HasRoom(s.Delivery, int64(cfg.Buffer)) })
}

// takeAway puts a file in the place of a log's directory.
func takeAway(t *testing.T, cfg delivery.Config, log string) {
	t.Helper()
	name := log
	if log[0] == '@' {
		name = fmt.Sprintf("%%%X%s", log[0], log[1:])
	}
	writeFile(t, cfg.Spool.Dir, name)
}
