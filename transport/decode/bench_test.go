package decode

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/transport/memory"
)

func benchmark(b *testing.B, in Input) {
	decoder := newDecoder(100<<20, memory.NewBudget(1<<30))
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		payload, err := decoder.Decode(in)
		if err != nil {
			b.Fatal(err)
		}
		size = len(payload.Bytes)
		payload.Release()
	}
	b.SetBytes(int64(size))
	b.ReportMetric(float64(len(in.Body)), "wire-bytes")
}

func BenchmarkPlain55KB(b *testing.B) { benchmark(b, Input{Body: []byte(batch(50))}) }

func BenchmarkGzip55KB(b *testing.B) {
	benchmark(b, Input{Body: packOnce(b, newGzip, batch(50))})
}

// BenchmarkGzip55KBAlone measures klauspost/compress alone.
func BenchmarkGzip55KBAlone(b *testing.B) {
	packed := packOnce(b, newGzip, batch(50))
	text := make([]byte, 64<<10)
	var src bytes.Reader
	var reader gzip.Reader
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		src.Reset(packed)
		require.NoError(b, reader.Reset(&src))
		n = 0
		for {
			m, err := reader.Read(text[n:])
			n += m
			if err != nil {
				break
			}
		}
	}
	b.SetBytes(int64(n))
}

func BenchmarkForm55KB(b *testing.B) {
	packed := base64.StdEncoding.EncodeToString([]byte(batch(50)))
	benchmark(b, Input{Body: []byte("data=" + url.QueryEscape(packed)), ContentType: formType})
}

func BenchmarkLZ64_55KB(b *testing.B) {
	benchmark(b, Input{Body: []byte(lz(batch(50))), QueryHint: "lz64"})
}

func BenchmarkZstd55KB(b *testing.B) { benchmark(b, Input{Body: packZstd(b, batch(50))}) }

func BenchmarkBrotli55KB(b *testing.B) {
	benchmark(b, Input{Body: packOnce(b, newBrotli, batch(50)), ContentEncoding: "br"})
}

func BenchmarkDeflate55KB(b *testing.B) {
	benchmark(b, Input{Body: packOnce(b, newZlib, batch(50)), ContentEncoding: "deflate"})
}
