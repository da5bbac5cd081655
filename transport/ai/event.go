package ai

import (
	"bytes"
	"slices"
	"strings"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/posthog"
)

// names are the names of the events that the path takes.
var names = []string{"$ai_generation", "$ai_trace", "$ai_span", "$ai_embedding", "$ai_metric", "$ai_feedback"}

var (
	errNoEventPart = invalid("the body has no part: send the event in a part named event")
	errFirstPart   = invalid("the first part must be event")
	errUnknownPart = invalid("an unknown part: a request has the parts event and event.properties")
	errNotAI       = invalid("not an AI event: event must be one of %s; send others to the analytics endpoint",
		strings.Join(names, ", "))
	errTwoEvents      = invalid("the body has more than one part named event: send one event a request")
	errTwoProperties  = invalid("the body has more than one part named event.properties")
	errText           = invalid("the parts event and event.properties must be valid UTF-8")
	errBothProperties = invalid("the event has properties and there is a part event.properties: send them in one place")
	errNoName         = invalid("the event needs a name: set event to one of %s", strings.Join(names, ", "))
	errNoUUID         = invalid("the event needs a uuid, which must be a UUID")
	errNoDistinctID   = invalid("the event needs a distinct_id that is not empty")
	errTimestamp      = invalid("timestamp must be a string or a number")
	errSet            = invalid("$set and $set_once must be objects")
	errNoModel        = invalid("properties must have $ai_model, the name of the model, as a string that is not empty")
)

func invalid(format string, args ...any) *events.Error {
	return events.Errorf(events.Invalid, "failed to parse request: "+format, args...)
}

// form is the parts of a request.
type form struct {
	event []byte
	// properties is nil if the event itself holds its properties.
	properties []byte
}

// newForm finds the parts that the path knows. Any other part is an error.
func newForm(parts []decode.Part) (form, *events.Error) {
	var f form
	if len(parts) == 0 {
		return f, errNoEventPart
	}
	if parts[0].Name != "event" {
		return f, errFirstPart
	}
	f.event = bytes.TrimSpace(parts[0].Data)
	for _, found := range parts[1:] {
		switch {
		case found.Name == "event":
			return f, errTwoEvents
		case found.Name != "event.properties":
			return f, errUnknownPart
		case f.properties != nil:
			return f, errTwoProperties
		}
		if f.properties = bytes.TrimSpace(found.Data); f.properties == nil {
			// An empty part is not nil: it is there, though it is no JSON.
			f.properties = []byte{}
		}
	}
	return f, nil
}

// fields are the values of an event's JSON, found but not yet judged. null counts as absent.
type fields struct {
	name, uuid, distinctID, timestamp, sentAt, properties, set, setOnce []byte

	model, ignoreSentAt, internal []byte
	// emptyArray is set if one of the properties is an empty array where an object is due.
	emptyArray bool
}

// read finds the fields in the form.
func (f *fields) read(form form) *events.Error {
	event := jsonscan.MembersOf(form.event)
	for event.Next() {
		if to := f.field(string(event.Key)); to != nil {
			*to = present(event.Value)
		}
	}
	if err := event.Err(); err != nil {
		return invalid("the part event: %w", err)
	}
	where := "properties"
	if form.properties != nil {
		if f.properties != nil {
			return errBothProperties
		}
		f.properties, where = present(form.properties), "the part event.properties"
	}
	f.properties = posthog.AsObject(f.properties)
	if f.properties == nil {
		return nil
	}
	properties := jsonscan.MembersOf(f.properties)
	for properties.Next() {
		value := present(properties.Value)
		switch string(properties.Key) {
		case "$ai_model":
			f.model = value
		case "$ignore_sent_at":
			f.ignoreSentAt = value
		case "capture_internal":
			f.internal = value
		}
		f.emptyArray = f.emptyArray || posthog.IsEmptyArray(properties.Key, value)
	}
	if err := properties.Err(); err != nil {
		return invalid("%s: %w", where, err)
	}
	return nil
}

func (f *fields) field(key string) *[]byte {
	switch key {
	case "event":
		return &f.name
	case "uuid":
		return &f.uuid
	case "distinct_id":
		return &f.distinctID
	case "timestamp":
		return &f.timestamp
	case "sent_at":
		return &f.sentAt
	case "properties":
		return &f.properties
	case "$set":
		return &f.set
	case "$set_once":
		return &f.setOnce
	default:
		return nil
	}
}

func present(value []byte) []byte {
	if string(value) == "null" {
		return nil
	}
	return value
}

// stringOf returns the text of a value that is a string, else "".
func stringOf(value []byte) string {
	if len(value) == 0 || value[0] != '"' {
		return ""
	}
	return jsonscan.Text(value)
}

// isObject reports whether a value is an object, or absent.
func isObject(value []byte) bool { return value == nil || value[0] == '{' }

// hydrate fills in the event, or returns what is wrong with it. The event's strings and slices alias the request.
func (f *fields) hydrate(event *events.Event, batch *events.Batch) (events.Reason, *events.Error) {
	event.Lane = events.LaneAI
	event.Name = stringOf(f.name)
	switch {
	case event.Name == "":
		return events.ReasonMissingName, errNoName
	case !slices.Contains(names, event.Name):
		event.Name = cut(event.Name)
		return events.ReasonNotAI, errNotAI
	}
	if event.UUID, event.ClientUUID = posthog.ParseUUID(stringOf(f.uuid)); !event.ClientUUID {
		return events.ReasonInvalidUUID, errNoUUID
	}
	if f.distinctID == nil || !posthog.Identify(event, f.distinctID) {
		return events.ReasonMissingDistinctID, errNoDistinctID
	}
	f.set, f.setOnce = posthog.AsObject(f.set), posthog.AsObject(f.setOnce)
	stamp := posthog.ReadStamp(f.timestamp, batch.Received)
	switch {
	case f.timestamp != nil && !posthog.IsTime(f.timestamp):
		return events.ReasonInvalidEvent, errTimestamp
	case !isObject(f.set) || !isObject(f.setOnce):
		return events.ReasonInvalidEvent, errSet
	case stringOf(f.model) == "":
		return events.ReasonInvalidEvent, errNoModel
	}
	event.Raw = events.Raw{
		DistinctID: f.distinctID, Timestamp: f.timestamp, Properties: posthog.StripGateway(f.properties),
		Set: f.set, SetOnce: f.setOnce,
	}
	if f.internal != nil {
		event.ClientIP = posthog.InternalIP
	}
	if f.emptyArray {
		event.Raw.Properties = bytes.Clone(event.Raw.Properties)
		posthog.FillObjects(event.Raw.Properties)
	}
	if f.timestamp != nil && f.timestamp[0] != '"' {
		event.Raw.Timestamp = posthog.AppendQuoted(nil, f.timestamp)
	}
	stamp.IgnoreSentAt = string(f.ignoreSentAt) == "true"
	sentAt, unread := posthog.ReadSentAt(f.sentAt, batch.Received)
	batch.SentAt = sentAt
	posthog.Clock{Now: batch.Received, SentAt: sentAt, Unread: unread}.Date(event, stamp)
	return "", nil
}

// maxShown is how many bytes of a refused name the answer shows.
const maxShown = 100

func cut(name string) string {
	if len(name) <= maxShown {
		return name
	}
	return strings.ToValidUTF8(name[:maxShown], "") + "..."
}
