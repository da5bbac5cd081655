package testkit_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit"
)

// cookies is the case that the tests of heads use as well.
const cookies = "../transport/testdata/29-large-cookies.http"

// Requests of clients that public reports tell of, byte for byte as they come over the wire. Each must be stored: want
// has a row for each event, by name, with its time and its properties, or one of them as "key":value.
func TestWhatClientsReallySendIsStored(t *testing.T) {
	type event struct{ name, time, properties string }
	const threeSeconds, arrival, log, logged = "3s", "0s", "$log", "2026-11-29T13:46:40Z"
	tests := map[string][]event{
		"01-retry-fresh-sent_at": {{"e1", threeSeconds, `{"token": "phc_b01r", "distinct_id": "u1"}`}},
		"03-numeric-timestamp":   {{"Backend Log", "2025-11-20T00:53:20Z", `{"distinct_id": "~ship", "x": 1}`}},
		"04-php-empty-set": {
			{"$identify", "2026-11-29T10:00:00Z", `"$lib_version":"4.13.2"`}, {"ok", arrival, `{}`},
		},
		"05-null-properties":          {{"no props", "2026-11-29T10:00:00.1234567Z", `{}`}},
		"06-timestamp-12-hour-clock":  {{"12h", "2026-11-20T15:33:07Z", `{}`}},
		"06-timestamp-upstream-reads": {{"import", "2024-08-08T13:00:01Z", `{}`}},
		"11-ids-base64-of-hex-text": {
			{"$ai_trace", logged, `"$ai_trace_id":"9e2a3dc06074b17540d54de4e51e735f","$ai_span_id":"00f067aa0ba902b7"`},
		},
		"15-logs-not-otlp":       nil,
		"20-gzip-as-latin1-text": {{"e", arrival, `{}`}},
		"21-json-in-json-string": {{"e", arrival, `{}`}},
		"24-one-invalid-utf8-byte": {
			{"bad", arrival, `{"u": "caf` + "\ufffd" + `"}`}, {"g0", arrival, `{}`}, {"g1", arrival, `{}`},
			{"g2", arrival, `{}`},
		},
		"29-large-cookies":                       {{"e", arrival, `{}`}},
		"50-logs-json-lines":                     {{log, logged, `"body":"one"`}, {log, logged, `"body":"two"`}},
		"51-protobuf-called-json":                {{log, logged, `"body":"pb","severity_text":"INFO"`}},
		"52-logs-token-in-query-with-basic-auth": {{log, logged, `"body":"x"`}},
		"56-gzip-with-trailing-zeros":            {{"e", arrival, `{}`}},
		"57-lower-case-nan-and-inf": {
			{"level", arrival, `{"time":null,"ratio":null,"neg":null}`}, {"ok", arrival, `{}`},
		},
	}
	files, err := filepath.Glob("testdata/cases/*.http")
	require.NoError(t, err)
	files = append(files, cookies)
	require.Len(t, files, len(tests))
	service := testkit.Start(t)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".http")
		t.Run(name, func(t *testing.T) {
			want, known := tests[name]
			require.True(t, known)
			before := service.Messages()
			status, body := sendRaw(t, service, file)
			if want == nil {
				require.Equal(t, http.StatusBadRequest, status, body)
				require.Contains(t, body, "expected resourceLogs")
			} else {
				require.Equal(t, http.StatusOK, status, body)
			}
			got := newMessages(before, service.Messages())
			require.Len(t, got, len(want))
			for i, message := range got {
				require.Equal(t, want[i].name, message.Envelope.Event)
				var data struct{ Properties json.RawMessage }
				require.NoError(t, json.Unmarshal(message.Envelope.Data, &data))
				if strings.HasPrefix(want[i].properties, "{") {
					require.Equal(t, want[i].properties, string(data.Properties))
				} else {
					require.Contains(t, string(data.Properties), want[i].properties)
				}
				at, err := time.Parse(time.RFC3339Nano, want[i].time)
				if before, isBefore := time.ParseDuration(want[i].time); isBefore == nil {
					at, err = message.Envelope.Now.Add(-before), nil
				}
				require.NoError(t, err)
				require.WithinDuration(t, at, message.Envelope.Timestamp, time.Millisecond)
			}
		})
	}
}

// sendRaw sends the bytes of a file and returns the answer.
func sendRaw(t *testing.T, service *testkit.Service, file string) (status int, body string) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(service.URL, "http://"))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = conn.Write(text)
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(answer)
}

// newMessages returns the events among the messages that were not there before, by name and content. It leaves out
// warnings to projects.
func newMessages(before, now []testkit.Message) []testkit.Message {
	known := map[string]bool{}
	for _, message := range before {
		known[place(message)] = true
	}
	fresh := slices.DeleteFunc(now, func(m testkit.Message) bool {
		return known[place(m)] || m.Envelope.Event == "$$client_ingestion_warning"
	})
	slices.SortFunc(fresh, func(a, b testkit.Message) int {
		_, x, _ := strings.Cut(string(a.Envelope.Data), `"properties"`)
		_, y, _ := strings.Cut(string(b.Envelope.Data), `"properties"`)
		return strings.Compare(a.Envelope.Event+x, b.Envelope.Event+y)
	})
	return fresh
}
