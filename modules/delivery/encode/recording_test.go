package encode

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

func TestSection6RecordingsHaveTheFieldsInPostHogsOrder(t *testing.T) {
	batch := batchOf(1)
	event := &batch.Events[0]
	recordingOf(event, `{"type":4,"data":{"href":"a\\b"}}`, `{ "type" : 3 }`)
	event.DistinctID = `me "too"`
	event.Recording.WindowID = []byte(`"w-1"`)
	event.Recording.Host = []byte(`"app.example.com"`)
	event.Recording.Source = "mobile"
	event.Recording.Lib = `posthog-"ios"`
	messages := testEncoder().Encode(batch).Messages
	require.Len(t, messages, 1)
	require.Equal(t, `{"uuid":"0193a1b2-c3d4-7e5f-8a9b-000000000000","distinct_id":"me \"too\"","ip":"203.0.113.7",`+
		`"data":"{\"event\":\"$snapshot_items\",\"properties\":{\"distinct_id\":\"me \\\"too\\\"\",`+
		`\"$session_id\":\"0193a1b2-session\",\"$window_id\":\"w-1\",`+
		`\"$snapshot_source\":\"mobile\",\"$snapshot_items\":[{\"type\":4,\"data\":{\"href\":\"a\\\\b\"}},`+
		`{ \"type\" : 3 }],\"$lib\":\"posthog-\\\"ios\\\"\",`+
		`\"$snapshot_host\":\"app.example.com\"}}","now":"2026-11-24T01:02:03.45Z","sent_at":"2026-11-24T01:02:03Z",`+
		`"token":"phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD","event":"$snapshot_items",`+
		`"timestamp":"2026-11-24T01:02:02.123Z"}`, string(messages[0].Value))
	require.Equal(t, "clickhouse_session_recording_events", messages[0].Topic)
	require.Equal(t, "0193a1b2-session", string(messages[0].Key))
	require.Equal(t, []string{
		"token=phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD", `distinct_id=me "too"`, "timestamp=1795482122123",
		"event=$snapshot_items",
		"uuid=0193a1b2-c3d4-7e5f-8a9b-000000000000", "now=2026-11-24T01:02:03.45Z", "session_id=0193a1b2-session",
	}, headersOf(&messages[0]))
	require.Zero(t, event.Notes)
}

func TestSection6AWindowThatIsNotSaidIsTheSession(t *testing.T) {
	batch := batchOf(1)
	recordingOf(&batch.Events[0])
	batch.Events[0].Recording.WindowID = nil
	_, data := dataOf(t, &testEncoder().Encode(batch).Messages[0])
	require.JSONEq(t, `{"event":"$snapshot_items","properties":{"distinct_id":"0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
		"$session_id":"0193a1b2-session",
		"$window_id":"0193a1b2-session","$snapshot_source":"web","$snapshot_items":[],"$lib":"web"}}`, data)
}

// dataOf returns the identifier and the data of a recording's message, whose value and data are JSON.
func dataOf(t require.TestingT, m *produce.Message) (id, data string) {
	var value struct{ UUID, Data string }
	require.NoError(t, json.Unmarshal(m.Value, &value))
	require.True(t, json.Valid([]byte(value.Data)), "%s", value.Data)
	return value.UUID, value.Data
}

// snapshotsOf returns the snapshots of a message, byte by byte as the message holds them.
func snapshotsOf(t require.TestingT, m *produce.Message) []string {
	_, data := dataOf(t, m)
	var event struct {
		Properties struct {
			Items []json.RawMessage `json:"$snapshot_items"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(data), &event))
	items := make([]string, len(event.Properties.Items))
	for i, item := range event.Properties.Items {
		items[i] = string(item)
	}
	return items
}

func TestSection6ASnapshotThatIsTooLargeIsReplacedInItsPlace(t *testing.T) {
	settings := standard()
	settings.MaxMessageBytes = 4000
	large := `{"type":2,"x":"` + strings.Repeat("x", 5000) + `"}`
	escaped := `{"type":2,"x":"` + strings.Repeat(`\"`, 1500) + `"}` // too large only because of its escapes
	for name, test := range map[string]struct {
		timestamp string
		want      string
	}{
		"a number":          {`1732412345678`, `1732412345678`},
		"a fraction":        {`-17324.5e3`, `-17324.5e3`},
		"none":              {``, `1795482122123`},
		"text":              {`"1732412345678"`, `1795482122123`},
		"an endless number": {`1` + strings.Repeat("0", 5000), `1795482122123`},
	} {
		t.Run(name, func(t *testing.T) {
			batch := batchOf(1)
			event := &batch.Events[0]
			recordingOf(event, `{"type":4}`, large, `{"type":3}`, escaped)
			event.Recording.Items[1].Timestamp = []byte(test.timestamp)
			event.Recording.Items[3].Timestamp = []byte(test.timestamp)
			messages := NewEncoder(settings).Encode(batch).Messages
			require.Len(t, messages, 1)
			mark := func(snapshot string) string {
				return fmt.Sprintf(`{"type":5,"timestamp":%s,"data":{"tag":"snapshot_too_large",`+
					`"payload":{"bytes":%d}}}`, test.want, len(snapshot))
			}
			require.Equal(t, []string{`{"type":4}`, mark(large), `{"type":3}`, mark(escaped)},
				snapshotsOf(t, &messages[0]))
			require.True(t, event.Notes.Has(events.NoteSnapshotReplaced))
			require.True(t, event.Pending())
		})
	}
}

func TestSection6ASnapshotThatJustFitsIsKept(t *testing.T) {
	settings := standard()
	settings.MaxMessageBytes = 4000
	kept := 0
	for size := 2500; size < 4000; size++ {
		batch := batchOf(1)
		snapshot := `"` + strings.Repeat("x", size-2) + `"`
		recordingOf(&batch.Events[0], snapshot)
		messages := NewEncoder(settings).Encode(batch).Messages
		require.Len(t, messages, 1)
		require.LessOrEqual(t, messages[0].Size(), 4000)
		if batch.Events[0].Notes != 0 {
			break
		}
		require.Equal(t, []string{snapshot}, snapshotsOf(t, &messages[0]))
		kept = messages[0].Size()
	}
	require.GreaterOrEqual(t, kept, 4000-longestChanging)
}

// No other limit bounds the bytes that the messages of a recording repeat: without this one, a request of 25 MiB could
// make terabytes.
func TestARecordingWhoseFrameIsTooLargeIsRejected(t *testing.T) {
	for name, change := range map[string]func(*events.Event, string){
		"window":      func(e *events.Event, long string) { e.Recording.WindowID = []byte(`"` + long + `"`) },
		"host":        func(e *events.Event, long string) { e.Recording.Host = []byte(`"` + long + `"`) },
		"library":     func(e *events.Event, long string) { e.Recording.Lib = long },
		"source":      func(e *events.Event, long string) { e.Recording.Source = long },
		"distinct_id": func(e *events.Event, long string) { e.DistinctID = long },
		"session":     func(e *events.Event, long string) { e.SessionID = long },
	} {
		for _, size := range []int{600_000, 2_000_000} {
			batch := batchOf(3)
			event := &batch.Events[1]
			recordingOf(event, `{"type":4}`)
			change(event, strings.Repeat("x", size))
			require.Equal(t, []int{0, 2}, testEncoder().Encode(batch).Events, name)
			require.Equal(t, events.StateRejected, event.Outcome.State, name)
			require.Equal(t, events.ReasonTooLarge, event.Outcome.Reason, name)
			require.Equal(t, events.TooLarge, events.CodeOf(event.Outcome.Err), name)
		}
	}
}

// anyRecording draws a batch with a recording between two ordinary events. It also draws a limit, for which the
// recording is small, large or far too large.
func anyRecording(t *rapid.T) (*events.Batch, produce.Settings) {
	settings := standard()
	settings.MaxMessageBytes = rapid.IntRange(3000, 20_000).Draw(t, "limit")
	batch := batchOf(3)
	event := &batch.Events[1]
	recordingOf(event)
	snapshot := rapid.Custom(func(t *rapid.T) string {
		text, err := json.Marshal(
			rapid.SampledFrom([]string{"", "x", `"`, "é", "\x01", "\n", `{"a":"b"}`}).Draw(t, "of"))
		require.NoError(t, err)
		inner := string(text[1 : len(text)-1])
		return `"` + strings.Repeat(inner,
			rapid.SampledFrom([]int{0, 1, 10, 100, 500, 1000, 2500, 30_000}).Draw(t, "times")) + `"`
	})
	for _, text := range rapid.SliceOfN(snapshot, 0, 60).Draw(t, "snapshots") {
		event.Recording.Items = append(event.Recording.Items, events.Snapshot{JSON: []byte(text)})
	}
	event.Recording.Lib = strings.Repeat("x", rapid.IntRange(0, 300).Draw(t, "lib"))
	event.Routing.DLQ = rapid.SampledFrom([]string{"", "event_restriction"}).Draw(t, "dlq")
	return batch, settings
}

func TestSection6PartsTogetherAreTheRecording(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batch, settings := anyRecording(t)
		event := &batch.Events[1]
		var originals []string
		for i := range event.Recording.Items {
			originals = append(originals, string(event.Recording.Items[i].JSON))
		}
		encoder := NewEncoder(settings)
		bound := encoder.Bound(batch, Cursor{}, math.MaxInt64)
		set := encoder.Encode(batch)
		messages := set.Messages
		limit := settings.MaxMessageBytes

		require.GreaterOrEqual(t, len(messages), 3)
		parts := messages[1 : len(messages)-1]
		for i := range messages {
			require.LessOrEqual(t, messages[i].Size(), limit)
		}
		require.LessOrEqual(t, set.Bytes(), bound)
		require.Equal(t, slices.Concat([]int{0}, slices.Repeat([]int{1}, len(parts)), []int{2}), set.Events)

		replaced := 0
		var items []string
		for i := range parts {
			require.Equal(t, "0193a1b2-session", string(parts[i].Key))
			require.Equal(t, parts[0].Topic, parts[i].Topic)
			id, _ := dataOf(t, &parts[i])
			want := event.UUID
			if i > 0 {
				want = uuid.NewSHA1(event.UUID, []byte(strconv.Itoa(i+1)))
			}
			require.Equal(t, want.String(), id)
			require.Contains(t, headersOf(&parts[i]), "uuid="+id)
			own := snapshotsOf(t, &parts[i])
			if i > 0 {
				require.NotEmpty(t, own)
				first := len(",") + escapedLen([]byte(own[0]))
				require.Greater(t, parts[i-1].Size()+first, limit-longestChanging,
					"the part before was as full as possible")
			}
			items = append(items, own...)
		}
		require.Len(t, items, len(originals))
		for i, original := range originals {
			if items[i] == original {
				continue
			}
			replaced++
			require.Equal(t, fmt.Sprintf(`{"type":5,"timestamp":1795482122123,"data":{"tag":"snapshot_too_large",`+
				`"payload":{"bytes":%d}}}`, len(original)), items[i])
			require.Greater(t, escapedLen([]byte(original)), limit/2)
		}
		require.Equal(t, replaced > 0, event.Notes.Has(events.NoteSnapshotReplaced))
	})
}

// A consumer drops copies by a part's identifier, so the identifier must stand for the same snapshots each time.
func TestSection01ARecordingThatIsSentAgainIsSplitAtTheSamePlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batch, settings := anyRecording(t)
		again := *batch
		again.Events = append([]events.Event(nil), batch.Events...)
		recording := *batch.Events[1].Recording
		recording.Items = append([]events.Snapshot(nil), recording.Items...)
		again.Events[1].Recording = &recording
		at := rapid.Custom(func(t *rapid.T) time.Time {
			fraction := rapid.SampledFrom([]int64{0, 1, 120_000_000, 123_456_789}).Draw(t, "fraction")
			return time.Unix(1_795_482_122+rapid.Int64Range(0, 1e6).Draw(t, "later"), fraction)
		})
		again.Received, again.SentAt, again.Events[1].Timestamp = at.Draw(t, "received"), at.Draw(t, "sent"),
			at.Draw(t, "timestamp")
		again.ClientIP = rapid.SampledFrom([]string{"1.1.1.1", "2001:db8:1234:1234:1234:1234:1234:1234"}).Draw(t, "ip")

		first, second := NewEncoder(settings).Encode(batch).Messages, NewEncoder(settings).Encode(&again).Messages
		require.Len(t, second, len(first))
		for i := range first[1 : len(first)-1] {
			a, _ := dataOf(t, &first[1+i])
			b, _ := dataOf(t, &second[1+i])
			require.Equal(t, a, b)
			require.Len(t, snapshotsOf(t, &second[1+i]), len(snapshotsOf(t, &first[1+i])))
		}
	})
}

func TestASplitRecordingIsNotRecycledIntoOthers(t *testing.T) {
	encoder := testEncoder()
	batch := batchOf(1)
	recordingOf(&batch.Events[0])
	for range 30 {
		batch.Events[0].Recording.Items = append(batch.Events[0].Recording.Items,
			events.Snapshot{JSON: []byte(`"` + strings.Repeat("x", 100_000) + `"`)})
	}
	set := encoder.Encode(batch)
	require.Greater(t, len(set.Messages), 3)
	require.Greater(t, set.full+cap(set.text), maxPooledText, "it does not look smaller than it is")
}

func TestAUsualRecordingFindsRoomInTheMemoryOfTheOneBefore(t *testing.T) {
	batch := batchOf(1)
	recordingOf(&batch.Events[0], `"`+strings.Repeat("x", 200_000)+`"`)
	encoder := testEncoder()
	set := encoder.Encode(batch)
	require.Zero(t, set.full, "one piece")
	for range 100 { // A pool may lose what it is given.
		encoder.Recycle(set)
		again := encoder.Encode(batch)
		if again == set {
			return
		}
		set = again
	}
	t.Fatal("no recording has found room in the memory of the one before")
}

func FuzzRecording(f *testing.F) {
	f.Add([]byte(`[{"type":4},{"type":2,"data":"\"\\\u0000"},[],1e9,"é\ud83d",null]`), []byte(`"w"`), []byte(`"host"`),
		[]byte(`1732412345678`), "me", "web", uint16(2000))
	f.Add([]byte(`[]`), []byte(`{"a": [1]}`), []byte(`null`), []byte(`"x"`), "\x00\n\"", `a"b\c`, uint16(0))
	f.Add([]byte("[ {\n\t\"pretty\" : true\r\n} , \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\" ]"),
		[]byte(`"w"`), []byte(`1`), []byte(`-1`), "", "", uint16(math.MaxUint16))
	f.Fuzz(func(t *testing.T, list, window, host, timestamp []byte, distinctID, lib string, limit uint16) {
		var items []json.RawMessage
		if json.Unmarshal(list, &items) != nil {
			return
		}
		for _, value := range [][]byte{list, window, host, timestamp} {
			if !json.Valid(value) || !utf8.Valid(value) {
				return
			}
		}
		if !utf8.ValidString(distinctID) || !utf8.ValidString(lib) {
			return
		}
		batch := batchOf(1)
		event := &batch.Events[0]
		recordingOf(event)
		event.DistinctID = distinctID
		event.Recording.WindowID, event.Recording.Host, event.Recording.Lib = window, host, lib
		var want []string
		for _, item := range items {
			event.Recording.Items = append(event.Recording.Items, events.Snapshot{JSON: item, Timestamp: timestamp})
			want = append(want, string(item))
		}
		settings := standard()
		settings.MaxMessageBytes = 1<<10 + int(limit)
		encoder := NewEncoder(settings)
		bound := encoder.Bound(batch, Cursor{}, math.MaxInt64)
		set := encoder.Encode(batch)
		messages := set.Messages
		require.Equal(t, event.Pending(), len(messages) > 0)
		if len(messages) == 0 {
			require.Equal(t, events.ReasonTooLarge, event.Outcome.Reason)
			return
		}
		var got []string
		for i := range messages {
			require.LessOrEqual(t, messages[i].Size(), settings.MaxMessageBytes)
			got = append(got, snapshotsOf(t, &messages[i])...)
		}
		require.LessOrEqual(t, set.Bytes(), bound)
		require.Len(t, got, len(want))
		for i := range want {
			if got[i] != want[i] {
				require.Contains(t, got[i], fmt.Sprintf(`"payload":{"bytes":%d}`, len(want[i])))
				require.True(t, event.Notes.Has(events.NoteSnapshotReplaced))
			}
		}
	})
}
