package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/store"
)

// long is a lease or a window that no test outlives.
const long = 5 * time.Minute

var reserverTests = []test{
	{"OneOwnerAtATimeHasADigest", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, d, mine := unique("token"), digest(), owner()
		require.Equal(t, store.Reserved, claim(t, one, token, mine, long, d))
		require.Equal(t, store.Busy, claim(t, one, token, owner(), long, d))
		require.Equal(t, store.Busy, claim(t, other, token, owner(), long, d))
		require.Equal(t, store.Reserved, claim(t, one, token, mine, long, d), "its own again")
		require.Equal(t, store.Reserved, claim(t, other, token, mine, long, d), "its own again, by another node")
	}},
	{"WhatIsCommittedIsDone", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, d, mine := unique("token"), digest(), owner()
		require.Equal(t, store.Reserved, claim(t, one, token, mine, long, d))
		one.Settle(token, mine, []store.Digest{d}, long, nil)
		require.Equal(t, store.Done, claim(t, one, token, owner(), long, d), "at once")
		require.Equal(t, store.Done, claim(t, one, token, mine, long, d), "for its owner as well")
		becomes(t, other, token, d, store.Done)
	}},
	{"WhatIsReleasedIsFree", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, mine := unique("token"), owner()
		d := digests(2)
		claims(t, one, token, mine, long, d...)
		one.Settle(token, mine, nil, long, d)
		require.Equal(t, store.Reserved, claim(t, one, token, owner(), long, d[0]), "at once")
		becomes(t, other, token, d[1], store.Reserved)
	}},
	{"ASettlementOfBothDoesBoth", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, mine := unique("token"), owner()
		d := digests(60)
		claims(t, one, token, mine, long, d...)
		committed, released := append([]store.Digest(nil), d[:30]...), append([]store.Digest(nil), d[30:]...)
		one.Settle(token, mine, committed, long, released)
		clear(committed)
		clear(released)
		becomes(t, other, token, d[0], store.Done)
		becomes(t, other, token, d[59], store.Reserved)
		found := claims(t, one, token, owner(), long, d[:59]...)
		for i, claim := range found {
			want := store.Done
			if i >= 30 {
				want = store.Reserved
			}
			require.Equal(t, want, claim, i)
		}
	}},
	{"ClaimsAreInTheOrderOfTheDigests", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, mine := unique("token"), owner()
		d := digests(6)
		claims(t, s, token, mine, long, d[0], d[3])
		claims(t, s, token, owner(), long, d[1], d[4])
		s.Settle(token, mine, d[3:4], long, nil)
		found := []store.Claim{9, 9, 9, 9, 9, 9}
		require.NoError(t, s.Reserve(t.Context(), token, mine, d, long, found))
		require.Equal(t, []store.Claim{
			store.Reserved, store.Busy, store.Reserved, store.Done, store.Busy, store.Reserved,
		}, found)
		require.NoError(t, s.Reserve(t.Context(), token, mine, nil, long, nil))
	}},
	{"ManyDigestsAreClaimedEachByItself", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, d, mine := unique("token"), digests(1600), owner()
		for i, found := range claims(t, one, token, mine, long, d...) {
			require.Equal(t, store.Reserved, found, i)
		}
		var odd []store.Digest
		for i := 1; i < len(d); i += 2 {
			odd = append(odd, d[i])
		}
		one.Settle(token, mine, odd, long, nil)
		settled(t, one, in, token)
		for i, found := range claims(t, other, token, owner(), long, d...) {
			is := store.Busy
			if i%2 == 1 {
				is = store.Done
			}
			require.Equal(t, is, found, i)
		}
	}},
	{"ReserveKeepsNothingOfWhatItIsGiven", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), digests(3)
		given := append([]store.Digest(nil), d...)
		claims(t, s, token, owner(), long, given...)
		clear(given)
		require.Equal(t, []store.Claim{store.Busy, store.Busy, store.Busy}, claims(t, s, token, owner(), long, d...))
	}},
	{"TheTokenMayBePartOfARequest", func(t *testing.T, in Installation) {
		s, other := in.Node(nil), in.Node(nil)
		const requests = 20
		all, counters, settled := make([]string, requests), make([]string, requests), digests(requests)
		buffer := []byte(unique("token") + "00")
		for i := range all {
			// The next request has its token in the same memory.
			copy(buffer[len(buffer)-2:], fmt.Sprintf("%02d", i))
			all[i] = string(buffer)
			token, mine := unsafe.String(&buffer[0], len(buffer)), owner()
			draw, rate := monthly(s, "node", 100), perSecond(10)
			counters[i], draw.Need, rate.Need = draw.Counter, 1, 1
			require.NoError(t, s.Take(t.Context(), token, []store.QuotaDraw{draw}, []store.RateDraw{rate}))
			require.Equal(t, store.Reserved, claim(t, s, token, mine, long, settled[i]))
			s.Settle(token, mine, settled[i:i+1], long, nil)
		}
		copy(buffer, "xx")
		for i, token := range all {
			require.EventuallyWithT(t, func(t *assert.CollectT) {
				found := make([]store.Claim, 1)
				assert.NoError(t, other.Reserve(context.Background(), token, owner(), settled[i:i+1], long, found))
				assert.Equal(t, store.Done, found[0])
			}, patience, time.Millisecond, "%q", token)
			require.EqualValues(t, 1, usage(t, s, token, counters[i]).Used, "%q", token)
		}
	}},
	{"TokensAreApart", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		d, mark := digest(), unique("")
		tokens := append([]string{""}, hostileTokens...)
		for _, token := range tokens {
			require.Equal(t, store.Reserved, claim(t, s, token+mark, owner(), long, d), "%q", token)
		}
		for _, token := range tokens {
			require.Equal(t, store.Busy, claim(t, s, token+mark, owner(), long, d), "%q", token)
		}
		mine := owner()
		claims(t, s, "a"+mark, mine, long, d)
		s.Settle("a"+mark, mine, []store.Digest{d}, long, nil)
		require.Equal(t, store.Done, claim(t, s, "a"+mark, mine, long, d))
		require.Equal(t, store.Reserved, claim(t, s, "b"+mark, mine, long, d))
	}},
	{"DigestsThatDifferInOneBitAreTwo", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, zero := unique("token"), store.Digest{}
		all := []store.Digest{zero}
		for bit := range 8 * len(zero) {
			d := zero
			d[bit/8] ^= 1 << (bit % 8)
			all = append(all, d)
		}
		mine := owner()
		for i, claim := range claims(t, s, token, mine, long, all...) {
			require.Equal(t, store.Reserved, claim, i)
		}
		s.Settle(token, mine, all[:64], long, all[64:])
		for i, claim := range claims(t, s, token, owner(), long, all...) {
			require.Equal(t, i < 64, claim == store.Done, i)
		}
	}},
	{"AReservationEndsWithItsLease", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, d := unique("token"), digest()
		const lease = time.Second
		require.Equal(t, store.Reserved, claim(t, one, token, owner(), lease, d))
		require.Equal(t, store.Busy, claim(t, other, token, owner(), lease, d))
		in.Pass(lease + lease/4)
		require.Equal(t, store.Reserved, claim(t, other, token, owner(), long, d))
		require.Equal(t, store.Busy, claim(t, one, token, owner(), long, d))
	}},
	{"AReservationThatIsMadeAgainHasANewLease", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d, mine := unique("token"), digest(), owner()
		const lease = 2 * time.Second
		claims(t, s, token, mine, lease, d)
		in.Pass(lease * 5 / 8)
		require.Equal(t, store.Reserved, claim(t, s, token, mine, lease, d))
		in.Pass(lease * 5 / 8)
		require.Equal(t, store.Busy, claim(t, s, token, owner(), lease, d))
		in.Pass(lease)
		require.Equal(t, store.Reserved, claim(t, s, token, owner(), lease, d))
	}},
	{"WhatIsDoneIsForgottenAfterTheWindow", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, mine := unique("token"), owner()
		d := digests(3)
		const window = 2 * time.Second
		claims(t, one, token, mine, long, d...)
		one.Settle(token, mine, d[:1], window, nil)
		one.Settle(token, mine, d[1:2], long, nil)
		becomes(t, other, token, d[0], store.Done)
		in.Pass(window * 3 / 4)
		require.Equal(t, store.Done, claim(t, one, token, owner(), long, d[0]), "the window is not over")
		in.Pass(window*3/4 + window/8)
		require.Equal(t, store.Reserved, claim(t, one, token, owner(), long, d[0]), "an eighth of the window later")
		require.Equal(t, store.Done, claim(t, one, token, owner(), long, d[1]))
		require.Equal(t, store.Busy, claim(t, one, token, owner(), long, d[2]))
	}},
	{"ALaterCommitBeginsTheWindowAnew", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), []store.Digest{digest()}
		s.Settle(token, owner(), d, 2*time.Second, nil)
		s.Settle(token, owner(), d, long, nil)
		in.Pass(3 * time.Second)
		require.Equal(t, store.Done, claim(t, s, token, owner(), long, d[0]))
	}},
	{"ACommitCountsAlthoughTheLeaseIsOver", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, d, late, next := unique("token"), digest(), owner(), owner()
		const lease = time.Second
		claims(t, one, token, late, lease, d)
		in.Pass(lease + lease/4)
		require.Equal(t, store.Reserved, claim(t, other, token, next, long, d))
		one.Settle(token, late, []store.Digest{d}, long, nil)
		require.Equal(t, store.Done, claim(t, one, token, owner(), long, d))
		becomes(t, other, token, d, store.Done)
		other.Settle(token, next, nil, long, []store.Digest{d})
		settled(t, other, in, token)
		require.Equal(t, store.Done, claim(t, other, token, owner(), long, d), "it was delivered once")
		require.Equal(t, store.Done, claim(t, one, token, owner(), long, d))
	}},
	{"ACommitNeedsNoReservation", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), digest()
		s.Settle(token, owner(), []store.Digest{d}, long, nil)
		require.Equal(t, store.Done, claim(t, s, token, owner(), long, d))
	}},
	{"OnlyItsOwnerReleasesADigest", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, d, before, mine := unique("token"), digest(), owner(), owner()
		const lease = time.Second
		claims(t, one, token, before, lease, d)
		in.Pass(lease + lease/4)
		require.Equal(t, store.Reserved, claim(t, other, token, mine, long, d))
		one.Settle(token, before, nil, long, []store.Digest{d})
		settled(t, one, in, token)
		require.Equal(t, store.Busy, claim(t, other, token, owner(), long, d))
		require.Equal(t, store.Reserved, claim(t, other, token, mine, long, d))
		one.Settle(token, owner(), nil, long, []store.Digest{d, digest()})
		settled(t, one, in, token)
		require.Equal(t, store.Busy, claim(t, other, token, owner(), long, d))
	}},
	{"ARaceHasOneWinner", func(t *testing.T, in Installation) {
		nodes := []store.Store{in.Node(nil), in.Node(nil), in.Node(nil)}
		token, d := unique("token"), digests(200)
		const racers = 12
		won := make([][]store.Claim, racers)
		together(t, racers, func(i int) {
			mine, found := owner(), make([]store.Claim, len(d))
			for at := 0; at < len(d); at += 20 {
				assert.NoError(t, nodes[i%len(nodes)].Reserve(context.Background(), token, mine, d[at:at+20], long,
					found[at:at+20]))
			}
			won[i] = found
		})
		for i := range d {
			winners := 0
			for racer := range racers {
				require.Contains(t, []store.Claim{store.Reserved, store.Busy}, won[racer][i])
				if won[racer][i] == store.Reserved {
					winners++
				}
			}
			require.Equal(t, 1, winners, i)
		}
	}},
	{"RetriesOnAllNodesAreDeliveredOnce", deliveredOnce},
	{"ItDoesAsTheModel", reserverModel},
}

// becomes waits until another owner finds a digest as it is to be. Until then the digest is Busy.
func becomes(t *testing.T, s store.Store, token string, d store.Digest, is store.Claim) {
	t.Helper()
	require.Eventually(t, func() bool {
		found := claim(t, s, token, owner(), time.Minute, d)
		require.Contains(t, []store.Claim{store.Busy, is}, found)
		return found == is
	}, patience, time.Millisecond)
}

// settled waits until the store has all that the node has settled for a token.
func settled(t *testing.T, s store.Store, in Installation, token string) {
	t.Helper()
	mine, mark := owner(), digest()
	claims(t, s, token, mine, long, mark)
	s.Settle(token, mine, []store.Digest{mark}, long, nil)
	becomes(t, in.Node(nil), token, mark, store.Done)
}

// deliveredOnce sends each event from several goroutines by all nodes, each until it is Done, as SDKs do. A delivery
// that fails releases the event. Each event is delivered by one of them, once.
func deliveredOnce(t *testing.T, in Installation) {
	nodes := []store.Store{in.Node(nil), in.Node(nil)}
	token, d := unique("token"), digests(100)
	var mu sync.Mutex
	delivered := map[store.Digest]int{}
	attempts := map[store.Digest]int{}
	together(t, 6, func(i int) {
		s := nodes[i%2]
		deadline := time.Now().Add(patience)
		open := append([]store.Digest(nil), d...)
		for len(open) > 0 && assert.True(t, time.Now().Before(deadline), "it takes too long") {
			mine, found := owner(), make([]store.Claim, len(open))
			if err := s.Reserve(context.Background(), token, mine, open, long, found); err != nil {
				t.Error(err)
				return
			}
			var commit, release, rest []store.Digest
			mu.Lock()
			for j, claim := range found {
				switch claim {
				case store.Done:
					continue
				case store.Busy:
					rest = append(rest, open[j])
					continue
				case store.Reserved:
				}
				if attempts[open[j]]++; attempts[open[j]]%2 == 1 {
					release, rest = append(release, open[j]), append(rest, open[j])
				} else {
					commit = append(commit, open[j])
					delivered[open[j]]++
				}
			}
			mu.Unlock()
			s.Settle(token, mine, commit, long, release)
			open = rest
		}
	})
	require.Len(t, delivered, len(d))
	for _, times := range delivered {
		require.Equal(t, 1, times)
	}
}

// reserverModel compares the claims of one node with those of a model, in random sequences of calls.
func reserverModel(t *testing.T, in Installation) {
	s := in.Node(nil)
	type state struct {
		owner          store.Owner
		until          time.Duration
		doneFor, after time.Duration // done until doneFor at least, and not after after
	}
	rapid.Check(t, func(t *rapid.T) {
		token, all := unique("token"), digests(5)
		owners := []store.Owner{owner(), owner(), owner()}
		model, now := map[store.Digest]*state{}, time.Duration(0)
		for _, d := range all {
			model[d] = &state{}
		}
		some := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, len(all), rapid.ID[store.Digest])
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				mine, d := rapid.SampledFrom(owners).Draw(t, "owner"), some.Draw(t, "digests")
				lease := time.Duration(rapid.IntRange(1, 100).Draw(t, "lease")) * time.Minute
				for i, claim := range claims(t, s, token, mine, lease, d...) {
					m := model[d[i]]
					switch {
					case now < m.doneFor:
						require.Equal(t, store.Done, claim)
						continue
					case now < m.after && claim == store.Done:
						continue
					case m.owner != mine && now < m.until:
						require.Equal(t, store.Busy, claim)
						continue
					}
					require.Equal(t, store.Reserved, claim)
					m.owner, m.until, m.doneFor, m.after = mine, now+lease, 0, 0
				}
			},
			"settle": func(t *rapid.T) {
				mine, d := rapid.SampledFrom(owners).Draw(t, "owner"), some.Draw(t, "digests")
				commit := rapid.IntRange(0, len(d)).Draw(t, "commit")
				window := time.Duration(rapid.IntRange(1, 100).Draw(t, "window")) * time.Minute
				s.Settle(token, mine, d[:commit], window, d[commit:])
				for i := range d {
					m := model[d[i]]
					if m.owner == mine {
						m.owner, m.until = 0, 0
					}
					if i < commit {
						m.doneFor = max(m.doneFor, now+window)
						m.after = max(m.after, now+window+window/8)
					}
				}
			},
			"pass": func(t *rapid.T) {
				if in.Quick {
					by := time.Duration(rapid.IntRange(1, 50).Draw(t, "minutes")) * time.Minute
					in.Pass(by)
					now += by
				}
			},
		})
	})
}
