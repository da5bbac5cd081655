package routing

import (
	"slices"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/restriction"
)

// source is where a rule comes from. Of two rules that name a topic, the one of the later source wins.
type source uint8

const (
	fromPostHog source = iota
	fromStore
	fromConfig
	sourceCount
)

var sourceNames = [sourceCount]string{"posthog", "store", "config"}

func (s source) String() string { return sourceNames[s] }

// rule is a rule of any source. Only its count changes.
type rule struct {
	restriction.Rule
	// id names the rule in logs and headers: SOURCE/NAME.
	id string
	// lanes are the lanes that the rule concerns.
	lanes lanes
	// rank says which of two rules with one action counts that both concern an event: the one with the higher rank.
	rank int64
	// count is how many events the rule has decided about.
	count *atomic.Uint64
}

// lanes is a set of lanes.
type lanes uint16

const allLanes lanes = 1<<16 - 1

func lanesOf(all ...events.Lane) (set lanes) {
	for _, lane := range all {
		set |= 1 << lane
	}
	return set
}

func (l lanes) has(lane events.Lane) bool { return l&(1<<lane) != 0 }

// The ranks: the source counts first, then rank within the source.
const rankOfSource = 1 << 40

// newRule returns a rule of a source. rank is less than rankOfSource.
func newRule(from source, name string, of restriction.Rule, rank int64) *rule {
	return &rule{
		Rule: of, id: from.String() + "/" + name, lanes: allLanes, rank: int64(from)*rankOfSource + rank,
		count: new(atomic.Uint64),
	}
}

// fieldsOf returns how many lists of a rule have entries: the more, the more narrow the rule is.
func fieldsOf(r *restriction.Rule) (n int64) {
	for _, length := range []int{len(r.DistinctIDs), len(r.Events), len(r.Sessions), len(r.UUIDs)} {
		if length > 0 {
			n++
		}
	}
	return n
}

// verdict holds for each action the rule that decides about an event, or nil.
type verdict [restriction.ActionCount]*rule

func (v *verdict) add(r *rule) {
	if now := v[r.Action]; now == nil || now.rank < r.rank {
		v[r.Action] = r
	}
}

// index finds the rules that concern an event: by its token, and then by one field of each rule. An index never
// changes.
type index struct {
	projects map[string]*project
	size     int // the number of rules
}

// project has the rules of one token. A rule is under each entry of one of its lists. Its other lists are looked at
// once it is found.
type project struct {
	// all has for each lane the verdict of the rules that concern every event of the lane.
	all []verdict

	users, names, sessions texted
	uuids                  map[uuid.UUID][]candidate
	// uuidEnds has the last bytes of the uuids.
	uuidEnds bytesSet
	// rules are all rules of the token, for people.
	rules []*rule
}

// texted has rules by texts. Most texts of events are those of no rule, and most of these need not be looked up: no
// text of a rule is as long and ends with the same byte.
type texted struct {
	rules   map[string][]candidate
	lengths uint64 // bit n: there is a text of n bytes, the last bit: of 63 or more
	ends    bytesSet
}

func (t *texted) put(all []string, c candidate) {
	put(&t.rules, all, c)
	for _, text := range all {
		if text != "" {
			t.lengths |= 1 << min(len(text), lastBit)
			t.ends.add(text[len(text)-1])
		}
	}
}

// find returns the rules under a text.
func (t *texted) find(text string) []candidate {
	if n := len(text); n == 0 || t.lengths&(1<<min(n, lastBit)) == 0 || !t.ends.has(text[n-1]) {
		return nil
	}
	return t.rules[text]
}

const lastBit = 63

// bytesSet is a set of bytes.
type bytesSet [4]uint64

func (s *bytesSet) add(b byte)      { s[b>>6] |= 1 << (b & lastBit) }
func (s *bytesSet) has(b byte) bool { return s[b>>6]&(1<<(b&lastBit)) != 0 }

// candidate is a rule with those of its lists that are still to be looked at. A nil list holds everything.
type candidate struct {
	*rule

	users, names, sessions texts
}

// texts is a set of texts.
type texts struct {
	few  []string
	many map[string]struct{}
}

// fewTexts is how many texts are found faster one by one.
const fewTexts = 8

func textsOf(all []string) texts {
	if len(all) <= fewTexts {
		return texts{few: all}
	}
	set := texts{many: make(map[string]struct{}, len(all))}
	for _, text := range all {
		set.many[text] = struct{}{}
	}
	return set
}

// allow reports whether the set has the text. A set without texts allows every text.
func (t *texts) allow(text string) bool {
	if t.many != nil {
		_, found := t.many[text]
		return found
	}
	return len(t.few) == 0 || slices.Contains(t.few, text)
}

// newIndex returns the index of the rules.
func newIndex(rules []*rule) *index {
	x := &index{projects: map[string]*project{}, size: len(rules)}
	for _, r := range rules {
		p := x.projects[r.Token]
		if p == nil {
			p = &project{all: make([]verdict, len(events.Lanes()))}
			x.projects[r.Token] = p
		}
		p.add(r)
	}
	return x
}

func (p *project) add(r *rule) {
	p.rules = append(p.rules, r)
	c := candidate{
		rule: r, users: textsOf(r.DistinctIDs), names: textsOf(r.Events), sessions: textsOf(r.Sessions),
	}
	switch {
	case len(r.UUIDs) > 0:
		put(&p.uuids, r.UUIDs, c)
		for _, id := range r.UUIDs {
			p.uuidEnds.add(id[len(id)-1])
		}
	case len(r.Sessions) > 0:
		c.sessions = texts{}
		p.sessions.put(r.Sessions, c)
	case len(r.DistinctIDs) > 0:
		c.users = texts{}
		p.users.put(r.DistinctIDs, c)
	case len(r.Events) > 0:
		c.names = texts{}
		p.names.put(r.Events, c)
	default:
		for lane := range p.all {
			if r.lanes.has(events.Lane(lane)) {
				p.all[lane].add(r)
			}
		}
	}
}

// put puts a rule under each of the keys.
func put[K comparable](under *map[K][]candidate, keys []K, c candidate) {
	if *under == nil {
		*under = map[K][]candidate{}
	}
	seen := make(map[K]struct{}, len(keys))
	for _, key := range keys {
		if _, twice := seen[key]; !twice {
			seen[key] = struct{}{}
			(*under)[key] = append((*under)[key], c)
		}
	}
}

// judge adds the rules that concern an event to the verdict. s is the event's session, which is looked up when a rule
// asks for it.
func (p *project) judge(event *events.Event, s *session, v *verdict) {
	if int(event.Lane) < len(p.all) {
		for _, r := range p.all[event.Lane] {
			if r != nil {
				v.add(r)
			}
		}
	}
	v.addAll(p.users.find(event.DistinctID), event, s)
	v.addAll(p.names.find(event.Name), event, s)
	if p.uuidEnds.has(event.UUID[len(event.UUID)-1]) {
		v.addAll(p.uuids[event.UUID], event, s)
	}
	if p.sessions.rules != nil {
		v.addAll(p.sessions.find(s.of(event)), event, s)
	}
}

// addAll adds those of the candidates that concern the event.
func (v *verdict) addAll(all []candidate, event *events.Event, s *session) {
	for i := range all {
		c := &all[i]
		if c.lanes.has(event.Lane) && c.users.allow(event.DistinctID) && c.names.allow(event.Name) &&
			(c.sessions.isEmpty() || c.sessions.allow(s.of(event))) {
			v.add(c.rule)
		}
	}
}

func (t *texts) isEmpty() bool { return t.many == nil && len(t.few) == 0 }
