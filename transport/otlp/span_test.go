package otlp

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/opencapture/capture/modules/events"
)

// take sends spans and returns their events.
func take(t *testing.T, resource []*commonpb.KeyValue, spans ...*tracepb.Span) []events.Event {
	s := newService(t, DefaultConfig())
	response := s.traces(typeProtobuf, marshal(t, tracesOf(resource, spans...)))
	require.Equal(t, 200, response.Status, response.Body)
	return s.sink.kept
}

func TestWhatASpanDidNamesItsEvent(t *testing.T) {
	for _, test := range []struct {
		attributes []*commonpb.KeyValue
		want       string
	}{
		{[]*commonpb.KeyValue{str("gen_ai.operation.name", "chat")}, "$ai_generation"},
		{[]*commonpb.KeyValue{str("gen_ai.operation.name", "text_completion")}, "$ai_generation"},
		{[]*commonpb.KeyValue{str("gen_ai.operation.name", "generate_content")}, "$ai_generation"},
		{[]*commonpb.KeyValue{str("gen_ai.operation.name", "embeddings")}, "$ai_embedding"},
		{[]*commonpb.KeyValue{str("gen_ai.operation.name", "execute_tool")}, "$ai_span"},
		{[]*commonpb.KeyValue{str("gen_ai.request.model", "m")}, "$ai_span"},
		{[]*commonpb.KeyValue{str("llm.request.type", "completion")}, "$ai_generation"},
		{[]*commonpb.KeyValue{str("llm.request.type", "embedding")}, "$ai_embedding"},
		{[]*commonpb.KeyValue{str("llm.request.type", "rerank")}, "$ai_span"},
		{[]*commonpb.KeyValue{str("gen_ai.operation.name", "other"), str("llm.request.type", "chat")},
			"$ai_generation"},
		{[]*commonpb.KeyValue{str("openinference.span.kind", "LLM")}, "$ai_generation"},
		{[]*commonpb.KeyValue{str("openinference.span.kind", "EMBEDDING")}, "$ai_embedding"},
		{[]*commonpb.KeyValue{str("openinference.span.kind", "TOOL")}, "$ai_span"},
		{[]*commonpb.KeyValue{str("ai.operationId", "ai.generateText.doGenerate")}, "$ai_generation"},
		{[]*commonpb.KeyValue{str("ai.operationId", "ai.streamText.doStream")}, "$ai_generation"},
		{[]*commonpb.KeyValue{str("ai.operationId", "ai.embedMany.doEmbed")}, "$ai_embedding"},
		{[]*commonpb.KeyValue{str("ai.operationId", "ai.embed")}, "$ai_span"},
		{[]*commonpb.KeyValue{str("gen_ai.operation.name", "chat"), str("ai.operationId", "ai.toolCall")}, "$ai_span"},
		{[]*commonpb.KeyValue{num("ai.usage.tokens", 5), str("gen_ai.operation.name", "chat")}, "$ai_generation"},
		{[]*commonpb.KeyValue{str("traceloop.workflow.name", "w")}, "$ai_span"},
		{[]*commonpb.KeyValue{str("pydantic_ai.agent_name", "a")}, "$ai_span"},
	} {
		event := take(t, nil, spanOf(test.attributes...))[0]
		require.Equal(t, test.want, event.Name, "%v", test.attributes)
		require.Equal(t, events.LaneAI, event.Lane)

		root := spanOf(test.attributes...)
		root.ParentSpanId = nil
		want := test.want
		if want == "$ai_span" {
			want = "$ai_trace"
		}
		require.Equal(t, want, take(t, nil, root)[0].Name, "%v as a root", test.attributes)
	}
}

func TestASpanBecomesAnEventWithItsProperties(t *testing.T) {
	bytesValue := &commonpb.KeyValue{Key: "raw",
		Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte{0xab, 0xcd}}}}
	list := &commonpb.KeyValue{Key: "list",
		Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{
			Values: []*commonpb.AnyValue{str("", "a").GetValue(), num("", 1).GetValue(), {},
				{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}},
		}}}}
	object := &commonpb.KeyValue{Key: "object",
		Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{
			Values: []*commonpb.KeyValue{str("a", "b"), num("a", 2), str("c\n", "\x01\"\\")},
		}}}}
	nan := &commonpb.KeyValue{Key: "nan",
		Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: math.NaN()}}}
	float := &commonpb.KeyValue{Key: "float",
		Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 1e21}}}
	event := take(t,
		[]*commonpb.KeyValue{str("service.name", "shop"), str("host.name", "h"), str("process.pid", "1"),
			str("telemetry.sdk.name", "s"), str("shared", "resource")},
		spanOf(
			str("gen_ai.operation.name", "chat"), str("gen_ai.request.model", "gpt-4"),
			str("gen_ai.response.model", "gpt-4-0613"), str("gen_ai.system", "openai"),
			num("gen_ai.usage.input_tokens", 12), num("gen_ai.usage.output_tokens", 34),
			str("gen_ai.conversation.id", "c1"), str("server.address", "api.example.com"),
			str("gen_ai.input.messages", `[{"role":"user","content":"hi"}]`), str("gen_ai.output.messages", `not JSON`),
			bytesValue, list, object, nan, float, str("shared", "first"), str("shared", "span"),
			&commonpb.KeyValue{Key: "valueless"},
			str("$ai_gateway_verified", "true"), str("$ai_trace_id", "forged"),
		))[0]
	require.Equal(t, "$ai_generation", event.Name)
	require.Equal(t, `"2026-11-24T11:00:00.123456789Z"`, string(event.Raw.Timestamp))
	require.Equal(t, time.Date(2026, 11, 24, 11, 0, 0, 123456789, time.UTC), event.Timestamp)
	require.True(t, event.ClientUUID)
	require.Equal(t, map[string]any{
		"$ai_trace_id": "5b8efff798038103d269b633813fc60c", "$ai_span_id": "eee19b7ec3c1b174",
		"$ai_parent_id":        "eee19b7ec3c1b173",
		"$ai_ingestion_source": "otel", "$ai_span_name": "chat gpt-4", "$otel_span_name": "chat gpt-4",
		"$otel_start_time_unix_nano": "1795518000123456789", "$otel_end_time_unix_nano": "1795518001623456789",
		"$ai_latency": 1.5,
		"$ai_model":   "gpt-4-0613", "$ai_provider": "openai", "$ai_input_tokens": 12., "$ai_output_tokens": 34.,
		"$ai_session_id": "c1",
		"$ai_base_url":   "api.example.com", "$geoip_disable": true, "$lib": "posthog-otel", "$lib_version": "1.2.3",
		"$ai_input": []any{map[string]any{"role": "user", "content": "hi"}}, "$ai_output_choices": "not JSON",
		"service.name": "shop", "shared": "span", "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4",
		"gen_ai.response.model": "gpt-4-0613",
		"gen_ai.system":         "openai", "gen_ai.usage.input_tokens": 12., "gen_ai.usage.output_tokens": 34.,
		"gen_ai.conversation.id": "c1",
		"server.address":         "api.example.com", "raw": "abcd", "list": []any{"a", 1., nil, true},
		"object": map[string]any{"a": 2., "c\n": "\x01\"\\"},
		"nan":    nil, "float": 1e21,
	}, properties(t, event))
}

func TestAnAttributeOfThePropertysNameCountsBeforeOthers(t *testing.T) {
	got := properties(t, take(t, nil, spanOf(
		str("gen_ai.request.model", "a"), str("$ai_model", "b"), str("$ai_span_name", "c"), str("$lib", "d"),
		str("$lib_version", "e"),
		str("gen_ai.input.messages", "f"), str("$ai_input", "g"), num("$ai_latency", 7),
		str("posthog.geoip_disable", "no"),
	))[0])
	for name, want := range map[string]any{
		"$ai_model": "b", "$ai_span_name": "c", "$otel_span_name": "chat gpt-4", "$lib": "d", "$lib_version": "e",
		"$ai_input":             "g",
		"gen_ai.input.messages": "f", "$ai_latency": 7., "$geoip_disable": "no",
	} {
		require.Equal(t, want, got[name], name)
	}
	require.NotContains(t, got, "posthog.geoip_disable")
}

func TestMessagesMayBeEventsOfTheSpan(t *testing.T) {
	span := spanOf(str("gen_ai.operation.name", "chat"))
	span.Events = []*tracepb.Span_Event{
		{Name: "gen_ai.system.message",
			Attributes: []*commonpb.KeyValue{str("gen_ai.system", "openai"), str("content", "be kind")}},
		{Name: "gen_ai.user.message", Attributes: []*commonpb.KeyValue{str("content", "hi"), str("role", "customer")}},
		{Name: "something else", Attributes: []*commonpb.KeyValue{str("content", "x")}},
		{Name: "gen_ai.choice",
			Attributes: []*commonpb.KeyValue{num("index", 0), str("message", `{"content":"hello"}`)}},
	}
	got := properties(t, take(t, nil, span)[0])
	require.Equal(t,
		[]any{map[string]any{"role": "system", "content": "be kind"},
			map[string]any{"role": "customer", "content": "hi"}}, got["$ai_input"])
	require.Equal(t,
		[]any{map[string]any{"role": "assistant", "index": 0., "message": map[string]any{"content": "hello"}}},
		got["$ai_output_choices"])

	span.Events = []*tracepb.Span_Event{
		{Name: "gen_ai.content.prompt", Attributes: []*commonpb.KeyValue{str("gen_ai.prompt", `[{"role":"user"}]`)}},
		{Name: "gen_ai.content.completion", Attributes: []*commonpb.KeyValue{str("gen_ai.completion", `["a"]`)}},
	}
	got = properties(t, take(t, nil, span)[0])
	require.Equal(t, []any{map[string]any{"role": "user"}}, got["$ai_input"])
	require.Equal(t, []any{"a"}, got["$ai_output_choices"])
}

func TestASpanThatFailedSaysWhy(t *testing.T) {
	exception := func(attributes ...*commonpb.KeyValue) []*tracepb.Span_Event {
		return []*tracepb.Span_Event{
			{Name: "exception", Attributes: []*commonpb.KeyValue{str("exception.message", "an earlier one")}},
			{Name: "exception", Attributes: attributes},
			{Name: "later"},
		}
	}
	for _, test := range []struct {
		name       string
		status     *tracepb.Status
		events     []*tracepb.Span_Event
		attributes []*commonpb.KeyValue
		isError    any
		why        any
	}{
		{"fine", &tracepb.Status{Code: tracepb.Status_STATUS_CODE_OK}, exception(str("exception.message", "m")), nil,
			nil, nil},
		{"no status", nil, nil, nil, nil, nil},
		{"type and message", &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "s"},
			exception(str("exception.type", "T"), str("exception.message", "m")), nil, true, "T: m"},
		{"type", &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "s"},
			exception(str("exception.type", "T")), nil, true, "T"},
		{"no exception", &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "s"}, nil, nil, true, "s"},
		{"nothing but the code", &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}, nil, nil, true, nil},
		{"said in an attribute", &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "s"}, nil,
			[]*commonpb.KeyValue{str("$ai_error", "own"), str("$ai_is_error", "no")}, true, "own"},
	} {
		t.Run(test.name, func(t *testing.T) {
			span := spanOf(append(test.attributes, str("gen_ai.a", "b"))...)
			span.Status, span.Events = test.status, test.events
			got := properties(t, take(t, nil, span)[0])
			require.Equal(t, test.isError, got["$ai_is_error"])
			require.Equal(t, test.why, got["$ai_error"])
		})
	}
}

func TestTheUserIsNamedBySpanOrResource(t *testing.T) {
	for _, test := range []struct {
		name           string
		span, resource []*commonpb.KeyValue
		want           string
		skip           bool
	}{
		{"nobody: the trace", nil, nil, "5b8efff798038103d269b633813fc60c", true},
		{"blank: the trace", []*commonpb.KeyValue{str("user.id", "  ")}, nil, "5b8efff798038103d269b633813fc60c", true},
		{"metadata before posthog.distinct_id",
			[]*commonpb.KeyValue{str("posthog.distinct_id", "b"),
				str("ai.telemetry.metadata.posthog_distinct_id", "a")}, nil, "a", false},
		{"posthog.distinct_id before user.id",
			[]*commonpb.KeyValue{str("user.id", "b"), str("posthog.distinct_id", "a")}, nil, "a", false},
		{"user.id before enduser.id", []*commonpb.KeyValue{str("enduser.id", "b"), str("user.id", "a")}, nil, "a",
			false},
		{"any of the span before the resource", []*commonpb.KeyValue{str("enduser.id", "a")},
			[]*commonpb.KeyValue{str("posthog.distinct_id", "b")}, "a", false},
		{"an integer", []*commonpb.KeyValue{num("user.id", 12345)}, nil, "12345", false},
		{"a negative integer", []*commonpb.KeyValue{num("user.id", -1)}, nil, "-1", false},
		{"a whole double", []*commonpb.KeyValue{double("user.id", 12345678901)}, nil, "12345678901", false},
		{"a double", []*commonpb.KeyValue{double("user.id", 1.5)}, nil, "1.5", false},
		{"no number: the trace", []*commonpb.KeyValue{double("user.id", math.NaN())}, nil,
			"5b8efff798038103d269b633813fc60c", true},
		{"an integer of the resource", nil, []*commonpb.KeyValue{num("user.id", 7)}, "7", false},
		{"the resource", []*commonpb.KeyValue{str("user.id", ""), {Key: "posthog.distinct_id"}},
			[]*commonpb.KeyValue{str("user.id", "a")}, "a", false},
		{"cut as everywhere", []*commonpb.KeyValue{str("user.id", strings.Repeat("ä", 250))}, nil,
			strings.Repeat("ä", 200), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			event := take(t, test.resource, spanOf(append(test.span, str("gen_ai.a", "b"))...))[0]
			require.Equal(t, test.want, event.DistinctID)
			require.Equal(t, test.skip, event.Routing.SkipPerson)
			var raw string
			require.NoError(t, json.Unmarshal(event.Raw.DistinctID, &raw))
			require.True(t, strings.HasPrefix(raw, test.want))
		})
	}
}

func TestASpanSentAgainIsTheSameEvent(t *testing.T) {
	one, other := spanOf(str("gen_ai.a", "b")), spanOf(str("gen_ai.a", "b"))
	other.SpanId = parent
	first := take(t, nil, one, other)
	again := take(t, nil, other, one)
	require.Equal(t, first[0].UUID, again[1].UUID)
	require.Equal(t, first[1].UUID, again[0].UUID)
	require.NotEqual(t, first[0].UUID, first[1].UUID)

	// Spans without ids are told apart by what they say, and equal spans by their order.
	one.SpanId, other.SpanId = nil, make([]byte, 8)
	first, again = take(t, nil, one, other), take(t, nil, one, other)
	require.Equal(t, first[0].UUID, again[0].UUID)
	require.Equal(t, first[1].UUID, again[1].UUID)
	require.NotEqual(t, first[0].UUID, first[1].UUID)
	require.NotContains(t, properties(t, first[1]), "$ai_span_id")
}

func TestASpanWithoutTimesHappensNow(t *testing.T) {
	for _, test := range []struct {
		start, end uint64
		want       time.Time
	}{
		{0, 0, received},
		{0, began, time.Unix(0, int64(began)).UTC()},
		{began, 0, time.Unix(0, int64(began)).UTC()},
		{math.MaxUint64, math.MaxUint64, received},
	} {
		span := spanOf(str("gen_ai.a", "b"))
		span.StartTimeUnixNano, span.EndTimeUnixNano = test.start, test.end
		event := take(t, nil, span)[0]
		require.Equal(t, test.want, event.Timestamp)
		require.NotContains(t, properties(t, event), "$ai_latency")
	}
}

// OTLP/JSON writes ids as hexadecimal digits, 64-bit integers as text or numbers, and enums as numbers.
func TestJSONSaysTheSameAsProtobuf(t *testing.T) {
	span := spanOf(str("gen_ai.operation.name", "chat"), num("n", math.MaxInt64), &commonpb.KeyValue{
		Key: "d", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 0.5}},
	})
	span.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "m"}
	span.Kind = tracepb.Span_SPAN_KIND_CLIENT
	want := take(t, []*commonpb.KeyValue{str("service.name", "s")}, span)[0]

	for name, ids := range map[string]string{
		"lower case": `"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",` +
			`"parentSpanId":"eee19b7ec3c1b173"`,
		"upper case": `"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174",` +
			`"parentSpanId":"EEE19B7EC3C1B173"`,
		"base64": `"traceId":"W47/95gDgQPSabYzgT/GDA==","spanId":"7uGbfsPBsXQ=","parentSpanId":"7uGbfsPBsXM="`,
		"snake case": `"trace_id":"5b8efff798038103d269b633813fc60c","span_id":"eee19b7ec3c1b174",` +
			`"parent_span_id":"eee19b7ec3c1b173"`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			response := s.traces(typeJSON,
				[]byte(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name",`+
					`"value":{"stringValue":"s"}}]},`+
					`"scopeSpans":[{"scope":{"name":"lib","version":"1.2.3","future":1},"spans":[{`+ids+
					`,"name":"chat gpt-4","kind":3,`+
					`"startTimeUnixNano":"1795518000123456789","endTimeUnixNano":1795518001623456789,`+
					`"status":{"code":2,"message":"m"},`+
					`"attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},{"key":"n",`+
					`"value":{"intValue":"9223372036854775807"}},`+
					`{"key":"d","value":{"doubleValue":0.5}},{"key":"e","value":{}},{"key":"f",`+
					`"value":{"doubleValue":null}}]}]}]}]}`))
			require.Equal(t, 200, response.Status, response.Body)
			got := s.sink.kept[0]
			require.Equal(t, string(want.Raw.Properties), string(got.Raw.Properties))
			require.Equal(t, want.UUID, got.UUID)
			require.Equal(t, want.Timestamp, got.Timestamp)
		})
	}
}

// An id of zeros is none in either encoding.
func TestAParentOfZerosIsNone(t *testing.T) {
	want := spanOf(str("gen_ai.a", "b"))
	want.ParentSpanId = make([]byte, spanIDSize)
	require.Equal(t, "$ai_trace", take(t, nil, want)[0].Name)

	s := newService(t, DefaultConfig())
	require.Equal(t, 200,
		s.traces(typeJSON,
			[]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00000000000000000000000000000000",`+
				`"spanId":"eee19b7ec3c1b174","parentSpanId":"0000000000000000","attributes":[{"key":"gen_ai.a",`+
				`"value":{"stringValue":"b"}}]}]}]}]}`)).Status)
	got := s.sink.kept[0]
	require.Equal(t, "$ai_trace", got.Name)
	require.NotContains(t, properties(t, got), "$ai_parent_id")
	require.NotContains(t, properties(t, got), "$ai_trace_id")
	require.Equal(t, got.UUID.String(), got.DistinctID, "nobody's span does not become everybody's user")
}

// Trap 12 of the SDKs: a string cut inside an emoji.
func TestALoneSurrogateIsMended(t *testing.T) {
	s := newService(t, DefaultConfig())
	response := s.traces(typeJSON,
		[]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"gen_ai.a",`+
			`"value":{"stringValue":"x\ud83d"}},{"key":"d","value":{"doubleValue":"NaN"}},{"key":"e",`+
			`"value":{"doubleValue":NaN}}]}]}]}]}`))
	require.Equal(t, 200, response.Status, response.Body)
	got := properties(t, s.sink.kept[0])
	require.Equal(t, "x\ufffd", got["gen_ai.a"])
	require.Nil(t, got["d"])
	require.True(t, s.sink.batch.Repaired)
}
