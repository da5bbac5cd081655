package posthog

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// quoted returns a text as a JSON string.
func quoted(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func TestABatchMayBeAJSONStringThatHoldsTheArray(t *testing.T) {
	const (
		one     = `{"event":"a","distinct_id":"u","properties":{"q":"\"ä\" \\ 😀"}}`
		two     = `[` + one + `, {"event":"b","distinct_id":"u"}]`
		decodes = "failed to decode request: "
		notOne  = decodes + "batch is a JSON string that does not hold one array and nothing else"
	)
	many := `[` + strings.Repeat(one+",", 200) + one + `]`
	for _, test := range []struct {
		name, body string
		status     int
		answer     string
		kept       int
		repaired   bool
	}{
		{"a string", `{"api_key":"k","batch":` + quoted(two) + `}`, 200, okBody, 2, false},
		{"a string before the token", `{"batch":` + quoted(" "+two+"\n") + `,"api_key":"k"}`, 200, okBody, 2, false},
		{"a long string", `{"api_key":"k","batch":` + quoted(many) + `,"sent_at":null}`, 200, okBody, 201, false},
		{"a string in a string", `{"api_key":"k","batch":` + quoted(quoted(two)) + `}`, 200, okBody, 2, false},
		{"all in a string, too", quoted(`{"api_key":"k","batch":` + quoted(two) + `}`), 200, okBody, 2, false},
		{"an array in a string", quoted(`[{"event":"a","distinct_id":"u","api_key":"k"}]`), 200, okBody, 1, false},
		{"a string whose array needs a repair",
			`{"api_key":"k","batch":` + quoted(`[{"event":"a","distinct_id":"u","properties":{"n":NaN}}]`) + `}`, 200,
			okBody, 1, true},
		{"a string beside what needs a repair", `{"api_key":"k","x":NaN,"batch":` + quoted(two) + `}`, 200, okBody, 2,
			true},
		{"an empty array", `{"api_key":"k","batch":"[]"}`, 400, "request holds no event", 0, false},
		{"more strings than are undone", `{"api_key":"k","batch":` + quoted(quoted(quoted(quoted(two)))) + `}`, 400,
			decodes + "the request lies in more than 3 JSON strings, one in the other", 0, false},
		{"an array that goes on", `{"api_key":"k","batch":` + quoted(two+`,"api_key":"l"`) + `}`, 400, notOne, 0,
			false},
		{"an array without an end", `{"api_key":"k","batch":` + quoted(two[:20]) + `}`, 400, notOne, 0, false},
		{"a string that goes on", `{"api_key":"k","batch":` + quoted(quoted(two)+`,"api_key":"l"`) + `}`, 400, notOne,
			0,
			false},
		{"an array that is no JSON", `{"api_key":"k","batch":"[{]}"}`, 400,
			"failed to parse request: expected a string as key at byte 25", 0, false},
		{"a string of something else", `{"api_key":"k","batch":"yes"}`, 400,
			"failed to parse request: batch must be an array of events", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			response := s.post("/batch/", test.body)
			require.Equal(t, test.answer, response.Body)
			require.Equal(t, test.status, response.Status)
			require.Len(t, s.sink.events, test.kept)
			require.Equal(t, test.repaired, s.sink.repaired)
			if test.kept == 2 {
				require.Equal(t, `{"q":"\"ä\" \\ 😀"}`, string(s.sink.events[0].Raw.Properties))
			}
		})
	}
}

func TestABatchInAStringKeepsToTheLimitOfEventsAndToTheBudget(t *testing.T) {
	config := DefaultConfig()
	config.MaxEvents = 3
	body := `{"api_key":"k","batch":` + quoted(`[`+strings.Repeat(`{"event":"a","distinct_id":"u"},`, 3)+
		`{"event":"a","distinct_id":"u"}]`) + `}`
	s := newService(t, config)
	require.Equal(t, 413, s.post("/batch", body).Status)

	s = newService(t, DefaultConfig())
	taken := s.budget.Lease()
	defer taken.Release()
	require.True(t, taken.Reserve(s.budget.Limit()-int64(len(body))-1))
	require.Equal(t, 503, s.post("/batch", body).Status, "there is room for the body, but not for its text")
}
