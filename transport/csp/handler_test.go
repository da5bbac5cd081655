package csp

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

// witness accepts every event, unless judge has ended it, and keeps copies.
type witness struct {
	judge  func(*events.Event)
	batch  events.Batch
	events []events.Event
}

func (w *witness) Process(_ context.Context, batch *events.Batch) {
	w.batch, w.events = *batch, nil
	for i := range batch.Events {
		event := &batch.Events[i]
		if w.judge != nil {
			w.judge(event)
		}
		event.Accept()
		kept := *event
		kept.Raw.Properties = bytes.Clone(event.Raw.Properties)
		kept.Raw.DistinctID, kept.Raw.Timestamp = bytes.Clone(event.Raw.DistinctID), bytes.Clone(event.Raw.Timestamp)
		kept.DistinctID = strings.Clone(event.DistinctID)
		w.events = append(w.events, kept)
	}
}

type fixture struct {
	*Handler
	*witness
	budget *memory.Budget
}

func newFixture() *fixture {
	budget, kept := memory.NewBudget(256<<20), &witness{}
	decoder := decode.New(func(*configs.View) int64 { return 64 << 20 }, budget)
	return &fixture{
		Handler: NewHandler(decoder, budget, kept, tally.NoopScope), witness: kept, budget: budget,
	}
}

var received = time.Date(2026, 11, 29, 10, 20, 30, 0, time.UTC)

// report sends a body with a query. The budget must then be empty.
func (f *fixture) report(t *testing.T, query, body string) route.Response {
	t.Helper()
	f.events = nil
	response := f.Capture(t.Context(), &route.Request{
		Method: "POST", Path: "/report/", RawQuery: query, Body: []byte(body),
		ContentType: "application/csp-report", Header: route.Headers{"User-Agent": "Mozilla/5.0"},
		Received: received,
	})
	require.Zero(t, f.budget.InUse())
	return response
}

func properties(t *testing.T, event events.Event) map[string]any {
	t.Helper()
	var fields map[string]any
	require.NoError(t, json.Unmarshal(event.Raw.Properties, &fields), "%s", event.Raw.Properties)
	return fields
}

const legacy = `{"csp-report":{"document-uri":"https://shop.example/a","referrer":"https://search.example/",` +
	`"violated-directive":"script-src-elem","effective-directive":"script-src-elem",` +
	`"original-policy":"default-src 'self'",` +
	`"disposition":"enforce","blocked-uri":"https://evil.example/x.js","line-number":12,"column-number":3,` +
	`"source-file":"https://shop.example/a.js","status-code":200,"script-sample":""}}`

const modern = `{"age":1500,"body":{"blockedURL":"inline","columnNumber":39,"disposition":"report",` +
	`"documentURL":"https://shop.example/b","effectiveDirective":"script-src-elem","lineNumber":121,` +
	`"originalPolicy":"default-src 'self'","referrer":"","sample":"console.log(1 < 2)","sourceFile":null,` +
	`"statusCode":200},"type":"csp-violation","url":"https://shop.example/b","user_agent":"Firefox/1"}`

func TestAReportOfReportURIBecomesTheEventThatPostHogMakes(t *testing.T) {
	f := newFixture()
	response := f.report(t, "token=phc_test&distinct_id=ann&session_id=s1&v=2", legacy)
	require.Equal(t, 204, response.Status, response.Body)
	require.Empty(t, response.Body)
	require.Len(t, f.events, 1)
	event := f.events[0]
	require.Equal(t, "$csp_violation", event.Name)
	require.Equal(t, "ann", event.DistinctID)
	require.Equal(t, `"ann"`, string(event.Raw.DistinctID))
	require.Equal(t, events.LaneMain, event.Lane)
	require.Equal(t, received, event.Timestamp)
	require.Equal(t, `"2026-11-29T10:20:30Z"`, string(event.Raw.Timestamp))
	require.EqualValues(t, 7, event.UUID.Version())
	require.False(t, event.ClientUUID)
	require.Equal(t, "phc_test", f.batch.Token)
	var raw any
	require.NoError(t, json.Unmarshal([]byte(legacy), &raw))
	require.Equal(t, map[string]any{
		"$session_id": "s1", "$csp_version": "2", "$current_url": "https://shop.example/a",
		"$process_person_profile": false, "$raw_user_agent": "Mozilla/5.0", "$csp_report_type": "csp-violation",
		"$csp_document_url": "https://shop.example/a", "$csp_referrer": "https://search.example/",
		"$csp_violated_directive": "script-src-elem", "$csp_effective_directive": "script-src-elem",
		"$csp_original_policy": "default-src 'self'", "$csp_disposition": "enforce",
		"$csp_blocked_url": "https://evil.example/x.js", "$csp_line_number": 12.0, "$csp_column_number": 3.0,
		"$csp_source_file": "https://shop.example/a.js", "$csp_status_code": 200.0, "$csp_script_sample": "",
		"$csp_raw_report": raw,
	}, properties(t, event))
}

func TestReportsOfTheReportingAPIBecomeAnEventEach(t *testing.T) {
	f := newFixture()
	body := `[` + modern + `,{"type":"deprecation","age":1,"body":{},"url":"https://shop.example/"},` +
		strings.Replace(modern, `"inline"`, `"eval"`, 1) + `]`
	require.Equal(t, 204, f.report(t, "token=phc_test", body).Status)
	require.Len(t, f.events, 2)
	fields := properties(t, f.events[0])
	sample := "console.log(1 &lt; 2)"
	raw := fields["$csp_raw_report"].(map[string]any)
	require.Equal(t, sample, raw["body"].(map[string]any)["sample"])
	require.Equal(t, 1500.0, raw["age"])
	delete(fields, "$csp_raw_report")
	session := fields["$session_id"]
	require.Len(t, session, 36)
	require.Equal(t, map[string]any{
		"$session_id": session, "$csp_version": "unknown", "$current_url": "https://shop.example/b",
		"$process_person_profile": false, "$raw_user_agent": "Mozilla/5.0", "$csp_report_type": "csp-violation",
		"$csp_document_url": "https://shop.example/b", "$csp_referrer": "",
		"$csp_violated_directive": "script-src-elem", "$csp_effective_directive": "script-src-elem",
		"$csp_original_policy": "default-src 'self'", "$csp_disposition": "report",
		"$csp_blocked_url": "inline", "$csp_line_number": 121.0, "$csp_column_number": 39.0,
		"$csp_source_file": nil, "$csp_status_code": 200.0, "$csp_script_sample": sample,
		"$csp_user_agent": "Firefox/1",
	}, fields)
	require.Equal(t, received.Add(-1500*time.Millisecond), f.events[0].Timestamp, "the browser held the report back")
	require.Equal(t, "eval", properties(t, f.events[1])["$csp_blocked_url"])
	require.Equal(t, session, properties(t, f.events[1])["$session_id"], "the reports of a request belong together")
	require.Equal(t, f.events[0].DistinctID, f.events[1].DistinctID)
	require.Len(t, f.events[0].DistinctID, 36)
	require.NotEqual(t, f.events[0].UUID, f.events[1].UUID)
}

// Bytes decide about the form of a report, and no content type.
func TestAReportIsReadInEitherFormWhateverItIsCalled(t *testing.T) {
	f := newFixture()
	for body, url := range map[string]string{
		modern:                 "https://shop.example/b",
		"[" + legacy + "]":     "https://shop.example/a",
		" \n" + legacy + "\n ": "https://shop.example/a",
		`{"type":"csp-violation","url":"https://shop.example/c","body":{"blocked-uri":"eval",` +
			`"violated-directive":"script-src","user-agent":"Safari"}}`: "https://shop.example/c",
		`{"type":"csp-violation","body":{"document-uri":"https://shop.example/d"}}`:          "https://shop.example/d",
		`{"csp-report":{"document-uri":"https://shop.example/e","script-sample":"a\ud83d"}}`: "https://shop.example/e",
		`{"csp-report":{"document-uri":"https://shop.example/f","line-number":NaN}}`:         "https://shop.example/f",
	} {
		response := f.report(t, "api_key=phc_test", body)
		require.Equal(t, 204, response.Status, "%s: %s", body, response.Body)
		require.Len(t, f.events, 1, body)
		require.Equal(t, url, properties(t, f.events[0])["$current_url"], body)
	}
}

// Addresses come from any page, in any charset.
func TestAByteOfAReportThatIsNotUTF8IsReplacedAndTold(t *testing.T) {
	f := newFixture()
	for _, body := range []string{
		"{\"csp-report\":{\"document-uri\":\"https://shop.example/caf\xe9\"}}",
		"[{\"type\":\"csp-violation\",\"url\":\"https://shop.example/caf\xe9\",\"body\":{}}," + modern + "]",
	} {
		require.Equal(t, 204, f.report(t, "token=k", body).Status, body)
		event := f.events[0]
		require.True(t, utf8.Valid(event.Raw.Properties), "%q", event.Raw.Properties)
		require.Equal(t, "https://shop.example/caf\ufffd", properties(t, event)["$current_url"])
		require.True(t, f.batch.Repaired)
	}
}

func TestWhatIsNoReportIsRefusedAndSaidSo(t *testing.T) {
	f := newFixture()
	for _, test := range []struct {
		query, body string
		status      int
		text        string
	}{
		{"", legacy, 401, "API key is missing"},
		{"token=a%00b", legacy, 401, "API key is not valid"},
		{"token=k", "", 400, "request missing data payload"},
		{"token=k", "{", 400, "failed to parse request"},
		{"token=k", "{}", 400, "the body is no report"},
		{"token=k", "[1,{},null,[]]", 400, "the body is no report"},
		{"token=k", "17", 400, "the body is no report"},
		{"token=k", `{"type":"deprecation"}`, 400, "the body is no report"},
		{"token=k", `{"csp-report":null}`, 400, "must be an object"},
		{"token=k", `{"csp-report":[]}`, 400, "must be an object"},
		{"token=k", `[{"type":"csp-violation","body":1}]`, 400, "must be an object"},
		{
			"token=k", "[" + strings.Repeat(`{"type":"crash"},`, maxReports) + `{"type":"crash"}]`, 413,
			"more than 1000 reports",
		},
	} {
		response := f.report(t, test.query, test.body)
		require.Equal(t, test.status, response.Status, test.body)
		require.Contains(t, response.Body, test.text)
	}
	for _, nothing := range []string{"[]", " [ ] ", `[{"type":"deprecation","body":{}}]`} {
		require.Equal(t, 204, f.report(t, "token=k", nothing).Status, nothing)
		require.Empty(t, f.events)
	}
}

func TestAFaultyReportTakesNoOtherAlong(t *testing.T) {
	f := newFixture()
	require.Equal(t, 204, f.report(t, "token=k", `[{"type":"csp-violation"},17,`+modern+`]`).Status)
	require.Len(t, f.events, 2)
	require.Equal(t, events.StateRejected, f.events[0].Outcome.State)
	require.Equal(t, events.ReasonInvalidEvent, f.events[0].Outcome.Reason)
	require.Equal(t, events.StateAccepted, f.events[1].Outcome.State)
}

func TestTheMarkupOfASampleIsEscapedInTheEventAndInTheRawReport(t *testing.T) {
	f := newFixture()
	want := `&lt;img src=x onerror=&quot;a(&#x27;&amp;&#x27;)&quot;&gt;`
	for _, body := range []string{
		`{"csp-report":{"script-sample":"<img src=x onerror=\"a('&')\">","x":{"y":1e400}},"z":[1]}`,
		`{"type":"csp-violation","body":{"sample":"\u003cimg src=x onerror=\"a('&')\">"}}`,
	} {
		require.Equal(t, 204, f.report(t, "token=k", body).Status)
		fields := string(f.events[0].Raw.Properties)
		require.Equal(t, 2, strings.Count(fields, want), fields)
		require.NotContains(t, fields, "<")
		require.True(t, json.Valid(f.events[0].Raw.Properties))
	}
	require.Equal(t, 204, f.report(t, "token=k", `{"csp-report":{"script-sample":17}}`).Status)
	require.Contains(t, string(f.events[0].Raw.Properties), `"$csp_script_sample":"17"`)
}

// The hash and the key are those of PostHog's service, so that both keep the same reports.
func TestSamplingKeepsThePartThatTheQueryAsksFor(t *testing.T) {
	require.Equal(t, "https://shop.example/a-2026-11-29T10:20:00", samplingKey("https://shop.example/a", received))
	require.True(t, isSampled("", 0.01))
	require.True(t, isSampled("a", 0.98), "97 in hundredths")
	require.False(t, isSampled("a", 0.97))
	require.True(t, isSampled("\u00e9a", 0.21), "233 times 31, and 97, is 7320")
	require.False(t, isSampled("\u00e9a", 0.20))
	require.False(t, isSampled("", 0))

	f := newFixture()
	for query, rate := range map[string]float64{
		"": 1, "&sample_rate=1": 1, "&sample_rate=7": 1, "&sample_rate=x": 1, "&sample_rate=nan": 1, "&sample_rate=": 1,
		"&sample_rate=0": 0, "&sample_rate=-1": 0, "&sample_rate=-inf": 0, "&sample_rate=0.5": 0.5,
	} {
		kept := 0
		for i := range 100 {
			url := "https://shop.example/" + strings.Repeat("x", i)
			body := strings.Replace(legacy, "https://shop.example/a", url, 1)
			require.Equal(t, 204, f.report(t, "token=k"+query, body).Status)
			event := f.events[0]
			want := rate == 1 || isSampled(samplingKey(url, received), rate)
			require.Equal(t, want, event.Outcome.State == events.StateAccepted, "%s: %s", query, url)
			if !want {
				require.Equal(t, events.ReasonSampled, event.Outcome.Reason)
				continue
			}
			kept++
			if fields := properties(t, event); rate < 1 {
				require.Equal(t, true, fields["$csp_csp_sampled"])
				require.Equal(t, rate, fields["$csp_csp_sample_threshold"])
				require.Equal(t, samplingKey(url, received), fields["$csp_csp_sampling_key"])
			} else {
				require.NotContains(t, fields, "$csp_csp_sampled")
			}
		}
		require.InDelta(t, 100*rate, kept, 20, query)
	}
}

func TestACrashBecomesAnEventWithoutTheSecretsOfItsPage(t *testing.T) {
	f := newFixture()
	body := `{"type":"crash","age":60000,"url":"https://shop.example/reset/abcdefgh12345678/done?token=secret#x",` +
		`"user_agent":"Chrome/1","body":{"reason":"oom","crashId":"c1","is_top_level":true,` +
		`"visibility_state":"hidden"}}`
	require.Equal(t, 204, f.report(t, "token=k&session_id=s&sample_rate=0", body).Status)
	event := f.events[0]
	url := "https://shop.example/reset/<redacted>/done"
	require.Equal(t, "$browser_crash_report", event.Name)
	require.Equal(t, events.StateAccepted, event.Outcome.State, "crashes are not sampled")
	require.Equal(t, received.Add(-time.Minute), event.Timestamp)
	require.NotContains(t, string(event.Raw.Properties), "secret")
	fields := properties(t, event)
	require.Equal(t, url, fields["$browser_crash_raw_report"].(map[string]any)["url"])
	delete(fields, "$browser_crash_raw_report")
	require.Equal(t, map[string]any{
		"$session_id": "s", "$current_url": url, "$process_person_profile": false, "$raw_user_agent": "Chrome/1",
		"$browser_crash_reason": "oom", "$browser_crash_id": "c1", "$browser_crash_is_top_level": true,
		"$browser_crash_visibility_state": "hidden", "$browser_crash_age_ms": 60000.0,
		"$browser_crash_document_url": url, "$browser_crash_user_agent": "Chrome/1",
	}, fields)

	require.Equal(t, 204, f.report(t, "token=k", `{"type":"crash","age":1e99,"url":7,"body":null}`).Status)
	fields = properties(t, f.events[0])
	require.Equal(t, "unknown", fields["$browser_crash_reason"])
	require.Nil(t, fields["$current_url"])
	require.Equal(t, "Mozilla/5.0", fields["$raw_user_agent"])
	require.Equal(t, received, f.events[0].Timestamp, "nobody holds a report back for so long")

	for url, want := range map[string]string{
		"https://ann:pw@shop.example/a": "https://shop.example/a", "https://shop.example": "https://shop.example",
		"about:blank": "about:blank", "/a/0123456789abcdef": "/a/<redacted>",
		"https://shop.example/abcdefghijklmnopqrst/": "https://shop.example/abcdefghijklmnopqrst/",
		"https://shop.example/a@b/x":                 "https://shop.example/a@b/x",
	} {
		require.Equal(t, want, withoutSecrets(url))
	}
}

func TestIDsOfTheQueryAreKeptWithinBounds(t *testing.T) {
	f := newFixture()
	long := strings.Repeat("\u00e9", 4000)
	require.Equal(t, 204, f.report(t, "token=k&distinct_id="+long+"&session_id="+long+"&v=%20", legacy).Status)
	event := f.events[0]
	require.Equal(t, strings.Repeat("\u00e9", 200), event.DistinctID)
	require.True(t, event.Notes.Has(events.NoteDistinctIDCut))
	require.Equal(t, strings.Repeat("\u00e9", 500), properties(t, event)["$session_id"])
	require.Equal(t, "unknown", properties(t, event)["$csp_version"])
}

func TestWhatAReportTakesOfTheMemoryIsReserved(t *testing.T) {
	f := newFixture()
	sample := strings.Repeat("'", 200<<10)
	body := `{"csp-report":{"script-sample":"` + sample + `"}}`
	inUse := int64(0)
	f.judge = func(event *events.Event) {
		inUse = f.budget.InUse()
		require.Greater(t, inUse, int64(len(event.Raw.Properties)))
	}
	require.Equal(t, 204, f.report(t, "token=k", body).Status)
	require.Positive(t, inUse)

	taken := f.budget.Lease()
	require.True(t, taken.Reserve(f.budget.Limit()-inUse/2))
	response := f.Capture(t.Context(), &route.Request{RawQuery: "token=k", Body: []byte(body), Received: received})
	require.Equal(t, 503, response.Status)
	require.True(t, response.Retry)
	require.Equal(t, taken.Held(), f.budget.InUse())
}

func TestWhatARepairGrowsToIsReserved(t *testing.T) {
	f := newFixture()
	body := `{"csp-report":{"document-uri":"` + strings.Repeat("\x01", 100<<10) + `"}}`
	f.judge = func(*events.Event) { require.Greater(t, f.budget.InUse(), int64(600<<10)) }
	require.Equal(t, 204, f.report(t, "token=k", body).Status)
	require.Len(t, f.events, 1)

	taken := f.budget.Lease()
	require.True(t, taken.Reserve(f.budget.Limit()-500<<10))
	response := f.Capture(t.Context(), &route.Request{RawQuery: "token=k", Body: []byte(body), Received: received})
	require.Equal(t, 503, response.Status)
	require.Equal(t, taken.Held(), f.budget.InUse())
}

func TestAReportThatIsNotSafeIsToBeSentAgain(t *testing.T) {
	f := newFixture()
	f.judge = func(event *events.Event) { event.Fail(events.ReasonTimeout, events.Errorf(events.Unavailable, "away")) }
	response := f.report(t, "token=k", legacy)
	require.Equal(t, 503, response.Status)
}

// Whatever stands in a body, every event that is kept has properties that are JSON, and no memory stays reserved.
func FuzzReports(f *testing.F) {
	f.Add("token=k", legacy)
	f.Add("token=k&sample_rate=0.5&distinct_id=a",
		"["+modern+","+legacy+`,{"type":"crash","url":"https://a/b","age":1}]`)
	f.Add("token=k", "{\"csp-report\":{\"document-uri\":\"\xe9\"}}")
	f.Add("token=k", `[{"type":"csp-violation","body":{"sample":"<\ud83d","sample":1}},{"csp-report":7}]`)
	fixture := newFixture()
	f.Fuzz(func(t *testing.T, query, body string) {
		response := fixture.report(t, query, body)
		require.Contains(t, []int{204, 400, 401, 413}, response.Status)
		for _, event := range fixture.events {
			require.True(t, json.Valid(event.Raw.Properties), "%s", event.Raw.Properties)
			require.True(t, utf8.Valid(event.Raw.Properties), "%q", event.Raw.Properties)
			require.NotEmpty(t, strings.TrimSpace(event.DistinctID))
			require.True(t, json.Valid(event.Raw.DistinctID))
			require.WithinRange(t, event.Timestamp, received.Add(-8*24*time.Hour), received)
		}
	})
}
