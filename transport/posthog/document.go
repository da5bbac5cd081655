package posthog

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
)

// object is what a scan has found in one event.
type object struct {
	// isObject is set unless the element is something else than an object, deep if it holds what is nested too deep.
	isObject, deep bool

	name, uuid, timestamp, offset      jsonscan.Span
	token, dollarToken, apiKey         jsonscan.Span
	distinctID, dollarDistinctID       jsonscan.Span
	properties, set, setOnce           jsonscan.Span
	propToken, propDistinctID          jsonscan.Span
	cookieless, ignoreSentAt, internal jsonscan.Span
	// marks are those of the event's properties that make more work later.
	marks marks
	// replay is the event's place in document.replays, plus one; 0 if the event is not a recording's.
	replay int32
}

// marks is a set of properties.
type marks uint8

const (
	markHeatmapData marks = 1 << iota
	markPreviousPath
	markCurrentURL
	markGateway
	markEmptyArray
)

// envelope is what a scan has found around the events.
type envelope struct {
	batch, apiKey, token            jsonscan.Span
	historical, sentAt, sentAtAlias jsonscan.Span
}

// document is what a scan has found in a request's JSON, before it is judged. Its memory is used again for the next
// request.
type document struct {
	jsonscan.Scanner
	objects []object
	// limit is how many events there may be, and how many snapshots. moreEvents and moreSnapshots make room for so many
	// of them in all. refused is the error with which one of these has ended a scan.
	limit                     int
	moreEvents, moreSnapshots func(int) *events.Error
	refused                   *events.Error
	envelope                  envelope
	// recordings has a scan look for the parts of recordings, which replays and snapshots then hold.
	recordings bool
	replays    []replay
	snapshots  []snapshot
	arena      arena
	// enveloped is set if the events are an envelope's batch, single if the request is one object, which is the event.
	enveloped, single bool
}

// scan finds the events of a request, which is an array of events, an envelope with a batch, or a single event.
func (d *document) scan(data []byte) *jsonscan.SyntaxError {
	*d = document{
		Scanner: jsonscan.Scanner{Data: data, PassDeep: true}, objects: d.objects[:0], limit: d.limit,
		moreEvents: d.moreEvents, moreSnapshots: d.moreSnapshots,
		recordings: d.recordings, replays: d.replays[:0], snapshots: d.snapshots[:0], arena: d.arena,
	}
	if cap(d.objects) == 0 && !d.grow() {
		return d.End(d.Fail(0, "no memory"))
	}
	return d.End(d.root(d.Space(0)))
}

func (d *document) root(i int) int {
	if i >= len(d.Data) {
		return d.Fail(i, "expected a value")
	}
	switch d.Data[i] {
	case '[':
		return d.events(i, 0)
	case '{':
		var top object
		end := d.event(i, 0, &top, &d.envelope)
		if end >= 0 && !d.enveloped {
			d.single = true
			d.objects = append(d.objects[:0], top)
		}
		return end
	default:
		if d.Value(i, 0) < 0 {
			return -1
		}
		return d.Fail(i, "expected an event, an array of events or a batch")
	}
}

// events scans the array of events at i.
func (d *document) events(i, depth int) int {
	i = d.Space(i + 1)
	if i < len(d.Data) && d.Data[i] == ']' {
		return i + 1
	}
	for {
		if len(d.objects) == cap(d.objects) && !d.grow() || !d.within(len(d.objects)) {
			return d.Fail(i, "too many events")
		}
		d.objects = append(d.objects, object{})
		if i < len(d.Data) && d.Data[i] == '{' {
			// The pointer stays valid while it is in use: an event holds no events, so the slice does not grow
			// meanwhile.
			i = d.event(i, depth+1, &d.objects[len(d.objects)-1], nil)
		} else {
			i = d.Value(i, depth+1)
		}
		if i < 0 {
			return -1
		}
		var more bool
		if i, more = d.NextElement(i); !more {
			return i
		}
	}
}

// grow makes room for more events. It reports false if the limit is reached or there is no room.
func (d *document) grow() bool {
	if !d.within(cap(d.objects)) {
		return false
	}
	d.refused = d.moreEvents(min(2*cap(d.objects), d.limit))
	return d.refused == nil
}

// within reports whether there may be more than n events or snapshots.
func (d *document) within(n int) bool {
	if n >= d.limit {
		d.refused = events.Errorf(events.TooLarge,
			"maximum event size exceeded: request holds more than %d events or snapshots", d.limit)
	}
	return d.refused == nil
}

// event scans the object at i for the fields of an event and, if around is given, for those of an envelope. Of two
// equal keys the last counts.
func (d *document) event(i, depth int, found *object, around *envelope) int {
	found.isObject = true
	deep := d.Deep
	if d.recordings {
		d.replays = append(d.replays, replay{})
		found.replay = int32(len(d.replays))
	}
	i, more := d.Open(i, depth)
	for more {
		key, at := d.Member(i)
		if at < 0 {
			return -1
		}
		var to *jsonscan.Span
		end := 0
		switch string(key) {
		case "event":
			to = &found.name
		case "uuid":
			to = &found.uuid
		case "timestamp":
			to = &found.timestamp
		case "offset":
			to = &found.offset
		case "token":
			to = &found.token
		case "$token":
			to = &found.dollarToken
		case "api_key":
			to = &found.apiKey
		case "distinct_id":
			to = &found.distinctID
		case "$distinct_id":
			to = &found.dollarDistinctID
		case "$set":
			to = &found.set
		case "$set_once":
			to = &found.setOnce
		case "properties":
			to = &found.properties
			end = d.properties(at, depth+1, found)
		case "batch":
			if around != nil {
				to = &around.batch
				end = d.batch(at, depth+1)
			}
		case "historical_migration":
			if around != nil {
				to = &around.historical
			}
		case "sent_at":
			switch {
			case around != nil:
				to = &around.sentAt
			case d.recordings:
				to = &d.replays[found.replay-1].sentAt
			}
		case "sentAt":
			if around != nil {
				to = &around.sentAtAlias
			}
		}
		if end == 0 {
			end = d.Value(at, depth+1)
		}
		if end < 0 {
			return -1
		}
		if to != nil {
			*to = jsonscan.SpanOf(at, end)
		}
		i, more = d.Next(end)
	}
	found.deep = d.Deep > deep
	if around != nil {
		around.apiKey, around.token = found.apiKey, found.token
	}
	return i
}

// batch scans the value of an envelope's batch. If there was an earlier batch, its events are forgotten.
func (d *document) batch(i, depth int) int {
	d.objects = d.objects[:0]
	if d.recordings {
		d.replays = d.replays[:1] // The first replay is the envelope's own.
	}
	d.enveloped = i < len(d.Data) && d.Data[i] == '['
	if d.enveloped {
		return d.events(i, depth)
	}
	return d.Value(i, depth)
}

// properties scans an event's properties for the few that the protocol reads.
func (d *document) properties(i, depth int, found *object) int {
	found.propToken, found.propDistinctID = jsonscan.Span{}, jsonscan.Span{}
	found.cookieless, found.ignoreSentAt, found.internal = jsonscan.Span{}, jsonscan.Span{}, jsonscan.Span{}
	found.marks = 0
	if d.recordings {
		r := &d.replays[found.replay-1]
		*r = replay{sentAt: r.sentAt}
	}
	if i >= len(d.Data) || d.Data[i] != '{' {
		return d.Value(i, depth)
	}
	i, more := d.Open(i, depth)
	for more {
		key, at := d.Member(i)
		if at < 0 {
			return -1
		}
		if d.recordings {
			end, known := d.replayProperty(key, at, depth+1, found)
			if end < 0 {
				return -1
			}
			if known {
				i, more = d.Next(end)
				continue
			}
		}
		end := d.Value(at, depth+1)
		if end < 0 {
			return -1
		}
		here := jsonscan.SpanOf(at, end)
		switch len(key) {
		case len("$set"), len("$groups"), len("$set_once"), len("$group_set"):
			if d.Data[at] == '[' && IsEmptyArray(key, here.In(d.Data)) {
				found.marks |= markEmptyArray
			}
		case len("token"):
			if string(key) == "token" {
				found.propToken = here
			}
		case len("distinct_id"):
			if string(key) == "distinct_id" {
				found.propDistinctID = here
			}
		case len("$ignore_sent_at"):
			if string(key) == "$ignore_sent_at" {
				found.ignoreSentAt = here
			}
		case len("$cookieless_mode"):
			switch string(key) {
			case "$cookieless_mode":
				found.cookieless = here
			case "capture_internal":
				found.internal = here
			}
		case len("$heatmap_data"):
			d.mark(found, key, here, "$heatmap_data", markHeatmapData)
		case len("$prev_pageview_pathname"):
			d.mark(found, key, here, "$prev_pageview_pathname", markPreviousPath)
		case len("$current_url"):
			d.mark(found, key, here, "$current_url", markCurrentURL)
		}
		if MaybeGateway(key) {
			found.marks |= markGateway
		}
		i, more = d.Next(end)
	}
	return i
}

// mark notes that the wanted property is there and not null.
func (d *document) mark(found *object, key []byte, value jsonscan.Span, want string, mark marks) {
	if string(key) == want && d.Present(value) != nil {
		found.marks |= mark
	}
}
