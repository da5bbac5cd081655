package kafka_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// fake starts a broker of the test's own that can be made to fail.
func fake(t testing.TB, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	broker, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(t.TempDir())}, options...)...)
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	return broker
}

// messages returns n messages of one key, whose values are their numbers from first on.
func messages(topic string, first, n int) []produce.Message {
	list := make([]produce.Message, n)
	for i := range list {
		list[i] = produce.Message{Topic: topic, Key: []byte("user"), Value: []byte(strconv.Itoa(first + i))}
	}
	return list
}

// reports are what a producer has reported on some messages.
type reports struct {
	mu    sync.Mutex
	errs  []error
	order []int // of the reports
	times []int // reports by message
	done  chan struct{}
}

// send produces messages and returns their reports, which may be yet to come.
func send(producer *kafka.Producer, list []produce.Message) *reports {
	r := &reports{errs: make([]error, len(list)), times: make([]int, len(list)), done: make(chan struct{})}
	producer.Produce(list, func(i int, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.errs[i] = err
		r.times[i]++
		r.order = append(r.order, i)
		if len(r.order) == len(list) {
			close(r.done)
		}
	})
	return r
}

// wait returns the errors when every message has its report.
func (r *reports) wait(t testing.TB) []error {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		require.Fail(t, "not all messages have a report", "%d of %d", len(r.order), len(r.errs))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range r.times {
		require.Equal(t, 1, n, "reports on message %d", i)
	}
	return r.errs
}

func (r *reports) requireAcknowledged(t testing.TB) {
	t.Helper()
	for i, err := range r.wait(t) {
		require.NoError(t, err, "message %d", i)
	}
}

// refuse has the broker answer the next n produce requests with an error, for all partitions.
func refuse(broker *kfake.Cluster, code *kerr.Error, n int) {
	broker.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		if n--; n > 0 {
			broker.KeepControl()
		}
		return answerAll(request, code.Code), nil, true
	})
}

// answerAll answers a produce request with the same code for all partitions.
func answerAll(request kmsg.Request, code int16) kmsg.Response {
	response := request.ResponseKind().(*kmsg.ProduceResponse)
	for _, asked := range request.(*kmsg.ProduceRequest).Topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic = asked.Topic
		for _, p := range asked.Partitions {
			partition := kmsg.NewProduceResponseTopicPartition()
			partition.Partition, partition.ErrorCode = p.Partition, code
			topic.Partitions = append(topic.Partitions, partition)
		}
		response.Topics = append(response.Topics, topic)
	}
	return response
}

func TestMessagesAreInKafkaInOrder(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	const n = 5000
	var sent []*reports
	for i := 0; i < n; i += 50 {
		sent = append(sent, send(producer, messages(cfg.Topics.Events, i, 50)))
	}
	for _, r := range sent {
		r.requireAcknowledged(t)
	}
	requireArrived(t, broker.ListenAddrs(), cfg.Topics.Events, 0, n)
}

// requireArrived requires that a topic holds the messages with the numbers from first to end, each once and in order.
func requireArrived(t *testing.T, brokers []string, topic string, first, end int) {
	t.Helper()
	records := consume(t, brokers, topic, end-first)
	require.Len(t, records, end-first)
	for i := range records {
		require.Equal(t, strconv.Itoa(first+i), string(records[i].Value), "record %d", i)
	}
}

// Nothing that is sent behind a message may be acknowledged before that one is settled, whatever Kafka answers.
func TestNothingOvertakesAMessageThatFailed(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]*kerr.Error{
		"too_large": kerr.MessageTooLarge, "timestamp": kerr.InvalidTimestamp, "out_of_order": kerr.OutOfOrderSequenceNumber,
		"unknown_server": kerr.UnknownServerError, "invalid_epoch": kerr.InvalidProducerEpoch, "not_leader": kerr.NotLeaderForPartition,
		"forbidden": kerr.TopicAuthorizationFailed, "invalid": kerr.InvalidRecord,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := fake(t)
			cfg := config(broker.ListenAddrs()...)
			producer, _ := start(t, cfg)
			refuse(broker, code, 1)
			errs := send(producer, messages(cfg.Topics.Events, 0, 6)).wait(t)
			failed := false
			for i, err := range errs {
				t.Logf("message %d: %v", i, err)
				failed = failed || err != nil && !produce.IsRefusal(err)
				require.False(t, failed && err == nil, "message %d is in Kafka, and one before it is not", i)
			}
			_ = fmt.Sprint()
		})
	}
}
