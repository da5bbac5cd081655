package otlp_test

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
)

func traces(t *testing.T) string {
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{
			TraceId: []byte("0123456789abcdef"), SpanId: []byte("01234567"), Name: "chat",
			Attributes: []*commonpb.KeyValue{
				{Key: "gen_ai.operation.name",
					Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "chat"}}},
				{Key: "user.id", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "ann"}}},
			},
		}}}},
	}}})
	require.NoError(t, err)
	return string(body)
}

func TestTracesReachTheTopicOfAIEvents(t *testing.T) {
	service := testkit.Start(t)
	response := service.Post("/i/v0/ai/otel/v1/traces", traces(t), "Content-Type", "application/x-protobuf",
		"Authorization", "Bearer phc_test")
	require.Equal(t, 200, response.Status, response.Body)
	require.Equal(t, "application/x-protobuf", response.Header.Get("Content-Type"))
	require.Empty(t, response.Body)

	messages := service.Messages()
	require.Len(t, messages, 1)
	require.Equal(t, "ai_events", messages[0].Topic)
	require.Equal(t, "phc_test:ann", string(messages[0].Key))
	var data struct {
		Event      string         `json:"event"`
		DistinctID string         `json:"distinct_id"`
		UUID       string         `json:"uuid"`
		Timestamp  string         `json:"timestamp"`
		Properties map[string]any `json:"properties"`
	}
	require.NoError(t, json.Unmarshal(messages[0].Envelope.Data, &data))
	require.Equal(t, "$ai_generation", data.Event)
	require.Equal(t, "ann", data.DistinctID)
	require.Equal(t, messages[0].Envelope.UUID, data.UUID)
	require.NotEmpty(t, data.Timestamp)
	require.Equal(t, "otel", data.Properties["$ai_ingestion_source"])
	require.Equal(t, "30313233343536373839616263646566", data.Properties["$ai_trace_id"])
}

// Section 2 of the SDKs, row Logs: the service takes what a browser posts, and answers so that the page may read it.
func TestLogsOfABrowserAreTaken(t *testing.T) {
	file, err := os.Open("testdata/logs.jsonl")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	require.True(t, lines.Scan())
	var row struct {
		Path     string `json:"path"`
		RawQuery string `json:"raw_query"`
		Body     []byte `json:"body_b64"`
	}
	require.NoError(t, json.Unmarshal(lines.Bytes(), &row))

	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink))
	response := service.Post(row.Path+"?"+row.RawQuery, string(row.Body), "Content-Type", "text/plain", "Origin",
		"http://shop.example")
	require.Equal(t, 200, response.Status, response.Body)
	require.Equal(t, "{}", response.Body)
	require.Equal(t, "http://shop.example", response.Header.Get("Access-Control-Allow-Origin"))
	kept := sink.Events()
	require.Len(t, kept, 2)
	require.Equal(t, events.LaneLogs, kept[0].Lane)
	require.NotEqual(t, kept[0].UUID, kept[1].UUID)
}

func TestABodyOverTheLimitIsAnsweredAsOTLPDoes(t *testing.T) {
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()), testkit.Set("otlp.max_body", "1KiB"))
	response := service.Post("/i/v0/ai/otel", string(make([]byte, 2000)), "Content-Type", "application/json",
		"Authorization", "Bearer phc_test")
	require.Equal(t, 413, response.Status)
	require.JSONEq(t, `{"code":3,"message":"maximum event size exceeded: Request body exceeds limit of 1024 bytes"}`,
		response.Body)
}

func TestABuildWithoutTheModuleServesTheRest(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Without("otlp"), testkit.Override[events.Sink](sink))
	for _, path := range []string{"/i/v0/ai/otel", "/i/v0/ai/otel/v1/traces", "/i/v0/ai/otel/v1/logs",
		"/i/v1/logs?token=k"} {
		require.Equal(t, 404, service.Post(path, `{}`, "Authorization", "Bearer k").Status, path)
	}
	require.Equal(t, 200, service.Post("/e/", `{"event":"a","distinct_id":"u","api_key":"k"}`).Status)
	require.Len(t, sink.Events(), 1)
}
