package usage

import (
	"strings"
	"sync"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// entry is a token that is counted for itself.
type entry struct {
	token string
	// requests is how often the token has come up, halved each day: what its row is worth.
	requests uint32
	days     []daily

	list       *list
	prev, next *entry
}

// on returns what the entry has of the day.
func (e *entry) on(d day, now time.Time) *daily {
	for i := range e.days {
		if e.days[i].day == d {
			return &e.days[i]
		}
	}
	e.days = append(e.days, daily{day: d, since: now.UnixNano()})
	return &e.days[len(e.days)-1]
}

// take removes the day from the entry and returns it, or nil.
func (e *entry) take(d day) *daily {
	for i := range e.days {
		if e.days[i].day == d {
			taken := e.days[i]
			e.days = append(e.days[:i], e.days[i+1:]...)
			return &taken
		}
	}
	return nil
}

// list is a ring of entries, the one first that has come up last. Its root is no entry.
type list struct{ root entry }

func (l *list) init() { l.root.prev, l.root.next = &l.root, &l.root }

func (l *list) last() *entry {
	if l.root.prev == &l.root {
		return nil
	}
	return l.root.prev
}

// leastOfLast returns the entry with the fewest requests among the last n, or nil if the list is empty.
func (l *list) leastOfLast(n int) *entry {
	least := l.last()
	for e := l.root.prev; e != &l.root && n > 0; e, n = e.prev, n-1 {
		if e.requests < least.requests {
			least = e
		}
	}
	return least
}

func (l *list) push(e *entry) {
	e.list, e.prev, e.next = l, &l.root, l.root.next
	e.prev.next, e.next.prev = e, e
}

func (e *entry) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
	e.list, e.prev, e.next = nil, nil, nil
}

// shard has a part of the tokens.
type shard struct {
	mu      sync.Mutex
	room    int
	entries map[string]*entry
	// known and strangers hold the entries, apart from each other.
	known, strangers list
	lately           sketch
	// others has what tokens without an entry have sent, and nobody what came without a token.
	others, nobody entry
	// changes counts the batches of each day that the shard has counts of.
	changes map[day]uint64
	// uncounted is how many batches were counted with the others.
	uncounted int64
}

func (s *shard) init(room int) {
	s.room, s.entries, s.changes, s.lately = room, map[string]*entry{}, map[day]uint64{}, newSketch(room)
	s.known.init()
	s.strangers.init()
}

// count counts a batch. The hash is that of its token.
func (s *shard) count(batch *events.Batch, hash uint64, d day, now time.Time, batchSums *sums) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batchSums.addTo(s.find(batch.Token, hash, batch.Project != nil).on(d, now))
	s.changes[d]++
}

// find returns the entry of the token, or the one that counts for it.
func (s *shard) find(token string, hash uint64, known bool) *entry {
	if token == "" {
		return &s.nobody
	}
	estimate := s.lately.add(hash)
	e := s.entries[token]
	if e == nil {
		if e = s.admit(token, known, estimate); e == nil {
			s.uncounted++
			return &s.others
		}
		e.requests++
		return e
	}
	to := e.list
	if known {
		to = &s.known
	}
	e.unlink()
	to.push(e)
	e.requests++
	return e
}

// tries is how many entries a newcomer is compared with.
const tries = 8

// admit makes an entry for a token, in the place of another if there is no room. It returns nil if no other is worth
// less than the newcomer.
func (s *shard) admit(token string, known bool, estimate uint32) *entry {
	if len(s.entries) >= s.room && !s.makeRoom(known, estimate) {
		return nil
	}
	e := &entry{token: strings.Clone(token), requests: estimate - 1}
	s.entries[e.token] = e
	if known {
		s.known.push(e)
	} else {
		s.strangers.push(e)
	}
	return e
}

func (s *shard) makeRoom(known bool, estimate uint32) bool {
	if known && s.strangers.last() != nil {
		s.remove(s.strangers.leastOfLast(tries))
		return true
	}
	from := &s.strangers
	if known {
		from = &s.known
	}
	for range tries {
		last := from.last()
		if last == nil {
			return false
		}
		if last.requests < estimate {
			s.remove(last)
			return true
		}
		// It has proved its worth, so the next newcomer is compared with another.
		last.unlink()
		from.push(last)
	}
	return false
}

// remove gives what the entry has counted to the others.
func (s *shard) remove(e *entry) {
	for i := range e.days {
		s.others.merge(&e.days[i])
	}
	e.unlink()
	delete(s.entries, e.token)
}

// merge adds what another entry has counted on a day.
func (e *entry) merge(other *daily) {
	row := e.on(other.day, time.Unix(0, other.since))
	row.since = min(row.since, other.since)
	for resource, c := range other.of {
		if c != nil {
			row.add(events.Resource(resource), c)
		}
	}
}

// each calls visit with every entry that has counts.
func (s *shard) each(visit func(group string, e *entry)) {
	for _, e := range s.entries {
		visit("", e)
	}
	visit(GroupOthers, &s.others)
	visit(GroupNoToken, &s.nobody)
}

// load adds a row from the disk. There is room for what was counted before, unless max_tokens was lowered since.
func (s *shard) load(token, group string, from *daily) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var e *entry
	switch group {
	case GroupOthers:
		e = &s.others
	case GroupNoToken:
		e = &s.nobody
	default:
		if e = s.entries[token]; e == nil {
			e = s.admit(token, false, 1)
		}
		if e == nil {
			e = &s.others
		}
	}
	e.merge(from)
	for _, c := range from.of {
		if c != nil {
			e.requests += uint32(min(c.received, 1<<16)) // what it is worth: the number of requests is not kept
		}
	}
	s.changes[from.day]++
}

// close removes the day. Entries that have counts of no other day leave, and what the others are worth is halved.
func (s *shard) close(d day, take func(token, group string, of *daily)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each(func(group string, e *entry) {
		if taken := e.take(d); taken != nil && take != nil {
			take(e.token, group, taken)
		}
		e.requests /= 2
		if len(e.days) == 0 && e.list != nil {
			e.unlink()
			delete(s.entries, e.token)
		}
	})
	delete(s.changes, d)
}
