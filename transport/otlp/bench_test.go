package otlp

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

// accepting is a sink that takes everything.
type accepting struct{}

func (accepting) Write(_ context.Context, batch *events.Batch) {
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
}

// benchmark handles a request again and again.
func benchmark(b *testing.B, body []byte, handle func(*Handler, context.Context, *route.Request) route.Response) {
	budget := memory.NewBudget(1 << 30)
	pipeline, err := events.NewPipeline(zap.NewNop(), tally.NoopScope)
	require.NoError(b, err)
	handler := newHandler(DefaultConfig(), posthog.DefaultConfig(), decode.New(route.Fixed(100<<20), budget), budget,
		events.NewProcessor(pipeline, accepting{}, events.NewLedger(), zap.NewNop(), tally.NoopScope), tally.NoopScope)
	request := requestOf(typeProtobuf, body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if response := handle(handler, context.Background(), request); response.Status != 200 {
			b.Fatal(response.Body)
		}
	}
}

var aResource = []*commonpb.KeyValue{
	str("service.name", "checkout"), str("service.version", "1.2.3"), str("service.instance.id", "8c2d1f0e"),
	str("telemetry.sdk.name", "opentelemetry"), str("telemetry.sdk.language", "go"), str("host.name", "ip-10-0-0-1"),
	str("k8s.pod.name", "checkout-6f7d9c"), str("deployment.environment", "production"), num("process.pid", 7),
}

// BenchmarkLogs100 handles a request with 100 log records, as an SDK sends it.
func BenchmarkLogs100(b *testing.B) {
	record := &logspb.LogRecord{
		TimeUnixNano: began, ObservedTimeUnixNano: began, SeverityNumber: 9, SeverityText: "INFO",
		Body: str("", "order 4711 has been paid").GetValue(), TraceId: traceID, SpanId: spanID,
		Attributes: []*commonpb.KeyValue{str("user.id", "u-1"), str("code.function", "pay"), num("order", 4711)},
	}
	benchmark(b, marshal(b, logsOf(aResource, slices.Repeat([]*logspb.LogRecord{record}, 100)...)), (*Handler).Logs)
}

// BenchmarkTraces20 handles a request with 20 spans about AI.
func BenchmarkTraces20(b *testing.B) {
	span := spanOf(
		str("gen_ai.operation.name", "chat"), str("gen_ai.system", "openai"), str("gen_ai.request.model", "gpt-4"),
		num("gen_ai.usage.input_tokens", 100), num("gen_ai.usage.output_tokens", 20), str("user.id", "u-1"),
		str("gen_ai.input.messages", `[{"role":"user","parts":[{"type":"text","content":"hello"}]}]`),
		str("gen_ai.output.messages", `[{"role":"assistant","parts":[{"type":"text","content":"hi"}]}]`),
	)
	benchmark(b, marshal(b, tracesOf(aResource, slices.Repeat([]*tracepb.Span{span}, 20)...)), (*Handler).Traces)
}
