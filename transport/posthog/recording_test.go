package posthog

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

func (s *service) record(path, userAgent, body string) route.Response {
	path, query, _ := strings.Cut(path, "?")
	return s.Record(context.Background(), &route.Request{
		Path: path, RawQuery: query, Body: []byte(body), Header: route.Headers{"User-Agent": userAgent},
		ClientIP: "192.0.2.1", Received: received,
	})
}

// recorded returns a recorded event with these properties beside a token and a user.
func recorded(properties string) string {
	return `{"event":"$snapshot","properties":{"token":"k","distinct_id":"u",` + properties + `}}`
}

const inSession = `"$session_id":"s-1"`

// Section 6 of the protocol: what a request must have, and the answers.
func TestSection6RecordingsAreAnsweredAsTheProtocolSays(t *testing.T) {
	good := recorded(inSession + `,"$snapshot_data":[{"type":1}]`)
	for _, test := range []struct {
		name, body string
		status     int
		answer     string
		kept       int
	}{
		{"a single event", good, 200, okBody, 1},
		{"an array of one session", `[` + good + `,` + good + `]`, 200, okBody, 1},
		{"an envelope", `{"api_key":"k","batch":[` + good + `]}`, 200, okBody, 1},
		{"one snapshot as an object", recorded(inSession + `,"$snapshot_data":{"type":1}`), 200, okBody, 1},
		{"any name", strings.Replace(good, `"$snapshot"`, `"other"`, 1), 200, okBody, 1},
		{"no name", strings.Replace(good, `"event":"$snapshot",`, ``, 1), 200, okBody, 1},
		{"nothing", `[]`, 400, "request holds no event", 0},
		{"no token", `{"event":"$snapshot","properties":{"distinct_id":"u",` + inSession + `,"$snapshot_data":[]}}`,
			401, "event submitted without an api_key", 0},
		{"no snapshots", recorded(inSession), 400, "replay event submitted without snapshot data", 0},
		{"snapshots of another type", recorded(inSession + `,"$snapshot_data":"gzip"`), 400,
			"replay event submitted without snapshot data", 0},
		{"snapshots null", recorded(inSession + `,"$snapshot_data":null`), 400,
			"replay event submitted without snapshot data", 0},
		{"no session", recorded(`"$snapshot_data":[]`), 400, "replay event submitted without session id", 0},
		{"session null", recorded(`"$session_id":null,"$snapshot_data":[]`), 400,
			"replay event submitted without session id", 0},
		{"session of another type", recorded(`"$session_id":5,"$snapshot_data":[]`), 400,
			"replay event has invalid session id", 0},
		{"session empty", recorded(`"$session_id":"","$snapshot_data":[]`), 400, "replay event has invalid session id",
			0},
		{"session of 70 bytes", recorded(`"$session_id":"` + strings.Repeat("a", 70) + `","$snapshot_data":[]`), 200,
			okBody, 1},
		{"session of 71 bytes", recorded(`"$session_id":"` + strings.Repeat("a", 71) + `","$snapshot_data":[]`), 400,
			"replay event has invalid session id", 0},
		{"session of other letters", recorded(`"$session_id":"a_b","$snapshot_data":[]`), 400,
			"replay event has invalid session id", 0},
		{"session very long", recorded(`"$session_id":"` + strings.Repeat("a", 100_000) + `","$snapshot_data":[]`), 400,
			"replay event has invalid session id", 0},
		{"no user", `{"event":"$snapshot","properties":{"token":"k",` + inSession + `,"$snapshot_data":[]}}`, 400,
			"event submitted without a distinct_id", 0},
		{"a blank user", `{"event":"$snapshot","distinct_id":" ","properties":{"token":"k",` + inSession +
			`,"$snapshot_data":[]}}`, 200, okBody, 1},
		{"cookieless of another type", recorded(inSession + `,"$cookieless_mode":1,"$snapshot_data":[]`), 400,
			"event submitted with invalid cookieless mode", 0},
		{"uuid that is none", `{"uuid":"1","properties":{"token":"k","distinct_id":"u",` + inSession +
			`,"$snapshot_data":[]}}`, 400, "failed to parse request: uuid must be a UUID", 0},
		{"bad ones beside a good one", `[5,` + recorded(inSession) + `,` + good + `,` +
			recorded(`"$session_id":"!","$snapshot_data":[]`) + `]`, 200, okBody, 1},
		{"not JSON", `[`, 400, "failed to parse request: unexpected end of JSON at byte 1", 0},
		{"snapshots that do not end", `{"properties":{"$snapshot_data":[{"a":1},`, 400,
			"failed to parse request: unexpected end of JSON at byte 41", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			response := s.record("/s/", "", test.body)
			require.Equal(t, test.answer, response.Body)
			require.Equal(t, test.status, response.Status)
			require.Len(t, s.sink.events, test.kept)
			for _, event := range s.sink.events {
				require.Equal(t, events.LaneRecordings, event.Lane)
				require.Equal(t, "$snapshot_items", event.Name)
			}
		})
	}
}

// Section 6 of the protocol: the fields that are read off the events, and the defaults of absent fields.
func TestSection6WhatARecordingSaysAndItsDefaults(t *testing.T) {
	for _, test := range []struct {
		name, agent, properties   string
		window, host, source, lib string
	}{
		{"nothing said", "", ``, `"s-1"`, ``, "web", "unknown"},
		{"by a browser", "Mozilla/5.0 (X11)", ``, `"s-1"`, ``, "web", "web"},
		{"by a library", "posthog-ios/3.1", ``, `"s-1"`, ``, "web", "posthog-ios"},
		{"by a library in no language", "posthog-\xff/1", ``, `"s-1"`, ``, "web", "posthog-\ufffd"},
		{"all said", "posthog-ios/3.1",
			`"$window_id":"w","$snapshot_source":"mobile","$lib":"posthog-rn","$snapshot_host":"a.example",`, `"w"`,
			`"a.example"`, "mobile", "posthog-rn"},
		{"other types", "Mozilla/5.0", `"$window_id":7,"$snapshot_source":["mobile"],"$lib":5,"$snapshot_host":{},`,
			`7`, ``, "web", "web"},
		{"another source", "", `"$snapshot_source":"desktop",`, `"s-1"`, ``, "web", "unknown"},
		{"nulls", "", `"$window_id":null,"$snapshot_source":null,"$lib":null,"$snapshot_host":null,`, `"s-1"`, ``,
			"web", "unknown"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			require.Equal(t, 200,
				s.record("/s", test.agent, recorded(test.properties+inSession+`,"$snapshot_data":[]`)).Status)
			got := s.sink.events[0].Recording
			require.Equal(t, test.window, string(got.WindowID))
			require.Equal(t, test.host, string(got.Host))
			require.Equal(t, test.source, got.Source)
			require.Equal(t, test.lib, got.Lib)
			require.Equal(t, "s-1", s.sink.events[0].SessionID)
		})
	}
}

func TestARecordingHasAllSnapshotsOfItsSessionInOrder(t *testing.T) {
	s := newService(t, DefaultConfig())
	body := `[` + strings.Join([]string{
		recorded(inSession +
			`,"$window_id":"w","$snapshot_data":[{"type":4,"timestamp":1700000000001,"data":"\u001f\u008b\u0000"}, 5,` +
			`"text"]`),
		recorded(`"$snapshot_data":"bad"`),
		recorded(`"$snapshot_data":{"timestamp":"soon","timestamp":2}`),
		recorded(inSession + `,"$window_id":"w2","$snapshot_data":[{"n":1}]`),
		recorded(`"$session_id":"s-2","$snapshot_data":[{"n":2}]`),
		recorded(`"$snapshot_data":[{"n":3}]`),
	}, ",") + `]`
	require.Equal(t, 200, s.record("/s/", "", body).Status)
	type summary struct{ session, window, items, times string }
	var got []summary
	for _, event := range s.sink.events {
		sum := summary{session: event.SessionID, window: string(event.Recording.WindowID)}
		for _, item := range event.Recording.Items {
			sum.items += string(item.JSON) + "|"
			sum.times += string(item.Timestamp) + "|"
		}
		got = append(got, sum)
	}
	require.Equal(t, []summary{
		{"s-1", `"w"`,
			`{"type":4,"timestamp":1700000000001,"data":"\u001f\u008b\u0000"}|5|"text"|{"timestamp":"soon",` +
				`"timestamp":2}|`, "1700000000001|||2|"},
		{"s-1", `"w2"`, `{"n":1}|`, "|"},
		{"s-2", `"s-2"`, `{"n":2}|{"n":3}|`, "||"},
	}, got, "a session that ends within a request does not take over the next one's snapshots")
	require.EqualValues(t, 1, s.ledger.Snapshot().Rejected[events.ReasonNoSnapshot])
}

// Section 2.11 of the protocol: the first event of a recording has the time of sending.
func TestSection211RecordingsAreDatedByTheirFirstEvent(t *testing.T) {
	event := func(more string) string {
		return `{"timestamp":"2026-11-24T11:00:00Z",` + more + `"properties":{"token":"k","distinct_id":"u",` +
			inSession + `,"$snapshot_data":[]}}`
	}
	for _, test := range []struct{ path, body, want, sentAt string }{
		{"/s/", event(``), "11:00:00", ""},
		{"/s/", event(`"sent_at":"2026-11-24T11:59:00Z",`), "11:01:00", "11:59:00"},
		{"/s/?_=1795521480000", event(``), "11:02:00", "11:58:00"},
		{"/s/?_=1795521480000", event(`"sent_at":"2026-11-24T11:59:00Z",`), "11:01:00", "11:59:00"},
		{"/s/?_=1795521480000&retry_count=1", event(``), "11:00:00", "11:58:00"},
		{"/s/", `[` + event(``) + `,` + event(`"sent_at":"2026-11-24T11:59:00Z",`) + `]`, "11:00:00", ""},
		{"/s/", `{"api_key":"k","sent_at":"2026-11-24T11:59:00Z","batch":[` + event(``) + `]}`, "11:01:00", "11:59:00"},
	} {
		s := newService(t, DefaultConfig())
		require.Equal(t, 200, s.record(test.path, "", test.body).Status)
		require.Equal(t, test.want, s.sink.events[0].Timestamp.Format(time.TimeOnly), test.body)
		sentAt := ""
		if !s.sink.batch.SentAt.IsZero() {
			sentAt = s.sink.batch.SentAt.Format(time.TimeOnly)
		}
		require.Equal(t, test.sentAt, sentAt, test.body)
	}
}

func TestASentAtOfARecordedEventThatCannotBeReadIsNotedAndTheQuerysCounts(t *testing.T) {
	s := newService(t, DefaultConfig())
	body := strings.Replace(recorded(inSession+`,"$snapshot_data":[]`), "{",
		`{"timestamp":"2026-11-24T11:00:00Z","sent_at":"soon",`, 1)
	require.Equal(t, 200, s.record("/s/?_=1795521480000", "", body).Status)
	require.Equal(t, events.NoteSentAtUnread, s.sink.events[0].Notes)
	require.Equal(t, "11:02:00", s.sink.events[0].Timestamp.Format(time.TimeOnly))
}

func TestARecordingOverTheQuotaSaysSo(t *testing.T) {
	s := newService(t, DefaultConfig())
	s.sink.judge = func(event *events.Event) { event.Drop(events.ReasonQuota) }
	require.Equal(t, `{"status":"Ok","quota_limited":["recordings"]}`,
		s.record("/s/", "", recorded(inSession+`,"$snapshot_data":[]`)).Body)
}

func TestVeryManySnapshotsAreLimitedInNumberAndMemory(t *testing.T) {
	many := func(n int) string {
		return recorded(inSession + `,"$snapshot_data":[0` + strings.Repeat(",0", n-1) + `]`)
	}
	config := DefaultConfig()
	config.MaxEvents = 20_000
	s := newService(t, config)
	require.Equal(t, 413, s.record("/s/", "", many(20_000)).Status, "1 MiB is never enough for so many")
	require.Zero(t, s.budget.InUse())
	s.budget = memory.NewBudget(100 << 20)
	s.Handler = newHandler(config, decode.New(route.Fixed(1<<20), s.budget), s.budget, s.processor, s.scope)
	response := s.record("/s/", "", many(20_001))
	require.Equal(t, 413, response.Status, response.Body)
	require.Equal(t, 200, s.record("/s/", "", many(20_000)).Status)
	require.Len(t, s.sink.events[0].Recording.Items, 20_000)
}

func TestOfBatchesUnderOneKeyTheLastAloneTakesMemory(t *testing.T) {
	d := newDocument()
	d.recordings = true
	batch := `,"batch":[` + recorded(inSession+`,"$snapshot_data":[]`) + `,{}]`
	require.Nil(t, d.scan([]byte(`{"api_key":"k"`+strings.Repeat(batch, 5)+`}`)))
	require.Len(t, d.objects, 2)
	require.Len(t, d.replays, 3, "the envelope's own and two")

	s := newService(t, DefaultConfig())
	require.Equal(t, 200, s.record("/s/", "", `{"api_key":"k"`+strings.Repeat(batch, 3)+`}`).Status)
	require.Len(t, s.sink.events, 1)
	require.Equal(t, 200,
		s.record("/s/", "", strings.TrimSuffix(recorded(inSession+`,"$snapshot_data":[1]`), "}")+batch+
			`,"batch":5}`).Status)
	require.Equal(t, "1", string(s.sink.events[1].Recording.Items[0].JSON),
		"a batch that is none leaves the object itself")
}

func TestARecordingAfterEventsInTheSameMemory(t *testing.T) {
	s := newService(t, DefaultConfig())
	for range 3 {
		require.Equal(t, 200, s.record("/s/", "", recorded(inSession+`,"$snapshot_data":[{"a":1}]`)).Status)
		require.Equal(t, 200,
			s.post("/e/",
				`{"event":"a","distinct_id":"u","token":"k",`+
					`"properties":{"$snapshot_data":1,"$session_id":"s"}}`).Status)
	}
	require.Len(t, s.sink.events, 6)
	for i, event := range s.sink.events {
		require.Equal(t, i%2 == 0, event.Recording != nil)
		require.Equal(t, i%2 == 0, event.Lane == events.LaneRecordings)
	}
}

// FuzzRecord feeds whole requests to /s. Nothing may panic, leak the budget or lose count, and every snapshot that the
// client sent is kept as it stands.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(recorded(inSession + `,"$snapshot_data":[{"type":1,"timestamp":5}]`)))
	f.Add([]byte(`[` + recorded(inSession+`,"$snapshot_data":{"a":NaN}`) + `,` +
		recorded(`"$snapshot_data":[[],{}],"$snapshot_data":[1]`) + `]`))
	f.Add([]byte(`{"api_key":"k","batch":[` + recorded(`"$session_id":"\u0061","$window_id":{},"$snapshot_data":[]`) +
		`]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s := newService(t, DefaultConfig())
		response := s.Record(context.Background(),
			&route.Request{Path: "/s/", Body: body, ClientIP: "192.0.2.1", Received: received})
		if !slices.Contains([]int{200, 400, 401, 413}, response.Status) {
			t.Fatalf("status %d: %s", response.Status, response.Body)
		}
		var got []string
		for _, event := range s.sink.events {
			if !isSession(event.SessionID) || event.DistinctID == "" || !json.Valid(event.Recording.WindowID) {
				t.Fatalf("an unsound recording was kept: %+v", event)
			}
			for _, item := range event.Recording.Items {
				if !json.Valid(item.JSON) || item.Timestamp != nil && !json.Valid(item.Timestamp) {
					t.Fatalf("a snapshot is not JSON: %s", item.JSON)
				}
				got = append(got, string(item.JSON))
			}
		}
		// encoding/json finds the same snapshots in an array of plain events.
		var plain []struct {
			Properties struct {
				Session string            `json:"$session_id"`
				Items   []json.RawMessage `json:"$snapshot_data"`
			} `json:"properties"`
		}
		if response.Status != 200 || len(s.sink.events) != 1 || s.ledger.Snapshot().Received != 1 ||
			json.Unmarshal(body, &plain) != nil || hasDuplicateKeys(body) {
			return
		}
		var want []string
		for _, event := range plain {
			for _, item := range event.Properties.Items {
				want = append(want, string(item))
			}
		}
		require.Equal(t, want, got)
	})
}

// hasDuplicateKeys reports whether the body may have a key twice. encoding/json treats such keys in its own way, and
// matches them without regard to case.
func hasDuplicateKeys(body []byte) bool {
	text := strings.ToLower(string(body))
	return strings.Contains(text, `\`) ||
		strings.Count(text, `"properties"`) != strings.Count(text, `"$snapshot_data"`) ||
		strings.Count(text, `"properties"`) != strings.Count(text, `{"event"`) || text != string(body)
}

// BenchmarkRecord measures a request of a real recording's size: 200 snapshots of 1 KB.
func BenchmarkRecord(b *testing.B) {
	item := fmt.Sprintf(`{"type":3,"timestamp":1700000000000,"data":{"source":1,"positions":%q}}`,
		strings.Repeat("x", 960))
	body := []byte(recorded(inSession + `,"$snapshot_data":[` + strings.Repeat(item+",", 199) + item + `]`))
	d := newDocument()
	d.recordings = true
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if d.scan(body) != nil || len(d.snapshots) != 200 {
			b.Fatal(d.Err)
		}
	}
}
