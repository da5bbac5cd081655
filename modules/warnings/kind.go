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
	jsonRepaired
	invalidEvent
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
	jsonRepaired: {"json_repaired",
		"A request was not valid JSON (NaN, an infinity or half of a surrogate pair) and was repaired"},
	invalidEvent: {"invalid_event", "An event was rejected because it is not valid"},
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

// look fills in the findings and reports whether there are any. A repaired request concerns all of its events except
// the dropped ones: projects are not told of the operator's rules, and the test route keeps nothing.
func (f *findings) look(batch *events.Batch) (something bool) {
	for i := range batch.Events {
		event := &batch.Events[i]
		if batch.Repaired && event.Outcome.State != events.StateDropped {
			f.add(jsonRepaired, i)
			something = true
		}
		if event.Outcome.State != events.StateAccepted {
			if kind := judge(event); kind != fine {
				f.add(kind, i)
				something = true
			}
			continue
		}
		if event.Notes == 0 {
			continue
		}
		if event.Notes.Has(events.NoteDistinctIDCut) {
			f.add(distinctIDTruncated, i)
			something = true
		}
		if event.Notes.Has(events.NoteSnapshotReplaced) {
			f.add(replayTooLarge, i)
			something = true
		}
	}
	return something
}
