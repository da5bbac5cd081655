package ai

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

var received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const (
	id       = "01a2052b-b6c7-72cd-a4a0-f798a3c743bc"
	goodPart = `{"event":"$ai_generation","uuid":"` + id + `","distinct_id":"u"}`
	goodProp = `{"$ai_model":"m","$ai_input":[{"role":"user","content":"hi"}]}`
)

// sink keeps the events that it accepts, and judges events as it is told.
type sink struct {
	kept  []events.Event
	batch events.Batch
	judge func(*events.Event)
}

func (s *sink) Write(_ context.Context, batch *events.Batch) {
	s.batch = *batch
	for i := range batch.Events {
		event := &batch.Events[i]
		if s.judge != nil {
			s.judge(event)
		}
		event.Accept()
		if event.Outcome.State == events.StateAccepted {
			kept := *event
			kept.DistinctID = strings.Clone(event.DistinctID)
			kept.Raw.Properties = bytes.Clone(event.Raw.Properties)
			s.kept = append(s.kept, kept)
		}
	}
}

type service struct {
	*Handler
	sink   *sink
	ledger *events.Ledger
}

// newHandler is NewHandler with a configuration that does not change.
func newHandler(
	config Config, protocol posthog.Config, decoder *decode.Decoder, budget *memory.Budget, processor events.Processor,
	scope tally.Scope,
) *Handler {
	handler, err := NewHandler(configs.Fixed(config, protocol), decoder, budget, processor, scope)
	if err != nil {
		panic(err)
	}
	return handler
}

func newService(tb testing.TB, config Config) *service {
	protocol := posthog.DefaultConfig()
	protocol.MaxAIEvent = 2000
	scope := tally.NewTestScope("", nil)
	s := &service{sink: &sink{}, ledger: events.NewLedger()}
	pipeline, err := events.NewPipeline(zap.NewNop(), scope)
	require.NoError(tb, err)
	budget := memory.NewBudget(8 << 20)
	s.Handler = newHandler(config, protocol, decode.New(route.Fixed(2<<20), budget), budget,
		events.NewProcessor(pipeline, s.sink, s.ledger, zap.NewNop(), scope), scope)
	tb.Cleanup(func() {
		totals := s.ledger.Snapshot()
		require.Equal(tb, totals.Received, totals.Ended())
		require.Zero(tb, budget.InUse(), "the budget is given back whole")
	})
	return s
}

func (s *service) post(contentType string, body []byte, encoding string) route.Response {
	return s.Capture(context.Background(), &route.Request{
		Path: "/i/v0/ai", ContentType: contentType, ContentEncoding: encoding, Body: body, ClientIP: "192.0.2.1",
		Received: received,
		Header:   route.Headers{"Authorization": "Bearer phc_test"},
	})
}

// encode returns a form as the standard library writes it. parts are names and contents in turn.
func encode(tb testing.TB, parts ...string) (contentType string, body []byte) {
	var out bytes.Buffer
	writer := multipart.NewWriter(&out)
	for i := 0; i < len(parts); i += 2 {
		part, err := writer.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {fmt.Sprintf(`form-data; name="%s"`, parts[i])},
			"Content-Type":        {"application/json"},
		})
		require.NoError(tb, err)
		_, err = part.Write([]byte(parts[i+1]))
		require.NoError(tb, err)
	}
	require.NoError(tb, writer.Close())
	return writer.FormDataContentType(), out.Bytes()
}

// Section 6 of the protocol, AI multipart: the answers to requests.
func TestCaptureAnswersAsTheProtocolSays(t *testing.T) {
	event := func(change string) string { return strings.Replace(goodPart, `"distinct_id":"u"`, change, 1) }
	large := `{"$ai_model":"m","x":"` + strings.Repeat("x", 4000) + `"}`
	for _, test := range []struct {
		name   string
		parts  []string
		status int
		answer string
	}{
		{"event and properties", []string{"event", goodPart, "event.properties", goodProp}, 200,
			fmt.Sprintf(`{"accepted_parts":[{"name":"event","length":%d,"content-type":"application/json"},`+
				`{"name":"event.properties","length":%d,"content-type":"application/json"}]}`, len(goodPart),
				len(goodProp))},
		{"properties in the event", []string{"event", event(`"distinct_id":"u","properties":` + goodProp)}, 200, ""},
		{"no part at all", nil, 400,
			"failed to parse request: the body has no part: send the event in a part named event"},
		{"first part is another", []string{"event.properties", goodProp, "event", goodPart}, 400,
			`failed to parse request: the first part must be event`},
		{"unknown part", []string{"event", goodPart, "event.properties.$ai_input", "x"}, 400,
			`failed to parse request: an unknown part: a request has the parts event and ` +
				`event.properties`},
		{"two events", []string{"event", goodPart, "event", goodPart}, 400,
			"failed to parse request: the body has more than one part named event: send one event a request"},
		{"two properties", []string{"event", goodPart, "event.properties", goodProp, "event.properties", goodProp}, 400,
			"failed to parse request: the body has more than one part named event.properties"},
		{"properties twice",
			[]string{"event", event(`"distinct_id":"u","properties":{}`), "event.properties", goodProp}, 400,
			"failed to parse request: the event has properties and there is a part event.properties: send them " +
				"in one place"},
		{"event that is no JSON", []string{"event", "{"}, 400,
			"failed to parse request: the part event: unexpected end of JSON at byte 1"},
		{"event that is no object", []string{"event", "[]"}, 400,
			"failed to parse request: the part event: expected an object at byte 0"},
		{"event that is no UTF-8", []string{"event", "{\"event\":\xff}"}, 400,
			"failed to parse request: the parts event and event.properties must be valid UTF-8"},
		{"a byte in the event that is no UTF-8", []string{"event", event("\"distinct_id\":\"\xff\""),
			"event.properties", goodProp}, 200, ""},
		{"properties that are no JSON", []string{"event", goodPart, "event.properties", "{"}, 400,
			"failed to parse request: the part event.properties: unexpected end of JSON at byte 1"},
		{"properties that are no object", []string{"event", event(`"distinct_id":"u","properties":[1]`)}, 400,
			"failed to parse request: properties: expected an object at byte 0"},
		{"properties that are an empty array",
			[]string{"event", event(`"distinct_id":"u","properties":[]`)}, 400,
			"failed to parse request: properties must have $ai_model, the name of the model, as a string that is not " +
				"empty"},
		{"a part of null", []string{"event", event(`"distinct_id":"u","properties":null`), "event.properties", "null"},
			400,
			"failed to parse request: properties must have $ai_model, the name of the model, as a string that is not " +
				"empty"},
		{"properties that are empty", []string{"event", goodPart, "event.properties", ""}, 400,
			"failed to parse request: the part event.properties: unexpected end of JSON at byte 0"},
		{"properties that are no UTF-8", []string{"event", goodPart, "event.properties", "{\"a\":\xff}"}, 400,
			"failed to parse request: the parts event and event.properties must be valid UTF-8"},
		{"a byte in the properties that is no UTF-8",
			[]string{"event", goodPart, "event.properties", "{\"$ai_model\":\"m\",\"a\":\"\xff\t\",\"b\":-nan(ind)}"},
			200, ""},
		{"no name", []string{"event", `{"uuid":"` + id + `","distinct_id":"u"}`, "event.properties", goodProp}, 400,
			"failed to parse request: the event needs a name: set event to one of $ai_generation, $ai_trace, " +
				"$ai_span, $ai_embedding, $ai_metric, $ai_feedback"},
		{"another event",
			[]string{"event", strings.Replace(goodPart, "$ai_generation", "$pageview", 1), "event.properties",
				goodProp}, 400,
			`failed to parse request: not an AI event: event must be one of $ai_generation, ` +
				`$ai_trace, $ai_span, $ai_embedding, $ai_metric, $ai_feedback; send others to the analytics endpoint`},
		{"no uuid", []string{"event", strings.Replace(goodPart, id, "", 1), "event.properties", goodProp}, 400,
			"failed to parse request: the event needs a uuid, which must be a UUID"},
		{"no distinct_id", []string{"event", event(`"distinct_id":null`), "event.properties", goodProp}, 400,
			"failed to parse request: the event needs a distinct_id that is not empty"},
		{"blank distinct_id", []string{"event", event(`"distinct_id":" "`), "event.properties", goodProp}, 400,
			"failed to parse request: the event needs a distinct_id that is not empty"},
		{"number for a distinct_id, as v0 takes it",
			[]string{"event", event(`"distinct_id":5`), "event.properties", goodProp}, 200, ""},
		{"no properties", []string{"event", goodPart}, 400,
			"failed to parse request: properties must have $ai_model, the name of the model, as a string that is not " +
				"empty"},
		{"no model", []string{"event", goodPart, "event.properties", `{}`}, 400,
			"failed to parse request: properties must have $ai_model, the name of the model, as a string that is not " +
				"empty"},
		{"empty model", []string{"event", goodPart, "event.properties", `{"$ai_model":""}`}, 400,
			"failed to parse request: properties must have $ai_model, the name of the model, as a string that is not " +
				"empty"},
		{"model of another type", []string{"event", goodPart, "event.properties", `{"$ai_model":1}`}, 400,
			"failed to parse request: properties must have $ai_model, the name of the model, as a string that is not " +
				"empty"},
		{"timestamp of another type",
			[]string{"event", event(`"distinct_id":"u","timestamp":true`), "event.properties", goodProp}, 400,
			"failed to parse request: timestamp must be a string or a number"},
		{"number for a timestamp",
			[]string{"event", event(`"distinct_id":"u","timestamp":1714557600`), "event.properties", goodProp}, 200,
			""},
		{"null for all that is optional", []string{"event", event(`"distinct_id":"u","timestamp":null,"sent_at":null,` +
			`"$set":null,"$set_once":null,"properties":null`), "event.properties", goodProp}, 200, ""},
		{"empty arrays for objects", []string{"event", event(`"distinct_id":"u","$set":[],"$set_once":[ ]`),
			"event.properties", `{"$ai_model":"m","$set":[]}`}, 200, ""},
		{"$set of another type", []string{"event", event(`"distinct_id":"u","$set":[1]`), "event.properties", goodProp},
			400, "failed to parse request: $set and $set_once must be objects"},
		{"too large an event", []string{"event", goodPart, "event.properties", large}, 413,
			"maximum AI event size exceeded: the properties of an AI event are larger than 2000 bytes"},
		{"too large a sum",
			[]string{"event", goodPart, "event.properties", goodProp, "more", strings.Repeat("x", 6000)}, 413,
			fmt.Sprintf("maximum event size exceeded: the parts have %d bytes, the limit is 5000",
				len(goodPart)+len(goodProp)+6000)},
		{"NaN", []string{"event", goodPart, "event.properties", `{"$ai_model":"m","a":NaN,"b":"\ud83d"}`}, 200, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, Config{MaxSumOfParts: 5000})
			contentType, body := encode(t, test.parts...)
			response := s.post(contentType, body, "")
			require.Equal(t, test.status, response.Status, response.Body)
			if test.answer != "" {
				require.Equal(t, test.answer, response.Body)
			}
			if test.status == 200 {
				require.Len(t, s.sink.kept, 1)
				require.True(t, json.Valid(s.sink.kept[0].Raw.Properties))
				return
			}
			require.Empty(t, s.sink.kept)
			require.Equal(t, route.TypeText, response.ContentType)
		})
	}
}

func TestAnEventKeepsWhatItWasSentWith(t *testing.T) {
	s := newService(t, DefaultConfig())
	contentType, body := encode(t,
		"event", ` {"event":"$ai_span","uuid":"`+id+
			`","distinct_id":"u","timestamp":"2026-11-24T11:00:00Z","sent_at":"2026-11-24T11:50:00Z","$set":{"a":1}} `,
		"event.properties", ` {"$ai_model":"m", "$ai_gateway_verified":true, "$ai_input": "x"} `)
	require.Equal(t, 200, s.post(contentType, body, "").Status)
	event := s.sink.kept[0]
	require.Equal(t, events.LaneAI, event.Lane)
	require.Equal(t, id, event.UUID.String())
	require.True(t, event.ClientUUID)
	require.Equal(t, time.Date(2026, 11, 24, 11, 10, 0, 0, time.UTC), event.Timestamp,
		"the client's clock is ten minutes slow")
	require.Equal(t, `{"$ai_model":"m","$ai_input": "x"}`, string(event.Raw.Properties),
		"what claims to be the gateway's is gone")
	require.Equal(t, "phc_test", s.sink.batch.Token)
	require.Equal(t, time.Date(2026, 11, 24, 11, 50, 0, 0, time.UTC), s.sink.batch.SentAt)
}

func TestTheClockIsNotCorrectedWhereNothingSaysSo(t *testing.T) {
	for name, event := range map[string]string{
		"no sent_at": `{"event":"$ai_span","uuid":"` + id +
			`","distinct_id":"u","timestamp":"2026-11-24T11:00:00Z","properties":{"$ai_model":"m"}}`,
		"$ignore_sent_at": `{"event":"$ai_span","uuid":"` + id +
			`","distinct_id":"u","timestamp":"2026-11-24T11:00:00Z","sent_at":"2026-11-24T11:50:00Z",` +
			`"properties":{"$ai_model":"m","$ignore_sent_at":true}}`,
	} {
		s := newService(t, DefaultConfig())
		contentType, body := encode(t, "event", event)
		require.Equal(t, 200, s.post(contentType, body, "").Status)
		require.Equal(t, time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC), s.sink.kept[0].Timestamp, name)
	}
}

// Times, empty arrays and bad bytes are read as in v0.
func TestWhatSDKsGetWrongIsMendedAndNoted(t *testing.T) {
	s := newService(t, DefaultConfig())
	contentType, body := encode(t,
		"event", `{"event":"$ai_span","uuid":"`+id+`","distinct_id":"u","timestamp":1795518000,`+
			`"sent_at":1795521000000,"$set":[]}`,
		"event.properties", "{\"$ai_model\":\"m\",\"a\":\"\xe9\t\",\"b\":-nan(ind),\"$set_once\":[]}")
	require.Equal(t, 200, s.post(contentType, body, "").Status)
	event := s.sink.kept[0]
	require.Equal(t, "2026-11-24T11:10:00Z", event.Timestamp.Format(time.RFC3339))
	require.Equal(t, `"1795518000"`, string(event.Raw.Timestamp))
	require.Equal(t, `{}`, string(event.Raw.Set))
	require.Equal(t, "{\"$ai_model\":\"m\",\"a\":\"\ufffd\\t\",\"b\":null,\"$set_once\":{}}",
		string(event.Raw.Properties))
	require.True(t, s.sink.batch.Repaired)
	require.Zero(t, event.Notes)

	contentType, body = encode(t,
		"event", `{"event":"$ai_span","uuid":"`+id+`","distinct_id":"u","timestamp":"soon","sent_at":"later"}`,
		"event.properties", goodProp)
	require.Equal(t, 200, s.post(contentType, body, "").Status)
	require.Equal(t, events.NoteTimeUnread|events.NoteSentAtUnread, s.sink.kept[1].Notes)
	require.Equal(t, received, s.sink.kept[1].Timestamp)
	require.False(t, s.sink.batch.Repaired)
}

func TestACompressedBodyNeedsNoHeader(t *testing.T) {
	contentType, body := encode(t, "event", goodPart, "event.properties", goodProp)
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	_, err := writer.Write(body)
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	for _, encoding := range []string{"gzip", ""} {
		s := newService(t, DefaultConfig())
		require.Equal(t, 200, s.post(contentType, packed.Bytes(), encoding).Status)
		require.Len(t, s.sink.kept, 1)
	}
	s := newService(t, DefaultConfig())
	require.Equal(t, 400, s.post(contentType, packed.Bytes()[:40], "gzip").Status)
}

func TestAPartIsTheTextThatItMeans(t *testing.T) {
	const withType = "Content-Disposition: form-data; name=\"%s\"\r\n" +
		"Content-Type: application/json; charset=%s\r\n\r\n%s"
	form := func(event, charset, properties string) []byte {
		return []byte("--b\r\n" + fmt.Sprintf(withType, "event", "utf-8", event) + "\r\n--b\r\n" +
			fmt.Sprintf(withType, "event.properties", charset, properties) + "\r\n--b--\r\n")
	}
	quoted := strconv.Quote // of printable ASCII, which Go quotes as JSON does
	utf16 := strings.Join(strings.Split(`{"$ai_model":"m"}`, ""), "\x00") + "\x00"
	const want = `{"$ai_model":"m","a":"\u00e4"}`
	for _, test := range []struct {
		name     string
		body     []byte
		want     string
		repaired bool
	}{
		{"JSON strings", form(quoted(goodPart), "utf-8", quoted(quoted(want))), want, false},
		{"a charset", form(goodPart, "iso-8859-1", "{\"$ai_model\":\"m\",\"a\":\"\xe4\"}"), `{"$ai_model":"m","a":"ä"}`,
			false},
		{"a charset that is not the text's", form(goodPart, "iso-8859-1", `{"$ai_model":"m","a":"ä"}`),
			`{"$ai_model":"m","a":"ä"}`, false},
		{"UTF-16", form(goodPart, "utf-16", utf16), `{"$ai_model":"m"}`, false},
		{"what means nothing in the charset", form(goodPart, "euc-jp", "{\"$ai_model\":\"m\",\"a\":\"\xff\"}"),
			"{\"$ai_model\":\"m\",\"a\":\"\ufffd\"}", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			response := s.post("multipart/form-data; boundary=b", test.body, "")
			require.Equal(t, 200, response.Status, response.Body)
			require.Len(t, s.sink.kept, 1)
			require.Equal(t, test.want, string(s.sink.kept[0].Raw.Properties))
			require.Equal(t, test.repaired, s.sink.batch.Repaired)
		})
	}
	s := newService(t, DefaultConfig())
	response := s.post("multipart/form-data; boundary=b", form(quoted(goodPart)+"x", "utf-8", want), "")
	require.Equal(t, 400, response.Status)
	require.Equal(t, "failed to decode request: invalid JSON string around the request", response.Body)
}

func TestAFormMayBeCompressedTwiceOrWrittenAsText(t *testing.T) {
	contentType, body := encode(t, "event", goodPart, "event.properties", goodProp)
	pack := func(text []byte) []byte {
		var packed bytes.Buffer
		writer := gzip.NewWriter(&packed)
		_, err := writer.Write(text)
		require.NoError(t, err)
		require.NoError(t, writer.Close())
		return packed.Bytes()
	}
	asText := func(packed []byte) (text []byte) {
		for _, c := range packed {
			text = utf8.AppendRune(text, rune(c))
		}
		return text
	}
	for _, sent := range [][]byte{pack(pack(body)), asText(pack(body)), append(pack(body), make([]byte, 20)...)} {
		s := newService(t, DefaultConfig())
		require.Equal(t, 200, s.post(contentType, sent, "gzip").Status)
		require.Len(t, s.sink.kept, 1)
	}
	s := newService(t, DefaultConfig())
	response := s.post(contentType, []byte(strings.ToValidUTF8(string(pack(body)), "\ufffd")), "gzip")
	require.Equal(t, 400, response.Status)
	require.Contains(t, response.Body, "a program on the way")
}

func TestATokenIsNeeded(t *testing.T) {
	contentType, body := encode(t, "event", goodPart, "event.properties", goodProp)
	for authorization, want := range map[string]string{
		"": "event submitted without an api_key",
		"Basic abc": "event submitted without an api_key: the Authorization header has the scheme Basic; it must " +
			"have the scheme Bearer and the project's API key",
		"Bearer phx_key": "API key is not valid: personal_api_key",
	} {
		s := newService(t, DefaultConfig())
		response := s.Capture(context.Background(),
			&route.Request{ContentType: contentType, Body: body, Header: route.Headers{"Authorization": authorization}})
		require.Equal(t, 401, response.Status)
		require.Equal(t, want, response.Body)
	}
}

func TestHostileFormsAreRefused(t *testing.T) {
	disposition := "Content-Disposition: form-data; name=\"event\"\r\n"
	const (
		decoding      = "failed to decode request: "
		notMultipart  = decoding + "Content-Type must be multipart/form-data"
		noBoundary    = decoding + "Content-Type must name the boundary of the parts, of 1 to 70 characters"
		noParts       = decoding + "the boundary that Content-Type names does not begin the body"
		noEnd         = decoding + "the multipart body ends before its closing boundary"
		manyParts     = decoding + "the body has more than 10 parts"
		partHeader    = decoding + "a part's header is malformed or larger than 4096 bytes"
		noDisposition = decoding + "a part needs a Content-Disposition of form-data with a name"
	)
	for _, test := range []struct {
		name, contentType, body string
		status                  int
		answer                  string
	}{
		{"another type", "application/json", goodPart, 400, notMultipart},
		{"no type", "", goodPart, 400, notMultipart},
		{"no boundary", "multipart/form-data", "--b--", 400, noBoundary},
		{"broken boundary", `multipart/form-data; boundary="b`, "--b--", 400, noBoundary},
		{"long boundary", "multipart/form-data; boundary=" + strings.Repeat("b", 71), "x", 400, noBoundary},
		{"nothing sent", "multipart/form-data; boundary=b", "", 400, "request missing data payload"},
		{"not a form", "multipart/form-data; boundary=b", goodPart, 400, noParts},
		{"only the end", "multipart/form-data; boundary=b", "--b--", 400, errNoEventPart.Error()},
		{"no end", "multipart/form-data; boundary=b", "--b\r\n" + disposition + "\r\n" + goodPart, 400,
			noEnd},
		{"only a beginning", "multipart/form-data; boundary=b", "--b", 400, noEnd},
		{"boundary that goes on", "multipart/form-data; boundary=b", "--bc\r\n", 400, noEnd},
		{"no header", "multipart/form-data; boundary=b", "--b\r\n" + goodPart + "\r\n--b--", 400,
			partHeader},
		{"header of a megabyte", "multipart/form-data; boundary=b",
			"--b\r\n" + disposition + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n{}\r\n--b--", 400,
			partHeader},
		{"header lines without end", "multipart/form-data; boundary=b",
			"--b\r\n" + strings.Repeat("A: b\r\n", 100_000) + "\r\n{}\r\n--b--", 400, partHeader},
		{"header that is none", "multipart/form-data; boundary=b", "--b\r\nnonsense\r\n\r\n{}\r\n--b--", 400,
			partHeader},
		{"no disposition", "multipart/form-data; boundary=b", "--b\r\nA: b\r\n\r\n{}\r\n--b--", 400,
			noDisposition},
		{"no name", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--b--", 400,
			noDisposition},
		{"an attachment", "multipart/form-data; boundary=b",
			"--b\r\nContent-Disposition: attachment; name=\"event\"\r\n\r\n{}\r\n--b--", 400, noDisposition},
		{"ten thousand parts", "multipart/form-data; boundary=b",
			"--b" + strings.Repeat("\r\n"+disposition+"\r\n{}\r\n--b", 10_000) + "--", 400, manyParts},
		{"nested without end", "multipart/form-data; boundary=b",
			"--b\r\n" + disposition + "\r\n" + strings.Repeat(`{"a":`, 100_000) + "\r\n--b--", 400,
			"failed to parse request: the part event: nested deeper than 128 levels at byte 640"},
		{"a preamble, blanks after the boundary and an epilogue", "multipart/form-data; boundary=b",
			"hello\r\n--b \t\r\n" + disposition + "\r\n" +
				strings.Replace(goodPart, "}", `,"properties":`+goodProp+"}", 1) + "\r\n--b--\r\nbye", 200, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			response := s.post(test.contentType, []byte(test.body), "")
			require.Equal(t, test.status, response.Status, response.Body)
			if test.answer != "" {
				require.Equal(t, test.answer, response.Body)
			}
		})
	}
}

func TestOutcomesBecomeAnswers(t *testing.T) {
	for _, test := range []struct {
		name   string
		judge  func(*events.Event)
		status int
		retry  bool
		answer string
	}{
		{"dropped by policy", func(e *events.Event) { e.Drop(events.ReasonQuota) }, 200, false, ""},
		{"too large for Kafka",
			func(e *events.Event) {
				e.Reject(events.ReasonTooLarge, events.Errorf(events.TooLarge, "too large"))
			}, 413, false, "maximum AI event size exceeded: too large"},
		{"refused", func(e *events.Event) { e.Reject(events.ReasonInvalidEvent, events.Errorf(events.Invalid, "no")) },
			400, false, "no"},
		{"not now",
			func(e *events.Event) {
				e.Fail(events.ReasonUnavailable, events.Errorf(events.Unavailable, "away"))
			}, 503, true, "transient error, please retry"},
		{"a fault of ours",
			func(e *events.Event) {
				e.Fail(events.ReasonStage, events.Errorf(events.Internal, "secret"))
			}, 500, false, "internal server error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			s.sink.judge = test.judge
			contentType, body := encode(t, "event", goodPart, "event.properties", goodProp)
			response := s.post(contentType, body, "")
			require.Equal(t, test.status, response.Status)
			require.Equal(t, test.retry, response.Retry)
			if test.answer != "" {
				require.Equal(t, test.answer, response.Body)
			}
		})
	}
}

func TestAnEventThatIsAtFaultIsCounted(t *testing.T) {
	s := newService(t, DefaultConfig())
	contentType, body := encode(t, "event", goodPart)
	require.Equal(t, 400, s.post(contentType, body, "").Status)
	require.Equal(t, uint64(1), s.ledger.Snapshot().Rejected[events.ReasonInvalidEvent])
}

func TestWithoutRoomTheClientIsToldToComeAgain(t *testing.T) {
	s := newService(t, DefaultConfig())
	s.budget = memory.NewBudget(1 << 20)
	other := s.budget.Lease()
	require.True(t, other.Reserve(1<<20-100))
	contentType, body := encode(t, "event", goodPart, "event.properties", goodProp)
	response := s.post(contentType, body, "")
	require.Equal(t, 503, response.Status)
	require.True(t, response.Retry)
	other.Release()
	require.Equal(t, 200, s.post(contentType, body, "").Status)

	s.budget = memory.NewBudget(100)
	response = s.post(contentType, body, "")
	require.Equal(t, 413, response.Status, "to come again would not help")
	require.False(t, response.Retry)
}

func TestConfigReportsEveryFault(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	require.ErrorContains(t, Config{}.Validate(), "max_sum_of_parts")
	require.Equal(t, int64(27.5*float64(configs.MiB)), DefaultConfig().maxBody())
}

func FuzzMultipart(f *testing.F) {
	contentType, body := encode(f, "event", goodPart, "event.properties", goodProp)
	f.Add(contentType, body)
	f.Add("multipart/form-data; boundary=b",
		[]byte("--b\r\nContent-Disposition: form-data; name=event\r\n\r\n"+goodPart+"\r\n--b--"))
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\n\r\n\r\n--b\r\n--b--"))
	f.Add(`multipart/form-data; boundary="b c"`, []byte("\x1f\x8b\x08--b c--"))
	statuses := []int{200, 400, 413, 503}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		s := newService(t, Config{MaxSumOfParts: 1 << 20})
		response := s.post(contentType, body, "")
		require.True(t, slices.Contains(statuses, response.Status), "%d %s", response.Status, response.Body)
		require.Equal(t, response.Status == 200, len(s.sink.kept) == 1)
		for _, event := range s.sink.kept {
			require.True(t, json.Valid(event.Raw.Properties))
			require.Equal(t, byte('{'), event.Raw.Properties[0])
			require.NotEmpty(t, event.DistinctID)
		}
	})
}
