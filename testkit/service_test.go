package testkit_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
)

const hello = `{"api_key":"phc_test","event":"hello","distinct_id":"me"}`

func TestAnEventGoesFromHTTPIntoKafka(t *testing.T) {
	service := testkit.Start(t)
	response := service.Post("/batch/", `{"api_key":"phc_test","batch":[
		{"event":"first","distinct_id":"me","uuid":"0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d","properties":{"price": 1.50}},
		{"event":"without a user"},
		{"event":"second","distinct_id":"me"}]}`)
	require.Equal(t, 200, response.Status)
	require.Equal(t, `{"status":"Ok"}`, response.Body)
	messages := service.Messages()
	require.Len(t, messages, 2)
	require.Equal(t, "first", messages[0].Envelope.Event)
	require.Equal(t, "second", messages[1].Envelope.Event, "one user's events keep their order")
	require.Equal(t, messages[0].Partition, messages[1].Partition)
	require.JSONEq(t, `{"uuid":"0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d","event":"first","distinct_id":"me",`+
		`"properties":{"price":1.50}}`, string(messages[0].Envelope.Data))
}

// The promise of the design: received == accepted + dropped + rejected + failed, to the event, in the metrics.
func TestTheMetricsAddUp(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink))
	sink.FailNext(1)
	require.Equal(t, 503, service.Post("/e/", hello).Status)
	require.Equal(t, 200, service.Post("/e/", hello).Status)
	require.Equal(t, 400, service.Post("/e/", `{"api_key":"k","event":"a"}`).Status)
	require.Equal(t, 200, service.Post("/test/black_hole/", hello).Status)
	text := service.Admin("/metrics").Body
	value := func(pattern string) int { return metric(t, text, pattern) }
	require.Equal(t, 4, value(`capture_events_received_total`), text)
	require.Equal(t, 1, value(`capture_events_accepted_total`))
	require.Equal(t, 1, value(`capture_events_failed_total\{reason="sink_unavailable"\}`))
	require.Equal(t, 1, value(`capture_events_rejected_total\{reason="missing_distinct_id"\}`))
	require.Equal(t, 1, value(`capture_events_dropped_total\{reason="black_hole"\}`))
	require.Len(t, sink.Events(), 1)
}

// metric adds up the values of a counter in the text of a scrape. The pattern is the counter's name with its labels.
func metric(t *testing.T, text, pattern string) (sum int) {
	for _, found := range regexp.MustCompile(`(?m)^`+pattern+` (\d+)$`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(found[1])
		require.NoError(t, err)
		sum += n
	}
	return sum
}

// Sections 0 and 3 of the protocol: the answer to events that Kafka has not taken is a 503 with Retry-After.
func TestA503SaysWhenToComeBack(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("transport.retry_after", "7s"))
	sink.FailNext(1)
	response := service.Post("/e/", hello, "Origin", "https://shop.example")
	require.Equal(t, 503, response.Status)
	require.Equal(t, "transient error, please retry", response.Body)
	require.Equal(t, "7", response.Header.Get("Retry-After"))
	require.Contains(t, response.Header.Get("Access-Control-Expose-Headers"), "Retry-After")
}

func TestAnEventThatKafkaCannotTakeIsRejectedAlone(t *testing.T) {
	service := testkit.Start(t, testkit.Set("kafka.max_message_bytes", "3000"))
	large := fmt.Sprintf(`{"event":"large","distinct_id":"me","properties":{"x":%q}}`, strings.Repeat("x", 4000))
	response := service.Post("/batch/",
		`{"api_key":"k","batch":[{"event":"a","distinct_id":"me"},`+large+`,{"event":"b","distinct_id":"me"}]}`)
	require.Equal(t, 200, response.Status)
	require.Len(t, service.Messages(), 2)
	response = service.Post("/batch/", `{"api_key":"k","batch":[`+large+`]}`)
	require.Equal(t, 413, response.Status)
	require.Contains(t, response.Body, "maximum event size exceeded")
}

// The answer to bad input of every kind says what is wrong, and the next request on the same connection works. The
// tests of transport/decode prove that the memory for bad input is bounded.
func TestBadInputIsToldAndDoesNoHarm(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Set("transport.max_decoded", "1MiB"), testkit.Set("transport.max_body", "1MiB"),
		testkit.Set("transport.posthog.max_recording", "1MiB"), testkit.Set("transport.max_in_flight", "8MiB"))
	var bomb bytes.Buffer
	writer := gzip.NewWriter(&bomb)
	_, err := writer.Write(make([]byte, 8<<20))
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	zstdWriter, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	zstdBomb := string(zstdWriter.EncodeAll(make([]byte, 8<<20), nil))
	for _, test := range []struct {
		name, body string
		status     int
		answer     string
	}{
		{"empty", "", 400, "request missing data payload"},
		{"truncated", `{"event":"a"`, 400, "failed to parse request: unexpected end of JSON at byte 12"},
		{"not JSON", `<html>`, 400, "failed to parse request: expected a value at byte 0"},
		{"not UTF-8", "{\"event\":\xff}", 400, "failed to decode request: invalid UTF8 in request payload"},
		{"wrong types", `{"api_key":"k","batch":[{"event":["a"],"distinct_id":"u"}]}`, 400,
			"failed to parse request: event must be a string"},
		{"broken gzip", "\x1f\x8b\x08broken", 400, "failed to decode request: invalid GZIP data"},
		{"a zstd bomb", zstdBomb, 413, "maximum event size exceeded: Decompressed payload would exceed 1048576 bytes"},
		{"a bomb", bomb.String(), 413, "maximum event size exceeded: Decompressed payload would exceed 1048576 bytes"},
		{"deep", `{"event":"a","distinct_id":"u","api_key":"k","x":` + strings.Repeat(`[`, 10_000) +
			strings.Repeat(`]`, 10_000) + `}`, 400,
			"failed to parse request: nested deeper than 128 levels"},
		{"large", strings.Repeat("x", 1<<20+1), 413,
			"maximum event size exceeded: Request body exceeds limit of 1048576 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(service.URL, "http://"))
			require.NoError(t, err)
			defer func() { require.NoError(t, conn.Close()) }()
			answers := bufio.NewReader(conn)
			send := func(body string) (status int, answer string) {
				_, err := fmt.Fprintf(conn,
					"POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				require.NoError(t, err)
				response, err := http.ReadResponse(answers, nil)
				require.NoError(t, err)
				text, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				return response.StatusCode, string(text)
			}
			status, answer := send(test.body)
			require.Equal(t, test.status, status, answer)
			require.True(t, strings.HasPrefix(answer, test.answer), answer)
			status, answer = send(hello)
			require.Equal(t, 200, status, answer)
		})
	}
}

func TestReadinessFollowsKafka(t *testing.T) {
	service := testkit.Start(t)
	require.Equal(t, 200, service.Request("GET", "/_readiness", "").Status)
	require.Equal(t, 200, service.Request("GET", "/_liveness", "").Status)
	require.Equal(t, 200, service.Admin("/readyz").Status)
	away := withoutKafka(t, "kafka")
	require.Equal(t, 503, away.Request("GET", "/_readiness", "").Status)
	require.Equal(t, 200, away.Request("GET", "/_liveness", "").Status)
	response := away.Post("/e/", hello)
	require.Equal(t, 503, response.Status)
	require.NotEmpty(t, response.Header.Get("Retry-After"))
	require.Empty(t, response.Header.Get("X-Capture-Ack"))
}

func TestARequestInFlightIsAnsweredDuringAStop(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("transport.drain_delay", "100ms"))
	release := sink.Hold()
	answered := make(chan int, 1)
	go func() {
		response, err := service.TryRequest("POST", "/e/", hello)
		if err != nil {
			response.Status = -1
		}
		answered <- response.Status
	}()
	service.Eventually("the request to be held", func() bool { return sink.Held() == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- service.Stop() }()
	service.Eventually("new connections to be refused", func() bool {
		_, err := service.TryRequest("GET", "/_readiness", "", "Connection", "close")
		return err != nil
	})
	release()
	require.Equal(t, 200, <-answered)
	require.NoError(t, <-stopped)
	require.Len(t, sink.Events(), 1)
}
