package embedded

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/private"
)

// patience is how long a test waits before it says that something hangs. It does not measure speed.
const patience = 2 * time.Minute

// childDir is the variable that makes the test binary a broker that acknowledges messages until it is killed; see
// TestAcknowledged...
const childDir = "CAPTURE_TEST_EMBEDDED_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	// sarama's, one a process
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

func testConfig(t testing.TB) Config {
	cfg := DefaultConfig()
	cfg.DataDir, cfg.KafkaListen, cfg.StartTimeout = t.TempDir(), "127.0.0.1:0", patience
	return cfg
}

func start(t testing.TB, cfg Config, client kafka.Config) *Broker {
	t.Helper()
	broker := NewBroker(cfg, client, zap.NewNop())
	require.NoError(t, broker.Start(context.Background()))
	return broker
}

func stop(t testing.TB, broker *Broker) {
	t.Helper()
	require.NoError(t, broker.Stop(context.Background()))
}

func TestADirectoryThatOthersCanWriteToIsRefused(t *testing.T) {
	for _, below := range []string{"", "broker"} {
		cfg := testConfig(t)
		dir := filepath.Join(cfg.DataDir, below)
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.Chmod(dir, 0o777))
		err := NewBroker(cfg, kafka.DefaultConfig(), zap.NewNop()).Start(t.Context())
		require.ErrorIs(t, err, private.ErrNotPrivate)
		require.ErrorContains(t, err, "embedded.data_dir: all users of this machine can write to "+dir)
		require.ErrorContains(t, err, "chmod o-w "+dir)
	}
}

func TestNothingIsMadeBehindALinkOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a link of another user")
	}
	cfg := testConfig(t)
	elsewhere, link := t.TempDir(), filepath.Join(cfg.DataDir, "link")
	require.NoError(t, os.Symlink(elsewhere, link))
	require.NoError(t, os.Lchown(link, 1, 1))
	cfg.DataDir = filepath.Join(link, "data")
	require.ErrorIs(t, NewBroker(cfg, kafka.DefaultConfig(), zap.NewNop()).Start(t.Context()), private.ErrNotPrivate)
	require.NoDirExists(t, filepath.Join(elsewhere, "data"))
}

func TestALockThatIsASymbolicLinkIsNotFollowed(t *testing.T) {
	cfg := testConfig(t)
	target := filepath.Join(t.TempDir(), "target")
	require.NoError(t, os.Symlink(target, filepath.Join(cfg.DataDir, "broker.lock")))
	require.ErrorIs(t, NewBroker(cfg, kafka.DefaultConfig(), zap.NewNop()).Start(t.Context()), syscall.ELOOP)
	require.NoFileExists(t, target)
}

func TestADirectoryOfAnEarlierVersionIsClosedToTheGroup(t *testing.T) {
	cfg := testConfig(t)
	dir := filepath.Join(cfg.DataDir, "broker")
	require.NoError(t, os.Mkdir(dir, 0o750))
	broker := start(t, cfg, kafka.DefaultConfig())
	defer stop(t, broker)
	found, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), found.Mode().Perm())
}

func newProducer(address string) (sarama.SyncProducer, error) {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	return sarama.NewSyncProducer([]string{address}, config)
}

func produce(t testing.TB, address, topic string, values ...string) {
	t.Helper()
	producer, err := newProducer(address)
	require.NoError(t, err)
	defer producer.Close() //nolint:errcheck // every message was acknowledged
	for _, value := range values {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)})
		require.NoError(t, err)
	}
}

// read returns everything that the topic's only partition holds.
func read(t testing.TB, address, topic string) []string {
	t.Helper()
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	client, err := sarama.NewClient([]string{address}, config)
	require.NoError(t, err)
	defer client.Close() //nolint:errcheck // nothing was written
	oldest, newest := offsets(t, client, topic)
	consumer, err := sarama.NewConsumerFromClient(client)
	require.NoError(t, err)
	defer consumer.Close() //nolint:errcheck // nothing was written
	partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	require.NoError(t, err)
	defer partition.Close() //nolint:errcheck // nothing was written
	var values []string
	for range newest - oldest {
		select {
		case message := <-partition.Messages():
			values = append(values, string(message.Value))
		case <-time.After(patience):
			require.Fail(t, "a message is missing", "%d of %d", len(values), newest-oldest)
		}
	}
	return values
}

func offsets(t testing.TB, client sarama.Client, topic string) (oldest, newest int64) {
	t.Helper()
	oldest, err := client.GetOffset(topic, 0, sarama.OffsetOldest)
	require.NoError(t, err)
	newest, err = client.GetOffset(topic, 0, sarama.OffsetNewest)
	require.NoError(t, err)
	return oldest, newest
}

func TestTheBrokerListensWhereItSays(t *testing.T) {
	cfg := testConfig(t)
	broker := NewBroker(cfg, kafka.DefaultConfig(), zap.NewNop())
	require.Equal(t, "127.0.0.1:0", broker.Address(), "before the start, what is configured")
	require.NoError(t, broker.Start(t.Context()))
	defer stop(t, broker)
	require.Regexp(t, `^127\.0\.0\.1:[1-9]\d*$`, broker.Address())

	client, err := sarama.NewClient([]string{broker.Address()}, nil)
	require.NoError(t, err)
	defer client.Close() //nolint:errcheck // nothing was written
	require.Len(t, client.Brokers(), 1)
	require.Equal(t, broker.Address(), client.Brokers()[0].Addr(), "clients are sent to the same address")
	topics, err := client.Topics()
	require.NoError(t, err)
	require.ElementsMatch(t, kafka.DefaultConfig().Topics.Names(), topics)
}

func TestEventsSurviveARestart(t *testing.T) {
	cfg, client := testConfig(t), kafka.DefaultConfig()
	var want []string
	for restart := range 3 {
		broker := start(t, cfg, client)
		require.Equal(t, want, read(t, broker.Address(), client.Topics.Events))
		value := fmt.Sprint("event ", restart)
		produce(t, broker.Address(), client.Topics.Events, value)
		want = append(want, value)
		stop(t, broker)
	}
}

func TestATopicKeepsNoMoreThanItsLimit(t *testing.T) {
	cfg, client := testConfig(t), kafka.DefaultConfig()
	cfg.RetentionBytes = configs.MiB
	broker := NewBroker(cfg, client, zap.NewNop())
	broker.retentionInterval = 10 * time.Millisecond
	require.NoError(t, broker.Start(t.Context()))
	defer stop(t, broker)
	values := make([]string, 40)
	for i := range values {
		values[i] = fmt.Sprint(i, strings.Repeat(" ", 100_000))
	}
	produce(t, broker.Address(), client.Topics.Events, values...)
	partition := func() (info struct{ start, end, bytes int64 }) {
		p := broker.cluster.PartitionInfo(client.Topics.Events, 0)
		info.start, info.end, info.bytes = p.LogStartOffset, p.HighWatermark, p.NumBytes
		return info
	}
	require.Eventually(t, func() bool { return partition().bytes <= int64(configs.MiB) }, patience, 5*time.Millisecond)
	require.Positive(t, partition().start)
	require.EqualValues(t, 40, partition().end)
	kept := read(t, broker.Address(), client.Topics.Events)
	require.Equal(t, values[40-len(kept):], kept, "the newest are kept")
	require.GreaterOrEqual(t, len(kept), 9)
	require.Less(t, diskUsage(t, cfg.DataDir), 2*int64(configs.MiB), "the space is given back")
}

func TestOldEventsAreRemoved(t *testing.T) {
	cfg, client := testConfig(t), kafka.DefaultConfig()
	cfg.Retention = 50 * time.Millisecond
	broker := NewBroker(cfg, client, zap.NewNop())
	broker.retentionInterval = 10 * time.Millisecond
	require.NoError(t, broker.Start(t.Context()))
	defer stop(t, broker)
	produce(t, broker.Address(), client.Topics.Events, "old")
	require.Eventually(t, func() bool {
		return broker.cluster.PartitionInfo(client.Topics.Events, 0).LogStartOffset == 1
	}, patience, 5*time.Millisecond)
}

func TestLimitsThatWereChangedHoldForExistingTopics(t *testing.T) {
	cfg, client := testConfig(t), kafka.DefaultConfig()
	stop(t, start(t, cfg, client))
	cfg.RetentionBytes = 30 * configs.MiB
	cfg.Retention = time.Hour
	client.MaxMessageBytes = 3_000_000
	client.Topics.Partitions = 3 // only new topics get them
	client.Topics.AI = "new_topic"
	broker := start(t, cfg, client)
	defer stop(t, broker)
	for topic, bytes := range map[string]string{
		client.Topics.Events: "31457280", client.Topics.Heatmaps: "31457280", "new_topic": "10485760",
	} {
		settings := broker.cluster.TopicInfo(topic).Configs
		require.Equal(t, bytes, *settings["retention.bytes"], topic)
		require.Equal(t, "3600000", *settings["retention.ms"])
		require.Equal(t, "delete", *settings["cleanup.policy"])
		require.Equal(t, "3065536", *settings["max.message.bytes"])
	}
}

func TestASecondProcessOnTheSameDirectoryIsRefused(t *testing.T) {
	cfg := testConfig(t)
	first := start(t, cfg, kafka.DefaultConfig())
	err := NewBroker(cfg, kafka.DefaultConfig(), zap.NewNop()).Start(t.Context())
	require.ErrorContains(t, err, "embedded.data_dir: ")
	require.ErrorContains(t, err, cfg.DataDir)
	require.ErrorIs(t, err, errInUse)
	stop(t, first)
	stop(t, start(t, cfg, kafka.DefaultConfig()))
}

func TestAPortInUseIsNamedByItsKey(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close() //nolint:errcheck // nothing was written
	cfg := testConfig(t)
	cfg.KafkaListen = listener.Addr().String()
	err = NewBroker(cfg, kafka.DefaultConfig(), zap.NewNop()).Start(t.Context())
	require.ErrorContains(t, err, "embedded.kafka_listen: ")
	require.ErrorContains(t, err, "address already in use")

	cfg.KafkaListen = "127.0.0.1:0"
	stop(t, start(t, cfg, kafka.DefaultConfig())) // the failure left no lock behind
}

// child produces numbered messages into a broker of its own, and prints each message once it is acknowledged.
func child(dir string) {
	cfg := DefaultConfig()
	cfg.DataDir, cfg.KafkaListen, cfg.StartTimeout = dir, "127.0.0.1:0", patience
	client := kafka.DefaultConfig()
	broker := NewBroker(cfg, client, zap.NewNop())
	exit := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := broker.Start(context.Background()); err != nil {
		exit(err)
	}
	producer, err := newProducer(broker.Address())
	if err != nil {
		exit(err)
	}
	for n := 0; ; n++ {
		value := fmt.Sprint(n)
		if _, _, err := producer.SendMessage(&sarama.ProducerMessage{
			Topic: client.Topics.Events, Value: sarama.StringEncoder(value),
		}); err != nil {
			exit(err)
		}
		fmt.Println(value)
	}
}

func TestAcknowledgedEventsSurviveKillingTheProcess(t *testing.T) {
	cfg, client := testConfig(t), kafka.DefaultConfig()
	kept := 0
	for range 2 { // the second time on data that a killed process has left
		killed := exec.Command(os.Args[0])
		killed.Env = append(os.Environ(), childDir+"="+cfg.DataDir)
		killed.Stderr = os.Stderr
		out, err := killed.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, killed.Start())
		acknowledged := 0
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			require.Equal(t, fmt.Sprint(acknowledged), lines.Text())
			if acknowledged++; acknowledged == 200 {
				require.NoError(t, killed.Process.Kill())
			}
		}
		var exited *exec.ExitError
		require.ErrorAs(t, killed.Wait(), &exited)
		require.GreaterOrEqual(t, acknowledged, 200)

		broker := start(t, cfg, client)
		values := read(t, broker.Address(), client.Topics.Events)
		require.GreaterOrEqual(t, len(values), kept+acknowledged)
		for n := range acknowledged {
			require.Equal(t, fmt.Sprint(n), values[kept+n])
		}
		kept = len(values)
		stop(t, broker)
	}
}

func TestAStartThatTakesTooLongLeavesNothingBehind(t *testing.T) {
	cfg, client := testConfig(t), kafka.DefaultConfig()
	late := cfg
	late.StartTimeout = time.Nanosecond
	err := NewBroker(late, client, zap.NewNop()).Start(t.Context())
	require.ErrorContains(t, err, "embedded.start_timeout (1ns)")
	// The work that the failed start had begun ends by itself. Then the directory is free again.
	var broker *Broker
	require.Eventually(t, func() bool {
		broker = NewBroker(cfg, client, zap.NewNop())
		return broker.Start(t.Context()) == nil
	}, patience, 10*time.Millisecond)
	stop(t, broker)
}

func TestConfigurationFaultsAreReported(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	err := Config{KafkaListen: "0.0.0.0:99999"}.Validate()
	for _, fault := range []string{
		"data_dir: must not be empty", "kafka_listen: must name the address", "kafka_listen: must be host:port",
		"retention_bytes: must be at least 1MiB", "retention: must be at least 1m",
	} {
		require.ErrorContains(t, err, fault)
	}
	require.ErrorContains(t, Config{KafkaListen: "nonsense"}.Validate(), "kafka_listen: must be host:port")
}

func diskUsage(t testing.TB, dir string) int64 {
	t.Helper()
	var bytes int64
	files, err := filepath.Glob(filepath.Join(dir, "broker", "*", "*", "*"))
	require.NoError(t, err)
	flat, err := filepath.Glob(filepath.Join(dir, "broker", "*", "*"))
	require.NoError(t, err)
	for _, file := range append(files, flat...) {
		if info, err := os.Stat(file); err == nil && !info.IsDir() { // the file may be removed at any time
			bytes += info.Size()
		}
	}
	require.Positive(t, bytes)
	return bytes
}

// BenchmarkAcknowledge measures how long a request of one event waits, without and with sync_writes.
func BenchmarkAcknowledge(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprint("sync_writes=", sync), func(b *testing.B) {
			cfg := testConfig(b)
			cfg.SyncWrites = sync
			broker := start(b, cfg, kafka.DefaultConfig())
			defer stop(b, broker)
			producer, err := newProducer(broker.Address())
			require.NoError(b, err)
			defer producer.Close() //nolint:errcheck // every message was acknowledged
			value := sarama.StringEncoder(strings.Repeat("x", 1500))
			for b.Loop() {
				_, _, err := producer.SendMessage(&sarama.ProducerMessage{
					Topic: kafka.DefaultConfig().Topics.Events, Value: value,
				})
				require.NoError(b, err)
			}
		})
	}
}
