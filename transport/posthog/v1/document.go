package v1

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/posthog"
)

// The properties that the service writes into an event, in this order. The client sends the first two beside the
// properties and the next four in the options. The last two are the name and the version of its SDK.
const (
	spliceSession = iota
	spliceWindow
	spliceCookieless
	spliceIgnoreSentAt
	spliceProductTour
	splicePersonProfile
	spliceLib
	spliceLibVersion
	splices

	// splicesGiven is how many of these properties the event itself can give.
	splicesGiven = spliceLib
)

// spliceKeys are the keys of these properties as they are written.
var spliceKeys = [splices]string{
	`"$session_id":`, `"$window_id":`, `"$cookieless_mode":`, `"$ignore_sent_at":`, `"$product_tour_id":`,
	`"$process_person_profile":`, `"$lib":`, `"$lib_version":`,
}

// object is what a scan has found in one event.
type object struct {
	// isObject is set unless the element is something else than an object, deep if it holds what is nested too deep.
	isObject, deep bool
	// empty is set if the properties have no members. owns says which of the properties above are among them, with a
	// bit for each.
	empty bool
	owns  uint8
	// gateway is set if one of the properties may be such that only PostHog's AI gateway may set it.
	gateway bool
	// emptyArray is set if one of the properties is an empty array where an object is due.
	emptyArray bool

	name, uuid, distinctID, timestamp, properties, options jsonscan.Span
	// given holds the values that are to be written into the properties.
	given [splicesGiven]jsonscan.Span
	// ownCookieless and ownIgnoreSentAt are the values that the properties themselves have.
	ownCookieless, ownIgnoreSentAt jsonscan.Span
}

// document is what a scan has found in a request's JSON, before it is judged. Its memory is used again for the next
// request.
type document struct {
	jsonscan.Scanner
	objects []object
	// limit is how many events there may be. more makes room for so many of them in all. refused is the error with
	// which one of the two has ended a scan.
	limit   int
	more    func(n int) *events.Error
	refused *events.Error

	createdAt, batchAt, historical, internal jsonscan.Span
}

// scan finds the events of a request, which must be an object. Of two equal keys the last counts.
func (d *document) scan(data []byte) *jsonscan.SyntaxError {
	*d = document{
		Scanner: jsonscan.Scanner{Data: data, PassDeep: true}, objects: d.objects[:0], limit: d.limit, more: d.more,
	}
	end := d.Space(0)
	if end < len(data) && data[end] == '{' {
		end = d.envelope(end)
	} else if end = d.Value(end, 0); end >= 0 {
		d.Fail(0, "expected an object")
	}
	return d.End(end)
}

func (d *document) envelope(i int) int {
	i, more := d.Open(i, 0)
	for more {
		key, at := d.Member(i)
		if at < 0 {
			return -1
		}
		var to *jsonscan.Span
		end := 0
		switch string(key) {
		case "batch":
			to = &d.batchAt
			end = d.events(at, 1)
		case "created_at":
			to = &d.createdAt
		case "historical_migration":
			to = &d.historical
		case "capture_internal":
			to = &d.internal
		}
		if i, more = d.rest(at, end, 1, to); i < 0 {
			return -1
		}
	}
	return i
}

// rest notes where a member's value lies and goes on to the next member. If end is 0, rest first skips the value.
func (d *document) rest(at, end, depth int, to *jsonscan.Span) (next int, more bool) {
	if end == 0 {
		end = d.Value(at, depth)
	}
	if end < 0 {
		return -1, false
	}
	if to != nil {
		*to = jsonscan.SpanOf(at, end)
	}
	return d.Next(end)
}

// events scans the batch at i.
func (d *document) events(i, depth int) int {
	d.objects = d.objects[:0]
	if i >= len(d.Data) || d.Data[i] != '[' {
		return d.Value(i, depth)
	}
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
			i = d.event(i, depth+1, &d.objects[len(d.objects)-1])
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
	d.refused = d.more(min(2*cap(d.objects), d.limit))
	return d.refused == nil
}

// within reports whether there may be more than n events.
func (d *document) within(n int) bool {
	if n >= d.limit {
		d.refused = events.Errorf(events.TooLarge, "the request holds more than %d events", d.limit)
	}
	return d.refused == nil
}

func (d *document) event(i, depth int, found *object) int {
	found.isObject = true
	deep := d.Deep
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
		case "distinct_id":
			to = &found.distinctID
		case "timestamp":
			to = &found.timestamp
		case "session_id":
			to = &found.given[spliceSession]
		case "window_id":
			to = &found.given[spliceWindow]
		case "options":
			to = &found.options
			end = d.eventOptions(at, depth+1, found)
		case "properties":
			to = &found.properties
			end = d.eventProperties(at, depth+1, found)
		}
		if i, more = d.rest(at, end, depth+1, to); i < 0 {
			return -1
		}
	}
	found.deep = d.Deep > deep
	return i
}

func (d *document) eventOptions(i, depth int, found *object) int {
	clear(found.given[spliceCookieless : splicePersonProfile+1])
	if i >= len(d.Data) || d.Data[i] != '{' {
		return d.Value(i, depth)
	}
	i, more := d.Open(i, depth)
	for more {
		key, at := d.Member(i)
		if at < 0 {
			return -1
		}
		var to *jsonscan.Span
		switch string(key) {
		case "cookieless_mode":
			to = &found.given[spliceCookieless]
		case "disable_skew_correction":
			to = &found.given[spliceIgnoreSentAt]
		case "product_tour_id":
			to = &found.given[spliceProductTour]
		case "process_person_profile":
			to = &found.given[splicePersonProfile]
		}
		if i, more = d.rest(at, 0, depth+1, to); i < 0 {
			return -1
		}
	}
	return i
}

func (d *document) eventProperties(i, depth int, found *object) int {
	found.owns, found.empty, found.gateway, found.emptyArray = 0, false, false, false
	found.ownCookieless, found.ownIgnoreSentAt = jsonscan.Span{}, jsonscan.Span{}
	if i >= len(d.Data) || d.Data[i] != '{' {
		return d.Value(i, depth)
	}
	i, more := d.Open(i, depth)
	found.empty = !more
	for more {
		key, at := d.Member(i)
		if at < 0 {
			return -1
		}
		end := d.Value(at, depth+1)
		if end < 0 {
			return -1
		}
		var to *jsonscan.Span
		if len(key) > 0 && key[0] == '$' {
			to = found.own(key)
			found.emptyArray = found.emptyArray || posthog.IsEmptyArray(key, d.Data[at:end])
		}
		found.gateway = found.gateway || posthog.MaybeGateway(key)
		if i, more = d.rest(at, end, depth+1, to); i < 0 {
			return -1
		}
	}
	return i
}

// own notes that the properties themselves have a key. It returns where the place of the key's value is to be kept, or
// nil if nobody needs it.
func (o *object) own(key []byte) *jsonscan.Span {
	switch string(key) {
	case "$session_id":
		o.owns |= 1 << spliceSession
	case "$window_id":
		o.owns |= 1 << spliceWindow
	case "$cookieless_mode":
		o.owns |= 1 << spliceCookieless
		return &o.ownCookieless
	case "$ignore_sent_at":
		o.owns |= 1 << spliceIgnoreSentAt
		return &o.ownIgnoreSentAt
	case "$product_tour_id":
		o.owns |= 1 << spliceProductTour
	case "$process_person_profile":
		o.owns |= 1 << splicePersonProfile
	case "$lib":
		o.owns |= 1 << spliceLib
	case "$lib_version":
		o.owns |= 1 << spliceLibVersion
	}
	return nil
}
