package delivery_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// patience is how long a test waits for a condition that must come true.
const patience = 60 * time.Second

// The tests have these topics.
const (
	mainTopic       = "main"
	recordingsTopic = "recordings"
	exceptionsTopic = "exceptions"
	heatmapsTopic   = "heatmaps"
	deadTopic       = "dead"
	smallTopic      = "small" // for AI events; it takes no batch over smallBatch
	smallBatch      = 16 << 10
)

func topics() produce.Topics {
	return produce.Topics{
		Events: mainTopic, Recordings: recordingsTopic, Historical: mainTopic, ClientWarnings: mainTopic,
		Exceptions: exceptionsTopic, Overflow: mainTopic, RecordingsOverflow: recordingsTopic,
		Heatmaps: heatmapsTopic, AI: smallTopic, Logs: mainTopic, DLQ: deadTopic,
	}
}

// cluster is a Kafka of one broker that belongs to the test, which can make it fail.
type cluster struct {
	*kfake.Cluster
	t   testing.TB
	cut atomic.Bool
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()),
		kfake.SeedTopics(2, mainTopic, recordingsTopic, exceptionsTopic, heatmapsTopic, deadTopic))
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	require.NoError(t,
		broker.CreateTopic(smallTopic, 1, map[string]string{"max.message.bytes": fmt.Sprint(smallBatch)}))
	c := &cluster{Cluster: broker, t: t}
	broker.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		return nil, kerr.BrokerNotAvailable, c.cut.Load() // an error without an answer closes the connection
	})
	return c
}

// fail makes Kafka answer messages for the topic with an error, until mend is called. An empty topic means all topics.
func (c *cluster) fail(topic string, code *kerr.Error) (mend func()) {
	return c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: code, Count: -1}).Remove
}

// Fault installs faults. Kafka looks for the faults of a request once, when it begins with it. When Fault returns, it
// has ended each request for which it looked before. So a test may remove an older fault then: no request gets by
// between the two.
func (c *cluster) Fault(faults ...kfake.Fault) *kfake.FaultHandle {
	handle := c.Cluster.Fault(faults...)
	c.LeaderFor(mainTopic, 0) // Kafka answers this between two requests
	return handle
}

// away is an error that fails messages at once, whatever Kafka may answer later.
var away = kerr.TopicAuthorizationFailed

// hang makes Kafka hold back all produce requests until release is called, and handle them then.
func (c *cluster) hang() (release func()) {
	released := make(chan struct{})
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		select {
		case <-released:
			c.DropControl()
		default:
			c.KeepControl()
			c.SleepControl(func() { <-released })
		}
		return nil, nil, false
	})
	release = sync.OnceFunc(func() { close(released) })
	c.t.Cleanup(release)
	return release
}

// clientConfig returns the configuration of a producer that waits longer than any test, unless a test changes it.
func (c *cluster) clientConfig() kafka.Config {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = c.ListenAddrs()
	cfg.Topics = topics()
	cfg.Compression = "none"
	return cfg
}

func (c *cluster) reader() *kafka.Reader {
	cfg := c.clientConfig()
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(c.t, err)
	return kafka.NewReader(cfg, bootstrap)
}

// messages returns the messages in a topic, partition by partition.
func (c *cluster) messages(topic string) []produce.Message {
	c.t.Helper()
	var list []produce.Message
	require.NoError(c.t,
		c.reader().ReadTopic(context.Background(), topic, func(_ int32, _ int64, m *produce.Message) error {
			list = append(list, *m)
			return nil
		}))
	return list
}

// names returns the names of the events in a topic. The events of one user are in their order.
func (c *cluster) names(topic string) []string {
	c.t.Helper()
	list := []string{}
	for _, m := range c.messages(topic) {
		list = append(list, headerOf(&m, "event"))
	}
	return list
}

func headerOf(m *produce.Message, key string) string {
	for _, header := range m.Headers {
		if string(header.Key) == key {
			return string(header.Value)
		}
	}
	return ""
}

// service is a delivery with its producer, as in one process.
type service struct {
	*delivery.Delivery
	t        testing.TB
	producer *kafka.Producer
	scope    tally.TestScope
	stop     func()
	broken   bool // whether closing the spool may fail
}

// config returns the configuration of a delivery that is as patient as the tests, so that a slow machine changes
// nothing: events go to the spool only when a test has made Kafka fail.
func config(t testing.TB, ack string) delivery.Config {
	cfg := delivery.DefaultConfig()
	cfg.Ack = ack
	cfg.SpoolAfter, cfg.Timeout, cfg.StopTimeout = patience/2, patience, patience
	cfg.Spool.Dir = t.TempDir()
	cfg.Spool.Reserve = 0
	cfg.Spool.SegmentBytes = configs.MiB
	return cfg
}

// small makes the spool so small that a test can fill it.
func small(cfg delivery.Config) delivery.Config {
	cfg.Spool.SegmentBytes = 128 * configs.KiB
	cfg.Spool.MaxBytes = 2 * cfg.Spool.SegmentBytes
	return cfg
}

// impatient makes auto turn to the spool as soon as Kafka does not answer.
func impatient(cfg delivery.Config) delivery.Config {
	cfg.SpoolAfter = 10 * time.Millisecond
	return cfg
}

func logger(t testing.TB) *zap.Logger { return zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)) }

// newProducer returns a producer of the cluster that has not been started. stop ends it, started or not.
func (c *cluster) newProducer(cfg kafka.Config) (producer *kafka.Producer, stop func()) {
	c.t.Helper()
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(c.t, err)
	producer, err = kafka.NewProducer(cfg, bootstrap, logger(c.t), tally.NoopScope)
	require.NoError(c.t, err)
	// The error of Stop tells of lost messages, which these tests do not look at.
	return producer, func() { _ = producer.Stop(context.Background()) }
}

func settings() produce.Settings {
	return produce.Settings{Topics: topics(), MaxMessageBytes: 1_000_000}
}

// start starts a process. Its stop stops the process as the service does, once, and at the latest at the end of the
// test.
func (c *cluster) start(cfg delivery.Config, change ...func(*kafka.Config)) *service {
	c.t.Helper()
	client := c.clientConfig()
	for _, f := range change {
		f(&client)
	}
	s := &service{t: c.t, scope: tally.NewTestScope("", nil)}
	var end func()
	s.producer, end = c.newProducer(client)
	require.NoError(c.t, s.producer.Start(c.t.Context()))
	d, err := delivery.NewDelivery(configs.Fixed(cfg), settings(), s.producer, logger(c.t), s.scope)
	require.NoError(c.t, err)
	delivery.Hurry(d)
	require.NoError(c.t, d.Start(c.t.Context()))
	s.Delivery = d
	s.stop = sync.OnceFunc(func() {
		if err := d.Stop(context.Background()); err != nil && !s.broken {
			c.t.Errorf("stop: %v", err)
		}
		end()
	})
	c.t.Cleanup(s.stop)
	if !c.cut.Load() {
		s.eventually(func() bool { return s.producer.Ready() == nil }, "Kafka answers")
	}
	return s
}

// startAnew stops a process and starts the next one with another ack.
func (c *cluster) startAnew(s *service, cfg delivery.Config, ack string) *service {
	c.t.Helper()
	s.stop()
	cfg.Ack = ack
	return c.start(cfg)
}

func (s *service) eventually(condition func() bool, what ...any) {
	s.t.Helper()
	eventually(s.t, condition, what...)
}

// eventually polls in the test's own goroutine, so that the condition may fail the test.
func eventually(t testing.TB, condition func() bool, what ...any) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); <-time.After(2 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), what...)
	}
}

// drained waits until the spool is empty.
func (s *service) drained() {
	s.t.Helper()
	s.eventually(func() bool { return s.Waiting() == 0 && !delivery.Waits(s.Delivery) }, "the spool is emptied")
}

// count returns a counter. The name is "name" or "name+label=value".
func (s *service) count(name string) int64 {
	if !strings.Contains(name, "+") {
		name += "+"
	}
	if counter, ok := s.scope.Snapshot().Counters()[name]; ok {
		return counter.Value()
	}
	return 0
}

// batchOf makes a batch of events in a lane, one for each name, all of one user. Messages carry times without the zeros
// at their end. Here the last of nine digits is no zero, so that events with names of one length are equally large.
func batchOf(lane events.Lane, names ...string) *events.Batch {
	received := time.Now().Truncate(time.Microsecond).Add(time.Nanosecond)
	batch := &events.Batch{Token: "phc_test", Received: received}
	for _, name := range names {
		batch.Events = append(batch.Events, events.Event{
			UUID: uuid.New(), Name: name, DistinctID: "user", Lane: lane, Timestamp: batch.Received,
			Raw: events.Raw{Properties: []byte("{}")},
		})
	}
	return batch
}

// pad gives an event properties of so many bytes.
func pad(event *events.Event, bytes int) {
	event.Raw.Properties = []byte(`{"pad":"` + strings.Repeat("x", bytes) + `"}`)
}

// write writes ordinary events and returns their batch.
func (s *service) write(names ...string) *events.Batch {
	s.t.Helper()
	return s.writeTo(events.LaneMain, names...)
}

func (s *service) writeTo(lane events.Lane, names ...string) *events.Batch {
	s.t.Helper()
	return s.writeBatch(batchOf(lane, names...))
}

func (s *service) writeBatch(batch *events.Batch) *events.Batch {
	s.t.Helper()
	s.Write(s.t.Context(), batch)
	require.Zero(s.t, batch.Pending(), "every event has its outcome")
	return batch
}

// requireSafe fails the test unless all events are accepted with the ack.
func requireSafe(t testing.TB, batch *events.Batch, ack events.Ack) {
	t.Helper()
	for i := range batch.Events {
		require.Equal(t, events.StateAccepted, batch.Events[i].Outcome.State, "event %d: %v", i,
			batch.Events[i].Outcome.Err)
	}
	require.Equal(t, ack, batch.Ack)
}

func requireFailed(t testing.TB, batch *events.Batch, reason events.Reason) {
	t.Helper()
	for i := range batch.Events {
		require.Equal(t, events.StateFailed, batch.Events[i].Outcome.State, "event %d by %s", i, batch.Ack)
		require.Equal(t, reason, batch.Events[i].Outcome.Reason)
		require.Equal(t, events.Unavailable, events.CodeOf(batch.Events[i].Outcome.Err))
	}
}

// requireArrived waits until the spool is empty, and requires that the topic holds exactly these events, in this order.
func (s *service) requireArrived(c *cluster, topic string, names ...string) {
	s.t.Helper()
	s.drained()
	require.Equal(s.t, append([]string{}, names...), c.names(topic))
}

// fillUp writes events of the lane until the spool refuses even the smallest event, and returns the names of the
// accepted events.
func (s *service) fillUp(lane events.Lane) (accepted []string) {
	s.t.Helper()
	for _, size := range []int{20_000, 2_000, 0} { // so that few events fill it
		for {
			batch := batchOf(lane, numbered(len(accepted), 1)...)
			pad(&batch.Events[0], size)
			if s.writeBatch(batch); batch.Events[0].Outcome.State != events.StateAccepted {
				break
			}
			require.Equal(s.t, events.AckSpool, batch.Ack)
			accepted = append(accepted, batch.Events[0].Name)
		}
	}
	require.NotEmpty(s.t, accepted)
	return accepted
}

func numbered(from, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("e%05d", from+i)
	}
	return list
}

// uniqued returns the list without repetitions: it keeps the first of each.
func uniqued(list []string) []string {
	var first []string
	for _, name := range list {
		if !slices.Contains(first, name) {
			first = append(first, name)
		}
	}
	return first
}

func writeFile(t testing.TB, dir, name string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
}
