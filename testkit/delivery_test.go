package testkit_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/opencapture/capture/testkit"
)

// withoutKafka starts a service whose brokers are away: nothing listens on port 1 of the loopback address.
func withoutKafka(t *testing.T, ack string, options ...testkit.Option) *testkit.Service {
	return testkit.Start(t, append(options,
		testkit.Set("kafka.brokers", "127.0.0.1:1"), testkit.Set("kafka.connect_timeout", "100ms"),
		testkit.Set("delivery.ack", ack))...)
}

func TestAnAnswerNamesWhatMadeItsEventsSafe(t *testing.T) {
	t.Parallel()
	for _, protocol := range []struct {
		path, body string
		header     []string
	}{
		{"/e/", hello, nil},
		{
			"/i/v1/analytics/events",
			`{"created_at":"2026-11-27T10:00:00Z","batch":[{"uuid":"0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c01",` +
				`"event":"a","distinct_id":"u","timestamp":"2026-11-27T10:00:00Z"}]}`,
			[]string{
				"Authorization", "Bearer phc_test", "Content-Type", "application/json", "PostHog-Sdk-Info", "test/1",
				"PostHog-Attempt", "1",
				"PostHog-Request-Id", "0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c09", "PostHog-Request-Timestamp",
				"2026-11-27T10:00:00Z",
			},
		},
	} {
		for ack, want := range map[string]string{
			"auto": "kafka", "kafka": "kafka", "spool": "spool", "memory": "memory",
		} {
			// An event that the spool has would be a duplicate when it is sent again.
			service := testkit.Start(t, testkit.Set("delivery.ack", ack), testkit.Set("dedup.window", "0s"))
			// The first events of a new topic may come before the topic has leaders.
			service.Eventually(want+" for "+ack+" at "+protocol.path, func() bool {
				response := service.Post(protocol.path, protocol.body, protocol.header...)
				return response.Status == 200 && response.Header.Get("X-Capture-Ack") == want
			})
		}
		for _, ack := range []string{"auto", "spool"} {
			away := withoutKafka(t, ack)
			require.Equal(t, 200, away.Request("GET", "/_readiness", "").Status)
			response := away.Post(protocol.path, protocol.body, protocol.header...)
			require.Equal(t, 200, response.Status, response.Body)
			require.Equal(t, "spool", response.Header.Get("X-Capture-Ack"))
			require.Contains(t, away.Admin("/readyz").Body, `"overridden":"the spool in `)
		}
	}
}

func TestEventsInTheSpoolAreInKafkaAfterARestart(t *testing.T) {
	dir, topic := testkit.Set("delivery.spool.dir", t.TempDir()),
		testkit.Set("kafka.topics.events", "t"+uuid.NewString())
	first := withoutKafka(t, "auto", dir, topic)
	require.Equal(t, 200, first.Post("/batch/",
		`{"api_key":"k","batch":[{"event":"a","distinct_id":"u"},{"event":"b","distinct_id":"u"}]}`).Status)
	require.NoError(t, first.Stop())
	second := testkit.Start(t, dir, topic)
	var names []string
	for _, message := range second.Messages() {
		names = append(names, message.Envelope.Event)
	}
	require.Equal(t, []string{"a", "b"}, names)
}

func TestAFullSpoolIsAnswered503WithWhenToComeAgain(t *testing.T) {
	service := withoutKafka(t, "auto", testkit.Set("delivery.spool.segment_bytes", "1MiB"),
		testkit.Set("delivery.spool.max_bytes", "2MiB"))
	body := fmt.Sprintf(`{"api_key":"k","event":"a","distinct_id":"u","properties":{"x":%q}}`,
		strings.Repeat("x", 100_000))
	var response testkit.Response
	for taken := 0; ; taken++ {
		require.Less(t, taken, 30, "2 MiB take no more")
		if response = service.Post("/e/", body); response.Status != http.StatusOK {
			break
		}
	}
	require.Equal(t, http.StatusServiceUnavailable, response.Status)
	require.Equal(t, "60", response.Header.Get("Retry-After"), "nothing is drained, so nobody knows")
	require.Equal(t, 503, service.Request("GET", "/_readiness", "").Status)
	require.Contains(t, service.Admin("/readyz").Body, "full: see why Kafka does not take its events")
}

// A message that Kafka refuses for good becomes a dead letter. A replay sends it once its topic takes it.
func TestADeadLetterIsReplayedOnceItsTopicTakesIt(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	require.NoError(t, broker.CreateTopic("narrow", 1, map[string]string{"max.message.bytes": "3000"}))
	require.NoError(t, broker.CreateTopic("letters", 1, nil))
	dir := t.TempDir()
	service := testkit.Start(t, testkit.Set("kafka.brokers", strings.Join(broker.ListenAddrs(), ",")),
		testkit.Set("kafka.compression", "none"),
		testkit.Set("kafka.topics.events", "narrow"), testkit.Set("kafka.topics.dlq", "letters"),
		testkit.Set("delivery.spool.dir", dir))
	service.Eventually("Kafka", func() bool { return service.Admin("/readyz").Status == 200 })
	response := service.Post("/batch/", fmt.Sprintf(`{"api_key":"k","batch":[
		{"event":"small","distinct_id":"u"},{"event":"large","distinct_id":"u","properties":{"x":%q}},
		{"event":"last","distinct_id":"u"}]}`, strings.Repeat("x", 4000)))
	require.Equal(t, 200, response.Status, response.Body)
	require.Equal(t, "kafka", response.Header.Get("X-Capture-Ack"))
	require.Equal(t, []string{"narrow/small", "narrow/last", "letters/large"}, arrived(service))
	require.NoError(t, service.Stop())

	path, err := binary()
	require.NoError(t, err)
	capture := func(args ...string) string {
		command := exec.Command(path, args...)
		command.Dir = dir
		command.Env = []string{
			"PATH=" + os.Getenv("PATH"), "CAPTURE_KAFKA__BROKERS=" + strings.Join(broker.ListenAddrs(), ","),
			"CAPTURE_KAFKA__TOPICS__EVENTS=narrow",
			"CAPTURE_KAFKA__TOPICS__DLQ=letters", "CAPTURE_DELIVERY__SPOOL__DIR=" + dir,
		}
		var out bytes.Buffer
		command.Stdout, command.Stderr = &out, os.Stderr
		require.NoError(t, command.Run(), out.String())
		return out.String()
	}
	require.Contains(t, capture("dlq", "list", "--output", "json"),
		`"reason":"too_large","step":"delivery","topic":"narrow","token":"k","distinct_id":"u","event":"large"`)
	require.Contains(t, capture("dlq", "replay", "--dry-run"), "letters/0/0 would be sent to narrow")

	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	admin, err := sarama.NewClusterAdmin(broker.ListenAddrs(), config)
	require.NoError(t, err)
	limit := "1000000"
	require.NoError(t, admin.AlterConfig(sarama.TopicResource, "narrow",
		map[string]*string{"max.message.bytes": &limit}, false))
	require.NoError(t, admin.Close())
	require.Contains(t, capture("dlq", "replay", "--filter", "reason=too_large"), "1 dead letters sent")
	messages, err := testkit.ReadTopics(broker.ListenAddrs(), "narrow")
	require.NoError(t, err)
	require.Len(t, messages, 3)
	require.Equal(t, "large", messages[2].Envelope.Event)
	require.NotContains(t, messages[2].Headers, "dlq_reason")
}

// arrived lists the topic and event of every message in Kafka.
func arrived(service *testkit.Service) []string {
	var list []string
	for _, message := range service.Messages() {
		list = append(list, message.Topic+"/"+message.Envelope.Event)
	}
	return list
}
