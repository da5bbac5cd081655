package events

import (
	"errors"
	"fmt"
)

// State is how an event ended.
type State uint8

// The states. Every event ends in exactly one of the last four.
const (
	// StatePending is the zero value: not decided yet.
	StatePending State = iota
	// StateAccepted means that the event is safe where the sink promised to put it.
	StateAccepted
	// StateDropped means that the service decided not to keep a sound event, by its own policy; sending it again is
	// pointless.
	StateDropped
	// StateRejected means that the event itself is at fault; sending it again is pointless.
	StateRejected
	// StateFailed means that the event could not be made safe; sending it again is right.
	StateFailed
)

var stateNames = [...]string{"pending", "accepted", "dropped", "rejected", "failed"}

func (s State) String() string { return stateNames[s] }

// Reason says why an event ended as it did. It is a metric label: a short fixed word, never made from input.
type Reason string

// The reasons of the stock modules.
const (
	// ReasonPerformanceEvent: $performance_event is not kept (protocol).
	ReasonPerformanceEvent Reason = "performance_event"

	// ReasonBlackHole: sent to the test route, which keeps nothing.
	ReasonBlackHole Reason = "black_hole"

	// ReasonQuota: the project has used up what it may send. ReasonRateLimited: it sends too fast.
	ReasonQuota       Reason = "quota"
	ReasonRateLimited Reason = "rate_limited"

	// ReasonDuplicate: the event is safe already, because it was sent before (accepted). ReasonInFlight: another
	// request with the same event is being handled at this moment, and its end is not known yet (failed, with the code
	// Unavailable).
	ReasonDuplicate Reason = "duplicate"
	ReasonInFlight  Reason = "in_flight"

	// ReasonRule: a rule of the operator's says so. ReasonNotHistorical: only migrations of old events are taken.
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

	// ReasonNotAdmitted: a gate refuses whoever sends.
	ReasonNotAdmitted Reason = "not_admitted"

	ReasonStage       Reason = "stage_failed"
	ReasonUnavailable Reason = "sink_unavailable"
	ReasonTimeout     Reason = "sink_timeout"
	ReasonUnsettled   Reason = "unsettled"
)

// Outcome is how an event ended, and why. Of the accepted events only a duplicate has a reason.
type Outcome struct {
	State  State
	Reason Reason
	// Err is the cause of a rejection or a failure; nil otherwise.
	Err error
}

// Pending reports whether the event has no outcome yet.
func (e *Event) Pending() bool { return e.Outcome.State == StatePending }

// Accept ends the event as safe. An event that has ended stays as it is; the same holds for the other endings.
func (e *Event) Accept() { e.end(Outcome{State: StateAccepted}) }

// AcceptDuplicate ends the event as safe because an earlier request has brought it.
func (e *Event) AcceptDuplicate() { e.end(Outcome{State: StateAccepted, Reason: ReasonDuplicate}) }

// Drop ends the event as not kept by the service's own policy.
func (e *Event) Drop(reason Reason) { e.end(Outcome{State: StateDropped, Reason: reason}) }

// Reject ends the event as faulty.
func (e *Event) Reject(reason Reason, err error) {
	e.end(Outcome{State: StateRejected, Reason: reason, Err: err})
}

// Fail ends the event as not made safe, through no fault of its own.
func (e *Event) Fail(reason Reason, err error) {
	e.end(Outcome{State: StateFailed, Reason: reason, Err: err})
}

func (e *Event) end(outcome Outcome) {
	if e.Outcome.State == StatePending {
		e.Outcome = outcome
	}
}

// Code classifies an error once, where it happens; what the protocols make of codes is one table (transport/route).
type Code uint8

// The codes.
const (
	// Internal is the zero value: a fault of the service.
	Internal Code = iota
	// Invalid: the request or event is malformed.
	Invalid
	// Unauthorized: the token is missing or not usable.
	Unauthorized
	// TooLarge: the request or event is over a size limit.
	TooLarge
	// Unsupported: the request is of a type or encoding that is not known.
	Unsupported
	// SlowClient: the client stopped sending.
	SlowClient
	// Unavailable: it could not be done now; trying again is right.
	Unavailable
	// RateLimited: the client sends too fast; trying again more slowly is right.
	RateLimited
	codeCount
)

var codeNames = [codeCount]string{
	"internal", "invalid", "unauthorized", "too_large", "unsupported", "slow_client", "unavailable", "rate_limited",
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
	err  error
}

// Errorf makes an Error; %w wraps as in fmt.Errorf.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, err: fmt.Errorf(format, args...)}
}

func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the message with its causes, so that errors.Is and errors.As see them.
func (e *Error) Unwrap() error { return e.err }

// CodeOf returns the code of the first Error in err's chain, or Internal.
func CodeOf(err error) Code {
	var coded *Error
	if errors.As(err, &coded) {
		return coded.Code
	}
	return Internal
}
