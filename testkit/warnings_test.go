package testkit_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
)

// warningsIn returns the messages that are warnings.
func warningsIn(messages []testkit.Message) (warnings []testkit.Message) {
	for _, message := range messages {
		if message.Envelope.Event == "$$client_ingestion_warning" {
			warnings = append(warnings, message)
		}
	}
	return warnings
}

// Sections 0 and 8 of the protocol: the client is answered 200, and the project learns of the bad event.
func TestAProjectIsWarnedOfABadEventInAGoodBatch(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Set("warnings.enabled", "true"))
	batch := `{"api_key":"phc_test","batch":[
		{"event":"first","distinct_id":"me"},
		{"event":"nobody's","uuid":"0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d"},
		{"event":"nobody's either"},
		{"event":"second","distinct_id":"me"}]}`
	began := time.Now()
	require.Equal(t, 200, service.Post("/batch/", batch).Status)
	var messages []testkit.Message
	service.Eventually("the warning", func() bool {
		messages = service.Messages()
		return len(messages) == 3
	})
	warnings := warningsIn(messages)
	require.Len(t, warnings, 1)
	warning := warnings[0]
	require.Contains(t, warning.Topic, "client_warnings")
	require.Equal(t, "phc_test:unknown", string(warning.Key))
	require.Equal(t, "phc_test", warning.Headers["token"])
	require.Equal(t, "phc_test", warning.Envelope.Token)
	require.Equal(t, "unknown", warning.Envelope.DistinctID)
	require.Empty(t, warning.Envelope.IP)
	require.WithinRange(t, warning.Envelope.Timestamp, began, time.Now())
	require.WithinRange(t, warning.Envelope.Now, began, time.Now())
	id, err := uuid.Parse(warning.Envelope.UUID)
	require.NoError(t, err)
	require.EqualValues(t, 7, id.Version())
	require.JSONEq(t, `{"token":"phc_test","distinct_id":"unknown","uuid":null,"event":"$$client_ingestion_warning",
		"properties":{
		"$$client_ingestion_warning_message":"An event was rejected because it has no distinct_id: `+
		`event submitted without a distinct_id",
		"$$client_ingestion_warning_type":"missing_distinct_id",
		"$$client_ingestion_warning_source":"capture",
		"$$client_ingestion_warning_details":{
			"eventUuid":"0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d","event":"nobody's",
			"reason":"missing_distinct_id","error":"event submitted without a distinct_id",
			"events":2,"suppressed":0,"pipelineStep":"capture"}}}`, string(warning.Envelope.Data))

	// The same batch again within the interval, with another fault and another project.
	require.Equal(t, 200, service.Post("/batch/", batch).Status)
	require.Equal(t, 400, service.Post("/e/", `{"api_key":"phc_test","event":"","distinct_id":"me"}`).Status)
	require.Equal(t, 400, service.Post("/e/", `{"api_key":"phc_other","event":"a"}`).Status)
	require.Equal(t, 401, service.Post("/e/", `{"event":"a"}`).Status)
	service.Eventually("two more warnings", func() bool { return len(warningsIn(service.Messages())) == 3 })
	var told []string
	for _, warning := range warningsIn(service.Messages()) {
		var data struct {
			Properties map[string]any `json:"properties"`
		}
		require.NoError(t, json.Unmarshal(warning.Envelope.Data, &data))
		told = append(told, fmt.Sprint(warning.Envelope.Token, " ", data.Properties["$$client_ingestion_warning_type"]))
	}
	require.ElementsMatch(t, []string{"phc_test missing_distinct_id", "phc_test missing_event_name",
		"phc_other missing_distinct_id"}, told)
	service.Eventually("the metrics to say so", func() bool {
		text := service.Admin("/metrics").Body
		return metric(t, text, `capture_warnings_throttled_total\{type="missing_distinct_id"\}`) == 1 &&
			metric(t, text, `capture_warnings_sent_total\{type="missing_distinct_id"\}`) == 2 &&
			metric(t, text, `capture_warnings_sent_total\{type="missing_event_name"\}`) == 1
	})
	// No client sent the warnings, so the ledger does not count them.
	require.Equal(t, 11, metric(t, service.Admin("/metrics").Body, `capture_events_received_total`))
}

// Projects are also warned of faults that the protocol itself notes about a request or an event.
func TestAProjectIsToldOfWhatWasRepairedCutAndRefused(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("warnings.enabled", "true"))
	long := strings.Repeat("é", 201)
	require.Equal(t, 200, service.Post("/e/",
		`{"api_key":"k","event":"a","distinct_id":"me","properties":{"x":NaN}}`).Status)
	require.Equal(t, 200, service.Post("/e/", `{"api_key":"k","event":"a","distinct_id":"`+long+`"}`).Status)
	require.Equal(t, 400, service.Post("/s/",
		`{"api_key":"k","event":"$snapshot","distinct_id":"me","properties":{"$session_id":"s-1"}}`).Status)
	require.NoError(t, service.Stop())

	type properties struct {
		Type    string         `json:"$$client_ingestion_warning_type"`
		Details map[string]any `json:"$$client_ingestion_warning_details"`
	}
	told := map[string]map[string]any{}
	for _, event := range sink.Events() {
		if event.Lane != events.LaneClientWarnings {
			continue
		}
		var found properties
		require.NoError(t, json.Unmarshal(event.Raw.Properties, &found))
		told[found.Type] = found.Details
		if found.Type == "distinct_id_truncated" {
			require.Equal(t, long[:2*200], event.DistinctID)
		}
	}
	require.Len(t, told, 3)
	require.Equal(t, "me", told["json_repaired"]["distinctId"])
	require.Equal(t, "a", told["distinct_id_truncated"]["event"])
	require.Equal(t, long[:200], told["distinct_id_truncated"]["distinctId"])
	require.Equal(t, "missing_snapshot_data", told["replay_message_invalid"]["reason"])
	require.Equal(t, "s-1", told["replay_message_invalid"]["sessionId"])
}

func TestWarningsThatWaitAreWrittenDuringAStop(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("warnings.enabled", "true"))
	release := sink.Hold()
	for _, token := range []string{"phc_a", "phc_b", "phc_c"} {
		require.Equal(t, 400, service.Post("/e/", `{"api_key":"`+token+`","event":"a"}`).Status)
	}
	service.Eventually("the first warning to be held", func() bool { return sink.Held() == 1 })
	require.Empty(t, sink.Events())
	release()
	require.NoError(t, service.Stop())
	require.Len(t, sink.Events(), 3)
}

func TestWarningsAreOffInATestThatDoesNotAskForThem(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink))
	require.Equal(t, 400, service.Post("/e/", `{"api_key":"phc_test","event":"a"}`).Status)
	require.NoError(t, service.Stop())
	require.Empty(t, sink.Events())
}
