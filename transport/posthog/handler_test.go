package posthog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

var received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// recorder is a sink that keeps a copy of the events that it accepted. It can be told to fail.
type recorder struct {
	events []events.Event
	batch  events.Batch
	// repaired is the field Repaired of the last batch.
	repaired bool
	judge    func(*events.Event)
}

func (r *recorder) Write(_ context.Context, batch *events.Batch) {
	r.repaired = batch.Repaired
	r.batch = events.Batch{
		Token: strings.Clone(batch.Token), Received: batch.Received, SentAt: batch.SentAt,
		ClientIP: batch.ClientIP, Historical: batch.Historical,
	}
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		if r.judge != nil {
			r.judge(event)
		}
		event.Accept()
		if event.Outcome.State != events.StateAccepted {
			continue
		}
		kept := *event
		kept.Name, kept.DistinctID, kept.SessionID = strings.Clone(event.Name), strings.Clone(event.DistinctID),
			strings.Clone(event.SessionID)
		if event.Recording != nil {
			recording := *event.Recording
			recording.WindowID, recording.Host, recording.Lib = bytes.Clone(recording.WindowID),
				bytes.Clone(recording.Host), strings.Clone(recording.Lib)
			recording.Items = slices.Clone(recording.Items)
			for i, item := range recording.Items {
				recording.Items[i] = events.Snapshot{JSON: bytes.Clone(item.JSON),
					Timestamp: bytes.Clone(item.Timestamp)}
			}
			kept.Recording = &recording
		}
		for _, raw := range []*[]byte{&kept.Heatmap, &kept.Raw.Token, &kept.Raw.DistinctID, &kept.Raw.Timestamp,
			&kept.Raw.Offset, &kept.Raw.Properties, &kept.Raw.Set, &kept.Raw.SetOnce} {
			*raw = bytes.Clone(*raw)
		}
		r.events = append(r.events, kept)
	}
}

type service struct {
	*Handler
	sink   *recorder
	ledger *events.Ledger
	budget *memory.Budget
	scope  tally.TestScope
}

// newHandler is NewHandler with a configuration that does not change.
func newHandler(
	config Config, decoder *decode.Decoder, budget *memory.Budget, processor events.Processor, scope tally.Scope,
) *Handler {
	handler, err := NewHandler(configs.Fixed(config), decoder, budget, processor, scope)
	if err != nil {
		panic(err)
	}
	return handler
}

func newService(t *testing.T, config Config) *service {
	s := &service{sink: &recorder{}, ledger: events.NewLedger(), budget: memory.NewBudget(1 << 20),
		scope: tally.NewTestScope("", nil)}
	pipeline, err := events.NewPipeline(zap.NewNop(), s.scope)
	require.NoError(t, err)
	s.Handler = newHandler(config, decode.New(route.Fixed(1<<20), s.budget), s.budget,
		events.NewProcessor(pipeline, s.sink, s.ledger, zap.NewNop(), s.scope), s.scope)
	t.Cleanup(func() {
		totals := s.ledger.Snapshot()
		require.Equal(t, totals.Received, totals.Ended())
		require.Zero(t, s.budget.InUse(), "the budget is given back whole")
	})
	return s
}

func (s *service) post(path, body string) route.Response {
	path, query, _ := strings.Cut(path, "?")
	return s.Capture(context.Background(),
		&route.Request{Path: path, RawQuery: query, Body: []byte(body), ClientIP: "192.0.2.1", Received: received})
}

const (
	okBody  = `{"status":"Ok"}`
	noBatch = "failed to parse request: batch is missing: expected an array of events in batch, or the name of a " +
		"single event in event"
)

// Sections 2.6 to 2.10 and 3 of the protocol: the answers to requests, and how many events of each are kept.
func TestCaptureAnswersAsTheProtocolSays(t *testing.T) {
	good := `{"event":"a","distinct_id":"u","api_key":"k"}`
	for _, test := range []struct {
		section, name, path, body string
		status                    int
		answer                    string
		kept                      int
	}{
		{"2.6", "array", "/e/", `[` + good + `,` + good + `]`, 200, okBody, 2},
		{"2.6", "envelope", "/batch/", `{"api_key":"k","batch":[{"event":"a","distinct_id":"u"}]}`, 200, okBody, 1},
		{"2.6", "envelope on any path", "/e", `{"batch":[{"event":"a","distinct_id":"u"}],"token":"k"}`, 200, okBody,
			1},
		{"2.6", "single", "/capture/", good, 200, okBody, 1},
		{"2.6", "engage", "/engage/", `{"$token":"k","$distinct_id":"u","$set":{"a":1}}`, 200, okBody, 1},
		{"2.6", "engage shape elsewhere", "/e/", `{"$token":"k","$distinct_id":"u","$set":{"a":1}}`, 400,
			"failed to hydrate events from request: non-engage request missing event name attribute", 0},
		{"2.6", "an object of no shape", "/e/", `{}`, 400,
			"failed to hydrate events from request: non-engage request missing event name attribute", 0},
		{"2.6", "a batch of another type", "/batch/", `{"batch":{}}`, 400,
			"failed to parse request: batch must be an array of events", 0},
		{"2.6", "a batch of another type elsewhere", "/e", `{"api_key":"k","batch":5}`, 400,
			"failed to parse request: batch must be an array of events", 0},
		{"2.6", "no batch", "/batch/", `{}`, 400, noBatch, 0},
		{"2.6", "a batch that is null", "/batch/", `{"api_key":"k","batch":null}`, 400, noBatch, 0},
		{"2.6", "no batch, but a batch's date", "/e", `{"api_key":"k","sent_at":"2024-05-01T10:00:00Z"}`, 400,
			noBatch, 0},
		{"2.6", "no batch, by another name", "/i/v0/ai/batch", `{"api_key":"k","events":[` + good + `]}`, 400,
			noBatch, 0},
		{"2.6", "a token alone", "/e", `{"token":"k"}`, 400, noBatch, 0},
		{"2.6", "an event without a name is no envelope", "/e", `{"api_key":"k","distinct_id":"u"}`, 400,
			"failed to hydrate events from request: non-engage request missing event name attribute", 0},
		{"2.6", "an event that has a field called batch", "/batch",
			`{"event":"a","distinct_id":"u","api_key":"k","batch":5}`, 200, okBody, 1},
		{"2.6", "engage takes events without a name and knows no missing batch", "/engage",
			`{"api_key":"k","distinct_id":"u"}`, 200, okBody, 1},
		{"2.6", "engage shape without a token", "/engage/", `{}`, 401, "event submitted without an api_key", 0},
		{"2.6", "not JSON", "/e/", `{"event":`, 400, "failed to parse request: unexpected end of JSON at byte 9", 0},
		{"2.6", "scalar", "/e/", `[1`, 400, "failed to parse request: unexpected end of JSON at byte 2", 0},
		{"2.6", "empty array", "/e/", `[]`, 400, "request holds no event", 0},
		{"2.6", "empty batch", "/batch", `{"api_key":"k","batch":[]}`, 400, "request holds no event", 0},
		{"2.6", "performance event alone", "/e/", `{"event":"$performance_event","distinct_id":"u","token":"k"}`, 200,
			okBody, 0},
		{"2.6", "performance event without anything", "/e/", `{"event":"$performance_event"}`, 200, okBody, 0},
		{"2.6", "performance event beside a bad one", "/e/",
			`[{"event":"$performance_event"},{"event":"","token":"k"}]`, 400,
			"event submitted with an empty event name", 0},
		{"2.8", "tokens are trimmed before they are compared", "/e",
			`[{"event":"a","distinct_id":"u","token":"k"},{"event":"a","distinct_id":"u","token":" k "}]`, 200, okBody,
			2},
		{"2.1", "percent-encoded clock", "/e/?_=%31795383045842", good, 200, okBody, 1},
		{"2.3", "nothing sent", "/e/", ``, 400, "request missing data payload", 0},
		{"2.1", "beacon", "/e/?beacon=1", good, 204, "", 1},
		{"2.1", "beacon with a fault", "/e/?beacon=1", `[]`, 400, "request holds no event", 0},
		{"2.1", "clock that is no number", "/e/?_=soon", good, 400,
			"failed to decode request: query parameter _ must be an integer", 0},
		{"2.7", "one bad neighbour", "/batch",
			`{"api_key":"k","batch":[{"event":"a"},{"event":"b","distinct_id":"u"}]}`, 200, okBody, 1},
		{"2.7", "only bad ones: the first one's answer", "/batch",
			`{"api_key":"k","batch":[{"event":"a"},{"event":"","distinct_id":"u"}]}`, 400,
			"event submitted without a distinct_id", 0},
		{"2.7", "empty name", "/e", `{"event":"","distinct_id":"u","token":"k"}`, 400,
			"event submitted with an empty event name", 0},
		{"2.7", "name of another type", "/e", `{"event":5,"distinct_id":"u","token":"k"}`, 400,
			"failed to parse request: event must be a string", 0},
		{"2.7", "element that is no object", "/e", `[5,` + good + `]`, 200, okBody, 1},
		{"2.7", "only elements that are no objects", "/batch", `{"api_key":"k","batch":[5]}`, 400,
			"failed to parse request: an event must be an object", 0},
		{"2.7", "properties null", "/e", `{"event":"a","distinct_id":"u","token":"k","properties":null}`, 200, okBody,
			1},
		{"2.7", "properties as text", "/e", `{"event":"a","distinct_id":"u","token":"k","properties":"{}"}`, 400,
			"failed to parse request: properties must be an object", 0},
		{"2.7", "timestamp as number", "/e", `{"event":"a","distinct_id":"u","token":"k","timestamp":1}`, 200, okBody,
			1},
		{"2.7", "timestamp of another type", "/e", `{"event":"a","distinct_id":"u","token":"k","timestamp":[]}`, 400,
			"failed to parse request: timestamp must be a string or a number", 0},
		{"2.7", "offset as text", "/e", `{"event":"a","distinct_id":"u","token":"k","offset":"1"}`, 400,
			"failed to parse request: offset must be a number of milliseconds", 0},
		{"2.7", "$set as list", "/e", `{"event":"a","distinct_id":"u","token":"k","$set":[1]}`, 400,
			"failed to parse request: $set must be an object", 0},
		{"2.7", "$set as an empty list", "/e", `{"event":"a","distinct_id":"u","token":"k","$set":[]}`, 200, okBody, 1},
		{"2.7", "uuid that is none", "/e", `{"event":"a","distinct_id":"u","token":"k","uuid":"1"}`, 400,
			"failed to parse request: uuid must be a UUID", 0},
		{"2.7", "uuid empty", "/e", `{"event":"a","distinct_id":"u","token":"k","uuid":""}`, 200, okBody, 1},
		{"2.8", "no token", "/e", `{"event":"a","distinct_id":"u"}`, 401, "event submitted without an api_key", 0},
		{"2.8", "two tokens", "/e",
			`[{"event":"a","distinct_id":"u","token":"k"},{"event":"a","distinct_id":"u","properties":{"token":"l"}}]`,
			401, "batch submitted with inconsistent api_key values", 0},
		{"0", "a bad event's token counts", "/e",
			`[{"event":"a","distinct_id":"u","token":"k"},{"event":"","token":"l"}]`, 401,
			"batch submitted with inconsistent api_key values", 0},
		{"0", "the request's fault comes before an event's", "/e", `[{"event":""}]`, 401,
			"event submitted without an api_key", 0},
		{"0", "envelope without a token takes its events'", "/batch",
			`{"batch":[{"event":"a","distinct_id":"u","properties":{"token":"k"}}]}`, 200, okBody, 1},
		{"0", "envelope without any token", "/batch", `{"batch":[{"event":"a","distinct_id":"u"}]}`, 401,
			"event submitted without an api_key", 0},
		{"2.8", "envelope's token wins", "/batch",
			`{"api_key":"k","batch":[{"event":"a","distinct_id":"u","token":"l"}]}`, 200, okBody, 1},
		{"2.8", "token in the properties", "/e", `{"event":"a","properties":{"token":"k","distinct_id":"u"}}`, 200,
			okBody, 1},
		{"2.8", "personal key", "/e", `{"event":"a","distinct_id":"u","token":"phx_1"}`, 401,
			"API key is not valid: personal_api_key", 0},
		{"2.8", "empty key", "/batch", `{"api_key":"","batch":[{"event":"a","distinct_id":"u"}]}`, 401,
			"API key is not valid: empty", 0},
		{"2.9", "distinct_id null at the top, given in the properties", "/e",
			`{"event":"a","distinct_id":null,"token":"k","properties":{"distinct_id":"u"}}`, 200, okBody, 1},
		{"0", "distinct_id blank at the top is missing", "/e",
			`{"event":"a","distinct_id":" ","token":"k","properties":{"distinct_id":"u"}}`, 400,
			"event submitted without a distinct_id", 0},
		{"2.12", "cookieless of another type", "/e",
			`{"event":"a","distinct_id":"u","token":"k","properties":{"$cookieless_mode":1}}`, 400,
			"event submitted with invalid cookieless mode", 0},
		{"2.6", "historical_migration of another type", "/batch",
			`{"api_key":"k","historical_migration":1,"batch":[{"event":"a","distinct_id":"u"}]}`, 400,
			"failed to parse request: historical_migration must be true or false", 0},
		{"0", "NaN and a lone surrogate are mended", "/batch",
			`{"api_key":"k","batch":[{"event":"a","distinct_id":"u","properties":{"x":NaN,"y":"\ud83d"}}]}`, 200,
			okBody, 1},
	} {
		t.Run(test.section+" "+test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			response := s.post(test.path, test.body)
			require.Equal(t, test.answer, response.Body)
			require.Equal(t, test.status, response.Status)
			require.Len(t, s.sink.events, test.kept)
			if test.status == 400 || test.status == 401 {
				require.Equal(t, "text/plain; charset=utf-8", response.ContentType)
			}
		})
	}
}

func TestCaptureReadsAnEventsFields(t *testing.T) {
	s := newService(t, DefaultConfig())
	response := s.post("/batch/",
		`{"historical_migration":true,"sentAt":"2026-11-24T11:00:00Z",`+
			`"batch":[{"type":"capture","event":"a","uuid":"0190A6E2-6C1F-7A3B-8C2D-1E2F3A4B5C6D",
		"distinct_id": 12345, "timestamp":"2026-11-24T10:59:00+00:00",`+
			`"properties": {"a": [1, 2.50, "\u00fc"], "$cookieless_mode":true, "capture_internal":0} ,`+
			`"$set":{"x":1},"$set_once":null},
		{"event":"$exception","distinct_id":"u","offset":1500}],"api_key":" k "}`)
	require.Equal(t, 200, response.Status, response.Body)
	require.Equal(t, "k", s.sink.batch.Token)
	require.True(t, s.sink.batch.Historical)
	require.Equal(t, received.Add(-time.Hour), s.sink.batch.SentAt)
	first, second := s.sink.events[0], s.sink.events[1]
	require.Equal(t, "0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d", first.UUID.String())
	require.True(t, first.ClientUUID)
	require.Equal(t, "12345", first.DistinctID)
	require.Equal(t, received.Add(-time.Minute), first.Timestamp, "the client's clock is an hour slow")
	require.Equal(t, `{"a": [1, 2.50, "\u00fc"], "$cookieless_mode":true, "capture_internal":0}`,
		string(first.Raw.Properties))
	require.Equal(t, `12345`, string(first.Raw.DistinctID))
	require.Equal(t, `{"x":1}`, string(first.Raw.Set))
	require.Nil(t, first.Raw.SetOnce)
	require.Nil(t, first.Raw.Token)
	require.True(t, first.Cookieless)
	require.Equal(t, "127.0.0.1", first.ClientIP)
	require.Equal(t, events.LaneHistorical, first.Lane)
	require.Equal(t, events.LaneExceptions, second.Lane, "a special name wins over historical_migration")
	require.Equal(t, `{}`, string(second.Raw.Properties))
	require.Equal(t, received.Add(-1500*time.Millisecond), second.Timestamp)
	require.False(t, second.ClientUUID)
	require.EqualValues(t, 7, second.UUID.Version())
}

func TestASentAtThatIsNoTimeIsPassedOver(t *testing.T) {
	s := newService(t, DefaultConfig())
	for envelope, want := range map[string]time.Time{
		`"sent_at":"garbage","sentAt":"2026-11-24T11:00:00Z"`: received.Add(-time.Hour),
		`"sent_at":"1700000000"`:                              time.Unix(1700000000, 0).UTC(),
		`"sent_at":1700000000500`:                             time.UnixMilli(1700000000500).UTC(),
		`"sent_at":true,"sentAt":[]`:                          {},
		`"sent_at":"garbage"`:                                 {},
	} {
		require.Equal(t, 200,
			s.post("/batch", `{"api_key":"k",`+envelope+`,"batch":[{"event":"a","distinct_id":"u"}]}`).Status)
		require.Equal(t, want, s.sink.batch.SentAt, envelope)
	}
}

// No event is dated by its arrival, or has a time that is hardly meant, without a note that the project is told of.
func TestATimeThatIsNotTheClientsIsNoted(t *testing.T) {
	for fields, want := range map[string]events.Notes{
		`"timestamp":"2026-11-24T11:00:00Z"`: 0,
		`"timestamp":null`:                   0,
		`"x":1`:                              0,
		`"timestamp":""`:                     events.NoteTimeUnread,
		`"timestamp":"next week"`:            events.NoteTimeUnread,
		`"timestamp":"` + strings.Repeat(`1`, 1000) + `"`: events.NoteTimeUnread,
		`"timestamp":` + strings.Repeat(`1`, 1000):        events.NoteTimeUnread,
		`"offset":` + strings.Repeat(`1`, maxRead+1):      events.NoteTimeUnread,
		`"timestamp":"2569-11-24T11:00:00Z"`:              events.NoteTimeAhead,
		`"timestamp":"2026-11-25T11:00:01Z"`:              events.NoteTimeAhead,
		`"timestamp":"0000-01-01T00:00:00+01:00"`:         events.NoteTimeOutOfRange,
		`"offset":1e15`:                      events.NoteTimeOutOfRange,
		`"timestamp":"0001-01-01T00:00:00Z"`: events.NoteTimeOld,
		`"timestamp":"1405-09-03T11:00:00Z"`: events.NoteTimeOld,
		`"timestamp":0`:                      events.NoteTimeOld,
	} {
		s := newService(t, DefaultConfig())
		response := s.post("/batch", `{"api_key":"k","batch":[{"event":"a","distinct_id":"u",`+fields+`}]}`)
		require.Equal(t, 200, response.Status, fields)
		require.Equal(t, want, s.sink.events[0].Notes, fields)
		switch want {
		case events.NoteTimeUnread, events.NoteTimeAhead:
			require.Equal(t, received, s.sink.events[0].Timestamp, fields)
		case events.NoteTimeOutOfRange:
			require.Zero(t, s.sink.events[0].Timestamp.Unix(), fields)
		}
	}
	s := newService(t, DefaultConfig())
	require.Equal(t, 200, s.post("/batch", `{"api_key":"k","sent_at":[],"batch":[{"event":"a","distinct_id":"u",`+
		`"timestamp":"2026-11-24T11:00:00Z"}]}`).Status)
	require.Equal(t, events.NoteSentAtUnread, s.sink.events[0].Notes)
	require.Equal(t, 200, s.record("/s", "", `[{"sent_at":"soon","timestamp":"soon","properties":{"token":"k",`+
		`"distinct_id":"u","$session_id":"s","$snapshot_data":[]}}]`).Status)
	require.Equal(t, events.NoteSentAtUnread|events.NoteTimeUnread, s.sink.events[1].Notes)
}

func TestHugeValuesAreNotRead(t *testing.T) {
	s := newService(t, DefaultConfig())
	huge := `"` + strings.Repeat(`\n`, 100_000) + `"`
	require.Equal(t, 401, s.post("/e", `{"event":"a","distinct_id":"u","token":`+huge+`}`).Status)
	require.Equal(t, 200, s.post("/e", `{"event":"a","distinct_id":"u","token":"k",`+huge+`:1}`).Status)
	require.Equal(t, 200,
		s.post("/e", `{"event":"a","distinct_id":`+strings.Repeat("7", 200_000)+`,"token":"k","timestamp":`+huge+
			`}`).Status)
	s.Handler = newHandler(DefaultConfig(), decode.New(route.Fixed(4<<20), nil), nil, s.processor, s.scope)
	require.Equal(t, 413,
		s.post("/e", `{"event":"`+strings.Repeat("n", 1<<20)+`","distinct_id":"u","token":"k"}`).Status)
}

func TestCaptureRepairsInTheEventsOwnBytes(t *testing.T) {
	s := newService(t, DefaultConfig())
	require.Equal(t, 200,
		s.post("/e/",
			`{"event":"a","token":"k","distinct_id":"\ud83d",`+
				`"properties":{"x":NaN,"y":[-Infinity],"z":"\udc00\\`+"\n\xff\xfe"+`"}}`).Status)
	require.Equal(t, `{"x":null,"y":[null],"z":"\ufffd\\\n`+"\ufffd\ufffd"+`"}`,
		string(s.sink.events[0].Raw.Properties))
	require.Equal(t, "\ufffd", s.sink.events[0].DistinctID)
	counters := map[string]int64{}
	for _, counter := range s.scope.Snapshot().Counters() {
		if counter.Name() == "json_repaired_total" {
			counters[counter.Tags()["kind"]] = counter.Value()
		}
	}
	require.Equal(t, map[string]int64{
		"nan": 2, "lone_surrogate": 2, "control_character": 1, "invalid_utf8": 2,
	}, counters)
}

func TestAllOrNothingRejectsTheBatchForOneBadEvent(t *testing.T) {
	s := newService(t, Config{MaxEvents: 100, BatchPolicy: PolicyAllOrNothing})
	response := s.post("/batch", `{"api_key":"k","batch":[{"event":"a","distinct_id":"u"},{"event":"b"}]}`)
	require.Equal(t, 400, response.Status)
	require.Equal(t, "event submitted without a distinct_id", response.Body)
	require.Empty(t, s.sink.events)
	require.Equal(t, map[events.Reason]uint64{events.ReasonBatchRefused: 1, events.ReasonMissingDistinctID: 1},
		s.ledger.Snapshot().Rejected)
}

func TestCaptureMapsWhatTheSinkSays(t *testing.T) {
	const two = `[{"event":"a","distinct_id":"u","token":"k"},{"event":"b","distinct_id":"u","token":"k"}]`
	tooLarge := events.Errorf(events.TooLarge, "2000000 bytes")
	fails := func(name string, code events.Code) func(*events.Event) {
		return func(event *events.Event) {
			if event.Name == name {
				event.Fail(events.ReasonUnavailable, events.Errorf(code, "broker: %w", errors.New("gone")))
			}
		}
	}
	for _, test := range []struct {
		name   string
		judge  func(*events.Event)
		status int
		answer string
	}{
		{"known already", func(event *events.Event) { event.AcceptDuplicate() }, 200, okBody},
		{"one is being handled already", func(event *events.Event) {
			if event.Name == "b" {
				event.Fail(events.ReasonInFlight, events.Errorf(events.Unavailable, "reserved by another request"))
			}
		}, 503, "another request with the same event is being handled, please retry"},
		{"too fast", func(event *events.Event) {
			event.Fail(events.ReasonRateLimited, events.Errorf(events.RateLimited, "bucket of phc_secret is empty"))
		}, 503, "rate limited, please retry later"},
		{"dropped for being too fast", func(event *events.Event) { event.Drop(events.ReasonRateLimited) }, 200, okBody},
		{"one failed: all is sent again", fails("a", events.Unavailable), 503, "transient error, please retry"},
		{"an internal error tells nothing", fails("b", events.Internal), 500, "internal server error"},
		{"one too large", func(event *events.Event) {
			if event.Name == "a" {
				event.Reject(events.ReasonTooLarge, tooLarge)
			}
		}, 200, okBody},
		{"all too large", func(event *events.Event) { event.Reject(events.ReasonTooLarge, tooLarge) }, 413,
			"maximum event size exceeded: 2000000 bytes"},
		{"dropped by a rule", func(event *events.Event) { event.Drop(events.ReasonRule) }, 200, okBody},
		{"all over the quota", func(event *events.Event) { event.Drop(events.ReasonQuota) }, 200,
			`{"status":"Ok","quota_limited":["events"]}`},
		{"one over the quota", func(event *events.Event) {
			if event.Name == "a" {
				event.Drop(events.ReasonQuota)
			}
		}, 200, okBody},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, DefaultConfig())
			s.sink.judge = test.judge
			response := s.post("/e", two)
			require.Equal(t, test.status, response.Status)
			require.Equal(t, test.answer, response.Body)
			require.Equal(t, test.status == 503, response.Retry)
		})
	}
}

// Current SDKs stop sending to the path of a resource that is limited; PostHog calls AI events llm_events.
func TestTheAnswerNamesTheResourcesThatAreOverTheirQuotas(t *testing.T) {
	const event = `{"event":"%s","distinct_id":"u","token":"k"}`
	for names, want := range map[string]string{
		"a":                                    `["events"]`,
		"$exception":                           `["exceptions"]`,
		"$ai_trace":                            `["llm_events"]`,
		"survey sent,survey sent":              `["surveys"]`,
		"survey sent,$exception,a,$ai_trace,b": `["events","exceptions","llm_events","surveys"]`,
	} {
		s := newService(t, DefaultConfig())
		s.sink.judge = func(event *events.Event) { event.Drop(events.ReasonQuota) }
		var sent []string
		for name := range strings.SplitSeq(names, ",") {
			sent = append(sent, fmt.Sprintf(event, name))
		}
		response := s.post("/e", "["+strings.Join(sent, ",")+"]")
		require.Equal(t, `{"status":"Ok","quota_limited":`+want+`}`, response.Body)
	}
}

func TestAClientIsToldToComeAgainShortlyForWhatIsInFlight(t *testing.T) {
	s := newService(t, DefaultConfig())
	s.sink.judge = func(event *events.Event) {
		event.Fail(events.ReasonInFlight, events.Errorf(events.Unavailable, "reserved"))
	}
	response := s.post("/e", `{"event":"a","distinct_id":"u","token":"k"}`)
	require.True(t, response.Retry)
	require.Equal(t, time.Second, response.RetryAfter)
}

func TestBlackHoleKeepsNothingAndAlwaysSaysYes(t *testing.T) {
	s := newService(t, DefaultConfig())
	for _, body := range []string{`{"event":"a","distinct_id":"u","token":"k"}`, `[`, ``} {
		response := s.BlackHole(context.Background(),
			&route.Request{Path: "/test/black_hole", Body: []byte(body), Received: received})
		require.Equal(t, 200, response.Status)
		require.Equal(t, okBody, response.Body)
	}
	require.Empty(t, s.sink.events)
	require.Equal(t, map[events.Reason]uint64{events.ReasonBlackHole: 1}, s.ledger.Snapshot().Dropped)
}

func TestCaptureIsBusyWhenTheBudgetIsSpent(t *testing.T) {
	s := newService(t, DefaultConfig())
	taken := s.budget.Lease()
	require.True(t, taken.Reserve(s.budget.Limit()-10))
	response := s.post("/e", `{"event":"a","distinct_id":"u","token":"k"}`)
	require.Equal(t, 503, response.Status)
	require.True(t, response.Retry)
	taken.Release()
	require.Equal(t, 200, s.post("/e", `{"event":"a","distinct_id":"u","token":"k"}`).Status)
}

// Three bytes make an event of half a kilobyte, so the number of a request's events must be limited, too.
func TestARequestOfVeryManyEventsIsLimitedInNumberAndMemory(t *testing.T) {
	many := func(n int) string { return `{"api_key":"k","batch":[{}` + strings.Repeat(",{}", n-1) + `]}` }
	config := Config{MaxEvents: 10_000, BatchPolicy: PolicyPartial}
	s := newService(t, config)
	require.Equal(t, 413, s.post("/batch", many(10_000)).Status, "1 MiB is never enough for so many")
	require.Zero(t, s.budget.InUse())

	s.budget = memory.NewBudget(100 << 20)
	s.Handler = newHandler(config, decode.New(route.Fixed(1<<20), s.budget), s.budget, s.processor, s.scope)
	response := s.post("/batch", many(10_001))
	require.Equal(t, 413, response.Status)
	require.Equal(t, "maximum event size exceeded: request holds more than 10000 events or snapshots", response.Body)
	response = s.post("/batch", many(10_000))
	require.Equal(t, 400, response.Status, "all of them are bad")
	require.EqualValues(t, 10_000, s.ledger.Snapshot().Received)
	require.Equal(t, 200, s.post("/e", `{"event":"a","distinct_id":"u","token":"k"}`).Status)
}

// FuzzCapture feeds whole requests. Nothing may panic, leak the budget or lose count, and every event that is kept must
// be sound.
func FuzzCapture(f *testing.F) {
	f.Add("/e/", "", []byte(`{"event":"a","distinct_id":"u","token":"k"}`))
	f.Add("/e/", "",
		[]byte(`{"event":"$ai_x","distinct_id":"u","token":"k","properties":{"$ai_gateway_a":1,"$heatmap_data":{},`+
			`"\u0024heatmap_data":[],"$current_url":"u","$prev_pageview_pathname":"p"}}`))
	f.Add("/engage/", "beacon=1&_=1795383045842", []byte(`data=eyJldmVudCI6ImEifQ%3D%3D&compression=base64`))
	f.Add("/batch/", "retry_count=1",
		[]byte(`{"api_key":"k","batch":[{"event":"a","distinct_id":NaN,"offset":-1e99,"timestamp":"2026-11-24"}]}`))
	f.Add("/batch/", "retry_count=1&_=1795383045842",
		[]byte("{\"sent_at\":1795383046,\"api_key\":\"k\",\"batch\":[{\"event\":\"a\",\"distinct_id\":\"\xff\t\","+
			"\"offset\":5,\"timestamp\":\"3/31/2014 22:05\",\"$set\":[],\"properties\":{\"$set\":[ ],\"a\":1.#INF}}]}"))
	f.Fuzz(func(t *testing.T, path, query string, body []byte) {
		s := newService(t, DefaultConfig())
		response := s.Capture(context.Background(),
			&route.Request{Path: path, RawQuery: query, Body: body, ClientIP: "192.0.2.1", Received: received})
		switch response.Status {
		case 200, 204, 400, 401, 413:
		default:
			t.Fatalf("status %d: %s", response.Status, response.Body)
		}
		for _, event := range s.sink.events {
			if event.Name == "" || event.DistinctID == "" || event.Timestamp.IsZero() ||
				event.Raw.Properties[0] != '{' {
				t.Fatalf("an unsound event was kept: %+v", event)
			}
			if event.Heatmap != nil {
				checkHeatmap(t, event)
			}
		}
	})
}

// checkHeatmap compares the heatmap data that were split off an event with what is left in the event.
func checkHeatmap(t *testing.T, event events.Event) {
	var left, heatmap map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(event.Raw.Properties, &left), "%s", event.Raw.Properties)
	require.NoError(t, json.Unmarshal(event.Heatmap, &heatmap), "%s", event.Heatmap)
	require.NotContains(t, left, heatmapData)
	require.NotEmpty(t, heatmap)
	for name, value := range heatmap {
		require.Contains(t, heatmapProperties, name)
		if name != heatmapData {
			require.Equal(t, string(left[name]), string(value))
		}
	}
}
