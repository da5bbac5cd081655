package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/store"
)

var recordTests = []test{
	{"WhatIsPutIsThere", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		ctx, name := t.Context(), unique("name")
		got, err := one.Get(ctx, "project", name)
		require.NoError(t, err)
		require.Empty(t, got)
		first := store.Fields{"name": "Shop", "quotas": "events=5/day", "text": "ä\n\"{}", "empty": ""}
		require.NoError(t, one.Put(ctx, "project", name, nil, first))
		for _, s := range []store.Store{one, other} {
			got, err = s.Get(ctx, "project", name)
			require.NoError(t, err)
			require.Equal(t, first, got)
		}
		second := store.Fields{"name": "Store"}
		require.NoError(t, other.Put(ctx, "project", name, first, second))
		got, err = one.Get(ctx, "project", name)
		require.NoError(t, err)
		require.Equal(t, second, got, "in the place of what was there, with no field left over")
		require.NoError(t, one.Put(ctx, "project", name, second, nil))
		got, err = other.Get(ctx, "project", name)
		require.NoError(t, err)
		require.Empty(t, got)
	}},
	{"TheCallersMapsStayTheCallers", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		ctx, name := t.Context(), unique("name")
		fields := store.Fields{"a": "1"}
		require.NoError(t, s.Put(ctx, "project", name, nil, fields))
		fields["a"] = "2"
		got, err := s.Get(ctx, "project", name)
		require.NoError(t, err)
		require.Equal(t, store.Fields{"a": "1"}, got)
		got["a"] = "3"
		got, err = s.Get(ctx, "project", name)
		require.NoError(t, err)
		require.Equal(t, store.Fields{"a": "1"}, got)
	}},
	{"AChangeOfWhatHasChangedIsAConflict", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		ctx, name := t.Context(), unique("name")
		is := store.Fields{"a": "1", "b": "2"}
		require.ErrorIs(t, s.Put(ctx, "project", name, is, store.Fields{"a": "9"}), store.ErrConflict, "there is none")
		require.NoError(t, s.Put(ctx, "project", name, nil, is))
		for what, before := range map[string]store.Fields{
			"none": nil, "none, by an empty map": {}, "a field less": {"a": "1"}, "another value": {"a": "1", "b": "3"},
			"a field more": {"a": "1", "b": "2", "c": ""}, "another field": {"a": "1", "c": "2"},
		} {
			require.ErrorIs(t, s.Put(ctx, "project", name, before, store.Fields{"a": "9"}), store.ErrConflict, what)
			require.ErrorIs(t, s.Put(ctx, "project", name, before, nil), store.ErrConflict, what)
		}
		got, err := s.Get(ctx, "project", name)
		require.NoError(t, err)
		require.Equal(t, is, got)
		require.NoError(t, s.Put(ctx, "project", name, is, is), "the same again")
		require.NoError(t, s.Put(ctx, "project", name, is, store.Fields{}), "a record without a field does not exist")
		require.NoError(t, s.Put(ctx, "project", name, store.Fields{}, is))
		require.NoError(t, s.Put(ctx, "project", name, is, nil))
		require.NoError(t, s.Put(ctx, "project", name, nil, nil))
	}},
	{"OneOfManyChangesWins", func(t *testing.T, in Installation) {
		nodes := []store.Store{in.Node(nil), in.Node(nil)}
		name := unique("name")
		before := store.Fields{"n": "start"}
		require.NoError(t, nodes[0].Put(t.Context(), "project", name, nil, before))
		var won atomic.Int64
		together(t, 8, func(i int) {
			err := nodes[i%2].Put(context.Background(), "project", name, before, store.Fields{"n": fmt.Sprint(i)})
			if err == nil {
				won.Add(1)
			} else {
				assert.ErrorIs(t, err, store.ErrConflict)
			}
		})
		require.EqualValues(t, 1, won.Load())
	}},
	{"ListReturnsTheNamesInOrder", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		ctx, kind := t.Context(), unique("kind")
		names, err := one.List(ctx, kind, "", 10)
		require.NoError(t, err)
		require.Empty(t, names)
		want := slices.Clone(hostileTokens)
		for i, name := range want {
			s := []store.Store{one, other}[i%2]
			require.NoError(t, s.Put(ctx, kind, name, nil, store.Fields{"is": name}), "%q", name)
		}
		require.NoError(t, one.Put(ctx, kind+"2", "of another kind", nil, store.Fields{"a": "b"}))
		require.NoError(t, one.Put(ctx, "x"+kind, "of a third kind", nil, store.Fields{"a": "b"}))
		slices.Sort(want)
		names, err = other.List(ctx, kind, "", len(want)+1)
		require.NoError(t, err)
		require.Equal(t, want, names)
		var paged []string
		for after := ""; ; {
			names, err := one.List(ctx, kind, after, 7)
			require.NoError(t, err)
			if len(names) == 0 {
				break
			}
			require.LessOrEqual(t, len(names), 7)
			paged = append(paged, names...)
			after = names[len(names)-1]
		}
		require.Equal(t, want, paged)
		for _, name := range want {
			got, err := one.Get(ctx, kind, name)
			require.NoError(t, err)
			require.Equal(t, store.Fields{"is": name}, got)
			require.NoError(t, one.Put(ctx, kind, name, got, nil))
		}
		names, err = one.List(ctx, kind, "", 10)
		require.NoError(t, err)
		require.Empty(t, names)
	}},
	{"EveryNodeIsToldOfAChange", func(t *testing.T, in Installation) {
		kind := unique("kind")
		told := make([]chan string, 3)
		nodes := make([]store.Store, len(told))
		for i := range told {
			told[i] = make(chan string, 1000)
			nodes[i] = in.Node(func(s store.Store) {
				if i < 2 {
					s.Watch(kind, func(name string) { told[i] <- name })
					s.Watch(kind+"-other", func(name string) {
						if name != "" {
							t.Errorf("told of %q, which is of another kind", name)
						}
					})
				}
			})
		}
		for i, name := range hostileTokens {
			// The node that is told may not be ready to be told at first: a change is made until it is.
			fields := store.Fields(nil)
			for node := range 2 {
				require.Eventually(t, func() bool {
					next := store.Fields{"n": unique("")}
					if err := nodes[2-i%2].Put(t.Context(), kind, name, fields, next); err != nil {
						return false
					}
					fields = next
					for {
						select {
						case got := <-told[node]:
							if got == name {
								return true
							}
						default:
							return false
						}
					}
				}, patience, 5*1e6, "%q", name)
			}
		}
	}},
	{"TheRemovalOfARecordIsTold", func(t *testing.T, in Installation) {
		kind, told := unique("kind"), make(chan string, 100)
		watching := in.Node(func(s store.Store) { s.Watch(kind, func(name string) { told <- name }) })
		is := store.Fields{"a": "b"}
		require.NoError(t, watching.Put(t.Context(), kind, "gone", nil, is))
		require.NoError(t, watching.Put(t.Context(), kind, "gone", is, nil))
		count := 0
		require.Eventually(t, func() bool {
			for {
				select {
				case name := <-told:
					if name == "gone" {
						count++
					}
				default:
					return count >= 2
				}
			}
		}, patience, 1e6)
	}},
	{"ARecordCanBeLarge", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		fields := store.Fields{}
		for i := range 500 {
			fields[fmt.Sprintf("field-%03d", i)] = fmt.Sprintf("%080d", i)
		}
		name := unique("name")
		require.NoError(t, s.Put(t.Context(), "project", name, nil, fields))
		got, err := s.Get(t.Context(), "project", name)
		require.NoError(t, err)
		require.Equal(t, fields, got)
		require.NoError(t, s.Put(t.Context(), "project", name, fields, nil))
	}},
}

var postHogTests = []test{
	{"WithoutARedisOfPostHogsThereIsNothing", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		if s.HasPostHog() {
			t.Skip("this installation has one")
		}
		set, err := s.SortedSet(t.Context(), "key", s.Now())
		require.NoError(t, err)
		require.Empty(t, set)
		members, err := s.Members(t.Context(), "key")
		require.NoError(t, err)
		require.Empty(t, members)
		values, err := s.Strings(t.Context(), "a", "b")
		require.NoError(t, err)
		for _, value := range values {
			require.Empty(t, value)
		}
	}},
	{"ASortedSetHasWhatIsNotOver", func(t *testing.T, in Installation) {
		skipWithout(t, in.SetSorted != nil && in.SetString != nil, "write what PostHog writes")
		s := in.Node(nil)
		require.True(t, s.HasPostHog())
		now := s.Now()
		key := "@posthog/quota-limits/" + unique("")
		in.SetSorted(key, map[string]float64{
			"over": float64(now.Unix() - 1), "now": float64(now.Unix()), "later": float64(now.Unix() + 3600),
		})
		set, err := s.SortedSet(t.Context(), key, now)
		require.NoError(t, err)
		require.Len(t, set, 2)
		require.Equal(t, now.Unix(), set["now"].Unix())
		require.Equal(t, now.Unix()+3600, set["later"].Unix())
		members, err := s.Members(t.Context(), key)
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"over", "now", "later"}, members)
		none, err := s.SortedSet(t.Context(), key+"none", now)
		require.NoError(t, err)
		require.Empty(t, none)
		members, err = s.Members(t.Context(), key+"none")
		require.NoError(t, err)
		require.Empty(t, members)
		in.SetString(key+"text", `["a"]`)
		values, err := s.Strings(t.Context(), key+"none", key+"text")
		require.NoError(t, err)
		require.Equal(t, []string{"", `["a"]`}, values)
	}},
	{"ALargeSortedSetIsReadWhole", func(t *testing.T, in Installation) {
		skipWithout(t, in.SetSorted != nil, "write what PostHog writes")
		s := in.Node(nil)
		key, until := unique("large"), float64(s.Now().Unix()+3600)
		members := map[string]float64{"-inf": math.Inf(-1), "inf": math.Inf(1)}
		for i := range 20_000 {
			members[fmt.Sprint(i)] = until + float64(i%3)/2
		}
		in.SetSorted(key, members)
		set, err := s.SortedSet(t.Context(), key, s.Now())
		require.NoError(t, err)
		require.Len(t, set, 20_001)
		require.Equal(t, int64(until), set["0"].Unix())
		require.Equal(t, 9999, set["inf"].UTC().Year())
	}},
}

var storeTests = []test{
	{"ACallWhoseContextIsOverEndsAtOnce", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for what, err := range everyCall(ctx, s) {
			require.ErrorIs(t, err, store.ErrUnavailable, what)
		}
		for what, err := range everyCall(t.Context(), s) {
			require.NoError(t, err, what)
		}
	}},
	{"AllNodesHaveOneClock", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		// A node learns the time with its first calls.
		everyCall(t.Context(), one)
		everyCall(t.Context(), other)
		before := one.Now()
		between := other.Now()
		after := one.Now()
		require.WithinRange(t, between, before.Add(-clockTolerance), after.Add(clockTolerance))
		in.Pass(1e9)
		require.GreaterOrEqual(t, one.Now().Sub(before).Seconds(), 1.0)
	}},
	{"AStoreThatIsAwayIsToldFromOneThatSaysNo", func(t *testing.T, in Installation) {
		skipWithout(t, in.Away != nil, "be away")
		kind, told := unique("kind"), make(chan string, 1000)
		s := in.Node(func(s store.Store) { s.Watch(kind, func(name string) { told <- name }) })
		for what, err := range everyCall(t.Context(), s) {
			require.NoError(t, err, what)
		}
		token, mine, d := unique("token"), owner(), digests(2)
		claims(t, s, token, mine, long, d...)
		back := in.Away()
		s.Settle(token, mine, d[:1], long, d[1:])
		open := 0
		require.Eventually(t, func() bool {
			began := now()
			err := s.Reserve(context.Background(), unique("token"), owner(), digests(1), long, make([]store.Claim, 1))
			took := now().Sub(began)
			require.ErrorIs(t, err, store.ErrUnavailable)
			require.LessOrEqual(t, took, in.Deadline, "a call ends within its deadline")
			if took <= in.OpenDeadline {
				open++
			} else {
				open = 0
			}
			return open >= 20
		}, patience, 1e6, "the breaker opens")
		for what, err := range everyCall(context.Background(), s) {
			require.ErrorIs(t, err, store.ErrUnavailable, what)
		}
		for len(told) > 0 {
			<-told
		}
		back()
		require.Eventually(t, func() bool {
			for _, err := range everyCall(context.Background(), s) {
				if err != nil {
					return false
				}
			}
			return true
		}, patience, 10*1e6)
		require.Eventually(t, func() bool {
			select {
			case name := <-told:
				return name == ""
			default:
				return false
			}
		}, patience, 1e6, "all records may have changed")
		other := in.Node(nil)
		becomes(t, other, token, d[0], store.Done)
		becomes(t, other, token, d[1], store.Reserved)
	}},
	{"ARestartResetsNothing", restartResetsNothing},
}

// everyCall makes each call of the store that asks it something, and returns their errors.
func everyCall(ctx context.Context, s store.Store) map[string]error {
	token := unique("token")
	quota, rate := monthly(s, "node", 10), perSecond(10)
	quota.Need, rate.Need = 1, 1
	errs := map[string]error{
		"Reserve": s.Reserve(ctx, token, owner(), digests(1), long, make([]store.Claim, 1)),
		"Take":    s.Take(ctx, token, []store.QuotaDraw{quota}, []store.RateDraw{rate}),
		"Put":     s.Put(ctx, unique("kind"), token, nil, store.Fields{"a": "b"}),
	}
	_, errs["Usage"] = s.Usage(ctx, token)
	_, errs["Adjust"] = s.Adjust(ctx, token, quota.Counter, 1)
	_, errs["Get"] = s.Get(ctx, "project", token)
	_, errs["List"] = s.List(ctx, unique("kind"), "", 1)
	return errs
}

func takeBoth(t *testing.T, s store.Store, token string, quota *store.QuotaDraw, rate *store.RateDraw) {
	t.Helper()
	quotas, rates := []store.QuotaDraw{*quota}, []store.RateDraw{*rate}
	require.NoError(t, s.Take(t.Context(), token, quotas, rates))
	*quota, *rate = quotas[0], rates[0]
}

func restartResetsNothing(t *testing.T, in Installation) {
	skipWithout(t, in.Restart != nil, "restart")
	s := in.Node(nil)
	ctx, token, mine := t.Context(), unique("token"), owner()
	d := digests(100)
	claims(t, s, token, mine, long, d...)
	s.Settle(token, mine, d[:50], long, d[50:])
	settled(t, s, in, token)

	q := monthly(s, "node-1", 100)
	q.Need, q.Extra, q.Unspent = 60, 10, 10
	r := perSecond(100)
	r.Interval, r.Need = 1e12, 70
	takeBoth(t, s, token, &q, &r)
	require.EqualValues(t, 70, q.Given)
	require.EqualValues(t, 70, r.Given)
	adjusted, err := s.Adjust(ctx, token, q.Counter, -5)
	require.NoError(t, err)
	require.EqualValues(t, 65, adjusted.Used)
	usage, err := s.Usage(ctx, token)
	require.NoError(t, err)
	kind, fields := unique("kind"), store.Fields{"text": "ä\n\"\\\x01", "": "empty name"}
	require.NoError(t, s.Put(ctx, kind, token, nil, fields))

	in.Restart()

	for i, claim := range claims(t, s, token, owner(), long, d...) {
		require.Equal(t, i < 50, claim == store.Done, i)
	}
	again, err := s.Usage(ctx, token)
	require.NoError(t, err)
	require.Len(t, again, 1)
	require.Equal(t, usage[q.Counter].Used, again[q.Counter].Used)
	require.Equal(t, usage[q.Counter].Held, again[q.Counter].Held)
	require.WithinDuration(t, usage[q.Counter].End, again[q.Counter].End, 1e6)
	other := monthly(s, "node-2", 100)
	other.Counter, other.Need, other.Extra, other.Unspent = q.Counter, 35, 10, 10
	r.Need = 30
	takeBoth(t, s, token, &other, &r)
	require.EqualValues(t, 35, other.Given)
	require.EqualValues(t, 100, other.Used)
	require.EqualValues(t, 30, r.Given)
	r.Need = 1
	takeRate(t, s, token, &r)
	require.Zero(t, r.Given)
	got, err := s.Get(ctx, kind, token)
	require.NoError(t, err)
	require.Equal(t, fields, got)
	names, err := s.List(ctx, kind, "", 10)
	require.NoError(t, err)
	require.Equal(t, []string{token}, names)
	if err := s.Put(ctx, kind, token, nil, fields); !errors.Is(err, store.ErrConflict) {
		require.NoError(t, err)
		require.Fail(t, "the record is there")
	}
	require.NoError(t, s.Put(ctx, kind, token, fields, nil))
}
