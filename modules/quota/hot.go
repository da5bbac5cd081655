package quota

import (
	"hash/maphash"
	"strings"
	"sync"

	"github.com/opencapture/capture/modules/events"
)

// hot finds the users that send much, in fixed memory, and keeps an exact account of each of them.
//
// A user who sends little is only in the sketch, and the store never hears of such a user. The sketch is a count-min
// sketch whose cells are not counts but times: until when an eighth of the user's rate pays for what was sent. So its
// cells forget by themselves. Users who share cells make one another look busier than they are, never less busy. That
// costs an innocent user an account, but never an event, since the account counts that user alone.
//
// So a node lets a user without an account send an eighth of the burst and of the rate, at most, and what all nodes let
// a user with an account send is within the burst and the rate together. Of n nodes, in a time t, a user gets at most
// (1 + n/8) * (burst + rate*t). A node that is started anew begins with an empty sketch, and is a further node.
type hot struct {
	seed   maphash.Seed
	most   int // accounts in a shard
	shards [shardCount]hotShard
}

type hotShard struct {
	mu    sync.Mutex
	cells []int64 // rows of the sketch, one after the other; nil until a user has a rate
	users map[uint64]*user
}

const (
	// coldShare is the part of a rate, one in so many, that a user without an account may send by a node.
	coldShare               = 8
	sketchRows, sketchCells = 2, 4096
	// sketchMemory is what the sketch takes, in bytes.
	sketchMemory = shardCount * sketchRows * sketchCells * 8
	// userMemory is about what the account of a user takes, in bytes, with its texts.
	userMemory = 1 << 10
	// candidates is how many accounts are looked at for the one that has rested longest.
	candidates = 8
)

// user is the account of a user for a resource.
type user struct {
	token, distinctID string
	resource          events.Resource
	key               uint64
	usedAt            int64 // guarded by the shard's lock

	mu      sync.Mutex // guards account, during draws, too
	account rateAccount
}

func newHot(most int) *hot { return &hot{seed: maphash.MakeSeed(), most: max(1, most/shardCount)} }

// prefix returns the part of a key that a batch's users have in common.
func (h *hot) prefix(token string) uint64 { return maphash.String(h.seed, token) }

// of counts an event of a user whose rate is r, and returns the user's account, or nil if the user needs none. now is
// by the monotonic clock.
func (h *hot) of(prefix uint64, token, distinctID string, resource events.Resource, r *rate, now int64) *user {
	key := (maphash.String(h.seed, distinctID) ^ (prefix + uint64(resource))) * 0x9E3779B97F4A7C15
	shard := &h.shards[key>>58]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if u := shard.users[key]; u != nil && u.token == token && u.distinctID == distinctID && u.resource == resource {
		u.usedAt = now
		return u
	}
	if shard.cells == nil {
		shard.cells = make([]int64, sketchRows*sketchCells)
		shard.users = map[uint64]*user{}
	}
	first := &shard.cells[key%sketchCells]
	second := &shard.cells[sketchCells+key>>20%sketchCells]
	interval := int64(r.Interval())
	until := max(now, min(*first, *second)) + coldShare*interval
	if until-now <= r.Burst*interval {
		*first, *second = max(*first, until), max(*second, until)
		return nil
	}
	return shard.track(h.most, key, token, distinctID, resource, r, now)
}

// track makes an account. If there is no room, the one of some that has rested longest goes: the store has its count.
func (s *hotShard) track(
	most int, key uint64, token, distinctID string, resource events.Resource, r *rate, now int64,
) *user {
	if len(s.users) >= most {
		var oldest *user
		seen := 0
		for _, u := range s.users {
			if oldest == nil || u.usedAt < oldest.usedAt {
				oldest = u
			}
			if seen++; seen == candidates {
				break
			}
		}
		delete(s.users, oldest.key)
	}
	u := &user{
		token: strings.Clone(token), distinctID: strings.Clone(distinctID), resource: resource, key: key, usedAt: now,
		account: newUserAccount(r.Rate, distinctID),
	}
	s.users[key] = u
	return u
}

// count returns the number of accounts.
func (h *hot) count() (n int) {
	for i := range h.shards {
		shard := &h.shards[i]
		shard.mu.Lock()
		n += len(shard.users)
		shard.mu.Unlock()
	}
	return n
}
