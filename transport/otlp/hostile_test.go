package otlp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

// nested returns a value within so many lists.
func nested(depth int) *commonpb.AnyValue {
	value := str("", "x").GetValue()
	for range depth {
		value = &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{
			Values: []*commonpb.AnyValue{value},
		}}}
	}
	return value
}

// nestedWire is nested in protobuf, for depths at which the library refuses to write it.
func nestedWire(depth int) []byte {
	value := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "x")
	for range depth {
		list := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), value)
		value = protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), list)
	}
	return value
}

// within returns a message that holds another message in the field.
func within(field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), message)
}

func nestedJSON(depth int) string {
	return strings.Repeat(`{"arrayValue":{"values":[`, depth) + `{"stringValue":"x"}` + strings.Repeat(`]}}`, depth)
}

func TestValuesNestALimitedNumberOfLevels(t *testing.T) {
	s := newService(t, DefaultConfig())
	require.Equal(t, 200, s.logs(typeProtobuf, marshal(t, logsOf(nil, &logspb.LogRecord{Body: nested(40)}))).Status)
	require.Equal(t, 200,
		s.logs(typeJSON,
			[]byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":`+nestedJSON(40)+`}]}]}]}`)).Status)
	require.Equal(t, string(s.sink.kept[0].Raw.Properties), string(s.sink.kept[1].Raw.Properties))
	require.Contains(t, string(s.sink.kept[0].Raw.Properties), strings.Repeat("[", 40)+`"x"`+strings.Repeat("]", 40))

	for _, depth := range []int{60, 10_000} {
		response := s.logs(typeProtobuf, within(1, within(2, within(2, within(5, nestedWire(depth))))))
		require.Equal(t, 400, response.Status)
		_, message := status(t, response.Body)
		require.Equal(t, "failed to parse request: invalid protobuf: values are nested too deeply", message)

		response = s.logs(typeJSON,
			[]byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":`+nestedJSON(depth)+`}]}]}]}`))
		require.Equal(t, 400, response.Status)
		require.Contains(t, response.Body, "nested")
	}
	response := s.logs(typeJSON, []byte(`{"unknown":`+strings.Repeat("[", 1_000_000)+`}`))
	require.Equal(t, 400, response.Status)
}

func TestHostileRequestsAreRefused(t *testing.T) {
	span := func(fields ...[]byte) []byte { return within(1, within(2, within(2, slices.Concat(fields...)))) }
	for _, test := range []struct {
		name, contentType string
		body              []byte
		status            int
	}{
		{"a bomb of values in two bytes each", typeProtobuf, span(slices.Repeat(within(9, nil), 600_000)), 413},
		{"a bomb of spans in two bytes each", typeProtobuf,
			within(1, within(2, slices.Repeat(within(2, nil), 600_000))), 413},
		{"a bomb of values, compressed", typeProtobuf, packed(t, span(slices.Repeat(within(9, nil), 6_000_000))), 413},
		{"a bomb of values in JSON", typeJSON, []byte(`{"resourceSpans":[` + strings.Repeat("{},", 600_000) + `{}]}`),
			413},
		{"a bomb of texts in two bytes each", typeProtobuf,
			packed(t, within(1, within(1, within(3, slices.Repeat(within(3, nil), 600_000))))), 413},
		{"a bomb of texts in JSON", typeJSON,
			[]byte(`{"resourceSpans":[{"resource":{"entityRefs":[{"idKeys":[""` + strings.Repeat(`,""`, 600_000) +
				`]}]}}]}`), 413},
		{"texts whose count is hidden behind colons", typeJSON,
			[]byte(`{"resourceSpans":[{"resource":{"entityRefs":[{"idKeys":[""` + strings.Repeat(`,""`, 600_000) +
				`]}]}}` + strings.Repeat(":", 600_000)), 413},
		{"texts whose count is hidden behind members", typeJSON,
			[]byte(`{"resourceSpans":[{"resource":{"entityRefs":[{"idKeys":[""` + strings.Repeat(`,""`, 600_000) +
				`]}]}}],""` + strings.Repeat(`:""`, 600_000)), 413},
		{"a bomb of zeros", typeProtobuf, packed(t, make([]byte, 20<<20)), 413},
		{"many spans", typeProtobuf, within(1, within(2, slices.Repeat(within(2, nil), 1001))), 400},
		{"a group without end", typeProtobuf, []byte{0x0b}, 400},
		{"groups within groups", typeProtobuf, slices.Repeat([]byte{0x0b}, 1_000_000), 400},
		{"a length beyond the end", typeProtobuf, []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, 400},
		{"a length that overflows", typeProtobuf,
			[]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, 400},
		{"field zero", typeProtobuf, []byte{0x02, 0x00}, 400},
		{"a number of a hundred million digits", typeJSON,
			[]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":1e100000000}]}]}]}`), 200},
		{"a number of many zeros", typeJSON,
			[]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"flags":0.` + strings.Repeat("0", 100_000) +
				`e-999999999}]}]}]}`), 200},
		{"a list", typeJSON, []byte(`[]`), 400},
		{"more after the end", typeJSON, []byte(`{}x`), 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			require.Equal(t, test.status, s.traces(test.contentType, test.body).Status)
			require.Zero(t, s.ledger.Snapshot().Received)
		})
	}
}

// Every event repeats its resource, so what a resource may have, and what the events of a request may come to, is
// bounded.
func TestWhatRequestsBecomeIsBounded(t *testing.T) {
	many := make([]*commonpb.KeyValue, 20_000)
	for i := range many {
		many[i] = num(fmt.Sprint(i), 1)
	}
	same := slices.Repeat([]*commonpb.KeyValue{num("k", 1)}, 50_000)
	records := slices.Repeat([]*logspb.LogRecord{{}}, 10_000)
	spans := slices.Repeat([]*tracepb.Span{spanOf(str("gen_ai.a", "b"))}, 100)
	for _, test := range []struct {
		name   string
		budget int64
		status int
		kept   int
		send   func(*service) route.Response
	}{
		{"a large resource of many records", 32 << 20, 413, 0,
			func(s *service) route.Response { return s.logs(typeProtobuf, marshal(t, logsOf(many, records...))) }},
		{"a resource of one key of many records", 32 << 20, 200, 10_000,
			func(s *service) route.Response { return s.logs(typeProtobuf, marshal(t, logsOf(same, records...))) }},
		{"a large resource of many spans", 64 << 20, 200, 100,
			func(s *service) route.Response { return s.traces(typeProtobuf, marshal(t, tracesOf(many, spans...))) }},
		{"a large resource of many spans without room", 12 << 20, 503, 0,
			func(s *service) route.Response { return s.traces(typeProtobuf, marshal(t, tracesOf(many, spans...))) }},
		{"a resource of one key of many spans", 32 << 20, 200, 100,
			func(s *service) route.Response { return s.traces(typeProtobuf, marshal(t, tracesOf(same, spans...))) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			s.Handler.budget = memory.NewBudget(test.budget)
			response := test.send(s)
			require.Equal(t, test.status, response.Status, response.Body)
			require.Len(t, s.sink.kept, test.kept)
			require.Zero(t, s.Handler.budget.InUse())
		})
	}
}

func TestTheEventsOfARequestTogetherAreBounded(t *testing.T) {
	config := DefaultConfig()
	config.MaxResource, config.MaxAttribute, config.MaxOutput = 1000, 1000, 20_000
	resource := []*commonpb.KeyValue{str("a", strings.Repeat("x", 900))}
	for records, status := range map[int]int{12: 200, 22: 413, 200: 413} {
		s := newService(t, config)
		response := s.logs(typeJSON, marshal(t, logsOf(resource, slices.Repeat([]*logspb.LogRecord{{}}, records)...)))
		require.Equal(t, status, response.Status, "%d %s", records, response.Body)
		if status == 413 {
			require.Equal(t, `{"code":3,"message":"the events of the request come to too many bytes, with the `+
				`attributes of its resources in each of them: send smaller batches, or shorten the resources"}`,
				response.Body)
			require.Empty(t, s.sink.kept, "the whole request is refused")
		}
		s = newService(t, config)
		spans := slices.Repeat([]*tracepb.Span{spanOf(str("gen_ai.a", "b"))}, min(records, 100))
		require.Equal(t, status, s.traces(typeProtobuf, marshal(t, tracesOf(resource, spans...))).Status, records)
	}
}

func TestWhatEventsRepeatIsShortenedAndTheAnswerSaysSo(t *testing.T) {
	config := DefaultConfig()
	config.MaxAttribute, config.MaxResource = 10, 130
	list := &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{
		Values: []*commonpb.AnyValue{str("", strings.Repeat("y", 20)).GetValue()},
	}}}
	resource := []*commonpb.KeyValue{
		str("short", "0123456789"), str("long", "012345678äx"), {Key: "list", Value: list},
		str(strings.Repeat("k", 200), "v"), str("session.id", strings.Repeat("s", 100)), num("last", 1),
	}
	scope := &commonpb.InstrumentationScope{Name: strings.Repeat("n", 11), Version: "1"}
	const note = "all events of a resource repeat it: 4 texts of more than 10 bytes were cut, " +
		"and 1 attributes beyond 130 bytes of a resource were left out"
	want := map[string]any{"short": "0123456789", "long": "012345678…", "list": []any{"yyyyyyyyyy…"},
		"session.id": "ssssssssss…", "last": 1.0}

	s := newService(t, config)
	logs := logsOf(resource, &logspb.LogRecord{Attributes: []*commonpb.KeyValue{str("own", strings.Repeat("o", 1000))}})
	logs.ResourceLogs[0].ScopeLogs[0].Scope = scope
	response := s.logs(typeJSON, marshal(t, logs))
	require.Equal(t, 200, response.Status)
	require.Equal(t, `{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"`+note+`"}}`, response.Body)
	got := properties(t, s.sink.kept[0])
	require.Equal(t, want, got["resource_attributes"])
	require.Equal(t, "nnnnnnnnnn…@1", got["instrumentation_scope"])
	require.Equal(t, "ssssssssss…", got["$session_id"])
	require.Equal(t, map[string]any{"own": strings.Repeat("o", 1000)}, got["attributes"], "they are the event's own")

	s = newService(t, config)
	data := tracesOf(resource, spanOf(str("gen_ai.a", strings.Repeat("o", 1000))))
	data.ResourceSpans[0].ScopeSpans[0].Scope = scope
	response = s.traces(typeProtobuf, marshal(t, data))
	require.Equal(t, 200, response.Status)
	partial, _ := protowire.ConsumeBytes([]byte(response.Body)[1:])
	rejected, message := status(t, string(partial))
	require.Zero(t, rejected)
	require.Equal(t, note, message)
	got = properties(t, s.sink.kept[0])
	for name, value := range want {
		if name == "session.id" {
			name = "$ai_session_id"
		}
		require.Equal(t, value, got[name], name)
	}
	require.Equal(t, strings.Repeat("o", 1000), got["gen_ai.a"])
}

func TestWhatIsCutIsReservedFirst(t *testing.T) {
	resource := []*commonpb.KeyValue{str("a", strings.Repeat("x", 20_000))}
	logs := marshal(t, logsOf(resource, &logspb.LogRecord{}))
	traces := marshal(t, tracesOf(resource, spanOf(str("ai.a", "b"))))
	for _, test := range []struct {
		name string
		body []byte
		into proto.Message
		send func(*service, string, []byte) route.Response
	}{
		{"logs", logs, &logspb.LogsData{}, (*service).logs},
		{"traces", traces, &tracepb.TracesData{}, (*service).traces},
	} {
		s := newService(t, DefaultConfig())
		decoded := request{lease: memory.NewBudget(1 << 30).Lease()}
		require.Nil(t, decoded.decode(test.body, typeProtobuf, test.into))
		s.Handler.budget = memory.NewBudget(decoded.lease.Held() + eventSize + 16_000)
		require.Contains(t, []int{413, 503}, test.send(s, typeProtobuf, test.body).Status, test.name)
		require.Zero(t, s.Handler.budget.InUse())
		s.Handler.budget = memory.NewBudget(decoded.lease.Held() + eventSize + 16_400 + 120_000)
		require.Equal(t, 200, test.send(s, typeProtobuf, test.body).Status, test.name)
	}
}

func TestARequestThatTakesTooLongIsToComeAgain(t *testing.T) {
	config := DefaultConfig()
	config.MaxTime = 1
	s := newService(t, config)
	for _, response := range []route.Response{
		s.traces(typeProtobuf, marshal(t, tracesOf(nil, spanOf(str("gen_ai.a", "b"))))),
		s.logs(typeProtobuf, marshal(t, logsOf(nil, &logspb.LogRecord{}))),
	} {
		require.Equal(t, 503, response.Status)
		require.True(t, response.Retry)
		_, message := status(t, response.Body)
		require.Equal(t, "service unavailable: the request takes too long to process: send smaller batches", message)
	}
	require.Empty(t, s.sink.kept)
}

// Messages of people and models are full of braces, quotes and commas. In a text these make no values.
func TestWhatStandsInATextIsNotCounted(t *testing.T) {
	text, err := json.Marshal(strings.Repeat(`{{"a\",`, 260_000))
	require.NoError(t, err)
	s := newService(t, DefaultConfig())
	response := s.logs(typeJSON,
		[]byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":`+string(text)+`}}]}]}]}`))
	require.Equal(t, 200, response.Status, response.Body)
	require.Len(t, s.sink.kept, 1)

	for text, values := range map[string]int{
		`{}`: 1, ` { "a" : { "b" : "c" } }`: 2, `{"a":["b" , "c:", "\"{"]}`: 4, `{"a\":":{"b":[{},{"c":null}]}}`: 4,
		`{"a":1,"b":[2,3]}`: 1,
		``:                  0, `"`: 1, `{"a`: 2, `"a\`: 1,
	} {
		n, named := valuesOf([]byte(text))
		require.Equal(t, values, n, text)
		require.False(t, named)
	}
}

func TestDecodedMessagesAreAccountedFor(t *testing.T) {
	for name, attribute := range map[string]*commonpb.KeyValue{
		"no value": {}, "a number": num("a", 1), "text": str("key", "value"), "a list": {Value: nested(3)},
	} {
		body := marshal(t, tracesOf(nil, spanOf(slices.Repeat([]*commonpb.KeyValue{attribute}, 50_000)...)))
		s := newService(t, DefaultConfig())
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := request{lease: s.budget.Lease()}
		var data tracepb.TracesData
		require.Nil(t, r.decode(body, typeProtobuf, &data))
		runtime.GC()
		runtime.ReadMemStats(&after)
		taken := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		require.LessOrEqual(t, taken, r.lease.Held()*5/4, name)
		require.Greater(t, taken, r.lease.Held()/8, name)
		runtime.KeepAlive(&data)
		r.lease.Release()
	}
}

func FuzzOTLP(f *testing.F) {
	data := tracesOf([]*commonpb.KeyValue{str("service.name", "s")}, spanOf(
		str("gen_ai.operation.name", "chat"), str("gen_ai.input.messages", `[{"role":"user"}]`),
		num("gen_ai.usage.input_tokens", 1),
		&commonpb.KeyValue{Key: "list", Value: nested(2)},
	))
	data.ResourceSpans[0].ScopeSpans[0].Spans[0].Events = []*tracepb.Span_Event{{Name: "gen_ai.choice",
		Attributes: []*commonpb.KeyValue{str("message", "{}")}}}
	f.Add(true, true, marshal(f, data))
	f.Add(true, false,
		[]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",`+
			`"attributes":[{"key":"gen_ai.a","value":{"doubleValue":"NaN"}},{"key":"$ai_model",`+
			`"value":{"bytesValue":"AAEC"}}]}]}]}]}`))
	f.Add(false, true,
		marshal(f,
			logsOf([]*commonpb.KeyValue{str("a", "b")},
				&logspb.LogRecord{Body: nested(3), Attributes: []*commonpb.KeyValue{str("user.id", "u")}})))
	f.Add(false, false,
		[]byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1",`+
			`"body":{"kvlistValue":{"values":[{"key":"a","value":{"intValue":"5"}}]}}}]}]}]}`))
	f.Add(false, false, packed(f, []byte(`{"resourceLogs":[]}`)))
	f.Add(false, true, bytes.ReplaceAll(marshal(f, logsOf([]*commonpb.KeyValue{str("a", "latin")},
		&logspb.LogRecord{Body: nested(3)})), []byte("latin"), []byte("l\xe4tin")))
	f.Add(false, false, []byte(aRecord+"\n"+aRecord))
	statuses := []int{200, 400, 413, 503}
	f.Fuzz(func(t *testing.T, traces, protobuf bool, body []byte) {
		s := newService(t, DefaultConfig())
		contentType := typeJSON
		if protobuf {
			contentType = typeProtobuf
		}
		send := s.logs
		if traces {
			send = s.traces
		}
		response := send(contentType, body)
		require.True(t, slices.Contains(statuses, response.Status), "%d %s", response.Status, response.Body)
		require.Equal(t, contentType, response.ContentType)
		if !protobuf {
			require.True(t, json.Valid([]byte(response.Body)), response.Body)
		}
		ids := map[string]bool{}
		for _, event := range s.sink.kept {
			properties(t, event)
			require.True(t, json.Valid(event.Raw.DistinctID))
			require.True(t, json.Valid(event.Raw.Timestamp))
			require.NotEmpty(t, event.DistinctID)
			ids[event.UUID.String()] = true
		}
		if response.Status != 200 {
			require.Empty(t, s.sink.kept)
		}
		if !traces {
			require.Len(t, ids, len(s.sink.kept), "every record is an event of its own")
		}
		require.LessOrEqual(t, len(s.sink.kept), int(s.ledger.Snapshot().Received))
		require.Zero(t, s.ledger.Snapshot().Failed[events.ReasonUnsettled])
	})
}

func TestValuesOfEveryKindAreShortened(t *testing.T) {
	list := func(values ...*commonpb.AnyValue) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{
			ArrayValue: &commonpb.ArrayValue{Values: values},
		}}
	}
	object := func(members ...*commonpb.KeyValue) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{
			KvlistValue: &commonpb.KeyValueList{Values: members},
		}}
	}
	bits := func(n int) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: make([]byte, n)}}
	}
	text := func(n int) *commonpb.AnyValue { return str("", strings.Repeat("x", n)).GetValue() }
	whole := strings.Repeat("x", 10)
	for _, test := range []struct {
		name         string
		value        *commonpb.AnyValue
		want         any
		cut, omitted int
	}{
		{"bytes", bits(5), "0000000000", 0, 0},
		{"many bytes", bits(6), "0000000000", 1, 0},
		{"an object", object(str("a", whole), str("b", whole+"x")),
			map[string]any{"a": whole, "b": whole + "…"}, 1, 0},
		{"an object with a long key", object(str(strings.Repeat("k", 200), "v")), nil, 0, 1},
		{"an object with many members", object(slices.Repeat([]*commonpb.KeyValue{str("k", "v")}, 20)...), nil, 0, 1},
		{"a list", list(text(11), text(11)), []any{whole + "…", whole + "…"}, 2, 0},
		{"a long list", list(slices.Repeat([]*commonpb.AnyValue{bits(1)}, 20)...), nil, 0, 1},
		{"texts of several bytes a character", str("", "123456789ä").GetValue(), "123456789…", 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := DefaultConfig()
			config.MaxAttribute, config.MaxResource = 10, 150
			s := newService(t, config)
			s.decoder = decode.New(route.Fixed(5000), s.budget)
			resource := []*commonpb.KeyValue{{Key: "a", Value: test.value}}
			response := s.logs(typeJSON, marshal(t, logsOf(resource, &logspb.LogRecord{})))
			require.Equal(t, 200, response.Status)
			want := map[string]any{}
			if test.want != nil {
				want["a"] = test.want
			}
			require.Equal(t, want, properties(t, s.sink.kept[0])["resource_attributes"])
			note := fmt.Sprintf("%d texts of more than 10 bytes were cut, and %d attributes", test.cut, test.omitted)
			if test.cut+test.omitted == 0 {
				require.Equal(t, "{}", response.Body)
			} else {
				require.Contains(t, response.Body, note)
			}

			// Beside a record that is rejected, both are told.
			quotes := &logspb.LogRecord{Body: str("", strings.Repeat(`"`, 3000)).GetValue()}
			response = s.logs(typeJSON, marshal(t, logsOf(resource, quotes)))
			require.Contains(t, response.Body, `"rejectedLogRecords":"1"`)
			require.Contains(t, response.Body, "the event is larger than 5000 bytes")
			if test.cut+test.omitted > 0 {
				require.Contains(t, response.Body, "; all events of a resource repeat it: "+note)
			}
		})
	}
}
