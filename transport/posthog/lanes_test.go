package posthog

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/route"
)

// Section 2.12 of the protocol: the name says where an event belongs, before the migration flag does.
func TestSection212EachEventHasItsLane(t *testing.T) {
	for _, test := range []struct {
		name       string
		historical bool
		aiLane     string
		want       events.Lane
	}{
		{"$pageview", false, AIAllowlist, events.LaneMain},
		{"$pageview", true, AIAllowlist, events.LaneHistorical},
		{"$exception", true, AIAllowlist, events.LaneExceptions},
		{"$$heatmap", true, AIAllowlist, events.LaneHeatmaps},
		{"$$client_ingestion_warning", true, AIAllowlist, events.LaneClientWarnings},
		{"$ai_generation", true, AIAllowlist, events.LaneAI},
		{"$ai_trace", false, AIAllowlist, events.LaneAI},
		{"$ai_span", false, AIAllowlist, events.LaneAI},
		{"$ai_embedding", false, AIAllowlist, events.LaneAI},
		{"$ai_metric", false, AIAllowlist, events.LaneAI},
		{"$ai_feedback", false, AIAllowlist, events.LaneAI},
		{"$ai_evaluation", false, AIAllowlist, events.LaneMain},
		{"$ai_evaluation", true, AIAllowlist, events.LaneHistorical},
		{"$ai_evaluation", false, AIPrefix, events.LaneAI},
		{"ai_generation", false, AIPrefix, events.LaneMain},
	} {
		config := DefaultConfig()
		config.AILane = test.aiLane
		s := newService(t, config)
		response := s.post("/batch/",
			fmt.Sprintf(`{"api_key":"k","historical_migration":%t,"batch":[{"event":%q,"distinct_id":"u"}]}`,
				test.historical, test.name))
		require.Equal(t, 200, response.Status)
		require.Equal(t, test.want, s.sink.events[0].Lane, "%+v", test)
	}
}

// Section 2.12 of the protocol: which events have heatmap data split off, and what each of the two events then holds.
func TestSection212HeatmapDataIsSplitOff(t *testing.T) {
	for _, test := range []struct{ about, event, properties, left, heatmap string }{
		{
			"clicks", "$pageview", `{"a":1,"$heatmap_data":{"/p":[{"x":1}]},"$viewport_height":720,"b":2}`,
			`{"a":1,"b":2,"$viewport_height":720}`, `{"$heatmap_data":{"/p":[{"x":1}]},"$viewport_height":720}`,
		},
		{
			"how far the page before was scrolled", "$pageleave",
			`{"$prev_pageview_pathname":"/a","$current_url":"http://x/b","$prev_pageview_max_scroll":7,"$ip":"1",` +
				`"$host":"x","$session_id":"s","$timezone":"UTC","$raw_user_agent":"ua","$viewport_width":3,` +
				`"$cookieless_mode":false,"$cookieless_extra":"e","other":1}`,
			`{"$prev_pageview_pathname":"/a","$current_url":"http://x/b","$prev_pageview_max_scroll":7,"$ip":"1",` +
				`"$host":"x","$session_id":"s","$timezone":"UTC","$raw_user_agent":"ua","$viewport_width":3,` +
				`"$cookieless_mode":false,"$cookieless_extra":"e","other":1}`,
			`{"$prev_pageview_pathname":"/a","$current_url":"http://x/b","$prev_pageview_max_scroll":7,"$ip":"1",` +
				`"$host":"x","$session_id":"s","$timezone":"UTC","$raw_user_agent":"ua","$viewport_width":3,` +
				`"$cookieless_mode":false,"$cookieless_extra":"e"}`,
		},
		{"data alone", "x", `{"$heatmap_data":[]}`, `{}`, `{"$heatmap_data":[]}`},
		{"data under an escaped name", "x", `{"\u0024heatmap_data":{"a":1}}`, `{}`, `{"$heatmap_data":{"a":1}}`},
		{"data that is null", "x", `{"$heatmap_data":null}`, `{"$heatmap_data":null}`, ``},
		{"only one of the two", "$pageview", `{"$current_url":"u"}`, `{"$current_url":"u"}`, ``},
		{"a heatmap event itself", "$$heatmap", `{"$heatmap_data":{"a":1}}`, `{"$heatmap_data":{"a":1}}`, ``},
	} {
		t.Run(test.about, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			require.Equal(t, 200,
				s.post("/e/",
					fmt.Sprintf(`{"event":%q,"distinct_id":"u","token":"k","properties":%s}`, test.event,
						test.properties)).Status)
			require.Len(t, s.sink.events, 1, "the two share one outcome")
			event := s.sink.events[0]
			require.JSONEq(t, test.left, string(event.Raw.Properties))
			if test.heatmap == "" {
				require.Nil(t, event.Heatmap)
				return
			}
			require.JSONEq(t, test.heatmap, string(event.Heatmap))
		})
	}
}

func TestHeatmapsOfAWholeBatchKeepApart(t *testing.T) {
	s := newService(t, DefaultConfig())
	var batch []string
	pad := strings.Repeat("x", 10_000)
	for i := range 20 {
		batch = append(batch,
			fmt.Sprintf(`{"event":"e","distinct_id":"u","properties":{"$heatmap_data":{"n":%d,"pad":%q},"keep":%d}}`, i,
				pad, i))
	}
	for range 2 {
		s.sink.events = nil
		require.Equal(t, 200, s.post("/batch/", `{"api_key":"k","batch":[`+strings.Join(batch, ",")+`]}`).Status)
		require.Len(t, s.sink.events, 20)
		for i, event := range s.sink.events {
			require.JSONEq(t, fmt.Sprintf(`{"$heatmap_data":{"n":%d,"pad":%q}}`, i, pad), string(event.Heatmap))
			require.JSONEq(t, fmt.Sprintf(`{"keep":%d}`, i), string(event.Raw.Properties))
		}
	}
}

// Section 2.12 of the protocol: gateway properties are PostHog's own gateway's, and nobody else is believed.
func TestSection212GatewayPropertiesAreStrippedOffAIEvents(t *testing.T) {
	long := strings.Repeat("y", 200)
	for _, test := range []struct{ event, properties, want string }{
		{"$ai_generation", `{"a":1,"$ai_gateway":1,"$ai_gateway_signature":"x","$ai_model":"m"}`,
			`{"a":1,"$ai_model":"m"}`},
		{"$ai_anything", `{"$ai_gateway_x":{"$ai_gateway":1}}`, `{}`},
		{"$ai_span", `{"\u0024ai_gateway_x":1,"b":2}`, `{"b":2}`},
		{"$ai_span", `{"\u0024ai_gateway_` + long + `":1,"b":2}`, `{"b":2}`},
		{"$ai_span", `{"\u0024ai_gate_` + long + `":1,"b":2}`, `{"$ai_gate_` + long + `":1,"b":2}`},
		{"$pageview", `{"$ai_gateway_x":1}`, `{"$ai_gateway_x":1}`},
	} {
		s := newService(t, DefaultConfig())
		require.Equal(t, 200,
			s.post("/e/",
				fmt.Sprintf(`{"event":%q,"distinct_id":"u","token":"k","properties":%s}`, test.event,
					test.properties)).Status)
		require.JSONEq(t, test.want, string(s.sink.events[0].Raw.Properties), test.properties)
	}
}

// Sections 1.2 and 6 of the protocol: the AI batch takes AI events, each up to a ceiling of its own.
func TestSection6TheAIBatchTakesAIEventsOnly(t *testing.T) {
	config := DefaultConfig()
	config.MaxAIEvent = 100
	s := newService(t, config)
	ai := func(body string) route.Response {
		return s.CaptureAI(context.Background(),
			&route.Request{Path: "/i/v0/ai/batch/", Body: []byte(body), ClientIP: "192.0.2.1", Received: received})
	}
	small := `{"event":"$ai_generation","distinct_id":"u","token":"k","properties":{"$ai_model":"m"}}`
	large := `{"event":"$ai_generation","distinct_id":"u","token":"k","properties":{"$ai_input":"` +
		strings.Repeat("x", 100) + `"}}`
	other := `{"event":"$pageview","distinct_id":"u","token":"k"}`
	require.Equal(t, 200, ai(`[`+small+`,`+other+`,`+large+`]`).Status, "bad ones are rejected alone")
	require.Len(t, s.sink.events, 1)

	response := ai(`[` + other + `]`)
	require.Equal(t, 400, response.Status)
	require.Equal(t, "the event is not an AI event; send it to the analytics endpoint", response.Body)
	response = ai(`[` + large + `]`)
	require.Equal(t, 413, response.Status)
	require.Equal(t, "maximum AI event size exceeded: the properties of an AI event are larger than 100 bytes",
		response.Body)
	require.Equal(t, 413, s.post("/e/", large).Status, "the ceiling is the lane's, not the route's")
	totals := s.ledger.Snapshot()
	require.EqualValues(t, 2, totals.Rejected[events.ReasonNotAI])
	require.EqualValues(t, 3, totals.Rejected[events.ReasonTooLarge])
}
