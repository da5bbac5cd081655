package posthog

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

// BenchmarkScan50 measures one scan of a batch of 50 events, and the making of these events. The figures are for one
// event.
func BenchmarkScan50(b *testing.B) {
	decoder := decode.New(route.Fixed(1<<30), memory.NewBudget(1<<30))
	payload, err := decoder.Decode(decode.Input{Body: benchmarkBatch(b)})
	require.NoError(b, err)
	d, config := newDocument(), DefaultConfig()
	batch := events.Batch{Received: received, Events: make([]events.Event, 50)}
	b.SetBytes(int64(len(payload.Bytes)))
	b.ReportAllocs()
	from := intake{request: &route.Request{}}
	for b.Loop() {
		if d.scan(payload.Bytes) != nil {
			b.Fatal(d.Err)
		}
		if _, err := d.hydrate(&batch, &config, from); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
}

// benchmarkBatch returns the batch of a server SDK: 50 events in gzip, about 52 KB before compression.
func benchmarkBatch(tb testing.TB) []byte {
	batch, err := os.ReadFile("../../testkit/testdata/batch50.json.gz")
	require.NoError(tb, err)
	return batch
}
