//go:build hostile && linux

package hostile

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"
)

// budget is the service's budget in the attacks on its memory, and beside is what the process may take besides.
const (
	budget = 64 << 20
	beside = 150 << 20
)

// The limits of the service in the attacks on its memory. They fit into the budget.
var narrow = []string{
	fmt.Sprint("CAPTURE_TRANSPORT__MAX_IN_FLIGHT=", budget),
	"CAPTURE_STORE__LOCAL__MEMORY=4MiB", "CAPTURE_STORE__LOCAL__COUNTERS=1MiB",
	"CAPTURE_QUOTA__MAX_ACCOUNTS=1024",
	"CAPTURE_TRANSPORT__MAX_BODY=8MiB", "CAPTURE_TRANSPORT__MAX_DECODED=32MiB",
	"CAPTURE_TRANSPORT__POSTHOG__MAX_RECORDING=16MiB",
}

// Whatever comes, the process holds no more than its budget says. What there is no room for is refused, and the clients
// are asked to send it again.
func TestMemoryIsOneBudget(t *testing.T) {
	for _, a := range memoryAttacks {
		t.Run(a.name, func(t *testing.T) {
			siege(t, start(t, narrow...), a, 2*time.Second, bounds{memory: budget + beside})
		})
	}
}

const (
	asJSON    = "Content-Type: application/json"
	asProto   = "Content-Type: application/x-protobuf"
	inGzip    = "Content-Encoding: gzip"
	inZstd    = "Content-Encoding: zstd"
	inBrotli  = "Content-Encoding: br"
	authorize = "Authorization: Bearer phc_hostile"
)

const (
	head = `{"api_key":"phc_hostile","batch":[`
	tail = `]}`
)

// usual are the answers to a request that is at fault, or too large for the service at present.
var usual = []int{200, 400, 413, 503}

var memoryAttacks = []attack{
	// What an event takes in memory is much more than the three bytes of the event in its request.
	{name: "tiny-events", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", repeated(head, `{}`, 50_000, tail), asJSON)
	}},
	{name: "tiny-events/gzip", attackers: 64, answers: usual, message: func() message {
		return post("/batch/", zip(repeated(head, `{}`, 10_000_000, tail)), asJSON, inGzip)
	}},
	{name: "small-batches", attackers: 256, answers: usual, message: func() message {
		return post("/batch/", zip(repeated(head, `{}`, 4096, tail)), asJSON, inGzip)
	}},
	{name: "good-events", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(repeated(head, `{"event":"a","distinct_id":"b"}`, 25_000, tail)), asJSON, inGzip)
	}},
	// The answer to a batch of v1 names every event.
	{name: "v1-rejected", attackers: 64, slow: true, answers: usual, message: func() message {
		return post("/i/v1/analytics/events", zip(v1(20_000, `"event":1`)), asJSON, inGzip, authorize,
			"PostHog-Sdk-Info: hostile/1.0.0", "PostHog-Request-Id: "+uuid.NewString(),
			"PostHog-Attempt: 1", "PostHog-Request-Timestamp: 2026-11-29T00:00:00Z")
	}},
	{name: "v1-100000", attackers: 16, slow: true, answers: usual, message: func() message {
		return post("/i/v1/analytics/events", zip(v1(100_000, `"event":1`)), asJSON, inGzip, authorize,
			"PostHog-Sdk-Info: hostile/1.0.0", "PostHog-Request-Id: "+uuid.NewString(),
			"PostHog-Attempt: 1", "PostHog-Request-Timestamp: 2026-11-29T00:00:00Z")
	}},
	// Repairs make a copy of the text.
	{name: "repair/nan", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(list(head, `{"event":"a","distinct_id":"b","properties":{"x":[`,
			strings.Repeat("NaN,", 4_000_000)+"1]}}", 1, tail)), asJSON, inGzip)
	}},
	{name: "repair/surrogates", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(list(head, `{"event":"a","distinct_id":"b","properties":{"x":"`,
			strings.Repeat(`\ud800`, 3_000_000)+`"}}`, 1, tail)), asJSON, inGzip)
	}},
	{name: "repair/utf-8", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(list(head, `{"event":"a","distinct_id":"b","properties":{"x":"`,
			strings.Repeat("\xff", 16_000_000)+`"}}`, 1, tail)), asJSON, inGzip)
	}},
	{name: "repair/control", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(list(head, `{"event":"a","distinct_id":"b","properties":{"x":"`,
			strings.Repeat("\x01", 16_000_000)+`"}}`, 1, tail)), asJSON, inGzip)
	}},
	// A part of a text keeps alive all of it.
	{name: "names/escaped", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(repeated(head,
			`{"event":"`+strings.Repeat(`\n`, 2000)+`","distinct_id":"`+strings.Repeat(`\n`, 2040)+`x"}`, 1000, tail)),
			asJSON, inGzip)
	}},
	{name: "names/long", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(repeated(head, `{"event":"`+strings.Repeat(`\"`, 400_000)+`","distinct_id":"b"}`,
			10, tail)), asJSON, inGzip)
	}},
	{name: "names/objects", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(repeated(head, `{"event":"a","distinct_id":[`+strings.Repeat(`[],`, 1300)+`1]}`,
			2000, tail)), asJSON, inGzip)
	}},
	{name: "nesting", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip([]byte(strings.Repeat(`[`, 16_000_000))), asJSON, inGzip)
	}},
	// Bombs.
	{name: "bomb/gzip", attackers: 64, answers: usual, message: func() message {
		return post("/batch/", zip(zeros(512<<20)), asJSON, inGzip)
	}},
	{name: "bomb/gzip-fits", attackers: 64, answers: usual, message: func() message {
		return post("/batch/", zip(zeros(31<<20)), asJSON, inGzip)
	}},
	{name: "bomb/zstd", attackers: 64, answers: usual, message: func() message {
		var out bytes.Buffer
		w, _ := zstd.NewWriter(&out)
		_, _ = w.Write(zeros(31 << 20))
		_ = w.Close()
		return post("/batch/", out.Bytes(), asJSON, inZstd)
	}},
	{name: "bomb/brotli", attackers: 64, answers: usual, message: func() message {
		var out bytes.Buffer
		w := brotli.NewWriterOptions(&out, brotli.WriterOptions{Quality: 5, LGWin: 24})
		_, _ = w.Write(zeros(31 << 20))
		_ = w.Close()
		return post("/batch/", out.Bytes(), asJSON, inBrotli)
	}},
	{name: "bomb/lz64", attackers: 64, answers: usual, message: func() message {
		return post("/e/?compression=lz64", lz64(31<<20))
	}},
	{name: "form", attackers: 32, answers: usual, message: func() message {
		return post("/e/", []byte("data="+strings.Repeat("%20", 2_600_000)),
			"Content-Type: application/x-www-form-urlencoded")
	}},
	{name: "form/parts", attackers: 32, answers: usual, message: func() message {
		var out bytes.Buffer
		w := multipart.NewWriter(&out)
		part, _ := w.CreateFormField("data")
		_, _ = part.Write(repeated(head, `{}`, 2_000_000, tail))
		_ = w.Close()
		return post("/e/", out.Bytes(), "Content-Type: "+w.FormDataContentType())
	}},
	{name: "wrapped/string", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip([]byte(`{"api_key":"phc_hostile","batch":"[`+strings.Repeat(`{\"x\":\"\u0041\"},`,
			1_000_000)+`{}]"}`)), asJSON, inGzip)
	}},
	{name: "wrapped/charset", attackers: 32, answers: append([]int{415}, usual...), message: func() message {
		return post("/batch/", zip(bytes.Repeat([]byte("\xe9"), 16_000_000)), asJSON+"; charset=iso-8859-1", inGzip)
	}},
	{name: "reports", attackers: 32, answers: append([]int{204}, usual...), message: func() message {
		return post("/report/?token=phc_hostile", zip(repeated(`[`, `{"type":"csp-violation","body":{}}`, 1000, `]`)),
			"Content-Type: application/reports+json", inGzip)
	}},
	{name: "multipart", attackers: 32, answers: append([]int{401}, usual...), message: func() message {
		var out bytes.Buffer
		w := multipart.NewWriter(&out)
		part, _ := w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {`form-data; name="event"`}, "Content-Type": {"application/json"},
		})
		_, _ = part.Write(list(`{"event":"$ai_generation","uuid":"`+uuid.NewString()+`","distinct_id":"b",`,
			`"properties":{"$ai_model":"m","x":[`, strings.Repeat("NaN,", 1_800_000)+"1]}", 1, `}`))
		_ = w.Close()
		return post("/i/v0/ai", out.Bytes(), "Content-Type: "+w.FormDataContentType(), authorize)
	}},
	{name: "recording/large", attackers: 32, answers: usual, message: func() message {
		return post("/s/", zip(recording(30_000, 1000)), asJSON, inGzip)
	}},
	{name: "recording/many", attackers: 32, answers: usual, message: func() message {
		return post("/s/", zip(recording(100_000, 1)), asJSON, inGzip)
	}},
	{name: "recording/quotes", attackers: 32, answers: usual, message: func() message {
		return post("/s/", zip(list(`[{"event":"$snapshot","properties":{"token":"phc_hostile","distinct_id":"b",`+
			`"$session_id":"s","$snapshot_data":[`, `{"x":"`+strings.Repeat(`\"`, 100_000)+`"}`, strings.Repeat(
			`,{"x":"`+strings.Repeat(`\"`, 100_000)+`"}`, 100), 1, `]}}]`)), asJSON, inGzip)
	}},
	{name: "heatmap", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(repeated(head, `{"event":"a","distinct_id":"b","properties":{"$heatmap_data":{"u":[`+
			strings.Repeat(`{"x":1},`, 50_000)+`{}]}}}`, 50, tail)), asJSON, inGzip)
	}},
	{name: "heatmap/many", attackers: 32, answers: usual, message: func() message {
		return post("/batch/", zip(repeated(head,
			`{"event":"a","distinct_id":"b","properties":{"$heatmap_data":{"u":[]}}}`, 40_000, tail)), asJSON, inGzip)
	}},
	{name: "otlp/records", attackers: 32, answers: usual, message: func() message {
		return post("/i/v1/logs", zip(logs(50_000, 0)), asProto, inGzip, authorize)
	}},
	{name: "otlp/attribute", attackers: 32, answers: usual, message: func() message {
		return post("/i/v1/logs", zip(logs(1000, 80_000)), asProto, inGzip, authorize)
	}},
	{name: "otlp/json", attackers: 32, answers: usual, message: func() message {
		return post("/i/v1/logs", zip(repeated(
			`{"resourceLogs":[{"scopeLogs":[{"logRecords":[`, `{}`, 100_000, `]}]}]}`)), asJSON, inGzip, authorize)
	}},
}

// list returns a text of one element, whose beginning is a, and whose rest b stands n times.
func list(before, a, b string, n int, after string) []byte {
	return []byte(before + a + strings.Repeat(b, n) + after)
}

// repeated returns a text with n elements, separated by commas.
func repeated(before, element string, n int, after string) []byte {
	return []byte(before + strings.Repeat(element+",", n-1) + element + after)
}

func zeros(n int) []byte { return bytes.Repeat([]byte{' '}, n) }

func zip(text []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(text)
	_ = w.Close()
	return out.Bytes()
}

// v1 returns a batch of the protocol v1 of n events, each with a uuid of its own and the given members.
func v1(n int, members string) []byte {
	var out bytes.Buffer
	out.WriteString(`{"created_at":"2026-11-29T00:00:00Z","batch":[`)
	for i := range n {
		if i > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, `{"uuid":"00000000-0000-4000-8000-%012x",%s}`, i, members)
	}
	out.WriteString(`]}`)
	return out.Bytes()
}

// recording returns a recording of n snapshots of so many bytes each.
func recording(n, size int) []byte {
	return repeated(`[{"event":"$snapshot","properties":{"token":"phc_hostile","distinct_id":"b","$session_id":"s",`+
		`"$snapshot_data":[`, `{"x":"`+strings.Repeat("y", size)+`"}`, n, `]}}]`)
}

// logs returns n log records of a resource that has an attribute of so many bytes.
func logs(n, attribute int) []byte {
	records := make([]*logspb.LogRecord, n)
	for i := range records {
		records[i] = &logspb.LogRecord{}
	}
	data := &logspb.ResourceLogs{ScopeLogs: []*logspb.ScopeLogs{{LogRecords: records}}}
	data.Resource = &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: "a", Value: &commonpb.AnyValue{
		Value: &commonpb.AnyValue_StringValue{StringValue: strings.Repeat("x", attribute)},
	}}}}
	text, err := proto.Marshal(&logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{data}})
	if err != nil {
		panic(err)
	}
	return text
}
