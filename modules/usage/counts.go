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

// sums are the counts of one batch.
type sums struct {
	of [events.ResourceCount]counts
}

// usualEndings is how many ways to end the events of a batch may have, for each resource, without an allocation.
const usualEndings = 4

// sumUp counts a batch whose events have ended. room has usualEndings for each resource.
func (s *sums) sumUp(batch *events.Batch, room *[events.ResourceCount][usualEndings]ending) {
	for i := range s.of {
		s.of[i].ended = room[i][:0]
	}
	for i := range batch.Events {
		event := &batch.Events[i]
		c := &s.of[event.Resource()]
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
			c.end(events.StateFailed, events.ReasonUnsettled, 1) // as the ledger counts it
		default:
			c.end(outcome.State, outcome.Reason, 1)
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
