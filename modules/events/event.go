package events

import (
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/opencapture/capture/configs"
)

// Lane is the stream that an event belongs to. A sink keeps the lanes apart.
type Lane uint8

// The lanes. Main is the zero value.
const (
	LaneMain Lane = iota
	LaneHistorical
	LaneExceptions
	LaneHeatmaps
	LaneClientWarnings
	LaneAI
	LaneRecordings
	LaneLogs
	laneCount
)

var laneNames = [laneCount]string{
	"main", "historical", "exceptions", "heatmaps", "client_warnings", "ai", "recordings", "logs",
}

// Lanes returns every lane.
func Lanes() []Lane {
	lanes := make([]Lane, laneCount)
	for i := range lanes {
		lanes[i] = Lane(i)
	}
	return lanes
}

func (l Lane) String() string {
	if l < laneCount {
		return laneNames[l]
	}
	return "unknown"
}

// Event is one product-analytics event. Its strings and byte slices may alias the request's decoded body: they are
// valid until Processor.Process returns, and a stage or sink that keeps them longer copies them.
type Event struct {
	// UUID identifies the event. It is the client's own if ClientUUID is set, else the service has made it.
	UUID       uuid.UUID
	ClientUUID bool

	// Ref is the protocol's own handle of the event. The protocol needs it to find the event when it answers: stages
	// may reorder the events of a batch, and UUIDs need not be unique. 0 means that the event has no handle. A stage
	// that adds an event leaves Ref at 0.
	Ref uint32

	// Name is the event's name, such as "$pageview".
	Name string

	// DistinctID names the user. It is text that is never blank, and at most 200 characters long.
	DistinctID string

	// Timestamp is when the event happened, corrected for the client's clock, in UTC.
	Timestamp time.Time

	Lane Lane

	// Cookieless is set for an event that names no user. The client's address orders such events.
	Cookieless bool

	// twin is set for a copy of another event of the batch: see Batch.AcceptTwin.
	twin bool

	// Identity is a number that only those events of the batch have in common that are one and the same event to the
	// stage that looks for duplicates (modules/dedup). That stage sets it. 0 means that the stage has not looked at the
	// event. A stage that makes several events of one gives each the same Identity.
	Identity uint32

	// ClientIP is the client's address if it differs from the batch's. If it is empty, the batch's address counts.
	ClientIP string

	// SessionID is the session that the event belongs to, if the protocol gives it apart from the properties. The parts
	// of a session's recording keep their order.
	SessionID string

	// Raw is the event's own JSON, as it was sent. It is empty for a recording.
	Raw Raw

	// Heatmap is the data for heatmaps in the event: the properties, a JSON object, of a second event, $$heatmap. That
	// event is written beside this one and shares its outcome. Nil means that there is no such data.
	Heatmap []byte

	// Recording is the content of an event of LaneRecordings. It is nil for all other events.
	Recording *Recording

	// Routing is where the service's own policy sends the event.
	Routing Routing

	// Notes tell what the service has changed in an event that it keeps, or doubts about it.
	Notes Notes

	// Charge says which limits of the project the event was counted against. The stage that counts (modules/quota) sets
	// it, and no other stage changes it.
	Charge Charge

	// Outcome says how the event ended. The zero value means that it has not ended yet.
	Outcome Outcome
}

// Raw holds the JSON values of an event's fields, as they were sent. An absent field is nil, except Properties, which
// is always an object.
type Raw struct {
	Token      []byte
	DistinctID []byte
	Timestamp  []byte
	Offset     []byte
	Properties []byte
	Set        []byte
	SetOnce    []byte
}

// Recording is a part of a session's recording: the snapshots that one request holds of one window of one session. Its
// values are JSON.
type Recording struct {
	// WindowID is the id of the window. Host is the host of the page, or nil if the client does not say.
	WindowID, Host []byte
	// Source is "web" or "mobile". Lib is the library that recorded. Both are text.
	Source, Lib string
	// Items are the snapshots, in order.
	Items []Snapshot
}

// Snapshot is one step of a recording.
type Snapshot struct {
	JSON []byte
	// Timestamp is the snapshot's own time, as it was sent. It is nil if the snapshot has none.
	Timestamp []byte
}

// Routing is where policy sends an event, whatever the event's own nature. The zero value sends it nowhere special. Of
// the destinations the first of DLQ, Topic and Overflow counts.
type Routing struct {
	// DLQ is the reason why the event goes to the dead-letter stream. It is empty for an event that does not go there.
	DLQ string
	// Topic is a destination that the policy names. It is empty if the policy names none.
	Topic string
	// Overflow moves the event out of the way of other events, in a lane that has an overflow. Other lanes ignore it.
	Overflow bool
	// Unkeyed lets an event in overflow go to any partition. The event then loses its place in the order of its user's
	// events.
	Unkeyed bool
	// SkipPerson tells the pipeline behind Kafka not to touch the user's person. The order of such events does not
	// matter.
	SkipPerson bool
	// Limited says that the event's user sends faster than the project's limits allow, and that the event is kept all
	// the same. A protocol that has a word for that tells the client.
	Limited bool
	// Rule is the id of the operator's rule that has decided where the event goes, or that it is kept from persons. If
	// several rules concern the event, it is the one whose destination counts. It is empty if no rule concerns the
	// event. Like Outcome.Rule, it is for people.
	Rule string
}

// Notes is the set of changes to an event that is kept, and of doubts about it.
type Notes uint8

// The notes.
const (
	// NoteDistinctIDCut means that the distinct_id was longer than 200 characters and has been cut.
	NoteDistinctIDCut Notes = 1 << iota
	// NoteSnapshotReplaced means that a snapshot was too large for the sink, and that a mark which says so has replaced
	// it.
	NoteSnapshotReplaced
	// NoteTimeUnread means that the client's time of the event cannot be read. The event has the time of its arrival.
	NoteTimeUnread
	// NoteTimeAhead means that the event would have been more than 23 hours ahead. It has the time of its arrival.
	NoteTimeAhead
	// NoteTimeOutOfRange means that the event would have been in no year from 0 to 9999. It has the time 0 of Unix.
	NoteTimeOutOfRange
	// NoteTimeOld means that the event's time, which is kept, is before 1971: hardly the time that was meant.
	NoteTimeOld
	// NoteSentAtUnread means that the time at which the client sent the event cannot be read. The event's time was not
	// corrected by it.
	NoteSentAtUnread
	// NoteUnknownToken means that the token belongs to no project. The event is kept all the same, since the service
	// only tries out what it would refuse (auth.mode: known).
	NoteUnknownToken
)

// Has reports whether all of the given notes are in the set.
func (n Notes) Has(notes Notes) bool { return n&notes == notes }

// Project is the owner of a token. A Project never changes: a gate or stage that knows more makes a new one.
type Project struct {
	// ID is the project's id in the system where it was set up.
	ID string
	// Limits is how much the project may send. Nil stands for what the section "quota" says of all projects.
	Limits *Limits
	// Scopes are the kinds of events that the project may send.
	Scopes Scopes
}

// Batch holds the events of one request and what they have in common. Like an Event's, its strings may alias the
// request.
type Batch struct {
	// Token is the project's API key: non-empty ASCII, at most 64 bytes.
	Token string

	// Received is when the head of the request was there. The time that the body takes is not in it, so that the
	// distance from SentAt is the skew of the client's clock, and not the length of a slow upload.
	Received time.Time

	// SentAt is when the client says that it sent the request. It is zero if the client does not say.
	SentAt time.Time

	// ClientIP is the client's address as text.
	ClientIP string

	// RequestID is the request's id, for logs.
	RequestID string

	// TraceParent is the trace that the request belongs to, in the form of the header traceparent of W3C Trace Context.
	// It is empty if the request has none.
	TraceParent string

	// Project is the owner of the token. It is nil if no gate or stage knows the owner.
	Project *Project

	// Config is the configuration that the batch is judged by, from beginning to end. Nil stands for the one in force.
	Config *configs.View

	// Historical marks a migration of old events.
	Historical bool

	// Repaired is set if the request's text was not quite JSON, or not quite UTF-8, and the service has mended it.
	Repaired bool

	// Ack is what makes the accepted events safe, according to the sink. If the events differ, it is the weakest ack.
	Ack Ack
	// RetryAfter is how long the client should wait before it sends the failed events again, according to the sink or
	// to a stage. It is 0 if neither says.
	RetryAfter time.Duration

	// Standings are the limits of the project that the events were judged by. They are empty for a project without
	// limits.
	Standings Standings

	// twins is set if an event of the batch is a twin.
	twins bool

	Events []Event
}

// Pending returns the number of events without an outcome.
func (b *Batch) Pending() int {
	n := 0
	for i := range b.Events {
		if b.Events[i].Pending() {
			n++
		}
	}
	return n
}

// conclude makes sure that every event has an outcome that can be counted, whatever stages and the sink have written.
func (b *Batch) conclude() {
	for i := range b.Events {
		event := &b.Events[i]
		if event.Outcome.State == StatePending || event.Outcome.State > StateFailed {
			event.Outcome = Outcome{State: StateFailed, Reason: ReasonUnsettled, Err: errUnsettled}
		}
		if reason := &event.Outcome.Reason; *reason != "" && !utf8.ValidString(string(*reason)) {
			*reason = ReasonUnreadable // as a label of a metric it would hide all others
		}
	}
	if b.twins {
		b.followTwins()
	}
}

// AcceptTwin ends an event of the batch as a duplicate of another one, which has the same Identity and no outcome yet.
// If the other event does not end as safe, this one ends as that one does: nothing has brought it then.
func (b *Batch) AcceptTwin(event *Event) {
	if event.Pending() {
		event.AcceptDuplicate()
		event.twin, b.twins = true, true
	}
}

// followTwins gives each twin the outcome of the event that it is a copy of, unless that one is safe.
func (b *Batch) followTwins() {
	ends := map[uint32]Outcome{}
	for i := range b.Events {
		event := &b.Events[i]
		if event.Identity == 0 || event.twin {
			continue
		}
		// If a stage has made several events of one, all of them have to be safe.
		if end, found := ends[event.Identity]; !found || end.State == StateAccepted {
			ends[event.Identity] = event.Outcome
		}
	}
	for i := range b.Events {
		event := &b.Events[i]
		if !event.twin {
			continue
		}
		end, found := ends[event.Identity]
		switch {
		case !found:
			event.Outcome = Outcome{State: StateFailed, Reason: ReasonUnsettled, Err: errUnsettled}
		case end.State != StateAccepted:
			event.Outcome = end
		}
	}
}

// FailPending ends every event without an outcome as failed with err, and returns the number of these events.
func (b *Batch) FailPending(reason Reason, err error) int {
	n := 0
	for i := range b.Events {
		if b.Events[i].Pending() {
			b.Events[i].Fail(reason, err)
			n++
		}
	}
	return n
}
