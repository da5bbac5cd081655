package state

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
)

// answer is what a client was told of an event.
type answer uint8

const (
	// unknown: there was no answer.
	unknown answer = iota
	accepted
	limited
	failed
)

// sent is an event that was sent once. From and To are when its request was sent and when that ended: the event was
// judged between them.
type sent struct {
	id       uuid.UUID
	token    string
	resource events.Resource
	answer   answer
	from, to time.Time
	// node is where it was sent to.
	node string
}

// judge holds the events that were sent against the copies that lie in Kafka.
type judge struct {
	events []sent
	copies map[uuid.UUID]int
}

// passes returns how often an event has passed the limits. One that was answered 503 has not, wherever it is: it was
// given back.
func (j *judge) passes(e *sent) int {
	switch e.answer {
	case accepted, unknown:
		return j.copies[e.id]
	default:
		return 0
	}
}

// count returns how many events had an answer.
func (j *judge) count(told answer) (n int) {
	for i := range j.events {
		if j.events[i].answer == told {
			n++
		}
	}
	return n
}

// verdict is what a quota or rate has come to.
type verdict struct {
	// passed is how many events have passed in the whole time; over is how many too many passed in the worst window or
	// time.
	passed, over int64
	// inFlight is how many events had no answer and are not in Kafka. late is how many were answered 503 and are in
	// Kafka. lost is how many were accepted and are not in Kafka, twice how many have several copies.
	inFlight, late, lost, twice int64
}

// of calls see with each event of a token and a resource.
func (j *judge) of(token string, resource events.Resource, see func(*sent)) {
	for i := range j.events {
		if e := &j.events[i]; e.token == token && e.resource == resource {
			see(e)
		}
	}
}

// tell counts what became of the events of a token and a resource.
func (j *judge) tell(token string, resource events.Resource) (v verdict) {
	j.of(token, resource, func(e *sent) {
		copies := int64(j.copies[e.id])
		v.passed += int64(j.passes(e))
		switch {
		case e.answer == unknown && copies == 0:
			v.inFlight++
		case e.answer == failed && copies > 0:
			v.late++
		case e.answer == accepted && copies == 0:
			v.lost++
		case copies > 1:
			v.twice++
		}
	})
	return v
}

// failedAt returns how many events of a token and a resource have failed at a node since a time.
func (j *judge) failedAt(node string, since time.Time, token string, resource events.Resource) (n int64) {
	j.of(token, resource, func(e *sent) {
		if e.answer == failed && e.node == node && e.to.After(since) {
			n++
		}
	})
	return n
}

// quota judges a quota by the calendar of a zone. An event that was judged when a window may have ended belongs to
// neither window: of such an event nobody can tell which one it was counted in.
func (j *judge) quota(token string, quota events.Quota, zone *time.Location) verdict {
	v := j.tell(token, quota.Resource)
	windows := map[time.Time]int64{}
	j.of(token, quota.Resource, func(e *sent) {
		start, end := quota.Period.Window(e.from.In(zone))
		if e.to.Before(end) {
			windows[start] += int64(j.passes(e))
		}
	})
	for _, n := range windows {
		v.over = max(v.over, n-quota.Limit)
	}
	return v
}

// rate judges a rate: in no time t pass more than burst + rate * t.
func (j *judge) rate(token string, rate events.Rate) verdict {
	v := j.tell(token, rate.Resource)
	type pass struct {
		from, to time.Time
		n        int64
	}
	var all []pass
	requests := map[[2]time.Time]int{}
	j.of(token, rate.Resource, func(e *sent) {
		n := int64(j.passes(e))
		if n == 0 {
			return
		}
		// The events of a request have the same times.
		times := [2]time.Time{e.from, e.to}
		at, known := requests[times]
		if !known {
			at = len(all)
			requests[times] = at
			all = append(all, pass{from: e.from, to: e.to})
		}
		all[at].n += n
	})
	slices.SortFunc(all, func(a, b pass) int { return cmp.Compare(a.to.UnixNano(), b.to.UnixNano()) })
	for i := range all {
		start, sum := all[i].from, int64(0)
		// The events that were sent at or after start have passed between start and the end of the last of them.
		for k := range all {
			if all[k].from.Before(start) {
				continue
			}
			sum += all[k].n
			room := rate.Burst + int64(all[k].to.Sub(start)/rate.Interval())
			v.over = max(v.over, sum-room)
		}
	}
	return v
}

// line is the verdict in words.
func (v verdict) line(test, project, limit string, further string) string {
	line := fmt.Sprintf("%-28s limit=%s passed=%d over=%d in_flight=%d", test+"/"+project, limit, v.passed, v.over,
		v.inFlight)
	for _, figure := range []struct {
		name  string
		value int64
	}{{"late", v.late}, {"lost", v.lost}, {"twice", v.twice}} {
		if figure.value > 0 {
			line += fmt.Sprintf(" %s=%d", figure.name, figure.value)
		}
	}
	return line + further
}
