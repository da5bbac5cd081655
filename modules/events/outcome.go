package events

import (
	"errors"
	"fmt"
)

// State is how an event ended.
type State uint8

// The states. Every event ends in exactly one of the last four.
const (
	// StatePending is the zero value: the outcome is not decided yet.
	StatePending State = iota
	// StateAccepted means that the event is safe where the sink promised to put it.
	StateAccepted
	// StateDropped means that the service's own policy decided not to keep a sound event. Sending it again is
	// pointless.
	StateDropped
	// StateRejected means that the event itself is at fault. Sending it again is pointless.
	StateRejected
	// StateFailed means that the event could not be made safe. The client should send it again.
	StateFailed
)

var stateNames = [...]string{"pending", "accepted", "dropped", "rejected", "failed"}

func (s State) String() string { return stateNames[s] }

// Reason says why an event ended as it did. It is the label of a metric: a short fixed word that is never made from
// input.
type Reason string

// The reasons of the stock modules.
const (
	// ReasonPerformanceEvent: the protocol does not keep $performance_event.
	ReasonPerformanceEvent Reason = "performance_event"

	// ReasonBlackHole: the event was sent to the test route, which keeps nothing.
	ReasonBlackHole Reason = "black_hole"

	// ReasonSampled: the sender has asked to keep a part of its events only, and the event is not of that part.
	ReasonSampled Reason = "sampled"

	// ReasonQuota: the project has used up its quota. ReasonRateLimited: the project sends too fast.
	ReasonQuota       Reason = "quota"
	ReasonRateLimited Reason = "rate_limited"

	// ReasonDuplicate: an earlier request has made the event safe already (accepted). ReasonInFlight: another request
	// with the same event is in progress, and its end is not known yet (failed, with the code Unavailable).
	ReasonDuplicate Reason = "duplicate"
	ReasonInFlight  Reason = "in_flight"

	// ReasonRule: a rule of the operator's drops the event. ReasonNotHistorical: the service takes only migrations of
	// old events.
	ReasonRule          Reason = "rule"
	ReasonNotHistorical Reason = "not_historical"

	ReasonInvalidEvent      Reason = "invalid_event"
	ReasonMissingName       Reason = "missing_event_name"
	ReasonMissingDistinctID Reason = "missing_distinct_id"
	ReasonInvalidCookieless Reason = "invalid_cookieless_mode"
	ReasonInvalidUUID       Reason = "invalid_uuid"
	ReasonMissingToken      Reason = "missing_token"
	ReasonMultipleTokens    Reason = "multiple_tokens"
	ReasonInvalidToken      Reason = "invalid_token"
	ReasonBatchRefused      Reason = "batch_refused"
	ReasonTooLarge          Reason = "event_too_large"
	ReasonNotAI             Reason = "not_an_ai_event"
	ReasonNoSnapshot        Reason = "missing_snapshot_data"
	ReasonNoSession         Reason = "missing_session_id"
	ReasonInvalidSession    Reason = "invalid_session_id"

	// ReasonUnknownToken: the token belongs to no project. ReasonDisabled: its project may send nothing at present.
	// ReasonOutOfScope: the project may not use this route, or not send events of this kind. ReasonOrigin,
	// ReasonNetwork: the project's requests do not come from this site, or from this address.
	ReasonUnknownToken Reason = "unknown_token"
	ReasonDisabled     Reason = "project_disabled"
	ReasonOutOfScope   Reason = "out_of_scope"
	ReasonOrigin       Reason = "origin_not_allowed"
	ReasonNetwork      Reason = "network_not_allowed"
	// ReasonNotAdmitted: a gate refuses the sender, and gives no reason.
	ReasonNotAdmitted Reason = "not_admitted"

	ReasonStage       Reason = "stage_failed"
	ReasonUnavailable Reason = "sink_unavailable"
	// ReasonTimeout: the sink did not know in time whether the event is safe. The event may become safe yet.
	ReasonTimeout Reason = "sink_timeout"
	// ReasonStore: the state that the nodes share is needed to judge the event, and does not answer. The configuration
	// says that the event is not to pass then (on_store_failure: closed). The code is Unavailable.
	ReasonStore Reason = "store_unavailable"
	// ReasonUnreadable stands in for a reason that is no text.
	ReasonUnreadable Reason = "unreadable_reason"

	ReasonUnsettled Reason = "unsettled"
)

// Outcome says how an event ended, and why. Of the accepted events only a duplicate has a reason.
type Outcome struct {
	State  State
	Reason Reason
	// Rule is the id of the operator's rule that dropped the event (ReasonRule). It is empty for all other outcomes. It
	// is for people: no metric is labelled with it.
	Rule string
	// Err is the cause of a rejection or a failure. It is nil for the other outcomes.
	Err error
	// Late tells later whether an event that has failed with ReasonTimeout has become safe after all. It is nil if
	// nobody will know.
	Late *Late
}

// Pending reports whether the event has no outcome yet.
func (e *Event) Pending() bool { return e.Outcome.State == StatePending }

// Accept ends the event as safe. If the event has an outcome already, Accept changes nothing; the same holds for the
// other methods that end an event.
func (e *Event) Accept() { e.end(Outcome{State: StateAccepted}) }

// AcceptDuplicate ends the event as safe because an earlier request has brought it.
func (e *Event) AcceptDuplicate() { e.end(Outcome{State: StateAccepted, Reason: ReasonDuplicate}) }

// Drop ends the event as one that the service's own policy does not keep.
func (e *Event) Drop(reason Reason) { e.end(Outcome{State: StateDropped, Reason: reason}) }

// DropByRule ends the event as one that a rule of the operator's does not keep. id says which rule it was.
func (e *Event) DropByRule(id string) {
	e.end(Outcome{State: StateDropped, Reason: ReasonRule, Rule: id})
}

// Reject ends the event as faulty.
func (e *Event) Reject(reason Reason, err error) {
	e.end(Outcome{State: StateRejected, Reason: reason, Err: err})
}

// Fail ends the event as one that could not be made safe, through no fault of its own.
func (e *Event) Fail(reason Reason, err error) {
	e.end(Outcome{State: StateFailed, Reason: reason, Err: err})
}

// FailLate ends the event as one of which it is not known in time whether it is safe. late will tell.
func (e *Event) FailLate(late *Late, err error) {
	e.end(Outcome{State: StateFailed, Reason: ReasonTimeout, Err: err, Late: late})
}

func (e *Event) end(outcome Outcome) {
	if e.Outcome.State == StatePending {
		e.Outcome = outcome
	}
}

// Code classifies an error. The place where the error happens sets it once. One table in transport/route says what the
// protocols make of each code.
type Code uint8

// The codes.
const (
	// Internal is the zero value: a fault of the service.
	Internal Code = iota
	// Invalid means that the request or event is malformed.
	Invalid
	// Unauthorized means that the token is missing or cannot be used.
	Unauthorized
	// Forbidden means that the token is good, but not for this.
	Forbidden
	// TooLarge means that the request or event is over a size limit.
	TooLarge
	// Unsupported means that the service does not know the type or encoding of the request.
	Unsupported
	// SlowClient means that the client stopped sending.
	SlowClient
	// Unavailable means that the service cannot do it now. The client should try again.
	Unavailable
	// RateLimited means that the client sends too fast. The client should try again more slowly.
	RateLimited
	codeCount
)

var codeNames = [codeCount]string{
	"internal", "invalid", "unauthorized", "forbidden", "too_large", "unsupported", "slow_client", "unavailable",
	"rate_limited",
}

// Codes returns every code.
func Codes() []Code {
	codes := make([]Code, codeCount)
	for i := range codes {
		codes[i] = Code(i)
	}
	return codes
}

func (c Code) String() string { return codeNames[c] }

// Error is an error with a Code.
type Error struct {
	Code Code
	// Reason is the reason for the outcome of the events that the error is about. It is empty if whoever ends the
	// events knows the reason.
	Reason Reason
	err    error
}

// Errorf makes an Error; %w wraps as in fmt.Errorf.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, err: fmt.Errorf(format, args...)}
}

// For returns the error with a reason.
func (e *Error) For(reason Reason) *Error { return &Error{Code: e.Code, Reason: reason, err: e.err} }

func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the message with its causes, so that errors.Is and errors.As see the causes.
func (e *Error) Unwrap() error { return e.err }

// CodeOf returns the code of the first Error in err's chain, or Internal.
func CodeOf(err error) Code {
	var coded *Error
	if errors.As(err, &coded) {
		return coded.Code
	}
	return Internal
}

// ReasonOf returns the reason of the first Error in err's chain, or otherwise if that has none.
func ReasonOf(err error, otherwise Reason) Reason {
	var coded *Error
	if errors.As(err, &coded) && coded.Reason != "" {
		return coded.Reason
	}
	return otherwise
}
