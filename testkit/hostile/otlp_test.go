//go:build hostile && linux

package hostile

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A few kilobytes of OTLP, in which every record repeats what is said once, take no core from the good client.
func TestOTLPCostsWhatItWeighs(t *testing.T) {
	text := func(n int) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: strings.Repeat(`"`, n)}}
	}
	logs := func(scope string, records int, attributes ...*commonpb.KeyValue) []byte {
		return marshal(&logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{
			Resource: &resourcepb.Resource{Attributes: attributes},
			ScopeLogs: []*logspb.ScopeLogs{{
				Scope: &commonpb.InstrumentationScope{Name: scope}, LogRecords: make([]*logspb.LogRecord, records),
			}},
		}}})
	}
	many := func(n int) (attributes []*commonpb.KeyValue) {
		for range n {
			attributes = append(attributes, &commonpb.KeyValue{Key: "posthogDistinctId", Value: text(8)})
		}
		return attributes
	}
	for _, a := range []attack{
		{name: "otlp-cost/attribute", message: func() message {
			body := logs("", 40_000, &commonpb.KeyValue{Key: "a", Value: text(1_000_000)})
			return post("/i/v1/logs", zip(body), asProto, inGzip, authorize)
		}},
		{name: "otlp-cost/attributes", message: func() message {
			return post("/i/v1/logs", zip(logs("", 40_000, many(40_000)...)), asProto, inGzip, authorize)
		}},
		{name: "otlp-cost/scope", message: func() message {
			return post("/i/v1/logs", zip(logs(strings.Repeat("x", 9_000_000), 10_000)), asProto, inGzip, authorize)
		}},
		{name: "otlp-cost/spans", message: func() message {
			spans := make([]*tracepb.Span, 100)
			for i := range spans {
				spans[i] = &tracepb.Span{
					TraceId: make([]byte, 16), SpanId: []byte{0, 0, 0, 0, 0, 0, 0, byte(i)},
					Attributes: []*commonpb.KeyValue{{Key: "gen_ai.system", Value: text(8)}},
				}
			}
			return post("/i/v0/ai/otel", zip(marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
				Resource:   &resourcepb.Resource{Attributes: many(60_000)},
				ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}},
			}}})), asProto, inGzip, authorize)
		}},
	} {
		t.Run(a.name, func(t *testing.T) {
			a.attackers, a.answers = 8, []int{
				http.StatusOK, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable,
			}
			m := a.message()
			require.Less(t, len(m.body), 90_000, "the attack is a small request")
			siege(t, start(t, narrow...), a, 3*time.Second, bounds{memory: budget + beside})
		})
	}
}

func marshal(m proto.Message) []byte {
	text, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return text
}
