package testkit_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/testkit"
)

// v1Sent is an event of a recorded request.
type v1Sent struct {
	Event      string          `json:"event"`
	UUID       string          `json:"uuid"`
	DistinctID string          `json:"distinct_id"`
	Timestamp  time.Time       `json:"timestamp"`
	SessionID  *string         `json:"session_id"`
	WindowID   *string         `json:"window_id"`
	Options    map[string]any  `json:"options"`
	Properties json.RawMessage `json:"properties"`

	request    recording
	historical bool
}

// v1Events returns the events of a recorded request with their properties byte for byte. It uses the recorder's own
// decoding where there is one.
func v1Events(t *testing.T, row recording) []v1Sent {
	text := exactText(t, row, url.Values{})
	var sent, exact struct {
		Past  bool     `json:"historical_migration"`
		Batch []v1Sent `json:"batch"`
	}
	require.NoError(t, json.Unmarshal(text, &exact))
	if len(row.JSON) == 0 || string(row.JSON) == "null" {
		row.JSON = text
	}
	require.Equal(t, canonical(t, row.JSON), canonical(t, text))
	require.NoError(t, json.Unmarshal(row.JSON, &sent))
	require.NotEmpty(t, sent.Batch)
	for i := range sent.Batch {
		sent.Batch[i].request, sent.Batch[i].historical = row, sent.Past
		sent.Batch[i].Properties = exact.Batch[i].Properties
	}
	return sent.Batch
}

// The answer to every recorded v1 request of every SDK says that each of its events is safe. Each event is in Kafka
// exactly once, and the fields that the SDK sent beside the properties have been written back into them.
func TestEveryRecordedV1RequestArrivesExactlyOnce(t *testing.T) {
	t.Parallel()
	for file, least := range map[string]int{"posthog-node-5.70.0-capture-v1": 17, "posthog-go-1.23.1": 12} {
		t.Run(file, func(t *testing.T) {
			var config kafka.Config
			service := testkit.Start(t, testkit.Populate(&config))
			wanted := map[string]v1Sent{}
			requests := 0
			for n, row := range recordings(t, filepath.Join("testdata", "sdk", file+".jsonl")) {
				if !row.isV1() {
					continue
				}
				requests++
				response := service.Request(row.Method, row.Path, string(row.Body), row.header()...)
				require.Equal(t, http.StatusOK, response.Status, "row %d (%s): %s", n, row.Note, response.Body)
				require.Equal(t, row.Headers["posthog-request-id"], response.Header.Get("PostHog-Request-Id"))
				require.NotEmpty(t, response.Header.Get("Date"))
				require.Empty(t, response.Header.Get("Retry-After"))
				var answer struct {
					Results map[string]struct{ Result, Details string } `json:"results"`
				}
				require.NoError(t, json.Unmarshal([]byte(response.Body), &answer))
				sent := v1Events(t, row)
				require.Len(t, answer.Results, len(sent))
				for _, event := range sent {
					require.Equal(t, "ok", answer.Results[event.UUID].Result, row.Note)
					require.NotContains(t, wanted, event.UUID)
					wanted[event.UUID] = event
				}
			}
			require.GreaterOrEqual(t, requests, least)
			messages := service.Messages()
			require.Len(t, messages, len(wanted))
			for _, message := range messages {
				event, ok := wanted[message.Envelope.UUID]
				require.True(t, ok, "not sent, or twice: %s", message.Value)
				delete(wanted, message.Envelope.UUID)
				event.check(t, message, config.Topics)
			}
		})
	}
}

// check compares a message with the event that it must hold.
func (e v1Sent) check(t *testing.T, message testkit.Message, topics produce.Topics) {
	note := e.request.Note
	got := message.Envelope
	sentAt, err := time.Parse(time.RFC3339Nano, e.request.Headers["posthog-request-timestamp"])
	require.NoError(t, err)
	topic := topics.Events
	switch {
	case strings.HasPrefix(e.Event, "$ai_"):
		topic = topics.AI
	case e.historical:
		topic = topics.Historical
	}
	distinctID := e.DistinctID
	if runes := []rune(distinctID); len(runes) > 200 {
		distinctID = string(runes[:200])
	}
	require.Equal(t, topic, message.Topic, note)
	require.Equal(t, "phc_test", got.Token)
	require.Equal(t, e.Event, got.Event)
	require.Equal(t, distinctID, got.DistinctID)
	require.Equal(t, "127.0.0.1", got.IP)
	require.Equal(t, e.historical, got.HistoricalMigration, note)
	require.NotNil(t, got.SentAt)
	require.Equal(t, sentAt.UTC(), got.SentAt.UTC())
	require.Equal(t, e.Timestamp.Add(got.Now.Sub(sentAt)).UTC(), got.Timestamp.UTC(), note)
	if distinctID != "anonymous" {
		require.Equal(t, "phc_test:"+distinctID, string(message.Key))
	}
	for name, want := range map[string]string{
		"token": "phc_test", "distinct_id": distinctID, "event": e.Event, "uuid": e.UUID,
		"timestamp": strconv.FormatInt(got.Timestamp.UnixMilli(), 10),
	} {
		require.Equal(t, want, message.Headers[name], note)
	}

	var data map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(got.Data, &data))
	require.Equal(t, e.Event, asText(data["event"]))
	require.Equal(t, e.UUID, asText(data["uuid"]))
	require.Equal(t, e.DistinctID, asText(data["distinct_id"]), "data has what was sent")
	at, err := time.Parse(time.RFC3339Nano, asText(data["timestamp"]))
	require.NoError(t, err)
	require.Equal(t, e.Timestamp.UTC(), at.UTC())
	require.Len(t, data, 5, "event, uuid, distinct_id, timestamp and properties")

	require.True(t, strings.HasPrefix(string(data["properties"]), strings.TrimSuffix(string(e.Properties), "}")),
		"properties keep their bytes: %s", note)
	var properties, want map[string]any
	require.NoError(t, json.Unmarshal(data["properties"], &properties))
	require.NoError(t, json.Unmarshal(e.Properties, &want))
	own := maps.Clone(want)
	name, version, _ := strings.Cut(e.request.Headers["posthog-sdk-info"], "/")
	want["$lib"], want["$lib_version"] = name, version
	if e.SessionID != nil {
		want["$session_id"] = *e.SessionID
	}
	if e.WindowID != nil {
		want["$window_id"] = *e.WindowID
	}
	for option, property := range map[string]string{
		"cookieless_mode": "$cookieless_mode", "disable_skew_correction": "$ignore_sent_at",
		"process_person_profile": "$process_person_profile", "product_tour_id": "$product_tour_id",
	} {
		if value, given := e.Options[option]; given {
			want[property] = value
		}
	}
	maps.Copy(want, own)
	require.Equal(t, want, properties, note)
}

// The routes of v1 answer in their own form even if the server itself refuses a request.
func TestV1RefusesInItsOwnForm(t *testing.T) {
	service := testkit.Start(t, testkit.Set("transport.max_body", "1000"),
		testkit.Override[events.Sink](testkit.NewSink()))
	header := []string{
		"Authorization", "Bearer phc_test", "Content-Type", "application/json", "PostHog-Sdk-Info", "test/1",
		"PostHog-Attempt", "1",
		"PostHog-Request-Id", "0198c0de-0000-7000-8000-000000000001", "PostHog-Request-Timestamp",
		"2026-11-24T12:00:00Z",
	}
	for _, path := range []string{"/i/v1/analytics/events", "/i/v1/analytics/events/", "/i/v1/ai/events"} {
		for _, test := range []struct {
			size   int
			header []string
			status int
			tag    string
		}{
			{2000, header, http.StatusRequestEntityTooLarge, "payload_too_large"},
			{2000, header[2:], http.StatusUnauthorized, "missing_authorization"},
			{2000, append([]string{"Content-Encoding", "compress"}, header...), http.StatusUnsupportedMediaType,
				"unsupported_encoding"},
			{0, header, http.StatusBadRequest, "empty_body"},
			{900, header, http.StatusBadRequest, "request_parsing_error"},
		} {
			response := service.Post(path, strings.Repeat(" ", test.size), test.header...)
			require.Equal(t, test.status, response.Status, response.Body)
			require.Contains(t, response.Body, `{"error":"`+test.tag+`",`)
			require.Equal(t, "application/json", response.Header.Get("Content-Type"))
			require.Equal(t, "0198c0de-0000-7000-8000-000000000001", response.Header.Get("PostHog-Request-Id"))
			require.Empty(t, response.Header.Get("Retry-After"))
		}
		require.Equal(t, http.StatusMethodNotAllowed, service.Request(http.MethodGet, path, "").Status)
	}
}

// The answer to a batch that Kafka took only in part says which events to send again, and when.
func TestV1SaysWhichEventsToSendAgain(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Set("transport.retry_after", "3s"), testkit.Override[events.Sink](sink))
	row := v1Row(t, "v1 partial: second event retry")
	sink.Next(func(event *events.Event) {
		if event.Name == "p2" {
			event.Fail(events.ReasonUnavailable, events.Errorf(events.Unavailable, "the test says so"))
		}
	})
	response := service.Request(row.Method, row.Path, string(row.Body), row.header()...)
	require.Equal(t, http.StatusOK, response.Status)
	require.Equal(t, `{"results":{"0198c0de-0000-7000-8000-000000000001":{"result":"ok"},`+
		`"0198c0de-0000-7000-8000-000000000002":{"result":"retry","details":"not_persisted"}}}`, response.Body)
	require.Equal(t, "3", response.Header.Get("Retry-After"))
	require.Len(t, sink.Events(), 1)
	response = service.Request(row.Method, row.Path, string(row.Body), row.header()...)
	require.Equal(t, `{"results":{"0198c0de-0000-7000-8000-000000000001":{"result":"ok","details":"duplicate"},`+
		`"0198c0de-0000-7000-8000-000000000002":{"result":"ok"}}}`, response.Body)
	require.Empty(t, response.Header.Get("Retry-After"))
	require.Len(t, sink.Events(), 2)
}

func v1Row(t *testing.T, note string) recording {
	for _, row := range recordings(t, "testdata/sdk/posthog-node-5.70.0-capture-v1.jsonl") {
		if row.Note == note {
			return row
		}
	}
	t.Fatalf("no recorded request is noted %q", note)
	return recording{}
}

// A user who sends too fast is told so, event by event, and the events lie in the overflow topic: without a key, and
// marked so that nothing behind updates a person from them. A copy is told that the event is stored.
func TestV1WarnsOfUsersWhoSendTooFast(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Set("quota.user_rates", "events=1/h burst=1"),
		testkit.Set("warnings.enabled", "false"))
	row := v1Row(t, "v1 partial: second event retry")
	send := func() string {
		response := service.Request(row.Method, row.Path, string(row.Body), row.header()...)
		require.Equal(t, http.StatusOK, response.Status)
		require.Empty(t, response.Header.Get("Retry-After"))
		return response.Body
	}
	const answer = `{"results":{"0198c0de-0000-7000-8000-000000000001":{"result":"ok"%s},` +
		`"0198c0de-0000-7000-8000-000000000002":{"result":%s}}}`
	require.Equal(t, fmt.Sprintf(answer, "", `"warning","details":"person_processing_disabled"`), send())
	const copied = `"ok","details":"duplicate"`
	require.Equal(t, fmt.Sprintf(answer, strings.TrimPrefix(copied, `"ok"`), copied), send())
	messages := service.Messages()
	require.Len(t, messages, 2)
	topics := kafka.DefaultConfig().Topics
	for i, want := range []struct {
		topic      string
		keyed      bool
		impersonal string
	}{{topics.Events, true, ""}, {topics.Overflow, false, "true"}} {
		message := messages[slices.IndexFunc(messages, func(m testkit.Message) bool {
			return m.Headers["uuid"] == "0198c0de-0000-7000-8000-00000000000"+strconv.Itoa(i+1)
		})]
		require.True(t, strings.HasSuffix(message.Topic, want.topic), message.Topic) // a real Kafka has a prefix
		require.Equal(t, want.keyed, message.Key != nil)
		require.Equal(t, want.impersonal, message.Headers["force_disable_person_processing"])
	}
}
