package kafka_test

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/opencapture/capture/modules/embedded"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// patience is how long a test waits for an event that must come.
const patience = time.Minute

// cluster returns the brokers that CAPTURE_TEST_KAFKA_BROKERS names, comma-separated, or a fake one of the test's own.
func cluster(t *testing.T) []string {
	t.Helper()
	if brokers := os.Getenv("CAPTURE_TEST_KAFKA_BROKERS"); brokers != "" {
		return strings.Split(brokers, ",")
	}
	return fake(t).ListenAddrs()
}

// startEmbedded starts a broker that has none of the topics that the tests use.
func startEmbedded(t *testing.T, listen string) *embedded.Broker {
	t.Helper()
	cfg := embedded.DefaultConfig()
	cfg.DataDir, cfg.KafkaListen = t.TempDir(), listen
	client := kafka.DefaultConfig()
	client.Topics = oneTopic("unused")
	broker := embedded.NewBroker(cfg, client, zap.NewNop())
	require.NoError(t, broker.Start(t.Context()))
	t.Cleanup(func() { _ = broker.Stop(context.Background()) }) // a busy machine may be too slow to save the state
	return broker
}

func oneTopic(name string) produce.Topics {
	return produce.Topics{
		Events: name, Recordings: name, Historical: name, ClientWarnings: name, Exceptions: name,
		Overflow: name, RecordingsOverflow: name, Heatmaps: name, AI: name, Logs: name, DLQ: name, Create: true,
		Partitions: 3,
	}
}

// config returns the configuration of a producer with topics of the test's own, so that tests can share a cluster.
func config(brokers ...string) kafka.Config {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	cfg.Topics = oneTopic("capture-test-" + uuid.NewString())
	cfg.ConnectTimeout = 30 * time.Second // a busy machine is no broker that is away
	return cfg
}

// newProducer returns a producer. The end of the test stops it, unless the test does so itself.
func newProducer(t testing.TB, cfg kafka.Config) (*kafka.Producer, tally.TestScope) {
	t.Helper()
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	scope := tally.NewTestScope("", nil)
	producer, err := kafka.NewProducer(cfg, bootstrap, zaptest.NewLogger(t), scope)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, producer.Stop(context.Background())) })
	return producer, scope
}

func start(t testing.TB, cfg kafka.Config) (*kafka.Producer, tally.TestScope) {
	t.Helper()
	producer, scope := newProducer(t, cfg)
	require.NoError(t, producer.Start(t.Context()))
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, 10*time.Millisecond)
	return producer, scope
}

// consume returns the first n records of the topic, and fails if there are fewer.
func consume(t *testing.T, brokers []string, topic string, n int, options ...kgo.Opt) []*kgo.Record {
	t.Helper()
	var records []*kgo.Record
	poll(t, brokers, topic, options, func(r *kgo.Record) bool {
		records = append(records, r)
		return len(records) >= n
	})
	return records
}

// consumeUntil gives each the topic's records until each returns true. It fails if that does not happen.
func consumeUntil(t *testing.T, brokers []string, topic string, each func(key, value string) bool) {
	t.Helper()
	poll(t, brokers, topic, nil, func(r *kgo.Record) bool { return each(string(r.Key), string(r.Value)) })
}

// poll gives each the topic's records until each returns true. It gives all records of one answer in any case.
func poll(t *testing.T, brokers []string, topic string, options []kgo.Opt, each func(*kgo.Record) bool) {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.FetchMaxWait(100*time.Millisecond))...)
	require.NoError(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n, done := 0, false; !done; {
		fetches := client.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "only %d records", n)
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			done = each(r) || done
		})
	}
}

// freeAddress returns an address at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

func counter(scope tally.TestScope, name string) int64 {
	if c, ok := scope.Snapshot().Counters()[name]; ok {
		return c.Value()
	}
	return 0
}
