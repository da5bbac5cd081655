package decode

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/transport/memory"
)

// recordedRequest is a row of testdata/requests.jsonl: the request of a real SDK, and what the request means.
type recordedRequest struct {
	SDK      string            `json:"sdk"`
	Seq      int               `json:"seq"`
	RawQuery string            `json:"raw_query"`
	Headers  map[string]string `json:"headers"`
	Steps    []string          `json:"steps"`
	Body     []byte            `json:"body_b64"`
	JSON     json.RawMessage   `json:"json"`
	// NaN marks a request that holds NaN or Infinity, which the scanner repairs.
	NaN bool `json:"nan"`
}

// steps translates the recording's names of the steps.
func (r *recordedRequest) steps() string {
	names := make([]string, len(r.Steps))
	for i, step := range r.Steps {
		_, name, found := strings.Cut(step, ":")
		if !found {
			name = step
		}
		names[i] = name
	}
	if len(names) == 0 {
		return "plain"
	}
	return strings.Join(names, "+")
}

func recordedRequests(t testing.TB) []recordedRequest {
	t.Helper()
	file, err := os.Open("testdata/requests.jsonl")
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	var requests []recordedRequest
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 {
			require.NotEmpty(t, requests)
			return requests
		}
		require.NoError(t, err)
		var request recordedRequest
		require.NoError(t, json.Unmarshal(line, &request))
		requests = append(requests, request)
	}
}

func (r *recordedRequest) input(t testing.TB) Input {
	t.Helper()
	query, err := url.ParseQuery(r.RawQuery)
	require.NoError(t, err)
	return Input{
		Body:            r.Body,
		QueryData:       query.Get("data"),
		QueryHint:       query.Get("compression"),
		ContentType:     r.Headers["content-type"],
		ContentEncoding: r.Headers["content-encoding"],
	}
}

func TestWhatRealSDKsSendIsDecoded(t *testing.T) {
	budget := memory.NewBudget(1 << 30)
	decoder := newDecoder(100<<20, budget)
	for _, request := range recordedRequests(t) {
		payload, err := decoder.Decode(request.input(t))
		require.NoError(t, err, "%s, request %d", request.SDK, request.Seq)
		require.Equal(t, request.steps(), payload.Steps.String(), "%s, request %d", request.SDK, request.Seq)
		text := payload.Bytes
		if request.NaN {
			for _, number := range []string{"-Infinity", "Infinity", "NaN"} {
				text = bytes.ReplaceAll(text, []byte(" "+number), []byte("null"))
			}
		}
		require.JSONEq(t, string(request.JSON), string(text), "%s, request %d", request.SDK, request.Seq)
		payload.Release()
	}
	require.Zero(t, budget.InUse())
}
