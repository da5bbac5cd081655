package otlp

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/route"
)

// recordedValue is a value of OTLP/JSON, of the kinds that posthog-js sends.
type recordedValue struct {
	StringValue *string `json:"stringValue"`
	IntValue    *string `json:"intValue"`
	ArrayValue  *struct {
		Values []recordedValue `json:"values"`
	} `json:"arrayValue"`
}

func (v recordedValue) plain(t *testing.T) any {
	switch {
	case v.StringValue != nil:
		return *v.StringValue
	case v.IntValue != nil:
		n, err := strconv.ParseFloat(*v.IntValue, 64)
		require.NoError(t, err)
		return n
	default:
		require.NotNil(t, v.ArrayValue)
		list := make([]any, 0, len(v.ArrayValue.Values))
		for _, element := range v.ArrayValue.Values {
			list = append(list, element.plain(t))
		}
		return list
	}
}

type recordedAttributes []struct {
	Key   string        `json:"key"`
	Value recordedValue `json:"value"`
}

func (a recordedAttributes) plain(t *testing.T) map[string]any {
	all := map[string]any{}
	for _, attribute := range a {
		all[attribute.Key] = attribute.Value.plain(t)
	}
	return all
}

// recorded is a request of posthog-js, with what the recorder has read in it.
type recorded struct {
	Path     string            `json:"path"`
	RawQuery string            `json:"raw_query"`
	Headers  map[string]string `json:"headers"`
	Body     []byte            `json:"body_b64"`
	JSON     struct {
		ResourceLogs []struct {
			Resource  struct{ Attributes recordedAttributes } `json:"resource"`
			ScopeLogs []struct {
				LogRecords []struct {
					TimeUnixNano   string
					SeverityNumber float64
					SeverityText   string
					Body           recordedValue
					Attributes     recordedAttributes
				}
			}
		}
	} `json:"json"`
}

func recordings(t *testing.T) []recorded {
	file, err := os.Open("testdata/logs.jsonl")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	var rows []recorded
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var row recorded
		require.NoError(t, json.Unmarshal(lines.Bytes(), &row))
		rows = append(rows, row)
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, rows)
	return rows
}

// Section 2 of the SDKs, row Logs: text/plain, gzip by its bytes, the token in the query.
func TestLogsOfPosthogJSBecomeEvents(t *testing.T) {
	for _, row := range recordings(t) {
		s := newService(t, DefaultConfig())
		response := s.Logs(context.Background(), &route.Request{
			Path: row.Path, RawQuery: row.RawQuery, ContentType: row.Headers["content-type"], Body: row.Body,
			Received: received,
		})
		require.Equal(t, 200, response.Status, response.Body)
		require.Equal(t, "{}", response.Body)
		require.Equal(t, route.TypeJSON, response.ContentType)
		require.Equal(t, "phc_test", s.sink.batch.Token)

		kept := s.sink.kept
		for _, resource := range row.JSON.ResourceLogs {
			for _, scope := range resource.ScopeLogs {
				for _, record := range scope.LogRecords {
					require.NotEmpty(t, kept)
					event := kept[0]
					kept = kept[1:]
					attributes, got := record.Attributes.plain(t), properties(t, event)
					require.Equal(t, "$log", event.Name)
					require.Equal(t, events.LaneLogs, event.Lane)
					require.True(t, event.Routing.SkipPerson)
					require.Equal(t, attributes["posthogDistinctId"], event.DistinctID)
					require.Equal(t, attributes["sessionId"], event.SessionID)
					require.Equal(t, attributes["sessionId"], got["$session_id"])
					require.Equal(t, attributes["window.id"], got["$window_id"])
					require.Equal(t, attributes, got["attributes"])
					require.Equal(t, resource.Resource.Attributes.plain(t), got["resource_attributes"])
					require.Equal(t, got["resource_attributes"].(map[string]any)["service.name"], got["service_name"])
					require.Equal(t, record.Body.plain(t), got["body"])
					require.Equal(t, record.SeverityText, got["severity_text"])
					require.Equal(t, record.SeverityNumber, got["severity_number"])
					require.Equal(t, record.TimeUnixNano, strconv.FormatInt(event.Timestamp.UnixNano(), 10))
				}
			}
		}
		require.Empty(t, kept)
	}
}

func TestARecordSaysAllThatItHas(t *testing.T) {
	s := newService(t, DefaultConfig())
	data := logsOf([]*commonpb.KeyValue{str("service.name", "shop"), str("sessionId", "s1")}, &logspb.LogRecord{
		TimeUnixNano: began, ObservedTimeUnixNano: began + 1,
		SeverityNumber: logspb.SeverityNumber_SEVERITY_NUMBER_ERROR, SeverityText: "ERROR",
		Body: &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{
			Values: []*commonpb.KeyValue{str("a", "b")},
		}}},
		TraceId: traceID, SpanId: spanID, Flags: 1, EventName: "order",
		Attributes: []*commonpb.KeyValue{num("n", 1), {Key: "none"}},
	})
	data.ResourceLogs[0].ScopeLogs[0].Scope = &commonpb.InstrumentationScope{Name: "lib", Version: "2"}
	require.Equal(t, 200, s.logs(typeProtobuf, marshal(t, data)).Status)
	event := s.sink.kept[0]
	require.Equal(t, map[string]any{
		"body": map[string]any{"a": "b"}, "severity_text": "ERROR", "severity_number": 17., "service_name": "shop",
		"event_name": "order",
		"trace_id":   "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174", "trace_flags": 1.,
		"instrumentation_scope": "lib@2",
		"observed_timestamp":    "2026-11-24T11:00:00.12345679Z", "$session_id": "s1",
		"attributes":          map[string]any{"n": 1.},
		"resource_attributes": map[string]any{"service.name": "shop", "sessionId": "s1"},
	}, properties(t, event))
	require.Equal(t, "5b8efff798038103d269b633813fc60c", event.DistinctID, "a record without a user has its trace's id")
	require.Equal(t, time.Unix(0, int64(began)).UTC(), event.Timestamp)
}

// Many bridges of logging libraries set only the time at which they saw the record.
func TestARecordWithoutATimeIsDatedWhenItWasObserved(t *testing.T) {
	s := newService(t, DefaultConfig())
	body := marshal(t, logsOf(nil, &logspb.LogRecord{ObservedTimeUnixNano: began}))
	require.Equal(t, 200, s.logs(typeProtobuf, body).Status)
	require.Equal(t, time.Unix(0, int64(began)).UTC(), s.sink.kept[0].Timestamp)
	require.Zero(t, s.sink.kept[0].Notes)
}

func TestARecordsOwnSessionAndWindowGoBeforeThoseOfItsResource(t *testing.T) {
	s := newService(t, DefaultConfig())
	data := logsOf([]*commonpb.KeyValue{str("sessionId", "shared"), str("window.id", "shared")},
		&logspb.LogRecord{Attributes: []*commonpb.KeyValue{str("sessionId", "own"), str("window.id", "own")}},
		&logspb.LogRecord{})
	require.Equal(t, 200, s.logs(typeProtobuf, marshal(t, data)).Status)
	for i, want := range []string{"own", "shared"} {
		event := s.sink.kept[i]
		got := properties(t, event)
		require.Equal(t, want, event.SessionID)
		require.Equal(t, want, got["$session_id"])
		require.Equal(t, want, got["$window_id"])
	}
}

func TestARecordThatSaysNothingIsAnEvent(t *testing.T) {
	s := newService(t, DefaultConfig())
	require.Equal(t, 200, s.logs(typeProtobuf, marshal(t, logsOf(nil, &logspb.LogRecord{}))).Status)
	event := s.sink.kept[0]
	require.JSONEq(t, `{"body":null,"severity_number":0,"trace_flags":0,"attributes":{},"resource_attributes":{}}`,
		string(event.Raw.Properties))
	require.Equal(t, event.UUID.String(), event.DistinctID)
	require.Equal(t, received, event.Timestamp)
}

func TestARecordSentAgainIsTheSameEvent(t *testing.T) {
	line := &logspb.LogRecord{TimeUnixNano: began, Body: str("", "hello").GetValue()}
	later := &logspb.LogRecord{TimeUnixNano: began + 1, Body: str("", "hello").GetValue()}
	send := func(resource string, token string) []events.Event {
		s := newService(t, DefaultConfig())
		r := requestOf(typeProtobuf,
			marshal(t, logsOf([]*commonpb.KeyValue{str("service.name", resource)}, line, line, later)))
		r.Header = route.Headers{"Authorization": "Bearer " + token}
		require.Equal(t, 200, s.Logs(context.Background(), r).Status)
		return s.sink.kept
	}
	first, again := send("a", "k"), send("a", "k")
	ids := map[string]bool{}
	for i := range first {
		require.Equal(t, first[i].UUID, again[i].UUID)
		ids[first[i].UUID.String()] = true
	}
	for _, event := range append(send("b", "k"), send("a", "other")...) {
		ids[event.UUID.String()] = true
	}
	require.Len(t, ids, 9, "equal lines, other times, other services and other projects are apart")
}

func TestHostileTextStaysJSON(t *testing.T) {
	s := newService(t, DefaultConfig())
	text := "\x00\x1f\"\\\u2028\u00e4\U0001f600\x7f" + strings.Repeat("\n", 100)
	require.Equal(t, 200, s.logs(typeProtobuf, marshal(t, logsOf(nil, &logspb.LogRecord{
		Body: str("", text).GetValue(), Attributes: []*commonpb.KeyValue{str(text, text), str("user.id", text)},
	}))).Status)
	event := s.sink.kept[0]
	got := properties(t, event)
	require.Equal(t, text, got["body"])
	require.Equal(t, text, got["attributes"].(map[string]any)[text])
	require.Equal(t, "\ufffd"+text[1:], event.DistinctID, "as everywhere, NUL is replaced")
}
