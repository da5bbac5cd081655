package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/events"
)

// startLive starts a process whose section set changes.
func (c *cluster) startLive(cfg delivery.Config) (s *service, live *configs.Live, set func(func(*delivery.Config))) {
	c.t.Helper()
	load := func() (*configs.Set, error) {
		return configs.Load([]configs.Section{{Name: "delivery", Defaults: cfg}}, configs.Source{})
	}
	first, err := load()
	require.NoError(c.t, err)
	live = configs.NewLive(first, load)
	s = &service{t: c.t, scope: tally.NewTestScope("", nil)}
	producer, end := c.newProducer(c.clientConfig())
	s.producer = producer
	require.NoError(c.t, producer.Start(c.t.Context()))
	s.Delivery, err = delivery.NewDelivery(live, settings(), producer, logger(c.t), s.scope)
	require.NoError(c.t, err)
	delivery.Hurry(s.Delivery)
	require.NoError(c.t, s.Start(c.t.Context()))
	c.t.Cleanup(func() { _ = s.Stop(context.Background()); end() })
	s.eventually(func() bool { return producer.Ready() == nil }, "Kafka answers")
	return s, live, func(change func(*delivery.Config)) {
		c.t.Helper()
		change(&cfg)
		_, err := live.Reload()
		require.NoError(c.t, err)
	}
}

// A batch is made as safe as the configuration asks that judges it, the next one as the next configuration does.
func TestABatchIsMadeAsSafeAsItsOwnConfigurationAsks(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s, live, set := c.startLive(config(t, "spool"))
	before := live.View()
	set(func(cfg *delivery.Config) { cfg.Ack = "kafka" })
	requireSafe(t, s.write("new"), events.AckKafka)
	old := batchOf(events.LaneMain, "old")
	old.Config = before
	s.writeBatch(old)
	requireSafe(t, old, events.AckSpool)
	s.drained()
	require.Contains(t, s.String(), "ack kafka")

	mend := c.fail("", away)
	defer mend()
	set(func(cfg *delivery.Config) {
		cfg.Ack, cfg.SpoolAfter, cfg.Timeout = "auto", time.Millisecond, time.Minute
	})
	requireSafe(t, s.write("spooled"), events.AckSpool)
}

// The limits of an open spool change with the configuration, in both directions.
func TestTheLimitsOfTheSpoolChangeWithTheConfiguration(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	mend := c.fail("", away)
	defer mend()
	cfg := config(t, "spool")
	cfg.Spool.MaxBytes = 2 * cfg.Spool.SegmentBytes
	s, _, set := c.startLive(cfg)
	limit := s.Usage().Max
	set(func(cfg *delivery.Config) { cfg.Spool.MaxBytes *= 4 })
	require.Equal(t, 4*limit, s.Usage().Max)
	large := batchOf(events.LaneMain, "a", "b", "c", "d")
	for i := range large.Events {
		pad(&large.Events[i], 700<<10)
	}
	s.writeBatch(large)
	requireSafe(t, large, events.AckSpool)
	set(func(cfg *delivery.Config) { cfg.Spool.MaxBytes /= 4 })
	requireFailed(t, s.write("f"), events.ReasonUnavailable)
}

// A reload while a request waits changes nothing for it: neither how long it waits, nor whose failure it is.
func TestARequestWaitsAsItsOwnConfigurationAsks(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	release := c.hang()
	defer release()
	cfg := config(t, "auto")
	cfg.SpoolAfter, cfg.Timeout = 200*time.Millisecond, 400*time.Millisecond
	s, live, set := c.startLive(cfg)
	spooled, failed := batchOf(events.LaneMain, "a"), batchOf(events.LaneExceptions, "b")
	spooled.Config = live.View()
	set(func(cfg *delivery.Config) { cfg.Lanes.Exceptions = "kafka" })
	failed.Config = live.View()
	set(func(cfg *delivery.Config) { cfg.SpoolAfter, cfg.Timeout = time.Minute, time.Hour })
	began := time.Now()
	s.writeBatch(spooled)
	requireSafe(t, spooled, events.AckSpool)
	s.writeBatch(failed)
	requireFailed(t, failed, events.ReasonTimeout)
	require.Less(t, time.Since(began), patience/2)
}

// After a change to kafka a request waits for what is in the spool to come to Kafka, in front of its own events.
func TestAfterAChangeToKafkaARequestWaitsForTheSpool(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	mend := c.fail("", away)
	s, _, set := c.startLive(config(t, "auto"))
	delivery.WaitLong(s.Delivery)
	requireSafe(t, s.write("a"), events.AckSpool)
	set(func(cfg *delivery.Config) { cfg.Ack = "kafka" })
	mend()
	requireSafe(t, s.write("b"), events.AckKafka)
	require.Equal(t, []string{"a", "b"}, c.names(mainTopic))
}

// A batch whose encoding panics gives back the room that it has taken.
func TestABatchWhoseEncodingPanicsLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	cfg := config(t, "auto")
	d, err := delivery.NewDelivery(configs.Fixed(cfg), settings(), newPanicky(), logger(t), tally.NoopScope)
	require.NoError(t, err)
	delivery.BreakEncoding(d)
	require.Panics(t, func() { d.Write(t.Context(), batchOf(events.LaneMain, "a")) })
	require.True(t, delivery.HasRoom(d, int64(cfg.Buffer)))
}
