package redis

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/store"
)

const (
	digestBytes = len(store.Digest{})
	// ownerBytes is the length of an owner in Redis: a number of 64 bits in hexadecimal digits.
	ownerBytes = 16
	// together is how many digests one script reserves or settles at most: Redis does nothing else meanwhile.
	together = 512
	// groupBytes is about what a group takes beside its digests.
	groupBytes = 256
	// behind is how many digests may wait to be settled while calls go on. One round trip takes them all along, so that
	// a call sees what its own node has settled. If there are more, the breaker opens until they are settled.
	behind = 16 << 10
	// drained is how few of them wait when the breaker closes.
	drained = together
)

// group is settled digests of a token that one script settles.
type group struct {
	token  string
	window time.Duration
	// done has the digests, released the digests that are free again, each behind its owner.
	done, released []byte
	// until is until when it makes sense to tell the last of them.
	until time.Time
}

func (g *group) digests() int {
	return len(g.done)/digestBytes + len(g.released)/(ownerBytes+digestBytes)
}

func (g *group) size() int64 { return int64(len(g.done) + len(g.released) + len(g.token) + groupBytes) }

// op returns the command that settles the group.
func (g *group) op(keys keys) op {
	return settleScript.run([]any{
		nil, nil, 1, keys.digests(g.token), max(1, g.window.Milliseconds()), g.done, g.released,
	})
}

// queue bounds the bytes of all settlements of a store, and counts their digests.
type queue struct {
	most                    int64
	bytes, digests, givenUp atomic.Int64
}

// settlements are the settled digests that a server has not been told yet.
type settlements struct {
	queue *queue

	mu sync.Mutex
	// open are the groups that take further digests; full are the others.
	open map[groupKey]*group
	full []*group
	// digests is how many there are.
	digests int
}

type groupKey struct {
	token  string
	window time.Duration
}

func newSettlements(q *queue) *settlements {
	return &settlements{queue: q, open: map[groupKey]*group{}}
}

// add adds the digests of a request. It reports whether these are the first ones. What finds no room is given up.
func (s *settlements) add(
	token string, owner store.Owner, commit []store.Digest, window time.Duration, release []store.Digest,
	until time.Time,
) (first bool) {
	var name [ownerBytes]byte
	writeOwner(&name, owner)
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.digests == 0
	for len(commit)+len(release) > 0 {
		g := s.group(token, window)
		if g == nil {
			s.queue.givenUp.Add(int64(len(commit) + len(release)))
			break
		}
		room := together - g.digests()
		some, rest := min(room, len(commit)), min(room-min(room, len(commit)), len(release))
		bytes := int64(some*digestBytes + rest*(ownerBytes+digestBytes))
		s.queue.bytes.Add(bytes)
		s.queue.digests.Add(int64(some + rest))
		s.digests += some + rest
		g.done = slices.Grow(g.done, some*digestBytes)
		for i := range commit[:some] {
			g.done = append(g.done, commit[i][:]...)
		}
		for i := range release[:rest] {
			g.released = append(append(g.released, name[:]...), release[i][:]...)
		}
		g.until = until
		commit, release = commit[some:], release[rest:]
		if g.digests() >= together {
			s.full = append(s.full, g)
			delete(s.open, groupKey{token, window})
		}
	}
	return first && s.digests > 0
}

// group returns the group that takes further digests, or nil if there is no room for one. The caller has the lock.
func (s *settlements) group(token string, window time.Duration) *group {
	g := s.open[groupKey{token, window}]
	if s.queue.bytes.Load() >= s.queue.most {
		return nil
	}
	if g == nil {
		// The caller's token may be part of a request, whose memory the next request gets.
		g = &group{token: strings.Clone(token), window: window}
		s.open[groupKey{g.token, window}] = g
		s.queue.bytes.Add(g.size())
	}
	return g
}

func writeOwner(into *[ownerBytes]byte, owner store.Owner) {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(owner))
	hex.Encode(into[:], number[:])
}

// waiting returns how many digests wait.
func (s *settlements) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.digests
}

// take takes groups with so many digests or a few more.
func (s *settlements) take(most int) (taken []*group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.digests == 0 {
		return nil
	}
	n := 0
	for n < most && len(s.full) > 0 {
		g := s.full[0]
		s.full = s.full[1:]
		taken, n = append(taken, g), n+g.digests()
	}
	for key, g := range s.open {
		if n >= most {
			break
		}
		delete(s.open, key)
		taken, n = append(taken, g), n+g.digests()
	}
	s.digests -= n
	return taken
}

// putBack gives groups back that the server has not been told.
func (s *settlements) putBack(groups []*group) {
	if len(groups) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = append(groups, s.full...)
	for _, g := range groups {
		s.digests += g.digests()
	}
}

// told forgets groups that the server has been told.
func (q *queue) told(groups []*group) {
	for _, g := range groups {
		q.bytes.Add(-g.size())
		q.digests.Add(-int64(g.digests()))
	}
}

// giveUp forgets groups that no server will be told.
func (q *queue) giveUp(groups []*group) {
	for _, g := range groups {
		q.givenUp.Add(int64(g.digests()))
	}
	q.told(groups)
}

// expire gives up the groups that it makes no sense to tell any more.
func (s *settlements) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ended []*group
	kept := s.full[:0:0]
	for _, g := range s.full {
		if g.until.Before(now) {
			ended = append(ended, g)
		} else {
			kept = append(kept, g)
		}
	}
	s.full = kept
	for key, g := range s.open {
		if g.until.Before(now) {
			ended = append(ended, g)
			delete(s.open, key)
		}
	}
	for _, g := range ended {
		s.digests -= g.digests()
	}
	s.queue.giveUp(ended)
}
