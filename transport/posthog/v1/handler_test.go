package v1

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

const givenID = "01a20526-db14-71b9-bce0-3d6c94bebba0"

// requestOf returns a request that is sound except for its body, of a client whose clock is a minute slow.
func requestOf(body string) *route.Request {
	return &route.Request{
		Method: "POST", Path: "/i/v1/analytics/events", ContentType: "application/json",
		Header: route.Headers{
			"Authorization": "Bearer phc_test", "PostHog-Sdk-Info": "posthog-node/5.70.0", "PostHog-Attempt": "1",
			"PostHog-Request-Id":        givenID,
			"PostHog-Request-Timestamp": received.Add(-time.Minute).Format(time.RFC3339Nano), "User-Agent": "test",
		},
		Body: []byte(body), ClientIP: "192.0.2.1", RequestID: "r", Received: received,
	}
}

func id(n int) string { return fmt.Sprintf("0198c0de-0000-7000-8000-%012d", n) }

// eventOf returns an event in which the given fields are replaced or added.
func eventOf(n int, fields string) string {
	event := map[string]json.RawMessage{
		"event": []byte(`"a"`), "uuid": []byte(strconv.Quote(id(n))), "distinct_id": []byte(`"u"`),
		"timestamp": []byte(`"2026-11-24T11:58:00Z"`), "properties": []byte(`{"x":1}`),
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal([]byte("{"+fields+"}"), &given); err != nil {
		panic(err)
	}
	for key, value := range given {
		if event[key] = value; string(value) == `"absent"` {
			delete(event, key)
		}
	}
	text, _ := json.Marshal(event)
	return string(text)
}

func batchOf(events ...string) string {
	return `{"created_at":"2026-11-24T11:59:00Z","batch":[` + strings.Join(events, ",") + `]}`
}

// grow gives the service a large budget, and the decoder a limit.
func (s *service) grow(maxDecoded int64) {
	s.budget = memory.NewBudget(1 << 30)
	s.Handler = newHandler(posthog.DefaultConfig(), decode.New(route.Fixed(maxDecoded), s.budget), s.budget,
		s.processor, s.scope)
}

func (s *service) post(body string) route.Response {
	return s.Capture(context.Background(), requestOf(body))
}

func fieldsOf(response route.Response) map[string]string {
	fields := map[string]string{}
	for _, field := range response.Header {
		fields[field.Name] = field.Value
	}
	return fields
}

type failed struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	URI         string `json:"error_uri"`
}

func failure(t *testing.T, response route.Response) failed {
	var body failed
	require.NoError(t, json.Unmarshal([]byte(response.Body), &body), response.Body)
	require.NotEmpty(t, body.Description)
	require.Equal(t, "https://posthog.com/docs/api", body.URI)
	require.Equal(t, "application/json", response.ContentType)
	require.Equal(t, "application/json", fieldsOf(response)["Accept"])
	require.Equal(t, "gzip, deflate, br, zstd", fieldsOf(response)["Accept-Encoding"])
	return body
}

func gzipped(text string) string {
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	_, _ = writer.Write([]byte(text))
	_ = writer.Close()
	return out.String()
}

// Section 0.1 of the protocol: the faults of a request are checked in this order, only the first is answered, and
// nothing of the request is kept. Each case mends the fault of the case before it.
func TestSection01ChecksInOrder(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	tooLarge := events.Errorf(events.TooLarge, "maximum event size exceeded")
	request := requestOf("\x00\x01")
	request.ContentType, request.ContentEncoding = "text/plain", "compress"
	request.Header = route.Headers{}
	set := func(name, value string) func() {
		return func() { request.Header.(route.Headers)[name] = value }
	}
	for _, test := range []struct {
		mend   func()
		status int
		tag    string
		detail string
	}{
		{func() {}, 401, "missing_authorization", ""},
		{set("Authorization", "Basic abc"), 401, "invalid_api_token", "Bearer"},
		{set("Authorization", "Bearer"), 401, "invalid_api_token", "empty"},
		{set("Authorization", "Bearer phx_personal"), 401, "invalid_api_token", "personal_api_key"},
		{set("Authorization", "Bearer "+strings.Repeat("k", 65)), 401, "invalid_api_token", "too_long"},
		{set("Authorization", "bEARER  phc_test "), 415, "unsupported_content_type", ""},
		{func() { request.ContentType = "application/jsonl" }, 415, "unsupported_content_type", ""},
		{
			func() { request.ContentType = "Application/JSON ; charset=utf-8" }, 400, "missing_required_headers",
			": PostHog-Sdk-Info, PostHog-Attempt, PostHog-Request-Id, PostHog-Request-Timestamp, User-Agent",
		},
		{set("PostHog-Sdk-Info", "posthog-node"), 400, "missing_required_headers", "PostHog-Sdk-Info"},
		{set("PostHog-Sdk-Info", "/1.0"), 400, "missing_required_headers", "PostHog-Sdk-Info"},
		{set("PostHog-Sdk-Info", "a/\x01"), 400, "missing_required_headers", "PostHog-Sdk-Info"},
		{set("PostHog-Sdk-Info", "posthog-node/5.70.0"), 400, "missing_required_headers",
			": PostHog-Attempt, PostHog-Request-Id"},
		{set("PostHog-Attempt", "0"), 400, "missing_required_headers", "PostHog-Attempt"},
		{set("PostHog-Attempt", "one"), 400, "missing_required_headers", "PostHog-Attempt"},
		{set("PostHog-Attempt", "2"), 400, "missing_required_headers", ": PostHog-Request-Id"},
		{set("PostHog-Request-Id", "7"), 400, "missing_required_headers", ": PostHog-Request-Id"},
		{set("PostHog-Request-Id", givenID), 400, "missing_required_headers",
			": PostHog-Request-Timestamp, User-Agent"},
		{set("PostHog-Request-Timestamp", "1795383045842"), 400, "missing_required_headers",
			"PostHog-Request-Timestamp"},
		{set("PostHog-Request-Timestamp", "2026-11-24T12:00:00+00:00"), 400, "missing_required_headers",
			": User-Agent"},
		{set("User-Agent", "test"), 415, "unsupported_encoding", ""},
		{func() { request.ContentEncoding = "gzip, br" }, 415, "unsupported_encoding", ""},
	} {
		test.mend()
		for _, response := range []route.Response{
			s.Capture(context.Background(), request), s.CaptureAI(context.Background(), request),
			s.Refuse(request, tooLarge),
		} {
			got := failure(t, response)
			require.Equal(t, test.tag, got.Error)
			require.Equal(t, test.status, response.Status, test.tag)
			require.Contains(t, got.Description, test.detail)
			require.False(t, response.Retry)
		}
	}
	request.ContentEncoding = "identity"
	response := s.Refuse(request, tooLarge)
	require.Equal(t, "payload_too_large", failure(t, response).Error, "then what kept the body from being read")
	require.Equal(t, 413, response.Status)
	response = s.Capture(context.Background(), request)
	require.Equal(t, "request_parsing_error", failure(t, response).Error, "and then what the body is")
	request.Body, request.ContentEncoding = []byte("\ufeff \n"+batchOf(eventOf(1, ""))), "compress"
	require.Equal(t, 200, s.Capture(context.Background(), request).Status,
		"a body that begins like JSON is read as that")
	require.EqualValues(t, 1, s.ledger.Snapshot().Received)
}

func TestATokenIsFoundHoweverTheAuthorizationHeaderSpellsIt(t *testing.T) {
	for _, test := range []struct {
		authorization, query, token, tag, detail string
	}{
		{"Bearer%20phc_h", "", "phc_h", "", ""},
		{"phc_h", "", "phc_h", "", ""},
		{"bearer Bearer phc_h", "", "phc_h", "", ""},
		{"Bearer phc_h", "token=phc_q", "phc_h", "", ""},
		{"Basic c3RhZ2U6c2VjcmV0", "token=phc_q", "phc_q", "", ""},
		{"Basic c3RhZ2U6c2VjcmV0", "", "", "invalid_api_token", "the Authorization header has the scheme Basic"},
		{"Digest a=b c=d", "a=b", "", "invalid_api_token",
			"the Authorization header has a scheme other than Bearer"},
		{"Basic c3RhZ2U6c2VjcmV0", "token=phx_q", "", "invalid_api_token", "personal_api_key"},
		{"", "token=phc_q", "", "missing_authorization", "is missing"},
	} {
		s := newService(t, posthog.DefaultConfig())
		request := requestOf(batchOf(eventOf(1, "")))
		request.Header.(route.Headers)["Authorization"], request.RawQuery = test.authorization, test.query
		response := s.Capture(context.Background(), request)
		early, _ := s.Routes()[0].Token(request)
		require.Equal(t, test.token, early, "the gates know it before the body is read")
		if test.tag != "" {
			require.Equal(t, 401, response.Status, "%+v", test)
			require.Equal(t, test.tag, failure(t, response).Error, "%+v", test)
			require.Contains(t, failure(t, response).Description, test.detail)
			continue
		}
		require.Equal(t, 200, response.Status, "%+v: %s", test, response.Body)
		require.Equal(t, test.token, s.sink.batch.Token, "%+v", test)
	}
}

func TestABatchMayBeAJSONStringAndTheRequestToo(t *testing.T) {
	array := "[" + eventOf(1, "") + "," + eventOf(2, `"properties":{"q":"\"\\"}`) + "]"
	request := `{"created_at":"2026-11-24T11:59:00Z","batch":` + jsonText(t, array) + `}`
	for _, body := range []string{
		request, jsonText(t, request), strings.Replace(request, jsonText(t, array), jsonText(t, jsonText(t, array)), 1),
	} {
		s := newService(t, posthog.DefaultConfig())
		response := s.post(body)
		require.Equal(t, 200, response.Status, response.Body)
		require.Len(t, s.sink.events, 2)
		require.Contains(t, string(s.sink.events[1].Raw.Properties), `{"q":"\"\\"`)
	}
	s := newService(t, posthog.DefaultConfig())
	response := s.post(strings.Replace(request, "]", `],\"x\":[1]`, 1))
	require.Equal(t, 400, response.Status)
	require.Equal(t, "request_decoding_error", failure(t, response).Error)
	require.Contains(t, failure(t, response).Description, "batch is a JSON string that does not hold one array")
	require.Equal(t, "request_parsing_error",
		failure(t, s.post(`{"created_at":"2026-11-24T11:59:00Z","batch":"none"}`)).Error)
}

func TestWhatCompressionIsShownByTheBytesIsNeverUnsupported(t *testing.T) {
	body := batchOf(eventOf(1, ""))
	for _, test := range []struct {
		encoding, body string
		status         int
	}{
		{"gzip, gzip", gzipped(gzipped(body)), 200},
		{"gzip, br", gzipped(body), 200},
		{"compress", gzipped(body), 200},
		{"", gzipped(body) + "\x00\x00", 200},
		{"gzip, br", "\x00\x01", 415},
		{"compress", "\x00\x01", 415},
	} {
		request := requestOf(test.body)
		request.ContentEncoding = test.encoding
		s := newService(t, posthog.DefaultConfig())
		require.Equal(t, test.status, s.Capture(context.Background(), request).Status, "%+v", test)
	}
}

// Section 3.1 of the protocol: the faults that refuse a whole batch. None of its events are kept, and all are counted.
func TestSection31WholeBatchFaults(t *testing.T) {
	good := eventOf(1, "")
	for _, test := range []struct {
		name, body, tag string
		counted         int
	}{
		{"empty body", "", "empty_body", 0},
		{"not JSON", `{"created_at":`, "request_parsing_error", 0},
		{"text behind the JSON", batchOf(good) + "x", "request_parsing_error", 0},
		{"an array", `[` + good + `]`, "request_parsing_error", 0},
		{"invalid UTF-8", "{\"a\":\xff}", "request_decoding_error", 0},
		{"broken gzip", gzipped(batchOf(good))[:40], "request_decoding_error", 0},
		{"no batch", `{"created_at":"2026-11-24T11:59:00Z"}`, "request_parsing_error", 0},
		{"a batch that is null", `{"created_at":"2026-11-24T11:59:00Z","batch":null}`, "request_parsing_error", 0},
		{"a batch that is an object", `{"created_at":"2026-11-24T11:59:00Z","batch":{}}`, "request_parsing_error", 0},
		{"empty batch", batchOf(), "empty_batch", 0},
		{"no created_at", `{"batch":[` + good + `]}`, "invalid_batch", 1},
		{"created_at is a number", `{"created_at":1,"batch":[` + good + `]}`, "invalid_batch", 1},
		{"created_at is no time", `{"created_at":"today","batch":[` + good + `]}`, "invalid_batch", 1},
		{"historical_migration is a word",
			`{"created_at":"2026-11-24T11:59:00Z","historical_migration":"yes","batch":[` + good + `]}`,
			"request_parsing_error", 1},
		{"an event without uuid", batchOf(good, eventOf(2, `"uuid":"absent"`)), "missing_event_uuid", 2},
		{"an empty uuid", batchOf(good, eventOf(2, `"uuid":""`)), "missing_event_uuid", 2},
		{"uuid null", batchOf(eventOf(2, `"uuid":null`)), "missing_event_uuid", 1},
		{"an event that is no object", batchOf(good, "7"), "missing_event_uuid", 2},
		{"an invalid uuid", batchOf(good, eventOf(2, `"uuid":"1234"`)), "invalid_event_uuid", 2},
		{"uuid is a number", batchOf(eventOf(2, `"uuid":7`)), "invalid_event_uuid", 1},
		{"a huge uuid", batchOf(eventOf(2, `"uuid":"`+strings.Repeat(`\u0030`, 1000)+`"`)), "invalid_event_uuid", 1},
		{"the same uuid twice, not side by side", batchOf(good, eventOf(2, ""), eventOf(1, "")), "duplicate_event_uuid",
			3},
		{"the same uuid in two spellings",
			batchOf(eventOf(1, `"uuid":"0198C0DE-0000-7000-8000-00000000000A"`),
				eventOf(1, `"uuid":"0198c0de00007000800000000000000a"`)), "duplicate_event_uuid", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, posthog.DefaultConfig())
			response := s.post(test.body)
			require.Equal(t, test.tag, failure(t, response).Error, response.Body)
			require.Equal(t, 400, response.Status)
			require.False(t, response.Retry)
			require.Equal(t, givenID, fieldsOf(response)["PostHog-Request-Id"])
			require.Empty(t, s.sink.events)
			require.EqualValues(t, test.counted, s.ledger.Snapshot().Received)
		})
	}
}

// Section 3.1 of the protocol: the faults of one event. Its neighbour is kept in every case.
func TestSection31EventResults(t *testing.T) {
	long := strings.Repeat("é", 201)
	for _, test := range []struct {
		name, fields, result, details string
	}{
		{"sound", ``, "ok", ""},
		{"no name", `"event":"absent"`, "drop", "missing_event_name"},
		{"empty name", `"event":""`, "drop", "missing_event_name"},
		{"name is a number", `"event":7`, "drop", "missing_event_name"},
		{"name of 200 bytes", `"event":"` + strings.Repeat("n", 200) + `"`, "ok", ""},
		{"name of 200 bytes, all escaped", `"event":"` + strings.Repeat(`\u006e`, 200) + `"`, "ok", ""},
		{"name over 200 bytes", `"event":"` + strings.Repeat("n", 201) + `"`, "drop", "event_name_too_long"},
		{"huge name", `"event":"` + strings.Repeat("n", 100_000) + `"`, "drop", "event_name_too_long"},
		{"no distinct_id", `"distinct_id":"absent"`, "drop", "missing_distinct_id"},
		{"distinct_id null", `"distinct_id":null`, "drop", "missing_distinct_id"},
		{"empty distinct_id", `"distinct_id":""`, "drop", "missing_distinct_id"},
		{"blank distinct_id", `"distinct_id":" "`, "drop", "missing_distinct_id"},
		{"distinct_id only in the properties", `"distinct_id":"absent","properties":{"distinct_id":"u"}`, "drop",
			"missing_distinct_id"},
		{"distinct_id is a number", `"distinct_id":12345`, "ok", ""},
		{"distinct_id over 200 characters", `"distinct_id":"` + long + `"`, "ok", "distinct_id_truncated"},
		{"distinct_id over 200 bytes", `"distinct_id":"` + long[:400] + `"`, "ok", ""},
		{"no timestamp", `"timestamp":"absent"`, "drop", "invalid_event_timestamp"},
		{"timestamp is a number", `"timestamp":1795383045842`, "drop", "invalid_event_timestamp"},
		{"timestamp without a zone", `"timestamp":"2026-11-24T12:00:00"`, "drop", "invalid_event_timestamp"},
		{"timestamp of two digits for the zone", `"timestamp":"2026-11-24T12:00:00+01"`, "drop",
			"invalid_event_timestamp"},
		{"timestamp with nanoseconds and an offset", `"timestamp":"2026-11-24T12:00:00.123456789-03:30"`, "ok", ""},
		{"timestamp in lower case with a leap second", `"timestamp":"2016-12-31t23:59:60z"`, "ok", ""},
		{"no properties", `"properties":"absent"`, "ok", ""},
		{"properties null", `"properties":null`, "ok", ""},
		{"properties are an empty array", `"properties":[ ]`, "ok", ""},
		{"properties are an array", `"properties":[1]`, "drop", "malformed_event_properties"},
		{"options null", `"options":null`, "ok", ""},
		{"options are an array", `"options":[1]`, "drop", "invalid_options"},
		{"options are an empty array", `"options":[]`, "ok", ""},
		{"properties that are nested too deep",
			`"properties":{"x":` + strings.Repeat("[", 130) + strings.Repeat("]", 130) + `}`, "drop",
			"event_nested_too_deep"},
		{"an option of a wrong type", `"options":{"cookieless_mode":[]}`, "drop", "invalid_options"},
		{"an option that is a word", `"options":{"process_person_profile":"yes"}`, "drop", "invalid_options"},
		{"an option that is 2", `"options":{"disable_skew_correction":2}`, "drop", "invalid_options"},
		{"a tour that is a fraction", `"options":{"product_tour_id":1.5}`, "drop", "invalid_options"},
		{"a tour that is true", `"options":{"product_tour_id":true}`, "drop", "invalid_options"},
		{"options of null", `"options":{"cookieless_mode":null,"product_tour_id":null}`, "ok", ""},
		{"an unknown option", `"options":{"mood":[7]}`, "ok", ""},
		{"a cookieless mode in the properties that is none", `"properties":{"$cookieless_mode":1}`, "drop",
			"invalid_options"},
		{"a cookieless mode of null in the properties", `"properties":{"$cookieless_mode":null}`, "ok", ""},
		{"performance event", `"event":"$performance_event"`, "drop", "dropped_performance_event"},
		{"performance event without anything", `"event":"$performance_event","distinct_id":"absent","timestamp":7`,
			"drop", "dropped_performance_event"},
		{"AI event", `"event":"$ai_generation"`, "ok", ""},
		{"AI event that is too large", `"event":"$ai_generation","properties":{"x":"` + strings.Repeat("x", 8<<20) +
			`"}`, "drop", "ai_event_too_big"},
		{"other event of that size", `"properties":{"x":"` + strings.Repeat("x", 8<<20) + `"}`, "ok", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, posthog.DefaultConfig())
			s.grow(1 << 30)
			want := `{"result":"` + test.result + `"}`
			if test.details != "" {
				want = `{"result":"` + test.result + `","details":"` + test.details + `"}`
			}
			response := s.post(batchOf(eventOf(1, test.fields), eventOf(2, "")))
			require.Equal(t, `{"results":{"`+id(1)+`":`+want+`,"`+id(2)+`":{"result":"ok"}}}`, response.Body)
			require.Equal(t, 200, response.Status)
			require.False(t, response.Retry)
		})
	}
}

// Section 3.1 of the protocol: the distinct_ids that name nobody.
func TestSection31IllegalDistinctIDs(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	for i, distinctID := range []string{
		"0", "00000000-0000-0000-0000-000000000000", "[object Object]", "anonymous", "Anonymous-User", "backend",
		"DISTINCT_ID",
		"distinctId", "email", "FALSE", "guest", "id", "NaN", "None", "not_authenticated", "null", "system", "true",
		"undefined", " user ",
	} {
		raw, _ := json.Marshal(distinctID)
		response := s.post(batchOf(eventOf(i, `"distinct_id":`+string(raw))))
		require.Equal(t, `{"results":{"`+id(i)+`":{"result":"ok","details":"person_processing_disabled"}}}`,
			response.Body, distinctID)
		require.True(t, s.sink.events[i].Routing.SkipPerson)
		require.Equal(t, distinctID, s.sink.events[i].DistinctID)
	}
	for i, distinctID := range []string{"00", "users", "ids", "anonymous user", "00000000-0000-0000-0000-000000000001",
		"00000000-0000-0000-0000-0000000000000"} {
		response := s.post(batchOf(eventOf(i, `"distinct_id":"`+distinctID+`"`)))
		require.Equal(t, `{"results":{"`+id(i)+`":{"result":"ok"}}}`, response.Body, distinctID)
	}
}

func TestSection31ReadsAnEventsFields(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	request := requestOf(`{"historical_migration":true,"capture_internal":true,"batch":[
		{"event":"a","uuid":"0190A6E2-6C1F-7A3B-8C2D-1E2F3A4B5C6D","distinct_id":"u",` +
		`"timestamp":"2026-11-24T11:58:30+00:00",` +
		`"session_id":"s\u0031","window_id":"w",
			"options":{"cookieless_mode":1,"disable_skew_correction":"0","process_person_profile":"false",` +
		`"product_tour_id":7},"properties": {"a": [1, 2.50, "\u00fc"] }},
		{"event":"$exception","uuid":"` + id(2) + `","distinct_id":"` + strings.Repeat("x", 201) +
		`","timestamp":"2026-11-24T11:58:30Z","options":{"disable_skew_correction":true}},
		{"event":"b","uuid":"` + id(3) + `","distinct_id":"u","timestamp":"2026-12-24T11:58:30Z","session_id":7,` +
		`"properties":{}}],"created_at":"2026-11-24T11:59:00.000Z"}`)
	response := s.Capture(context.Background(), request)
	require.Equal(t, 200, response.Status, response.Body)
	require.Equal(t, `{"results":{"0190A6E2-6C1F-7A3B-8C2D-1E2F3A4B5C6D":{"result":"ok"},"`+id(2)+
		`":{"result":"ok","details":"distinct_id_truncated"},"`+id(3)+`":{"result":"ok"}}}`, response.Body)
	require.Equal(t, []route.Field{{Name: "PostHog-Request-Id", Value: givenID}}, response.Header)

	batch := s.sink.batch
	require.Equal(t, "phc_test", batch.Token)
	require.True(t, batch.Historical)
	require.Equal(t, received.Add(-time.Minute), batch.SentAt)
	first, second, third := s.sink.events[0], s.sink.events[1], s.sink.events[2]
	require.Equal(t, "0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d", first.UUID.String())
	require.True(t, first.ClientUUID)
	require.Equal(t, received.Add(-30*time.Second), first.Timestamp, "the client's clock is a minute slow")
	require.Equal(t,
		`{"a": [1, 2.50, "\u00fc"] ,"$session_id":"s\u0031","$window_id":"w","$cookieless_mode":true,`+
			`"$ignore_sent_at":false,"$product_tour_id":7,`+
			`"$process_person_profile":false,"$lib":"posthog-node","$lib_version":"5.70.0"}`,
		string(first.Raw.Properties))
	require.Equal(t, `"u"`, string(first.Raw.DistinctID))
	require.Equal(t, `"2026-11-24T11:58:30+00:00"`, string(first.Raw.Timestamp))
	require.Nil(t, first.Raw.Token)
	require.True(t, first.Cookieless)
	require.Equal(t, "s1", first.SessionID)
	require.Equal(t, "127.0.0.1", first.ClientIP)
	require.Equal(t, events.LaneHistorical, first.Lane)

	require.Equal(t, events.LaneExceptions, second.Lane, "a special name wins over historical_migration")
	require.Equal(t, received.Add(-90*time.Second), second.Timestamp, "no skew correction")
	require.Equal(t, `{"$ignore_sent_at":true,"$lib":"posthog-node","$lib_version":"5.70.0"}`,
		string(second.Raw.Properties))
	require.Len(t, second.DistinctID, 200)
	require.Len(t, second.Raw.DistinctID, 203, "what was sent stays as it was")
	require.Equal(t, events.NoteDistinctIDCut, second.Notes)

	require.Equal(t, received, third.Timestamp, "more than 23 hours ahead of now is now")
	require.Equal(t, `{"$session_id":7,"$lib":"posthog-node","$lib_version":"5.70.0"}`, string(third.Raw.Properties))
	require.Empty(t, third.SessionID)
}

// Section 0.1 of the protocol: a property that the event itself carries wins, and no key is written twice.
func TestSection01SpliceKeepsTheEventsOwnProperties(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	own := `{"$lib":"mine","\u0024lib_version":null,"$session_id":"","$window_id":[],"$cookieless_mode":true,` +
		`"$ignore_sent_at":true,"$product_tour_id":{},"$process_person_profile":0}`
	response := s.post(batchOf(eventOf(1,
		`"session_id":"s","window_id":"w","options":{"cookieless_mode":false,`+
			`"disable_skew_correction":false,"product_tour_id":"t","process_person_profile":true},
		"properties":`+own)))
	require.Equal(t, `{"results":{"`+id(1)+`":{"result":"ok"}}}`, response.Body)
	event := s.sink.events[0]
	require.Equal(t, own, string(event.Raw.Properties))
	require.True(t, event.Cookieless, "what is written is what counts")
	require.Equal(t, received.Add(-2*time.Minute), event.Timestamp)

	request := requestOf(batchOf(eventOf(2, "")))
	request.Header.(route.Headers)["PostHog-Sdk-Info"] = `@scope/"sdk"\/1.0`
	require.Equal(t, 200, s.Capture(context.Background(), request).Status)
	require.Equal(t, `{"x":1,"$lib":"@scope/\"sdk\"\\","$lib_version":"1.0"}`, string(s.sink.events[1].Raw.Properties))
	request.Header.(route.Headers)["PostHog-Sdk-Info"] = strings.Repeat("s", 197) + "/1.0"
	require.Equal(t, 200, s.Capture(context.Background(), request).Status)
	require.Equal(t, `{"x":1}`, string(s.sink.events[2].Raw.Properties), "a longer name is not written")
}

// Section 4 of the SDKs' facts: status, tag and Retry-After of every answer. An answer that tells the client to come
// again must say when, and no other answer may.
func TestTheDutiesOfAnswers(t *testing.T) {
	fails := func(event *events.Event) {
		if event.Name == "b" {
			event.Fail(events.ReasonUnavailable, events.Errorf(events.Unavailable, "broker: %w", errors.New("gone")))
		}
	}
	ends := func(end func(*events.Event)) func(*events.Event) {
		return func(event *events.Event) {
			if event.Name == "b" {
				end(event)
			}
		}
	}
	tooLarge := events.Errorf(events.TooLarge, "2000000 bytes")
	unknown := events.Errorf(events.Unauthorized, "API key does not belong to any project")
	two := batchOf(eventOf(1, ""), eventOf(2, `"event":"b"`))
	second := func(result string) string {
		return `{"results":{"` + id(1) + `":{"result":"ok"},"` + id(2) + `":` + result + `}}`
	}
	for _, test := range []struct {
		name   string
		body   string
		judge  func(*events.Event)
		refuse error
		change func(*route.Request)
		status int
		answer string // the body of a 200, else the tag
		retry  bool
	}{
		{name: "all is safe", status: 200, answer: second(`{"result":"ok"}`)},
		{name: "one was not made safe", judge: fails, status: 200,
			answer: second(`{"result":"retry","details":"not_persisted"}`), retry: true},
		{
			name: "none was", judge: func(event *events.Event) {
				event.Fail(events.ReasonStage, errors.New("internal"))
			}, status: 200, retry: true,
			answer: `{"results":{"` + id(1) + `":{"result":"retry","details":"not_persisted"},"` + id(2) +
				`":{"result":"retry","details":"not_persisted"}}}`,
		},
		{name: "too large for Kafka", judge: ends(func(e *events.Event) { e.Reject(events.ReasonTooLarge, tooLarge) }),
			status: 200, answer: second(`{"result":"drop","details":"event_too_big"}`)},
		{
			name: "an AI event too large for Kafka", body: batchOf(eventOf(1, `"event":"$ai_span"`)), status: 200,
			judge:  func(e *events.Event) { e.Reject(events.ReasonTooLarge, tooLarge) },
			answer: `{"results":{"` + id(1) + `":{"result":"drop","details":"ai_event_too_big"}}}`,
		},
		{name: "quota", judge: ends(func(e *events.Event) { e.Drop(events.ReasonQuota) }), status: 200,
			answer: second(`{"result":"drop","details":"billing_limit_exceeded"}`)},
		{name: "rule", judge: ends(func(e *events.Event) { e.Drop(events.ReasonRule) }), status: 200,
			answer: second(`{"result":"drop","details":"event_restriction_drop"}`)},
		{name: "not a migration", judge: ends(func(e *events.Event) { e.Drop(events.ReasonNotHistorical) }),
			status: 200, answer: second(`{"result":"drop","details":"non_historical_import_drop"}`)},
		{name: "known already", judge: ends((*events.Event).AcceptDuplicate), status: 200,
			answer: second(`{"result":"ok","details":"duplicate"}`)},
		{
			name: "too fast", status: 200, answer: second(`{"result":"retry","details":"rate_limited"}`), retry: true,
			judge: ends(func(e *events.Event) {
				e.Fail(events.ReasonRateLimited, events.Errorf(events.RateLimited, "secret"))
			}),
		},
		{
			name: "all too fast", status: 429, answer: "rate_limited", retry: true, judge: func(e *events.Event) {
				e.Fail(events.ReasonRateLimited, events.Errorf(events.RateLimited, "secret"))
			},
		},
		{
			name: "all too fast from an SDK that would drop them", status: 200, retry: true,
			change: func(r *route.Request) { r.Header.(route.Headers)["PostHog-Sdk-Info"] = "posthog-go/1.23.1" },
			judge: func(e *events.Event) {
				e.Fail(events.ReasonRateLimited, events.Errorf(events.RateLimited, "secret"))
			},
			answer: `{"results":{"` + id(1) + `":{"result":"retry","details":"rate_limited"},"` + id(2) +
				`":{"result":"retry","details":"rate_limited"}}}`,
		},
		{name: "dropped for being too fast", judge: ends(func(e *events.Event) { e.Drop(events.ReasonRateLimited) }),
			status: 200, answer: second(`{"result":"drop","details":"rate_limited"}`)},
		{name: "a plugin's reason", judge: ends(func(e *events.Event) { e.Drop("bot") }), status: 200,
			answer: second(`{"result":"drop","details":"bot"}`)},
		{
			name: "policy turned person processing off", judge: ends(func(e *events.Event) {
				e.Routing.SkipPerson = true
			}), status: 200,
			answer: second(`{"result":"ok","details":"person_processing_disabled"}`),
		},
		{
			name: "the user sends too fast", judge: ends(func(e *events.Event) {
				e.Routing.SkipPerson, e.Routing.Limited = true, true
			}), status: 200,
			answer: second(`{"result":"warning","details":"person_processing_disabled"}`),
		},
		{
			name: "the user sends too fast, and the event is dropped", judge: ends(func(e *events.Event) {
				e.Routing.SkipPerson, e.Routing.Limited = true, true
				e.Drop(events.ReasonRule)
			}), status: 200,
			answer: second(`{"result":"drop","details":"event_restriction_drop"}`),
		},
		{name: "a stage does not know the token",
			judge: func(e *events.Event) {
				e.Reject(events.ReasonInvalidToken, unknown)
			}, status: 401, answer: "invalid_api_token"},
		{name: "no token", change: func(r *route.Request) { r.Header.(route.Headers)["Authorization"] = "" },
			status: 401, answer: "missing_authorization"},
		{name: "header missing", change: func(r *route.Request) { r.Header.(route.Headers)["PostHog-Attempt"] = "" },
			status: 400, answer: "missing_required_headers"},
		{name: "body not JSON", body: "{", status: 400, answer: "request_parsing_error"},
		{name: "content type", change: func(r *route.Request) { r.ContentType = "text/plain" }, status: 415,
			answer: "unsupported_content_type"},
		{name: "body too large", refuse: tooLarge, status: 413, answer: "payload_too_large"},
		{name: "decoded too large", body: gzipped(strings.Repeat(" ", 2<<20)), status: 413,
			answer: "payload_too_large"},
		{name: "body cut short", refuse: events.Errorf(events.Invalid, "the body ended"), status: 400,
			answer: "request_decoding_error"},
		{name: "slow client", refuse: events.Errorf(events.SlowClient, "client stopped sending data"), status: 408,
			answer: "body_read_timeout", retry: true},
		{name: "the request comes too fast", refuse: events.Errorf(events.RateLimited, "slow down"), status: 429,
			answer: "rate_limited", retry: true},
		{name: "budget spent", refuse: memory.ErrSpent, status: 503, answer: "service_unavailable", retry: true},
		{name: "internal", refuse: errors.New("secret"), status: 500, answer: "internal_error", retry: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, posthog.DefaultConfig())
			s.grow(1 << 20)
			s.sink.judge = test.judge
			request := requestOf(two)
			if test.body != "" {
				request.Body = []byte(test.body)
			}
			if test.change != nil {
				test.change(request)
			}
			var response route.Response
			if test.refuse != nil {
				request.Body = nil
				response = s.Refuse(request, test.refuse)
			} else {
				response = s.Capture(context.Background(), request)
			}
			if test.status == 200 {
				require.Equal(t, test.answer, response.Body)
			} else {
				require.Equal(t, test.answer, failure(t, response).Error)
				require.NotContains(t, response.Body, "secret")
			}
			require.Equal(t, test.status, response.Status)
			require.Equal(t, test.retry, response.Retry)
			require.Equal(t, givenID, fieldsOf(response)["PostHog-Request-Id"])
		})
	}
}

func TestAClientIsToldToComeAgainShortlyForWhatIsInFlight(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	s.sink.judge = func(event *events.Event) {
		event.Fail(events.ReasonInFlight, events.Errorf(events.Unavailable, "reserved"))
	}
	response := s.post(batchOf(eventOf(1, "")))
	require.Equal(t, `{"results":{"`+id(1)+`":{"result":"retry","details":"in_flight"}}}`, response.Body)
	require.True(t, response.Retry)
	require.Equal(t, time.Second, response.RetryAfter)
}

// meddler is a stage that calls its function with the batch.
type meddler func(*events.Batch)

func (meddler) Phase() events.Phase { return events.PhasePlugins }
func (meddler) Name() string        { return "meddler" }
func (m meddler) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	m(batch)
	return nil, nil
}

// Stages may do to a batch what they want: a client that sent three events gets three results, each the result of its
// event.
func TestAnswersForEveryEventOfTheRequestWhateverStagesDid(t *testing.T) {
	fails := func(event *events.Event) {
		event.Fail(events.ReasonUnavailable, events.Errorf(events.Unavailable, "gone"))
	}
	drops := func(event *events.Event) { event.Drop(events.ReasonRule) }
	const ok, dropped, retry = `{"result":"ok"}`, `{"result":"drop","details":"event_restriction_drop"}`,
		`{"result":"retry","details":"not_persisted"}`
	for _, test := range []struct {
		name string
		do   meddler
		want [3]string
	}{
		{"nothing", func(*events.Batch) {}, [3]string{ok, ok, ok}},
		{"it reorders", func(b *events.Batch) {
			drops(&b.Events[0])
			slices.Reverse(b.Events)
		}, [3]string{dropped, ok, ok}},
		{"it inserts", func(b *events.Batch) {
			own := events.Event{Name: "own", DistinctID: "u", UUID: b.Events[0].UUID}
			fails(&own)
			drops(&b.Events[2])
			b.Events = slices.Insert(b.Events, 0, own, own)
		}, [3]string{ok, ok, dropped}},
		{"it gives two events one UUID", func(b *events.Batch) {
			b.Events[1].UUID = b.Events[0].UUID
			drops(&b.Events[1])
		}, [3]string{ok, dropped, ok}},
		{"it makes two events of one, of which one fails", func(b *events.Batch) {
			part := b.Events[1]
			fails(&part)
			b.Events = append(b.Events, part)
		}, [3]string{ok, retry, ok}},
		{"it makes two events of one, of which the first fails", func(b *events.Batch) {
			part := b.Events[1]
			fails(&b.Events[1])
			b.Events = append(b.Events, part)
		}, [3]string{ok, retry, ok}},
		{"it loses one", func(b *events.Batch) { b.Events = slices.Delete(b.Events, 1, 2) },
			[3]string{retry, retry, retry}},
		{"it makes a handle up", func(b *events.Batch) {
			b.Events = append(b.Events, events.Event{Ref: 9, Outcome: events.Outcome{State: events.StateAccepted}})
		}, [3]string{ok, ok, ok}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, posthog.DefaultConfig())
			pipeline, err := events.NewPipeline(zap.NewNop(), s.scope, test.do)
			require.NoError(t, err)
			s.processor = events.NewProcessor(pipeline, s.sink, s.ledger, zap.NewNop(), s.scope)
			for range 2 {
				response := s.post(batchOf(eventOf(1, ""), eventOf(2, ""), eventOf(3, "")))
				require.Equal(t, `{"results":{"`+id(1)+`":`+test.want[0]+`,"`+id(2)+`":`+test.want[1]+`,"`+id(3)+`":`+
					test.want[2]+`}}`, response.Body)
				require.Equal(t, 200, response.Status)
				require.Equal(t, slices.Contains(test.want[:], retry), response.Retry)
			}
		})
	}
}

// Section 0.1 of the protocol: both routes take AI events, and only one takes other events.
func TestSection01AIRoute(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	batch := batchOf(eventOf(1, `"event":"$ai_trace"`), eventOf(2, ""), eventOf(3, `"event":""`))
	response := s.CaptureAI(context.Background(), requestOf(batch))
	require.Equal(t, `{"results":{"`+id(1)+`":{"result":"ok"},"`+id(2)+
		`":{"result":"drop","details":"misrouted_event"},"`+
		id(3)+`":{"result":"drop","details":"missing_event_name"}}}`, response.Body)
	require.Len(t, s.sink.events, 1)
	require.Equal(t, events.LaneAI, s.sink.events[0].Lane)
	require.Equal(t, map[events.Reason]uint64{events.ReasonNotAI: 1, events.ReasonMissingName: 1},
		s.ledger.Snapshot().Rejected)

	groups := map[string]route.Group{}
	for _, served := range s.Routes() {
		if strings.HasPrefix(served.Path, "/i/v1/") {
			groups[served.Path] = served.Group
			require.Equal(t, []string{"POST"}, served.Methods)
		}
	}
	require.Equal(t, map[string]route.Group{"/i/v1/analytics/events": route.Analytics, "/i/v1/ai/events": route.AI},
		groups)
}

func TestRepairsInTheEventsOwnBytes(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	require.Equal(t, 200,
		s.post(strings.Replace(batchOf(eventOf(1, "")), `{"x":1}`, `{"x":NaN,"y":[-Infinity],"z":"\udc00"}`, 1)).Status)
	require.Equal(t, `{"x":null,"y":[null],"z":"\ufffd","$lib":"posthog-node","$lib_version":"5.70.0"}`,
		string(s.sink.events[0].Raw.Properties))
	require.True(t, s.sink.batch.Repaired)
	require.Equal(t, 200, s.post(batchOf(eventOf(1, ""))).Status)
	require.False(t, s.sink.batch.Repaired, "the next request starts anew")
	require.Equal(t, 200,
		s.post(strings.Replace(batchOf(eventOf(1, "")), `{"x":1}`, "{\"x\":\"\xed\xa0\x80\"}", 1)).Status)
	require.Contains(t, string(s.sink.events[2].Raw.Properties), "{\"x\":\"\ufffd\"")
	require.True(t, s.sink.batch.Repaired, "so does a surrogate that is no escape")
	require.EqualValues(t, 2, s.scope.Snapshot().Counters()["json_repaired_total+kind=lone_surrogate"].Value())
}

func TestIsBusyWhenTheBudgetIsSpent(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	body := batchOf(eventOf(1, ""))
	for _, left := range []int64{10, int64(len(body)) + 10} {
		taken := s.budget.Lease()
		require.True(t, taken.Reserve(s.budget.Limit()-left))
		response := s.post(body)
		require.Equal(t, "service_unavailable", failure(t, response).Error)
		require.Equal(t, 503, response.Status)
		require.True(t, response.Retry)
		taken.Release()
	}
	require.Equal(t, 200, s.post(body).Status)
}

func TestTakesVeryLargeBatchesWithinItsLimits(t *testing.T) {
	const many = 100_000
	s := newService(t, posthog.DefaultConfig())
	var bare, whole []string
	for i := range many + 1 {
		bare = append(bare, "{}")
		whole = append(whole, `{"event":"a","distinct_id":"u","timestamp":"2026-11-24T11:58:00Z","uuid":"`+id(many-i)+
			`"}`)
	}
	require.Equal(t, 413, s.post(batchOf(bare[:many]...)).Status, "1 MiB is never enough for so many")

	s.grow(1 << 30)
	require.Equal(t, "payload_too_large", failure(t, s.post(batchOf(whole...))).Error)
	response := s.post(batchOf(whole[:many]...))
	require.Equal(t, 200, response.Status)
	require.Len(t, s.sink.events, many)
	require.Equal(t, many, strings.Count(string(response.Bytes), `:{"result":"ok"}`))
	require.EqualValues(t, len(response.Bytes), s.budget.InUse(), "the answer counts until it is written")
	response.Done()
	whole[many-1] = whole[0]
	require.Equal(t, "duplicate_event_uuid", failure(t, s.post(batchOf(whole[:many]...))).Error)
	require.Equal(t, 200, s.post(batchOf(eventOf(1, ""))).Status)
}

// FuzzCapture feeds whole requests. Nothing may panic, leak the budget or lose count. Every uuid has its result, in the
// order of the batch. The events that are kept have the properties that the rules say, as encoding/json reads them.
func FuzzCapture(f *testing.F) {
	f.Add(false, "Bearer phc_test", "posthog-node/5.70.0", "2026-11-24T11:59:00Z", "application/json", "",
		[]byte(batchOf(eventOf(1, ""), eventOf(2, `"event":""`))))
	f.Add(true, "bearer k", `a"/b\`, "2026-11-24T11:59:60+01:00", "application/json; charset=utf-8", "gzip",
		[]byte(gzipped(batchOf(
			strings.Replace(eventOf(1,
				`"event":"$ai_span","session_id":7,"options":{"cookieless_mode":"1","product_tour_id":-7}`), `"x":1`,
				`"\u0024lib":NaN`, 1)))))
	f.Add(false, "Bearer k", "a/1", "2026-11-24T11:59:00Z", "application/json", "br", []byte(batchOf(
		eventOf(3,
			`"distinct_id":"NULL","window_id":"w","options":{"disable_skew_correction":1,`+
				`"process_person_profile":"false"},"properties":{ }`))))
	f.Add(false, "Bearer k", "a/1", "2026-11-24T11:59:00Z", "application/json", "",
		[]byte(`{"created_at":"2026-11-24T11:59:00Z","capture_internal":1,"batch":[{},{}],"batch":[`+
			eventOf(4,
				`"event":"$exception","session_id":"s","properties":{"$session_id":"own","$window_id":1,`+
					`"$window_id":2,"a":{"$lib":[]}}`)+`,`+
			eventOf(5,
				`"properties":{"$cookieless_mode":true,"$lib_version":"\ud83d\ude00"},"options":{"cookieless_mode":0}`)+
			`],"historical_migration":true}`))
	quoted := func(text string) string { return jsonText(f, text) }
	f.Add(false, "Bearer%20k", "a/1", "2026-11-24T11:59:00Z", "application/json; charset=latin1", "gzip, gzip",
		[]byte(gzipped(gzipped(quoted(batchOf(eventOf(1, `"properties":{"a":"ä"}`)))))+"\x00"))
	f.Add(false, "k", "a/1", "2026-11-24T11:59:00Z", "application/json; charset=latin1", "",
		[]byte(`{"created_at":"2026-11-24T11:59:00Z","batch":`+
			quoted(quoted("["+strings.Replace(eventOf(1, ""), `"x":1`, `"x":NaN,"\u00e4":"ä"`, 1)+"] "))+`}`))
	f.Add(false, "Bearer k", "a/1", "2026-11-24T11:59:00Z", "application/json", "", []byte(batchOf(
		strings.Replace(eventOf(6, `"properties":{"$set":[],"$groups":{},"a":"x"}`), `"x"`,
			"\"\xff\t\",\"b\":-nan(ind)", 1),
		eventOf(7, `"properties":[],"options":[]`), eventOf(8, `"properties":null,"window_id":null`))))
	f.Fuzz(func(t *testing.T, onlyAI bool, authorization, info, stamp, contentType, encoding string, body []byte) {
		s := newService(t, posthog.DefaultConfig())
		request := requestOf(string(body))
		request.ContentType, request.ContentEncoding = contentType, encoding
		maps.Copy(request.Header.(route.Headers),
			route.Headers{"Authorization": authorization, "PostHog-Sdk-Info": info, "PostHog-Request-Timestamp": stamp})
		response := s.capture(context.Background(), request, onlyAI)
		if response.Status != 200 {
			require.Contains(t, []int{400, 401, 413, 415, 503}, response.Status)
			require.True(t, json.Valid([]byte(response.Body)))
			require.Empty(t, s.sink.events)
			return
		}
		sent := sentEvents(t, body, contentType, encoding)
		require.EqualValues(t, len(sent), s.ledger.Snapshot().Received)
		order, kept := results(t, response.Body)
		require.Len(t, order, len(sent))
		for i := range sent {
			require.Equal(t, sent[i]["uuid"], order[i])
		}
		require.Len(t, s.sink.events, len(kept))
		for i, event := range s.sink.events {
			source := sent[kept[i]]
			require.Equal(t, source["event"], event.Name)
			require.NotEmpty(t, event.DistinctID)
			require.False(t, event.Timestamp.IsZero())
			require.Equal(t, wantProperties(source, info), jsonValue(t, event.Raw.Properties))
		}
	})
}

// sentEvents returns the events that encoding/json finds in a body that was accepted.
func sentEvents(t *testing.T, body []byte, contentType, encoding string) []map[string]any {
	payload, err := decode.New(route.Fixed(1<<20), nil).Decode(
		decode.Input{Body: body, ContentType: contentType, ContentEncoding: encoding})
	require.NoError(t, err)
	mended := func(text []byte) any {
		if !utf8.Valid(text) || !json.Valid(text) {
			text, _ = jsonscan.Repair(text)
		}
		return jsonValue(t, text)
	}
	batch := mended(payload.Bytes).(map[string]any)["batch"]
	for text, quoted := batch.(string); quoted; text, quoted = batch.(string) {
		batch = mended([]byte(text))
	}
	var sent []map[string]any
	for _, event := range batch.([]any) {
		sent = append(sent, event.(map[string]any))
	}
	return sent
}

func jsonText(tb testing.TB, text string) string {
	quoted, err := json.Marshal(text)
	require.NoError(tb, err)
	return string(quoted)
}

func jsonValue(t *testing.T, text []byte) any {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	require.NoError(t, decoder.Decode(&value), "%s", text)
	return value
}

// results returns the uuids of an answer in their order, and the numbers of those that are ok.
func results(t *testing.T, body string) (uuids []any, kept []int) {
	decoder := json.NewDecoder(strings.NewReader(body))
	for range 3 { // { "results" {
		_, err := decoder.Token()
		require.NoError(t, err)
	}
	for decoder.More() {
		uuid, err := decoder.Token()
		require.NoError(t, err)
		var result struct{ Result, Details string }
		require.NoError(t, decoder.Decode(&result))
		require.Contains(t, []string{"ok", "drop"}, result.Result)
		if uuids = append(uuids, any(uuid)); result.Result == "ok" {
			kept = append(kept, len(uuids)-1)
		}
	}
	return uuids, kept
}

// wantProperties returns an event's properties as code with maps would make them.
func wantProperties(event map[string]any, info string) any {
	properties := map[string]any{}
	if own, ok := event["properties"].(map[string]any); ok {
		maps.Copy(properties, own)
	}
	for _, key := range []string{"$set", "$set_once", "$group_set", "$groups"} {
		if list, ok := properties[key].([]any); ok && len(list) == 0 {
			properties[key] = map[string]any{}
		}
	}
	add := func(key string, value any) {
		if _, own := properties[key]; !own && value != nil {
			properties[key] = value
		}
	}
	add("$session_id", event["session_id"])
	add("$window_id", event["window_id"])
	if options, ok := event["options"].(map[string]any); ok {
		flag := func(value any) any {
			if value == nil {
				return nil
			}
			return slices.Contains([]string{"true", "1"}, fmt.Sprint(value))
		}
		add("$cookieless_mode", flag(options["cookieless_mode"]))
		add("$ignore_sent_at", flag(options["disable_skew_correction"]))
		add("$process_person_profile", flag(options["process_person_profile"]))
		add("$product_tour_id", options["product_tour_id"])
	}
	if len(info) <= 200 {
		slash := strings.LastIndex(info, "/")
		add("$lib", strings.TrimSpace(info[:slash]))
		add("$lib_version", strings.TrimSpace(info[slash+1:]))
	}
	return properties
}

// BenchmarkBatch50 measures a request with a batch of 50 events, not compressed, up to a sink that accepts them.
// ns/event is the time for one event.
func BenchmarkBatch50(b *testing.B) {
	handler, request := benchmark(b)
	b.SetBytes(int64(len(request.Body)))
	b.ReportAllocs()
	for b.Loop() {
		if response := handler.Capture(context.Background(), request); response.Status != 200 {
			b.Fatal(response.Body)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
}

// The number of allocations of a request does not depend on how many events the request has.
func TestABatchCostsNoAllocationPerEvent(t *testing.T) {
	handler, request := benchmark(t)
	require.Less(t, testing.AllocsPerRun(50, func() { handler.Capture(context.Background(), request) }), 40.0)
}

type acceptAll struct{}

func (acceptAll) Write(_ context.Context, batch *events.Batch) {
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
}

func benchmark(tb testing.TB) (*Handler, *route.Request) {
	payload, err := decode.New(route.Fixed(1<<30), nil).Decode(decode.Input{Body: benchmarkBatch(tb)})
	require.NoError(tb, err)
	var v0 struct{ Batch []map[string]any }
	require.NoError(tb, json.Unmarshal(payload.Bytes, &v0))
	batch := make([]string, len(v0.Batch))
	for i, event := range v0.Batch {
		event["uuid"], event["session_id"], event["options"] = id(i), id(0),
			map[string]any{"process_person_profile": i%2 == 0}
		event["timestamp"] = "2026-11-24T11:58:00.123Z"
		text, err := json.Marshal(event)
		require.NoError(tb, err)
		batch[i] = string(text)
	}
	require.Len(tb, batch, 50)
	budget := memory.NewBudget(1 << 30)
	pipeline, err := events.NewPipeline(zap.NewNop(), tally.NoopScope)
	require.NoError(tb, err)
	processor := events.NewProcessor(pipeline, acceptAll{}, events.NewLedger(), zap.NewNop(), tally.NoopScope)
	return newHandler(posthog.DefaultConfig(), decode.New(route.Fixed(math.MaxInt32), budget), budget, processor,
		tally.NoopScope), requestOf(batchOf(batch...))
}

// Section 2.12 of the protocol holds on v1 as well: a client that cannot make gateway properties up on v0 cannot do so
// here.
func TestSection212StripsGatewayPropertiesOffAIEvents(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	const properties = `"properties":{"$ai_gateway_x":1,"a":2,"\u0024ai_gateway":3,"b":{"$ai_gateway":4}}`
	require.Equal(t, 200, s.post(batchOf(eventOf(1, `"event":"$ai_span",`+properties), eventOf(2, properties))).Status)
	require.JSONEq(t, `{"a":2,"b":{"$ai_gateway":4},"$lib":"posthog-node","$lib_version":"5.70.0"}`,
		string(s.sink.events[0].Raw.Properties))
	require.Contains(t, string(s.sink.events[1].Raw.Properties), `"$ai_gateway_x":1`)
}

// What is left of one request says nothing about the next one.
func TestARequestHasNothingOfTheOneBefore(t *testing.T) {
	s := newService(t, posthog.DefaultConfig())
	lose := false
	pipeline, err := events.NewPipeline(zap.NewNop(), s.scope, meddler(func(b *events.Batch) {
		if lose {
			require.Nil(t, b.Project)
			b.Events = slices.Delete(b.Events, 1, 2)
			return
		}
		b.Ack, b.RetryAfter, b.Project = events.AckSpool, time.Hour, &events.Project{ID: "other"}
	}))
	require.NoError(t, err)
	s.processor = events.NewProcessor(pipeline, s.sink, s.ledger, zap.NewNop(), s.scope)
	body := batchOf(eventOf(1, ""), eventOf(2, ""), eventOf(3, ""))
	require.Equal(t, events.AckSpool, s.post(body).Ack)
	lose = true
	response := s.post(body)
	require.Contains(t, response.Body, `"`+id(2)+`":{"result":"retry","details":"not_persisted"}`)
	require.Equal(t, events.AckUnsaid, response.Ack)
	require.Zero(t, response.RetryAfter)
}
