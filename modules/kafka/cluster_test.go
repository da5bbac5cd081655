package kafka_test

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// spread returns n messages that go to all partitions, each with a key of its own.
func spread(topic string, first, n int) []produce.Message {
	list := messages(topic, first, n)
	for i := range list {
		list[i].Key = list[i].Value
	}
	return list
}

// deliver produces messages until all are acknowledged. It produces failed messages again, in order.
func deliver(t testing.TB, producer *kafka.Producer, list []produce.Message) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(list) > 0; {
		var failed []produce.Message
		var last error
		for i, err := range send(producer, list).wait(t) {
			if err != nil {
				require.False(t, produce.IsRefusal(err), "%v", err)
				failed, last = append(failed, list[i]), err
			}
		}
		require.True(t, time.Now().Before(deadline) || last == nil, "%v", last)
		list = failed
	}
}

// requireAllArrived requires that a topic holds the numbers from first to end, each once and in any order.
func requireAllArrived(t *testing.T, brokers []string, topic string, end int) {
	t.Helper()
	arrived := map[string]int{}
	for _, record := range consume(t, brokers, topic, end) {
		arrived[string(record.Value)]++
	}
	for _, value := range values(0, end) {
		require.Equal(t, 1, arrived[value], value)
	}
	require.Len(t, arrived, end)
}

func TestLeadersThatMoveAreFollowed(t *testing.T) {
	t.Parallel()
	broker := fake(t, kfake.NumBrokers(3))
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics.Partitions = 4
	producer, _ := start(t, cfg)
	var sent []*reports
	const rounds = 20
	for round := range rounds {
		for i := range 5 {
			sent = append(sent, send(producer, spread(cfg.Topics.Events, 50*round+10*i, 10)))
		}
		for p := range int32(4) {
			require.NoError(t, broker.MoveTopicPartition(cfg.Topics.Events, p, int32(round+int(p))%3))
		}
	}
	for _, r := range sent {
		r.requireAcknowledged(t)
	}
	requireAllArrived(t, broker.ListenAddrs(), cfg.Topics.Events, 50*rounds)
}

func TestABrokerThatHangsHoldsNoOtherUpAndLosesItsPartitions(t *testing.T) {
	t.Parallel()
	broker := fake(t, kfake.NumBrokers(2))
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics.Partitions = 2
	cfg.AckTimeout = 3 * time.Second
	producer, _ := start(t, cfg)
	for p := range int32(2) {
		require.NoError(t, broker.MoveTopicPartition(cfg.Topics.Events, p, p))
	}
	deliver(t, producer, spread(cfg.Topics.Events, 0, 20))
	released := make(chan struct{})
	asked := make(chan struct{}, 1)
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if broker.CurrentNode() == 0 {
			select {
			case asked <- struct{}{}:
			default:
			}
			broker.SleepControl(func() { <-released })
		}
		return nil, nil, false
	})
	defer close(released)
	var hanging, others []produce.Message
	for _, m := range spread(cfg.Topics.Events, 20, 60) {
		if kafka.PartitionOf(m.Key, 2) == 0 {
			hanging = append(hanging, m)
		} else {
			others = append(others, m)
		}
	}
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		deliver(t, producer, hanging) //nolint:testifylint // deliver fails only with the whole test
	}()
	<-asked
	deliver(t, producer, others)
	select {
	case <-waiting:
		t.Fatal("the broker does not hang")
	default:
	}
	require.NoError(t, broker.MoveTopicPartition(cfg.Topics.Events, 0, 1))
	<-waiting
	requireAllArrived(t, broker.ListenAddrs(), cfg.Topics.Events, 80)
}

func TestBrokersThatLeaveAndJoinAreFollowed(t *testing.T) {
	t.Parallel()
	broker := fake(t, kfake.NumBrokers(2))
	cfg := config(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	deliver(t, producer, spread(cfg.Topics.Events, 0, 30))
	for i := range 3 {
		_, _, err := broker.AddNode(-1, 0)
		require.NoError(t, err)
		deliver(t, producer, spread(cfg.Topics.Events, 30+60*i, 30))
		require.NoError(t, broker.RemoveNode(int32(i)))
		deliver(t, producer, spread(cfg.Topics.Events, 60+60*i, 30))
	}
	requireAllArrived(t, broker.ListenAddrs(), cfg.Topics.Events, 210)
}

func TestABrokerThatDiesAndComesBackGetsWhatWaits(t *testing.T) {
	t.Parallel()
	address, dir := freeAddress(t), t.TempDir()
	listen := kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, address) })
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), listen)
	require.NoError(t, err)
	cfg := config(address)
	producer, _ := start(t, cfg)
	deliver(t, producer, messages(cfg.Topics.Events, 0, 10))
	broker.Close()
	waiting := send(producer, messages(cfg.Topics.Events, 10, 10))
	require.Eventually(t, func() bool { return producer.Ready() != nil }, patience, time.Millisecond)
	broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), listen)
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	waiting.requireAcknowledged(t)
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, time.Millisecond)
	deliver(t, producer, messages(cfg.Topics.Events, 20, 10))
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 30))
}

func TestABrokerThatIsGoneFailsMessagesInTime(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.AckTimeout = 500 * time.Millisecond
	producer, _ := start(t, cfg)
	deliver(t, producer, messages(cfg.Topics.Events, 0, 10))
	broker.Close()
	for i := range 2 {
		for _, err := range send(producer, messages(cfg.Topics.Events, i, 5)).wait(t) {
			require.Error(t, err)
			require.False(t, produce.IsRefusal(err), "%v", err)
		}
	}
}

// admin returns a client that changes topics.
func admin(t *testing.T, brokers []string) sarama.ClusterAdmin {
	t.Helper()
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	admin, err := sarama.NewClusterAdmin(brokers, config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, admin.Close()) })
	return admin
}

func TestPartitionsThatAreAddedAreUsed(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Topics.Partitions = 1
	producer, _ := start(t, cfg)
	deliver(t, producer, spread(cfg.Topics.Events, 0, 20))
	require.NoError(t, admin(t, cfg.Brokers).CreatePartitions(cfg.Topics.Events, 4, nil, false))
	n := 20
	require.Eventually(t, func() bool {
		list := messages(cfg.Topics.Events, n, 10)
		for i := range list {
			list[i].Key = nil // a key would have the leader of its partition found
		}
		deliver(t, producer, list)
		n += 10
		partitions := map[int32]bool{}
		for _, record := range consume(t, cfg.Brokers, cfg.Topics.Events, n) {
			partitions[record.Partition] = true
		}
		return len(partitions) == 4
	}, patience, 100*time.Millisecond)
	requireAllArrived(t, cfg.Brokers, cfg.Topics.Events, n)
}

func TestATopicThatIsMadeAnewIsWrittenTo(t *testing.T) {
	t.Parallel()
	brokers := cluster(t)
	for _, partitions := range []int{1, 3, 6} {
		t.Run(strconv.Itoa(partitions), func(t *testing.T) {
			t.Parallel()
			cfg := config(brokers...)
			cfg.Topics.Create = false // the test does it
			topics := admin(t, brokers)
			require.NoError(t, topics.CreateTopic(cfg.Topics.Events,
				&sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false))
			producer, _ := start(t, cfg)
			deliver(t, producer, spread(cfg.Topics.Events, 0, 60))
			require.NoError(t, topics.DeleteTopic(cfg.Topics.Events))
			require.Eventually(t, func() bool { // Kafka takes a moment to delete the topic
				for _, err := range send(producer, spread(cfg.Topics.Events, 100, 60)).wait(t) {
					if err == nil {
						return false
					}
					require.Contains(t, []produce.Class{produce.Missing, produce.Behind}, produce.ClassOf(err),
						"%v", err)
				}
				return true
			}, patience, time.Millisecond)
			require.Eventually(t, func() bool {
				return topics.CreateTopic(cfg.Topics.Events,
					&sarama.TopicDetail{NumPartitions: int32(partitions), ReplicationFactor: 1}, false) == nil
			}, patience, 10*time.Millisecond)
			deliver(t, producer, spread(cfg.Topics.Events, 0, 60))
			used := map[int32]bool{}
			for _, record := range consume(t, brokers, cfg.Topics.Events, 60) {
				used[record.Partition] = true
			}
			requireAllArrived(t, brokers, cfg.Topics.Events, 60)
			require.Contains(t, []int{partitions, min(partitions, 3)}, len(used))
		})
	}
}

// A topic that loses its partitions while messages wait for them.
func TestWhatWaitsForAPartitionThatIsGoneFails(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.Topics.Create = false // the test does it
	require.NoError(t, broker.CreateTopic(cfg.Topics.Events, 3, nil))
	producer, _ := start(t, cfg)
	deliver(t, producer, spread(cfg.Topics.Events, 0, 30))
	release := hold(broker)
	defer release()
	first := send(producer, spread(cfg.Topics.Events, 30, 30))
	behind := send(producer, spread(cfg.Topics.Events, 60, 30))
	require.NoError(t, broker.DeleteTopic(cfg.Topics.Events))
	require.NoError(t, broker.CreateTopic(cfg.Topics.Events, 1, nil))
	release()
	for _, r := range []*reports{first, behind} {
		for _, err := range r.wait(t) {
			require.False(t, produce.IsRefusal(err), "%v", err)
		}
	}
	deliver(t, producer, spread(cfg.Topics.Events, 90, 30))
}

func TestAMissingTopicFailsInAboutASecond(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, _ := start(t, cfg)
	began := time.Now()
	send(producer, messages("no-such-topic-"+cfg.Topics.Events, 0, 5)).requireFailed(t, produce.Missing)
	require.GreaterOrEqual(t, time.Since(began), time.Second, "it may just have been created")
	require.Less(t, time.Since(began), 10*time.Second)
	deliver(t, producer, messages(cfg.Topics.Events, 0, 5))
}

func TestAForbiddenTopicFailsAtOnceAndAlone(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	createTopics(t, broker, "secret")
	fault := broker.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Metadata}, Topic: "secret", Err: kerr.TopicAuthorizationFailed, Count: -1,
	})
	send(producer, messages("secret", 0, 5)).requireFailed(t, produce.Forbidden)
	deliver(t, producer, messages(cfg.Topics.Events, 0, 5))
	require.NoError(t, producer.Ready())
	fault.Remove()
	deliver(t, producer, messages("secret", 0, 5))
}

func TestAProducerThatGetsNoIDFailsAsForbidden(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	fault := broker.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.ClusterAuthorizationFailed, Count: -1,
	})
	send(producer, messages(cfg.Topics.Events, 0, 1)).requireFailed(t, produce.Forbidden)
	fault.Remove()
	deliver(t, producer, messages(cfg.Topics.Events, 0, 5))
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 5))
}

// leaderless makes the broker say that the topic's partitions have no leader, as long as still returns true. The broker
// says of a topic that does not exist that it does not know the topic.
func leaderless(t *testing.T, broker *kfake.Cluster, name string, still func() bool) {
	t.Helper()
	host, text, err := net.SplitHostPort(broker.ListenAddrs()[0])
	require.NoError(t, err)
	port, err := strconv.ParseInt(text, 10, 32)
	require.NoError(t, err)
	broker.ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		response := request.ResponseKind().(*kmsg.MetadataResponse)
		response.Brokers, response.ControllerID = []kmsg.MetadataResponseBroker{{Host: host, Port: int32(port)}}, 0
		for _, asked := range request.(*kmsg.MetadataRequest).Topics {
			topic := kmsg.NewMetadataResponseTopic()
			topic.Topic = asked.Topic
			info := broker.TopicInfo(*asked.Topic)
			if info == nil {
				topic.ErrorCode = kerr.UnknownTopicOrPartition.Code
				response.Topics = append(response.Topics, topic)
				continue
			}
			topic.TopicID = info.TopicID
			for _, info := range broker.PartitionInfos(*asked.Topic) {
				partition := kmsg.NewMetadataResponseTopicPartition()
				partition.Partition, partition.Leader, partition.LeaderEpoch = info.Partition, info.Leader, info.Epoch
				if *asked.Topic == name && still() {
					partition.ErrorCode, partition.Leader = kerr.LeaderNotAvailable.Code, -1
				}
				topic.Partitions = append(topic.Partitions, partition)
			}
			response.Topics = append(response.Topics, topic)
		}
		return response, nil, true
	})
}

func TestATopicWithoutLeadersHoldsNoOtherUp(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.Topics.Exceptions += "-exceptions"
	var led atomic.Bool
	createTopics(t, broker, cfg.Topics.Names()...)
	leaderless(t, broker, cfg.Topics.Exceptions, func() bool { return !led.Load() })
	producer, _ := start(t, cfg)
	stuck := send(producer, messages(cfg.Topics.Exceptions, 0, 1000))
	for i := range 10 {
		topic := fmt.Sprint("other-", i)
		createTopics(t, broker, topic)
		deliver(t, producer, messages(topic, 0, 10))
	}
	select {
	case <-stuck.done:
		t.Fatal("messages for a topic without leaders have failed before their time")
	default:
	}
	led.Store(true)
	stuck.requireAcknowledged(t)
	requireArrived(t, cfg.Brokers, cfg.Topics.Exceptions, values(0, 1000))
}

func TestMessagesForATopicWithoutLeadersFailInTime(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.AckTimeout = 300 * time.Millisecond
	var led atomic.Bool
	createTopics(t, broker, cfg.Topics.Names()...)
	leaderless(t, broker, cfg.Topics.Events, func() bool { return !led.Load() })
	producer, _ := start(t, cfg)
	for i, err := range send(producer, messages(cfg.Topics.Events, 0, 100)).wait(t) {
		require.Error(t, err)
		require.False(t, produce.IsRefusal(err), "message %d: %v", i, err)
	}
	led.Store(true)
	deliver(t, producer, messages(cfg.Topics.Events, 0, 10))
}

// Kafka has created a topic a moment before the topic's partitions have leaders.
func TestTheFirstMessagesOfACreatedTopicAreTaken(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	var asked atomic.Int64
	leaderless(t, broker, cfg.Topics.Events, func() bool { return asked.Add(1) <= 10 })
	producer, _ := start(t, cfg)
	send(producer, messages(cfg.Topics.Events, 0, 10)).requireAcknowledged(t)
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 10))
}

func TestAClientIsSwappedUnderLoad(t *testing.T) {
	t.Parallel()
	broker := fake(t, kfake.NumBrokers(2))
	cfg := config(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	deliver(t, producer, messages(cfg.Topics.Events, 0, 10))
	var sent []*reports
	n := 10
	var before interface{ Close() error }
	for range 30 {
		for range 5 {
			sent = append(sent, send(producer, messages(cfg.Topics.Events, n, 10)))
			n += 10
		}
		client, err := producer.Swap()
		require.NoError(t, err)
		if before != nil {
			require.NoError(t, before.Close())
		}
		before = client
		for range 5 {
			sent = append(sent, send(producer, messages(cfg.Topics.Events, n, 10)))
			n += 10
		}
	}
	for _, r := range sent {
		r.requireAcknowledged(t)
		r.requireInOrder(t)
	}
	require.NoError(t, producer.Flush(t.Context()))
	require.NoError(t, before.Close())
	requireArrived(t, broker.ListenAddrs(), cfg.Topics.Events, values(0, n))
}

// A request hangs at one of the two connections. The messages behind it go on at the other connection, and Kafka gets
// no message twice.
func TestWhatWaitsBehindARequestThatHangsGoesOnWithANewClient(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.Topics.Partitions = 2
	producer, _ := start(t, cfg)
	deliver(t, producer, spread(cfg.Topics.Events, 0, 20))
	asked, released := make(chan struct{}), make(chan struct{})
	hangs := true // the first request
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		if hangs {
			hangs = false
			close(asked)
			broker.SleepControl(func() { <-released })
		}
		return nil, nil, false
	})
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	var one, other []produce.Message
	for _, m := range spread(cfg.Topics.Events, 20, 40) {
		if kafka.PartitionOf(m.Key, 2) == 0 {
			one = append(one, m)
		} else {
			other = append(other, m)
		}
	}
	hanging := send(producer, one)
	<-asked
	behind := send(producer, other)
	client, err := producer.Swap()
	require.NoError(t, err)
	behind.requireAcknowledged(t)
	select {
	case <-hanging.done:
		require.Fail(t, "the request does not hang")
	default:
	}
	release()
	hanging.requireAcknowledged(t)
	require.NoError(t, producer.Stop(t.Context()))
	require.NoError(t, client.Close())
	requireAllArrived(t, cfg.Brokers, cfg.Topics.Events, 60)
}
