package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

var received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// sink keeps the events that it accepts, and judges events as it is told.
type sink struct {
	kept  []events.Event
	batch events.Batch
	judge func(int, *events.Event)
}

func (s *sink) Write(_ context.Context, batch *events.Batch) {
	s.batch = *batch
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		if s.judge != nil {
			s.judge(i, event)
		}
		if event.Accept(); event.Outcome.State == events.StateAccepted {
			kept := *event
			kept.DistinctID, kept.SessionID = strings.Clone(event.DistinctID), strings.Clone(event.SessionID)
			raw := &kept.Raw
			raw.DistinctID, raw.Timestamp, raw.Properties = bytes.Clone(raw.DistinctID), bytes.Clone(raw.Timestamp),
				bytes.Clone(raw.Properties)
			s.kept = append(s.kept, kept)
		}
	}
}

type service struct {
	*Handler
	sink   *sink
	ledger *events.Ledger
	budget *memory.Budget
	scope  tally.TestScope
}

// newHandler is NewHandler with a configuration that does not change.
func newHandler(
	config Config, protocol posthog.Config, decoder *decode.Decoder, budget *memory.Budget, processor events.Processor,
	scope tally.Scope,
) *Handler {
	handler, err := NewHandler(configs.Fixed(config, protocol), decoder, budget, processor, scope)
	if err != nil {
		panic(err)
	}
	return handler
}

func newService(tb testing.TB, config Config) *service {
	s := &service{sink: &sink{}, ledger: events.NewLedger(), budget: memory.NewBudget(256 << 20),
		scope: tally.NewTestScope("", nil)}
	pipeline, err := events.NewPipeline(zap.NewNop(), s.scope)
	require.NoError(tb, err)
	s.Handler = newHandler(config, posthog.DefaultConfig(), decode.New(route.Fixed(16<<20), s.budget), s.budget,
		events.NewProcessor(pipeline, s.sink, s.ledger, zap.NewNop(), s.scope), s.scope)
	tb.Cleanup(func() {
		totals := s.ledger.Snapshot()
		require.Equal(tb, totals.Received, totals.Ended())
		require.Zero(tb, s.budget.InUse(), "the budget is given back whole")
	})
	return s
}

const typeJSON = "application/json"

func requestOf(contentType string, body []byte) *route.Request {
	return &route.Request{
		ContentType: contentType, Body: body, ClientIP: "192.0.2.1", Received: received,
		Header: route.Headers{"Authorization": "Bearer phc_test"},
	}
}

func (s *service) traces(contentType string, body []byte) route.Response {
	return s.Traces(context.Background(), requestOf(contentType, body))
}

func (s *service) logs(contentType string, body []byte) route.Response {
	return s.Logs(context.Background(), requestOf(contentType, body))
}

func marshal(tb testing.TB, message proto.Message) []byte {
	body, err := proto.Marshal(message)
	require.NoError(tb, err)
	return body
}

func str(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key,
		Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

func double(key string, value float64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key,
		Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: value}}}
}

func num(key string, value int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}}
}

// tracesOf returns a request with the spans of one resource, which has the attributes.
func tracesOf(resource []*commonpb.KeyValue, spans ...*tracepb.Span) *tracepb.TracesData {
	return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: resource},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "lib", Version: "1.2.3"},
			Spans: spans}},
	}}}
}

func logsOf(resource []*commonpb.KeyValue, records ...*logspb.LogRecord) *logspb.LogsData {
	return &logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{
		Resource:  &resourcepb.Resource{Attributes: resource},
		ScopeLogs: []*logspb.ScopeLogs{{LogRecords: records}},
	}}}
}

var (
	traceID = []byte{0x5b, 0x8e, 0xff, 0xf7, 0x98, 0x03, 0x81, 0x03, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f, 0xc6, 0x0c}
	spanID  = []byte{0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74}
	parent  = []byte{0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x73}
	began   = uint64(time.Date(2026, 11, 24, 11, 0, 0, 123456789, time.UTC).UnixNano())
)

// spanOf returns a span about AI that has the attributes.
func spanOf(attributes ...*commonpb.KeyValue) *tracepb.Span {
	return &tracepb.Span{
		TraceId: traceID, SpanId: spanID, ParentSpanId: parent, Name: "chat gpt-4",
		StartTimeUnixNano: began, EndTimeUnixNano: began + 1_500_000_000, Attributes: attributes,
	}
}

// properties reads an event's properties, which must be JSON without a repeated key.
func properties(tb testing.TB, event events.Event) map[string]any {
	require.True(tb, json.Valid(event.Raw.Properties), "%s", event.Raw.Properties)
	decoder := json.NewDecoder(bytes.NewReader(event.Raw.Properties))
	_, err := decoder.Token()
	require.NoError(tb, err)
	seen := map[string]bool{}
	for decoder.More() {
		key, err := decoder.Token()
		require.NoError(tb, err)
		require.False(tb, seen[key.(string)], "%s stands twice", key)
		seen[key.(string)] = true
		var value json.RawMessage
		require.NoError(tb, decoder.Decode(&value))
	}
	var all map[string]any
	require.NoError(tb, json.Unmarshal(event.Raw.Properties, &all))
	return all
}

// status reads a google.rpc.Status in protobuf.
func status(tb testing.TB, body string) (code uint64, message string) {
	text := []byte(body)
	for len(text) > 0 {
		number, kind, n := protowire.ConsumeTag(text)
		require.Positive(tb, n)
		text = text[n:]
		if kind == protowire.VarintType {
			code, n = protowire.ConsumeVarint(text)
		} else {
			require.Equal(tb, protowire.Number(2), number)
			message, n = protowire.ConsumeString(text)
		}
		require.Positive(tb, n)
		text = text[n:]
	}
	return code, message
}

func packed(tb testing.TB, body []byte) []byte {
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	_, err := writer.Write(body)
	require.NoError(tb, err)
	require.NoError(tb, writer.Close())
	return out.Bytes()
}

// Section 6 of the protocol, OTEL: answers are in the encoding of the request.
func TestAnswersAreInTheEncodingOfTheRequest(t *testing.T) {
	span := marshal(t, tracesOf(nil, spanOf(num("gen_ai.usage.input_tokens", 1))))
	const spanJSON = `{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"gen_ai.a",` +
		`"value":{"intValue":"1"}}]}]}]}]}`
	for _, test := range []struct {
		name, contentType string
		body              []byte
		status            int
		answer, answerIn  string
	}{
		{"protobuf", typeProtobuf, span, 200, "", typeProtobuf},
		{"protobuf, compressed", typeProtobuf, packed(t, span), 200, "", typeProtobuf},
		{"JSON", typeJSON, []byte(spanJSON), 200, "{}", typeJSON},
		{"JSON, compressed", typeJSON, packed(t, []byte(spanJSON)), 200, "{}", typeJSON},
		{"JSON as text", "text/plain", []byte(" " + spanJSON), 200, "{}", typeJSON},
		{"JSON with a charset", "application/json; charset=utf-8", []byte(spanJSON), 200, "{}", typeJSON},
		{"JSON that is called protobuf", typeProtobuf, []byte(spanJSON), 200, "", typeProtobuf},
		{"JSON behind white space that is called protobuf", typeProtobuf, []byte("\n" + spanJSON), 200, "",
			typeProtobuf},
		{"protobuf that is called JSON", typeJSON, span, 200, "{}", typeJSON},
		{"protobuf without a type", "", span, 200, "{}", typeJSON},
		{"unknown fields", typeJSON, []byte(`{"future":[[{}]],"x":1,` + spanJSON[1:]), 200, "{}", typeJSON},
		{"nothing", typeJSON, nil, 400, `{"code":3,"message":"request missing data payload"}`, typeJSON},
		{"broken JSON", typeJSON, []byte(`{"resourceSpans":`), 400, "", typeJSON},
		{"broken protobuf", typeProtobuf, span[:len(span)-1], 400, "", typeProtobuf},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			response := s.traces(test.contentType, test.body)
			require.Equal(t, test.status, response.Status, response.Body)
			require.Equal(t, test.answerIn, response.ContentType)
			if test.status == 200 || test.answer != "" {
				require.Equal(t, test.answer, response.Body)
				return
			}
			if response.ContentType == typeProtobuf {
				code, message := status(t, response.Body)
				require.EqualValues(t, 3, code)
				require.Contains(t, message, "failed to parse request: ")
				return
			}
			var body struct {
				Code    int
				Message string
			}
			require.NoError(t, json.Unmarshal([]byte(response.Body), &body))
			require.Equal(t, 3, body.Code)
			require.Contains(t, body.Message, "failed to parse request: ")
		})
	}
}

func TestATokenIsNeeded(t *testing.T) {
	for _, test := range []struct {
		authorization, query string
		traces, logs         int
	}{
		{"Bearer phc_test", "", 200, 200},
		{"bearer phc_test", "", 200, 200},
		{"", "token=phc_test", 401, 200},
		{"", "a=b&token=phc%5ftest", 401, 200},
		{"Bearer phc_test", "token=", 200, 200},
		{"", "", 401, 401},
		{"", "token=phx_personal", 401, 401},
		{"Basic abc", "token=phc_test", 200, 200},
		{"phc_test", "", 200, 200},
		{"Bearer%20phc_test", "", 200, 200},
		{"Basic abc", "", 401, 401},
	} {
		s := newService(t, DefaultConfig())
		r := requestOf(typeJSON, []byte(`{}`)) // empty: it is the head that counts here
		r.Header, r.RawQuery = route.Headers{"Authorization": test.authorization}, test.query
		require.Equal(t, test.traces, s.Traces(context.Background(), r).Status, "%+v", test)
		response := s.Logs(context.Background(), r)
		require.Equal(t, test.logs, response.Status, "%+v", test)
		if test.logs == 401 {
			require.Contains(t, response.Body, `{"code":16,"message":"`)
		}
	}
}

// Section 6 of the protocol, OTEL: a used-up quota is a 400, because OTLP's clients send again upon a 429.
func TestOutcomesBecomeAnswers(t *testing.T) {
	fail := func(code events.Code) func(int, *events.Event) {
		return func(_ int, e *events.Event) { e.Fail(events.ReasonUnavailable, events.Errorf(code, "secret")) }
	}
	for _, test := range []struct {
		name    string
		judge   func(int, *events.Event)
		status  int
		retry   bool
		answer  string
		message string // of the protobuf answer
	}{
		{"all over quota", func(_ int, e *events.Event) { e.Drop(events.ReasonQuota) }, 400, false,
			`{"error":"quota exceeded"}`, "quota exceeded"},
		{"some over quota", func(i int, e *events.Event) {
			if i == 0 {
				e.Drop(events.ReasonQuota)
			}
		}, 200, false, "{}", ""},
		{"dropped by a rule", func(_ int, e *events.Event) { e.Drop(events.ReasonRule) }, 200, false, "{}", ""},
		{"not now", fail(events.Unavailable), 503, true, `{"code":14,"message":"transient error, please retry"}`,
			"transient error, please retry"},
		{"a fault of ours", fail(events.Internal), 500, false, `{"code":13,"message":"internal server error"}`,
			"internal server error"},
		{"too fast", func(_ int, e *events.Event) {
			e.Fail(events.ReasonRateLimited, events.Errorf(events.RateLimited, "secret"))
		}, 429, true, `{"code":8,"message":"rate limited, please retry later"}`, "rate limited, please retry later"},
		{"known already", func(_ int, e *events.Event) { e.AcceptDuplicate() }, 200, false, "{}", ""},
		{"some failed", func(i int, e *events.Event) {
			if i == 1 {
				fail(events.Unavailable)(i, e)
			}
		}, 503, true, `{"code":14,"message":"transient error, please retry"}`, "transient error, please retry"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			s.sink.judge = test.judge
			response := s.traces(typeJSON,
				[]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"gen_ai.a",`+
					`"value":{"intValue":"1"}}]},{"attributes":[{"key":"gen_ai.a","value":{"intValue":2}}]}]}]}]}`))
			require.Equal(t, test.status, response.Status, response.Body)
			require.Equal(t, test.retry, response.Retry)
			require.Equal(t, test.answer, response.Body)

			record := &logspb.LogRecord{TimeUnixNano: began}
			response = s.logs(typeProtobuf, marshal(t, logsOf(nil, record, record)))
			require.Equal(t, test.status, response.Status)
			require.Equal(t, test.retry, response.Retry)
			_, message := status(t, response.Body)
			require.Equal(t, test.message, message)
		})
	}
}

func TestWhatIsTooLargeIsRejectedAlone(t *testing.T) {
	large := strings.Repeat("x", 3000)

	s := newService(t, DefaultConfig())
	protocol := posthog.DefaultConfig()
	protocol.MaxAIEvent = 2000
	s.Handler = newHandler(DefaultConfig(), protocol, s.decoder, s.budget, s.processor, s.scope)
	other := spanOf(str("gen_ai.a", large))
	other.SpanId = parent
	response := s.traces(typeProtobuf, marshal(t, tracesOf(nil, spanOf(str("gen_ai.a", "b")), other)))
	require.Equal(t, 200, response.Status)
	partial, n := protowire.ConsumeBytes([]byte(response.Body)[1:])
	require.Positive(t, n)
	rejected, message := status(t, string(partial))
	require.Equal(t, uint64(1), rejected)
	require.Equal(t, "maximum AI event size exceeded: the event is larger than 2000 bytes", message)
	require.Len(t, s.sink.kept, 1)
	require.Equal(t, uint64(1), s.ledger.Snapshot().Rejected[events.ReasonTooLarge])

	// A log record is bounded by the limit of the decoder.
	s = newService(t, DefaultConfig())
	s.decoder = decode.New(route.Fixed(8000), s.budget)
	quotes := &logspb.LogRecord{Body: str("", strings.Repeat(`"`, 5000)).GetValue()} // of two bytes each in JSON
	response = s.logs(typeJSON, marshal(t, logsOf(nil, &logspb.LogRecord{}, quotes, &logspb.LogRecord{})))
	require.Equal(t, 200, response.Status)
	require.Equal(t, `{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"maximum event size exceeded: `+
		`the event is larger than 8000 bytes"}}`, response.Body)
	require.Len(t, s.sink.kept, 2)
}

func TestTheNumberOfSpansAndRecordsIsLimited(t *testing.T) {
	config := DefaultConfig()
	config.MaxSpans, config.MaxAISpans, config.MaxRecords = 5, 2, 3
	ai, other := spanOf(str("gen_ai.a", "b")), spanOf(str("http.method", "GET"))
	for _, test := range []struct {
		name   string
		spans  []*tracepb.Span
		status int
		answer string
	}{
		{"as many as may be", []*tracepb.Span{ai, ai, other, other, other}, 200, ""},
		{"too many", []*tracepb.Span{ai, other, other, other, other, other}, 400,
			"request holds 6 spans, the limit is 5: send smaller batches"},
		{"too many about AI", []*tracepb.Span{ai, ai, ai}, 400,
			"request holds 3 AI spans, the limit is 2: send smaller batches"},
	} {
		s := newService(t, config)
		response := s.traces(typeProtobuf, marshal(t, tracesOf(nil, test.spans...)))
		require.Equal(t, test.status, response.Status, test.name)
		_, message := status(t, response.Body)
		require.Equal(t, test.answer, message)
	}
	s := newService(t, config)
	record := &logspb.LogRecord{}
	require.Equal(t, 200, s.logs(typeProtobuf, marshal(t, logsOf(nil, record, record, record))).Status)
	response := s.logs(typeProtobuf, marshal(t, logsOf(nil, record, record, record, record)))
	require.Equal(t, 413, response.Status)
	_, message := status(t, response.Body)
	require.Equal(t, "request holds 4 log records, the limit is 3: send smaller batches", message)
}

func TestOtherSpansAreIgnoredAndCounted(t *testing.T) {
	s := newService(t, DefaultConfig())
	other := spanOf(str("http.method", "GET"))
	require.Equal(t, 200,
		s.traces(typeProtobuf, marshal(t, tracesOf(nil, other, spanOf(str("gen_ai.a", "b")), other))).Status)
	require.Equal(t, 200, s.traces(typeProtobuf, marshal(t, tracesOf(nil, other))).Status)
	require.Equal(t, int64(3), s.scope.Snapshot().Counters()["spans_ignored_total+"].Value())
	require.Equal(t, uint64(1), s.ledger.Snapshot().Received, "they are no events")
}

func TestWithoutRoomTheClientIsToldToComeAgain(t *testing.T) {
	s := newService(t, DefaultConfig())
	s.Handler.budget = memory.NewBudget(1 << 20)
	other := s.Handler.budget.Lease()
	require.True(t, other.Reserve(1<<20-100))
	body := marshal(t, tracesOf(nil, spanOf(str("gen_ai.a", "b"))))
	response := s.traces(typeProtobuf, body)
	require.Equal(t, 503, response.Status)
	require.True(t, response.Retry)
	other.Release()
	require.Zero(t, s.Handler.budget.InUse())
	require.Equal(t, 200, s.traces(typeProtobuf, body).Status)

	s.Handler.budget = memory.NewBudget(100)
	response = s.traces(typeProtobuf, body)
	require.Equal(t, 413, response.Status, "to come again would not help")
	require.False(t, response.Retry)
}

func TestRoutesRefuseAsOTLPDoes(t *testing.T) {
	s := newService(t, DefaultConfig())
	paths := map[string]route.Route{}
	for _, r := range s.Routes() {
		paths[r.Path] = r
		response := r.Refuse(&route.Request{ContentType: typeProtobuf}, events.Errorf(events.TooLarge, "too large"))
		require.Equal(t, 413, response.Status)
		_, message := status(t, response.Body)
		require.Equal(t, "too large", message)
	}
	require.Equal(t, route.AI, paths["/i/v0/ai/otel"].Group)
	require.Equal(t, int64(4<<20), paths["/i/v0/ai/otel/v1/traces"].MaxBody(nil))
	require.Equal(t, route.AI, paths["/i/v0/ai/otel/v1/logs"].Group)
	require.Equal(t, route.Logs, paths["/i/v1/logs"].Group)
	require.Len(t, paths, 4)
}

func TestConfigReportsEveryFault(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	err := Config{}.Validate()
	for _, key := range []string{"max_body", "max_spans", "max_ai_spans", "max_records", "max_attribute",
		"max_resource", "max_output", "max_time"} {
		require.ErrorContains(t, err, key)
	}
}

// What is in flight is to be sent again when the other request has ended, whatever is configured.
func TestAClientIsToldToComeAgainShortlyForWhatIsInFlight(t *testing.T) {
	s := newService(t, DefaultConfig())
	s.sink.judge = func(_ int, e *events.Event) {
		e.Fail(events.ReasonInFlight, events.Errorf(events.Unavailable, "secret"))
	}
	const span = `{"attributes":[{"key":"gen_ai.a","value":{"intValue":"1"}}]}`
	response := s.traces(typeJSON, []byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[`+span+`]}]}]}`))
	require.Equal(t, 503, response.Status)
	require.True(t, response.Retry)
	require.Equal(t, time.Second, response.RetryAfter)
}
