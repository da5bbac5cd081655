package decode

import (
	"bytes"
	"encoding/base64"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/transport/memory"
)

const (
	bombSize  = 1 << 30
	bombChunk = 1 << 20
)

// repeated returns a stream of bombSize spaces. Every chunk after the first is what the encoder puts out for the
// second.
func repeated(t *testing.T, encoder func(io.Writer) flusher) []byte {
	t.Helper()
	var packed bytes.Buffer
	writer := encoder(&packed)
	chunk := []byte(strings.Repeat(" ", bombChunk))
	ends := [4]int{}
	for i := 1; i < len(ends); i++ {
		_, err := writer.Write(chunk)
		require.NoError(t, err)
		require.NoError(t, writer.Flush())
		ends[i] = packed.Len()
	}
	out := packed.Bytes()
	require.Equal(t, out[ends[1]:ends[2]], out[ends[2]:ends[3]], "chunks are alike from the second on")
	return append(bytes.Clone(out[:ends[1]]), bytes.Repeat(out[ends[1]:ends[2]], bombSize/bombChunk-1)...)
}

// lz64Bomb returns bombSize times "a". Each code names the entry that is about to be made.
func lz64Bomb() []byte {
	w := &lzWriter{}
	size, width, left := reserved, 2, 1
	grown := func() {
		size++
		if left--; left == 0 {
			left = 1 << width
			width++
		}
	}
	w.put(codeByte, width)
	w.put('a', 8)
	grown()
	for text, next := 1, 2; text < bombSize; next++ {
		w.put(size, width)
		grown()
		text += next
	}
	w.put(codeEnd, width)
	return []byte(w.text())
}

func bombs(t *testing.T) map[string]Input {
	space := strings.Repeat(" ", bombChunk)
	gz := repeated(t, newGzip)
	honest, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	return map[string]Input{
		"gzip":                     {Body: gz},
		"gzip of many members":     {Body: bytes.Repeat(packOnce(t, newGzip, space), bombSize/bombChunk)},
		"gzip in base64 in a form": {Body: []byte("data=" + base64.StdEncoding.EncodeToString(gz))},
		"deflate":                  {Body: repeated(t, newDeflate), ContentEncoding: "deflate"},
		"zlib":                     {Body: repeated(t, newZlib), ContentEncoding: "deflate"},
		"br":                       {Body: repeated(t, newBrotli), ContentEncoding: "br"},
		"zstd of many frames": {Body: bytes.Repeat(honest.EncodeAll([]byte(space), nil), bombSize/bombChunk),
			ContentEncoding: "zstd"},
		"zstd in one frame": {Body: repeated(t, newZstdStream), ContentEncoding: "zstd"},
		"lz64":              {Body: lz64Bomb(), QueryHint: "lz64"},
	}
}

// allocated returns how many bytes f allocates, which is no less than the memory that f needs at any time.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

func TestABombCostsHardlyAnyMemory(t *testing.T) {
	const limit = 32 << 20
	// constant is for the buffers that grow up to memory.MaxPooled, the tables and windows of the decompressors, and
	// the output of base64. It is well below the limit.
	const constant = 16 << 20
	for name, bomb := range bombs(t) {
		t.Run(name, func(t *testing.T) {
			t.Logf("%d bytes", len(bomb.Body))
			budget := memory.NewBudget(limit)
			decoder := newDecoder(limit, budget)
			cost := allocated(func() {
				_, err := decoder.Decode(bomb)
				require.ErrorContains(t, err, "payload would exceed 33554432 bytes")
			})
			t.Logf("%d bytes allocated", cost)
			require.Less(t, cost, int64(constant))
			require.Zero(t, budget.InUse())
		})
	}
}

func TestALargePayloadCostsItsOwnSizeAndNoMore(t *testing.T) {
	const size, constant = 16 << 20, 12 << 20
	text := `{"a":"` + strings.Repeat("abcdefgh", size/8-1) + `"}`
	for name, in := range map[string]Input{
		"gzip":                              {Body: packOnce(t, newGzip, text)},
		"br":                                {Body: packOnce(t, newBrotli, text), ContentEncoding: "br"},
		"deflate":                           {Body: packOnce(t, newDeflate, text), ContentEncoding: "deflate"},
		"zstd":                              {Body: packZstd(t, text)},
		"zstd that does not say its length": {Body: pack(t, newZstdStream, text)},
	} {
		t.Run(name, func(t *testing.T) {
			budget := memory.NewBudget(size + constant)
			decoder := newDecoder(size, budget)
			cost := allocated(func() {
				payload, err := decoder.Decode(in)
				require.NoError(t, err)
				require.Len(t, payload.Bytes, len(text))
				require.Less(t, budget.InUse(), int64(size+memory.MaxPooled))
				payload.Release()
			})
			require.Less(t, cost, int64(size+constant))
			require.Zero(t, budget.InUse())
		})
	}
}

func TestWhatWasInflatedCountsWhenItIsInflatedAgain(t *testing.T) {
	const limit = 1 << 20
	inner := packOnce(t, newGzip, `{"a":"`+strings.Repeat("x", limit-100)+`"}`)
	inner = append(inner, bytes.Repeat(packOnce(t, newGzip, ""), 5000)...)
	_, err := newDecoder(limit, nil).Decode(Input{Body: inner})
	require.NoError(t, err)
	outer := packOnce(t, newGzip, base64.StdEncoding.EncodeToString(inner))
	_, err = newDecoder(limit, nil).Decode(Input{Body: outer})
	require.ErrorContains(t, err, "Decompressed payload would exceed 1048576 bytes")
}

func TestAClaimedLengthIsNotBelievedFar(t *testing.T) {
	packed := packOnce(t, newGzip, event)
	copy(packed[len(packed)-4:], "\xff\xff\xff\x03") // 64 MiB
	decoder := newDecoder(100<<20, nil)
	cost := allocated(func() {
		_, err := decoder.Decode(Input{Body: packed})
		require.Equal(t, errGzip, err)
	})
	require.Less(t, cost, int64(1<<20))
}

func TestABrotliStreamSaysItsWindow(t *testing.T) {
	for bits := 10; bits <= 24; bits++ {
		var packed bytes.Buffer
		writer := brotli.NewWriterOptions(&packed, brotli.WriterOptions{Quality: 5, LGWin: bits})
		_, err := writer.Write([]byte(event))
		require.NoError(t, err)
		require.NoError(t, writer.Close())
		require.Equal(t, int64(1)<<bits, brotliWindow(packed.Bytes()), "%d bits", bits)
	}
}
