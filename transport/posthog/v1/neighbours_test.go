package v1

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/transport/posthog"
)

// A bad value in any field of an event leaves the events around it alone. Only a uuid that is none is a fault of the
// whole request, because the answer names the events by their uuids.
func TestABadValueInAnyFieldLeavesTheNeighboursAlone(t *testing.T) {
	values := map[string]string{
		"null": "null", "true": "true", "a number": "5", "a huge number": "1e999",
		"a long number": strings.Repeat("7", 10_000),
		"an empty text": `""`, "a word": `"x"`, "a long text": `"` + strings.Repeat("y", 10_000) + `"`,
		"NUL": `"\u0000"`, "a bare NUL": "\"\x00\"", "half a pair": `"\ud83d"`, "bytes": "\"\xe9\xff\"",
		"a tab":         "\"a\tb\"",
		"an empty list": "[]", "a list": "[1,{}]", "an empty object": "{}", "an object": `{"a":{"$set":[]}}`,
		"deep nesting": strings.Repeat(`{"a":[`, 1000) + strings.Repeat("]}", 1000),
		"nesting":      strings.Repeat("[", 100) + strings.Repeat("]", 100), "nan": "-nan(ind)", "Windows": "1.#QNAN0",
		"no date": `"2026-02-30T00:00:00Z"`, "a date far ahead": `"9999-12-31T23:59:59Z"`,
	}
	for _, field := range []string{"event", "timestamp", "distinct_id", "session_id", "window_id", "options",
		"properties", "sent_at", "other", "options.cookieless_mode", "options.disable_skew_correction",
		"options.product_tour_id", "options.process_person_profile", "options.x", "properties.$cookieless_mode",
		"properties.$ignore_sent_at", "properties.$session_id", "properties.$set", "properties.$set_once",
		"properties.$groups", "properties.$lib", "properties.$ai_gateway_x", "properties.x",
	} {
		for name, value := range values {
			outer, inner, nested := strings.Cut(field, ".")
			if nested {
				value = `{"` + inner + `":` + value + `}`
			}
			bad := `{"event":"bad","uuid":"` + id(2) + `","distinct_id":"u","timestamp":"2026-11-24T11:58:00Z","` +
				outer +
				`":` + value + `}`
			s := newService(t, posthog.DefaultConfig())
			response := s.post(batchOf(eventOf(1, ""), bad, eventOf(3, "")))
			require.Equal(t, 200, response.Status, "%s: %s: %s", field, name, response.Body)
			for _, n := range []int{1, 3} {
				require.Contains(t, response.Body, `"`+id(n)+`":{"result":"ok"}`, "%s: %s", field, name)
			}
			kept := 0
			for _, event := range s.sink.events {
				if event.Name == "a" {
					kept++
					require.Equal(t, `{"x":1,"$lib":"posthog-node","$lib_version":"5.70.0"}`,
						string(event.Raw.Properties))
					require.Equal(t, "2026-11-24T11:59:00Z", event.Timestamp.Format("2006-01-02T15:04:05Z"))
				}
			}
			require.Equal(t, 2, kept, "%s: %s", field, name)
		}
	}
}

// PHP has one type for lists and maps.
func TestEmptyArraysAreEmptyObjectsWhereObjectsAreDue(t *testing.T) {
	for fields, want := range map[string]string{
		`"properties":[]`:               `{"$lib":"posthog-node","$lib_version":"5.70.0"}`,
		`"properties":[ ],"options":[]`: `{"$lib":"posthog-node","$lib_version":"5.70.0"}`,
		`"properties":null`:             `{"$lib":"posthog-node","$lib_version":"5.70.0"}`,
		`"properties":{"$set":[],"$set_once":[ ],"$unset":[],"x":[]}`: `{"$set":{},"$set_once":{ },` +
			`"$unset":[],"x":[],"$lib":"posthog-node","$lib_version":"5.70.0"}`,
	} {
		s := newService(t, posthog.DefaultConfig())
		event := strings.Replace(eventOf(1, `"properties":"absent"`), "{", "{"+fields+",", 1)
		require.Equal(t, 200, s.post(batchOf(event)).Status)
		require.Len(t, s.sink.events, 1, fields)
		require.Equal(t, want, string(s.sink.events[0].Raw.Properties))
	}
}
