package route

import (
	"cmp"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// Answer is the answer to an error, with the words of every protocol. The protocols only render it.
type Answer struct {
	// Status is the HTTP status.
	Status int
	// Text tells the client what is wrong.
	Text string
	// Retry is set if the answer says when to come again. RetryV1 is the same for the protocol v1, whose SDKs look for
	// a Retry-After on more answers. RetryAfter is the time to wait; 0 stands for transport.retry_after.
	Retry, RetryV1 bool
	RetryAfter     time.Duration
	// Tag is v1's word for the error, RPC the google.rpc code in OTLP's answer.
	Tag string
	RPC int
}

// The codes of google.rpc that OTLP's answers have.
const (
	rpcInvalidArgument   = 3
	rpcDeadlineExceeded  = 4
	rpcPermissionDenied  = 7
	rpcResourceExhausted = 8
	rpcInternal          = 13
	rpcUnavailable       = 14
	rpcUnauthenticated   = 16
)

// byCode is the table of answers by an error's code. docs/protocol.md shows the table, and a test compares the two.
var byCode = [...]struct {
	Answer // Without a Text, the client gets the error's own text.
	// failed is the text for a failed event, whose error is the service's business.
	failed string
	// large begins the text for a rejected event, largeAI that for a rejected AI event.
	large, largeAI string
}{
	events.Internal: {
		Answer: Answer{
			Status: 500, Text: "internal server error", RetryV1: true, Tag: "internal_error", RPC: rpcInternal,
		},
	},
	events.Invalid:      {Answer: Answer{Status: 400, Tag: "request_decoding_error", RPC: rpcInvalidArgument}},
	events.Unauthorized: {Answer: Answer{Status: 401, Tag: "invalid_api_token", RPC: rpcUnauthenticated}},
	events.Forbidden:    {Answer: Answer{Status: 403, Tag: "forbidden", RPC: rpcPermissionDenied}},
	events.TooLarge: {
		Answer: Answer{Status: 413, Tag: "payload_too_large", RPC: rpcInvalidArgument},
		large:  "maximum event size exceeded: ", largeAI: "maximum AI event size exceeded: ",
	},
	events.Unsupported: {Answer: Answer{Status: 415, Tag: "unsupported_content_type", RPC: rpcInvalidArgument}},
	events.SlowClient: {
		Answer: Answer{Status: 408, RetryV1: true, Tag: "body_read_timeout", RPC: rpcDeadlineExceeded},
	},
	events.Unavailable: {
		Answer: Answer{Status: 503, Retry: true, RetryV1: true, Tag: "service_unavailable", RPC: rpcUnavailable},
		failed: "transient error, please retry",
	},
	events.RateLimited: {
		Answer: Answer{Status: 429, Retry: true, RetryV1: true, Tag: "rate_limited", RPC: rpcResourceExhausted},
		failed: "rate limited, please retry later",
	},
}

// byReason is the table of answers by the reason of an event's outcome. A reason without a row takes the details of
// byState, or else is itself the details.
var byReason = map[events.Reason]struct {
	// details is v1's word beside an event's result, detailsAI the word beside that of an AI event.
	details, detailsAI string
	// failed is the text for a failed event in the place of the text by its code. retryAfter is how long the client
	// should wait before it sends the event again.
	failed     string
	retryAfter time.Duration
}{
	events.ReasonDuplicate: {details: "duplicate"},
	events.ReasonInFlight: {
		details: "in_flight", failed: "another request with the same event is being handled, please retry",
		retryAfter: time.Second,
	},
	events.ReasonRateLimited:      {details: "rate_limited"},
	events.ReasonQuota:            {details: "billing_limit_exceeded"},
	events.ReasonRule:             {details: "event_restriction_drop"},
	events.ReasonNotHistorical:    {details: "non_historical_import_drop"},
	events.ReasonPerformanceEvent: {details: "dropped_performance_event"},
	events.ReasonTooLarge:         {details: "event_too_big", detailsAI: "ai_event_too_big"},
}

// byState is v1's result of an event by the state of its outcome, and the details where byReason has none.
var byState = [...]struct{ result, details string }{
	events.StatePending:  {"retry", "not_persisted"},
	events.StateAccepted: {"ok", ""},
	events.StateDropped:  {"drop", ""},
	events.StateRejected: {"drop", ""},
	events.StateFailed:   {"retry", "not_persisted"},
}

// OverQuota answers a request whose events were all dropped because the quota is used up. It is for OTLP, which has no
// word for that in a success, and whose clients would send the request again upon a 429.
var OverQuota = Answer{Status: 400, Text: "quota exceeded", RPC: rpcInvalidArgument}

// ToError returns the answer to a request that is refused with the error.
func ToError(err error) Answer {
	answer := byCode[events.CodeOf(err)].Answer
	if answer.Text == "" {
		answer.Text = err.Error()
	}
	return answer
}

// ToRejection returns the answer to a request in which no event was good. It says what is wrong with the rejected
// event.
func ToRejection(event *events.Event) Answer {
	err := event.Outcome.Err
	answer, row := ToError(err), &byCode[events.CodeOf(err)]
	if event.Lane == events.LaneAI {
		answer.Text = row.largeAI + answer.Text
	} else {
		answer.Text = row.large + answer.Text
	}
	return answer
}

// ToFailure returns the answer to a request whose event has failed. The client is to send the whole request again, and
// does not see the error.
func ToFailure(event *events.Event) Answer {
	code := events.CodeOf(event.Outcome.Err)
	if code != events.Internal && code != events.RateLimited {
		code = events.Unavailable
	}
	answer, reason := byCode[code].Answer, byReason[event.Outcome.Reason]
	answer.Text = cmp.Or(answer.Text, reason.failed, byCode[code].failed)
	answer.RetryAfter = reason.retryAfter
	return answer
}

// Failed renders the answer to a request whose event has failed as v0 does, in plain text. It has no 429: browsers
// would drop the events, and every SDK of v0 sends them again upon a 503.
func Failed(event *events.Event) Response {
	answer := ToFailure(event)
	if events.CodeOf(event.Outcome.Err) == events.RateLimited {
		answer.Status = byCode[events.Unavailable].Status
	}
	return answer.Refused()
}

// ToEvent returns v1's answer to one event: the result, and the details, which may be empty.
func ToEvent(event *events.Event) (result, details string) {
	outcome := &event.Outcome
	state := byState[outcome.State]
	if outcome.Reason == "" {
		return state.result, state.details
	}
	reason := byReason[outcome.Reason]
	if event.Lane == events.LaneAI && reason.detailsAI != "" {
		return state.result, reason.detailsAI
	}
	return state.result, cmp.Or(reason.details, state.details, string(outcome.Reason))
}

// Refused renders the answer as v0 does, in plain text.
func (a Answer) Refused() Response {
	return Response{Status: a.Status, ContentType: TypeText, Body: a.Text, Retry: a.Retry, RetryAfter: a.RetryAfter}
}

// Refusal renders the answer to an error in plain text.
func Refusal(err error) Response { return ToError(err).Refused() }
