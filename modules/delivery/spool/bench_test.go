package spool

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const benchPayload = 1024

func benchBatch(records int) [][]byte {
	payload := make([]byte, benchPayload)
	batch := make([][]byte, records)
	for i := range batch {
		batch[i] = payload
	}
	return batch
}

// BenchmarkAppend appends batches of 50 records of 1 KiB from 16 goroutines for each processor; an operation is a
// batch.
func BenchmarkAppend(b *testing.B) {
	cfg := testConfig(b)
	cfg.MaxBytes = 1 << 40
	l := openSpool(b, cfg).Log("topic")
	batch := benchBatch(50)
	b.SetBytes(int64(len(batch) * benchPayload))
	b.SetParallelism(16)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			first, err := l.Append(b.Context(), batch)
			require.NoError(b, err)
			l.DoneRange(first, first+uint64(len(batch)))
		}
	})
	b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkRead reads records of 1 KiB in chunks of 1 MiB; an operation is a record.
func BenchmarkRead(b *testing.B) {
	l := openSpool(b, testConfig(b)).Log("topic")
	for range 100 {
		_, err := l.Append(b.Context(), benchBatch(1000))
		require.NoError(b, err)
	}
	var chunk Chunk
	b.SetBytes(benchPayload)
	b.ReportAllocs()
	b.ResetTimer()
	for read := 0; read < b.N; read += len(chunk.Records) {
		require.NoError(b, l.Read(&chunk, 1<<20))
		if len(chunk.Records) == 0 {
			l.Rewind()
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
