package testkit_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/testkit"
	"github.com/opencapture/capture/testkit/redisserver"
)

// replay sends a recorded request, and returns the answer without what differs from one attempt to the next.
func replay(service *testkit.Service, row recording) testkit.Response {
	path := row.Path
	if row.RawQuery != "" {
		path += "?" + row.RawQuery
	}
	response := service.Request(row.Method, path, string(row.Body), row.header()...)
	response.Header = nil
	return response
}

// identities returns what tells the events of a recorded request apart from those of other requests: their uuids, or
// else all that they say. It returns none for a recording of a session.
func identities(t *testing.T, row recording, topics produce.Topics) (all []string) {
	if row.isV1() {
		for _, event := range v1Events(t, row) {
			all = append(all, event.UUID)
		}
		return all
	}
	if row.Path == "/s/" {
		return nil
	}
	_, wanted := expect(t, row, topics)
	for key, e := range wanted {
		switch {
		case e.companion != nil: // it is a part of another event
		case e.uuid != "":
			all = append(all, e.uuid)
		default:
			all = append(all, key)
		}
	}
	return all
}

// Every recorded request of every SDK is sent three times. Its events are stored the first time, and only then, and the
// answer is always the one that the SDK needs. No event is taken for another one: each event without a uuid is stored.
// Only what the recordings themselves hold more than once is a duplicate the first time already.
func TestEveryRecordedSDKRequestIsStoredOnceHoweverOftenItIsSent(t *testing.T) {
	files, err := filepath.Glob("testdata/sdk/*.jsonl")
	require.NoError(t, err)
	require.Len(t, files, 11)
	resent := map[string]int{ // what SDKs have sent again, by themselves or in the halves of a batch that was too large
		"posthog-js-1.200.2": 6, "posthog-js-1.449.2": 6, "posthog-node-5.70.0": 8, "posthog-python-2.4.2": 7,
		"posthog-python-5.4.0": 7, "posthog-go-1.23.1": 1, // the program has given two events one uuid
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ledger *events.Ledger
			var config kafka.Config
			service := testkit.Start(t, testkit.Populate(&ledger), testkit.Populate(&config))
			rows := recordings(t, file)
			first := make([]testkit.Response, len(rows))
			distinct, sent := map[string]bool{}, 0
			for i, row := range rows {
				first[i] = replay(service, row)
				for _, identity := range identities(t, row, config.Topics) {
					distinct[identity] = true
					sent++
				}
			}
			require.Equal(t, resent[name], sent-len(distinct), "resent events in the recordings")
			once := ledger.Snapshot()
			require.Equal(t, resent[name], int(once.Duplicates), "duplicates when all is sent once")
			stored := len(service.Messages())
			require.GreaterOrEqual(t, stored, len(distinct))
			for range 2 {
				before := ledger.Snapshot()
				for i, row := range rows {
					again := replay(service, row)
					require.Equal(t, first[i].Status, again.Status, "row %d (%s): %s", i, row.Note, again.Body)
					if row.isV1() {
						requireDuplicates(t, row, first[i].Body, again.Body)
					} else {
						require.Equal(t, first[i].Body, again.Body, "row %d (%s)", i, row.Note)
					}
				}
				after := ledger.Snapshot()
				require.Equal(t, once.Accepted, after.Accepted-before.Accepted)
				require.Equal(t, once.Accepted, after.Duplicates-before.Duplicates, "all of them are duplicates")
				require.Equal(t, after.Received, after.Ended())
			}
			require.Equal(t, stored, len(service.Messages()), //nolint:testifylint // Len would print them all
				"messages in Kafka")
		})
	}
}

// requireDuplicates compares the answers to a v1 request that was sent twice: what was ok is ok, and a duplicate.
func requireDuplicates(t *testing.T, row recording, first, again string) {
	type answer struct {
		Results map[string]struct{ Result, Details string } `json:"results"`
	}
	var one, other answer
	require.NoError(t, json.Unmarshal([]byte(first), &one), row.Note)
	require.NoError(t, json.Unmarshal([]byte(again), &other), row.Note)
	require.Len(t, other.Results, len(one.Results))
	for id, result := range one.Results {
		require.Equal(t, result.Result, other.Results[id].Result, row.Note)
		if result.Result == "ok" {
			require.Equal(t, "duplicate", other.Results[id].Details, row.Note)
		}
	}
}

// A request whose event another request is handling is asked to come again, in the words of each protocol.
func TestAnEventThatIsBeingHandledIsAnswered503(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("dedup.wait", "10ms"))
	const id = "0198c0de-0000-7000-8000-000000000001"
	body := fmt.Sprintf(`{"api_key":"phc_a","event":"a","distinct_id":"u","uuid":%q}`, id)
	release := sink.Hold()
	first := make(chan testkit.Response, 1)
	go func() { first <- service.Post("/e/", body) }()
	service.Eventually("the first request to be with the sink", func() bool { return sink.Held() == 1 })

	response := service.Post("/e/", body)
	require.Equal(t, http.StatusServiceUnavailable, response.Status)
	require.Equal(t, "1", response.Header.Get("Retry-After"))
	require.Equal(t, "another request with the same event is being handled, please retry", response.Body)

	now := time.Now().UTC().Format(time.RFC3339)
	v1 := func() testkit.Response {
		return service.Post("/i/v1/analytics/events", fmt.Sprintf(`{"created_at":%q,"batch":[{"event":"a","uuid":%q,`+
			`"distinct_id":"u","timestamp":%q,"properties":{}}]}`, now, id, now),
			"Authorization", "Bearer phc_a", "Content-Type", "application/json", "PostHog-Attempt", "1",
			"PostHog-Request-Id", id, "PostHog-Request-Timestamp", now, "PostHog-Sdk-Info", "posthog-go/1.23.1")
	}
	response = v1()
	require.Equal(t, http.StatusOK, response.Status)
	require.Equal(t, `{"results":{"`+id+`":{"result":"retry","details":"in_flight"}}}`, response.Body)
	require.Equal(t, "1", response.Header.Get("Retry-After"))

	release()
	require.Equal(t, http.StatusOK, (<-first).Status)
	require.Equal(t, `{"results":{"`+id+`":{"result":"ok","details":"duplicate"}}}`, v1().Body)
	require.Equal(t, http.StatusOK, service.Post("/e/", body).Status)
	require.Len(t, sink.Events(), 1)
}

// Kafka holds an event back for longer than its client waits and than a reservation lasts, and takes it then. The copy
// that comes afterwards is a duplicate, and the event counts once against the quota.
func TestAnEventThatKafkaTakesAfterTheAnswerIsStoredOnce(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "late"))
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		broker.SleepControl(func() { <-released })
		return nil, nil, false
	})
	service := testkit.Start(t, testkit.Set("kafka.brokers", strings.Join(broker.ListenAddrs(), ",")),
		testkit.Set("kafka.topics.events", "late"), testkit.Set("delivery.ack", "kafka"),
		testkit.Set("delivery.timeout", "100ms"), testkit.Set("delivery.spool_after", "1ms"),
		testkit.Set("dedup.lease", "100ms"),
		testkit.Set("quota.quotas", "events=100/month"))
	metric := func(line string) bool { return strings.Contains(service.Admin("/metrics").Body, "\n"+line+"\n") }
	body := `{"api_key":"phc_a","event":"a","distinct_id":"u","uuid":"0198c0de-0000-7000-8000-000000000002"}`
	require.Equal(t, http.StatusServiceUnavailable, service.Post("/e/", body).Status)
	service.Eventually("the reservation to be made again", func() bool {
		return strings.Contains(service.Admin("/metrics").Body, "capture_dedup_renewed_total") &&
			!metric("capture_dedup_renewed_total 0") && !metric("capture_dedup_renewed_total 1")
	})
	require.NoError(t, service.Set("delivery.timeout=1m"))
	release()
	service.Eventually("Kafka to have the event", func() bool { return metric("capture_dedup_late_stored_total 1") })
	response := service.Post("/e/", body)
	require.Equal(t, http.StatusOK, response.Status, response.Body)
	require.Len(t, service.Messages(), 1)
	require.True(t, metric("capture_events_duplicates_total 1"))
	require.Empty(t, response.Header.Get("X-Capture-Ack"))
	require.True(t, metric(`capture_quota_refunded_total{resource="events"} 0`), "it counts")
}

// Every request is sent three times to two nodes, all at once: through one Redis, and whichever comes first, each event
// is stored once, and in the end every client is told that it is safe. A Redis that is slow at times is no outage here.
func TestTwoNodesOnOneRedisStoreAnEventOnce(t *testing.T) {
	redisserver.Integration(t)
	redis := redisserver.Start(t, redisserver.Options{})
	sink := testkit.NewSink()
	var nodes [2]*testkit.Service
	for i := range nodes {
		nodes[i] = testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("store.redis.addrs", redis.Addr),
			testkit.Set("store.timeout", "1s"), testkit.Set("dedup.on_store_failure", "closed"))
	}
	const requests, size = 60, 20
	group := panics.NewGroup(zap.NewNop())
	for n := range requests {
		var body strings.Builder
		body.WriteString(`{"api_key":"phc_{a}:*","batch":[`)
		for i := range size {
			if i > 0 {
				body.WriteString(",")
			}
			// Every second event has no uuid.
			id := fmt.Sprintf(`"uuid":"0198c0de-0000-7000-8000-%012d",`, n*size+i)
			if i%2 == 1 {
				id = `"timestamp":"2026-11-24T12:00:00Z",`
			}
			fmt.Fprintf(&body, `{"event":"e%d","distinct_id":"u",%s"properties":{}}`, n*size+i, id)
		}
		body.WriteString(`]}`)
		for attempt := range 3 {
			group.Go("a client", func() {
				for node := attempt; ; node++ {
					response := nodes[node%2].Post("/batch/", body.String())
					if response.Status == http.StatusOK {
						return
					}
					assert.Equal(t, http.StatusServiceUnavailable, response.Status, response.Body)
				}
			})
		}
	}
	group.Wait()
	stored := map[string]int{}
	for _, event := range sink.Events() {
		stored[event.Name]++
	}
	require.Len(t, stored, requests*size)
	for name, n := range stored {
		require.Equal(t, 1, n, name)
	}
}

// The window opens and closes while the service runs.
func TestDuplicatesAreLookedForAsConfigured(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("dedup.window", "0"))
	send := func() int {
		require.Equal(t, http.StatusOK, service.Post("/e/", `{"api_key":"phc_a","event":"a","distinct_id":"u",`+
			`"uuid":"0198c0de-0000-7000-8000-000000000001"}`).Status)
		return len(sink.Events())
	}
	require.Equal(t, 1, send())
	require.Equal(t, 2, send())
	require.NoError(t, service.Set("dedup.window=1h"))
	require.Equal(t, 3, send(), "what was stored without a window is not known")
	require.Equal(t, 3, send())
	require.NoError(t, service.Set("dedup.window=0"))
	require.Equal(t, 4, send())
	require.ErrorContains(t, service.Set("dedup.window=1s"), "dedup.window: must be 0, or from the lease (3s)")
	require.Equal(t, 5, send())
}
