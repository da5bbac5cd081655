package events

import (
	"time"

	"github.com/google/uuid"
)

// Lane is the stream that an event belongs to. A sink maps each lane to a place of its own (Kafka: a topic).
type Lane uint8

// The lanes. Main is the zero value.
const (
	LaneMain Lane = iota
	LaneHistorical
	LaneExceptions
	LaneHeatmaps
	LaneClientWarnings
	LaneAI
	laneCount
)

var laneNames = [laneCount]string{"main", "historical", "exceptions", "heatmaps", "client_warnings", "ai"}

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

// Event is one product-analytics event. Its strings and byte slices may alias the request's decoded body: they are valid
// until Processor.Process returns, and whoever needs them longer copies them.
type Event struct {
	// UUID identifies the event; it is the client's own where ClientUUID is set, else made by the service.
	UUID       uuid.UUID
	ClientUUID bool

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

	// Raw is the event's own JSON, as it was sent.
	Raw Raw

	// Outcome says how the event ended; the zero value is "not yet".
	Outcome Outcome
}

// Raw holds the JSON values of an event's fields, as they were sent. An absent field is nil, except Properties, which is
// always an object.
type Raw struct {
	Token      []byte
	DistinctID []byte
	Timestamp  []byte
	Offset     []byte
	Properties []byte
	Set        []byte
	SetOnce    []byte
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

	// Historical marks a migration of old events.
	Historical bool

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
