package events

// Explanation says in words what a reason means.
type Explanation struct {
	Reason Reason
	// State is how events with this reason end.
	State State
	// Text says in a sentence why.
	Text string
}

// explanations are in the order in which an event may meet the reasons. docs/troubleshooting.md shows them.
var explanations = []Explanation{
	{ReasonDuplicate, StateAccepted, "An earlier request had brought the event, and it is safe since then."},

	{ReasonMissingToken, StateRejected, "The request has no token, so it belongs to no project."},
	{ReasonMultipleTokens, StateRejected, "The events of the request have different tokens."},
	{ReasonInvalidToken, StateRejected, "The token has not the shape of one: empty, too long, not ASCII, or a " +
		"personal key."},
	{ReasonUnknownToken, StateRejected, "No project has the token, and `auth.mode` is strict."},
	{ReasonDisabled, StateRejected, "The project is disabled."},
	{ReasonOutOfScope, StateRejected, "The project may not use this route, or not send events of this kind."},
	{ReasonOrigin, StateRejected, "The project takes events only from the pages of certain sites."},
	{ReasonNetwork, StateRejected, "The project takes events only from certain networks."},
	{ReasonNotAdmitted, StateRejected, "A gate of a module of yours refuses the sender."},

	{ReasonInvalidEvent, StateRejected, "A field of the event has a type or a value that it cannot have."},
	{ReasonMissingName, StateRejected, "The event has no name."},
	{ReasonMissingDistinctID, StateRejected, "The event has no distinct_id."},
	{ReasonInvalidCookieless, StateRejected, "`$cookieless_mode` is neither true nor false."},
	{ReasonInvalidUUID, StateRejected, "The event's uuid is none."},
	{ReasonNotAI, StateRejected, "The route takes AI events only."},
	{ReasonNoSnapshot, StateRejected, "The recording has no `$snapshot_data`."},
	{ReasonNoSession, StateRejected, "The recording has no `$session_id`."},
	{ReasonInvalidSession, StateRejected, "The recording's `$session_id` is none."},
	{ReasonBatchRefused, StateRejected, "Another event of the request is at fault, and " +
		"`transport.posthog.batch_policy` is all_or_nothing."},
	{ReasonTooLarge, StateRejected, "The event is larger than a message may be, or than its route allows."},

	{ReasonPerformanceEvent, StateDropped, "Nothing keeps `$performance_event` any more."},
	{ReasonBlackHole, StateDropped, "The request went to `/test/black_hole`, which keeps nothing."},
	{ReasonSampled, StateDropped, "The sender asks to keep a part of its reports, and this is none of them."},
	{ReasonQuota, StateDropped, "The project has used up its quota."},
	{ReasonRateLimited, StateDropped, "The project, or one of its users, sends too fast."},
	{ReasonRule, StateDropped, "A rule of yours drops the event."},
	{ReasonNotHistorical, StateDropped, "`routing.historical_only` is set, and the request is no migration."},

	{ReasonInFlight, StateFailed, "Another request with the same event is under way, and its end is not known."},
	{ReasonStore, StateFailed, "The shared state does not answer, and `on_store_failure` is closed."},
	{ReasonStage, StateFailed, "A stage has failed or panicked: the log says why."},
	{ReasonUnavailable, StateFailed, "Kafka and the spool did not take the event."},
	{ReasonTimeout, StateFailed, "Neither Kafka nor the spool had the event in time."},
	{ReasonUnsettled, StateFailed, "A module has left the event without an outcome, or panicked: the log says why."},
	{ReasonUnreadable, StateFailed, "A module has given a reason that is no text."},
}

// Explanations returns the explanations of the reasons of the stock modules. A project that sends too fast, and asks
// for it, has events that failed with ReasonRateLimited.
func Explanations() []Explanation { return append([]Explanation(nil), explanations...) }
