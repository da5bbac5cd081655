package posthog

import (
	"bytes"
	"slices"
	"strings"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/route"
)

// replay is what a scan has found in a recorded event, beside what every event has.
type replay struct {
	session, window, source, lib, host, sentAt jsonscan.Span
	// hasSnapshots is set if there is usable snapshot data. The data are snapshots[from:to] of the document.
	hasSnapshots bool
	from, to     int
}

// snapshot is one step of a recording and its own time.
type snapshot struct{ json, timestamp jsonscan.Span }

// snapshotsName is the name of the event that a recording becomes.
const snapshotsName = "$snapshot_items"

var (
	errNoSnapshot     = events.Errorf(events.Invalid, "replay event submitted without snapshot data")
	errNoSession      = events.Errorf(events.Invalid, "replay event submitted without session id")
	errInvalidSession = events.Errorf(events.Invalid, "replay event has invalid session id")
)

// replayProperty scans the value at i if its key is one of those that only recordings have.
func (d *document) replayProperty(key []byte, i, depth int, found *object) (end int, known bool) {
	r := &d.replays[found.replay-1]
	var to *jsonscan.Span
	switch string(key) {
	case "$snapshot_data":
		return d.snapshotData(r, i, depth), true
	case "$session_id":
		to = &r.session
	case "$window_id":
		to = &r.window
	case "$snapshot_source":
		to = &r.source
	case "$lib":
		to = &r.lib
	case "$snapshot_host":
		to = &r.host
	default:
		return 0, false
	}
	if end = d.Value(i, depth); end >= 0 {
		*to = jsonscan.SpanOf(i, end)
	}
	return end, true
}

// snapshotData scans the snapshots of an event, which are an array of them or a single one. Of two equal keys the last
// counts.
func (d *document) snapshotData(r *replay, i, depth int) int {
	r.from = len(d.snapshots)
	end := d.snapshotValues(i, depth, &r.hasSnapshots)
	r.to = len(d.snapshots)
	return end
}

func (d *document) snapshotValues(i, depth int, usable *bool) int {
	*usable = i < len(d.Data) && (d.Data[i] == '[' || d.Data[i] == '{')
	if !*usable {
		return d.Value(i, depth)
	}
	if d.Data[i] == '{' {
		return d.snapshot(i, depth)
	}
	if depth >= jsonscan.MaxDepth {
		return d.Value(i, depth)
	}
	i = d.Space(i + 1)
	if i < len(d.Data) && d.Data[i] == ']' {
		return i + 1
	}
	for {
		if i = d.snapshot(i, depth+1); i < 0 {
			return -1
		}
		var more bool
		if i, more = d.NextElement(i); !more {
			return i
		}
	}
}

// snapshot scans one snapshot, of whatever type it is.
func (d *document) snapshot(i, depth int) int {
	if len(d.snapshots) == cap(d.snapshots) && !d.growSnapshots() || !d.within(len(d.snapshots)) {
		return d.Fail(i, "too many snapshots")
	}
	start := i
	var stamp jsonscan.Span
	if i >= len(d.Data) || d.Data[i] != '{' {
		i = d.Value(i, depth)
	} else {
		var more bool
		for i, more = d.Open(i, depth); more; {
			key, at := d.Member(i)
			if at < 0 {
				return -1
			}
			end := d.Value(at, depth+1)
			if end < 0 {
				return -1
			}
			if string(key) == "timestamp" {
				stamp = jsonscan.SpanOf(at, end)
			}
			i, more = d.Next(end)
		}
	}
	if i >= 0 {
		d.snapshots = append(d.snapshots, snapshot{json: jsonscan.SpanOf(start, i), timestamp: stamp})
	}
	return i
}

// growSnapshots makes room for more snapshots, like grow.
func (d *document) growSnapshots() bool {
	if !d.within(cap(d.snapshots)) {
		return false
	}
	d.refused = d.moreSnapshots(min(2*cap(d.snapshots), d.limit))
	return d.refused == nil
}

// hydrateRecordings makes a batch of the recorded events. All that belong to one window of one session become one
// event. A request has more than one such event only if a session ended within it. A bad recorded event becomes an
// event of its own, which is rejected.
func (d *document) hydrateRecordings(
	s *session, request *route.Request, query query,
) (events.Reason, *events.Error) {
	userAgent := request.Get("User-Agent")
	batch := &s.batch
	batch.Events = batch.Events[:0]
	if len(d.objects) == 0 {
		return events.ReasonInvalidEvent, errNoEvent
	}
	token, reason, err := d.token(request)
	if err != nil {
		batch.Events = batch.Events[:len(d.objects)]
		clear(batch.Events)
		return reason, err
	}
	batch.Token = token
	first := jsonscan.Span{}
	if d.objects[0].replay > 0 {
		first = d.replays[d.objects[0].replay-1].sentAt
	}
	at := d.clock(batch, query, first, d.envelope.sentAt, d.envelope.sentAtAlias)

	// The lists that events and recordings refer to may not grow below.
	s.room.recordings = slices.Grow(s.room.recordings[:0], len(d.objects))
	var current *events.Event
	for i := range d.objects {
		found := &d.objects[i]
		session, window := "", []byte(nil)
		reason, err := d.checkRecording(found, current, &session, &window)
		if err == nil && current != nil && current.SessionID == session &&
			bytes.Equal(current.Recording.WindowID, window) {
			s.addSnapshots(found, current.Recording)
			continue
		}
		batch.Events = append(batch.Events, events.Event{
			Name: snapshotsName, Lane: events.LaneRecordings, SessionID: session,
		})
		event := &batch.Events[len(batch.Events)-1]
		switch {
		case err == nil:
			reason, err = d.hydrateRecording(found, event, d.recordingClock(found, at, query))
		case found.isObject:
			// The client is also told which event has the fault.
			_, _ = d.clientUUID(found, event)
		}
		if err != nil {
			end(event)(reason, err)
			continue
		}
		current = event
		s.room.recordings = append(s.room.recordings, d.describeRecording(found, window, userAgent))
		event.Recording = &s.room.recordings[len(s.room.recordings)-1]
		s.addSnapshots(found, event.Recording)
	}
	return "", nil
}

// recordingClock returns the clock of a recorded event: by its own sent_at, or like the others if it has none that can
// be read.
func (d *document) recordingClock(found *object, others Clock, query query) Clock {
	sentAt, unread := ReadSentAt(d.Present(d.replays[found.replay-1].sentAt), others.Now)
	switch {
	case unread:
		others.Unread = true
		return others
	case sentAt.IsZero():
		return others
	default:
		return newClock(others.Now, sentAt, false, query)
	}
}

// maxSession is the longest session id, in bytes.
const maxSession = 70

// checkRecording finds the session and the window of an event. An event that does not name them has those of the event
// before it.
func (d *document) checkRecording(
	found *object, before *events.Event, session *string, window *[]byte,
) (events.Reason, *events.Error) {
	switch {
	case !found.isObject:
		return events.ReasonInvalidEvent, errNotObject
	case found.deep:
		return events.ReasonInvalidEvent, errDeep
	}
	r := &d.replays[found.replay-1]
	switch raw := d.Present(r.session); {
	case raw == nil && before == nil:
		return events.ReasonNoSession, errNoSession
	case raw == nil:
		*session = before.SessionID
	case raw[0] != '"' || len(raw) > 6*maxSession+2 || !isSession(jsonscan.Text(raw)):
		return events.ReasonInvalidSession, errInvalidSession
	default:
		*session = jsonscan.Text(raw)
	}
	switch raw := d.Present(r.window); {
	case raw != nil:
		*window = raw
	case before != nil && before.SessionID == *session:
		*window = before.Recording.WindowID
	case d.Present(r.session) != nil:
		*window = r.session.In(d.Data)
	default:
		*window = []byte(`"` + *session + `"`)
	}
	if !r.hasSnapshots {
		return events.ReasonNoSnapshot, errNoSnapshot
	}
	return "", nil
}

func isSession(id string) bool {
	for i := range len(id) {
		switch c := id[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-':
		default:
			return false
		}
	}
	return id != "" && len(id) <= maxSession
}

// hydrateRecording fills in the event that a recording begins with.
func (d *document) hydrateRecording(found *object, event *events.Event, at Clock) (events.Reason, *events.Error) {
	var raw events.Raw
	if reason, err := d.raw(found, &raw); err != nil {
		return reason, err
	}
	if reason, err := d.clientUUID(found, event); err != nil {
		return reason, err
	}
	id := raw.DistinctID
	if id == nil {
		id = d.Present(found.propDistinctID)
	}
	if id != nil {
		identify(event, id)
	}
	// A recording may have a blank distinct_id, which other events may not: what counts is its session.
	if event.DistinctID == "" {
		return events.ReasonMissingDistinctID, errNoDistinctID
	}
	if err := d.cookieless(found, event); err != nil {
		return events.ReasonInvalidCookieless, err
	}
	if d.Present(found.internal) != nil {
		event.ClientIP = InternalIP
	}
	event.Raw = events.Raw{Timestamp: raw.Timestamp, Offset: raw.Offset}
	d.date(found, event, at)
	event.Raw = events.Raw{}
	return "", nil
}

// describeRecording reads what all snapshots of a recording have in common.
func (d *document) describeRecording(found *object, window []byte, userAgent string) events.Recording {
	r := &d.replays[found.replay-1]
	recording := events.Recording{WindowID: window, Source: "web", Lib: libraryOf(userAgent)}
	if string(d.Present(r.source)) == `"mobile"` {
		recording.Source = "mobile"
	}
	if raw := d.Present(r.lib); raw != nil && raw[0] == '"' {
		recording.Lib = jsonscan.Text(raw)
	}
	if raw := d.Present(r.host); raw != nil && raw[0] == '"' {
		recording.Host = raw
	}
	return recording
}

// libraryOf guesses from the user agent which library has recorded. The user agent may hold any bytes.
func libraryOf(userAgent string) string {
	if userAgent == "" {
		return "unknown"
	}
	if library, _, _ := strings.Cut(userAgent, "/"); strings.Contains(library, "posthog") {
		return strings.ToValidUTF8(library, "\ufffd")
	}
	return "web"
}

// addSnapshots adds an event's snapshots to a recording, to which the last of the session's snapshots must belong.
func (s *session) addSnapshots(found *object, recording *events.Recording) {
	d := &s.document
	r := &d.replays[found.replay-1]
	if r.from == r.to {
		return
	}
	start := len(s.steps.snapshots) - len(recording.Items)
	for _, item := range d.snapshots[r.from:r.to] {
		s.steps.snapshots = append(s.steps.snapshots, events.Snapshot{
			JSON: item.json.In(d.Data), Timestamp: d.Present(item.timestamp),
		})
	}
	end := len(s.steps.snapshots)
	recording.Items = s.steps.snapshots[start:end:end]
}
