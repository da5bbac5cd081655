package posthog

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

// The faults of an event or its request, in the protocol's words. They are made once, so that a hostile batch of a
// million bad events costs no allocation for each.
var (
	errNoEvent = events.Errorf(events.Invalid, "request holds no event")
	errDeep    = events.Errorf(events.Invalid, "failed to parse request: nested deeper than %d levels",
		jsonscan.MaxDepth)
	errNotObject = events.Errorf(events.Invalid, "failed to parse request: an event must be an object")
	errNoName    = events.Errorf(events.Invalid,
		"failed to hydrate events from request: non-engage request missing event name attribute")
	errEmptyName      = events.Errorf(events.Invalid, "event submitted with an empty event name")
	errNoDistinctID   = events.Errorf(events.Invalid, "event submitted without a distinct_id")
	errCookieless     = events.Errorf(events.Invalid, "event submitted with invalid cookieless mode")
	errUUID           = events.Errorf(events.Invalid, "failed to parse request: uuid must be a UUID")
	errManyTokens     = events.Errorf(events.Unauthorized, "batch submitted with inconsistent api_key values")
	errNotAI          = events.Errorf(events.Invalid, "the event is not an AI event; send it to the analytics endpoint")
	errLongName       = events.Errorf(events.TooLarge, "the event name is longer than %d bytes", maxName)
	errTypeName       = wrongType("event", "a string")
	errTypeToken      = wrongType("token", "a string")
	errTypeUUID       = wrongType("uuid", "a string")
	errTypeProperties = wrongType("properties", "an object")
	errTypeSet        = wrongType("$set", "an object")
	errTypeSetOnce    = wrongType("$set_once", "an object")
	errTypeTimestamp  = wrongType("timestamp", "a string or a number")
	errTypeOffset     = wrongType("offset", "a number of milliseconds")
	errTypeAPIKey     = wrongType("api_key", "a string")
	errTypeHistorical = wrongType("historical_migration", "true or false")
	errTypeBatch      = wrongType("batch", "an array of events")
	errNoBatch        = events.Errorf(events.Invalid,
		"failed to parse request: batch is missing: expected an array of events in batch, or the name of a single "+
			"event in event")
)

func wrongType(key, want string) *events.Error {
	return events.Errorf(events.Invalid, "failed to parse request: %s must be %s", key, want)
}

const (
	// maxName is the longest event name in bytes, as JSON. The protocol has no limit, but no Kafka message would hold a
	// longer name.
	maxName = 1 << 20
	// maxRawToken is the longest token in bytes, as JSON, that is looked at: the longest allowed token, escaped, with
	// room for white space.
	maxRawToken = 1 << 10
)

// InternalIP stands for the client's address in events that the service's own operators send.
const InternalIP = "127.0.0.1"

var noProperties = []byte("{}")

// intake is what a request's head says about its events.
type intake struct {
	request *route.Request
	query   query
	// engage allows events without a name. aiOnly rejects events of other lanes.
	engage, aiOnly bool
}

// hydrate makes the batch's events of the objects found, in the room that the batch has for them. It rejects a bad
// event in the batch. It returns a fault of the whole request, with the reason.
func (d *document) hydrate(batch *events.Batch, config *Config, from intake) (events.Reason, *events.Error) {
	batch.Events = batch.Events[:len(d.objects)]
	if len(d.objects) == 0 {
		return events.ReasonInvalidEvent, errNoEvent
	}
	if d.dropUnwanted(batch) == 0 {
		return "", nil
	}
	historical, err := d.readEnvelope()
	if err != nil {
		return events.ReasonInvalidEvent, err
	}
	var around envelope
	if d.enveloped {
		around = d.envelope
	}
	at := d.clock(batch, from.query, around.sentAt, around.sentAtAlias)
	batch.Historical = historical
	nameless := d.nameless(&from)
	token, reason, err := d.token(from.request)
	if err != nil {
		if d.single && nameless != nil && d.Present(d.objects[0].name) == nil {
			// A single object without a name is hardly an event. The answer says so, and does not ask for a token.
			return reasonNameless(nameless), nameless
		}
		return reason, err
	}
	batch.Token = token
	for i := range d.objects {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		end(event)(d.hydrateEvent(&d.objects[i], event, at, nameless))
		if event.Pending() {
			event.Lane = config.Lane(event.Name, historical)
			end(event)(d.suit(&d.objects[i], event, config, from.aiOnly))
		}
	}
	return "", nil
}

// end returns a function that ends the event by an error: as failed if the error is Unavailable, else as rejected.
// Without an error the event stays as it is.
func end(event *events.Event) func(events.Reason, *events.Error) {
	return func(reason events.Reason, err *events.Error) {
		switch {
		case err == nil:
		case err.Code == events.Unavailable:
			event.Fail(reason, err)
		default:
			event.Reject(reason, err)
		}
	}
}

// suit checks an event by its lane, and takes out of its properties what only the AI gateway or a heatmap event may
// have.
func (d *document) suit(
	found *object, event *events.Event, config *Config, aiOnly bool,
) (events.Reason, *events.Error) {
	if aiOnly && event.Lane != events.LaneAI {
		return events.ReasonNotAI, errNotAI
	}
	if event.Lane == events.LaneAI {
		if err := config.CheckAI(event.Raw.Properties); err != nil {
			return events.ReasonTooLarge, err
		}
	}
	if found.marks&markGateway != 0 && IsAI(event.Name) {
		stripped, err := d.arena.take(len(event.Raw.Properties))
		if err != nil {
			return events.ReasonUnavailable, err
		}
		event.Raw.Properties = AppendWithoutGateway(stripped, event.Raw.Properties)
	}
	if hasHeatmap(event.Name, found.marks) {
		if err := d.splitHeatmap(found, event); err != nil {
			return events.ReasonUnavailable, err
		}
	}
	return "", nil
}

// dropUnwanted drops the events that nobody keeps, before anything about them is judged. It returns how many are left.
func (d *document) dropUnwanted(batch *events.Batch) int {
	left := len(d.objects)
	for i := range d.objects {
		if string(d.objects[i].name.In(d.Data)) == `"`+PerformanceEvent+`"` {
			batch.Events[i].Name = PerformanceEvent
			batch.Events[i].Drop(events.ReasonPerformanceEvent)
			d.objects[i] = object{}
			left--
		}
	}
	return left
}

// PerformanceEvent is the name of an event that old SDKs send and nothing uses.
const PerformanceEvent = "$performance_event"

// readEnvelope reads the fields of an envelope other than its token, its times and its events.
func (d *document) readEnvelope() (historical bool, fault *events.Error) {
	if !d.enveloped {
		return false, nil
	}
	switch raw := d.Present(d.envelope.historical); {
	case raw == nil:
		return false, nil
	case raw[0] == 't' || raw[0] == 'f':
		return raw[0] == 't', nil
	default:
		return false, errTypeHistorical
	}
}

// clock returns the clock of a request, and gives the batch its SentAt. Of the values the first that is a time counts,
// else the time in the query.
func (d *document) clock(batch *events.Batch, query query, values ...jsonscan.Span) Clock {
	var sentAt time.Time
	unread := false
	for _, at := range values {
		if sentAt.IsZero() {
			var bad bool
			sentAt, bad = ReadSentAt(d.Present(at), batch.Received)
			unread = unread || bad
		}
	}
	if batch.SentAt = sentAt; sentAt.IsZero() {
		batch.SentAt = query.sentAt
	}
	return newClock(batch.Received, sentAt, unread, query)
}

// token finds the project token of the request: the envelope's own, else the token of its events, which must not name
// two. If the body has none, or an empty one, it is the token of the request's head.
func (d *document) token(request *route.Request) (string, events.Reason, *events.Error) {
	var token string
	found := false
	if d.enveloped {
		raw := d.Present(d.envelope.apiKey)
		if raw == nil {
			raw = d.Present(d.envelope.token)
		}
		if raw != nil {
			if raw[0] != '"' {
				return "", events.ReasonInvalidEvent, errTypeAPIKey
			}
			token, found = tokenText(raw), true
		}
	}
	if !found {
		for i := range d.objects {
			raw := d.ownToken(&d.objects[i])
			if raw == nil {
				raw = d.Present(d.objects[i].propToken)
			}
			if raw == nil || raw[0] != '"' {
				continue
			}
			if own := tokenText(raw); !found {
				token, found = own, true
			} else if own != token {
				return "", events.ReasonMultipleTokens, errManyTokens
			}
		}
	}
	if !found {
		token, err := HeadToken(request)
		reason := events.ReasonInvalidToken
		switch {
		case err == nil:
			reason = ""
		case slices.Contains(errNoHeadToken[:], err):
			reason = events.ReasonMissingToken
		}
		return token, reason, err
	}
	if token == "" {
		if inHead, err := HeadToken(request); err == nil {
			return inHead, "", nil
		}
	}
	trimmed, fault := events.CheckToken(token)
	if fault != "" {
		return "", events.ReasonInvalidToken, events.Errorf(events.Unauthorized, "API key is not valid: %s", fault)
	}
	return trimmed, "", nil
}

// tokenText returns the text of a token without surrounding white space. A token that is far too long stays as it is,
// which is enough to refuse it.
func tokenText(raw []byte) string {
	if len(raw) > maxRawToken {
		return jsonscan.Alias(raw)
	}
	return strings.TrimSpace(jsonscan.Text(raw))
}

// ownToken returns the token that an event carries beside its properties.
func (d *document) ownToken(found *object) []byte {
	for _, at := range [...]jsonscan.Span{found.token, found.dollarToken, found.apiKey} {
		if raw := d.Present(at); raw != nil {
			return raw
		}
	}
	return nil
}

// nameless returns what is wrong with an event without a name; nil if the path takes such events. If the request is one
// object, that may be an envelope whose batch is missing or of a wrong type.
func (d *document) nameless(from *intake) *events.Error {
	switch {
	case from.engage:
		return nil
	case !d.single:
		return errNoName
	case d.Present(d.envelope.batch) != nil:
		return errTypeBatch
	case isBatch(from.request.Path) || d.isEnvelope():
		return errNoBatch
	default:
		return errNoName
	}
}

// isEnvelope reports whether the request's one object has what an envelope has, and nothing of what an event has.
func (d *document) isEnvelope() bool {
	e, o := &d.envelope, &d.objects[0]
	return e.apiKey.To|e.token.To|e.historical.To|e.sentAt.To|e.sentAtAlias.To != 0 &&
		o.uuid.To|o.timestamp.To|o.offset.To|o.distinctID.To|o.dollarDistinctID.To|o.properties.To|o.set.To|
			o.setOnce.To == 0
}

func reasonNameless(err *events.Error) events.Reason {
	if err == errNoName {
		return events.ReasonMissingName
	}
	return events.ReasonInvalidEvent
}

// hydrateEvent fills in an event, or returns what is wrong with it. nameless is the error of an event without a name;
// nil: its name is $identify.
func (d *document) hydrateEvent(
	found *object, event *events.Event, at Clock, nameless *events.Error,
) (events.Reason, *events.Error) {
	if !found.isObject {
		return events.ReasonInvalidEvent, errNotObject
	}
	// The uuid comes first, so that a client that is told of another fault is also told which event has it.
	if reason, err := d.clientUUID(found, event); err != nil {
		return reason, err
	}
	if found.deep {
		return events.ReasonInvalidEvent, errDeep
	}
	if reason, err := d.raw(found, &event.Raw); err != nil {
		return reason, err
	}

	switch raw := d.Present(found.name); {
	case raw == nil && nameless == nil:
		event.Name = "$identify"
	case raw == nil:
		return reasonNameless(nameless), nameless
	case raw[0] != '"':
		return events.ReasonInvalidEvent, errTypeName
	case len(raw) > maxName:
		return events.ReasonTooLarge, errLongName
	default:
		name, err := d.text(raw)
		if err != nil {
			return events.ReasonUnavailable, err
		}
		if event.Name = name; event.Name == "" {
			return events.ReasonMissingName, errEmptyName
		}
	}

	raw := event.Raw.DistinctID
	if raw == nil {
		raw = d.Present(found.propDistinctID)
	}
	if raw != nil {
		if isCopied(raw) && !d.arena.reserve(idSize) {
			return events.ReasonUnavailable, memory.ErrSpent
		}
		identify(event, raw)
	}
	if isBlank(event.DistinctID) {
		return events.ReasonMissingDistinctID, errNoDistinctID
	}
	if err := d.cookieless(found, event); err != nil {
		return events.ReasonInvalidCookieless, err
	}
	if d.Present(found.internal) != nil {
		event.ClientIP = InternalIP
	}

	d.date(found, event, at)
	return "", nil
}

// text returns the text of a JSON string. Where that is a copy, it counts against the budget.
func (d *document) text(raw []byte) (string, *events.Error) {
	if !jsonscan.IsEscaped(raw) {
		return jsonscan.Text(raw), nil
	}
	room, err := d.arena.take(len(raw))
	if err != nil {
		return "", err
	}
	return jsonscan.Alias(jsonscan.AppendText(room, raw)), nil
}

// clientUUID reads the event's uuid if the client sent one.
func (d *document) clientUUID(found *object, event *events.Event) (events.Reason, *events.Error) {
	switch raw := d.Present(found.uuid); {
	case raw == nil || string(raw) == `""`:
	case raw[0] != '"':
		return events.ReasonInvalidUUID, errTypeUUID
	default:
		if event.UUID, event.ClientUUID = parseUUID(jsonscan.Text(raw)); !event.ClientUUID {
			return events.ReasonInvalidUUID, errUUID
		}
	}
	return "", nil
}

func (d *document) cookieless(found *object, event *events.Event) *events.Error {
	if raw := d.Present(found.cookieless); raw != nil {
		if raw[0] != 't' && raw[0] != 'f' {
			return errCookieless
		}
		event.Cookieless = raw[0] == 't'
	}
	return nil
}

// date gives the event its time. It makes the event's uuid if the client sent none.
func (d *document) date(found *object, event *events.Event, at Clock) {
	stamp := ReadStamp(event.Raw.Timestamp, at.Now)
	if event.Raw.Offset != nil {
		stamp.offset, stamp.hasOffset = milliseconds(event.Raw.Offset)
		stamp.Unread = stamp.Unread || !stamp.hasOffset && !stamp.Known
	}
	stamp.IgnoreSentAt = string(found.ignoreSentAt.In(d.Data)) == "true"
	at.Date(event, stamp)
	if !event.ClientUUID {
		event.UUID = newUUID(event.Timestamp)
	}
}

// raw takes over an event's own JSON and checks the types of its fields.
func (d *document) raw(found *object, raw *events.Raw) (events.Reason, *events.Error) {
	raw.Token = d.ownToken(found)
	raw.DistinctID = d.Present(found.distinctID)
	if raw.DistinctID == nil {
		raw.DistinctID = d.Present(found.dollarDistinctID)
	}
	raw.Timestamp = d.Present(found.timestamp)
	raw.Offset = d.Present(found.offset)
	raw.Set = AsObject(d.Present(found.set))
	raw.SetOnce = AsObject(d.Present(found.setOnce))
	raw.Properties = AsObject(d.Present(found.properties))
	if raw.Properties == nil {
		raw.Properties = noProperties
	}
	switch {
	case raw.Token != nil && raw.Token[0] != '"':
		return events.ReasonInvalidEvent, errTypeToken
	case raw.Properties[0] != '{':
		return events.ReasonInvalidEvent, errTypeProperties
	case raw.Set != nil && raw.Set[0] != '{':
		return events.ReasonInvalidEvent, errTypeSet
	case raw.SetOnce != nil && raw.SetOnce[0] != '{':
		return events.ReasonInvalidEvent, errTypeSetOnce
	case raw.Timestamp != nil && !IsTime(raw.Timestamp):
		return events.ReasonInvalidEvent, errTypeTimestamp
	case raw.Offset != nil && !isNumber(raw.Offset):
		return events.ReasonInvalidEvent, errTypeOffset
	}
	if err := d.rewrite(found, raw); err != nil {
		return events.ReasonUnavailable, err
	}
	return "", nil
}

// rewrite gives two values the types that the pipeline behind Kafka expects: a timestamp becomes a text, and an empty
// array where an object is due becomes an empty object.
func (d *document) rewrite(found *object, raw *events.Raw) *events.Error {
	if raw.Timestamp != nil && raw.Timestamp[0] != '"' {
		text, err := d.arena.take(len(raw.Timestamp) + len(`""`))
		if err != nil {
			return err
		}
		raw.Timestamp = AppendQuoted(text, raw.Timestamp)
	}
	if found.marks&markEmptyArray != 0 {
		properties, err := d.arena.take(len(raw.Properties))
		if err != nil {
			return err
		}
		raw.Properties = append(properties, raw.Properties...)
		FillObjects(raw.Properties)
	}
	return nil
}

// AppendQuoted appends a number as the JSON text of its digits.
func AppendQuoted(dst, number []byte) []byte {
	dst = append(dst, '"')
	dst = append(dst, number...)
	return append(dst, '"')
}

// maxMilliseconds is longer than the time between any two years that an event may have.
const maxMilliseconds = 1e15

// milliseconds reads a JSON number of milliseconds. A number beyond maxMilliseconds is cut to that. ok is false if the
// number is too long to be read.
func milliseconds(raw []byte) (ms int64, ok bool) {
	if ms, err := strconv.ParseInt(jsonscan.Alias(raw), 10, 32); err == nil {
		return ms, true
	}
	if len(raw) > maxRead {
		return 0, false
	}
	n, err := strconv.ParseFloat(jsonscan.Alias(raw), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	return int64(min(max(n, -maxMilliseconds), maxMilliseconds)), true
}

// CheckAI returns an error if the properties of an AI event are over the ceiling, MaxAIEvent.
func (c *Config) CheckAI(properties []byte) *events.Error {
	if c.MaxAIEvent > 0 && len(properties) > int(c.MaxAIEvent) {
		return events.Errorf(events.TooLarge, "the properties of an AI event are larger than %d bytes", c.MaxAIEvent)
	}
	return nil
}

// IsAI reports whether a name is that of an AI event, also of one that the allowlist does not know.
func IsAI(name string) bool { return strings.HasPrefix(name, "$ai_") }

// Lane returns the lane of an event by its name. The special names go before a historical migration.
func (c *Config) Lane(name string, historical bool) events.Lane {
	if strings.HasPrefix(name, "$") {
		switch name {
		case "$exception":
			return events.LaneExceptions
		case heatmapName:
			return events.LaneHeatmaps
		case "$$client_ingestion_warning":
			return events.LaneClientWarnings
		case "$ai_generation", "$ai_trace", "$ai_span", "$ai_embedding", "$ai_metric", "$ai_feedback":
			return events.LaneAI
		}
		if c.AILane == AIPrefix && IsAI(name) {
			return events.LaneAI
		}
	}
	if historical {
		return events.LaneHistorical
	}
	return events.LaneMain
}
