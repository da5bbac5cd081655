package posthog

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
)

// BenchmarkScan50 is one scan and the building of the events of a batch of 50; the figures are for one event.
func BenchmarkScan50(b *testing.B) {
	decoder := decode.New(1<<30, decode.NewBudget(1<<30))
	payload, err := decoder.Decode(decode.Input{Body: benchmarkBatch(b)})
	require.NoError(b, err)
	var d document
	batch := events.Batch{Received: received}
	b.SetBytes(int64(len(payload.Bytes)))
	b.ReportAllocs()
	for b.Loop() {
		if d.scan(payload.Bytes) != nil {
			b.Fatal(d.err)
		}
		if _, err := d.hydrate(&batch, query{}, false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
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
