package posthog

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// badValues are values that no field expects, or that are no JSON and are mended.
var badValues = map[string]string{
	"null": "null", "true": "true", "a number": "5", "a negative number": "-1.5e300", "a huge number": "1e999",
	"a long number": strings.Repeat("7", 10_000), "an empty text": `""`, "blanks": `"  "`, "a word": `"x"`,
	"a long text": `"` + strings.Repeat("y", 10_000) + `"`, "escapes": `"` + strings.Repeat(`\u0041`, 2_000) + `"`,
	"NUL": `"\u0000"`, "a bare NUL": "\"\x00\"", "half a pair": `"\ud83d"`, "bytes": "\"\xe9\xff\"",
	"a tab":         "\"a\tb\"",
	"an empty list": "[]", "a list": "[1,{}]", "an empty object": "{}", "an object": `{"a":{"$set":[]}}`,
	"deep nesting": strings.Repeat(`{"a":[`, 1000) + strings.Repeat("]}", 1000),
	"nesting":      strings.Repeat("[", 100) + strings.Repeat("]", 100), "nan": "nan", "Windows": "-1.#IND",
	"infinity": "+Inf",
	"no date":  `"2026-02-30T00:00:00Z"`, "a date far ahead": `"9999-12-31T23:59:59Z"`, "a Thai date": `"๒๕๖๙-๑๑-๒๔"`,
}

// A bad value in any field of an event leaves the events around it as they would be without the bad one.
func TestABadValueInAnyFieldLeavesTheNeighboursAlone(t *testing.T) {
	const before = `{"event":"before","distinct_id":"u1","timestamp":"2026-11-24T10:00:00Z","properties":{"x":1}}`
	const after = `{"event":"after","distinct_id":"u2","timestamp":"2026-11-24T10:00:01Z","properties":{"x":2}}`
	sound := map[string]string{
		"event": `"bad"`, "distinct_id": `"u3"`, "uuid": `"0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c01"`,
		"timestamp": `"2026-11-24T10:00:00Z"`, "properties": `{"x":3}`,
	}
	for _, field := range []string{"event", "uuid", "timestamp", "offset", "token", "$token", "api_key", "distinct_id",
		"$distinct_id", "$set", "$set_once", "properties", "sent_at", "sentAt", "batch", "historical_migration", "type",
		"properties.token", "properties.distinct_id", "properties.$cookieless_mode", "properties.$ignore_sent_at",
		"properties.capture_internal", "properties.$set", "properties.$set_once", "properties.$groups",
		"properties.$heatmap_data", "properties.$current_url", "properties.$prev_pageview_pathname",
		"properties.$ai_gateway_x", "properties.x", "",
	} {
		for name, value := range badValues {
			bad := eventWith(sound, field, value)
			for _, envelope := range []string{
				`{"api_key":"k","batch":[` + before + `,` + bad + `,` + after + `]}`,
				`{"batch":[` + bad + `,` + before + `,` + after + `],"api_key":"k"}`,
			} {
				s := newService(t, DefaultConfig())
				response := s.post("/batch/", envelope)
				require.Equal(t, 200, response.Status, "%s: %s: %s", field, name, response.Body)
				kept := keptOf(s, "before", "after")
				require.Len(t, kept, 2, "%s: %s", field, name)
				require.Equal(t, `{"x":1}`, string(kept[0].Raw.Properties))
				require.Equal(t, `{"x":2}`, string(kept[1].Raw.Properties))
				require.Equal(t, "2026-11-24T10:00:00Z", kept[0].Timestamp.Format("2006-01-02T15:04:05Z"))
				require.Equal(t, "2026-11-24T10:00:01Z", kept[1].Timestamp.Format("2006-01-02T15:04:05Z"))
				require.Equal(t, "u1", kept[0].DistinctID)
				require.Equal(t, "u2", kept[1].DistinctID)
				require.EqualValues(t, 3, s.ledger.Snapshot().Received)
			}
		}
	}
}

// Recordings that stand beside a bad one are kept with their own times, also behind one of which the service would have
// taken the clock.
func TestABadValueInARecordingLeavesTheNeighboursAlone(t *testing.T) {
	const before = `{"event":"$snapshot","sent_at":"2026-11-24T11:59:00Z","timestamp":"2026-11-24T11:58:00Z",` +
		`"properties":{"distinct_id":"u1","$session_id":"s-1","$snapshot_data":[{"type":1}]}}`
	after := strings.NewReplacer("u1", "u2", "s-1", "s-2").Replace(before)
	sound := map[string]string{
		"event": `"$snapshot"`, "timestamp": `"2026-11-24T11:58:00Z"`, "sent_at": `"2026-11-24T11:59:00Z"`,
		"properties": `{"distinct_id":"u3","$session_id":"s-3","$window_id":"w-3","$snapshot_data":[{"type":3}]}`,
	}
	for _, field := range []string{"event", "uuid", "timestamp", "offset", "token", "distinct_id", "$set", "$set_once",
		"properties", "sent_at", "properties.token", "properties.distinct_id", "properties.$cookieless_mode",
		"properties.capture_internal", "properties.$session_id", "properties.$window_id", "properties.$snapshot_source",
		"properties.$snapshot_data", "properties.$lib", "properties.$snapshot_host", "properties.$ignore_sent_at", "",
	} {
		for name, value := range badValues {
			bad := eventWith(sound, field, value)
			for _, envelope := range []string{
				`{"api_key":"k","batch":[` + before + `,` + bad + `,` + after + `]}`,
				`{"batch":[` + bad + `,` + before + `,` + after + `],"api_key":"k"}`,
			} {
				s := newService(t, DefaultConfig())
				response := s.record("/s/", "", envelope)
				require.Equal(t, 200, response.Status, "%s: %s: %s", field, name, response.Body)
				found := 0
				for _, event := range s.sink.events {
					if event.DistinctID != "u1" && event.DistinctID != "u2" {
						continue
					}
					found++
					require.Equal(t, `{"type":1}`, string(event.Recording.Items[0].JSON))
					require.Equal(t, "2026-11-24T11:59:00Z", event.Timestamp.Format("2006-01-02T15:04:05Z"),
						"%s: %s: the clock is corrected as without the bad event", field, name)
				}
				require.Equal(t, 2, found, "%s: %s", field, name)
			}
		}
	}
}

// eventWith returns an event in which a field, or with a dot a property, has a value that need not be JSON. Without a
// field the value stands in the place of the event.
func eventWith(sound map[string]string, field, value string) string {
	if field == "" {
		return value
	}
	fields := map[string]string{}
	for key, text := range sound {
		fields[key] = text
	}
	name, property, nested := strings.Cut(field, ".")
	if nested {
		value = strings.TrimSuffix(sound["properties"], "}") + `,"` + property + `":` + value + `}`
	}
	fields[name] = value
	var members []string
	for key, text := range fields {
		quoted, _ := json.Marshal(key)
		members = append(members, string(quoted)+":"+text)
	}
	return "{" + strings.Join(members, ",") + "}"
}

// keptOf returns the events of the given names that were kept, in the order of the names.
func keptOf(s *service, names ...string) (kept []events.Event) {
	for _, name := range names {
		for _, event := range s.sink.events {
			if event.Name == name {
				kept = append(kept, event)
			}
		}
	}
	return kept
}
