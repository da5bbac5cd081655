package route

import (
	"cmp"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// Answer is what an error is answered with, in the words of every protocol. The protocols only render it.
type Answer struct {
	// Status is the HTTP status.
	Status int
	// Text is what the client is told.
	Text string
	// Retry is set where the answer says when to come again, and RetryV1 where that of the protocol v1 does, whose SDKs
	// look for it on more answers. RetryAfter is when; 0 is as configured.
	Retry, RetryV1 bool
	RetryAfter     time.Duration
	// Tag is v1's word, RPC the google.rpc code of OTLP.
	Tag string
	RPC int
}

// The codes of google.rpc that OTLP is answered with.
const (
	rpcInvalidArgument   = 3
	rpcDeadlineExceeded  = 4
	rpcResourceExhausted = 8
	rpcInternal          = 13
	rpcUnavailable       = 14
	rpcUnauthenticated   = 16
)

// byCode is the table of answers: docs/protocol.md shows it, and a test compares the two.
var byCode = [...]struct {
	Answer // Without a Text the client is told the error's own.
	// failed is told of an event that failed, whose error is the service's business.
	failed string
	// large begins what is told of an event that was rejected, largeAI of an AI event.
	large, largeAI string
}{
	events.Internal: {
		Answer: Answer{Status: 500, Text: "internal server error", RetryV1: true, Tag: "internal_error", RPC: rpcInternal},
	},
	events.Invalid:      {Answer: Answer{Status: 400, Tag: "request_decoding_error", RPC: rpcInvalidArgument}},
	events.Unauthorized: {Answer: Answer{Status: 401, Tag: "invalid_api_token", RPC: rpcUnauthenticated}},
	events.TooLarge: {
		Answer: Answer{Status: 413, Tag: "payload_too_large", RPC: rpcInvalidArgument},
		large:  "maximum event size exceeded: ", largeAI: "maximum AI event size exceeded: ",
	},
	events.Unsupported: {Answer: Answer{Status: 415, Tag: "unsupported_content_type", RPC: rpcInvalidArgument}},
	events.SlowClient:  {Answer: Answer{Status: 408, RetryV1: true, Tag: "body_read_timeout", RPC: rpcDeadlineExceeded}},
	events.Unavailable: {
		Answer: Answer{Status: 503, Retry: true, RetryV1: true, Tag: "service_unavailable", RPC: rpcUnavailable},
		failed: "transient error, please retry",
	},
	events.RateLimited: {
		Answer: Answer{Status: 429, Retry: true, RetryV1: true, Tag: "rate_limited", RPC: rpcResourceExhausted},
		failed: "rate limited, please retry later",
	},
}

// byReason has what an answer takes from the reason of an event's outcome. A reason that is not here has v1's own word
// for the result, or else is itself the word.
var byReason = map[events.Reason]struct {
	// details is v1's word beside an event's result, detailsAI that of an AI event.
	details, detailsAI string
	// failed is told of a failed event instead of what its code says, and retryAfter is when to send it again.
	failed     string
	retryAfter time.Duration
}{
	events.ReasonDuplicate: {details: "duplicate"},
	events.ReasonInFlight: {
		details: "in_flight", failed: "another request with the same event is being handled, please retry", retryAfter: time.Second,
	},
	events.ReasonRateLimited:      {details: "rate_limited"},
	events.ReasonQuota:            {details: "billing_limit_exceeded"},
	events.ReasonRule:             {details: "event_restriction_drop"},
	events.ReasonNotHistorical:    {details: "non_historical_import_drop"},
	events.ReasonPerformanceEvent: {details: "dropped_performance_event"},
	events.ReasonTooLarge:         {details: "event_too_big", detailsAI: "ai_event_too_big"},
}

// byState has v1's result of an event, and the details of one whose reason has no row.
var byState = [...]struct{ result, details string }{
	events.StatePending:  {"retry", "not_persisted"},
	events.StateAccepted: {"ok", ""},
	events.StateDropped:  {"drop", ""},
	events.StateRejected: {"drop", ""},
	events.StateFailed:   {"retry", "not_persisted"},
}

// OverQuota answers a request all of whose events were dropped because the quota is used up, where the protocol has no
// word for that in a success. It is OTLP's, whose clients would send again upon a 429.
var OverQuota = Answer{Status: 400, Text: "quota exceeded", RPC: rpcInvalidArgument}

// ToError answers a request that is refused with an error.
func ToError(err error) Answer {
	answer := byCode[events.CodeOf(err)].Answer
	if answer.Text == "" {
		answer.Text = err.Error()
	}
	return answer
}

// ToRejection answers a request in which no event was good with what is wrong with the rejected event.
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

// ToFailure answers a request of which the event has failed. All of it is to be sent again, and the error stays inside.
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

// ToEvent is v1's answer to one event: the result, and the details, which may be empty.
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

// Refused renders the answer as v0 has it, which is plain text.
func (a Answer) Refused() Response {
	return Response{Status: a.Status, ContentType: TypeText, Body: a.Text, Retry: a.Retry, RetryAfter: a.RetryAfter}
}

// Refusal answers with an error as plain text.
func Refusal(err error) Response { return ToError(err).Refused() }
