package warnings

import "github.com/opencapture/capture/modules/events"

// kind is a type of warning.
type kind uint8

const (
	missingName kind = iota
	missingDistinctID
	distinctIDTruncated
	messageTooLarge
	replayTooLarge
	replayInvalid
	rateLimited
	quotaExceeded
	droppedByRule
	jsonRepaired
	invalidEvent
	timeUnread
	timeAhead
	timeOutOfRange
	timeOld
	sentAtUnread
	outOfScope
	unknownToken
	kindCount

	// fine means that there is nothing to warn of.
	fine = kindCount
)

// kinds has the name of each kind, as PostHog's pipeline knows it, and the sentence for people who read the warning.
var kinds = [kindCount]struct{ name, sentence string }{
	missingName:       {"missing_event_name", "An event was rejected because it has no name"},
	missingDistinctID: {"missing_distinct_id", "An event was rejected because it has no distinct_id"},
	distinctIDTruncated: {"distinct_id_truncated",
		"The distinct_id of an event is longer than 200 characters and was cut to that length"},
	messageTooLarge: {"message_size_too_large", "An event was rejected because it is too large"},
	replayTooLarge:  {"replay_message_too_large", "A part of a session recording is too large and was left out"},
	replayInvalid: {"replay_message_invalid",
		"A part of a session recording was rejected because it is not valid"},
	rateLimited:   {"rate_limited", "An event was dropped because the project sends events too fast"},
	quotaExceeded: {"quota_exceeded", "An event was dropped because the project has used up its quota"},
	droppedByRule: {"event_restriction", "An event was dropped by a rule of the operator's"},
	jsonRepaired: {"json_repaired",
		"A request was not valid JSON (NaN, an infinity, half of a surrogate pair, a control character or a byte " +
			"that is not UTF-8), or had values that their fields in OTLP cannot hold, and was repaired"},
	invalidEvent: {"invalid_event", "An event was rejected because it is not valid"},
	timeUnread: {"ignored_invalid_timestamp",
		"The timestamp of an event cannot be read. The event is dated by its arrival; send the time as of RFC 3339"},
	timeAhead: {"event_timestamp_in_future",
		"The time of an event is more than 23 hours ahead. The event is dated by its arrival"},
	timeOutOfRange: {"event_timestamp_out_of_range",
		"The time of an event is in no year from 0 to 9999. The event is dated 1970-01-01"},
	timeOld: {"event_timestamp_too_old",
		"The time of an event is before 1971, as times are that are empty or count in another calendar. It was kept"},
	outOfScope: {"event_out_of_scope",
		"An event was rejected because the project is not set up to send events of its kind, or to use this endpoint"},
	unknownToken: {"unknown_token",
		"The API key of a request belongs to no project. The events were kept; they will be refused once the service " +
			"is set up to take events of known projects only"},
	sentAtUnread: {"ignored_invalid_sent_at",
		"The sent_at of a request cannot be read. The times of its events were not corrected for the client's clock"},
}

// judge returns the kind of warning that an event's outcome deserves, or fine. A failed event deserves none, because
// the client was told to send it again. An event that was refused only because of another event deserves none either:
// the warning is about the other event.
func judge(event *events.Event) kind {
	if state := event.Outcome.State; state != events.StateRejected && state != events.StateDropped {
		return fine
	}
	switch event.Outcome.Reason {
	case events.ReasonMissingName:
		return missingName
	case events.ReasonMissingDistinctID:
		return missingDistinctID
	case events.ReasonTooLarge:
		if event.Lane == events.LaneRecordings {
			return replayTooLarge
		}
		return messageTooLarge
	case events.ReasonNoSnapshot, events.ReasonNoSession, events.ReasonInvalidSession:
		return replayInvalid
	case events.ReasonRateLimited:
		return rateLimited
	case events.ReasonQuota:
		return quotaExceeded
	case events.ReasonRule:
		return droppedByRule
	case events.ReasonOutOfScope:
		return outOfScope
	case events.ReasonInvalidEvent, events.ReasonInvalidUUID, events.ReasonInvalidCookieless, events.ReasonNotAI:
		return invalidEvent
	}
	return fine
}

// findings holds a finding for each kind of warning that a batch deserves.
type findings [kindCount]finding

// finding is the number of events that a kind of warning is about, and the index of the first one.
type finding struct{ events, first int }

func (f *findings) add(kind kind, event int) {
	if f[kind].events == 0 {
		f[kind].first = event
	}
	f[kind].events++
}

// noted are the kinds of warning that the notes on an accepted event deserve.
var noted = [...]struct {
	note events.Notes
	kind kind
}{
	{events.NoteDistinctIDCut, distinctIDTruncated},
	{events.NoteSnapshotReplaced, replayTooLarge},
	{events.NoteTimeUnread, timeUnread},
	{events.NoteTimeAhead, timeAhead},
	{events.NoteTimeOutOfRange, timeOutOfRange},
	{events.NoteTimeOld, timeOld},
	{events.NoteSentAtUnread, sentAtUnread},
	{events.NoteUnknownToken, unknownToken},
}

// look fills in the findings and reports whether there are any. A repaired request concerns all of its events except
// the dropped ones: projects are not told of the operator's rules unless rules is set, and the test route keeps
// nothing. A duplicate deserves nothing, because the project was told when the event came for the first time.
func (f *findings) look(batch *events.Batch, rules bool) (something bool) {
	for i := range batch.Events {
		event := &batch.Events[i]
		if event.Outcome.State == events.StateAccepted && event.Outcome.Reason == events.ReasonDuplicate {
			continue
		}
		if batch.Repaired && event.Outcome.State != events.StateDropped {
			f.add(jsonRepaired, i)
			something = true
		}
		if event.Outcome.State != events.StateAccepted {
			if kind := judge(event); kind != fine && (rules || kind != droppedByRule) {
				f.add(kind, i)
				something = true
			}
			continue
		}
		if event.Notes == 0 {
			continue
		}
		for _, told := range noted {
			if event.Notes.Has(told.note) {
				f.add(told.kind, i)
				something = true
			}
		}
	}
	return something
}
