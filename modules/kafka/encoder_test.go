package kafka

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

// properties are what posthog-js sends with a page view.
const properties = `{"$os":"Linux","$os_version":"","$browser":"Chrome","$device_type":"Desktop","$current_url":"http://127.0.0.1:8080/index.html?utm_source=x",` +
	`"$host":"127.0.0.1:8080","$pathname":"/index.html","$raw_user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",` +
	`"$browser_version":131,"$browser_language":"en-US","$screen_height":1080,"$screen_width":1920,"$viewport_height":969,"$viewport_width":1920,"$lib":"web",` +
	`"$lib_version":"1.200.2","$insert_id":"k3p1m7x2q9w8e5r4","$time":1732412345.678,"distinct_id":"0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",` +
	`"$device_id":"0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b","$active_feature_flags":[],"$referrer":"$direct","$referring_domain":"$direct",` +
	`"token":"phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD","$session_id":"0193a1b2-c3d4-7e5f-8a9b-1c2d3e4f5a6b",` +
	`"$window_id":"0193a1b2-c3d4-7e5f-8a9b-2c3d4e5f6a7b","$is_identified":false,"$process_person_profile":true,"plan":"pro"}`

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

func testEncoder() *Encoder { return NewEncoder(DefaultConfig()) }

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

	value, err := m.Value.Encode()
	require.NoError(t, err)
	require.Equal(t, `{"uuid":"0193a1b2-c3d4-7e5f-8a9b-000000000000","distinct_id":"{\"a\":\"b\"}","ip":"203.0.113.7",`+
		`"data":"{\"token\":\"phc_own\",\"distinct_id\":{\"a\":\"b\"},\"uuid\":\"0193a1b2-c3d4-7e5f-8a9b-000000000000\",\"event\":\"say \\\"hi\\\"\",`+
		`\"properties\":{ \"a\" : \"x\\ny\\\"z\", \"n\":1.50 },\"timestamp\":\"2026-11-24T01:02:02.123Z\",\"offset\":12,\"$set\":{\"email\":\"a@example.com\"},\"$set_once\":{}}",`+
		`"now":"2026-11-24T01:02:03.45Z","sent_at":"2026-11-24T01:02:03Z","token":"phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD","event":"say \"hi\"",`+
		`"timestamp":"2026-11-24T01:02:02.123Z","is_cookieless_mode":true,"historical_migration":true}`, string(value))

	key, err := m.Key.Encode()
	require.NoError(t, err)
	require.Equal(t, "phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD:203.0.113.7", string(key))
	require.Equal(t, []string{
		"token=phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD", `distinct_id={"a":"b"}`, "timestamp=1795482122123", `event=say "hi"`,
		"uuid=0193a1b2-c3d4-7e5f-8a9b-000000000000", "now=2026-11-24T01:02:03.45Z", "historical_migration=true",
	}, headersOf(m))
}

func TestFieldsWithoutAValueAreLeftOut(t *testing.T) {
	batch := batchOf(1)
	batch.SentAt = time.Time{}
	event := &batch.Events[0]
	event.ClientUUID = false
	event.ClientIP = "2001:db8::1"
	event.Raw = events.Raw{Properties: []byte(`{}`)}
	m := &testEncoder().Encode(batch).Messages[0]
	require.Equal(t, `{"uuid":"0193a1b2-c3d4-7e5f-8a9b-000000000000","distinct_id":"0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b","ip":"2001:db8::1",`+
		`"data":"{\"uuid\":null,\"event\":\"$pageview\",\"properties\":{}}","now":"2026-11-24T01:02:03.45Z",`+
		`"token":"phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD","event":"$pageview","timestamp":"2026-11-24T01:02:02.123Z"}`, string(m.value))
	require.Equal(t, "phc_abcdefghijklmnopqrstuvwxyz0123456789ABCD:0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", string(m.key))
	require.Len(t, m.Headers, 6)
}

func TestPropertiesComeOutByteEqual(t *testing.T) {
	batch := batchOf(3)
	batch.Events[1].Raw.Properties = []byte("{\n\t\"spaced\" :  [1e5, 0.10, \"\\u00e9\\\\\" ] }")
	messages := testEncoder().Encode(batch).Messages
	for i := range messages {
		var value struct{ Data string }
		require.NoError(t, json.Unmarshal(messages[i].value, &value))
		var data struct{ Properties json.RawMessage }
		require.NoError(t, json.Unmarshal([]byte(value.Data), &data))
		require.Equal(t, string(batch.Events[i].Raw.Properties), string(data.Properties))
	}
}

func TestEachLaneHasItsTopic(t *testing.T) {
	topics := map[events.Lane]string{
		events.LaneMain:           "clickhouse_events",
		events.LaneHistorical:     "historical_events",
		events.LaneExceptions:     "exceptions",
		events.LaneHeatmaps:       "heatmaps",
		events.LaneClientWarnings: "client_warnings",
		events.LaneAI:             "ai_events",
	}
	for lane, topic := range topics {
		batch := batchOf(1)
		batch.Events[0].Lane = lane
		require.Equal(t, topic, testEncoder().Encode(batch).Messages[0].Topic, "%s", lane)
	}
}

func TestAnOversizeEventIsRejectedAlone(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxMessageBytes = 4000
	for name, size := range map[string]int{"its own JSON is over the limit": 10_000, "only its message is over the limit": 3900} {
		t.Run(name, func(t *testing.T) {
			batch := batchOf(3)
			batch.Events[1].Raw.Properties = []byte(`{"x":"` + strings.Repeat("x", size) + `"}`)
			want := NewEncoder(cfg).Encode(batchOf(3)).Messages
			messages := NewEncoder(cfg).Encode(batch).Messages
			require.Len(t, messages, 2)
			require.Equal(t, want[0].value, messages[0].value)
			require.Equal(t, want[2].value, messages[1].value)
			require.Equal(t, headersOf(&want[2]), headersOf(&messages[1]))
			require.Equal(t, 2, messages[1].event)
			outcome := batch.Events[1].Outcome
			require.Equal(t, events.StateRejected, outcome.State)
			require.Equal(t, events.ReasonTooLarge, outcome.Reason)
			require.Equal(t, events.TooLarge, events.CodeOf(outcome.Err))
			require.Equal(t, 2, batch.Pending())
		})
	}
}

func TestTheLargestMessageIsAsLargeAsSaramaAllows(t *testing.T) {
	batch := batchOf(1)
	size := testEncoder().Encode(batch).Messages[0].ByteSize(2)
	cfg := DefaultConfig()
	for limit, want := range map[int]int{size: 1, size - 1: 0} {
		cfg.MaxMessageBytes = configs.ByteSize(limit)
		require.Len(t, NewEncoder(cfg).Encode(batchOf(1)).Messages, want)
	}
}

func TestEventsWithAnOutcomeMakeNoMessage(t *testing.T) {
	batch := batchOf(3)
	batch.Events[0].Drop(events.ReasonBlackHole)
	batch.Events[2].Reject(events.ReasonInvalidEvent, nil)
	messages := testEncoder().Encode(batch).Messages
	require.Len(t, messages, 1)
	require.Equal(t, 1, messages[0].event)
	batch.Events[1].Accept()
	require.Empty(t, testEncoder().Encode(batch).Messages)
}

func TestWhatIsReservedCoversWhatIsBuilt(t *testing.T) {
	worst := batchOf(2)
	worst.Token = strings.Repeat(`"`, 64)
	for i := range worst.Events {
		worst.Events[i].Name = strings.Repeat("\x01", 500)
		worst.Events[i].DistinctID = strings.Repeat("\x01", 200)
		worst.Events[i].Raw.Properties = []byte(`{"` + strings.Repeat(`\"`, 5000) + `":1}`)
	}
	for _, batch := range []*events.Batch{batchOf(1), batchOf(50), worst} {
		bound, size := testEncoder().bound(batch), 0
		messages := testEncoder().Encode(batch).Messages
		for i := range messages {
			size += messages[i].size
		}
		require.LessOrEqual(t, int64(size), bound)
	}
}

// The vectors are those of Apache Kafka's own UtilsTest.testMurmur2, as unsigned remainders of the masked hash.
func TestKeysGoToThePartitionThatKafkasOwnClientsChoose(t *testing.T) {
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		const partitions = 1000
		partitioner := sarama.NewMurmur2Partitioner("topic")
		got, err := partitioner.Partition(&sarama.ProducerMessage{Key: sarama.StringEncoder(key)}, partitions)
		require.NoError(t, err)
		require.Equal(t, (hash&0x7fffffff)%partitions, got, key)
	}
	seen := map[int32]bool{}
	partitioner := sarama.NewMurmur2Partitioner("topic")
	for range 200 {
		partition, err := partitioner.Partition(&sarama.ProducerMessage{}, 4)
		require.NoError(t, err)
		seen[partition] = true
	}
	require.Len(t, seen, 4, "messages without a key go everywhere")
}

func headersOf(m *Message) []string {
	var headers []string
	for _, header := range m.Headers {
		headers = append(headers, string(header.Key)+"="+string(header.Value))
	}
	return headers
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
