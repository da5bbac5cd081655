package kafka_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

func TestMessagesArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	brokers := cluster(t)
	for _, compression := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			t.Parallel()
			cfg := config(brokers...)
			cfg.Compression, cfg.Topics.Partitions = compression, 1
			producer, _ := start(t, cfg)
			topic, at := cfg.Topics.Events, time.Now().Add(-time.Hour).Truncate(time.Millisecond)
			header := func(key, value []byte) produce.Header { return produce.Header{Key: key, Value: value} }
			began := time.Now().Truncate(time.Millisecond)
			list := []produce.Message{
				{
					Topic: topic, Key: []byte("k"), Value: []byte(strings.Repeat("x", 100_000)),
					Time: at.Add(123 * time.Microsecond),
				},
				{Topic: topic, Value: []byte("no key")},
				{Topic: topic, Key: []byte{}, Value: []byte("an empty key"), Time: at.Add(-time.Hour)},
				{Topic: topic, Key: []byte("an empty value"), Value: []byte{}},
				{Topic: topic, Key: []byte("no value")},
				{Topic: topic, Key: []byte("headers"), Value: []byte("v"), Headers: []produce.Header{
					header([]byte("a"), []byte("b")), header([]byte("a"), []byte("c")),
					header([]byte("empty"), []byte{}), header([]byte("nil"), nil),
				}},
			}
			send(producer, list).requireAcknowledged(t)
			records := consume(t, brokers, topic, len(list))
			for i, r := range records {
				require.Equal(t, list[i].Key, r.Key, "%d", i)
				require.Equal(t, list[i].Value, r.Value, "%d", i)
				require.Len(t, r.Headers, len(list[i].Headers), "%d", i)
				for j, h := range list[i].Headers {
					require.Equal(t, kgo.RecordHeader{Key: string(h.Key), Value: h.Value}, r.Headers[j])
				}
				if want := list[i].Time; !want.IsZero() {
					require.Equal(t, want.UnixMilli(), r.Timestamp.UnixMilli(), "%d", i)
				} else {
					require.WithinRange(t, r.Timestamp, began, time.Now(), "%d", i)
				}
			}
		})
	}
}

func TestMessagesWithoutAKeyGoToAllPartitions(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, _ := start(t, cfg)
	var sent []*reports
	for i := range 30 {
		list := messages(cfg.Topics.Events, 2*i, 2)
		list[0].Key, list[1].Key = nil, nil
		sent = append(sent, send(producer, list))
	}
	for _, r := range sent {
		r.requireAcknowledged(t)
	}
	partitions := map[int32]int{}
	for _, r := range consume(t, cfg.Brokers, cfg.Topics.Events, 60) {
		require.Nil(t, r.Key)
		partitions[r.Partition]++
	}
	require.Len(t, partitions, 3)
	for partition, n := range partitions {
		require.GreaterOrEqual(t, n, 18, "partition %d", partition)
	}
}

func TestAMessageJustUnderTheLimitIsTaken(t *testing.T) {
	t.Parallel()
	brokers := cluster(t)
	for _, compression := range []string{"none", "lz4"} {
		t.Run(compression, func(t *testing.T) {
			t.Parallel()
			cfg := config(brokers...)
			cfg.Compression = compression
			producer, _ := start(t, cfg)
			m := produce.Message{Topic: cfg.Topics.Events, Key: []byte("k")}
			m.Value = []byte(strings.Repeat("x", int(cfg.MaxMessageBytes)-m.Size()))
			list := []produce.Message{m, m, m}
			send(producer, list).requireAcknowledged(t)
			require.Len(t, consume(t, brokers, cfg.Topics.Events, 3), 3)
		})
	}
}

func TestACreatedTopicTakesWhatTheLimitAllows(t *testing.T) {
	t.Parallel()
	brokers := cluster(t)
	cfg := config(brokers...)
	cfg.MaxMessageBytes, cfg.Compression = 3_000_000, "none"
	producer, _ := start(t, cfg)
	list := messages(cfg.Topics.Events, 0, 2)
	list[1].Value = []byte(strings.Repeat("x", 2_900_000))
	send(producer, list).requireAcknowledged(t)
	require.Len(t, consume(t, brokers, cfg.Topics.Events, 2,
		kgo.FetchMaxBytes(8<<20), kgo.FetchMaxPartitionBytes(8<<20)), 2)
}

func TestMissingTopicsAreCreatedAsConfigured(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Topics.Partitions = 5
	cfg.Topics.Exceptions += "-exceptions"
	producer, _ := start(t, cfg)
	send(producer, spread(cfg.Topics.Exceptions, 0, 100)).requireAcknowledged(t)
	partitions := map[int32]bool{}
	for _, r := range consume(t, cfg.Brokers, cfg.Topics.Exceptions, 100) {
		partitions[r.Partition] = true
	}
	require.Len(t, partitions, 5)
}

func TestATopicIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	brokers := cluster(t)
	cfg := config(brokers...)
	producer, _ := start(t, cfg)
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	reader := kafka.NewReader(cfg, bootstrap)
	none := func(int32, int64, *produce.Message) error { return errors.New("there is nothing") }
	require.NoError(t, reader.ReadTopic(t.Context(), cfg.Topics.Events, none))
	require.NoError(t, reader.ReadTopic(t.Context(), "no-such-topic", none))

	list := spread(cfg.Topics.Events, 0, 20)
	for i := range list {
		list[i].Headers = []produce.Header{{Key: []byte("n"), Value: list[i].Key}}
	}
	send(producer, list).requireAcknowledged(t)
	found, next := map[string]bool{}, map[int32]int64{}
	each := func(partition int32, offset int64, m *produce.Message) error {
		require.Equal(t, next[partition], offset)
		next[partition]++
		require.Equal(t, m.Key, m.Headers[0].Value)
		found[string(m.Value)] = true
		return nil
	}
	require.NoError(t, reader.ReadTopic(t.Context(), cfg.Topics.Events, each))
	require.Len(t, found, 20)

	enough := errors.New("enough")
	require.ErrorIs(t, reader.ReadTopic(t.Context(), cfg.Topics.Events,
		func(int32, int64, *produce.Message) error { return enough }), enough)
	cfg.Brokers = []string{freeAddress(t)}
	bootstrap, err = kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	require.ErrorContains(t, kafka.NewReader(cfg, bootstrap).ReadTopic(t.Context(), cfg.Topics.Events, none),
		"cannot use Kafka at "+cfg.Brokers[0]+": connection refused: nobody listens there, see kafka.brokers")
}
