package usage

import (
	"time"

	"github.com/opencapture/capture/modules/events"
)

// counts is how the events of one resource of a token have ended on a day.
type counts struct {
	received, accepted, duplicates, bytes uint64

	// ended has the other events.
	ended []ending
}

// ending counts the events that ended in one way for one reason.
type ending struct {
	state  events.State
	reason events.Reason
	n      uint64
}

// maxEndings bounds the ways to end. Reasons are words of the program, so there are fewer, unless a module makes them
// from input.
const maxEndings = 64

// reasonFurther stands for the reasons beyond maxEndings.
const reasonFurther events.Reason = "further_reasons"

func (c *counts) end(state events.State, reason events.Reason, n uint64) {
	for i := range c.ended {
		if c.ended[i].state == state && c.ended[i].reason == reason {
			c.ended[i].n += n
			return
		}
	}
	if len(c.ended) >= maxEndings && reason != reasonFurther {
		c.end(state, reasonFurther, n)
		return
	}
	c.ended = append(c.ended, ending{state, reason, n})
}

func (c *counts) add(other *counts) {
	c.received += other.received
	c.accepted += other.accepted
	c.duplicates += other.duplicates
	c.bytes += other.bytes
	for _, e := range other.ended {
		c.end(e.state, e.reason, e.n)
	}
}

// sums are the counts of one batch. They need no memory of their own unless the events end in many ways.
type sums struct {
	of    [events.ResourceCount]counts
	few   [usualEndings]resourceEnding
	ended int // how many of few there are
	more  []resourceEnding
}

// resourceEnding is an ending of events of a resource.
type resourceEnding struct {
	ending

	resource events.Resource
}

// usualEndings is how many ways to end the events of a batch may have without an allocation.
const usualEndings = 6

// sumUp counts a batch whose events have ended.
func (s *sums) sumUp(batch *events.Batch) {
	for i := range batch.Events {
		event := &batch.Events[i]
		resource := event.Resource()
		c := &s.of[resource]
		c.received++
		switch outcome := &event.Outcome; outcome.State {
		case events.StateAccepted:
			c.accepted++
			if outcome.Reason == events.ReasonDuplicate {
				c.duplicates++
				continue
			}
			c.bytes += size(event)
		case events.StatePending:
			s.end(resource, events.StateFailed, events.ReasonUnsettled) // as the ledger counts it
		default:
			s.end(resource, outcome.State, outcome.Reason)
		}
	}
}

// end counts an event that was not accepted.
func (s *sums) end(resource events.Resource, state events.State, reason events.Reason) {
	for i := range s.ended {
		if s.few[i].is(resource, state, reason) {
			s.few[i].n++
			return
		}
	}
	ended := resourceEnding{ending{state, reason, 1}, resource}
	if s.ended < len(s.few) {
		s.few[s.ended] = ended
		s.ended++
		return
	}
	for i := range s.more {
		if s.more[i].is(resource, state, reason) {
			s.more[i].n++
			return
		}
	}
	s.more = append(s.more, ended)
}

func (e *resourceEnding) is(resource events.Resource, state events.State, reason events.Reason) bool {
	return e.resource == resource && e.state == state && e.reason == reason
}

// addTo adds the counts to those of a day.
func (s *sums) addTo(row *daily) {
	for i := range s.of {
		if c := &s.of[i]; c.received > 0 {
			row.add(events.Resource(i), c)
		}
	}
	for _, list := range [...][]resourceEnding{s.few[:s.ended], s.more} {
		for i := range list {
			e := &list[i]
			row.of[e.resource].end(e.state, e.reason, e.n)
		}
	}
}

// size is the length of the JSON of the event's content.
func size(event *events.Event) uint64 {
	if recording := event.Recording; recording != nil {
		n := 0
		for i := range recording.Items {
			n += len(recording.Items[i].JSON)
		}
		return uint64(n)
	}
	return uint64(len(event.Raw.Properties) + len(event.Raw.Set) + len(event.Raw.SetOnce))
}

// day is a day of UTC: the number of days since 1970-01-01.
type day int32

const secondsOfDay = 24 * 60 * 60

func dayOf(t time.Time) day {
	seconds := t.Unix()
	if seconds < 0 {
		seconds -= secondsOfDay - 1
	}
	return day(seconds / secondsOfDay)
}

func (d day) begin() time.Time { return time.Unix(int64(d)*secondsOfDay, 0).UTC() }
func (d day) end() time.Time   { return (d + 1).begin() }
func (d day) String() string   { return d.begin().Format(time.DateOnly) }

// parseDay reads a day such as 2026-11-30.
func parseDay(text string) (day, error) {
	t, err := time.Parse(time.DateOnly, text)
	return dayOf(t), err
}

// daily is what a token has sent on one day.
type daily struct {
	day day
	// since is when the counting began, in nanoseconds since 1970.
	since int64
	of    [events.ResourceCount]*counts
}

func (d *daily) add(resource events.Resource, c *counts) {
	if d.of[resource] == nil {
		d.of[resource] = &counts{}
	}
	d.of[resource].add(c)
}
