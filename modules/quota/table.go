package quota

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// shardCount is a power of two.
const shardCount = 64

// table has the subjects of a node, by their tokens. The number of their accounts is bounded, since strangers can send
// any number of tokens.
type table struct {
	journal *journal
	seed    maphash.Seed
	shards  [shardCount]shard
	// most is how many subjects there may be.
	most  int64
	count atomic.Int64
	// hand is the shard at which the next search for subjects to give up begins.
	hand    atomic.Uint32
	sweeper sync.Mutex
	// futile is when a search last found too few. The sweeper guards it.
	futile time.Time
}

type shard struct {
	mu       sync.Mutex
	subjects map[string]*subject
}

func newTable(j *journal, most int) *table {
	t := &table{journal: j, seed: maphash.MakeSeed(), most: int64(most)}
	for i := range t.shards {
		t.shards[i].subjects = map[string]*subject{}
	}
	return t
}

func (t *table) shard(token string) *shard {
	return &t.shards[maphash.String(t.seed, token)%shardCount]
}

// find returns the subject of a token, or nil if the node has none.
func (t *table) find(token string) *subject {
	shard := t.shard(token)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return shard.subjects[token]
}

// subject returns the subject of a token. It makes one if there is room, and returns nil otherwise.
func (t *table) subject(token string) *subject {
	if s := t.find(token); s != nil {
		return s
	}
	if _, free := t.journal.accounts(); free < reserveOf(t.most) || t.count.Load() >= t.most {
		t.makeRoom()
		if t.count.Load() >= t.most {
			return nil
		}
	}
	shard := t.shard(token)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if s := shard.subjects[token]; s != nil {
		return s
	}
	s := &subject{token: strings.Clone(token)}
	shard.subjects[s.token] = s
	t.count.Add(1)
	return s
}

// reserveOf returns how many accounts are to be free, so that a new token finds room for several limits.
func reserveOf(most int64) int { return int(max(32, most/256)) }

// makeRoom gives up a sixteenth of the subjects: those that have rested longest, about, of those that hold nothing and
// owe nothing. It passes over a subject as often as the subject was used since it was last passed over, up to three
// times.
func (t *table) makeRoom() {
	if !t.sweeper.TryLock() {
		return // somebody else does it
	}
	defer t.sweeper.Unlock()
	if time.Since(t.futile) < futileFor {
		return
	}
	goal := max(1, t.count.Load()/16)
	for range (mostTouches + 1) * shardCount {
		shard := &t.shards[t.hand.Add(1)%shardCount]
		if goal -= t.sweep(shard); goal <= 0 {
			return
		}
	}
	t.futile = time.Now()
}

// futileFor is how long nobody searches again for subjects to give up, after a search that found too few: it looks at
// all of them.
const futileFor = 100 * time.Millisecond

// mostTouches is up to how many uses of a subject count.
const mostTouches = 3

func (t *table) sweep(shard *shard) (given int64) {
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for _, s := range shard.subjects {
		if t.giveUp(s, func() bool {
			if s.touched > 0 {
				s.touched--
				return false
			}
			return s.settled()
		}) {
			delete(shard.subjects, s.token)
			given++
		}
	}
	t.count.Add(-given)
	return given
}

// giveUp takes the accounts from a subject that nobody uses, if the condition holds, and reports whether it has. The
// caller takes the subject out of its shard, which it has locked.
func (t *table) giveUp(s *subject, condition func() bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draw != nil || s.next != nil || s.visits.Load() > 0 || !condition() {
		return false
	}
	for len(s.accounts) > 0 {
		s.forget(0, t)
	}
	s.gone = true
	return true
}

// settled reports whether the store knows that the node holds nothing. The subject is locked.
func (s *subject) settled() bool {
	for _, a := range s.accounts {
		if !a.settled() {
			return false
		}
	}
	return true
}

// all calls visit with every subject. No shard is locked meanwhile.
func (t *table) all(visit func(*subject)) {
	var batch []*subject
	for i := range t.shards {
		shard := &t.shards[i]
		shard.mu.Lock()
		batch = batch[:0]
		for _, s := range shard.subjects {
			batch = append(batch, s)
		}
		shard.mu.Unlock()
		for _, s := range batch {
			visit(s)
		}
	}
	clear(batch[:cap(batch)])
}

// remove takes a subject out of the table if it has no accounts any more and nobody uses it.
func (t *table) remove(s *subject) {
	shard := t.shard(s.token)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.subjects[s.token] == s && t.giveUp(s, func() bool { return len(s.accounts) == 0 }) {
		delete(shard.subjects, s.token)
		t.count.Add(-1)
	}
}
