package kafka_test

import (
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// The tests of this file have a real Kafka answer with errors that the fake one does not know, or checks in another
// way.

// realCluster returns the brokers that CAPTURE_TEST_KAFKA_BROKERS names.
func realCluster(t *testing.T) []string {
	t.Helper()
	brokers := os.Getenv("CAPTURE_TEST_KAFKA_BROKERS")
	if brokers == "" {
		t.Skip("needs CAPTURE_TEST_KAFKA_BROKERS: see testkit/services")
	}
	return strings.Split(brokers, ",")
}

// withTopic creates a topic of one partition with these settings, and returns the configuration of its producer.
func withTopic(t *testing.T, brokers []string, settings map[string]string) kafka.Config {
	t.Helper()
	cfg := config(brokers...)
	cfg.Topics.Create = false // the test does it
	entries := map[string]*string{}
	for key, value := range settings {
		entries[key] = &value
	}
	require.NoError(t, admin(t, brokers).CreateTopic(cfg.Topics.Events, &sarama.TopicDetail{
		NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: entries,
	}, false))
	return cfg
}

func setTopic(t *testing.T, cfg kafka.Config, key, value string) {
	t.Helper()
	require.NoError(t, admin(t, cfg.Brokers).IncrementalAlterConfig(sarama.TopicResource, cfg.Topics.Events,
		map[string]sarama.IncrementalAlterConfigsEntry{
			key: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
		}, false))
}

func TestALimitThatIsLoweredRefusesOnlyWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	cfg := withTopic(t, cluster(t), nil)
	cfg.Compression = "none"
	producer, _ := start(t, cfg)
	large := func(first int) []produce.Message {
		list := messages(cfg.Topics.Events, first, 200)
		for _, i := range guilty {
			list[i].Headers = []produce.Header{{Key: []byte("x"), Value: []byte(strings.Repeat("x", 3000))}}
		}
		return list
	}
	send(producer, large(0)).requireAcknowledged(t)
	setTopic(t, cfg, "max.message.bytes", "2000")
	want, n := values(0, 200), 200
	for refused := 0; refused == 0; n += 200 { // the change takes a moment
		r := send(producer, large(n))
		r.requireInOrder(t)
		for i, err := range r.wait(t) {
			if err == nil {
				want = append(want, values(n+i, n+i+1)...)
				continue
			}
			require.Contains(t, guilty, i)
			require.Equal(t, produce.TooLarge, produce.ClassOf(err), "%v", err)
			refused++
		}
		require.Contains(t, []int{0, len(guilty)}, refused)
	}
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, want)
}

func TestATimeThatRealKafkaRefusesBecomesThePresent(t *testing.T) {
	t.Parallel()
	cfg := withTopic(t, realCluster(t), map[string]string{"message.timestamp.before.max.ms": "3600000"})
	producer, _ := start(t, cfg)
	list := messages(cfg.Topics.Events, 0, 6)
	list[2].Time = time.Now().Add(-48 * time.Hour)
	send(producer, list).requireAcknowledged(t)
	for _, r := range consume(t, cfg.Brokers, cfg.Topics.Events, 6) {
		require.WithinDuration(t, time.Now(), r.Timestamp, time.Minute)
	}
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 6))
}

func TestACompactedTopicRefusesOnlyMessagesWithoutAKey(t *testing.T) {
	t.Parallel()
	cfg := withTopic(t, realCluster(t), map[string]string{"cleanup.policy": "compact"})
	producer, _ := start(t, cfg)
	list := messages(cfg.Topics.Events, 0, 20)
	for _, i := range []int{0, 9, 19} {
		list[i].Key = nil
	}
	for i, err := range send(producer, list).wait(t) {
		require.Equal(t, list[i].Key == nil, err != nil, "message %d: %v", i, err)
		if err != nil {
			require.Equal(t, produce.Invalid, produce.ClassOf(err))
			require.ErrorContains(t, err, "key", "the broker's own words")
		}
	}
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, slices.Concat(values(1, 9), values(10, 19)))
}

func TestATopicThatIsDeletedUnderLoadIsMissingAndComesBack(t *testing.T) {
	t.Parallel()
	// The producer does not create the topic: it could do so before all who send are told that the topic is missing.
	cfg := withTopic(t, cluster(t), nil)
	producer, _ := start(t, cfg)
	topics := admin(t, cfg.Brokers)
	missing := make(chan struct{})
	enough := make(chan struct{})
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() {
			told := false
			for n := 0; ; n += 50 {
				select {
				case <-enough:
					return
				default:
				}
				for _, err := range send(producer, spread(cfg.Topics.Events, n, 50)).wait(t) {
					if err != nil && produce.ClassOf(err) == produce.Missing && !told {
						told = true
						missing <- struct{}{}
					}
				}
			}
		})
	}
	require.NoError(t, topics.DeleteTopic(cfg.Topics.Events))
	for range 3 {
		<-missing
	}
	close(enough)
	load.Wait()
	require.Eventually(t, func() bool {
		return topics.CreateTopic(cfg.Topics.Events,
			&sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1}, false) == nil
	}, patience, 10*time.Millisecond)
	deliver(t, producer, spread(cfg.Topics.Events, 0, 100))
	requireAllArrived(t, cfg.Brokers, cfg.Topics.Events, 100)
}

// Kafka keeps the epoch of a producer for each partition. The producer gives up batches that Kafka may have, and
// numbers the next ones anew.
func TestRealKafkaTakesTheNumbersThatFollowABatchThatWasGivenUp(t *testing.T) {
	t.Parallel()
	cfg := withTopic(t, realCluster(t), nil)
	producer, _ := start(t, cfg)
	n := 0
	for range 5 {
		send(producer, messages(cfg.Topics.Events, n, 10)).requireAcknowledged(t)
		producer.RenewEpoch()
		n += 10
	}
	producer.RenewID()
	send(producer, messages(cfg.Topics.Events, n, 10)).requireAcknowledged(t)
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, n+10))
}
