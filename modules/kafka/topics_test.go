package kafka_test

import (
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/kafka"
)

// keeping is a topicKeeper under test: its methods with their client, and its log.
type keeping struct {
	look  func() error
	await func()
	again func()
	// known tells whether the cluster's last answer had the topic.
	known func(topic string) bool
	logs  *observer.ObservedLogs
}

// keep returns a keeper of the section's topics.
func keep(t *testing.T, cfg kafka.Config) keeping {
	t.Helper()
	settings, err := kafka.ClientConfig(cfg)
	require.NoError(t, err)
	client, err := sarama.NewClient(cfg.Brokers, settings)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	core, logs := observer.New(zapcore.InfoLevel)
	keeper := kafka.NewTopicKeeper(cfg.Topics, int(cfg.MaxMessageBytes), zap.New(core))
	return keeping{
		look:  func() error { return keeper.Look(client) },
		await: func() { keeper.AwaitLeaders(client) },
		again: keeper.MeasureAgain,
		known: func(topic string) bool { return kafka.Known(client, topic) },
		logs:  logs,
	}
}

// lookUntil calls look until the condition holds.
func (k keeping) lookUntil(t *testing.T, condition func(err error) bool) {
	t.Helper()
	require.Eventually(t, func() bool { return condition(k.look()) }, patience, 10*time.Millisecond)
}

// lines returns the lines of the log: for each the message, and the topics and the error if there are any.
func (k keeping) lines() []string {
	var lines []string
	for _, entry := range k.logs.TakeAll() {
		line, fields := entry.Message, entry.ContextMap()
		if topics, ok := fields["topics"].([]any); ok {
			for _, topic := range topics {
				line += " " + topic.(string)
			}
		}
		if reason, ok := fields["error"].(string); ok {
			line += ": " + reason
		}
		lines = append(lines, line)
	}
	return lines
}

// absent is the beginning of a line about missing topics.
const absent = "topics do not exist: events for them wait in the spool where delivery.ack is auto or spool, " +
	"and are answered 503 where it is kafka, until the topics exist "

func noError(err error) bool { return err == nil }

// refuseCreation makes the broker refuse new topics while refusal returns an error, and counts the requests. A request
// with one refused topic creates none.
func refuseCreation(broker *kfake.Cluster, refusal func(topic string) *kerr.Error) *atomic.Int64 {
	requests := new(atomic.Int64)
	broker.ControlKey(int16(kmsg.CreateTopics), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		requests.Add(1)
		response := request.ResponseKind().(*kmsg.CreateTopicsResponse)
		refused := false
		for _, topic := range request.(*kmsg.CreateTopicsRequest).Topics {
			answer := kmsg.NewCreateTopicsResponseTopic()
			answer.Topic = topic.Topic
			if err := refusal(topic.Topic); err != nil {
				answer.ErrorCode, refused = err.Code, true
			}
			response.Topics = append(response.Topics, answer)
		}
		return response, nil, refused
	})
	return requests
}

func TestADeletedTopicIsCreatedAgain(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics.Exceptions += "-exceptions"
	k := keep(t, cfg)
	require.NoError(t, k.look())
	require.Equal(t, []string{"created topics " + cfg.Topics.Events + " " + cfg.Topics.Exceptions}, k.lines())
	require.NoError(t, k.look())
	require.Empty(t, k.lines(), "nothing has changed")

	require.NoError(t, broker.DeleteTopic(cfg.Topics.Exceptions))
	k.lookUntil(t, noError)
	require.NotNil(t, broker.TopicInfo(cfg.Topics.Exceptions))
	require.True(t, k.known(cfg.Topics.Exceptions))
	require.Equal(t, []string{
		"created topics " + cfg.Topics.Exceptions,
		"topics were gone and are created again: what was in them is lost " + cfg.Topics.Exceptions,
	}, k.lines())
	require.Len(t, broker.PartitionInfos(cfg.Topics.Exceptions), cfg.Topics.Partitions)
}

func TestAClusterThatComesBackEmptyGetsItsTopics(t *testing.T) {
	address := freeAddress(t)
	listen := kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, address) })
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), listen)
	require.NoError(t, err)
	cfg := config(address)
	cfg.ConnectTimeout = time.Second
	cfg.Topics = kafka.DefaultConfig().Topics
	k := keep(t, cfg)
	require.NoError(t, k.look())
	k.lines()
	broker.Close()
	k.lookUntil(t, func(err error) bool { return err != nil })
	require.NotErrorIs(t, k.look(), kafka.ErrNoTopic, "there is no cluster")
	require.Empty(t, k.lines(), "that is for others to say")

	broker, err = kfake.NewCluster(kfake.NumBrokers(1), listen)
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	k.lookUntil(t, noError)
	for _, topic := range cfg.Topics.Names() {
		require.NotNil(t, broker.TopicInfo(topic), topic)
	}
	logged := k.lines()
	require.Len(t, logged, 2)
	require.True(t, strings.HasPrefix(logged[1], "topics were gone and are created again"), logged[1])
}

func TestATopicThatMayNotBeCreatedIsTriedAgainUntilItMay(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	var allowed atomic.Bool
	requests := refuseCreation(broker, func(string) *kerr.Error {
		if allowed.Load() {
			return nil
		}
		return kerr.TopicAuthorizationFailed
	})
	k := keep(t, cfg)
	began := time.Now()
	err := k.look()
	require.ErrorIs(t, err, kafka.ErrNoTopic)
	require.ErrorContains(t, err, "The client is not authorized to access this topic")
	logged := k.lines()
	require.Len(t, logged, 1)
	require.Contains(t, logged[0], absent+cfg.Topics.Events+": ")
	require.Contains(t, logged[0], "The client is not authorized to access this topic")
	k.lookUntil(t, func(error) bool { return requests.Load() == 2 })
	require.GreaterOrEqual(t, time.Since(began), time.Second/2, "there is a pause")
	require.Empty(t, k.lines(), "it is the same again")

	allowed.Store(true)
	k.lookUntil(t, noError)
	require.EqualValues(t, 3, requests.Load())
	require.Equal(t, []string{"created topics " + cfg.Topics.Events, "all topics exist"}, k.lines())
}

func TestOneTopicThatMayNotBeCreatedHoldsNoOtherUp(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics.Exceptions += "-exceptions"
	cfg.Topics.Logs += "-logs"
	refuseCreation(broker, func(topic string) *kerr.Error {
		switch topic {
		case cfg.Topics.Exceptions:
			return kerr.TopicAuthorizationFailed
		case cfg.Topics.Logs:
			return kerr.PolicyViolation
		}
		return nil
	})
	k := keep(t, cfg)
	require.NoError(t, broker.CreateTopic(cfg.Topics.Events, 1, nil))
	require.NoError(t, k.look(), "ordinary events can be produced")
	require.Len(t, k.lines(), 2, "one line for each reason")

	require.NoError(t, broker.CreateTopic(cfg.Topics.Logs, 1, nil))
	k.lookUntil(t, func(error) bool { return k.known(cfg.Topics.Logs) })
	logged := k.lines()
	require.Len(t, logged, 1, "the others are said again when their set has changed")
	require.Contains(t, logged[0], cfg.Topics.Exceptions+": ")
}

func TestTopicsAreLeftAloneWithoutCreate(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.Topics.Create = false
	requests := refuseCreation(broker, func(string) *kerr.Error { return nil })
	k := keep(t, cfg)
	for range 3 {
		require.ErrorIs(t, k.look(), kafka.ErrNoTopic)
	}
	require.Equal(t, []string{
		absent + cfg.Topics.Events + ": kafka.topics.create is false: create the topics in Kafka, name existing ones " +
			"in kafka.topics, or let the service create them",
	}, k.lines())
	require.Zero(t, requests.Load())
	require.NoError(t, broker.CreateTopic(cfg.Topics.Events, 1, nil))
	k.lookUntil(t, noError)
	require.Equal(t, []string{"all topics exist"}, k.lines())
}

// Several instances start at once. A topic that one of them has created is no fault to the others.
func TestATopicThatSomebodyElseCreatesIsNoTrouble(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	refuseCreation(broker, func(topic string) *kerr.Error {
		if broker.TopicInfo(topic) == nil {
			assert.NoError(t, broker.CreateTopic(topic, 1, nil))
		}
		return kerr.TopicAlreadyExists
	})
	k := keep(t, cfg)
	require.NoError(t, k.look())
	require.Empty(t, k.lines())
}

func TestATopicThatIsHiddenIsNamed(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	requests := refuseCreation(broker, func(string) *kerr.Error { return kerr.TopicAlreadyExists })
	k := keep(t, cfg)
	require.ErrorIs(t, k.look(), kafka.ErrNoTopic)
	require.Empty(t, k.lines(), "it may show itself in a moment")
	k.lookUntil(t, func(error) bool { return requests.Load() == 2 })
	logged := k.lines()
	require.Len(t, logged, 1)
	require.Contains(t, logged[0], "it exists, but the cluster does not show it to this user")
}

func TestACreationThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	cfg.ConnectTimeout = time.Second
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	broker.ControlKey(int16(kmsg.CreateTopics), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.SleepControl(func() { <-released })
		return nil, nil, false
	})
	k := keep(t, cfg)
	// On a busy machine a look may end with a timeout before it comes to the creation.
	k.lookUntil(t, func(err error) bool {
		return errors.Is(err, kafka.ErrNoTopic) && strings.Contains(err.Error(), "timeout")
	})
	release()
	k.lookUntil(t, noError)
}

func TestPausesBetweenCreationsGrowToAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pauses := kafka.CreationPauses(100)
		for i, pause := range pauses {
			full := min(time.Second<<min(i, 6), time.Minute)
			require.GreaterOrEqual(t, pause, full/2, "after %d attempts", i+1)
			require.Less(t, pause, full, "after %d attempts", i+1)
		}
	})
}

func TestLowLimitsAreToldWhenTheyChange(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	low := map[string]string{"max.message.bytes": "20000"}
	require.NoError(t, broker.CreateTopic(cfg.Topics.Events, 1, low))
	var asked atomic.Int64
	broker.ControlKey(int16(kmsg.DescribeConfigs), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		asked.Add(1)
		return nil, nil, false
	})
	k := keep(t, cfg)
	warning := "topics take less than kafka.max_message_bytes, so batches are refused: raise their max.message.bytes " +
		cfg.Topics.Events
	require.NoError(t, k.look())
	require.Equal(t, []string{warning}, k.lines())
	for range 3 {
		require.NoError(t, k.look())
	}
	require.EqualValues(t, 1, asked.Load(), "ten minutes are not over")
	k.again()
	require.NoError(t, k.look())
	require.EqualValues(t, 2, asked.Load())
	require.Empty(t, k.lines(), "it is the same again")

	require.NoError(t, broker.DeleteTopic(cfg.Topics.Events))
	k.lookUntil(t, noError)
	require.EqualValues(t, 3, asked.Load(), "the topic is another one")
	logged := k.lines()
	require.Equal(t, "all topics take kafka.max_message_bytes", logged[len(logged)-1])
}

func TestLeadersOfCreatedTopicsAreAwaited(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	var led atomic.Bool
	leaderless(t, broker, cfg.Topics.Events, func() bool { return !led.Load() })
	k := keep(t, cfg)
	require.NoError(t, k.look())
	awaited := make(chan struct{})
	go func() {
		defer close(awaited)
		k.await()
	}()
	select {
	case <-awaited:
		require.Fail(t, "there is no leader")
	case <-time.After(500 * time.Millisecond):
	}
	led.Store(true)
	select {
	case <-awaited:
	case <-time.After(patience):
		require.Fail(t, "there is a leader")
	}
	require.Equal(t, []string{"created topics " + cfg.Topics.Events}, k.lines())
}

// The broker is a real Kafka at the plaintext listener of CAPTURE_TEST_KAFKA_BROKERS.
func TestADeletedTopicIsCreatedAgainByTheRealBrokerToo(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	k := keep(t, cfg)
	k.lookUntil(t, func(err error) bool { return err == nil }) // a real broker tells of a new topic a moment later
	settings, err := kafka.ClientConfig(cfg)
	require.NoError(t, err)
	settings.Metadata.Full = true
	admin, err := sarama.NewClusterAdmin(cfg.Brokers, settings)
	require.NoError(t, err)
	require.NoError(t, admin.DeleteTopic(cfg.Topics.Events))
	require.NoError(t, admin.Close())
	k.lookUntil(t, func(err error) bool {
		return err == nil && k.logs.FilterMessageSnippet("topics were gone").Len() == 1
	})
}
