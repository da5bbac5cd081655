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

// BenchmarkScan50 is one scan and the building of the events of a batch of 50; the figures are for one event.
func BenchmarkScan50(b *testing.B) {
	decoder := decode.New(route.Fixed(1<<30), memory.NewBudget(1<<30))
	payload, err := decoder.Decode(decode.Input{Body: benchmarkBatch(b)})
	require.NoError(b, err)
	d, config := newDocument(), DefaultConfig()
	batch := events.Batch{Received: received}
	b.SetBytes(int64(len(payload.Bytes)))
	b.ReportAllocs()
	for b.Loop() {
		if d.scan(payload.Bytes) != nil {
			b.Fatal(d.Err)
		}
		if _, err := d.hydrate(&batch, &config, intake{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
}

// benchmarkBatch is what a server SDK sends: a gzip batch of 50 events, about 52 KB before compression.
func benchmarkBatch(tb testing.TB) []byte {
	batch, err := os.ReadFile("../../testkit/testdata/batch50.json.gz")
	require.NoError(tb, err)
	return batch
}
