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
	// node is where it was sent to, and life which process that was: one in a row over all nodes.
	node string
	life int64
	// user is the distinct_id.
	user string
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
	var all passes
	j.of(token, rate.Resource, func(e *sent) { all.add(e, j.passes(e)) })
	v.over = all.over(rate, 0)
	return v
}

// coldShare is the part of a rate, one in so many, that a process lets a user send by its own account.
const coldShare = 8

// userRate judges the rate of each user: in no time t pass more than burst + rate * t of a user by the account of all
// nodes, and an eighth of that by each process of a node. A process that is started anew does not know what the one
// before let pass.
func (j *judge) userRate(token string, rate events.Rate) verdict {
	v := j.tell(token, rate.Resource)
	users := map[string]*passes{}
	j.of(token, rate.Resource, func(e *sent) {
		if users[e.user] == nil {
			users[e.user] = new(passes)
		}
		users[e.user].add(e, j.passes(e))
	})
	for _, all := range users {
		v.over = max(v.over, all.over(rate, coldShare))
	}
	return v
}

// passes are the events that have passed, by their requests.
type passes struct {
	all []pass
	// at says where a request stands: its events have the same times and the same node.
	at map[pass]int
}

// pass is n events that have passed between two times.
type pass struct {
	from, to time.Time
	life     int64
	n        int64
}

func (p *passes) add(e *sent, n int) {
	if n == 0 {
		return
	}
	one := pass{from: e.from, to: e.to, life: e.life}
	place, known := p.at[one]
	if !known {
		if p.at == nil {
			p.at = map[pass]int{}
		}
		place = len(p.all)
		p.at[one] = place
		p.all = append(p.all, one)
	}
	p.all[place].n += int64(n)
}

// over returns how many too many have passed in the worst time. If share is not 0, each process may let one in share
// of what the rate allows pass beside it.
func (p *passes) over(rate events.Rate, share int64) (most int64) {
	slices.SortFunc(p.all, func(a, b pass) int { return cmp.Compare(a.to.UnixNano(), b.to.UnixNano()) })
	for i := range p.all {
		start, sum, lives := p.all[i].from, int64(0), map[int64]bool{}
		// The events that were sent at or after start have passed between start and the end of the last of them.
		for k := range p.all {
			one := &p.all[k]
			if one.from.Before(start) {
				continue
			}
			sum += one.n
			lives[one.life] = true
			room := rate.Burst + int64(one.to.Sub(start)/rate.Interval())
			if share > 0 {
				room += int64(len(lives)) * (room / share)
			}
			most = max(most, sum-room)
		}
	}
	return most
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
