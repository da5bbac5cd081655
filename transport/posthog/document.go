package posthog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// span is a value's place in the text; the zero span is an absent value, as no value ends at 0.
type span struct{ from, to uint32 }

func (p span) in(data []byte) []byte {
	if p.to == 0 {
		return nil
	}
	return data[p.from:p.to:p.to]
}

// object is what one scan has found of an event.
type object struct {
	// isObject is not set for an element that is something else.
	isObject bool

	name, uuid, timestamp, offset      span
	token, dollarToken, apiKey         span
	distinctID, dollarDistinctID       span
	properties, set, setOnce           span
	propToken, propDistinctID          span
	cookieless, ignoreSentAt, internal span
	// marks tell which properties are there that make more work later.
	marks marks
	// replay is the place in document.replays of what only recordings have, plus one; 0: not a recording's.
	replay int32
}

// marks is a set of properties.
type marks uint8

const (
	markHeatmapData marks = 1 << iota
	markPreviousPath
	markCurrentURL
	markGateway
)

// envelope is what one scan has found around the events.
type envelope struct {
	batch, apiKey, token            span
	historical, sentAt, sentAtAlias span
}

// document is a request's JSON, found but not yet judged. It is used again for the next request.
type document struct {
	scanner
	objects []object
	// limit is how many events there may be, and how many snapshots; room is asked before there is memory for more of them.
	// full and spent say which of the two has ended a scan.
	limit       int
	room        func(events, snapshots int) bool
	full, spent bool
	envelope    envelope
	// recordings is set to look for what recordings are made of, which replays and snapshots then hold.
	recordings bool
	replays    []replay
	snapshots  []snapshot
	arena      arena
	// enveloped: the events are an envelope's batch. single: the request is one object, which is the event.
	enveloped, single bool
}

// scan finds the events of a request: an array of them, an envelope with a batch, or a single one.
func (d *document) scan(data []byte) *syntaxError {
	*d = document{
		scanner: scanner{data: data}, objects: d.objects[:0], limit: d.limit, room: d.room,
		recordings: d.recordings, replays: d.replays[:0], snapshots: d.snapshots[:0], arena: d.arena,
	}
	if end := d.root(d.space(0)); end >= 0 {
		if end = d.space(end); end < len(data) {
			d.fail(end, "unexpected text after the JSON value")
		}
	}
	return d.err
}

func (d *document) root(i int) int {
	if i >= len(d.data) {
		return d.fail(i, "expected a value")
	}
	switch d.data[i] {
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
		if d.value(i, 0) < 0 {
			return -1
		}
		return d.fail(i, "expected an event, an array of events or a batch")
	}
}

// events scans the array of events at i.
func (d *document) events(i, depth int) int {
	i = d.space(i + 1)
	if i < len(d.data) && d.data[i] == ']' {
		return i + 1
	}
	for {
		if len(d.objects) == cap(d.objects) && !d.grow() || len(d.objects) == d.limit {
			d.full = !d.spent
			return d.fail(i, "too many events")
		}
		d.objects = append(d.objects, object{})
		if i < len(d.data) && d.data[i] == '{' {
			// An event holds no events, so the slice does not move while the pointer is in use.
			i = d.event(i, depth+1, &d.objects[len(d.objects)-1], nil)
		} else {
			i = d.value(i, depth+1)
		}
		if i < 0 {
			return -1
		}
		var more bool
		if i, more = d.nextElement(i); !more {
			return i
		}
	}
}

// grow makes room for more events, if there may be more.
func (d *document) grow() bool {
	room := min(max(64, 2*cap(d.objects)), d.limit)
	if room <= cap(d.objects) {
		return false
	}
	if d.spent = !d.room(room, cap(d.snapshots)); d.spent {
		return false
	}
	d.objects = slices.Grow(d.objects, room-len(d.objects))
	return true
}

// event scans the object at i for an event's fields, and for an envelope's where around is given. Of two equal keys the last
// counts.
func (d *document) event(i, depth int, found *object, around *envelope) int {
	found.isObject = true
	if d.recordings {
		d.replays = append(d.replays, replay{})
		found.replay = int32(len(d.replays))
	}
	i, more := d.open(i, depth)
	for more {
		key, at := d.member(i)
		if at < 0 {
			return -1
		}
		var to *span
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
			end = d.value(at, depth+1)
		}
		if end < 0 {
			return -1
		}
		if to != nil {
			*to = span{uint32(at), uint32(end)}
		}
		i, more = d.next(end)
	}
	if around != nil {
		around.apiKey, around.token = found.apiKey, found.token
	}
	return i
}

// batch scans the value of an envelope's batch. Of one that stood there before nothing is left.
func (d *document) batch(i, depth int) int {
	d.objects = d.objects[:0]
	if d.recordings {
		d.replays = d.replays[:1] // The first is the envelope's own.
	}
	d.enveloped = i < len(d.data) && d.data[i] == '['
	if d.enveloped {
		return d.events(i, depth)
	}
	return d.value(i, depth)
}

// properties scans an event's properties for the few that the protocol reads.
func (d *document) properties(i, depth int, found *object) int {
	found.propToken, found.propDistinctID = span{}, span{}
	found.cookieless, found.ignoreSentAt, found.internal = span{}, span{}, span{}
	found.marks = 0
	if d.recordings {
		r := &d.replays[found.replay-1]
		*r = replay{sentAt: r.sentAt}
	}
	if i >= len(d.data) || d.data[i] != '{' {
		return d.value(i, depth)
	}
	i, more := d.open(i, depth)
	for more {
		key, at := d.member(i)
		if at < 0 {
			return -1
		}
		if d.recordings {
			end, known := d.replayProperty(key, at, depth+1, found)
			if end < 0 {
				return -1
			}
			if known {
				i, more = d.next(end)
				continue
			}
		}
		end := d.value(at, depth+1)
		if end < 0 {
			return -1
		}
		here := span{uint32(at), uint32(end)}
		switch len(key) {
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
		if maybeGateway(key) {
			found.marks |= markGateway
		}
		i, more = d.next(end)
	}
	return i
}

// mark notes that a property is there and not null.
func (d *document) mark(found *object, key []byte, value span, want string, mark marks) {
	if string(key) == want && d.present(value) != nil {
		found.marks |= mark
	}
}

// open enters the object at i: it returns the place of the first key, or with more false the place after an empty object.
func (s *scanner) open(i, depth int) (at int, more bool) {
	if depth >= maxDepth {
		return s.fail(i, fmt.Sprintf("nested deeper than %d levels", maxDepth)), false
	}
	i = s.space(i + 1)
	if i < len(s.data) && s.data[i] == '}' {
		return i + 1, false
	}
	return i, true
}

// maxEscapedKey is how long a key that the protocol knows can be with every character escaped.
const maxEscapedKey = 6 * len("disable_skew_correction")

// member reads the key at i and returns it, without quotes and escapes, with the place of its value.
func (s *scanner) member(i int) (key []byte, at int) {
	if i >= len(s.data) || s.data[i] != '"' {
		return nil, s.fail(i, "expected a string as key")
	}
	before := s.escapes
	end := s.str(i)
	if end < 0 {
		return nil, -1
	}
	key = s.data[i+1 : end-1]
	if s.escapes != before && len(key) <= maxEscapedKey {
		key = []byte(text(s.data[i:end]))
	}
	return key, s.colon(end)
}

// next goes on after a member's value: to the next key, or with more false to the place after the object.
func (s *scanner) next(i int) (at int, more bool) {
	i = s.space(i)
	if i < len(s.data) {
		switch s.data[i] {
		case ',':
			return s.space(i + 1), true
		case '}':
			return i + 1, false
		}
	}
	return s.fail(i, "expected , or } in object"), false
}

// nextElement goes on after an array's element: to the next one, or with more false to the place after the array.
func (s *scanner) nextElement(i int) (at int, more bool) {
	i = s.space(i)
	if i < len(s.data) {
		switch s.data[i] {
		case ',':
			return s.space(i + 1), true
		case ']':
			return i + 1, false
		}
	}
	return s.fail(i, "expected , or ] in array"), false
}

// present returns a value's text, or nil where it is absent or null.
func (s *scanner) present(at span) []byte {
	raw := at.in(s.data)
	if len(raw) == 4 && raw[0] == 'n' {
		return nil
	}
	return raw
}

// text returns what a JSON string that has been scanned says. Without escapes it aliases raw.
func text(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return alias(inner)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		panic("posthog: a scanned string is not JSON: " + err.Error())
	}
	return s
}
