package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Judge compares the messages in Kafka with the events that were acknowledged. Give it the histories, then each message
// once, then ask for the verdict.
//
// An obligation is an event of a batch that was answered 200. It is
//
//   - lost if no topic holds an intact copy of it;
//   - duplicated as often as there are copies beyond the first. Delivery is at-least-once, so a verdict only counts
//     duplicates;
//   - reordered if it comes too late: behind another obligation of its key that the promise puts after it.
//
// The answers that the client got decide which order is promised. Let e1 and e2 be obligations of one key, e1 the
// earlier. Let first and last be the offsets of the first and the last of all their copies, including the copies that
// unanswered and refused attempts have left.
//
//   - In different batches, e2 was first sent after an attempt to send e1 was acknowledged. Whatever the other attempts
//     did, that attempt has put a copy of e1 in front of all copies of e2. So e1 is reordered if first(e2) < first(e1).
//   - In one batch that was acknowledged at its first attempt, the same holds: the batch has an order, and was sent
//     once.
//   - In one batch that was sent several times, a failed attempt may have left a copy of e2 without one of e1, because
//     a failed attempt promises nothing. The acknowledged attempt has left e1 in front of e2, so a copy of e2 lies
//     behind that copy of e1. So e1 is reordered if last(e2) < first(e1).
//
// Lost events have no order. Each event counts once, however many pairs it is in the wrong order in; so no event is
// reordered exactly if no pair is. All copies of a key have to be in one partition, because there is no order between
// two partitions. So an event with a copy outside the partition of the key's first copy is reordered too, unless
// KeysMove was called. Copies in the dead letter topic have arrived, and have no order.
//
// A dead letter is innocent if its event is not guilty, or if it gives another reason than the load's shape does.
type Judge struct {
	loads  map[uint32]*load
	places map[place]int
	moving bool
	// Verdict documents dlq, innocent, mangled and unknown.
	dlq, innocent, mangled, unknown int
	excused                         map[Event]bool
	excuses                         []func(Batch) bool
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

type load struct {
	*History
	// keys holds what the judge has seen of each key, at worker*Keys+key.
	keys []key
}

// key is what the judge has seen of the events of one key, by their numbers.
type key struct {
	seen []seen
	// places are the partitions with copies of the key's events. The partition that was seen first comes first.
	places []copies
}

// seen counts the copies of an event. elsewhere is set if one of them is not in the key's first partition.
type seen struct {
	count     uint32
	elsewhere bool
}

// copies holds the offsets of a key's events in one partition, by their numbers.
type copies struct {
	place int
	spans []span
}

// span is the offsets of the first and the last copy of an event. last is -1 if there is no copy.
type span struct{ first, last int64 }

// of returns the span of an event's copies.
func (c *copies) of(number int) span {
	if number < len(c.spans) {
		return c.spans[number]
	}
	return none
}

var none = span{first: math.MaxInt64, last: -1}

// NewJudge returns a judge of these histories.
func NewJudge(histories ...*History) *Judge {
	j := &Judge{loads: make(map[uint32]*load), places: make(map[place]int), excused: make(map[Event]bool)}
	for _, history := range histories {
		j.loads[history.ID] = &load{History: history, keys: make([]key, history.Workers*history.Keys)}
	}
	return j
}

// KeysMove tells the judge that topics have got more partitions, so that a key may move from one partition to another.
// Kafka has no order between two partitions, so the judge then looks only at the order within each.
func (j *Judge) KeysMove() { j.moving = true }

// Copy is a message as the judge looks at it.
type Copy struct {
	// ID is the uuid from the message's header.
	ID []byte
	// Value is the whole message.
	Value []byte
	// Topic and Partition say where the message lies; Offset is within the partition.
	Topic     string
	Partition int32
	Offset    int64
	// DLQ says that the message lies in the dead letter topic. Reason is the reason in its header.
	DLQ    bool
	Reason string
}

// Excuse tells the judge that an event has been damaged on purpose. If the event is lost, Verdict.Damaged counts it.
func (j *Judge) Excuse(e Event) { j.excused[e] = true }

// ExcuseBatches tells the judge that acknowledged batches may be lost if yes returns true of them. Verdict.Excused
// counts their lost events.
func (j *Judge) ExcuseBatches(yes func(Batch) bool) { j.excuses = append(j.excuses, yes) }

// See tells the judge a message.
func (j *Judge) See(c Copy) {
	l, e := j.find(c.ID)
	if l == nil {
		return
	}
	if !intact(c.Value, e, l.Shape) {
		j.mangled++
		return
	}
	k, seen := l.see(e)
	if c.DLQ {
		j.letter(l, e, c.Reason)
		return
	}
	at := j.place(c.Topic, c.Partition)
	seen.elsewhere = seen.elsewhere || len(k.places) > 0 && k.places[0].place != at
	copies := k.in(at)
	for len(copies.spans) <= e.Number {
		copies.spans = append(copies.spans, none)
	}
	offsets := &copies.spans[e.Number]
	offsets.first, offsets.last = min(offsets.first, c.Offset), max(offsets.last, c.Offset)
}

// SeeLetter tells the judge a dead letter of which only the uuid and the reason are known.
func (j *Judge) SeeLetter(id, reason string) {
	if l, e := j.find([]byte(id)); l != nil {
		l.see(e)
		j.letter(l, e, reason)
	}
}

// find returns the load and the event of a message. It returns nil for a message that nobody has sent, and counts that
// one.
func (j *Judge) find(text []byte) (*load, Event) {
	id, err := uuid.ParseBytes(text)
	if err != nil {
		j.unknown++
		return nil, Event{}
	}
	e, ok := EventOf(id)
	l := j.loads[e.Load]
	if !ok || l == nil || e.Worker >= l.Workers || e.Key >= l.Keys {
		j.unknown++
		return nil, Event{}
	}
	return l, e
}

// letter counts a dead letter.
func (j *Judge) letter(l *load, e Event, reason string) {
	j.dlq++
	if !l.IsGuilty(e) || reason != l.Reason {
		j.innocent++
	}
}

// place returns the number of a partition.
func (j *Judge) place(topic string, partition int32) int {
	at := place{topic, partition}
	if _, known := j.places[at]; !known {
		j.places[at] = len(j.places)
	}
	return j.places[at]
}

// see counts a copy of an event.
func (l *load) see(e Event) (*key, *seen) {
	k := &l.keys[e.Worker*l.Keys+e.Key]
	for len(k.seen) <= e.Number {
		k.seen = append(k.seen, seen{})
	}
	k.seen[e.Number].count++
	return k, &k.seen[e.Number]
}

// in returns the key's copies in a partition.
func (k *key) in(place int) *copies {
	for i := range k.places {
		if k.places[i].place == place {
			return &k.places[i]
		}
	}
	k.places = append(k.places, copies{place: place})
	return &k.places[len(k.places)-1]
}

// intact reports whether a message holds the whole event as it was sent.
func intact(value []byte, e Event, shape Shape) bool {
	pad := shape.padOf(e)
	want := make([]byte, 0, 64+pad)
	want = append(want, `\"properties\":{\"n\":`...)
	want = strconv.AppendInt(want, int64(e.Number), 10)
	want = append(want, `,\"pad\":\"`...)
	want = append(want, e.pad(pad)...)
	want = append(want, `\"}`...)
	return bytes.Contains(value, want) &&
		bytes.Contains(value, []byte(`"uuid":"`+e.UUID().String()+`"`)) && json.Valid(value)
}

// Verdict is the result of a judge.
type Verdict struct {
	// Acked is the number of obligations. Judge defines Lost, Duplicated and Reordered.
	Acked, Lost, Duplicated, Reordered int
	// Caught is how many of the duplicates are of batches that a service had when it was killed: a storm says of which.
	Caught int
	// Damaged and Excused count the lost events that the judge was told to excuse, by the event and by the batch. Lost
	// does not count them.
	Damaged, Excused int
	// DLQ counts dead letters, and Innocent the dead letters that should be none. Mangled counts messages that differ
	// from the event that was sent under their id. Unknown counts messages with an id that nobody has sent.
	DLQ, Innocent, Mangled, Unknown int
	// P99 is the 99th percentile of the latency of acknowledged requests.
	P99 time.Duration
	// ByAck counts the acknowledged events by the way of their acknowledgement. Resent counts the events that were
	// acknowledged only after several attempts.
	ByAck  map[string]int
	Resent int
	// Refused and Unanswered count attempts to send a batch.
	Refused, Unanswered int
	// Missing names some of the lost events.
	Missing []Event
}

// Verdict returns the fate of all obligations.
func (j *Judge) Verdict() Verdict {
	v := Verdict{DLQ: j.dlq, Innocent: j.innocent, Mangled: j.mangled, Unknown: j.unknown, ByAck: make(map[string]int)}
	var histories []*History
	for _, l := range j.loads {
		histories = append(histories, l.History)
		v.Acked += l.Acked()
		v.Refused += l.Refused
		v.Unanswered += l.Unanswered
		for worker, batches := range l.Batches {
			for _, batch := range batches {
				v.ByAck[batch.Ack] += l.Size()
				if batch.Attempts > 1 {
					v.Resent += l.Size()
				}
			}
			for key := range l.Keys {
				j.judge(&v, l, Event{Load: l.ID, Worker: worker, Key: key}, batches)
			}
		}
	}
	v.P99 = P99(histories...)
	return v
}

// missing is how many lost events a verdict names.
const missing = 5

// judge adds the fate of a key's obligations to the verdict.
func (j *Judge) judge(v *Verdict, l *load, e Event, batches []Batch) {
	k := &l.keys[e.Worker*l.Keys+e.Key]
	late := make([]bool, len(batches)*l.PerKey)
	for i := range k.places {
		if i == 0 || j.moving {
			k.places[i].judge(batches, l.PerKey, late)
		}
	}
	for e.Number = range late {
		if e.Number < len(k.seen) && k.seen[e.Number].count > 0 {
			seen := k.seen[e.Number]
			v.Duplicated += int(seen.count) - 1
			if batches[e.Number/l.PerKey].Caught {
				v.Caught += int(seen.count) - 1
			}
			if late[e.Number] || seen.elsewhere && !j.moving {
				v.Reordered++
			}
			continue
		}
		switch {
		case j.excused[e]:
			v.Damaged++
		case j.excuse(batches[e.Number/l.PerKey]):
			v.Excused++
		default:
			v.Lost++
			if len(v.Missing) < missing {
				v.Missing = append(v.Missing, e)
			}
		}
	}
}

func (j *Judge) excuse(batch Batch) bool {
	return slices.ContainsFunc(j.excuses, func(yes func(Batch) bool) bool { return yes(batch) })
}

// judge goes through the obligations that have copies in this partition, from the last to the first. It marks those
// that come too late.
func (c *copies) judge(batches []Batch, perKey int, late []bool) {
	// later is the least offset of a first copy in the batches behind.
	later := int64(math.MaxInt64)
	for i := len(batches) - 1; i >= 0; i-- {
		// here is the least offset among the later events of this batch: of their first copies, or of their last ones
		// if the batch was sent several times.
		here, firsts := int64(math.MaxInt64), int64(math.MaxInt64)
		for k := perKey - 1; k >= 0; k-- {
			number := i*perKey + k
			at := c.of(number)
			if at.last < 0 {
				continue
			}
			late[number] = late[number] || later < at.first || here < at.first
			firsts = min(firsts, at.first)
			if batches[i].Attempts > 1 {
				here = min(here, at.last)
			} else {
				here = min(here, at.first)
			}
		}
		later = min(later, firsts)
	}
}

// Line is the verdict in one line: the scenario, the figures, and what else there is to say.
func (v Verdict) Line(scenario string, further ...string) string {
	var line strings.Builder
	_, _ = fmt.Fprintf(&line, "%-24s acked=%d lost=%d duplicated=%d reordered=%d innocent=%d p99=%s",
		scenario, v.Acked, v.Lost, v.Duplicated, v.Reordered, v.Innocent, Short(v.P99))
	for _, figure := range []struct {
		name  string
		value int
	}{
		{"spooled", v.ByAck["spool"]},
		{"caught", v.Caught}, {"resent", v.Resent},
		{"refused", v.Refused}, {"unanswered", v.Unanswered},
		{"damaged", v.Damaged}, {"excused", v.Excused}, {"dlq", v.DLQ}, {"mangled", v.Mangled}, {"unknown", v.Unknown},
	} {
		if figure.value > 0 {
			_, _ = fmt.Fprintf(&line, " %s=%d", figure.name, figure.value)
		}
	}
	for _, what := range further {
		line.WriteString(" " + what)
	}
	return line.String()
}

// Short prints a duration with about three digits.
func Short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}
