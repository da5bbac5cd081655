package sdk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// told is an event that a driver told its SDK to send.
type told struct {
	User  string `json:"user"`
	Event string `json:"event"`
	// ID is unique in the script, or empty where the SDK's call takes no properties.
	ID string `json:"id"`
}

// script is what a driver announced, in the order of its calls.
type script struct {
	told []told
	// auto holds the events that the SDK sends of its own accord, each with the least number that must arrive.
	auto map[string]int
}

// readScript reads a driver's output.
func readScript(output []byte) (script, error) {
	s := script{auto: map[string]int{}}
	ids := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(output))
	lines.Buffer(nil, len(output)+1)
	for lines.Scan() {
		var line struct {
			told
			Auto string `json:"auto"`
			Min  int    `json:"min"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return script{}, fmt.Errorf("the driver printed %q: %w", lines.Text(), err)
		}
		switch {
		case line.Auto != "":
			s.auto[line.Auto] += line.Min
		case line.Event == "" || line.User == "":
			return script{}, fmt.Errorf("the driver printed %q, which has no event or no user", lines.Text())
		case line.ID != "" && ids[line.ID]:
			return script{}, fmt.Errorf("the driver printed the id %q twice", line.ID)
		default:
			ids[line.ID] = true
			s.told = append(s.told, line.told)
		}
	}
	return s, lines.Err()
}

// stored is an event as it lies in Kafka.
type stored struct {
	told
	topic     string
	partition int32
}

// result is what became of a script.
type result struct {
	// sent is how many events the driver told, kafka how many of these lie in Kafka, copies included.
	sent, kafka int
	// auto is how many events the SDK has sent of its own accord.
	auto                   int
	duplicates, misordered int
	// faults says in words what is not as it must be, one for each event concerned.
	faults []string
}

func (r *result) faultf(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// compare holds what lies in Kafka, in the order of each partition, against the script: every event is there
// once, with its name and its user as told, and within a topic the events of a user are in one partition and
// in the order of the calls.
func compare(s script, messages []stored) result {
	r := result{sent: len(s.told)}
	byID := map[string]int{}
	// What has no id is told apart by its name and user alone, so the first told is taken to be the first to arrive.
	nameless := map[told][]int{}
	for i, t := range s.told {
		if t.ID != "" {
			byID[t.ID] = i
		} else {
			nameless[t] = append(nameless[t], i)
		}
	}

	type lane struct{ topic, user string }
	type position struct {
		partition int32
		last      int
	}
	lanes := map[lane]position{}
	copies := make([]int, len(s.told))
	auto := map[string]int{}
	for _, m := range messages {
		place, known := byID[m.ID]
		if waiting := nameless[m.told]; m.ID == "" && len(waiting) > 0 {
			place, known = waiting[0], true
			// The last one stays, so that one more is found to be a copy of it.
			if len(waiting) > 1 {
				nameless[m.told] = waiting[1:]
			}
		}
		_, announced := s.auto[m.Event]
		switch {
		case known:
		case m.ID == "" && announced:
			auto[m.Event]++
			r.auto++
			continue
		default:
			r.faultf("%s of %s (id %q) in %s: nobody has told or announced it", m.Event, m.User, m.ID, m.topic)
			continue
		}

		r.kafka++
		if copies[place]++; copies[place] > 1 {
			r.duplicates++
			r.faultf("%s of %s (id %q) in %s: copy number %d", m.Event, m.User, m.ID, m.topic, copies[place])
			continue
		}
		want := s.told[place]
		if want != m.told {
			r.faultf("%s of %s (id %q) has become %s of %s", want.Event, want.User, want.ID, m.Event, m.User)
		}
		at := lane{m.topic, want.User}
		previous, seen := lanes[at]
		switch {
		case !seen:
			previous = position{partition: m.partition, last: place}
		case previous.partition != m.partition:
			r.misordered++
			r.faultf("%s of %s (id %q) in %s: in partition %d, but the user's events before it in %d", m.Event, m.User,
				m.ID, m.topic, m.partition, previous.partition)
		case place < previous.last:
			r.misordered++
			r.faultf("%s of %s (id %q) in %s: behind %s (id %q), which was told later",
				m.Event, m.User, m.ID, m.topic, s.told[previous.last].Event, s.told[previous.last].ID)
		}
		previous.last = max(previous.last, place)
		lanes[at] = previous
	}

	for i, n := range copies {
		if n == 0 {
			r.faultf("%s of %s (id %q): missing", s.told[i].Event, s.told[i].User, s.told[i].ID)
		}
	}
	names := make([]string, 0, len(s.auto))
	for name := range s.auto {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if auto[name] < s.auto[name] {
			r.faultf("%s, which the SDK sends of its own accord: at least %d must arrive, %d did", name,
				s.auto[name], auto[name])
		}
	}
	return r
}
