package kafka_test

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/modules/produce"
)

func TestEveryReplicaAcknowledges(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	came := watch(broker)
	send(producer, messages(cfg.Topics.Events, 0, 1)).requireAcknowledged(t)
	require.Equal(t, []int16{-1}, came.acks)
	require.NotEqual(t, int64(-1), came.of(cfg.Topics.Events)[0].id, "an idempotent producer has an id")
}

// The broker appends the batch and then says that the replicas have not got it in time. The producer sends the batch
// again and reports no message before that copy is acknowledged. Kafka recognises the copy.
func TestATimeoutOfReplicasIsNoAcknowledgement(t *testing.T) {
	t.Parallel()
	for _, code := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			broker := fake(t)
			cfg := plain(broker.ListenAddrs()...)
			producer, _ := start(t, cfg)
			var asked atomic.Int64
			broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
				broker.KeepControl()
				asked.Add(1)
				return nil, nil, false
			})
			refuse(broker, cfg.Topics.Events, code, 2)
			sendAnd(producer, messages(cfg.Topics.Events, 0, 5), func(int, error) {
				if asked.Load() < 3 {
					t.Error("acknowledged before the third answer")
				}
			}).requireAcknowledged(t)
			send(producer, messages(cfg.Topics.Events, 5, 5)).requireAcknowledged(t)
			requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 10))
		})
	}
}

func TestAnAnswerThatIsLostMakesNoCopy(t *testing.T) {
	t.Parallel()
	var connections flaky
	broker := fake(t, connections.listen())
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	came := watch(broker)
	const rounds = 5
	for i := range rounds {
		broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			broker.DropControl()
			connections.breaks.Add(1)
			return nil, nil, false
		})
		send(producer, messages(cfg.Topics.Events, 4*i, 4)).requireAcknowledged(t)
	}
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 4*rounds))
	require.Greater(t, len(came.of(cfg.Topics.Events)), rounds)
}

// The broker has a batch and does not answer in time. Kafka must not take the next batch for a copy of it, and the late
// batch must not hold up the next one.
func TestWhatFollowsABatchThatWasGivenUpIsNotTakenForACopy(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.AckTimeout = 300 * time.Millisecond
	producer, _ := start(t, cfg)
	require.Eventually(t, func() bool { return send(producer, messages(cfg.Topics.Events, 0, 1)).wait(t)[0] == nil },
		patience, time.Millisecond)
	came := watch(broker)
	fault := refuse(broker, cfg.Topics.Events, kerr.RequestTimedOut, -1) // and append
	given := send(producer, messages(cfg.Topics.Events, 1000, 3))
	given.requireFailed(t, produce.Timeout)
	fault.Remove()
	r := send(producer, messages(cfg.Topics.Events, 2000, 3))
	require.Eventually(t, func() bool { // on a slow machine r may time out, too
		for _, err := range r.wait(t) {
			if err != nil {
				r = send(producer, messages(cfg.Topics.Events, 2000, 3))
				return false
			}
		}
		return true
	}, patience, time.Millisecond)
	type numbering struct {
		id    int64
		epoch int16
	}
	before, next := map[numbering]bool{}, int32(-1)
	for _, b := range came.of(cfg.Topics.Events) {
		switch numbers := (numbering{b.id, b.epoch}); {
		case b.has("1000"):
			before[numbers] = true
		case next < 0:
			next = b.sequence
			require.NotContains(t, before, numbers)
		}
	}
	require.Zero(t, next, "another epoch begins with number 0")
	arrived := map[string]bool{}
	for _, record := range consume(t, cfg.Brokers, cfg.Topics.Events, 4) {
		arrived[string(record.Value)] = true
	}
	for i := range 3 {
		require.True(t, arrived[strconv.Itoa(2000+i)], "%d was acknowledged and is not there", 2000+i)
	}
}

func TestABatchThatABrokerHoldsIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.AckTimeout = 400 * time.Millisecond
	producer, scope := start(t, cfg)
	release := hold(broker)
	defer release()
	first := send(producer, messages(cfg.Topics.Events, 0, 3))
	first.requireFailed(t, produce.Timeout)
	require.NoError(t, producer.Flush(t.Context()))
	require.EqualValues(t, 3, counter(scope, "messages_failed_total+class=timeout"))
	require.Eventually(t, func() bool { return scope.Snapshot().Gauges()["buffered_bytes+"].Value() == 0 },
		patience, time.Millisecond)
	release()
	list := messages(cfg.Topics.Events, 3, 3)
	require.Eventually(t, func() bool { return send(producer, list).wait(t)[0] == nil }, patience, time.Millisecond)
}

// A caller that produces while the failure of an earlier message is being reported does not know of the failure yet.
func TestWhatIsProducedDuringAFailingReportFailsToo(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	refuse(broker, cfg.Topics.Events, kerr.TopicAuthorizationFailed, 1)
	var second, third *reports
	first := sendAnd(producer, messages(cfg.Topics.Events, 0, 2), func(i int, _ error) {
		if i == 1 {
			second = sendAnd(producer, messages(cfg.Topics.Events, 2, 1), func(int, error) {
				third = send(producer, messages(cfg.Topics.Events, 3, 1))
			})
		}
	})
	first.requireFailed(t, produce.Forbidden)
	second.requireFailed(t, produce.Behind)
	third.requireFailed(t, produce.Behind)
	send(producer, messages(cfg.Topics.Events, 4, 1)).requireAcknowledged(t)
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(4, 5))
}

func TestWhatIsProducedWhileAMissingTopicIsReportedFailsToo(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	producer, _ := start(t, plain(broker.ListenAddrs()...))
	var second *reports
	first := sendAnd(producer, messages("late", 0, 1), func(int, error) {
		if err := broker.CreateTopic("late", 1, nil); err != nil {
			t.Error(err)
		}
		second = send(producer, messages("late", 1, 1))
	})
	first.requireFailed(t, produce.Missing)
	second.requireFailed(t, produce.Missing)
	require.Eventually(t, func() bool { return send(producer, messages("late", 2, 1)).wait(t)[0] == nil },
		patience, time.Millisecond)
}

// A message was refused only because it was in the batch of a faulty one. It is sent again when the faulty message has
// its report.
func TestARefusalIsReportedBeforeAnythingBehindItIsSent(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	came := watch(broker)
	refuseIf(broker, cfg.Topics.Events, kerr.InvalidRecord, func(s seen) bool { return s.has("0") })
	r := sendAnd(producer, messages(cfg.Topics.Events, 0, 2), func(i int, err error) {
		if i == 0 {
			send(producer, messages(cfg.Topics.Events, 2, 1))
			if n := len(came.of(cfg.Topics.Events)); err == nil || n != 2 {
				t.Errorf("%v after %d batches", err, n)
			}
		}
	})
	r.requireInOrder(t)
	require.NoError(t, r.errs[1])
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(1, 3))
}

func TestAPartitionThatFailsHoldsNoOtherUp(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.Topics.Partitions = 2
	producer, _ := start(t, cfg)
	fault := broker.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: cfg.Topics.Events, Partitions: []int32{0}, Err: kerr.NotEnoughReplicas,
		Count: -1,
	})
	list := messages(cfg.Topics.Events, 0, 100)
	acknowledged := make(chan int, len(list))
	for i := range list {
		list[i].Key = list[i].Value
	}
	r := sendAnd(producer, list, func(i int, err error) {
		if err == nil {
			acknowledged <- i
		}
	})
	for range 20 {
		select {
		case <-acknowledged:
		case <-time.After(patience):
			t.Fatal("nothing arrives")
		}
	}
	fault.Remove()
	r.requireAcknowledged(t)
}

func TestLingerGathersMessages(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.Linger = 200 * time.Millisecond
	producer, _ := start(t, cfg)
	send(producer, messages(cfg.Topics.Events, 0, 1)).requireAcknowledged(t)
	came := watch(broker)
	began := time.Now()
	var sent []*reports
	for i := range 10 {
		sent = append(sent, send(producer, messages(cfg.Topics.Events, i+1, 1)))
	}
	if time.Since(began) > cfg.Linger {
		t.Skip("this machine is too slow to gather anything")
	}
	for _, r := range sent {
		r.requireAcknowledged(t)
	}
	require.Len(t, came.of(cfg.Topics.Events), 1)
	require.GreaterOrEqual(t, time.Since(began), cfg.Linger)

	big := messages(cfg.Topics.Events, 11, 30)
	for i := range big {
		big[i].Headers = []produce.Header{{Key: []byte("x"), Value: make([]byte, 100_000)}}
	}
	send(producer, big).requireAcknowledged(t)
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 41))
}

// Messages of an overflow topic wait for their turn, while others are acknowledged.
func TestOverflowIsSentInTurns(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.Topics.Partitions, cfg.Topics.Overflow = 1, cfg.Topics.Events+"-overflow"
	cfg.OverflowLinger = time.Second
	producer, _ := start(t, cfg)
	send(producer, messages(cfg.Topics.Overflow, 0, 1)).requireAcknowledged(t)
	came := watch(broker)
	began := time.Now()
	const n = 30
	var sent []*reports
	for i := range n {
		sent = append(sent, send(producer, messages(cfg.Topics.Overflow, i+1, 1)))
		send(producer, messages(cfg.Topics.Events, i, 1)).requireAcknowledged(t)
	}
	for _, r := range sent {
		r.requireAcknowledged(t)
	}
	require.LessOrEqual(t, len(came.of(cfg.Topics.Overflow)), int(time.Since(began)/cfg.OverflowLinger)+2)
	require.Len(t, came.of(cfg.Topics.Events), n)
	requireArrived(t, cfg.Brokers, cfg.Topics.Overflow, values(0, n+1))
}

// A stop sends at once what waits for others, or for the turn of its topic: flush_timeout may be shorter than that.
func TestAStopSendsWhatIsGathered(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"linger", "overflow_linger"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			broker := fake(t)
			cfg := plain(broker.ListenAddrs()...)
			cfg.Topics.Overflow = cfg.Topics.Events + "-overflow"
			topic := cfg.Topics.Overflow
			cfg.AckTimeout, cfg.FlushTimeout = 2*time.Hour, patience
			if cfg.OverflowLinger = time.Hour; setting == "linger" {
				cfg.Linger, topic = time.Hour, cfg.Topics.Events
			}
			require.NoError(t, cfg.Validate())
			producer, _ := start(t, cfg)
			sent := send(producer, messages(topic, 0, 1))
			require.NoError(t, producer.Stop(t.Context()))
			sent.requireAcknowledged(t)
		})
	}
}
