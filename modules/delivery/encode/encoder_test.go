package encode

import (
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

// properties are the properties that posthog-js sends with a page view.
const properties = `{"$os":"Linux","$os_version":"","$browser":"Chrome","$device_type":"Desktop",` +
	`"$current_url":"http://127.0.0.1:8080/index.html?utm_source=x",` +
	`"$host":"127.0.0.1:8080","$pathname":"/index.html",` +
	`"$raw_user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML,` +
	` like Gecko) Chrome/131.0.0.0 Safari/537.36",` +
	`"$browser_version":131,"$browser_language":"en-US","$screen_height":1080,"$screen_width":1920,` +
	`"$viewport_height":969,"$viewport_width":1920,"$lib":"web",` +
	`"$lib_version":"1.200.2","$insert_id":"k3p1m7x2q9w8e5r4","$time":1732412345.678,` +
	`"distinct_id":"0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",` +
	`"$device_id":"0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b","$active_feature_flags":[],"$referrer":"$direct",` +
	`"$referring_domain":"$direct",` +
	`"token":"phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD","$session_id":"0193a1b2-c3d4-7e5f-8a9b-1c2d3e4f5a6b",` +
	`"$window_id":"0193a1b2-c3d4-7e5f-8a9b-2c3d4e5f6a7b","$is_identified":false,"$process_person_profile":true,` +
	`"plan":"pro"}`

func batchOf(n int) *events.Batch {
	batch := &events.Batch{
		Token:    "phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD",
		Received: time.Date(2026, 11, 24, 1, 2, 3, 450_000_000, time.UTC),
		SentAt:   time.Date(2026, 11, 24, 1, 2, 3, 0, time.UTC),
		ClientIP: "203.0.113.7",
		Events:   make([]events.Event, n),
	}
	for i := range batch.Events {
		batch.Events[i] = events.Event{
			UUID:       uuid.MustParse(fmt.Sprintf("0193a1b2-c3d4-7e5f-8a9b-%012d", i)),
			ClientUUID: true,
			Name:       "$pageview",
			DistinctID: "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
			Timestamp:  time.Date(2026, 11, 24, 1, 2, 2, 123_000_000, time.UTC),
			Raw: events.Raw{
				Timestamp:  []byte(`"2026-11-24T01:02:02.123Z"`),
				Properties: []byte(properties),
			},
		}
	}
	return batch
}

// standard returns the topics and the limit that the service has by default.
func standard() produce.Settings {
	return produce.Settings{Topics: produce.DefaultTopics(), MaxMessageBytes: 1_000_000}
}

func testEncoder() *Encoder { return NewEncoder(standard()) }

// The order is that of section 4.4 of the protocol.
func TestAMessageHasTheFieldsInPostHogsOrder(t *testing.T) {
	batch := batchOf(1)
	event := &batch.Events[0]
	event.Raw.Token = []byte(`"phc_own"`)
	event.Raw.DistinctID = []byte(`{"a":"b"}`)
	event.Raw.Offset = []byte(`12`)
	event.Raw.Properties = []byte(`{ "a" : "x\ny\"z", "n":1.50 }`)
	event.Raw.Set = []byte(`{"email":"a@example.com"}`)
	event.Raw.SetOnce = []byte(`{}`)
	event.DistinctID = `{"a":"b"}`
	event.Name = `say "hi"`
	event.Cookieless = true
	batch.Historical = true

	messages := testEncoder().Encode(batch).Messages
	require.Len(t, messages, 1)
	m := &messages[0]

	require.Equal(t, `{"uuid":"0193a1b2-c3d4-7e5f-8a9b-000000000000","distinct_id":"{\"a\":\"b\"}","ip":"203.0.113.7",`+
		`"data":"{\"token\":\"phc_own\",\"distinct_id\":{\"a\":\"b\"},`+
		`\"uuid\":\"0193a1b2-c3d4-7e5f-8a9b-000000000000\",\"event\":\"say \\\"hi\\\"\",`+
		`\"properties\":{ \"a\" : \"x\\ny\\\"z\", \"n\":1.50 },\"timestamp\":\"2026-11-24T01:02:02.123Z\",`+
		`\"offset\":12,\"$set\":{\"email\":\"a@example.com\"},\"$set_once\":{}}",`+
		`"now":"2026-11-24T01:02:03.45Z","sent_at":"2026-11-24T01:02:03Z",`+
		`"token":"phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD","event":"say \"hi\"",`+
		`"timestamp":"2026-11-24T01:02:02.123Z","is_cookieless_mode":true,"historical_migration":true}`,
		string(m.Value))
	require.Equal(t, "phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD:203.0.113.7", string(m.Key))
	require.Equal(t, []string{
		"token=phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD", `distinct_id={"a":"b"}`, "timestamp=1795482122123",
		`event=say "hi"`,
		"uuid=0193a1b2-c3d4-7e5f-8a9b-000000000000", "now=2026-11-24T01:02:03.45Z", "historical_migration=true",
	}, headersOf(m))
}

// The fields are those of section 4.4 of the protocol.
func TestFieldsWithoutAValueAreLeftOut(t *testing.T) {
	batch := batchOf(1)
	batch.SentAt = time.Time{}
	event := &batch.Events[0]
	event.ClientUUID = false
	event.ClientIP = "2001:db8::1"
	event.Raw = events.Raw{Properties: []byte(`{}`)}
	m := &testEncoder().Encode(batch).Messages[0]
	require.Equal(t, `{"uuid":"0193a1b2-c3d4-7e5f-8a9b-000000000000",`+
		`"distinct_id":"0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b","ip":"2001:db8::1",`+
		`"data":"{\"uuid\":null,\"event\":\"$pageview\",\"properties\":{}}","now":"2026-11-24T01:02:03.45Z",`+
		`"token":"phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD","event":"$pageview",`+
		`"timestamp":"2026-11-24T01:02:02.123Z"}`, string(m.Value))
	require.Equal(t, "phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD:0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", string(m.Key))
	require.Len(t, m.Headers, 6)
}

func TestPropertiesComeOutByteEqual(t *testing.T) {
	batch := batchOf(3)
	batch.Events[1].Raw.Properties = []byte("{\n\t\"spaced\" :  [1e5, 0.10, \"\\u00e9\\\\\" ] }")
	messages := testEncoder().Encode(batch).Messages
	for i := range messages {
		var value struct{ Data string }
		require.NoError(t, json.Unmarshal(messages[i].Value, &value))
		var data struct{ Properties json.RawMessage }
		require.NoError(t, json.Unmarshal([]byte(value.Data), &data))
		require.Equal(t, string(batch.Events[i].Raw.Properties), string(data.Properties))
	}
}

// one returns the messages of a batch of one event. change may change the event before it is encoded.
func one(t *testing.T, settings produce.Settings, change func(*events.Event)) []produce.Message {
	t.Helper()
	batch := batchOf(1)
	change(&batch.Events[0])
	messages := NewEncoder(settings).Encode(batch).Messages
	require.NotEmpty(t, messages)
	return messages
}

// recordingOf makes an event a recording of these snapshots.
func recordingOf(event *events.Event, snapshots ...string) {
	event.Lane, event.Name, event.SessionID, event.Raw = events.LaneRecordings, "$snapshot_items", "0193a1b2-session",
		events.Raw{}
	event.Recording = &events.Recording{WindowID: []byte(`"0193a1b2-window"`), Source: "web", Lib: "web"}
	for _, snapshot := range snapshots {
		event.Recording.Items = append(event.Recording.Items, events.Snapshot{JSON: []byte(snapshot)})
	}
}

// laneOf puts an event into a lane, and gives it the content that events of the lane have.
func laneOf(event *events.Event, lane events.Lane) {
	event.Lane = lane
	if lane == events.LaneRecordings {
		recordingOf(event, `{"type":4}`)
	}
}

var (
	laneTopics = map[events.Lane]string{
		events.LaneMain:           "clickhouse_events",
		events.LaneHistorical:     "historical_events",
		events.LaneExceptions:     "exceptions",
		events.LaneHeatmaps:       "heatmaps",
		events.LaneClientWarnings: "client_warnings",
		events.LaneAI:             "ai_events",
		events.LaneRecordings:     "clickhouse_session_recording_events",
		events.LaneLogs:           "logs",
	}
	overflowTopics = map[events.Lane]string{
		events.LaneMain:       "events_overflow",
		events.LaneRecordings: "session_recording_overflow",
	}
)

func TestSection42TopicsAndPrecedence(t *testing.T) {
	valve := standard()
	valve.Topics.AIOverflow = "ai_overflow"
	require.Len(t, laneTopics, len(events.Lanes()))
	for _, lane := range events.Lanes() {
		topic := func(settings produce.Settings, routing events.Routing) string {
			return one(t, settings, func(event *events.Event) {
				laneOf(event, lane)
				event.Routing = routing
			})[0].Topic
		}
		overflow := laneTopics[lane] // a lane without an overflow of its own stays in its topic
		if own, has := overflowTopics[lane]; has {
			overflow = own
		}
		for want, routing := range map[string][]events.Routing{
			laneTopics[lane]: {{}, {SkipPerson: true}, {Unkeyed: true}},
			overflow:         {{Overflow: true}, {Overflow: true, Unkeyed: true}},
			"aside":          {{Topic: "aside"}, {Topic: "aside", Overflow: true}},
			"events_dlq":     {{DLQ: "event_restriction"}, {DLQ: "event_restriction", Topic: "aside", Overflow: true}},
		} {
			for _, r := range routing {
				require.Equal(t, want, topic(standard(), r), "lane %s, %+v", lane, r)
			}
		}
		if lane == events.LaneAI {
			require.Equal(t, "ai_overflow", topic(valve, events.Routing{Overflow: true}))
			require.Equal(t, "ai_events", topic(valve, events.Routing{}))
		}
	}
}

func TestSection43Keys(t *testing.T) {
	const own, address, none = "phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD:0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
		"phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD:203.0.113.7", "no key"
	valve := standard()
	valve.Topics.AIOverflow = "ai_overflow"
	for _, lane := range events.Lanes() {
		for _, valved := range []bool{false, true} {
			for _, routing := range []events.Routing{
				{}, {SkipPerson: true}, {Overflow: true}, {Overflow: true, Unkeyed: true},
				{Overflow: true, SkipPerson: true}, {Unkeyed: true},
				{Overflow: true, Unkeyed: true, SkipPerson: true, Topic: "aside"},
				{Overflow: true, Unkeyed: true, SkipPerson: true, DLQ: "event_restriction"},
			} {
				for _, cookieless := range []bool{false, true} {
					want, settings := own, standard()
					if cookieless {
						want = address
					}
					if valved {
						settings = valve
					}
					redirected := routing.Topic != "" || routing.DLQ != ""
					switch {
					case lane == events.LaneRecordings:
						want = "0193a1b2-session"
					case redirected:
					case lane == events.LaneMain && (routing.SkipPerson || routing.Overflow && routing.Unkeyed):
						want = none
					case lane == events.LaneAI && valved && routing.Overflow && routing.Unkeyed:
						want = none
					}
					message := &one(t, settings, func(event *events.Event) {
						laneOf(event, lane)
						event.Routing, event.Cookieless = routing, cookieless
					})[0]
					got := none
					if message.Key != nil {
						got = string(message.Key)
					}
					require.Equal(t, want, got, "lane %s, AI overflow %t, cookieless %t, %+v", lane, valved, cookieless,
						routing)
				}
			}
		}
	}
}

func TestSection45Headers(t *testing.T) {
	plain := headersOf(&one(t, standard(), func(*events.Event) {})[0])
	require.Equal(t, []string{
		"token=phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD", "distinct_id=0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
		"timestamp=1795482122123",
		"event=$pageview", "uuid=0193a1b2-c3d4-7e5f-8a9b-000000000000", "now=2026-11-24T01:02:03.45Z",
	}, plain, "headers without a value are left out")
	for name, test := range map[string]struct {
		change func(*events.Event)
		more   []string
	}{
		"session": {func(e *events.Event) { e.SessionID = "s-1" }, []string{"session_id=s-1"}},
		"person": {func(e *events.Event) { e.Routing.SkipPerson = true },
			[]string{"force_disable_person_processing=true"}},
		"heatmap": {func(e *events.Event) { e.Heatmap = []byte(`{}`) }, []string{"skip_heatmap_processing=true"}},
		"dlq": {
			func(e *events.Event) { e.Routing.DLQ = "event_restriction" },
			[]string{"dlq_reason=event_restriction", "dlq_step=capture", "dlq_timestamp=2026-11-24T01:02:03.450Z",
				"dlq_topic=clickhouse_events"},
		},
		"custom topic": {func(e *events.Event) { e.Routing.Topic = "aside" }, nil},
		"overflow":     {func(e *events.Event) { e.Routing.Overflow, e.Routing.Unkeyed = true, true }, nil},
		"everything": {
			func(e *events.Event) {
				e.SessionID, e.Heatmap, e.Routing = "s-1", []byte(`{}`),
					events.Routing{DLQ: "event_restriction", SkipPerson: true, Rule: "store/spam"}
			},
			[]string{
				"session_id=s-1", "force_disable_person_processing=true", "skip_heatmap_processing=true",
				"dlq_reason=event_restriction", "dlq_step=capture", "dlq_timestamp=2026-11-24T01:02:03.450Z",
				"dlq_topic=clickhouse_events", "dlq_rule=store/spam",
			},
		},
	} {
		messages := one(t, standard(), test.change)
		require.Equal(t, append(plain[:len(plain):len(plain)], test.more...), headersOf(&messages[0]), name)
		require.LessOrEqual(t, len(messages[0].Headers), maxHeaders)
	}
}

func TestSection44WhatIsSetAsideHasTheSameValue(t *testing.T) {
	want := one(t, standard(), func(*events.Event) {})[0].Value
	for _, routing := range []events.Routing{{DLQ: "event_restriction"}, {Topic: "aside"}, {Overflow: true}} {
		require.Equal(t, string(want),
			string(one(t, standard(), func(event *events.Event) { event.Routing = routing })[0].Value))
	}
}

func TestSection212HeatmapDataIsAnEventOfItsOwn(t *testing.T) {
	batch := batchOf(3)
	event := &batch.Events[1]
	event.SessionID, event.Cookieless = "s-1", true
	event.Heatmap = []byte(`{"$heatmap_data":{"/":[{"x":1}]}}`)
	event.Raw = events.Raw{
		Token: []byte(`"phc_own"`), DistinctID: []byte(`"me"`), Timestamp: []byte(`"2026-11-24T01:02:02.123Z"`),
		Offset:     []byte(`12`),
		Properties: []byte(`{"a":1}`), Set: []byte(`{"b":2}`), SetOnce: []byte(`{"c":3}`),
	}
	event.Routing = events.Routing{DLQ: "event_restriction"}
	set := testEncoder().Encode(batch)
	messages := set.Messages
	require.Len(t, messages, 4)
	require.Equal(t, []int{0, 1, 1, 2}, set.Events, "right behind its event")
	require.Equal(t, "events_dlq", messages[1].Topic)
	require.Contains(t, string(messages[1].Value), `\"properties\":{\"a\":1}`)

	companion := &messages[2]
	id := uuid.NewSHA1(event.UUID, []byte("$$heatmap")).String()
	require.Equal(t, "heatmaps", companion.Topic, "what sets its event aside does not concern it")
	require.Equal(t, "phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD:203.0.113.7", string(companion.Key))
	require.Equal(t, `{"uuid":"`+id+`","distinct_id":"0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b","ip":"203.0.113.7",`+
		`"data":"{\"token\":\"phc_own\",\"distinct_id\":\"me\",\"uuid\":null,\"event\":\"$$heatmap\",`+
		`\"properties\":{\"$heatmap_data\":{\"/\":[{\"x\":1}]}},\"timestamp\":\"2026-11-24T01:02:02.123Z\",`+
		`\"offset\":12}",`+
		`"now":"2026-11-24T01:02:03.45Z","sent_at":"2026-11-24T01:02:03Z",`+
		`"token":"phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD","event":"$$heatmap",`+
		`"timestamp":"2026-11-24T01:02:02.123Z","is_cookieless_mode":true}`, string(companion.Value))
	require.Equal(t, []string{
		"token=phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD", "distinct_id=0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
		"timestamp=1795482122123",
		"event=$$heatmap", "uuid=" + id, "now=2026-11-24T01:02:03.45Z", "session_id=s-1",
	}, headersOf(companion))
}

func TestHeatmapDataHasAKeyThoughItsEventHasNone(t *testing.T) {
	messages := one(t, standard(), func(event *events.Event) {
		event.Heatmap, event.Routing.SkipPerson = []byte(`{}`), true
	})
	require.Nil(t, messages[0].Key)
	require.Equal(t, "phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD:0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
		string(messages[1].Key))
	require.Contains(t, headersOf(&messages[1]), "force_disable_person_processing=true")
}

func TestHeatmapDataThatIsTooLargeIsLeftOutAndItsEventKept(t *testing.T) {
	settings := standard()
	settings.MaxMessageBytes = 4000
	for name, size := range map[string]int{"its own JSON is over the limit": 10_000,
		"only its message is over the limit": 3900} {
		t.Run(name, func(t *testing.T) {
			batch := batchOf(3)
			batch.Events[1].Heatmap = []byte(`{"x":"` + strings.Repeat("x", size) + `"}`)
			set := NewEncoder(settings).Encode(batch)
			require.Len(t, set.Messages, 3)
			require.Equal(t, 1, set.HeatmapsDropped)
			require.Equal(t, 3, batch.Pending())
			require.Contains(t, string(set.Messages[2].Value), batch.Events[2].UUID.String())
			require.Equal(t, headersOf(&NewEncoder(settings).Encode(batchOf(3)).Messages[2]),
				headersOf(&set.Messages[2]))
		})
	}
}

func TestHeatmapDataIsNotWrittenWithoutItsEvent(t *testing.T) {
	settings := standard()
	settings.MaxMessageBytes = 4000
	batch := batchOf(1)
	batch.Events[0].Heatmap = []byte(`{}`)
	batch.Events[0].Raw.Properties = []byte(`{"x":"` + strings.Repeat("x", 10_000) + `"}`)
	require.Empty(t, NewEncoder(settings).Encode(batch).Messages)
	require.Equal(t, events.ReasonTooLarge, batch.Events[0].Outcome.Reason)
}

func TestAnOversizeEventIsRejectedAlone(t *testing.T) {
	settings := standard()
	settings.MaxMessageBytes = 4000
	for name, size := range map[string]int{"its own JSON is over the limit": 10_000,
		"only its message is over the limit": 3900} {
		t.Run(name, func(t *testing.T) {
			batch := batchOf(3)
			batch.Events[1].Raw.Properties = []byte(`{"x":"` + strings.Repeat("x", size) + `"}`)
			want := NewEncoder(settings).Encode(batchOf(3)).Messages
			set := NewEncoder(settings).Encode(batch)
			messages := set.Messages
			require.Len(t, messages, 2)
			require.Equal(t, want[0].Value, messages[0].Value)
			require.Equal(t, want[2].Value, messages[1].Value)
			require.Equal(t, headersOf(&want[2]), headersOf(&messages[1]))
			require.Equal(t, []int{0, 2}, set.Events)
			outcome := batch.Events[1].Outcome
			require.Equal(t, events.StateRejected, outcome.State)
			require.Equal(t, events.ReasonTooLarge, outcome.Reason)
			require.Equal(t, events.TooLarge, events.CodeOf(outcome.Err))
			require.Equal(t, 2, batch.Pending())
		})
	}
}

func TestTheLargestMessageIsAsLargeAsTheLimit(t *testing.T) {
	batch := batchOf(1)
	size := testEncoder().Encode(batch).Messages[0].Size()
	settings := standard()
	for limit, want := range map[int]int{size: 1, size - 1: 0} {
		settings.MaxMessageBytes = limit
		require.Len(t, NewEncoder(settings).Encode(batchOf(1)).Messages, want)
	}
}

func TestEventsWithAnOutcomeMakeNoMessage(t *testing.T) {
	batch := batchOf(3)
	batch.Events[0].Drop(events.ReasonBlackHole)
	batch.Events[2].Reject(events.ReasonInvalidEvent, nil)
	set := testEncoder().Encode(batch)
	require.Len(t, set.Messages, 1)
	require.Equal(t, []int{1}, set.Events)
	batch.Events[1].Accept()
	require.Empty(t, testEncoder().Encode(batch).Messages)
}

func TestWhatIsReservedCoversWhatIsBuilt(t *testing.T) {
	settings := standard()
	settings.MaxMessageBytes = 100_000
	worst := batchOf(2)
	worst.Token = strings.Repeat(`"`, 64)
	for i := range worst.Events {
		event := &worst.Events[i]
		event.Name = strings.Repeat("\x01", 500)
		event.DistinctID = strings.Repeat("\x01", 200)
		event.SessionID = strings.Repeat("\x01", 200)
		event.Routing = events.Routing{DLQ: strings.Repeat("x", 200), SkipPerson: true}
		event.Raw.Properties = []byte(`{"` + strings.Repeat(`\"`, 5000) + `":1}`)
		event.Heatmap = event.Raw.Properties
	}
	batches := []*events.Batch{batchOf(1), batchOf(50), worst}
	for _, unit := range []string{"x", `\"`, "\n"} {
		for _, size := range []int{1, 1000, 40_000} {
			batch := batchOf(20)
			for i := range batch.Events {
				if i%2 == 0 { // so that the neighbours grow less
					batch.Events[i].Raw.Properties = []byte(`{"` + strings.Repeat(unit, size) + `":1}`)
				}
			}
			batches = append(batches, batch)
		}
	}
	for _, frame := range []int{1, 100, 3000, 7000} { // bytes that all parts repeat: up to nearly the limit
		for _, snapshot := range []string{`1`, `{"type":3,"timestamp":1}`, `"` + strings.Repeat(`\"`, 3000) + `"`,
			`"` + strings.Repeat(`\"`, 40_000) + `"`} {
			recording := batchOf(1)
			event := &recording.Events[0]
			recordingOf(event, slices.Repeat([]string{snapshot}, 1+100_000/len(snapshot))...)
			event.Recording.Lib = strings.Repeat("\x01", frame)
			batches = append(batches, recording)
		}
	}
	for _, batch := range batches {
		encoder := NewEncoder(settings)
		bound := encoder.Bound(batch, Cursor{}, math.MaxInt64)
		before := inUse()
		set := encoder.Encode(batch)
		held := int64(inUse()) - int64(before)
		require.NotEmpty(t, set.Messages)
		require.LessOrEqual(t, set.Bytes(), bound)
		const beside = 16 << 10 // bytes that the runtime itself may take meanwhile
		require.LessOrEqual(t, held, bound+beside, "%d messages of %d bytes", len(set.Messages), set.Bytes())
	}
	runtime.KeepAlive(batches)
}

// For the smallest events with every header, the text is not the largest part of the memory.
func TestSmallEventsTakeNoMoreThanIsReserved(t *testing.T) {
	batch := batchOf(200)
	batch.Token, batch.Historical, batch.ClientIP = "t", true, "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"
	batch.Received, batch.SentAt = batch.Received.Add(time.Nanosecond), batch.SentAt.Add(time.Nanosecond)
	for i := range batch.Events {
		event := &batch.Events[i]
		event.Name, event.DistinctID, event.SessionID, event.Cookieless = "e", "d", "s", true
		event.Timestamp = event.Timestamp.Add(time.Nanosecond)
		event.Raw = events.Raw{
			Token: []byte(`1`), DistinctID: []byte(`1`), Timestamp: []byte(`1`), Offset: []byte(`1`),
			Properties: []byte(`{}`), Set: []byte(`1`), SetOnce: []byte(`1`),
		}
		event.Heatmap = []byte(`{}`)
		event.Routing = events.Routing{DLQ: "x", SkipPerson: true}
	}
	settings := standard()
	settings.Topics.Events = strings.Repeat("x", produce.LongestTopicName)
	encoder := NewEncoder(settings)
	set := encoder.Encode(batch)
	require.Len(t, set.Messages, 400)
	require.LessOrEqual(t, set.Bytes(), encoder.Bound(batch, Cursor{}, math.MaxInt64))
}

func TestASetIsAsLargeAsTheMemoryThatItHolds(t *testing.T) {
	set := testEncoder().Encode(batchOf(2))
	require.GreaterOrEqual(t, set.Bytes(), 2*messageSize+int64(set.Messages[0].Size()+set.Messages[1].Size()))
	require.Less(t, set.Bytes(), int64(32<<10), "a small set holds no large memory")
	require.Zero(t, new(Set).Bytes())
}

// What is too much for the memory at once becomes messages in portions: the same messages, in the same order.
func TestABatchInPortionsMakesTheMessagesOfTheWhole(t *testing.T) {
	settings := standard()
	settings.MaxMessageBytes = 10_000
	for name, batch := range map[string]func() *events.Batch{
		"events": func() *events.Batch {
			batch := batchOf(500)
			for i := range batch.Events {
				batch.Events[i].Raw.Properties = []byte(`{"` + strings.Repeat("x", 50*(i%100)) + `":1}`)
				if i%3 == 0 {
					batch.Events[i].Heatmap = []byte(`{}`)
				}
			}
			batch.Events[7].Drop(events.ReasonRule)
			batch.Events[8].Raw.Properties = []byte(`{"` + strings.Repeat("x", 20_000) + `":1}`)
			return batch
		},
		"recordings": func() *events.Batch {
			batch := batchOf(3)
			recordingOf(&batch.Events[0], slices.Repeat([]string{`"` + strings.Repeat("x", 900) + `"`}, 500)...)
			recordingOf(&batch.Events[2], slices.Repeat([]string{`"` + strings.Repeat(`\"`, 900) + `"`}, 500)...)
			return batch
		},
	} {
		encoder := NewEncoder(settings)
		whole, inParts := batch(), batch()
		want := encoder.Encode(whole)
		var got []produce.Message
		var origins []int
		var from Cursor
		portions := 0
		const limit = 200_000
		for ; !from.IsEnd(inParts); portions++ {
			bound := encoder.Bound(inParts, from, limit)
			require.LessOrEqual(t, bound, int64(limit), name)
			set := encoder.Next(inParts, &from, limit)
			require.LessOrEqual(t, set.Bytes(), bound, name)
			got, origins = append(got, set.Messages...), append(origins, set.Events...)
		}
		require.Greater(t, portions, 3, name)
		require.Equal(t, want.Events, origins, name)
		require.Equal(t, want.Messages, got, name)
		for i := range whole.Events {
			require.Equal(t, whole.Events[i].Outcome.State, inParts.Events[i].Outcome.State, name)
		}
	}
}

// inUse returns how many bytes of the heap are in use once all garbage is collected.
func inUse() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func headersOf(m *produce.Message) []string {
	var headers []string
	for _, header := range m.Headers {
		headers = append(headers, string(header.Key)+"="+string(header.Value))
	}
	return headers
}

// BenchmarkBuildRecording builds one request of a session's recording, as posthog-js sends it.
func BenchmarkBuildRecording(b *testing.B) {
	encoder, batch := testEncoder(), batchOf(1)
	const move = `{"type":3,"data":{"source":1,"positions":[{"x":611,"y":318,"id":105,"timeOffset":-451},{"x":598,` +
		`"y":335,"id":105,"timeOffset":-399}]},` +
		`"timestamp":1732412345678}`
	recordingOf(&batch.Events[0], slices.Repeat([]string{move}, 500)...)
	b.SetBytes(500 * int64(len(move)))
	b.ReportAllocs()
	for b.Loop() {
		set := encoder.Encode(batch)
		if len(set.Messages) != 1 {
			b.Fatal("not one message")
		}
		encoder.Recycle(set)
	}
}

func BenchmarkBuild50(b *testing.B) {
	encoder, batch := testEncoder(), batchOf(50)
	b.ReportAllocs()
	for b.Loop() {
		set := encoder.Encode(batch)
		if len(set.Messages) != 50 {
			b.Fatal("not all events became messages")
		}
		encoder.Recycle(set)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
}
