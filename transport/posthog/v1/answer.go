package v1

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

// taggedError is the fault of a request or an event: an error, the protocol's word for it, and the reason under which
// the events that it ends are counted.
type taggedError struct {
	err    *events.Error
	tag    string
	reason events.Reason
}

func errorf(code events.Code, tag string, reason events.Reason, format string, args ...any) *taggedError {
	return &taggedError{err: events.Errorf(code, format, args...), tag: tag, reason: reason}
}

func (e *taggedError) Error() string { return e.err.Error() }

// Unwrap returns the error with its code.
func (e *taggedError) Unwrap() error { return e.err }

const tagInvalidToken = "invalid_api_token"

// The faults of a request. Like the faults of an event below, they are made once, so that a bad request costs little.
var (
	errNoToken = errorf(events.Unauthorized, "missing_authorization", events.ReasonMissingToken,
		"the Authorization header is missing")
	errNotBearer   = notBearer()
	errContentType = errorf(events.Unsupported, "unsupported_content_type", events.ReasonInvalidEvent,
		"the Content-Type must be application/json")
	errEncoding = errorf(events.Unsupported, "unsupported_encoding", events.ReasonInvalidEvent,
		"the Content-Encoding must be one of gzip, deflate, br and zstd")
	errNoBody    = errorf(events.Invalid, "empty_body", events.ReasonInvalidEvent, "the request has no body")
	errNoBatch   = errorf(events.Invalid, "request_parsing_error", events.ReasonInvalidEvent, "batch is missing")
	errBatchType = errorf(events.Invalid, "request_parsing_error", events.ReasonInvalidEvent,
		"batch must be an array of events")
	errNoEvent   = errorf(events.Invalid, "empty_batch", events.ReasonInvalidEvent, "the batch holds no event")
	errCreatedAt = errorf(events.Invalid, "invalid_batch", events.ReasonInvalidEvent,
		"created_at must be a time as of RFC 3339")
	errHistorical = errorf(events.Invalid, "request_parsing_error", events.ReasonInvalidEvent,
		"historical_migration must be true or false")
	errNoUUID = errorf(events.Invalid, "missing_event_uuid", events.ReasonInvalidUUID,
		"the batch holds an event without a uuid")
	errTooFast = errorf(events.RateLimited, "rate_limited", events.ReasonRateLimited,
		"rate limited, please retry later")
	errUUID = errorf(events.Invalid, "invalid_event_uuid", events.ReasonInvalidUUID,
		"the batch holds an event whose uuid is not a UUID")
)

// notBearer returns the faults of a request whose Authorization header is for somebody else, by the kind of the header.
func notBearer() (errs [route.Schemes]*taggedError) {
	for scheme := range errs {
		errs[scheme] = errorf(events.Unauthorized, tagInvalidToken, events.ReasonInvalidToken,
			"%s; it must have the scheme Bearer and the project's API key", route.Scheme(scheme))
	}
	return errs
}

// The faults of an event.
var (
	errNoName = errorf(events.Invalid, "missing_event_name", events.ReasonMissingName,
		"event submitted without a name")
	errLongName = errorf(events.TooLarge, "event_name_too_long", events.ReasonTooLarge,
		"the event name is longer than %d bytes", maxName)
	errNoDistinctID = errorf(events.Invalid, "missing_distinct_id", events.ReasonMissingDistinctID,
		"event submitted without a distinct_id")
	errTimestamp = errorf(events.Invalid, "invalid_event_timestamp", events.ReasonInvalidEvent,
		"timestamp must be a time as of RFC 3339")
	errDeep = errorf(events.Invalid, "event_nested_too_deep", events.ReasonInvalidEvent,
		"event nested deeper than %d levels", jsonscan.MaxDepth)
	errProperties = errorf(events.Invalid, "malformed_event_properties", events.ReasonInvalidEvent,
		"properties must be an object")
	errOptions = errorf(events.Invalid, "invalid_options", events.ReasonInvalidEvent,
		"event submitted with an option of a wrong type")
	errAITooLarge = errorf(events.TooLarge, tagAITooLarge, events.ReasonTooLarge,
		"the AI event is larger than transport.posthog.max_ai_event")
	errNotAI = errorf(events.Invalid, "misrouted_event", events.ReasonNotAI,
		"the event is not an AI event: send it to /i/v1/analytics/events")
)

const (
	tagAITooLarge = "ai_event_too_big"
	tagImpersonal = "person_processing_disabled"
)

// resultOf returns the protocol's result of an event and its details, which may be empty. A fault that this package has
// found has a word of its own. An event that is kept although its user sends too fast has the result "warning".
func resultOf(event *events.Event) (result, details string) {
	result, details = route.ToEvent(event)
	switch outcome := &event.Outcome; {
	case outcome.Err != nil:
		var known *taggedError
		if errors.As(outcome.Err, &known) {
			return result, known.tag
		}
	case outcome.State != events.StateAccepted || outcome.Reason != "":
	case event.Routing.Limited:
		return "warning", tagImpersonal
	case event.Routing.SkipPerson:
		return result, tagImpersonal
	case event.Notes.Has(events.NoteDistinctIDCut):
		return result, "distinct_id_truncated"
	}
	return result, details
}

// find notes where each event of the request stands in the batch now. Stages may have reordered the events, added some
// of their own, or made several of one event. Of several the first counts, or else one that has failed.
func (s *session) find() {
	places := s.room.places[:len(s.objects)]
	clear(places)
	for i := range s.batch.Events {
		event := &s.batch.Events[i]
		if event.Ref == 0 || int(event.Ref) > len(places) {
			continue
		}
		if place := &places[event.Ref-1]; *place == 0 || event.Outcome.State == events.StateFailed {
			*place = int32(i + 1)
		}
	}
}

// lost stands for an event that a stage has taken out of the batch. No stage may do that.
var lost = events.Event{Outcome: events.Outcome{
	State: events.StateFailed, Reason: events.ReasonUnsettled,
	Err: events.Errorf(events.Internal, "a stage has lost the event"),
}}

// The parts of an answer.
const (
	answerHead, answerTail  = `{"results":{`, `}}`
	resultHead, detailsHead = `:{"result":"`, `","details":`
	// resultSize is the most bytes of an event's result beside its uuid, with quotes and separators.
	resultSize = 128
	// maxDetails is the most bytes of details in quotes. Longer ones, which only a stage of somebody else can give, are
	// left out.
	maxDetails = resultSize - len(resultHead+"warning"+detailsHead+"},")
	// smallAnswer is how many bytes of an answer the server may copy.
	smallAnswer = 4 << 10
)

// maxAnswer returns the most bytes that the answer may have.
func (s *session) maxAnswer() int64 {
	size := len(answerHead) + len(answerTail)
	for i := range s.objects {
		size += len(s.objects[i].uuid.In(s.Data)) + resultSize
	}
	return int64(size)
}

// event returns the i-th event of the request as it has ended.
func (s *session) event(i int) *events.Event {
	if place := s.room.places[i]; place > 0 {
		return &s.batch.Events[place-1]
	}
	return &lost
}

// appendResult appends the result of the i-th event of the request.
func (s *session) appendResult(body []byte, i int) []byte {
	if i > 0 {
		body = append(body, ',')
	}
	result, details := resultOf(s.event(i))
	body = append(body, s.objects[i].uuid.In(s.Data)...)
	body = append(body, resultHead...)
	body = append(body, result...)
	if details != "" {
		end := len(body)
		body = append(body, detailsHead...)
		start := len(body)
		if body = strconv.AppendQuote(body, details); len(body)-start <= maxDetails {
			return append(body, '}')
		}
		body = body[:end]
	}
	return append(body, `"}`...)
}

// answer renders a result for every event, in the order and with the UUIDs of the request. A stage that refuses the
// token rejects every event that it is asked about. If no event was kept and none has failed, the whole request is then
// refused. So it is if all events have failed because their project sends too fast.
func (s *session) answer(request *route.Request) route.Response {
	s.find()
	kept, tooFast := false, 0
	var refused error
	var failed *events.Event
	size := len(answerHead) + len(answerTail)
	var scratch [2 * maxRawUUID]byte
	for i := range s.objects {
		size += len(s.appendResult(scratch[:0], i))
		event := s.event(i)
		switch outcome := &event.Outcome; outcome.State {
		case events.StateAccepted:
			kept = true
		case events.StateFailed:
			failed = cmp.Or(failed, event)
			if events.CodeOf(outcome.Err) == events.RateLimited {
				tooFast++
			}
		case events.StateRejected:
			if events.CodeOf(outcome.Err) == events.Unauthorized {
				refused = outcome.Err
			}
		}
	}
	if refused != nil && failed == nil && !kept {
		return refuse(request, refused)
	}
	if tooFast > 0 && tooFast == len(s.objects) && !dropsUpon429(request) {
		return refuse(request, errTooFast)
	}
	body := append(make([]byte, 0, size), answerHead...)
	for i := range s.objects {
		body = s.appendResult(body, i)
	}
	body = append(body, answerTail...)
	response := route.Response{
		Status: http.StatusOK, ContentType: route.TypeJSON, Header: echoRequestID(nil, request),
	}
	if size <= smallAnswer {
		response.Body = jsonscan.Alias(body)
	} else {
		// The answer counts against the budget until the client has read it.
		lease := s.result
		s.result = s.spaces.budget.Lease()
		lease.Lower(int64(size))
		response.Bytes, response.Done = body, lease.Release
	}
	if failed != nil {
		response.Retry, response.RetryAfter = true, route.ToFailure(failed).RetryAfter
	}
	return response
}

// dropsUpon429 reports whether the client would drop the events of a request that is refused with the status 429, as
// posthog-go does. Results tell it to send the events again.
func dropsUpon429(request *route.Request) bool {
	return strings.HasPrefix(request.Get(headerSDKInfo), "posthog-go/")
}

// refuse renders the answer to an error.
func refuse(request *route.Request, err error) route.Response {
	answer := route.ToError(err)
	var known *taggedError
	if errors.As(err, &known) {
		answer.Tag = known.tag
	}
	body, _ := json.Marshal(struct { // strings always become JSON
		Error       string `json:"error"`
		Description string `json:"error_description"`
		URI         string `json:"error_uri"`
	}{answer.Tag, answer.Text, "https://posthog.com/docs/api"})
	return route.Response{
		Status: answer.Status, ContentType: route.TypeJSON, Body: string(body), Retry: answer.RetryV1,
		RetryAfter: answer.RetryAfter,
		Header: echoRequestID([]route.Field{
			{Name: "Accept", Value: route.TypeJSON},
			{Name: "Accept-Encoding", Value: "gzip, deflate, br, zstd"},
		}, request),
	}
}

// echoRequestID appends the client's id for the request, if that is a UUID.
func echoRequestID(fields []route.Field, request *route.Request) []route.Field {
	id := request.Get(headerRequestID)
	if _, ok := posthog.ParseUUID(id); !ok {
		return fields
	}
	return append(fields, route.Field{Name: headerRequestID, Value: id})
}
