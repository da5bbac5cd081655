package warnings

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/events"
)

var received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestAMessageIsWhatAPostHogPipelineReads(t *testing.T) {
	id := uuid.MustParse("0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d")
	for _, test := range []struct {
		name       string
		kind       kind
		found      finding
		held       int
		event      events.Event
		distinctID string
		want       string
	}{
		{
			"an event that is rejected", missingName, finding{events: 2}, 7,
			events.Event{
				UUID: id, DistinctID: "me", Timestamp: received.Add(-time.Second), SessionID: "s-1",
				Outcome: events.Outcome{
					State: events.StateRejected, Reason: events.ReasonMissingName, Err: errors.New("no name"),
				},
			},
			"me",
			`{"$$client_ingestion_warning_message":"An event was rejected because it has no name: no name",
			"$$client_ingestion_warning_type":"missing_event_name","$$client_ingestion_warning_source":"capture",
			"$$client_ingestion_warning_details":{"eventUuid":"0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d","distinctId":"me",
			"timestamp":"2026-11-24T11:59:59Z","sessionId":"s-1","reason":"missing_event_name","error":"no name",
			"events":2,"suppressed":7,"pipelineStep":"capture"}}`,
		},
		{
			"an event of which nothing is known", invalidEvent, finding{events: 1}, 0,
			events.Event{Outcome: events.Outcome{State: events.StateRejected, Reason: events.ReasonInvalidEvent}},
			"unknown",
			`{"$$client_ingestion_warning_message":"An event was rejected because it is not valid",
			"$$client_ingestion_warning_type":"invalid_event","$$client_ingestion_warning_source":"capture",
			"$$client_ingestion_warning_details":{"reason":"invalid_event",
			"events":1,"suppressed":0,"pipelineStep":"capture"}}`,
		},
		{
			"a recording", replayTooLarge, finding{events: 1}, 0,
			events.Event{
				UUID: id, Name: "$snapshot_items", DistinctID: "me", Timestamp: received,
				Lane: events.LaneRecordings, SessionID: "s-1",
				Notes: events.NoteSnapshotReplaced, Outcome: events.Outcome{State: events.StateAccepted},
			},
			"me",
			`{"$$client_ingestion_warning_message":"A part of a session recording is too large and was left out",
			"$$client_ingestion_warning_type":"replay_message_too_large","$$client_ingestion_warning_source":"capture",
			"$$client_ingestion_warning_details":{"eventUuid":"0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d",
			"event":"$snapshot_items","distinctId":"me","timestamp":"2026-11-24T12:00:00Z","sessionId":"s-1",
			"replayRecord":{"session_id":"s-1"},"events":1,"suppressed":0,"pipelineStep":"capture"}}`,
		},
		{
			"a time that cannot be read", timeUnread, finding{events: 1}, 0,
			events.Event{
				Name: "a", DistinctID: "me", Timestamp: received, Notes: events.NoteTimeUnread,
				Raw:     events.Raw{Timestamp: []byte(`"` + strings.Repeat("\u65e5", 100) + `"`)},
				Outcome: events.Outcome{State: events.StateAccepted},
			},
			"me",
			`{"$$client_ingestion_warning_message":"The timestamp of an event cannot be read. The event is dated ` +
				`by its arrival; send the time as of RFC 3339",
			"$$client_ingestion_warning_type":"ignored_invalid_timestamp","$$client_ingestion_warning_source":"capture",
			"$$client_ingestion_warning_details":{"event":"a","distinctId":"me","timestamp":"2026-11-24T12:00:00Z",
			"field":"timestamp","value":"\"` + strings.Repeat("\u65e5", 66) + `",
			"events":1,"suppressed":0,"pipelineStep":"capture"}}`,
		},
		{
			"a time of sending that cannot be read", sentAtUnread, finding{events: 2}, 0,
			events.Event{
				DistinctID: "me", Timestamp: received, Notes: events.NoteSentAtUnread,
				Raw:     events.Raw{Timestamp: []byte(`"2026-11-24T12:00:00Z"`)},
				Outcome: events.Outcome{State: events.StateAccepted},
			},
			"me",
			`{"$$client_ingestion_warning_message":"The sent_at of a request cannot be read. The times of its ` +
				`events were not corrected for the client's clock",
			"$$client_ingestion_warning_type":"ignored_invalid_sent_at","$$client_ingestion_warning_source":"capture",
			"$$client_ingestion_warning_details":{"distinctId":"me","timestamp":"2026-11-24T12:00:00Z",
			"field":"sent_at","events":2,"suppressed":0,"pipelineStep":"capture"}}`,
		},
	} {
		batch := &events.Batch{
			Token: "phc_a", RequestID: "r-1", Received: received, Events: []events.Event{{Name: "other"}, test.event},
		}
		test.found.first = 1
		got := newMessage(batch, test.kind, test.found, test.held)
		require.Equal(t, test.kind, got.kind, test.name)
		require.Equal(t, "phc_a", got.token)
		require.Equal(t, "r-1", got.requestID)
		require.Equal(t, "$$client_ingestion_warning", got.event.Name)
		require.Equal(t, test.distinctID, got.event.DistinctID)
		require.Equal(t, events.LaneClientWarnings, got.event.Lane)
		require.Equal(t, received, got.event.Timestamp)
		require.True(t, got.event.Pending())
		require.NotEqual(t, uuid.Nil, got.event.UUID)
		require.NotEqual(t, id, got.event.UUID)
		require.JSONEq(t, `"phc_a"`, string(got.event.Raw.Token))
		require.JSONEq(t, `"`+test.distinctID+`"`, string(got.event.Raw.DistinctID))
		require.JSONEq(t, test.want, string(got.event.Raw.Properties), test.name)
	}
}

// A warning quotes a bounded part of what a client sends, and is valid JSON.
func TestAMessageIsSmallAndValidWhateverTheEventHolds(t *testing.T) {
	anything := rapid.Custom(func(t *rapid.T) string {
		part := rapid.OneOf(rapid.String(), rapid.Just("\""), rapid.Just("\x00"), rapid.Just("\xff\xed\xa0\x80"),
			rapid.Just("😀"), rapid.Just("</script>\\u2028"))
		return strings.Repeat(part.Draw(t, "part"), rapid.IntRange(0, 1000).Draw(t, "times"))
	})
	rapid.Check(t, func(t *rapid.T) {
		about := events.Event{
			Name: anything.Draw(t, "name"), DistinctID: anything.Draw(t, "distinct_id"),
			SessionID: anything.Draw(t, "session"),
			Timestamp: time.Unix(rapid.Int64Range(-1e15, 1e15).Draw(t, "timestamp"), 0), Lane: events.LaneRecordings,
			Outcome: events.Outcome{
				State: events.StateRejected, Reason: events.ReasonTooLarge, Err: errors.New(anything.Draw(t, "error")),
			},
		}
		got := newMessage(&events.Batch{Token: "phc_a", Events: []events.Event{about}}, replayTooLarge,
			finding{events: 1}, 0)
		for _, raw := range [][]byte{got.event.Raw.Properties, got.event.Raw.DistinctID, got.event.Raw.Token} {
			require.True(t, json.Valid(raw), "%s", raw)
			require.True(t, utf8.Valid(raw))
		}
		require.NotEmpty(t, got.event.DistinctID)
		require.LessOrEqual(t, len(got.event.DistinctID), maxDistinctID)
		require.Less(t, len(got.event.Raw.Properties), 10_000)
	})
}

func TestATextIsCutBetweenTwoCharacters(t *testing.T) {
	for _, test := range []struct {
		text string
		most int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"aé", 2, "a"}, {"éé", 2, "é"}, {"😀", 3, ""}, {"", 0, ""},
		{"\x80\x80\x80", 2, ""},
	} {
		require.Equal(t, test.want, cut(test.text, test.most), "%q", test.text)
	}
}

func TestAMessageSharesNothingWithTheRequest(t *testing.T) {
	memory := []byte("phc_a|me|r-1")
	at := func(from, to int) string { return unsafe.String(&memory[from], to-from) }
	batch := &events.Batch{Token: at(0, 5), RequestID: at(9, 12), Events: []events.Event{{DistinctID: at(6, 8)}}}
	got := newMessage(batch, invalidEvent, finding{events: 1}, 0)
	throttle := newThrottle()
	throttle.pass(batch.Token, invalidEvent, received, time.Minute)
	for i := range memory {
		memory[i] = 'x'
	}
	require.Equal(t, "phc_a", got.token)
	require.Equal(t, "r-1", got.requestID)
	require.Equal(t, "me", got.event.DistinctID)
	_, ok := throttle.pass("phc_a", invalidEvent, received, time.Minute)
	require.False(t, ok)
}
