package testkit_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/posthog"
)

// encoding is a sink that builds the Kafka messages and accepts the events: all of the service's own work, without sarama's.
type encoding struct{ *kafka.Encoder }

func (e encoding) Write(_ context.Context, batch *events.Batch) {
	e.Encode(batch)
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
}

// hotPath is the protocol and all behind it but sarama.
func hotPath(tb testing.TB) *posthog.Handler {
	budget := decode.NewBudget(1 << 30)
	pipeline, err := events.NewPipeline(tally.NoopScope)
	require.NoError(tb, err)
	processor := events.NewProcessor(pipeline, encoding{kafka.NewEncoder(kafka.DefaultConfig())}, events.NewLedger(), zap.NewNop(), tally.NoopScope)
	return posthog.NewHandler(posthog.DefaultConfig(), decode.New(100<<20, budget), budget, processor, tally.NoopScope)
}

// BenchmarkCapture50 is one request with a gzip batch of 50 events: decode, scan, pipeline, and the building of the Kafka
// messages. ns/event is for one event.
func BenchmarkCapture50(b *testing.B) {
	handler, body := hotPath(b), benchmarkBatch(b)
	b.ReportAllocs()
	for b.Loop() {
		capture(b, handler, body)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
}

func capture(tb testing.TB, handler *posthog.Handler, body []byte) {
	response := handler.Capture(context.Background(), &posthog.Request{
		Path: "/batch/", ContentType: "application/json", ContentEncoding: "gzip", ClientIP: "192.0.2.1",
		Body: body, Received: time.Now().UTC(),
	})
	if response.Status != 200 {
		tb.Fatal(response.Body)
	}
}

// An event costs at most two allocations on its way from the wire to sarama, and a batch of fifty far fewer: the one
// figure of the hot path that does not depend on the machine.
func TestABatchOfFiftyCostsFewAllocations(t *testing.T) {
	handler, body := hotPath(t), benchmarkBatch(t)
	allocations := testing.AllocsPerRun(50, func() { capture(t, handler, body) })
	require.LessOrEqual(t, allocations, 50.0)
}

// benchmarkBatch is what a server SDK sends: a gzip batch of 50 events, about 55 KB before compression. Ids are random, as
// they are in life, so that the compression is what SDKs get: about 6 to 1.
func benchmarkBatch(tb testing.TB) []byte {
	var text, packed bytes.Buffer
	random := rand.New(rand.NewPCG(1, 2))
	id := func() string {
		return fmt.Sprintf("%08x-%04x-7%03x-8%03x-%012x", random.Uint32(), random.Uint32()&0xffff, random.Uint32()&0xfff, random.Uint32()&0xfff, random.Uint64()&0xffffffffffff)
	}
	text.WriteString(`{"api_key":"phc_benchmark","batch":[`)
	for i := range 50 {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, `{"event":"$pageview","uuid":"%s","distinct_id":"%s","timestamp":"2026-11-24T11:59:%02d.%03dZ","properties":{`+
			`"$os":"Linux","$browser":"Chrome","$device_type":"Desktop","$current_url":"https://app.example.com/projects/%d/insights?tab=%d","$host":"app.example.com","$pathname":"/projects/%d/insights",`+
			`"$browser_version":156,"$browser_language":"en-GB","$screen_height":720,"$screen_width":1280,"$viewport_height":720,"$viewport_width":1280,"$lib":"web","$lib_version":"1.449.2",`+
			`"$insert_id":"%016x","$time":%d.%03d,"$device_id":"%s","$active_feature_flags":["beta-ui","new-nav","fast-path"],`+
			`"$feature/beta-ui":true,"$feature/new-nav":"variant-%d","$referrer":"$direct","$referring_domain":"$direct","$session_id":"%s","$window_id":"%s",`+
			`"plan":"enterprise","seats":%d,"price":%d.5,"nested":{"a":[1,2,3,{"b":null}],"note":"a \"quoted\" text with an umlaut \u00fc"}}}`,
			id(), id(), i, random.IntN(1000), random.IntN(100000), i%5, random.IntN(100000), random.Uint64(), 1795383045+i, random.IntN(1000), id(),
			i%3, id(), id(), random.IntN(500), random.IntN(9000))
	}
	text.WriteString(`],"sent_at":"2026-11-24T11:59:59.500Z"}`)
	writer := gzip.NewWriter(&packed)
	_, err := writer.Write(text.Bytes())
	require.NoError(tb, err)
	require.NoError(tb, writer.Close())
	tb.Logf("%d bytes, %d compressed", text.Len(), packed.Len())
	return packed.Bytes()
}
