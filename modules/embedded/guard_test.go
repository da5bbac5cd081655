package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/kafka"
)

// startWatched starts a broker, and returns the broker and its warnings.
func startWatched(t testing.TB, change func(*Broker)) (*Broker, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.WarnLevel)
	broker := NewBroker(testConfig(t), kafka.DefaultConfig(), zap.New(core))
	if change != nil {
		change(broker)
	}
	require.NoError(t, broker.Start(context.Background()))
	return broker, logs
}

func dial(t testing.TB, broker *Broker) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(context.Background(), "tcp", broker.Address())
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { conn.Close() }) //nolint:errcheck // it is closed
	return conn
}

// requireClosed requires that the connection ends; it reads until then.
func requireClosed(t testing.TB, conn net.Conn) {
	t.Helper()
	answer, err := io.ReadAll(conn)
	var timeout net.Error
	if errors.As(err, &timeout) {
		require.False(t, timeout.Timeout(), "the connection stayed open")
	}
	require.Empty(t, answer)
}

func frame(body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func framed(request kmsg.Request, version int16) []byte {
	request.SetVersion(version)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, request, 7)
}

// exchange sends a request and returns the answer, as a client does.
func exchange[R kmsg.Response](conn net.Conn, request kmsg.Request, version int16) (response R, err error) {
	if _, err := conn.Write(framed(request, version)); err != nil {
		return response, err
	}
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return response, err
	}
	if correlation := binary.BigEndian.Uint32(head[4:]); correlation != 7 {
		return response, fmt.Errorf("the answer to request %d", correlation)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		return response, err
	}
	response = request.ResponseKind().(R)
	return response, response.ReadFrom(body)
}

func ask[R kmsg.Response](t testing.TB, conn net.Conn, request kmsg.Request, version int16) R {
	t.Helper()
	response, err := exchange[R](conn, request, version)
	require.NoError(t, err)
	return response
}

// batch returns a record batch of one empty record, with the right checksum.
func batch(change func(*kmsg.RecordBatch)) []byte {
	record := kmsg.Record{Length: 6}
	b := kmsg.RecordBatch{
		Magic: 2, NumRecords: 1, Records: record.AppendTo(nil),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
	}
	change(&b)
	b.Length = int32(49 + len(b.Records))
	b.LastOffsetDelta = b.NumRecords - 1
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

func produceRequest(topic string, records []byte) *kmsg.ProduceRequest {
	request := kmsg.NewPtrProduceRequest()
	request.Acks, request.TimeoutMillis = -1, 1000
	request.Topics = []kmsg.ProduceRequestTopic{{Topic: topic,
		Partitions: []kmsg.ProduceRequestTopicPartition{{Records: records}}}}
	return request
}

func TestTheTableOfServedRequestsIsTrue(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer cluster.Close()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", cluster.ListenAddrs()[0])
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // nothing is lost
	offered := map[int16]kmsg.ApiVersionsResponseApiKey{}
	for _, key := range ask[*kmsg.ApiVersionsResponse](t, conn, kmsg.NewPtrApiVersionsRequest(), 0).ApiKeys {
		offered[key.ApiKey] = key
	}
	for key, versions := range served {
		broker, known := offered[key.Int16()]
		require.True(t, known, key.Name())
		require.GreaterOrEqual(t, versions.min, broker.MinVersion, key.Name())
		require.LessOrEqual(t, versions.max, broker.MaxVersion, key.Name())
		if key != kmsg.ApiVersions {
			request := key.Request()
			request.SetVersion(versions.max)
			require.False(t, request.IsFlexible(), "%s version %d has tagged fields", key.Name(), versions.max)
		}
	}
}

func TestClientsAreToldWhatIsServed(t *testing.T) {
	broker, _ := startWatched(t, nil)
	defer stop(t, broker)
	conn := dial(t, broker)
	for version := range int16(4) {
		request := kmsg.NewPtrApiVersionsRequest()
		request.ClientSoftwareName, request.ClientSoftwareVersion = "test", "1"
		response := ask[*kmsg.ApiVersionsResponse](t, conn, request, version)
		require.Zero(t, response.ErrorCode)
		require.Len(t, response.ApiKeys, len(served))
	}
	_, err := conn.Write(frame(0, 18, 0, 99, 0, 0, 0, 7))
	require.NoError(t, err)
	var answer [20]byte // in version 0
	_, err = io.ReadFull(conn, answer[:])
	require.NoError(t, err)
	require.Equal(t, []byte{0, 0, 0, 16, 0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3}, answer[:],
		"UNSUPPORTED_VERSION, and which are")
}

// hostile returns the requests that ended the process or filled its memory, and similar ones.
func hostile() map[string]struct {
	bytes []byte
	says  string
} {
	large := func(key kmsg.Key, version int16) []byte {
		body := kbin.AppendString(kbin.AppendInt32(kbin.AppendInt16(kbin.AppendInt16(nil, int16(key)), version), 7),
			"test")
		return frame(append(body, make([]byte, 300<<10)...)...)
	}
	committed := strings.Repeat("x", 5000)
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group = "g"
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t",
		Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Metadata: &committed}}}}
	name := kmsg.NewPtrOffsetCommitRequest()
	name.Group = strings.Repeat("x", 300)
	member := kmsg.NewPtrJoinGroupRequest()
	member.Group, member.Protocols = "g",
		[]kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: make([]byte, 100<<10)}}
	twice := kmsg.NewPtrJoinGroupRequest()
	twice.Group, twice.SessionTimeoutMillis, twice.ProtocolType = "g", 6000, "consumer"
	none := *twice
	twice.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}, {Name: "range"}}
	many := produceRequest("t", nil)
	many.Topics[0].Partitions = make([]kmsg.ProduceRequestTopicPartition, maxBatches+1)
	return map[string]struct {
		bytes []byte
		says  string
	}{
		"HTTP": {[]byte("GET / HTTP/1.1\r\n\r\n"),
			"this is the Kafka port; HTTP is served at transport.listen"},
		"HTTP post": {[]byte("POST /batch/ HTTP/1.1\r\n\r\n"),
			"this is the Kafka port; HTTP is served at transport.listen"},
		"TLS":                       {[]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01}, "does not speak TLS"},
		"a size of 4 GiB":           {[]byte{0xff, 0xff, 0xff, 0xff}, "kafka.max_message_bytes"},
		"no size":                   {frame(), "none of Kafka's"},
		"a header cut off":          {frame(0, 3, 0, 1, 0, 0, 0, 7), "its header is cut off"},
		"an unknown request":        {frame(0, 99, 0, 0, 0, 0, 0, 7, 0xff, 0xff), "is not served"},
		"a negative request":        {frame(0xff, 0xff, 0, 0, 0, 0, 0, 7, 0xff, 0xff), "is not served"},
		"an unknown version":        {frame(0, 3, 0, 77, 0, 0, 0, 7, 0xff, 0xff), "Metadata version 77"},
		"tagged fields":             {framed(kmsg.NewPtrMetadataRequest(), 9), "Metadata version 9"},
		"transactions":              {framed(kmsg.NewPtrAddPartitionsToTxnRequest(), 0), "is not served"},
		"a change of configuration": {framed(kmsg.NewPtrIncrementalAlterConfigsRequest(), 0), "is not served"},
		"an array beyond its end": {frame(0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 9),
			"did not contain enough data"},
		"a large request": {large(kmsg.Metadata, 1), "at most 256KiB"},
		"a batch of no records": {framed(produceRequest("t",
			batch(func(b *kmsg.RecordBatch) { b.NumRecords = 0 })), 7), "a batch of 0 records"},
		"a batch of -5 records": {framed(produceRequest("t",
			batch(func(b *kmsg.RecordBatch) { b.NumRecords = -5 })), 7), "a batch of -5 records"},
		"too many batches":          {framed(many, 7), "more than 10000 topics and batches"},
		"large metadata of offsets": {framed(commit, 2), "metadata of 5000 bytes"},
		"the name of a group":       {framed(name, 2), "the name of a group of 300 bytes"},
		"what a member says of it":  {framed(member, 2), "at most 64KiB"},
		"a protocol twice":          {framed(twice, 2), `JoinGroup: the protocol "range" twice`},
		"no protocol":               {framed(&none, 2), "JoinGroup: no protocol"},
		"a produce with nothing":    {frame(0, 0, 0, 7, 0, 0, 0, 7, 0xff, 0xff), "Produce: cannot be read"},
		"a produce with large array": {frame(0, 0, 0, 7, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 1, 0x7f,
			0xff, 0xff, 0xff), "Produce: cannot be read"},
	}
}

func TestAHostileRequestEndsItsConnectionAndNothingElse(t *testing.T) {
	for name, request := range hostile() {
		t.Run(name, func(t *testing.T) {
			broker, logs := startWatched(t, func(b *Broker) { b.guard.requestTimeout = time.Second })
			defer stop(t, broker)
			conn := dial(t, broker)
			_, err := conn.Write(request.bytes)
			require.NoError(t, err)
			requireClosed(t, conn)
			require.Len(t, logs.All(), 1)
			require.Contains(t, logs.All()[0].ContextMap()["error"], request.says)
			require.Contains(t, logs.All()[0].ContextMap()["client"], "127.0.0.1:")
			produce(t, broker.Address(), kafka.DefaultConfig().Topics.Events, "alive")
		})
	}
}

func TestRefusalsAreLoggedOnceInAWhile(t *testing.T) {
	broker, logs := startWatched(t, nil)
	defer stop(t, broker)
	for range 20 {
		conn := dial(t, broker)
		_, err := conn.Write(frame(0, 99, 0, 0, 0, 0, 0, 7, 0xff, 0xff))
		require.NoError(t, err)
		requireClosed(t, conn)
	}
	require.Len(t, logs.All(), 1)
}

// heap returns how many bytes are alive in memory now.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestWhatIsOnlyAnnouncedTakesNoMemory(t *testing.T) {
	broker, _ := startWatched(t, nil)
	defer stop(t, broker)
	before := heap()
	for range 100 { // 1.7 GB announced
		conn := dial(t, broker)
		begun := binary.BigEndian.AppendUint32(nil, uint32(broker.guard.maxProduce))
		_, err := conn.Write(append(begun, 0, 0, 0, 7, 0, 0, 0, 7, 0xff, 0xff))
		require.NoError(t, err)
	}
	produce(t, broker.Address(), kafka.DefaultConfig().Topics.Events, "alive")
	require.Less(t, int64(heap())-int64(before), int64(64<<20))
}

func TestARequestThatStallsIsEnded(t *testing.T) {
	broker, logs := startWatched(t, func(b *Broker) { b.guard.requestTimeout = 20 * time.Millisecond })
	defer stop(t, broker)
	for _, begun := range [][]byte{{0}, {0, 0, 1, 0}, {0, 0, 1, 0, 0, 3, 0, 1, 0, 0, 0, 7}} {
		conn := dial(t, broker)
		_, err := conn.Write(begun)
		require.NoError(t, err)
		requireClosed(t, conn)
	}
	require.Contains(t, logs.All()[0].ContextMap()["error"], "i/o timeout")
}

func TestAnIdleConnectionIsEndedQuietly(t *testing.T) {
	broker, logs := startWatched(t, func(b *Broker) { b.guard.idleTimeout = 20 * time.Millisecond })
	defer stop(t, broker)
	requireClosed(t, dial(t, broker))
	require.Empty(t, logs.All())
}

func TestConnectionsAreLimited(t *testing.T) {
	broker, logs := startWatched(t, nil)
	defer stop(t, broker)
	conns := make([]net.Conn, maxConnections)
	for i := range conns {
		conns[i] = dial(t, broker)
		ask[*kmsg.ApiVersionsResponse](t, conns[i], kmsg.NewPtrApiVersionsRequest(), 0) // so the connection is accepted
	}
	requireClosed(t, dial(t, broker))
	require.Contains(t, logs.All()[0].ContextMap()["error"], "more than 500 connections")
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
	require.Eventually(t, func() bool { return broker.guard.connections.Load() == 0 }, patience, time.Millisecond)
	produce(t, broker.Address(), kafka.DefaultConfig().Topics.Events, "alive")
	require.Eventually(t, func() bool { return broker.guard.inFlight.Load() == 0 }, patience, time.Millisecond)
}

func TestRequestsTogetherAreLimited(t *testing.T) {
	broker, logs := startWatched(t, func(b *Broker) { b.guard.maxInFlight = 1 << 20 })
	defer stop(t, broker)
	conn := dial(t, broker)
	_, err := conn.Write(framed(produceRequest("t", make([]byte, 2<<20)), 7))
	if err == nil { // the guard may have hung up earlier
		requireClosed(t, conn)
	}
	require.Eventually(t, func() bool { return logs.Len() == 1 }, patience, time.Millisecond)
	require.Contains(t, logs.All()[0].ContextMap()["error"], "requests of all clients together take more than 1MiB")
	produce(t, broker.Address(), kafka.DefaultConfig().Topics.Events, "alive")
	require.Eventually(t, func() bool { return broker.guard.inFlight.Load() == 0 }, patience, time.Millisecond)
}

func createRequest(partitions int32, names ...string) *kmsg.CreateTopicsRequest {
	request := kmsg.NewPtrCreateTopicsRequest()
	for _, name := range names {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
		value := "1"
		topic.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "segment.bytes", Value: &value},
			{Name: "nonsense", Value: &value}}
		request.Topics = append(request.Topics, topic)
	}
	return request
}

func TestATopicOfCountlessPartitionsIsRefusedAndTheNextStartWorks(t *testing.T) {
	cfg, client := testConfig(t), kafka.DefaultConfig()
	broker := start(t, cfg, client)
	before := heap()
	for version := range int16(5) {
		response := ask[*kmsg.CreateTopicsResponse](t, dial(t, broker), createRequest(math.MaxInt32, "huge"), version)
		require.Equal(t, kerr.InvalidPartitions.Code, response.Topics[0].ErrorCode)
	}
	require.Less(t, int64(heap())-int64(before), int64(16<<20))
	produce(t, broker.Address(), client.Topics.Events, "kept")
	stop(t, broker)

	broker = start(t, cfg, client)
	defer stop(t, broker)
	require.Equal(t, []string{"kept"}, read(t, broker.Address(), client.Topics.Events))
	require.Nil(t, broker.cluster.TopicInfo("huge"))
}

func TestClientsCreateTopicsWithinLimits(t *testing.T) {
	cfg, client := testConfig(t), kafka.DefaultConfig()
	broker := start(t, cfg, client)
	create := func(request *kmsg.CreateTopicsRequest) int16 {
		return ask[*kmsg.CreateTopicsResponse](t, dial(t, broker), request, 4).Topics[0].ErrorCode
	}
	require.Zero(t, create(createRequest(-1, "mine")))
	settings := broker.cluster.TopicInfo("mine").Configs
	require.Len(t, settings, len(broker.limits(1)))
	require.Equal(t, "1073741824", *settings["retention.bytes"], "a topic of a client keeps no more than ours")
	for _, name := range []string{"", "..", "a/b", strings.Repeat("x", 250)} {
		require.Equal(t, kerr.InvalidTopicException.Code, create(createRequest(1, name)), name)
	}
	require.Zero(t, create(createRequest(99, "a", "b")))
	require.Equal(t, kerr.InvalidPartitions.Code, create(createRequest(2, "c")), "199 are there")
	require.Equal(t, kerr.TopicAlreadyExists.Code, create(createRequest(99, "a")), "a second try costs nothing")
	require.Equal(t, kerr.TopicAlreadyExists.Code, create(createRequest(1, kafka.DefaultConfig().Topics.Events)))
	stop(t, broker)

	broker = start(t, cfg, client)
	defer stop(t, broker)
	require.Equal(t, kerr.InvalidPartitions.Code, create(createRequest(2, "c")), "those from before the restart count")
	require.Zero(t, create(createRequest(1, "c")))
}

func TestTransactionsAreRefused(t *testing.T) {
	broker, _ := startWatched(t, nil)
	defer stop(t, broker)
	request := kmsg.NewPtrInitProducerIDRequest()
	request.TransactionalID = kmsg.StringPtr("x")
	response := ask[*kmsg.InitProducerIDResponse](t, dial(t, broker), request, 1)
	require.Equal(t, kerr.TransactionalIDAuthorizationFailed.Code, response.ErrorCode)
}

func TestOffsetsAreNotLookedUpByTime(t *testing.T) {
	broker, _ := startWatched(t, nil)
	defer stop(t, broker)
	events := kafka.DefaultConfig().Topics.Events
	produce(t, broker.Address(), events, "a")
	for timestamp, code := range map[int64]int16{-2: 0, -1: 0, 0: 43, math.MaxInt64: 43} {
		request := kmsg.NewPtrListOffsetsRequest()
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Timestamp = timestamp
		request.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: events,
			Partitions: []kmsg.ListOffsetsRequestTopicPartition{partition}}}
		response := ask[*kmsg.ListOffsetsResponse](t, dial(t, broker), request, 5)
		require.Equal(t, code, response.Topics[0].Partitions[0].ErrorCode, timestamp)
	}
}

func TestNewcomersAreLimited(t *testing.T) {
	broker, logs := startWatched(t, nil)
	defer stop(t, broker)
	conn := dial(t, broker)
	for range newcomersAtOnce {
		require.Zero(t, ask[*kmsg.InitProducerIDResponse](t, conn, kmsg.NewPtrInitProducerIDRequest(), 1).ErrorCode)
	}
	refused := false
	for range newcomersAtOnce { // the guard admits one more each second
		if _, err := conn.Write(framed(kmsg.NewPtrInitProducerIDRequest(), 1)); err != nil {
			refused = true
			break
		}
		if _, err := io.ReadFull(conn, make([]byte, 4+4+4+2+8+2)); err != nil {
			refused = true
			break
		}
	}
	require.True(t, refused)
	require.Contains(t, logs.All()[0].ContextMap()["error"], "too many new producers")
}

func TestAFetchIsLimited(t *testing.T) {
	broker, _ := startWatched(t, nil)
	defer stop(t, broker)
	request := kmsg.NewPtrFetchRequest()
	request.MaxBytes, request.MaxWaitMillis = math.MaxInt32, math.MaxInt32
	request.SessionID, request.SessionEpoch = 3, 4
	partition := kmsg.FetchRequestTopicPartition{PartitionMaxBytes: math.MaxInt32}
	request.Topics = []kmsg.FetchRequestTopic{{Partitions: []kmsg.FetchRequestTopicPartition{partition}}}
	broker.guard.limitFetch(request)
	require.EqualValues(t, 16<<20, request.MaxBytes)
	require.EqualValues(t, 30_000, request.MaxWaitMillis)
	require.Equal(t, []int32{0, -1}, []int32{request.SessionID, request.SessionEpoch})
	require.EqualValues(t, 16<<20, request.Topics[0].Partitions[0].PartitionMaxBytes)
	broker.guard.connections.Store(256)
	broker.guard.limitFetch(request)
	require.EqualValues(t, 512<<10, request.MaxBytes)
	broker.guard.connections.Store(0)
}

func TestAProduceWithoutAcknowledgementIsNotWaitedFor(t *testing.T) {
	broker, _ := startWatched(t, nil)
	defer stop(t, broker)
	conn := dial(t, broker)
	events := kafka.DefaultConfig().Topics.Events
	request := produceRequest(events, batch(func(*kmsg.RecordBatch) {}))
	request.Acks = 0
	for range 3 {
		_, err := conn.Write(framed(request, 7))
		require.NoError(t, err)
	}
	require.Len(t, ask[*kmsg.MetadataResponse](t, conn, kmsg.NewPtrMetadataRequest(), 1).Brokers, 1)
	require.EqualValues(t, 3, broker.cluster.PartitionInfo(events, 0).HighWatermark)
}

func TestOrdinaryClientsWork(t *testing.T) {
	broker, logs := startWatched(t, nil)
	defer stop(t, broker)
	events := kafka.DefaultConfig().Topics.Events
	t.Run("sarama", func(t *testing.T) {
		produce(t, broker.Address(), events, "sarama 1", "sarama 2")
		config := sarama.NewConfig()
		config.Version = sarama.MaxVersion
		config.Consumer.Offsets.Initial = sarama.OffsetOldest
		group, err := sarama.NewConsumerGroup([]string{broker.Address()}, "sarama", config)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		consumer := &collector{want: 2, enough: cancel}
		require.NoError(t, group.Consume(ctx, []string{events}, consumer))
		require.Equal(t, []string{"sarama 1", "sarama 2"}, consumer.values)
		require.NoError(t, group.Close())

		admin, err := sarama.NewClusterAdmin([]string{broker.Address()}, config)
		require.NoError(t, err)
		defer admin.Close() //nolint:errcheck // nothing was written
		require.NoError(t, admin.CreateTopic("by-sarama",
			&sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1}, false))
		topics, err := admin.ListTopics()
		require.NoError(t, err)
		require.EqualValues(t, 2, topics["by-sarama"].NumPartitions)
		offsets, err := admin.ListConsumerGroupOffsets("sarama", map[string][]int32{events: {0}})
		require.NoError(t, err)
		require.EqualValues(t, 2, offsets.GetBlock(events, 0).Offset)
		require.NoError(t, admin.DeleteTopic("by-sarama"))
	})
	t.Run("franz-go", func(t *testing.T) {
		client, err := kgo.NewClient(kgo.SeedBrokers(broker.Address()), kgo.ConsumerGroup("franz"),
			kgo.ConsumeTopics(events),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		require.NoError(t, err)
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		require.NoError(t, client.ProduceSync(ctx, &kgo.Record{Topic: events, Value: []byte("franz")}).FirstErr())
		var values []string
		for len(values) < 3 && ctx.Err() == nil {
			client.PollFetches(ctx).EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
		}
		require.Equal(t, []string{"sarama 1", "sarama 2", "franz"}, values)
		require.NoError(t, client.CommitUncommittedOffsets(ctx))
	})
	require.Empty(t, logs.All(), "none of what they sent was refused")
}

// collector is a member of a group that takes want messages.
type collector struct {
	want   int
	values []string
	enough context.CancelFunc
}

func (*collector) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*collector) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (c *collector) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		c.values = append(c.values, string(message.Value))
		session.MarkMessage(message, "")
		if len(c.values) == c.want {
			c.enough()
		}
	}
	return nil
}

func TestTheBrokerSaysWhatItDoesNotDo(t *testing.T) {
	cfg := DefaultConfig()
	broker := func() string { return NewBroker(cfg, kafka.DefaultConfig(), zap.NewNop()).String() }
	require.Equal(t, "embedded broker at 127.0.0.1:19092 (one node, not replicated), data in ./data", broker())
	cfg.SyncWrites = false
	require.Contains(t, broker(), "not synced: a power loss takes what was acknowledged last")
	for address, open := range map[string]bool{
		"localhost:1": false, "[::1]:1": false, "127.0.0.2:1": false, "10.0.0.1:1": true, "example.org:1": true,
	} {
		cfg.KafkaListen = address
		require.Equal(t, open, strings.Contains(broker(), "no authentication"), address)
	}
}

func TestAPortForOtherMachinesIsWarnedOf(t *testing.T) {
	broker, logs := startWatched(t, func(b *Broker) { b.cfg.KafkaListen = fmt.Sprintf("%s:0", hostAddress(t)) })
	defer stop(t, broker)
	require.Len(t, logs.All(), 1)
	require.Contains(t, logs.All()[0].Message, "no authentication")
}

// hostAddress returns an address of this machine that is not on the loopback interface.
func hostAddress(t *testing.T) string {
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	t.Skip("this machine has the loopback interface only")
	return ""
}
