package testkit_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/testkit"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/route"
)

// recording is one recorded request of a real SDK.
type recording struct {
	SDK      string            `json:"sdk"`
	Note     string            `json:"note"`
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	RawQuery string            `json:"raw_query"`
	Headers  map[string]string `json:"headers"`
	Body     []byte            `json:"body_b64"`
	JSON     json.RawMessage   `json:"json"`
}

// isV1 reports whether the request is of the second generation of the protocol.
func (r recording) isV1() bool { return strings.HasPrefix(r.Path, "/i/v1/") }

// header returns the request's headers as names and values in turn.
func (r recording) header() []string {
	var header []string
	for name, value := range r.Headers {
		header = append(header, name, value)
	}
	return header
}

func recordings(t *testing.T, file string) []recording {
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	var rows []recording
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			return rows
		}
		var row recording
		require.NoError(t, json.Unmarshal(line, &row))
		rows = append(rows, row)
	}
}

// expectation is the message that a recorded event must have become.
type expectation struct {
	note       string
	token      string
	event      string
	distinctID string
	uuid       string // empty: the service made one
	topic      string
	properties string // byte for byte; empty if the recorded bytes are not JSON
	sentAt     *time.Time
	historical bool
	cookieless bool
	timestamp  func(now time.Time) time.Time
	// split says that heatmap data was split off the event. companion says that this event is the data that was split
	// off: it holds the uuid of the other event, or "" if the service made that uuid.
	split     bool
	companion *string
}

// expect derives the messages in Kafka and the answer from the recorder's own decoding. It shares no code with the
// service except the code that finds the exact bytes of the properties.
func expect(t *testing.T, row recording, topics produce.Topics) (status int, wanted map[string]expectation) {
	query, err := url.ParseQuery(row.RawQuery)
	require.NoError(t, err)
	if len(row.Body) == 0 {
		return 400, nil
	}
	text := exactText(t, row, query)
	if len(row.JSON) == 0 || string(row.JSON) == "null" {
		row.JSON = text
	}
	var envelope struct {
		Token   *string           `json:"token"`
		APIKey  *string           `json:"api_key"`
		Batch   []json.RawMessage `json:"batch"`
		Past    bool              `json:"historical_migration"`
		SentAt  *time.Time        `json:"sent_at"`
		SentAt2 *time.Time        `json:"sentAt"`
	}
	var elements, exact []json.RawMessage
	if bytes.TrimSpace(row.JSON)[0] == '[' {
		require.NoError(t, json.Unmarshal(row.JSON, &elements))
		require.NoError(t, json.Unmarshal(text, &exact))
	} else {
		require.NoError(t, json.Unmarshal(row.JSON, &envelope))
		if envelope.Batch != nil {
			elements = envelope.Batch
			if json.Valid(text) {
				require.NoError(t, json.Unmarshal(text, &envelope))
				exact = envelope.Batch
			} else {
				exact = make([]json.RawMessage, len(elements))
			}
		} else {
			envelope.Token, envelope.APIKey, envelope.SentAt, envelope.SentAt2 = nil, nil, nil, nil
			elements, exact = []json.RawMessage{row.JSON}, []json.RawMessage{text}
		}
	}
	sentAt := envelope.SentAt
	if sentAt == nil {
		sentAt = envelope.SentAt2
	}
	retried := false // and the clock is that of the first attempt
	if ms, err := strconv.ParseInt(query.Get("_"), 10, 64); err == nil && sentAt == nil {
		at := time.UnixMilli(ms).UTC()
		sentAt = &at
		retried = query.Get("retry_count") != "" && query.Get("retry_count") != "0"
	}

	wanted = map[string]expectation{}
	good := 0
	for i, element := range elements {
		var fields, properties map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(element, &fields))
		if fields["properties"] != nil {
			require.NoError(t, json.Unmarshal(fields["properties"], &properties))
		}
		var exactFields map[string]json.RawMessage
		if exact[i] != nil {
			require.NoError(t, json.Unmarshal(exact[i], &exactFields))
		}
		e := expectation{
			note: row.Note, event: asText(fields["event"]), topic: topics.Events, sentAt: sentAt,
			properties: string(exactFields["properties"]),
		}
		if fields["event"] == nil {
			e.event = "$identify"
		}
		if e.historical = envelope.Past; e.historical {
			e.topic = topics.Historical
		}
		switch e.event {
		case "$exception":
			e.topic = topics.Exceptions
		case "$$heatmap":
			e.topic = topics.Heatmaps
		case "$ai_generation", "$ai_span", "$ai_trace", "$ai_embedding", "$ai_metric", "$ai_feedback":
			e.topic = topics.AI
		}
		own := first(fields["distinct_id"], fields["$distinct_id"])
		if e.distinctID = asText(first(own, properties["distinct_id"])); strings.TrimSpace(e.distinctID) == "" {
			continue
		}
		if runes := []rune(e.distinctID); len(runes) > 200 {
			e.distinctID = string(runes[:200])
		}
		e.cookieless = string(properties["$cookieless_mode"]) == "true"
		token := first(fields["token"], fields["$token"], fields["api_key"])
		switch {
		case envelope.APIKey != nil:
			e.token = *envelope.APIKey
		case envelope.Token != nil:
			e.token = *envelope.Token
		default:
			e.token = asText(first(token, properties["token"]))
		}
		e.uuid = strings.ToLower(asText(fields["uuid"]))
		e.timestamp = wantTime(t, fields, sentAt, retried)
		good++

		data := map[string]json.RawMessage{
			"event": quoted(e.event), "properties": fields["properties"], "uuid": quoted(e.uuid),
		}
		if fields["properties"] == nil {
			data["properties"] = json.RawMessage(`{}`)
			e.properties = `{}`
		}
		if e.uuid == "" {
			data["uuid"] = json.RawMessage("null")
		}
		for key, value := range map[string]json.RawMessage{
			"token": token, "distinct_id": own, "timestamp": fields["timestamp"], "offset": fields["offset"],
			"$set": fields["$set"], "$set_once": fields["$set_once"],
		} {
			if value = first(value); value != nil {
				data[key] = value
			}
		}
		add := func(data map[string]json.RawMessage, e expectation) {
			joined, err := json.Marshal(data)
			require.NoError(t, err)
			// Equal events of one request are told apart by their number.
			key := canonical(t, joined)
			for n := 0; ; n++ {
				if _, taken := wanted[fmt.Sprint(key, "#", n)]; !taken {
					wanted[fmt.Sprint(key, "#", n)] = e
					break
				}
			}
		}
		if heatmap := heatmapOf(t, e.event, properties); heatmap != nil {
			companion := e
			companion.event, companion.topic, companion.companion = "$$heatmap", topics.Heatmaps, &e.uuid
			companion.uuid, companion.properties = "", ""
			split := maps.Clone(data)
			split["event"], split["uuid"], split["properties"] = quoted("$$heatmap"), json.RawMessage("null"), heatmap
			delete(split, "$set")
			delete(split, "$set_once")
			add(split, companion)
			e.split = true
			if first(properties["$heatmap_data"]) != nil {
				rest := maps.Clone(properties)
				delete(rest, "$heatmap_data")
				raw, err := json.Marshal(rest)
				require.NoError(t, err)
				data["properties"], e.properties = raw, ""
			}
		}
		add(data, e)
	}
	switch {
	case good == 0:
		return 400, nil
	case query.Get("beacon") == "1":
		return 204, wanted
	default:
		return 200, wanted
	}
}

// heatmapOf returns the data that section 2.12 of the protocol splits off an event, or nil.
func heatmapOf(t *testing.T, name string, properties map[string]json.RawMessage) json.RawMessage {
	has := func(name string) bool { return first(properties[name]) != nil }
	if name == "$$heatmap" || !has("$heatmap_data") && !(has("$prev_pageview_pathname") && has("$current_url")) {
		return nil
	}
	heatmap := map[string]json.RawMessage{}
	for _, name := range []string{
		"$heatmap_data", "$viewport_height", "$viewport_width", "$session_id", "$prev_pageview_pathname",
		"$prev_pageview_max_scroll",
		"$current_url", "$raw_user_agent", "$ip", "$host", "$timezone", "$cookieless_extra", "$cookieless_mode",
	} {
		if value, there := properties[name]; there {
			heatmap[name] = value
		}
	}
	raw, err := json.Marshal(heatmap)
	require.NoError(t, err)
	return raw
}

// wantTime applies section 2.11 of the protocol to the times that SDKs send.
func wantTime(
	t *testing.T, fields map[string]json.RawMessage, sentAt *time.Time, retried bool,
) func(time.Time) time.Time {
	var stamp *time.Time
	if raw := first(fields["timestamp"]); raw != nil {
		at, err := time.Parse(time.RFC3339Nano, asText(raw))
		require.NoError(t, err)
		stamp = &at
	}
	var offset *time.Duration
	if raw := first(fields["offset"]); raw != nil {
		ms, err := strconv.ParseInt(string(raw), 10, 64)
		require.NoError(t, err)
		d := time.Duration(ms) * time.Millisecond
		offset = &d
	}
	return func(now time.Time) time.Time {
		switch {
		case offset != nil && retried && sentAt != nil:
			return sentAt.Add(-*offset)
		case offset != nil:
			return now.Add(-*offset)
		case stamp == nil:
			return now
		case sentAt == nil || retried:
			return *stamp
		default:
			return stamp.Add(now.Sub(*sentAt))
		}
	}
}

// exactText returns the request's JSON as it was sent.
func exactText(t *testing.T, row recording, query url.Values) []byte {
	payload, err := decode.New(route.Fixed(1<<30), nil).Decode(decode.Input{
		Body: row.Body, QueryData: query.Get("data"), QueryHint: query.Get("compression"),
		ContentType: row.Headers["content-type"], ContentEncoding: row.Headers["content-encoding"],
	})
	require.NoError(t, err)
	defer payload.Release()
	return bytes.Clone(payload.Bytes)
}

// first returns the first value that is neither absent nor null.
func first(values ...json.RawMessage) json.RawMessage {
	for _, value := range values {
		if len(value) > 0 && string(value) != "null" {
			return value
		}
	}
	return nil
}

func asText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func quoted(s string) json.RawMessage {
	raw, _ := json.Marshal(s)
	return raw
}

// canonical writes JSON so that two texts with the same meaning are equal.
func canonical(t *testing.T, raw []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	require.NoError(t, decoder.Decode(&value), "%s", raw)
	var normal func(any) any
	normal = func(value any) any {
		switch value := value.(type) {
		case json.Number:
			n, ok := new(big.Rat).SetString(value.String())
			require.True(t, ok)
			return "number " + n.RatString()
		case []any:
			for i := range value {
				value[i] = normal(value[i])
			}
		case map[string]any:
			for key := range value {
				value[key] = normal(value[key])
			}
		}
		return value
	}
	text, err := json.Marshal(normal(value))
	require.NoError(t, err)
	return string(text)
}

// Every recorded v0 request of every SDK is answered as its body deserves. Each of its events is in Kafka exactly once,
// with the content that it was sent with.
func TestEveryRecordedSDKRequestArrivesExactlyOnce(t *testing.T) {
	began := time.Now().UTC()
	files, err := filepath.Glob("testdata/sdk/*.jsonl")
	require.NoError(t, err)
	require.Len(t, files, 11)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".jsonl"), func(t *testing.T) {
			t.Parallel()
			var config kafka.Config
			// Some requests send events again. Here they arrive as often as they are sent.
			service := testkit.Start(t, testkit.Populate(&config), testkit.Set("dedup.window", "0"))
			wanted := map[string][]expectation{}
			total := 0
			for n, row := range recordings(t, file) {
				if row.isV1() || row.Path == "/s/" {
					continue
				}
				status, events := expect(t, row, config.Topics)
				path := row.Path
				if row.RawQuery != "" {
					path += "?" + row.RawQuery
				}
				response := service.Request(row.Method, path, string(row.Body), row.header()...)
				require.Equal(t, status, response.Status, "row %d (%s): %s", n, row.Note, response.Body)
				if status == 200 {
					require.Equal(t, `{"status":"Ok"}`, response.Body)
				}
				for key, e := range events {
					key = key[:strings.LastIndexByte(key, '#')] + sentAtText(e.sentAt)
					wanted[key] = append(wanted[key], e)
					total++
				}
			}
			messages := service.Messages()
			require.Equal(t, total, len(messages), "messages in Kafka") //nolint:testifylint // Len would print them all
			for _, message := range messages {
				key := canonical(t, message.Envelope.Data) + sentAtText(message.Envelope.SentAt)
				require.NotEmpty(t, wanted[key], "not sent, or twice: %s", message.Envelope.Data)
				require.WithinRange(t, message.Envelope.Now, began.Truncate(time.Millisecond), time.Now())
				check(t, wanted[key][0], message)
				wanted[key] = wanted[key][1:]
			}
		})
	}
}

func sentAtText(at *time.Time) string {
	if at == nil {
		return " never sent"
	}
	return " sent " + at.UTC().Format(time.RFC3339Nano)
}

// check compares a message with the expectation.
func check(t *testing.T, want expectation, message testkit.Message) {
	got := message.Envelope
	require.Equal(t, want.token, got.Token, want.note)
	require.Equal(t, want.event, got.Event, want.note)
	require.Equal(t, want.distinctID, got.DistinctID, want.note)
	require.Equal(t, want.topic, message.Topic, want.note)
	require.Equal(t, "127.0.0.1", got.IP)
	require.Equal(t, want.timestamp(got.Now).UTC(), got.Timestamp.UTC(), want.note)
	subject := want.distinctID
	if want.cookieless {
		subject = got.IP
	}
	require.Equal(t, want.token+":"+subject, string(message.Key))
	require.Equal(t, want.cookieless, got.Cookieless)
	switch {
	case want.uuid != "":
		require.Equal(t, want.uuid, got.UUID, want.note)
	case want.companion != nil && *want.companion != "":
		require.Equal(t, uuid.NewSHA1(uuid.MustParse(*want.companion), []byte("$$heatmap")).String(), got.UUID,
			want.note)
	case want.companion != nil:
		require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-5`, got.UUID)
	default:
		require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, got.UUID)
	}
	if want.properties != "" {
		var data struct {
			Properties json.RawMessage `json:"properties"`
		}
		require.NoError(t, json.Unmarshal(got.Data, &data))
		require.Equal(t, withoutRepairs(want.properties), string(data.Properties),
			"properties keep their bytes: %s", want.note)
	}
	headers := map[string]string{
		"token": want.token, "distinct_id": want.distinctID, "event": want.event, "uuid": got.UUID,
		"timestamp": strconv.FormatInt(got.Timestamp.UnixMilli(), 10), "now": message.Headers["now"],
	}
	require.Equal(t, want.historical, got.HistoricalMigration)
	if want.historical {
		headers["historical_migration"] = "true"
	}
	if want.split {
		headers["skip_heatmap_processing"] = "true"
	}
	require.Equal(t, headers, message.Headers, want.note)
	now, err := time.Parse(time.RFC3339Nano, message.Headers["now"])
	require.NoError(t, err)
	require.Equal(t, got.Now, now)
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(message.Value, &fields))
	require.Subset(t, []string{"uuid", "distinct_id", "ip", "data", "now", "sent_at", "token", "event", "timestamp",
		"historical_migration", "is_cookieless_mode"},
		slices.Collect(maps.Keys(fields)), "nothing stands in the value that the protocol does not name")
}

// withoutRepairs applies to the recorded bytes the one repair that valid JSON may need: browsers send lone surrogates
// as lower-case escapes. Only a few rows have them.
func withoutRepairs(properties string) string {
	var out strings.Builder
	for i := 0; i < len(properties); {
		if strings.HasPrefix(properties[i:], `\\`) {
			out.WriteString(`\\`)
			i += 2
			continue
		}
		if strings.HasPrefix(properties[i:], `\ud`) && i+6 <= len(properties) && properties[i+3] >= '8' {
			pair := properties[i+3] < 'c' && i+12 <= len(properties) && strings.HasPrefix(properties[i+6:], `\ud`) &&
				properties[i+9] >= 'c'
			if pair {
				out.WriteString(properties[i : i+12])
				i += 12
				continue
			}
			out.WriteString(`\ufffd`)
			i += 6
			continue
		}
		out.WriteByte(properties[i])
		i++
	}
	return out.String()
}
