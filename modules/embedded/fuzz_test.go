package embedded

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/opencapture/capture/modules/kafka"
)

// ordinary returns requests that clients send. Requests that follow from one another share a seed.
func ordinary() [][]kmsg.Request {
	const topic, group = "clickhouse_events", "g"
	produce := produceRequest(topic, batch(func(b *kmsg.RecordBatch) {
		b.ProducerID, b.ProducerEpoch, b.FirstSequence = 5, 0, 0
	}))
	fetch := kmsg.NewPtrFetchRequest()
	fetch.MaxBytes, fetch.MaxWaitMillis, fetch.MinBytes = math.MaxInt32, 1, 1
	fetch.Topics = []kmsg.FetchRequestTopic{{Topic: topic,
		Partitions: []kmsg.FetchRequestTopicPartition{{CurrentLeaderEpoch: -1, PartitionMaxBytes: 1 << 20}}}}
	list := kmsg.NewPtrListOffsetsRequest()
	list.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: topic,
		Partitions: []kmsg.ListOffsetsRequestTopicPartition{{CurrentLeaderEpoch: -1, Timestamp: -1}}}}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation = group, -1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: topic,
		Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1, Metadata: kmsg.StringPtr("m")}}}}
	committed := kmsg.NewPtrOffsetFetchRequest()
	committed.Group = group
	committed.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: topic, Partitions: []int32{0}}}
	coordinator := kmsg.NewPtrFindCoordinatorRequest()
	coordinator.CoordinatorKey = group
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis, join.ProtocolType = group, 6000, 10, "consumer"
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range",
		Metadata: []byte{0, 0, 0, 0, 0, 1, 0, 1, 't', 0, 0, 0, 0}}}
	static := *join
	static.InstanceID = kmsg.StringPtr("i")
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.Generation, sync.MemberID = group, 1, "m"
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: "m", MemberAssignment: []byte{1}}}
	heartbeat := kmsg.NewPtrHeartbeatRequest()
	heartbeat.Group, heartbeat.MemberID = group, "m"
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: "m", InstanceID: kmsg.StringPtr("i")}}
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{group}
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr(topic)}}
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.TopicNames = []string{"t"}
	truncate := kmsg.NewPtrDeleteRecordsRequest()
	truncate.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic,
		Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}}}
	epoch := kmsg.NewPtrOffsetForLeaderEpochRequest()
	epoch.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: topic,
		Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{CurrentLeaderEpoch: -1}}}}
	configs := kmsg.NewPtrDescribeConfigsRequest()
	configs.Resources = []kmsg.DescribeConfigsRequestResource{
		{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"retention.ms"}},
		{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "0"},
	}
	assigned := createRequest(-1, "assigned")
	assigned.Topics[0].ReplicationFactor = -1
	assigned.Topics[0].ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Replicas: []int32{0}}}
	return [][]kmsg.Request{
		{produce, fetch, list, truncate, fetch}, {coordinator, commit, committed, describe},
		{join, sync, heartbeat, leave},
		{&static, describe, sync, leave}, {createRequest(2, "t"), metadata, remove}, {assigned, epoch, configs},
		{kmsg.NewPtrApiVersionsRequest(), kmsg.NewPtrInitProducerIDRequest(), kmsg.NewPtrListGroupsRequest()},
	}
}

// FuzzNoRequestEndsTheProcess sends requests to a real broker behind the guard. In the fuzzer's data a request is two
// bytes of length, and as many bytes of the frame behind its size. The broker must go on working, and must start again.
func FuzzNoRequestEndsTheProcess(f *testing.F) {
	for _, requests := range ordinary() {
		for _, newest := range []bool{false, true} {
			var seed []byte
			for _, request := range requests {
				version := served[kmsg.Key(request.Key())].min
				if newest {
					version = served[kmsg.Key(request.Key())].max
				}
				body := framed(request, version)[sizeBytes:]
				seed = append(binary.BigEndian.AppendUint16(seed, uint16(len(body))), body...)
			}
			f.Add(seed)
		}
	}
	cfg := testConfig(f)
	cfg.SyncWrites = false
	open := func(tb testing.TB) *Broker {
		broker := NewBroker(cfg, kafka.DefaultConfig(), zap.NewNop())
		broker.guard.newcomers = rate.NewLimiter(rate.Inf, 0)
		broker.guard.requestTimeout, broker.guard.idleTimeout = 200*time.Millisecond, 200*time.Millisecond
		require.NoError(tb, broker.Start(context.Background()))
		return broker
	}
	broker := open(f)
	f.Cleanup(func() { stop(f, broker) })
	runs := 0
	f.Fuzz(func(t *testing.T, data []byte) {
		attack(t, broker, data)
		if runs++; runs%50 == 0 {
			requireAlive(t, broker)
		}
		if runs%5000 == 0 {
			require.Less(t, heap(), uint64(512<<20))
			require.NoError(t, broker.Stop(context.Background()))
			broker = open(t)
		}
	})
}

// attack sends the fuzzer's requests, and reads the answers for a moment.
func attack(t *testing.T, broker *Broker, data []byte) {
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", broker.Address())
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // an attacker's
	var frames []byte
	for len(data) > 2 {
		size := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
		frames = append(frames, frame(data[2:2+size]...)...)
		data = data[2+size:]
	}
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Millisecond)))
	if _, err := conn.Write(frames); err != nil {
		return // refused already
	}
	conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // refused already
	io.Copy(io.Discard, conn)        //nolint:errcheck // an attacker's
}

// requireAlive produces a message and fetches it. It tries again, because the guard's timeouts are short here.
func requireAlive(t *testing.T, broker *Broker) {
	const topic = "alive"
	if broker.cluster.TopicInfo(topic) == nil {
		require.NoError(t, broker.cluster.CreateTopic(topic, 1, broker.limits(1)))
	}
	sent := batch(func(*kmsg.RecordBatch) {})
	fetch := kmsg.NewPtrFetchRequest()
	fetch.MaxBytes, fetch.MaxWaitMillis, fetch.MinBytes = 1<<20, 1, 1
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.PartitionMaxBytes = 1 << 20
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", broker.Address())
		require.NoError(t, err)
		defer conn.Close() //nolint:errcheck // nothing is lost
		produced, err := exchange[*kmsg.ProduceResponse](conn, produceRequest(topic, sent), 7)
		require.NoError(t, err)
		require.Zero(t, produced.Topics[0].Partitions[0].ErrorCode)
		partition.FetchOffset = produced.Topics[0].Partitions[0].BaseOffset
		fetch.Topics = []kmsg.FetchRequestTopic{{Topic: topic,
			Partitions: []kmsg.FetchRequestTopicPartition{partition}}}
		fetched, err := exchange[*kmsg.FetchResponse](conn, fetch, 11)
		require.NoError(t, err)
		require.Zero(t, fetched.Topics[0].Partitions[0].ErrorCode)
		require.Equal(t, sent[16:], fetched.Topics[0].Partitions[0].RecordBatches[16:], "but for offset and epoch")
	}, patience, time.Millisecond)
}
