package otlp

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// The files of these tests are what exporters of other languages, and people with other tools, have sent.

const aRecord = `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"one"}}]}]}]}`

func TestRequestsThatFollowEachOtherInOneBodyAreOne(t *testing.T) {
	other := strings.Replace(aRecord, "one", "two", 1)
	wide := "\xff\xfe"
	for _, c := range []byte(aRecord + other) {
		wide += string([]byte{c, 0})
	}
	for _, body := range []string{
		strconv.Quote(aRecord + "\n" + other), strconv.Quote(strconv.Quote(aRecord + other)),
		"\ufeff" + aRecord + other, wide,
		aRecord + "\n" + other, aRecord + "\r\n" + other + "\r\n", aRecord + other,
		"\n\n" + aRecord + "\n\n" + other + "\n",
		aRecord + "\n{}\n" + other, aRecord + strings.Replace(other, `"two"`, `"two","x":NaN`, 1),
	} {
		s := newService(t, DefaultConfig())
		response := s.logs(typeJSON, []byte(body))
		require.Equal(t, 200, response.Status, response.Body)
		require.Equal(t, "{}", response.Body)
		require.Len(t, s.sink.kept, 2, body)
		require.Equal(t, "one", properties(t, s.sink.kept[0])["body"])
		require.Equal(t, "two", properties(t, s.sink.kept[1])["body"])
	}
	s := newService(t, DefaultConfig())
	response := s.logs(typeJSON, []byte(aRecord+"\n"+`{"resourceLogs":5}`))
	require.Equal(t, 400, response.Status)
	require.Contains(t, response.Body,
		fmt.Sprintf("resourceLogs at byte %d is neither a list nor an object", len(aRecord)+len("\n{'resourceLogs':")))
	require.Empty(t, s.sink.kept)

	// In protobuf, one message behind another is one message.
	record := marshal(t, logsOf(nil, &logspb.LogRecord{Body: str("", "one").GetValue()}))
	require.Equal(t, 200, s.logs(typeProtobuf, append(record, record...)).Status)
	require.Len(t, s.sink.kept, 2)
}

// A length of 123 in protobuf is a brace, and the tag before it a line feed.
func TestBytesThatAreBothAreReadAsTheContentTypeSays(t *testing.T) {
	record := &logspb.LogRecord{}
	var body []byte
	for size := 0; len(body) < 2 || body[1] != '{'; size++ {
		record.Body = str("", strings.Repeat("x", size)).GetValue()
		body = marshal(t, &logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{
			{ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{record}}}},
		}})
	}
	require.Equal(t, byte('\n'), body[0])
	for _, contentType := range []string{typeProtobuf, typeJSON, ""} {
		s := newService(t, DefaultConfig())
		require.Equal(t, 200, s.logs(contentType, body).Status, contentType)
		require.Len(t, s.sink.kept, 1, contentType)
	}
}

func TestA200ThatKeptNothingSaysSo(t *testing.T) {
	const noRecords, noSpans = "nothing was kept: the request holds no log records",
		"nothing was kept: the request holds no spans"
	for _, test := range []struct {
		name        string
		traces      bool
		contentType string
		body        []byte
		status      int
		message     string
	}{
		{"an empty request", false, typeJSON, []byte(`{}`), 200, noRecords},
		{"an empty request for spans", true, typeJSON, []byte(`{"resourceSpans":[]}`), 200, noSpans},
		{"an empty request in protobuf", false, typeProtobuf, packed(t, nil), 200, noRecords},
		{"a resource alone", true, typeProtobuf, marshal(t, tracesOf([]*commonpb.KeyValue{str("a", "b")})), 200,
			noSpans},
		{"unknown fields alone", false, typeJSON, []byte(`{"resource_logs":[{"spans":[{}]}]}`), 200, noRecords},
		{"spans that are not about AI", true, typeProtobuf, marshal(t, tracesOf(nil, spanOf(), spanOf(str("a", "b")))),
			200, "nothing was kept: the request holds no spans about AI (others: 2)"},
		{"JSON that is no OTLP", false, typeJSON, []byte(`{"message":"hello","level":"info"}`), 400,
			"failed to parse request: expected resourceLogs, because this path takes log records, " +
				"found no list of OTLP's"},
		{"logs on the path of traces", true, typeJSON, []byte(aRecord), 400,
			"failed to parse request: expected resourceSpans, because this path takes spans, found resourceLogs"},
		{"metrics on the path of logs", false, typeJSON, []byte(`{"resource_metrics":[{}]}`), 400,
			"failed to parse request: expected resourceLogs, because this path takes log records, " +
				"found resourceMetrics"},
		{"spans in protobuf on the path of logs", false, typeProtobuf,
			marshal(t, tracesOf(nil, &tracepb.Span{TraceId: traceID})), 400,
			"failed to parse request: invalid protobuf: a field has another type than in OTLP, " +
				"where this path takes log records"},
		{"logs in protobuf on the path of traces", true, typeProtobuf,
			marshal(t, logsOf(nil, &logspb.LogRecord{TimeUnixNano: began})), 400,
			"failed to parse request: invalid protobuf: a field has another type than in OTLP, " +
				"where this path takes spans"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			send := s.logs
			if test.traces {
				send = s.traces
			}
			response := send(test.contentType, test.body)
			require.Equal(t, test.status, response.Status, response.Body)
			require.Contains(t, response.Body, test.message)
			require.Empty(t, s.sink.kept)
		})
	}
}

func TestIdsAreFoundInTheFormsThatExportersWrite(t *testing.T) {
	const trace, span = "9e2a3dc06074b17540d54de4e51e735f", "00f067aa0ba902b7"
	for name, ids := range map[string][2]string{
		"digits":                          {trace, span},
		"upper-case digits":               {strings.ToUpper(trace), strings.ToUpper(span)},
		"base64 of the bytes":             {"nio9wGB0sXVA1U3k5R5zXw==", "APBnqgupArc="},
		"a UUID":                          {"9E2A3DC0-6074-b175-40d5-4de4e51e735f", span},
		"base64 of the digits":            {"OWUyYTNkYzA2MDc0YjE3NTQwZDU0ZGU0ZTUxZTczNWY=", "MDBmMDY3YWEwYmE5MDJiNw=="},
		"base64 of the digits, no filler": {"OWUyYTNkYzA2MDc0YjE3NTQwZDU0ZGU0ZTUxZTczNWY", "MDBmMDY3YWEwYmE5MDJiNw"},
		"base64 of upper-case digits":     {"OUUyQTNEQzA2MDc0QjE3NTQwRDU0REU0RTUxRTczNUY=", "MDBGMDY3QUEwQkE5MDJCNw=="},
	} {
		s := newService(t, DefaultConfig())
		body := `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"` + ids[0] + `","spanId":"` + ids[1] +
			`","parentSpanId":"` + ids[1] + `","attributes":[{"key":"gen_ai.a","value":{"intValue":1}}]}]}]}]}`
		require.Equal(t, 200, s.traces(typeJSON, []byte(body)).Status)
		got := properties(t, s.sink.kept[0])
		require.Equal(t, trace, got["$ai_trace_id"], name)
		require.Equal(t, span, got["$ai_span_id"], name)
		require.Equal(t, span, got["$ai_parent_id"], name)
	}
	// In protobuf, too, exporters write digits in the place of bytes.
	it := spanOf(str("gen_ai.a", "b"))
	it.TraceId, it.SpanId = []byte(trace), []byte(strings.ToUpper(span))
	got := properties(t, take(t, nil, it)[0])
	require.Equal(t, trace, got["$ai_trace_id"])
	require.Equal(t, span, got["$ai_span_id"])
}

// One byte that is no UTF-8 costs no record, and the project is told of it.
func TestWhatIsNoUTF8IsReplacedInPlace(t *testing.T) {
	const bad = "caf\xe9 \xff\xfe"
	const mended = "caf\ufffd \ufffd"
	first := str(bad, strings.Repeat("x", 200)+bad)
	body := marshal(t, logsOf([]*commonpb.KeyValue{str("service.name", "latin")}, &logspb.LogRecord{
		TimeUnixNano: began, Body: nested(3), TraceId: traceID, Attributes: []*commonpb.KeyValue{num("n", -1)},
	}, &logspb.LogRecord{}))
	// The library writes no such text, so the text takes the place of another of the same size in its output.
	body = bytes.ReplaceAll(body, []byte("latin"), []byte("l\xe4tin"))
	s := newService(t, DefaultConfig())
	require.Equal(t, 200, s.logs(typeProtobuf, body).Status)
	require.Len(t, s.sink.kept, 2)
	require.True(t, s.sink.batch.Repaired)
	got := properties(t, s.sink.kept[0])
	require.Equal(t, "l\ufffdtin", got["service_name"])
	require.Equal(t, []any{[]any{[]any{"x"}}}, got["body"])
	require.Equal(t, map[string]any{"n": -1.0}, got["attributes"])
	require.Equal(t, fmt.Sprintf("%x", traceID), got["trace_id"])

	// A text that grows makes all messages around it longer, here beyond what one byte can count.
	body = within(1, within(2, within(2, within(6, append(within(1, []byte(first.GetKey())),
		within(2, within(1, []byte(first.GetValue().GetStringValue())))...)))))
	s = newService(t, DefaultConfig())
	require.Equal(t, 200, s.logs(typeJSON, body).Status)
	require.Equal(t, map[string]any{mended: strings.Repeat("x", 200) + mended},
		properties(t, s.sink.kept[0])["attributes"])

	s = newService(t, DefaultConfig())
	require.Equal(t, 200, s.logs(typeJSON, []byte(strings.Replace(aRecord, "one", bad, 1))).Status)
	require.Equal(t, mended, properties(t, s.sink.kept[0])["body"])
	require.True(t, s.sink.batch.Repaired)
}

// An answer that repeated parts of a request could carry whatever its sender wants others to read.
func TestAnAnswerQuotesNothingOfARequest(t *testing.T) {
	for _, body := range []string{
		`"canary"`, `{"resourceLogs":"canary"}`, `{"resourceLogs":[{"scopeLogs":"canary"}]}`, `{"canary":1}`, `canary`,
		`{"resourceLogs":[canary]}`, `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"canary!"}]}]}]}`,
		`{"resourceLogs":[{}],"resourceLogs":[{"canary":1}]}`, `{"resourceLogs":[{}]}canary`,
		aRecord + "\n{\"resourceLogs\":canary}",
		`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"canary"}]}]}]}`, "\x0a\x06canary",
		"\x22\x06canary",
	} {
		for _, contentType := range []string{typeJSON, typeProtobuf, ""} {
			s := newService(t, DefaultConfig())
			response := s.logs(contentType, []byte(body))
			require.NotContains(t, response.Body, "canary", "%s as %s", body, contentType)
		}
	}
}
