package otlp

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/memory"
)

const (
	// logsAround and spansAround stand around the items of a request, and neighbour is both a record and a span.
	logsAround  = `{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s]}]}]}`
	spansAround = `{"resourceSpans":[{"scopeSpans":[{"spans":[%s]}]}]}`
	neighbour   = `{"name":"next","attributes":[{"key":"gen_ai.a","value":{"stringValue":"b"}}]}`
)

// One bad value never takes its neighbours along, and empty means empty: the record stays, with all else that it has.
func TestABadValueOfARecordCostsOnlyItself(t *testing.T) {
	attributes := func(list string) string { return `"attributes":` + list }
	value := func(value string) string { return attributes(`[{"key":"a","value":` + value + `}]`) }
	for _, test := range []struct {
		member string
		// name is the property that the member becomes, and want what the property has to be; nil is absent or null.
		name string
		want any
	}{
		{`"timeUnixNano":""`, "", nil},
		{`"timeUnixNano":"-1"`, "", nil},
		{`"timeUnixNano":"abc"`, "", nil},
		{`"timeUnixNano":1.5`, "", nil},
		{`"timeUnixNano":true`, "", nil},
		{`"timeUnixNano":{}`, "", nil},
		{`"timeUnixNano":[1]`, "", nil},
		{`"timeUnixNano":"99999999999999999999"`, "", nil},
		{`"timeUnixNano":1e100000000`, "", nil},
		{`"time_unix_nano":"abc"`, "", nil},
		{`"observedTimeUnixNano":"abc"`, "observed_timestamp", nil},
		{`"observedTimeUnixNano":" 1714557600000000000 ","spanId":5`, "observed_timestamp", "2024-05-01T10:00:00Z"},
		{`"observed_time_unix_nano":"1e18","spanId":5`, "observed_timestamp", "2001-09-09T01:46:40Z"},
		{`"flags":"x"`, "trace_flags", 0.},
		{`"flags":" 1"`, "trace_flags", 1.},
		{`"flags":-1`, "trace_flags", 0.},
		{`"flags":4294967296`, "trace_flags", 0.},
		{`"severityText":5`, "severity_text", "5"},
		{`"severity_text":true`, "severity_text", "true"},
		{`"severityText":{"a":"b"}`, "severity_text", nil},
		{`"severityText":[]`, "severity_text", nil},
		{`"severityNumber":"9"`, "severity_number", 9.},
		{`"severity_number":" 17 "`, "severity_number", 17.},
		{`"severityNumber":"INFO"`, "severity_number", 9.},
		{`"severityNumber":"severity_number_error"`, "severity_number", 17.},
		{`"severityNumber":"SEVERITY_NUMBER_ERROR","spanId":5`, "severity_number", 17.},
		{`"severityNumber":"loud"`, "severity_number", 0.},
		{`"severityNumber":""`, "severity_number", 0.},
		{`"severityNumber":1.5`, "severity_number", 0.},
		{`"severityNumber":9,"spanId":5`, "severity_number", 9.},
		{`"severityNumber":"` + strings.Repeat("9", 200) + `"`, "severity_number", 0.},
		{`"severityNumber":{}`, "severity_number", 0.},
		{`"traceId":1`, "trace_id", nil},
		{`"traceId":"!"`, "trace_id", nil},
		{`"spanId":{}`, "span_id", nil},
		{`"body":"hello"`, "body", "hello"},
		{`"body":5`, "body", 5.},
		{`"body":5.5`, "body", 5.5},
		{`"body":1e400`, "body", nil},
		{`"body":true`, "body", true},
		{`"body":[]`, "body", []any{}},
		{`"body":["a",1,[null,{"intValue":"x"}],{"boolValue":false}]`, "body",
			[]any{"a", 1., []any{nil, nil}, false}},
		{`"body":{"stringValue":5}`, "body", "5"},
		{`"body":{"stringValue":1.50}`, "body", "1.50"},
		{`"body":{"stringValue":true}`, "body", "true"},
		{`"body":{"stringValue":{}}`, "body", nil},
		{`"body":{"string_value":5}`, "body", "5"},
		{`"body":{"intValue":"abc","stringValue":"b"}`, "body", "b"},
		{`"body":{"intValue":1,"stringValue":"b"}`, "body", 1.},
		{`"body":{"intValue":1,"intValue":2}`, "body", 1.},
		{`"body":{"arrayValue":[]}`, "body", []any{}},
		{`"body":{"arrayValue":[{"intValue":"1"},"x"]}`, "body", []any{1., "x"}},
		{`"body":{"arrayValue":{"values":[null,{"intValue":1},5,{"intValue":""}]}}`, "body", []any{nil, 1., 5., nil}},
		{`"body":{"arrayValue":{"values":{"intValue":1}}}`, "body", []any{1.}},
		{`"body":{"arrayValue":"x"}`, "body", nil},
		{`"body":{"kvlistValue":[]}`, "body", map[string]any{}},
		{`"body":{"kvlistValue":[{"key":"k","value":{"intValue":1}}]}`, "body", map[string]any{"k": 1.}},
		{`"body":{"kvlistValue":{"values":{"k":1}}}`, "body", map[string]any{"k": 1.}},
		{value(`{"intValue":"5.5"}`), "attributes", map[string]any{"a": 5.5}},
		{value(`{"intValue":5.5}`), "attributes", map[string]any{"a": 5.5}},
		{value(`{"intValue":1e30}`), "attributes", map[string]any{"a": 1e30}},
		{value(`{"intValue":" 5"}`), "attributes", map[string]any{"a": 5.}},
		{value(`{"intValue":"abc"}`), "attributes", map[string]any{}},
		{value(`{"intValue":""}`), "attributes", map[string]any{}},
		{value(`{"intValue":true}`), "attributes", map[string]any{}},
		{value(`{"doubleValue":"inf"}`), "attributes", map[string]any{}},
		{value(`{"doubleValue":"nan"}`), "attributes", map[string]any{}},
		{value(`{"doubleValue":""}`), "attributes", map[string]any{}},
		{value(`{"doubleValue":"1.5 "}`), "attributes", map[string]any{"a": 1.5}},
		{value(`{"boolValue":"true"}`), "attributes", map[string]any{"a": true}},
		{value(`{"boolValue":"False"}`), "attributes", map[string]any{"a": false}},
		{value(`{"boolValue":1}`), "attributes", map[string]any{"a": true}},
		{value(`{"boolValue":"0"}`), "attributes", map[string]any{"a": false}},
		{value(`{"boolValue":"maybe"}`), "attributes", map[string]any{}},
		{value(`{"bytesValue":"!"}`), "attributes", map[string]any{}},
		{value(`{"bytesValue":5}`), "attributes", map[string]any{}},
		{value(`"b"`), "attributes", map[string]any{"a": "b"}},
		{value(`[]`), "attributes", map[string]any{"a": []any{}}},
		{attributes(`{}`), "attributes", map[string]any{}},
		{attributes(`""`), "attributes", map[string]any{}},
		{attributes(`5`), "attributes", map[string]any{}},
		{attributes(`[null,5,{"key":"a","value":{"intValue":"1"}},"x",[]]`), "attributes", map[string]any{"a": 1.}},
		{attributes(`{"key":"a","value":{"intValue":"1"}}`), "attributes", map[string]any{"a": 1.}},
		{attributes(`{"0":null,"1":{"key":"a","value":{"intValue":"1"}},"3":5,"4":{"key":"b","value":2}}`),
			"attributes", map[string]any{"a": 1., "b": 2.}},
		{attributes(`{"http.\u0061":"GET","none":null,"n":{"intValue":"2"}}`), "attributes",
			map[string]any{"http.a": "GET", "n": 2.}},
		{attributes(`[{"key":5,"value":{"intValue":"1"}}]`), "attributes", map[string]any{"5": 1.}},
		{`"unknown":[{"intValue":"x"}],"flags":"x"`, "trace_flags", 0.},
		{`"unknown":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `,"flags":"x"`, "trace_flags", 0.},
	} {
		t.Run(test.member, func(t *testing.T) {
			record := `{` + test.member + `,"eventName":"this"}`
			s := newService(t, DefaultConfig())
			response := s.logs(typeJSON, fmt.Appendf(nil, logsAround, record+","+neighbour))
			require.Equal(t, 200, response.Status, response.Body)
			require.Equal(t, "{}", response.Body)
			require.Len(t, s.sink.kept, 2)
			require.True(t, s.sink.batch.Repaired)
			require.Equal(t, int64(1), s.scope.Snapshot().Counters()["json_repaired_total+"].Value())
			got := properties(t, s.sink.kept[0])
			require.Equal(t, "this", got["event_name"])
			require.Equal(t, map[string]any{"gen_ai.a": "b"}, properties(t, s.sink.kept[1])["attributes"])
			if test.name == "" {
				require.Equal(t, received, s.sink.kept[0].Timestamp)
				return
			}
			require.Equal(t, test.want, got[test.name])
		})
	}
}

func TestABadValueOfASpanCostsOnlyItself(t *testing.T) {
	for _, test := range []struct {
		member, name string
		want         any
	}{
		{`"startTimeUnixNano":"","endTimeUnixNano":5`, "$otel_end_time_unix_nano", "5"},
		{`"startTimeUnixNano":"1","endTimeUnixNano":"-1"`, "$otel_start_time_unix_nano", "1"},
		{`"traceId":7`, "$ai_trace_id", nil},
		{`"traceId":"5b8efff798038103d269b633813fc60c","spanId":"not an id"`, "$ai_trace_id",
			"5b8efff798038103d269b633813fc60c"},
		{`"kind":"2"`, "", nil},
		{`"kind":"CLIENT"`, "", nil},
		{`"kind":[]`, "", nil},
		{`"status":{"code":"2","message":"broken"}`, "$ai_error", "broken"},
		{`"status":{"code":"error","message":5}`, "$ai_error", "5"},
		{`"status":{"code":"Unset","message":5}`, "$ai_error", nil},
		{`"status":[]`, "$ai_error", nil},
		{`"status":"failed"`, "$ai_error", nil},
		{`"events":{},"links":""`, "", nil},
		{`"events":[null,{"name":5,"attributes":{}}]`, "", nil},
		{`"links":[{"traceId":5},null]`, "", nil},
		{`"droppedAttributesCount":"many"`, "", nil},
	} {
		t.Run(test.member, func(t *testing.T) {
			span := `{` + test.member + `,"attributes":[{"key":"gen_ai.a","value":{"intValue":"5"}}]}`
			s := newService(t, DefaultConfig())
			response := s.traces(typeJSON, fmt.Appendf(nil, spansAround, span+","+neighbour))
			require.Equal(t, 200, response.Status, response.Body)
			require.Empty(t, strings.Trim(response.Body, "{}"))
			require.Len(t, s.sink.kept, 2)
			require.True(t, s.sink.batch.Repaired)
			got := properties(t, s.sink.kept[0])
			require.Equal(t, 5., got["gen_ai.a"])
			require.Equal(t, "next", properties(t, s.sink.kept[1])["$ai_span_name"])
			require.Equal(t, test.want, got[test.name])
		})
	}
}

func TestABadValueAroundRecordsCostsNoRecord(t *testing.T) {
	records := `"logRecords":[` + neighbour + `,null,5,"x",{"flags":"x"}]`
	scope := `"scopeLogs":[{"scope":[],` + records + `,"schemaUrl":5},null]`
	const deep = 47
	for _, test := range []struct {
		kept int
		body string
	}{
		{2, `{"resourceLogs":[{"resource":[],` + scope + `},null]}`},
		{2, `{"resourceLogs":{"resource":"x",` + scope + `}}`},
		{2, `{"resource_logs":{"0":{"resource":{"attributes":5},` + scope + `}}}`},
		{2, `{"resourceLogs":[{"resource":{"attributes":[null]},"scope_logs":{"scope":{"name":5},` + records + `}}]}`},
		{4, `{"resourceLogs":[{` + scope + `}]}` + "\n" + `{"resourceLogs":[{` + scope + `}]}`},
		{2, strings.Repeat(fmt.Sprintf(logsAround, `{"flags":"x","body":`+nestedJSON(deep)+`}`), 2)},
		{2, `{"x":NaN,"resourceLogs":[{` + scope + `}]}`},
		{1, fmt.Sprintf(logsAround, `{"body":{"doubleValue":NaN},"flags":-Infinity,"spanId":5}`)},
	} {
		s := newService(t, DefaultConfig())
		response := s.logs(typeJSON, []byte(test.body))
		require.Equal(t, 200, response.Status, "%s: %s", test.body, response.Body)
		require.Len(t, s.sink.kept, test.kept, test.body)
		require.True(t, s.sink.batch.Repaired)
	}
}

func TestWhatCannotBeMendedIsRefusedForWhatIsWrong(t *testing.T) {
	bad := fmt.Sprintf(logsAround, `{"flags":"x"}`)
	const end, inRecords = "unexpected end of JSON at byte ", `{"resourceLogs":[{"scopeLogs":[{"logRecords":`
	lists := strings.Repeat("[", 60) + strings.Repeat("]", 60)
	for _, test := range []struct{ body, message string }{
		{`[]`, "the request at byte 0 is not an object"},
		{bad + ` "canary"`, fmt.Sprintf("the request at byte %d is not an object", len(bad)+1)},
		{`{"resourceLogs":"canary"}`, "resourceLogs at byte 16 is neither a list nor an object"},
		{`{"resource_logs":5}`, "resourceLogs at byte 17 is neither a list nor an object"},
		{`{"x":NaN,"resourceLogs":5}`, "resourceLogs at byte 25 is neither a list nor an object"},
		{`{"resourceLogs":[],"resourceLogs":[]}`,
			"resourceLogs stands twice in one object, the second time at byte 34"},
		{bad + `{`, end + strconv.Itoa(len(bad)+1)},
		{`{"x":NaN,"resourceLogs":[}]}`, "expected a value at byte 25"},
		{fmt.Sprintf(logsAround, `{"flags":"x","body":`+nestedJSON(60)+`}`), errDepth.Error()},
		{fmt.Sprintf(logsAround, `{"body":`+lists+`}`), errDepth.Error()},
		{inRecords + `[{"flags":"x","body":`, end + "66"},
		{inRecords + `[{"flags":"x"},`, end + "60"},
		{inRecords + `{"0":`, end + "50"},
		{inRecords + `[{"attributes":{"x":`, end + "65"},
	} {
		s := newService(t, DefaultConfig())
		response := s.logs(typeJSON, []byte(test.body))
		require.Equal(t, 400, response.Status, test.body)
		require.Equal(t, `{"code":3,"message":"failed to parse request: invalid OTLP/JSON: `+test.message+`"}`,
			response.Body, test.body)
		require.Empty(t, s.sink.kept)
	}
}

func TestValidJSONIsNotMended(t *testing.T) {
	for _, record := range []string{
		`{"severityNumber":"SEVERITY_NUMBER_ERROR"}`, `{"severityNumber":17,"body":null,"attributes":[]}`,
		`{"attributes":[{"key":"code","value":{"stringValue":"9"}},{"key":"kind"}]}`, `{"unknown":{"kind":"x"}}`,
	} {
		s := newService(t, DefaultConfig())
		require.Equal(t, 200, s.logs(typeJSON, fmt.Appendf(nil, logsAround, record)).Status)
		require.Len(t, s.sink.kept, 1)
		require.False(t, s.sink.batch.Repaired, record)
	}
}

// What is mended may be larger than what was sent, so its memory and its values count as well.
func TestWhatIsMendedIsReservedFirst(t *testing.T) {
	body := fmt.Appendf(nil, logsAround, `{"body":[1`+strings.Repeat(",1", 100_000)+`]}`)
	decoded := request{lease: memory.NewBudget(1 << 30).Lease(), kind: logAnswers}
	require.Nil(t, decoded.decodeJSON(body, &logspb.LogsData{}))
	held := decoded.lease.Held()
	require.Greater(t, held, int64(100_000*(valueSize+len(`{"intValue":1},`))))
	for _, test := range []struct {
		budget int64
		refuse bool
	}{{held, false}, {held - 1, true}, {int64(len(body)) * 5, true}, {int64(len(body)) * 2, true}} {
		limited := request{lease: memory.NewBudget(test.budget).Lease(), kind: logAnswers}
		fault := limited.decodeJSON(body, &logspb.LogsData{})
		require.Equal(t, test.refuse, fault != nil, test.budget)
	}

	body = fmt.Appendf(nil, logsAround, `{"body":[1`+strings.Repeat(",1", maxValues)+`]}`)
	s := newService(t, DefaultConfig())
	response := s.logs(typeJSON, body)
	require.Equal(t, 413, response.Status)
	require.Contains(t, response.Body, "request holds more than 500000 values")
}

// FuzzValueMender checks that the library takes all that was mended, and that the size is told before.
func FuzzValueMender(f *testing.F) {
	f.Add(false, []byte(fmt.Sprintf(logsAround, `{"body":[1,"x",null,{}],"attributes":{"a":1}},null`)))
	f.Add(true, []byte(fmt.Sprintf(spansAround, `{"kind":"x","status":[],"events":{"0":{"name":5}}}`)))
	f.Add(true, []byte(fmt.Sprintf(spansAround, `{"traceId":"x","attributes":[{"key":1,"value":{"intValue":"5.5"}}]}`)))
	f.Add(false, []byte(`{"resourceLogs":{"resource":{"attributes":{"key":"a","value":1e1}}}}{}`))
	f.Fuzz(func(t *testing.T, spans bool, body []byte) {
		text, _ := jsonscan.Repair(body)
		var into proto.Message = &logspb.LogsData{}
		if spans {
			into = &tracepb.TracesData{}
		}
		descriptor := into.ProtoReflect().Descriptor()
		counted := newValueMender(text)
		if counted.requests(descriptor) != nil {
			return
		}
		written := newValueMender(text)
		written.out = []byte{}
		require.NoError(t, written.requests(descriptor))
		require.Len(t, written.out, counted.size)
		require.Equal(t, counted.changed, written.changed)
		require.True(t, unmarshalJSON(written.out, into), "%s", written.out)
		if !counted.changed && counted.scan.Deep == 0 {
			require.True(t, unmarshalJSON(text, into), "%s", text)
		}
	})
}
