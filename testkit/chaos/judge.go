package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Judge holds what lies in Kafka against what was acknowledged. Tell it the histories, then each message once, then ask for
// the verdict.
//
// An obligation is an event of a batch that was answered 200. It is
//
//   - lost if there is no intact copy of it in any topic;
//   - duplicated as often as there are copies beyond its first. Delivery is at-least-once, so a verdict only counts them;
//   - reordered if it comes too late: behind another obligation of its key that was to come after it.
//
// What that is depends on what the client was told. Let e1 and e2 be obligations of one key, e1 the earlier, and let first and
// last be the offsets of the first and the last of all their copies, those of unanswered and refused attempts included.
//
//   - In different batches, e2 was first sent after an attempt of e1 was acknowledged. Whatever became of the other attempts,
//     that one has put a copy of e1 in front of everything that was ever sent of e2. So e1 is reordered if first(e2) < first(e1).
//   - In one batch that was acknowledged at its first attempt, the same holds: the batch has an order, and was sent once.
//   - In one batch that was sent several times, an attempt that failed may have left a copy of e2 without one of e1: no one was
//     promised anything about it. The attempt that was acknowledged has left e1 in front of e2, so there is an e2 behind that
//     e1. So e1 is reordered if last(e2) < first(e1).
//
// Lost events have no order. Each event counts once, with however many others it is in the wrong order; so no event is reordered
// exactly if no pair is. All copies of a key have to be in one partition, since there is no order between two: an event with a
// copy elsewhere than the key's first is reordered too. Copies in the dead letter topic have arrived, and have no order.
type Judge struct {
	loads map[uint32]*load
	// dlq, mangled and unknown are counted as Verdict says.
	dlq, mangled, unknown int
	excused               map[Event]bool
}

type load struct {
	*History
	// keys are the copies by worker*Keys+key and number.
	keys [][]copies
	// where is the partition of each key, plus one; 0 if there is no copy yet.
	where []int32
}

// copies is what was seen of an event. first and last are offsets.
type copies struct {
	first, last int64
	count       uint32
	elsewhere   bool
}

// NewJudge returns a judge of these histories.
func NewJudge(histories ...*History) *Judge {
	j := &Judge{loads: make(map[uint32]*load), excused: make(map[Event]bool)}
	for _, history := range histories {
		keys := history.Workers * history.Keys
		j.loads[history.ID] = &load{History: history, keys: make([][]copies, keys), where: make([]int32, keys)}
	}
	return j
}

// Copy is a message as a judge looks at it.
type Copy struct {
	// ID is the uuid, as the message's header has it.
	ID []byte
	// Value is the whole message.
	Value []byte
	// Partition counts those of all topics; Offset is within it.
	Partition int32
	Offset    int64
	// DLQ says that the message lies in the dead letter topic.
	DLQ bool
}

// Excuse tells the judge that an event has been damaged on purpose: it is counted apart if it is lost.
func (j *Judge) Excuse(e Event) { j.excused[e] = true }

// See tells the judge a message.
func (j *Judge) See(c Copy) {
	id, err := uuid.ParseBytes(c.ID)
	if err != nil {
		j.unknown++
		return
	}
	e, ok := EventOf(id)
	l := j.loads[e.Load]
	if !ok || l == nil || e.Worker >= l.Workers || e.Key >= l.Keys {
		j.unknown++
		return
	}
	if !intact(c.Value, e, l.Pad) {
		j.mangled++
		return
	}
	key := e.Worker*l.Keys + e.Key
	for len(l.keys[key]) <= e.Number {
		l.keys[key] = append(l.keys[key], copies{first: math.MaxInt64, last: -1})
	}
	seen := &l.keys[key][e.Number]
	seen.count++
	if c.DLQ {
		j.dlq++
		return
	}
	if l.where[key] == 0 {
		l.where[key] = c.Partition + 1
	}
	if l.where[key] != c.Partition+1 {
		seen.elsewhere = true
		return
	}
	seen.first, seen.last = min(seen.first, c.Offset), max(seen.last, c.Offset)
}

// intact tells whether a message is the event that was sent, and whole.
func intact(value []byte, e Event, pad int) bool {
	want := make([]byte, 0, 64+pad)
	want = append(want, `\"properties\":{\"n\":`...)
	want = strconv.AppendInt(want, int64(e.Number), 10)
	want = append(want, `,\"pad\":\"`...)
	want = append(want, e.pad(pad)...)
	want = append(want, `\"}`...)
	return bytes.Contains(value, want) && bytes.Contains(value, []byte(`"uuid":"`+e.UUID().String()+`"`)) && json.Valid(value)
}

// Verdict is what a judge has found.
type Verdict struct {
	// Acked is the number of obligations; Lost, Duplicated and Reordered are as Judge says.
	Acked, Lost, Duplicated, Reordered int
	// Damaged is how many are lost that the judge was told to excuse; they are not in Lost.
	Damaged int
	// DLQ counts copies in the dead letter topic. Mangled counts messages that are not what was sent under their id, and Unknown
	// those with an id that nobody has sent.
	DLQ, Mangled, Unknown int
	// P99 is the 99th percentile of the latency of acknowledged requests.
	P99 time.Duration
	// ByAck is how many events were acknowledged in each way, Resent how many only after several attempts.
	ByAck  map[string]int
	Resent int
	// Refused and Unanswered count attempts to send a batch.
	Refused, Unanswered int
	// Missing are some of the lost.
	Missing []Event
}

// Verdict says what became of every obligation.
func (j *Judge) Verdict() Verdict {
	v := Verdict{DLQ: j.dlq, Mangled: j.mangled, Unknown: j.unknown, ByAck: make(map[string]int)}
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

// missing is how many of the lost a verdict names.
const missing = 5

// judge goes through a key's obligations from the last to the first.
func (j *Judge) judge(v *Verdict, l *load, e Event, batches []Batch) {
	seen := l.keys[e.Worker*l.Keys+e.Key]
	// later is the least offset of a first copy in the batches behind.
	later := int64(math.MaxInt64)
	for i := len(batches) - 1; i >= 0; i-- {
		// here is the same of the events behind in this batch, or of their last copies, as their attempts command.
		here, firsts := int64(math.MaxInt64), int64(math.MaxInt64)
		for k := l.PerKey - 1; k >= 0; k-- {
			e.Number = i*l.PerKey + k
			if e.Number >= len(seen) || seen[e.Number].count == 0 {
				if j.excused[e] {
					v.Damaged++
					continue
				}
				v.Lost++
				if len(v.Missing) < missing {
					v.Missing = append(v.Missing, e)
				}
				continue
			}
			c := seen[e.Number]
			v.Duplicated += int(c.count) - 1
			if c.elsewhere || c.last >= 0 && (later < c.first || here < c.first) {
				v.Reordered++
			}
			if c.last < 0 {
				continue
			}
			firsts = min(firsts, c.first)
			if batches[i].Attempts > 1 {
				here = min(here, c.last)
			} else {
				here = min(here, c.first)
			}
		}
		later = min(later, firsts)
	}
}

// Line is the verdict in one line: the scenario, the figures, and what else there is to say.
func (v Verdict) Line(scenario string, further ...string) string {
	var line strings.Builder
	_, _ = fmt.Fprintf(&line, "%-24s acked=%d lost=%d duplicated=%d reordered=%d p99=%s", scenario, v.Acked, v.Lost, v.Duplicated, v.Reordered, short(v.P99))
	for _, figure := range []struct {
		name  string
		value int
	}{
		{"spooled", v.ByAck["spool"]},
		{"resent", v.Resent},
		{"refused", v.Refused}, {"unanswered", v.Unanswered},
		{"damaged", v.Damaged}, {"dlq", v.DLQ}, {"mangled", v.Mangled}, {"unknown", v.Unknown},
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

// short prints a duration with about three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}
