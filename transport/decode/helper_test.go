package decode

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

func newDecoder(limit int64, budget *memory.Budget) *Decoder { return New(route.Fixed(limit), budget) }

type flusher interface {
	io.WriteCloser
	Flush() error
}

func newGzip(w io.Writer) flusher    { return gzip.NewWriter(w) }
func newZlib(w io.Writer) flusher    { return zlib.NewWriter(w) }
func newBrotli(w io.Writer) flusher  { return brotli.NewWriter(w) }
func newDeflate(w io.Writer) flusher { writer, _ := flate.NewWriter(w, 6); return writer }
func newZstdStream(w io.Writer) flusher {
	writer, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	return writer
}

// pack compresses a text. It flushes half-way, so that the encoder cannot know the length of the stream.
func pack(tb testing.TB, encoder func(io.Writer) flusher, text string) []byte {
	tb.Helper()
	var packed bytes.Buffer
	writer := encoder(&packed)
	_, err := io.WriteString(writer, text[:len(text)/2])
	require.NoError(tb, err)
	require.NoError(tb, writer.Flush())
	_, err = io.WriteString(writer, text[len(text)/2:])
	require.NoError(tb, err)
	require.NoError(tb, writer.Close())
	return packed.Bytes()
}

// packOnce compresses a text in one go, as an SDK does.
func packOnce(tb testing.TB, encoder func(io.Writer) flusher, text string) []byte {
	tb.Helper()
	var packed bytes.Buffer
	writer := encoder(&packed)
	_, err := io.WriteString(writer, text)
	require.NoError(tb, err)
	require.NoError(tb, writer.Close())
	return packed.Bytes()
}

// packZstd returns one frame that says how long its content is.
func packZstd(tb testing.TB, text string) []byte {
	tb.Helper()
	writer, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(tb, err)
	return writer.EncodeAll([]byte(text), nil)
}

// batch returns the batch of a server SDK with so many events, 50 of which take about 55 KB. Its ids are random, as in
// real batches.
func batch(events int) string {
	random := rand.New(rand.NewPCG(1, 2))
	id := func() string {
		return fmt.Sprintf("%08x-%04x-7%03x-8%03x-%012x", random.Uint32(), random.Uint32()&0xffff,
			random.Uint32()&0xfff, random.Uint32()&0xfff, random.Uint64()&0xffffffffffff)
	}
	var text bytes.Buffer
	text.WriteString(`{"api_key":"phc_benchmark","batch":[`)
	for i := range events {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text,
			`{"event":"$pageview","uuid":"%s","distinct_id":"%s","timestamp":"2026-11-24T11:59:%02d.%03dZ",`+
				`"properties":{`+
				`"$os":"Linux","$browser":"Chrome","$device_type":"Desktop",`+
				`"$current_url":"https://app.example.com/projects/%d/insights?tab=%d","$host":"app.example.com",`+
				`"$pathname":"/projects/%d/insights",`+
				`"$browser_version":156,"$browser_language":"en-GB","$screen_height":720,"$screen_width":1280,`+
				`"$viewport_height":720,"$viewport_width":1280,"$lib":"web","$lib_version":"1.449.2",`+
				`"$insert_id":"%016x","$time":%d.%03d,"$device_id":"%s","$active_feature_flags":["beta-ui","new-nav",`+
				`"fast-path"],`+
				`"$feature/beta-ui":true,"$feature/new-nav":"variant-%d","$referrer":"$direct",`+
				`"$referring_domain":"$direct","$session_id":"%s","$window_id":"%s",`+
				`"plan":"enterprise","seats":%d,"price":%d.5,"nested":{"a":[1,2,3,{"b":null}],"note":"a \"quoted\" `+
				`text with an umlaut ü"}}}`,
			id(), id(), i%60, random.IntN(1000), random.IntN(1000), random.IntN(100000), i%5, random.Uint64(),
			1795383045+i, random.IntN(1000), id(),
			i%3, id(), id(), random.IntN(500), random.IntN(9000))
	}
	text.WriteString(`],"sent_at":"2026-11-24T11:59:59.500Z"}`)
	return text.String()
}
