package storetest

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/store"
)

// clockTolerance is how far the store's clock may be away from what a node takes it for.
const clockTolerance = 100 * time.Millisecond

func now() time.Time { return time.Now() }

// monthly returns a draw of a node that has no account yet, from a counter of its own whose window holds the present.
func monthly(s store.Store, node string, limit int64) store.QuotaDraw {
	at := s.Now()
	return store.QuotaDraw{
		Counter: unique("quota:events:month"), Node: node, Limit: limit,
		Start: at.Add(-time.Hour), End: at.Add(240 * time.Hour),
	}
}

func take(t tester, s store.Store, token string, draw *store.QuotaDraw) {
	t.Helper()
	draws := []store.QuotaDraw{*draw}
	require.NoError(t, s.Take(context.Background(), token, draws, nil))
	*draw = draws[0]
}

func usage(t tester, s store.Store, token, counter string) store.Usage {
	t.Helper()
	all, err := s.Usage(context.Background(), token)
	require.NoError(t, err)
	return all[counter]
}

// withoutEnd returns what is used and held.
func withoutEnd(of store.Usage) store.Usage { return store.Usage{Used: of.Used, Held: of.Held} }

var quotaTests = []test{
	{"ANeedIsGrantedAsAWholeOrNotAtAll", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 10)
		d.Need = 7
		take(t, s, token, &d)
		require.EqualValues(t, 7, d.Given)
		require.EqualValues(t, 7, d.Used)
		require.False(t, d.Stale)
		d.Granted, d.Need = 7, 4
		take(t, s, token, &d)
		require.EqualValues(t, 7, d.Given, "nothing more")
		require.EqualValues(t, 7, d.Used)
		d.Need = 3
		take(t, s, token, &d)
		require.EqualValues(t, 10, d.Given)
		require.EqualValues(t, 10, d.Used)
		d.Granted, d.Need, d.Extra, d.Unspent = 10, 1, 5, 5
		take(t, s, token, &d)
		require.EqualValues(t, 10, d.Given)
		d.Need = 0
		take(t, s, token, &d)
		require.EqualValues(t, 10, d.Given, "no extra beyond the limit")
	}},
	{"ALimitOfZeroGrantsNothing", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 0)
		d.Need, d.Extra, d.Unspent = 1, 5, 5
		take(t, s, token, &d)
		require.Zero(t, d.Given)
		require.Zero(t, d.Used)
		require.False(t, d.Stale)
	}},
	{"AllNodesShareALimit", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, d := unique("token"), monthly(one, "node-1", 10)
		d.Need = 6
		take(t, one, token, &d)
		e := d
		e.Node, e.Need, e.Given = "node-2", 5, 0
		take(t, other, token, &e)
		require.Zero(t, e.Given)
		require.EqualValues(t, 6, e.Used)
		e.Need = 4
		take(t, other, token, &e)
		require.EqualValues(t, 4, e.Given)
		require.EqualValues(t, 10, e.Used)
	}},
	{"DrawsOfOneCallSucceedOrFailByThemselves", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token := unique("token")
		full, free, rate, fullRate := monthly(s, "node", 1), monthly(s, "node", 10), perSecond(5), perSecond(5)
		full.Need, free.Need, rate.Need, fullRate.Need = 2, 2, 3, 6
		quotas, rates := []store.QuotaDraw{full, free}, []store.RateDraw{fullRate, rate}
		require.NoError(t, s.Take(t.Context(), token, quotas, rates))
		require.Zero(t, quotas[0].Given)
		require.EqualValues(t, 2, quotas[1].Given)
		require.Zero(t, rates[0].Given)
		require.EqualValues(t, 3, rates[1].Given)
		require.NoError(t, s.Take(t.Context(), token, nil, nil))
	}},
	{"TheCountersOfATokenAreItsOwn", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		mark := unique("")
		for _, token := range hostileTokens {
			for _, counter := range []string{"a", "a:b", "{a}", "*"} {
				d := monthly(s, "node:1 {x}\n", 3)
				d.Counter, d.Need = counter, 2
				take(t, s, token+mark, &d)
				require.EqualValues(t, 2, d.Given, "%q of %q", counter, token)
			}
		}
		all, err := s.Usage(t.Context(), "*"+mark)
		require.NoError(t, err)
		require.Len(t, all, 4)
		require.EqualValues(t, 2, all["a:b"].Used)
		all, err = s.Usage(t.Context(), "another"+mark)
		require.NoError(t, err)
		require.Empty(t, all)
	}},
	{"ExtraIsAPartOfWhatIsFree", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 20)
		d.Need, d.Extra, d.Unspent = 5, 100, 1000
		take(t, s, token, &d)
		require.LessOrEqual(t, d.Given, int64(20))
		require.Greater(t, d.Given, int64(5), "some of it")
		require.Equal(t, d.Given, d.Used)
	}},
	{"UnspentBoundsWhatAllNodesHold", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node-1", 1000)
		d.Need, d.Extra, d.Unspent = 5, 100, 10
		take(t, s, token, &d)
		require.EqualValues(t, 15, d.Given)
		require.EqualValues(t, 10, usage(t, s, token, d.Counter).Held)
		e := d
		e.Node, e.Given = "node-2", 0
		take(t, s, token, &e)
		require.EqualValues(t, 5, e.Given, "the other holds 10, dead or alive")
		d.Granted, d.Held, d.Need = 15, 4, 0
		take(t, s, token, &d)
		require.EqualValues(t, 21, d.Given, "it has spent 6 of them")
		e.Granted = 5
		take(t, s, token, &e)
		require.EqualValues(t, 10, e.Given)
	}},
	{"ADrawWhoseAnswerWasLostIsMadeAgain", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 10)
		d.Need, d.Extra, d.Unspent = 4, 2, 2
		lost := d
		take(t, s, token, &lost)
		require.EqualValues(t, 6, lost.Given)
		again := d
		take(t, s, token, &again)
		require.EqualValues(t, 6, again.Given, "what the lost answer had brought")
		require.EqualValues(t, 6, again.Used)
		require.EqualValues(t, 2, usage(t, s, token, d.Counter).Held)
		more := d
		more.Need, more.Extra = 9, 0
		take(t, s, token, &more)
		require.EqualValues(t, 9, more.Given, "and what is missing")
		require.EqualValues(t, 9, more.Used)
		most := d
		most.Need, most.Extra = 11, 0
		take(t, s, token, &most)
		require.Less(t, most.Given, int64(11), "the need is not met")
		require.EqualValues(t, 9, most.Used)
		least := d
		least.Need, least.Extra = 1, 0
		take(t, s, token, &least)
		require.EqualValues(t, 9, least.Given, "the node learns all that it was granted")
		require.EqualValues(t, 9, least.Used)
	}},
	{"ANewAccountTakesThePlaceOfTheOneBefore", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node-1", 30)
		d.Account, d.Need, d.Extra, d.Unspent = 7, 5, 4, 4
		take(t, s, token, &d)
		require.EqualValues(t, 9, d.Given)
		d.Granted, d.Returned, d.Held, d.Need, d.Extra = 9, 1, 3, 0, 0
		take(t, s, token, &d)
		require.Equal(t, store.Usage{Used: 8, Held: 3}, withoutEnd(usage(t, s, token, d.Counter)))
		d.Account, d.Granted, d.Returned, d.Held, d.Need, d.Extra = 8, 0, 0, 0, 6, 9
		for range 2 { // the second time, the answer was lost
			again := d
			take(t, s, token, &again)
			require.EqualValues(t, 10, again.Given, "the need, and as much as the nodes may hold")
			require.EqualValues(t, 18, again.Used, "what the account before was granted and did not give back is in it")
			require.Equal(t, store.Usage{Used: 18, Held: 4}, withoutEnd(usage(t, s, token, d.Counter)))
		}
		d.Granted, d.Returned, d.Need, d.Extra = 10, 4, 0, 0
		take(t, s, token, &d)
		require.Equal(t, store.Usage{Used: 14}, withoutEnd(usage(t, s, token, d.Counter)), "only that is given back")
		e := d
		e.Node, e.Account, e.Granted, e.Returned, e.Need = "node-2", 3, 0, 0, 17
		take(t, s, token, &e)
		require.Zero(t, e.Given, "another node has its own numbers")
		e.Need = 16
		take(t, s, token, &e)
		require.EqualValues(t, 16, e.Given)
		require.EqualValues(t, 30, e.Used)
		told := d
		told.Account, told.Granted, told.Returned, told.Held = 12, 5, 2, 1
		take(t, s, token, &told)
		require.EqualValues(t, 5, told.Given, "the store learns of an account that it had lost")
		require.Equal(t, store.Usage{Used: 33, Held: 1}, withoutEnd(usage(t, s, token, d.Counter)))
	}},
	{"ADrawFromAnAccountThatWasReplacedIsGrantedNothing", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 100)
		d.Account, d.Need = 1<<50-1, 10
		take(t, s, token, &d)
		late := d
		late.Granted, late.Need, late.Extra, late.Unspent = 10, 5, 5, 100
		d.Account, d.Need, d.Extra, d.Unspent = 1<<50, 3, 4, 100
		take(t, s, token, &d)
		require.EqualValues(t, 7, d.Given)
		refused := func() {
			t.Helper()
			for _, told := range [][3]int64{{10, 0, 0}, {10, 0, 4}, {10, 10, 0}, {0, 0, 0}, {60, 3, 9}} {
				e := late
				e.Granted, e.Returned, e.Held, e.Stale = told[0], told[1], told[2], true // of the draw before
				take(t, s, token, &e)
				require.Equal(t, e.Granted, e.Given)
				require.EqualValues(t, 17, e.Used)
				require.False(t, e.Stale)
			}
			require.Equal(t, store.Usage{Used: 17, Held: 4}, withoutEnd(usage(t, s, token, d.Counter)))
		}
		refused()
		d.Granted, d.Held, d.Need, d.Extra = 7, 4, 0, 0
		take(t, s, token, &d)
		require.EqualValues(t, 7, d.Given, "the newer account is as it was")
		none := monthly(s, "node", 100)
		none.Account = 2
		take(t, s, token, &none)
		if in.Restart != nil {
			in.Restart()
			refused()
		}
		none.Account, none.Need = 1, 1
		take(t, s, token, &none)
		require.Zero(t, none.Given, "the newer account has drawn nothing, and is known all the same")
	}},
	{"ANodeMayOpenAnyNumberOfAccounts", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 1<<40)
		const accounts = 3000
		for number := range uint64(accounts) {
			d.Account, d.Granted, d.Returned, d.Held, d.Need, d.Extra, d.Unspent = number, 0, 0, 0, 3, 1, 1
			take(t, s, token, &d)
			require.EqualValues(t, 4, d.Given)
			if number%3 == 0 { // the others are replaced while they hold something
				d.Granted, d.Returned, d.Need, d.Extra = 4, 1, 0, 0
				take(t, s, token, &d)
			}
		}
		is := store.Usage{Used: accounts*4 - accounts/3, Held: 1}
		require.Equal(t, is, withoutEnd(usage(t, s, token, d.Counter)))
		if in.Restart != nil {
			in.Restart()
			require.Equal(t, is, withoutEnd(usage(t, s, token, d.Counter)))
		}
	}},
	{"WhatIsGivenBackIsFree", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node-1", 10)
		d.Need = 10
		take(t, s, token, &d)
		d.Granted, d.Returned, d.Need = 10, 4, 0
		take(t, s, token, &d)
		require.EqualValues(t, 10, d.Given)
		require.EqualValues(t, 6, d.Used)
		take(t, s, token, &d)
		require.EqualValues(t, 6, d.Used, "it was given back once")
		e := d
		e.Node, e.Granted, e.Returned, e.Need = "node-2", 0, 0, 4
		take(t, s, token, &e)
		require.EqualValues(t, 4, e.Given)
		d.Returned, d.Need = 7, 3
		take(t, s, token, &d)
		require.EqualValues(t, 13, d.Given, "given back and drawn in one")
		require.EqualValues(t, 10, d.Used)
	}},
	{"ALateCopyOfAnOldDrawChangesNothing", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 100)
		d.Need = 10
		first := d
		take(t, s, token, &d)
		d.Granted, d.Returned = d.Given, 3
		take(t, s, token, &d)
		require.EqualValues(t, 20, d.Given)
		require.EqualValues(t, 17, d.Used)
		take(t, s, token, &first)
		require.EqualValues(t, 17, first.Used)
	}},
	{"ADrawOutsideOfItsWindowIsStale", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token := unique("token")
		for _, window := range [][2]time.Duration{{-2 * time.Hour, -time.Hour}, {time.Hour, 2 * time.Hour}} {
			d := monthly(s, "node", 10)
			at := s.Now()
			d.Start, d.End, d.Need, d.Granted = at.Add(window[0]), at.Add(window[1]), 1, 3
			take(t, s, token, &d)
			require.True(t, d.Stale)
			require.EqualValues(t, 3, d.Given, "it has brought nothing")
		}
		all, err := s.Usage(t.Context(), token)
		require.NoError(t, err)
		require.Empty(t, all)
	}},
	{"AWindowEnds", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 10)
		d.End, d.Need = s.Now().Add(time.Second), 2
		take(t, s, token, &d)
		require.False(t, d.Stale)
		require.EqualValues(t, 2, d.Given)
		in.Pass(time.Second + clockTolerance)
		d.Granted = 2
		take(t, s, token, &d)
		require.True(t, d.Stale)
		require.EqualValues(t, 2, d.Given)
	}},
	{"UsageTellsTheEndOfTheWindow", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 10)
		d.Need = 1
		take(t, s, token, &d)
		require.WithinDuration(t, d.End, usage(t, in.Node(nil), token, d.Counter).End, time.Millisecond)
	}},
	{"TheLimitMayChange", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 10)
		d.Need = 8
		take(t, s, token, &d)
		d.Granted, d.Limit, d.Need, d.Extra, d.Unspent = 8, 5, 1, 1, 5
		take(t, s, token, &d)
		require.EqualValues(t, 8, d.Given)
		require.EqualValues(t, 8, d.Used)
		d.Limit, d.Extra, d.Need = 20, 0, 12
		take(t, s, token, &d)
		require.EqualValues(t, 20, d.Given)
	}},
	{"LimitsMayBeLarge", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node", 1e15)
		d.Need = 1e15 - 1
		take(t, s, token, &d)
		require.Equal(t, int64(1e15-1), d.Given)
		d.Granted, d.Need = d.Given, 2
		take(t, s, token, &d)
		require.Equal(t, int64(1e15-1), d.Given)
		d.Need = 1
		take(t, s, token, &d)
		require.Equal(t, int64(1e15), d.Given)
		e := monthly(s, "node", math.MaxInt64)
		e.Need, e.Extra, e.Unspent = 5, 5, math.MaxInt64
		take(t, s, token, &e)
		require.EqualValues(t, 10, e.Given, "a limit that is none")
	}},
	{"AStoreThatHasForgottenLearnsAgain", func(t *testing.T, in Installation) {
		skipWithout(t, in.Save != nil, "forget")
		s := in.Node(nil)
		token, d := unique("token"), monthly(s, "node-1", 10)
		forget := in.Save()
		d.Need = 8
		take(t, s, token, &d)
		d.Granted, d.Returned, d.Need = 8, 1, 0
		forget()
		take(t, s, token, &d)
		require.EqualValues(t, 8, d.Given)
		require.EqualValues(t, 7, d.Used)
		e := d
		e.Node, e.Granted, e.Returned, e.Need = "node-2", 0, 0, 4
		take(t, s, token, &e)
		require.Zero(t, e.Given)
		e.Need = 3
		take(t, s, token, &e)
		require.EqualValues(t, 3, e.Given)
	}},
	{"AnAdjustmentChangesWhatIsUsed", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		ctx, token, d := t.Context(), unique("token"), monthly(s, "node", 100)
		got, err := s.Adjust(ctx, token, d.Counter, 5)
		require.NoError(t, err)
		require.Zero(t, got, "there is no such counter")
		require.Zero(t, usage(t, s, token, d.Counter).Used)
		none := d
		none.Node = "another node"
		take(t, s, token, &none)
		got, err = s.Adjust(ctx, token, d.Counter, 5)
		require.NoError(t, err)
		require.Equal(t, store.Usage{Used: 5}, got, "a draw of nothing has made it")
		got, err = s.Adjust(ctx, token, d.Counter, -5)
		require.NoError(t, err)
		require.Zero(t, got)
		d.Need, d.Extra, d.Unspent = 60, 10, 10
		take(t, s, token, &d)
		require.EqualValues(t, 70, d.Used)
		for _, step := range []struct{ by, is int64 }{
			{20, 90}, {-50, 40}, {-1000, 10}, {5, 15}, {-5, 10}, {0, 10}, {math.MinInt64, 10},
		} {
			got, err = in.Node(nil).Adjust(ctx, token, d.Counter, step.by)
			require.NoError(t, err)
			require.Equal(t, store.Usage{Used: step.is, Held: 10}, got, "by %d", step.by)
			require.Equal(t, step.is, usage(t, s, token, d.Counter).Used)
		}
		d.Granted, d.Held, d.Need, d.Extra = 70, 0, 91, 0
		take(t, s, token, &d)
		require.EqualValues(t, 70, d.Given)
		require.EqualValues(t, 10, d.Used)
		d.Need = 90
		take(t, s, token, &d)
		require.EqualValues(t, 160, d.Given)
		require.EqualValues(t, 100, d.Used)
	}},
	{"ConcurrentDrawsNeverHaveMoreThanTheLimit", func(t *testing.T, in Installation) {
		nodes := []store.Store{in.Node(nil), in.Node(nil)}
		token, first := unique("token"), monthly(nodes[0], "", 1000)
		var sum atomic.Int64
		together(t, 8, func(i int) {
			d := first
			d.Node = string(rune('a' + i))
			for range 100 {
				d.Need = 2
				draws := []store.QuotaDraw{d}
				if err := nodes[i%2].Take(context.Background(), token, draws, nil); err != nil {
					t.Error(err)
					return
				}
				sum.Add(draws[0].Given - d.Granted)
				d.Granted = draws[0].Given
			}
		})
		require.EqualValues(t, 1000, sum.Load())
		require.EqualValues(t, 1000, usage(t, nodes[0], token, first.Counter).Used)
	}},
	{"WhateverNodesAndTheStoreDo", quotaProperty},
}

// A quotaNode is a node with its account of one counter.
type quotaNode struct {
	name                    string
	account                 uint64
	granted, returned, held int64
	spent                   int64
	dead                    bool
	// before is what the node has spent from earlier accounts.
	before int64

	// What the store knows of the node: past is what the accounts before the known one had.
	knownAccount                                 uint64
	knownGranted, knownReturned, knownHeld, past int64
}

// known is what the node has, as far as the store knows.
func (n *quotaNode) known() int64 { return n.past + n.knownGranted - n.knownReturned }

// replace has the store know of a newer account.
func (n *quotaNode) replace() {
	n.past, n.knownAccount = n.known(), n.account
	n.knownGranted, n.knownReturned, n.knownHeld = 0, 0, 0
}

// quotaProperty has four nodes draw, spend, give back, open new accounts, lose answers, die and come back with their
// accounts, and has the store forget. It checks what the doc of store.QuotaDraw promises after each step.
func quotaProperty(t *testing.T, in Installation) {
	s := in.Node(nil)
	rapid.Check(t, func(t *rapid.T) {
		token := unique("token")
		limit, unspent := rapid.Int64Range(0, 300).Draw(t, "limit"), rapid.Int64Range(0, 60).Draw(t, "unspent")
		first := monthly(s, "", limit)
		first.Unspent = unspent
		needs, extras := rapid.Int64Range(0, 40), rapid.Int64Range(0, 60)
		nodes := []*quotaNode{{name: "n0"}, {name: "n1"}, {name: "n2"}, {name: "n3"}}
		born, forgot := len(nodes), false
		living := func(t *rapid.T) *quotaNode {
			n := nodes[rapid.IntRange(0, 3).Draw(t, "node")]
			if n.dead {
				t.Skip("dead")
			}
			return n
		}
		every := nodes // those of the past included
		sum := func(of func(*quotaNode) int64) (all int64) {
			for _, n := range every {
				all += of(n)
			}
			return all
		}
		var save func() (func(), []quotaNode)
		if in.Save != nil {
			save = func() (func(), []quotaNode) {
				var was []quotaNode
				for _, n := range every {
					was = append(was, *n)
				}
				return in.Save(), was
			}
		}
		var restore func()
		var was []quotaNode
		draw := func(t *rapid.T, n *quotaNode, need, extra int64, lost bool) {
			if n.account > n.knownAccount {
				n.replace()
			}
			d := first
			d.Node, d.Account, d.Need, d.Extra = n.name, n.account, need, extra
			d.Granted, d.Returned, d.Held = n.granted, n.returned, n.held
			// What an answer that was lost had brought.
			before := max(0, n.knownGranted-n.granted)
			free := limit - sum((*quotaNode).known) + (n.knownGranted - n.knownReturned) -
				(n.granted + before - max(n.knownReturned, n.returned))
			take(t, s, token, &d)
			require.False(t, d.Stale)
			brought := d.Given - n.granted
			require.GreaterOrEqual(t, brought, before)
			require.LessOrEqual(t, brought, max(before, need+extra))
			n.knownGranted, n.knownReturned = d.Given, max(n.knownReturned, n.returned)
			require.Equal(t, sum((*quotaNode).known), d.Used)
			if brought > before {
				require.LessOrEqual(t, d.Used, limit, "what is granted is within the limit")
			}
			require.Equal(t, need <= before || need-before <= free, brought >= need,
				"need %d, free %d, before %d, brought %d", need, free, before, brought)
			left := brought
			if brought >= need {
				left -= need
			}
			n.knownHeld = n.held + left
			if brought > max(before, need) {
				require.LessOrEqual(t, sum(func(n *quotaNode) int64 { return n.knownHeld }), unspent)
			}
			if lost {
				return
			}
			n.granted, n.held = d.Given, n.held+left
			if brought >= need {
				n.spent += need
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"draw": func(t *rapid.T) {
				draw(t, living(t), needs.Draw(t, "need"), extras.Draw(t, "extra"), false)
			},
			"draw, and lose the answer": func(t *rapid.T) {
				draw(t, living(t), needs.Draw(t, "need"), extras.Draw(t, "extra"), true)
			},
			"spend": func(t *rapid.T) {
				n := living(t)
				k := rapid.Int64Range(0, n.held).Draw(t, "spend")
				n.held, n.spent = n.held-k, n.spent+k
			},
			"give back": func(t *rapid.T) {
				n := living(t)
				k := rapid.Int64Range(0, n.held).Draw(t, "back")
				n.held, n.returned = n.held-k, n.returned+k
			},
			"refund": func(t *rapid.T) {
				n := living(t)
				k := rapid.Int64Range(0, n.spent).Draw(t, "refund")
				n.spent, n.held = n.spent-k, n.held+k
			},
			"open a new account": func(t *rapid.T) {
				n := living(t)
				n.before, n.account = n.before+n.spent, n.account+1
				n.granted, n.returned, n.held, n.spent = 0, 0, 0, 0
			},
			"draw from an account that was replaced": func(t *rapid.T) {
				n := living(t)
				if n.knownAccount == 0 {
					t.Skip("it is the first")
				}
				d := first
				d.Node, d.Account = n.name, n.knownAccount-1
				d.Held = rapid.Int64Range(0, 9).Draw(t, "held")
				d.Granted = d.Held + rapid.Int64Range(0, 9).Draw(t, "spent")
				d.Need, d.Extra = needs.Draw(t, "need"), extras.Draw(t, "extra")
				take(t, s, token, &d)
				require.False(t, d.Stale)
				require.Equal(t, d.Granted, d.Given)
				require.Equal(t, sum((*quotaNode).known), d.Used)
			},
			"die": func(t *rapid.T) { living(t).dead = true },
			"come back": func(t *rapid.T) {
				n := rapid.SampledFrom(nodes).Draw(t, "node")
				if !n.dead {
					t.Skip("alive")
				}
				n.dead = false
			},
			"come back without the account": func(t *rapid.T) {
				i := rapid.IntRange(0, 3).Draw(t, "node")
				if !nodes[i].dead || born > 12 {
					t.Skip("alive")
				}
				nodes = append([]*quotaNode(nil), nodes...)
				nodes[i] = &quotaNode{name: unique("n")}
				every = append(every[:len(every):len(every)], nodes[i])
				born++
			},
			"save": func(t *rapid.T) {
				if save == nil || restore != nil {
					t.Skip("saved")
				}
				restore, was = save()
			},
			"forget": func(t *rapid.T) {
				if restore == nil {
					t.Skip("nothing saved")
				}
				restore()
				restore, forgot = nil, true
				for i, n := range every {
					var then quotaNode
					if i < len(was) {
						then = was[i]
					}
					n.knownAccount, n.past = then.knownAccount, then.past
					n.knownGranted, n.knownReturned = then.knownGranted, then.knownReturned
					n.knownHeld = then.knownHeld
				}
			},
			"": func(t *rapid.T) {
				if !forgot {
					require.LessOrEqual(t, sum(func(n *quotaNode) int64 { return n.granted - n.returned }), limit)
					require.LessOrEqual(t, sum(func(n *quotaNode) int64 { return n.before + n.spent }), limit)
				}
				is := usage(t, s, token, first.Counter)
				require.Equal(t, sum((*quotaNode).known), is.Used)
				require.Equal(t, sum(func(n *quotaNode) int64 { return n.knownHeld }), is.Held)
			},
		})
		for _, n := range nodes { // all come back, and give back what they hold
			n.dead = false
			draw(t, n, 0, 0, false)
			n.returned, n.held = n.returned+n.held, 0
			draw(t, n, 0, 0, false)
		}
		var spent int64
		for _, n := range nodes {
			spent += n.past + n.spent
		}
		if born == 4 {
			require.Equal(t, spent, usage(t, s, token, first.Counter).Used, "a unit that is given back comes back")
			require.Zero(t, usage(t, s, token, first.Counter).Held)
		}
	})
}
