package v1

import (
	"bytes"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/posthog"
)

const (
	// maxName is the longest event name, in bytes.
	maxName = 200
	// maxSessionID is the longest session_id in bytes, as JSON, that becomes the event's SessionID. A longer one is
	// only a property.
	maxSessionID = 1 << 10
	// maxRawTime is the longest time in bytes, as JSON: 64 characters, all of them escaped.
	maxRawTime = 2 + 6*64
	// maxRawUUID is the longest UUID in bytes, as JSON: a URN with every character escaped.
	maxRawUUID = 2 + 6*len("urn:uuid:00000000-0000-0000-0000-000000000000")
)

// maxProperties returns the most bytes that the events' properties can take with what is written into them: the
// request's own text once, and all keys for each event. An option may become longer than it was sent, but by no more
// than its own key takes.
func (s *session) maxProperties(header *header) int64 {
	perEvent := len("{}") + len(header.lib) + len(header.libVersion)
	for _, key := range spliceKeys {
		perEvent += len(",") + len(key)
	}
	return int64(len(s.Data) + len(s.objects)*perEvent)
}

// hydrate makes the batch's events of the objects found. It rejects a bad event in the batch. It returns a fault of the
// whole request.
func (s *session) hydrate(header *header, onlyAI bool) *taggedError {
	batch := &s.batch
	if s.room != nil {
		batch.Events = s.room.events[:len(s.objects)]
		s.room.events = batch.Events
	}
	if err := s.readEnvelope(); err != nil {
		return err
	}
	if err := s.identify(); err != nil {
		return err
	}
	clientIP := ""
	if string(boolean(s.internal.In(s.Data))) == jsonTrue {
		clientIP = posthog.InternalIP
	}
	clock := posthog.Clock{Now: batch.Received, SentAt: batch.SentAt, Unread: batch.SentAt.IsZero()}
	for i := range s.objects {
		event := &batch.Events[i]
		event.Ref, event.ClientIP = uint32(i+1), clientIP
		if string(s.objects[i].name.In(s.Data)) == `"`+posthog.PerformanceEvent+`"` {
			event.Name = posthog.PerformanceEvent
			event.Drop(events.ReasonPerformanceEvent)
			continue
		}
		if err := s.hydrateEvent(&s.objects[i], event, clock, header); err != nil {
			event.Reject(err.reason, err)
			continue
		}
		event.Lane = s.config.Lane(event.Name, batch.Historical)
		if s.objects[i].gateway && posthog.IsAI(event.Name) {
			event.Raw.Properties = posthog.AppendWithoutGateway(event.Raw.Properties[:0], event.Raw.Properties)
		}
		switch {
		case event.Lane == events.LaneAI && s.config.CheckAI(event.Raw.Properties) != nil:
			event.Reject(events.ReasonTooLarge, errAITooLarge)
		case event.Lane != events.LaneAI && onlyAI:
			event.Reject(events.ReasonNotAI, errNotAI)
		}
	}
	return nil
}

// readEnvelope reads the request's fields beside its events.
func (s *session) readEnvelope() *taggedError {
	switch raw := s.Present(s.batchAt); {
	case raw == nil:
		return errNoBatch
	case raw[0] != '[':
		return errBatchType
	}
	if len(s.objects) == 0 {
		return errNoEvent
	}
	raw := s.Present(s.createdAt)
	if raw == nil || raw[0] != '"' || len(raw) > maxRawTime {
		return errCreatedAt
	}
	if _, ok := parseTime(jsonscan.Text(raw)); !ok {
		return errCreatedAt
	}
	switch raw := s.Present(s.historical); {
	case raw == nil:
	case raw[0] == 't' || raw[0] == 'f':
		s.batch.Historical = raw[0] == 't'
	default:
		return errHistorical
	}
	return nil
}

// identify reads the events' UUIDs, which the answer needs. No two of them may be the same.
func (s *session) identify() *taggedError {
	ids := s.room.ids[:0]
	for i := range s.objects {
		raw := s.Present(s.objects[i].uuid)
		if raw == nil || string(raw) == `""` {
			return errNoUUID
		}
		if raw[0] != '"' || len(raw) > maxRawUUID {
			return errUUID
		}
		id, ok := posthog.ParseUUID(strings.TrimSpace(jsonscan.Text(raw)))
		if !ok {
			return errUUID
		}
		event := &s.batch.Events[i]
		event.UUID, event.ClientUUID = id, true
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	for i := 1; i < len(ids); i++ {
		if ids[i] == ids[i-1] {
			return errorf(events.Invalid, "duplicate_event_uuid", events.ReasonInvalidUUID,
				"the batch holds more than one event with the uuid %s", ids[i])
		}
	}
	return nil
}

// hydrateEvent fills in an event, or returns what is wrong with it.
func (s *session) hydrateEvent(found *object, event *events.Event, clock posthog.Clock, header *header) *taggedError {
	raw := s.Present(found.name)
	switch {
	case found.deep:
		return errDeep
	case raw == nil || raw[0] != '"':
		return errNoName
	case len(raw) > 2+6*maxName:
		return errLongName
	}
	switch event.Name = jsonscan.Text(raw); {
	case event.Name == "":
		return errNoName
	case len(event.Name) > maxName:
		return errLongName
	}

	if raw = s.Present(found.distinctID); raw == nil || !posthog.Identify(event, raw) {
		return errNoDistinctID
	}
	event.Raw.DistinctID = raw
	event.Routing.SkipPerson = isIllegal(event.DistinctID)

	raw = s.Present(found.timestamp)
	if raw == nil || raw[0] != '"' || len(raw) > maxRawTime {
		return errTimestamp
	}
	var stamp posthog.Stamp
	if stamp.At, stamp.Known = parseTime(jsonscan.Text(raw)); !stamp.Known {
		return errTimestamp
	}
	event.Raw.Timestamp = raw

	if raw = s.Present(found.given[spliceSession]); raw != nil && raw[0] == '"' && len(raw) <= maxSessionID {
		event.SessionID = jsonscan.Text(raw)
	}
	var err *taggedError
	if stamp.IgnoreSentAt, err = s.splice(found, event, header); err != nil {
		return err
	}
	clock.Date(event, stamp)
	return nil
}

// splice gives an event its properties: those that the client sent, byte for byte, and behind them the values that it
// sent elsewhere. A value from elsewhere does not replace a property that is already there.
func (s *session) splice(found *object, event *events.Event, header *header) (ignoreSentAt bool, fault *taggedError) {
	own := posthog.AsObject(s.Present(found.properties))
	if own == nil {
		own = emptyObject
	}
	found.empty = found.empty || len(own) == len(emptyObject)
	if own[0] != '{' {
		return false, errProperties
	}
	values, ok := s.values(found, header)
	if !ok {
		return false, errOptions
	}
	text := s.properties.Bytes
	start := len(text)
	text = append(text, own[:len(own)-1]...)
	for i, value := range values {
		if value == nil || found.owns&(1<<i) != 0 {
			continue
		}
		if !found.empty {
			text = append(text, ',')
		}
		found.empty = false
		text = append(text, spliceKeys[i]...)
		text = append(text, value...)
	}
	text = append(text, '}')
	event.Raw.Properties, s.properties.Bytes = text[start:len(text):len(text)], text
	if found.emptyArray {
		posthog.FillObjects(event.Raw.Properties)
	}
	event.Cookieless = string(values[spliceCookieless]) == jsonTrue
	return string(values[spliceIgnoreSentAt]) == jsonTrue, nil
}

// values returns an event's values of the spliced properties, as JSON of the type that they mean; nil is none. ok is
// false if one of the values means nothing.
func (s *session) values(found *object, header *header) (values [splices][]byte, ok bool) {
	if options := posthog.AsObject(s.Present(found.options)); options != nil && options[0] != '{' {
		return values, false
	}
	for i, at := range found.given {
		values[i] = s.Present(at)
	}
	for _, i := range [...]int{spliceCookieless, spliceIgnoreSentAt, splicePersonProfile} {
		if values[i] == nil {
			continue
		}
		if values[i] = boolean(values[i]); values[i] == nil {
			return values, false
		}
	}
	if tour := values[spliceProductTour]; tour != nil && tour[0] != '"' && !isInteger(tour) {
		return values, false
	}
	values[spliceLib], values[spliceLibVersion] = header.lib, header.libVersion
	if own := s.Present(found.ownCookieless); own != nil {
		values[spliceCookieless] = own
		if own[0] != 't' && own[0] != 'f' {
			return values, false
		}
	}
	if own := found.ownIgnoreSentAt.In(s.Data); own != nil {
		values[spliceIgnoreSentAt] = own
	}
	return values, true
}

const jsonTrue = "true"

var textTrue, textFalse, emptyObject = []byte(jsonTrue), []byte("false"), []byte("{}")

// boolean reads true or false in the spellings of SDKs, and returns it as JSON; nil is neither.
func boolean(raw []byte) []byte {
	switch string(raw) {
	case "true", `"true"`, "1", `"1"`:
		return textTrue
	case "false", `"false"`, "0", `"0"`:
		return textFalse
	default:
		return nil
	}
}

// isInteger reports whether a JSON value is a number without a fraction or an exponent.
func isInteger(raw []byte) bool {
	return (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9') && !bytes.ContainsAny(raw, ".eE")
}

// isIllegal reports whether a distinct_id is one of those that faulty programs give to all of their users. Such users
// must not become one person.
func isIllegal(distinctID string) bool {
	distinctID = strings.TrimSpace(distinctID)
	var lower [len("00000000-0000-0000-0000-000000000000")]byte
	if len(distinctID) > len(lower) {
		return false
	}
	for i := range len(distinctID) {
		lower[i] = distinctID[i]
		if c := distinctID[i]; c >= 'A' && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	switch string(lower[:len(distinctID)]) {
	case "0", "00000000-0000-0000-0000-000000000000", "[object object]", "anonymous", "anonymous-user", "backend",
		"distinct_id", "distinctid", "email", "false", "guest", "id", "nan", "none", "not_authenticated", "null",
		"system", "true", "undefined", "user":
		return true
	}
	return false
}
