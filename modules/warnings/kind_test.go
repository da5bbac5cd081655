package warnings

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

func TestWhatIsToldAboutAnOutcome(t *testing.T) {
	rejected := func(reason events.Reason) events.Event {
		return events.Event{Outcome: events.Outcome{State: events.StateRejected, Reason: reason}}
	}
	dropped := func(reason events.Reason) events.Event {
		return events.Event{Outcome: events.Outcome{State: events.StateDropped, Reason: reason}}
	}
	recording := rejected(events.ReasonTooLarge)
	recording.Lane = events.LaneRecordings
	for _, test := range []struct {
		name  string
		event events.Event
		want  string
	}{
		{"no name", rejected(events.ReasonMissingName), "missing_event_name"},
		{"no distinct_id", rejected(events.ReasonMissingDistinctID), "missing_distinct_id"},
		{"too large", rejected(events.ReasonTooLarge), "message_size_too_large"},
		{"a recording that is too large", recording, "replay_message_too_large"},
		{"no snapshot", rejected(events.ReasonNoSnapshot), "replay_message_invalid"},
		{"no session", rejected(events.ReasonNoSession), "replay_message_invalid"},
		{"an invalid session", rejected(events.ReasonInvalidSession), "replay_message_invalid"},
		{"too fast", dropped(events.ReasonRateLimited), "rate_limited"},
		{"over quota", dropped(events.ReasonQuota), "quota_exceeded"},
		{"wrong types", rejected(events.ReasonInvalidEvent), "invalid_event"},
		{"a bad uuid", rejected(events.ReasonInvalidUUID), "invalid_event"},
		{"a bad cookieless mode", rejected(events.ReasonInvalidCookieless), "invalid_event"},
		{"no AI event", rejected(events.ReasonNotAI), "invalid_event"},
		{"not of the project's kinds", rejected(events.ReasonOutOfScope), "event_out_of_scope"},
		{"of a disabled project", rejected(events.ReasonDisabled), ""},
		{"from elsewhere", rejected(events.ReasonOrigin), ""},
		{"of no project", rejected(events.ReasonUnknownToken), ""},
		{"kept of no project", events.Event{Notes: events.NoteUnknownToken,
			Outcome: events.Outcome{State: events.StateAccepted}}, "unknown_token"},

		{"kept", events.Event{Outcome: events.Outcome{State: events.StateAccepted}}, ""},
		{"failed", events.Event{Outcome: events.Outcome{State: events.StateFailed, Reason: events.ReasonTimeout}}, ""},
		{"cut, but failed", events.Event{
			Notes:   events.NoteDistinctIDCut,
			Outcome: events.Outcome{State: events.StateFailed, Reason: events.ReasonTimeout},
		}, ""},
		{"refused for another's sake", rejected(events.ReasonBatchRefused), ""},
		{"by the operator's rule", dropped(events.ReasonRule), ""},
		{"by the operator's mode", dropped(events.ReasonNotHistorical), ""},
		{"into the black hole", dropped(events.ReasonBlackHole), ""},
		{"a performance event", dropped(events.ReasonPerformanceEvent), ""},
		{"by a plugin", dropped("blocklist"), ""},

		{"cut", events.Event{Notes: events.NoteDistinctIDCut, Outcome: events.Outcome{State: events.StateAccepted}},
			"distinct_id_truncated"},
		{"cut, but a duplicate", events.Event{
			Notes:   events.NoteDistinctIDCut,
			Outcome: events.Outcome{State: events.StateAccepted, Reason: events.ReasonDuplicate},
		}, ""},
		{"replaced", events.Event{
			Notes: events.NoteSnapshotReplaced, Lane: events.LaneRecordings,
			Outcome: events.Outcome{State: events.StateAccepted},
		}, "replay_message_too_large"},
		{"dated by its arrival", events.Event{Notes: events.NoteTimeUnread,
			Outcome: events.Outcome{State: events.StateAccepted}}, "ignored_invalid_timestamp"},
		{"ahead", events.Event{Notes: events.NoteTimeAhead, Outcome: events.Outcome{State: events.StateAccepted}},
			"event_timestamp_in_future"},
		{"in no year", events.Event{Notes: events.NoteTimeOutOfRange,
			Outcome: events.Outcome{State: events.StateAccepted}}, "event_timestamp_out_of_range"},
		{"before 1971", events.Event{Notes: events.NoteTimeOld, Outcome: events.Outcome{State: events.StateAccepted}},
			"event_timestamp_too_old"},
		{"a clock that is not known", events.Event{Notes: events.NoteSentAtUnread,
			Outcome: events.Outcome{State: events.StateAccepted}}, "ignored_invalid_sent_at"},
		{"dropped for another reason", events.Event{Notes: events.NoteTimeUnread,
			Outcome: events.Outcome{State: events.StateDropped, Reason: events.ReasonRule}}, ""},
	} {
		var found findings
		something := found.look(&events.Batch{Token: "phc_a", Events: []events.Event{test.event}}, false)
		require.Equal(t, test.want != "", something, test.name)
		for kind := range kindCount {
			want := finding{}
			if kinds[kind].name == test.want {
				want.events = 1
			}
			require.Equal(t, want, found[kind], "%s: %s", test.name, kinds[kind].name)
		}
	}
}

func TestTheFirstEventOfEachKindIsNamedAndTheOthersAreCounted(t *testing.T) {
	bad := events.Outcome{State: events.StateRejected, Reason: events.ReasonMissingName}
	good := events.Outcome{State: events.StateAccepted}
	var found findings
	require.True(t, found.look(&events.Batch{Repaired: true, Events: []events.Event{
		{Outcome: good}, {Outcome: bad}, {Outcome: good, Notes: events.NoteDistinctIDCut | events.NoteSnapshotReplaced},
		{Outcome: bad}, {Outcome: bad},
	}}, false))
	require.Equal(t, findings{
		missingName:         {events: 3, first: 1},
		distinctIDTruncated: {events: 1, first: 2},
		replayTooLarge:      {events: 1, first: 2},
		jsonRepaired:        {events: 5},
	}, found)
	require.False(t, new(findings).look(&events.Batch{Repaired: true}, false), "nothing came of it")
	for _, reason := range []events.Reason{events.ReasonRule, events.ReasonNotHistorical, events.ReasonBlackHole} {
		dropped := events.Outcome{State: events.StateDropped, Reason: reason}
		batch := &events.Batch{Repaired: true, Events: []events.Event{{Outcome: dropped}}}
		require.False(t, new(findings).look(batch, false), reason)
	}
	duplicate := events.Outcome{State: events.StateAccepted, Reason: events.ReasonDuplicate}
	batch := &events.Batch{Repaired: true, Events: []events.Event{{Outcome: duplicate}}}
	require.False(t, new(findings).look(batch, false))
}

// Projects learn of the operator's rules only where the operator says so.
func TestAProjectIsToldOfARuleIfItIsTo(t *testing.T) {
	event := events.Event{Name: "a"}
	event.DropByRule("store/spam")
	batch := &events.Batch{Token: "phc_a", Events: []events.Event{{}, event}}
	batch.Events[0].Accept()
	var found findings
	require.True(t, found.look(batch, true))
	require.Equal(t, findings{droppedByRule: {events: 1, first: 1}}, found)
	told := newMessage(batch, droppedByRule, found[droppedByRule], 0)
	require.JSONEq(t, `{
		"$$client_ingestion_warning_message": "An event was dropped by a rule of the operator's",
		"$$client_ingestion_warning_type": "event_restriction", "$$client_ingestion_warning_source": "capture",
		"$$client_ingestion_warning_details": {
			"event": "a", "reason": "rule", "rule": "store/spam", "events": 1, "suppressed": 0,
			"pipelineStep": "capture"
		}}`, string(told.event.Raw.Properties))
}

func TestEveryKindHasANameAndASentence(t *testing.T) {
	names := map[string]bool{}
	for _, kind := range kinds {
		require.NotEmpty(t, kind.name)
		require.NotEmpty(t, kind.sentence)
		require.False(t, names[kind.name], kind.name)
		names[kind.name] = true
	}
}

func TestThePairsThatAreRememberedAreBounded(t *testing.T) {
	throttle := newThrottle()
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	pass := func(token string) bool {
		_, ok := throttle.pass(token, missingName, at, time.Minute)
		return ok
	}
	require.True(t, pass("phc_regular"))
	for i := range 3 * maxRemembered {
		require.True(t, pass("phc_"+time.Duration(i).String()))
		if i%1000 == 0 {
			require.False(t, pass("phc_regular"), "who is heard of is not forgotten")
		}
	}
	require.Equal(t, maxRemembered, throttle.told.Len())
}

func TestAWarningPassesOnceInAnIntervalForEachTokenAndKind(t *testing.T) {
	throttle := newThrottle()
	begin := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		after time.Duration
		token string
		kind  kind
		held  int
		ok    bool
	}{
		{0, "a", missingName, 0, true},
		{0, "a", missingDistinctID, 0, true},
		{0, "b", missingName, 0, true},
		{time.Second, "a", missingName, 0, false},
		{59 * time.Second, "a", missingName, 0, false},
		{-time.Second, "a", missingName, 0, false}, // a request that took long
		{time.Minute, "a", missingName, 3, true},
		{time.Minute, "b", missingName, 0, true},
		{119 * time.Second, "a", missingName, 0, false},
		{120 * time.Second, "a", missingName, 1, true},
	} {
		held, ok := throttle.pass(step.token, step.kind, begin.Add(step.after), time.Minute)
		require.Equal(t, step.ok, ok, "%+v", step)
		require.Equal(t, step.held, held, "%+v", step)
	}
}
