package testkit_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/dedup"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/delivery/encode"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/modules/store/local"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

// encoding is a sink that builds the Kafka messages and accepts the events. It does all of the service's own work, and
// none of the Kafka client's.
type encoding struct{ *encode.Encoder }

func (e encoding) Write(_ context.Context, batch *events.Batch) {
	e.Recycle(e.Encode(batch))
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
}

// hotPath returns the protocol with everything behind it except the Kafka client.
func hotPath(tb testing.TB) *posthog.Handler {
	return handlerOf(tb, encoding{encode.NewEncoder(produce.Settings{
		Topics: produce.DefaultTopics(), MaxMessageBytes: 1_000_000,
	})})
}

// handlerOf returns the protocol in front of stages and a sink.
func handlerOf(tb testing.TB, sink events.Sink, stages ...events.Stage) *posthog.Handler {
	budget := memory.NewBudget(1 << 30)
	pipeline, err := events.NewPipeline(zap.NewNop(), tally.NoopScope, stages...)
	require.NoError(tb, err)
	processor := events.NewProcessor(pipeline, sink, events.NewLedger(), zap.NewNop(), tally.NoopScope)
	handler, err := posthog.NewHandler(configs.Fixed(posthog.DefaultConfig()), decode.New(route.Fixed(100<<20), budget),
		budget, processor, tally.NoopScope)
	require.NoError(tb, err)
	return handler
}

// BenchmarkCapture50 handles one request with a gzip batch of 50 events: decoding, scanning, the pipeline, and the
// building of the Kafka messages. ns/event is the time of one event.
func BenchmarkCapture50(b *testing.B) {
	handler, body := hotPath(b), benchmarkBatch(b)
	b.ReportAllocs()
	for b.Loop() {
		capture(b, handler, body)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
}

// BenchmarkCapture1 handles one request with a single event that is not compressed.
func BenchmarkCapture1(b *testing.B) {
	handler, body := hotPath(b), singleEvent(b)
	b.ReportAllocs()
	for b.Loop() {
		capture(b, handler, body)
	}
}

// fresh is a stage that makes new events of those of the request before, without the cost of another request: it gives
// them uuids, or offsets, that no event had before. One request at a time may use it.
type fresh struct {
	uuids   bool
	n       uint64
	offsets []byte
}

func (*fresh) Phase() events.Phase { return events.PhaseAuth }
func (*fresh) Name() string        { return "fresh" }

func (f *fresh) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	f.offsets = f.offsets[:0]
	for i := range batch.Events {
		event := &batch.Events[i]
		f.n++
		start := len(f.offsets)
		f.offsets = strconv.AppendUint(f.offsets, 10_000_000+f.n, 10)
		if event.ClientUUID = f.uuids; f.uuids {
			copy(event.UUID[8:], f.offsets[start:])
		} else {
			event.Raw.Offset = f.offsets[start:]
		}
	}
	return nil, nil
}

// BenchmarkDedup handles the requests of BenchmarkCapture50 and BenchmarkCapture1 without and with the search for
// duplicates, in the store of a single node. No event is one.
func BenchmarkDedup(b *testing.B) {
	for _, size := range []struct {
		name   string
		events int
		body   []byte
	}{{"batch of 50", 50, benchmarkBatch(b)}, {"single event", 1, singleEvent(b)}} {
		for _, test := range []struct {
			name        string
			uuids, dups bool
		}{{"off", true, false}, {"by uuid", true, true}, {"by content", false, true}} {
			b.Run(size.name+"/"+test.name, func(b *testing.B) {
				stages := []events.Stage{&fresh{uuids: test.uuids}}
				if test.dups {
					shared := local.New(local.Config{Memory: 64 << 20, Counters: 1 << 20}, zap.NewNop(),
						tally.NoopScope)
					require.NoError(b, shared.Start(b.Context()))
					defer func() { require.NoError(b, shared.Stop(context.Background())) }()
					stage, err := dedup.NewStage(configs.Fixed(dedup.DefaultConfig()), shared, zap.NewNop(),
						tally.NoopScope)
					require.NoError(b, err)
					require.NoError(b, stage.Start(b.Context()))
					defer func() { require.NoError(b, stage.Stop(context.Background())) }()
					stages = append(stages, stage)
				}
				handler := handlerOf(b, encoding{encode.NewEncoder(produce.Settings{
					Topics: produce.DefaultTopics(), MaxMessageBytes: 1_000_000,
				})}, stages...)
				b.ReportAllocs()
				for b.Loop() {
					capture(b, handler, size.body)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size.events), "ns/event")
			})
		}
	}
}

// singleEvent returns a request with only the first event of the batch.
func singleEvent(tb testing.TB) []byte {
	packed, err := gzip.NewReader(bytes.NewReader(benchmarkBatch(tb)))
	require.NoError(tb, err)
	var sent struct {
		Batch []json.RawMessage `json:"batch"`
	}
	require.NoError(tb, json.NewDecoder(packed).Decode(&sent))
	return []byte(`{"api_key":"phc_benchmark","batch":[` + string(sent.Batch[0]) + `]}`)
}

func capture(tb testing.TB, handler *posthog.Handler, body []byte) {
	response := handler.Capture(context.Background(), &route.Request{
		Path: "/batch/", ContentType: "application/json", ContentEncoding: "gzip", ClientIP: "192.0.2.1",
		Body: body, Received: time.Now().UTC(),
	})
	if response.Status != 200 {
		tb.Fatal(response.Body)
	}
}

// A batch of fifty events costs at most fifty allocations on its way from the wire to the messages: one an event. This
// is the one figure of the hot path that does not depend on the machine.
func TestABatchOfFiftyCostsFewAllocations(t *testing.T) {
	handler, body := hotPath(t), benchmarkBatch(t)
	allocations := testing.AllocsPerRun(50, func() { capture(t, handler, body) })
	require.LessOrEqual(t, allocations, 50.0)
}

// benchmarkBatch returns a request as a server SDK sends it: a gzip batch of 50 events, about 52 KB before compression.
func benchmarkBatch(tb testing.TB) []byte {
	batch, err := os.ReadFile("testdata/batch50.json.gz")
	require.NoError(tb, err)
	return batch
}

// BenchmarkSpool50 handles the same request in ack mode spool without Kafka: the answer comes when the messages are
// synced to the disk. 16 requests at a time share the syncs. spool_bytes/event is the size of an event in the spool. As
// JSON it was 1,040 bytes.
func BenchmarkSpool50(b *testing.B) {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = []string{"127.0.0.1:1"}
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(b, err)
	producer, err := kafka.NewProducer(cfg, bootstrap, zap.NewNop(), tally.NoopScope)
	require.NoError(b, err)
	section := delivery.DefaultConfig()
	section.Ack, section.Spool.Dir, section.Spool.MaxBytes = "spool", b.TempDir(), 1<<40
	spooled, err := delivery.NewDelivery(configs.Fixed(section),
		produce.Settings{Topics: cfg.Topics, MaxMessageBytes: int(cfg.MaxMessageBytes)}, producer,
		zap.NewNop(), tally.NoopScope)
	require.NoError(b, err)
	require.NoError(b, spooled.Start(b.Context()))
	defer func() { require.NoError(b, spooled.Stop(context.Background())) }()
	handler, body := handlerOf(b, spooled), benchmarkBatch(b)
	b.ReportAllocs()
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			capture(b, handler, body)
		}
	})
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
	b.ReportMetric(float64(spooled.Usage().Bytes)/float64(b.N)/50, "spool_bytes/event")
}
