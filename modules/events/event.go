package events

import (
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/configs"
)

// Lane is the stream that an event belongs to. A sink has a place of its own for each lane.
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
// valid until Processor.Process returns, and whoever needs them longer copies them.
type Event struct {
	// UUID identifies the event; it is the client's own where ClientUUID is set, else made by the service.
	UUID       uuid.UUID
	ClientUUID bool

	// Ref is the protocol's own handle of the event, by which it finds the event again to answer for it: stages may
	// reorder the events of a batch, and UUIDs need not be unique. 0 is none; a stage that adds an event leaves it so.
	Ref uint32

	// Name is the event's name, such as "$pageview".
	Name string

	// DistinctID names the user: text, never blank, at most 200 characters.
	DistinctID string

	// Timestamp is when the event happened, corrected for the client's clock, UTC.
	Timestamp time.Time

	Lane Lane

	// Cookieless events carry no user of their own: what orders them is the client's address.
	Cookieless bool

	// ClientIP is the client's address where it is not the batch's; empty: the batch's counts.
	ClientIP string

	// SessionID is the session that the event belongs to, where the protocol says so apart from the properties. The
	// parts of a session's recording keep their order.
	SessionID string

	// Raw is the event's own JSON, as it was sent. It is empty for a recording.
	Raw Raw

	// Heatmap is what the event says for heatmaps: the properties, a JSON object, of a $$heatmap event that is written
	// beside it and shares its fate. Nil: nothing.
	Heatmap []byte

	// Recording is what an event of LaneRecordings consists of; nil for all others.
	Recording *Recording

	// Routing is what the service's own policy says about where the event goes.
	Routing Routing

	// Notes tell what the service has changed about an event that it keeps.
	Notes Notes

	// Outcome says how the event ended; the zero value is "not yet".
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

// Recording is a part of a session's recording: what one request holds of one window of one session. Its values are
// JSON.
type Recording struct {
	// WindowID is the window's id, Host the host of the page (nil: not said).
	WindowID, Host []byte
	// Source is "web" or "mobile", Lib the library that recorded; both are text.
	Source, Lib string
	// Items are the snapshots, in order.
	Items []Snapshot
}

// Snapshot is one step of a recording.
type Snapshot struct {
	JSON []byte
	// Timestamp is the snapshot's own time, as it was sent; nil if it has none.
	Timestamp []byte
}

// Routing is what policy, rather than an event's own nature, says about where it goes. The zero value says nothing. Of
// the destinations the first of DLQ, Topic and Overflow counts.
type Routing struct {
	// DLQ is why the event is set aside in the dead-letter stream; empty: it is not.
	DLQ string
	// Topic names a place of the policy's own choice; empty: none.
	Topic string
	// Overflow moves the event out of the way of others, in a lane that has an overflow; the other lanes ignore it.
	Overflow bool
	// Unkeyed lets an event in overflow lose its place in the order of its user's events, so that it can be anywhere.
	Unkeyed bool
	// SkipPerson tells whoever processes the event afterwards to leave the user's person alone. The order of such
	// events does not matter.
	SkipPerson bool
}

// Notes is a set of what has been changed about an event that is kept.
type Notes uint8

// The notes.
const (
	// NoteDistinctIDCut: the distinct_id was longer than 200 characters.
	NoteDistinctIDCut Notes = 1 << iota
	// NoteSnapshotReplaced: a snapshot that is too large for the sink was replaced by a mark that says so.
	NoteSnapshotReplaced
)

// Has reports whether all of the given notes are in the set.
func (n Notes) Has(notes Notes) bool { return n&notes == notes }

// Project is who a token belongs to. It does not change: whoever knows more makes another.
type Project struct {
	// ID names the project where it was set up.
	ID string
}

// Batch is the events of one request and what they have in common. Like an Event's, its strings may alias the request.
type Batch struct {
	// Token is the project's API key: non-empty ASCII, at most 64 bytes.
	Token string

	// Received is when the service had read the request.
	Received time.Time

	// SentAt is when the client says that it sent the request; zero if it does not say.
	SentAt time.Time

	// ClientIP is the client's address as text.
	ClientIP string

	// RequestID is the request's id, for logs.
	RequestID string

	// TraceParent is the trace that the request belongs to, as W3C Trace Context has it in the header traceparent;
	// empty: none.
	TraceParent string

	// Project is who the token belongs to; nil: nobody knows.
	Project *Project

	// Config is the configuration that the batch is judged by, from beginning to end; nil: the one in force.
	Config *configs.View

	// Historical marks a migration of old events.
	Historical bool

	// Repaired is set when the request's text was not quite JSON and has been mended.
	Repaired bool

	// Ack is what made the accepted events safe, as the sink says; where that differs, the weakest.
	Ack Ack
	// RetryAfter is what a sink asks the client to wait before it sends again what has failed; 0 if it does not say.
	RetryAfter time.Duration

	Events []Event
}

// Pending returns how many events have no outcome yet.
func (b *Batch) Pending() int {
	n := 0
	for i := range b.Events {
		if b.Events[i].Pending() {
			n++
		}
	}
	return n
}

// FailPending ends every event that has no outcome yet as failed with err, and returns how many those were.
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
