package storetest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/store"
)

// perSecond returns a draw from a counter of its own, which fills up by one unit a second.
func perSecond(burst int64) store.RateDraw {
	return store.RateDraw{Counter: unique("rate:events"), Interval: time.Second, Burst: burst}
}

func takeRate(t tester, s store.Store, token string, draw *store.RateDraw) {
	t.Helper()
	draws := []store.RateDraw{*draw}
	require.NoError(t, s.Take(context.Background(), token, nil, draws))
	*draw = draws[0]
}

var rateTests = []test{
	{"ABurstPassesAtOnceAndNoMore", func(t *testing.T, in Installation) {
		one, other := in.Node(nil), in.Node(nil)
		token, d := unique("token"), perSecond(10)
		d.Interval = time.Hour
		d.Need = 7
		takeRate(t, one, token, &d)
		require.EqualValues(t, 7, d.Given)
		require.EqualValues(t, 3, d.Left)
		require.Zero(t, d.Wait)
		d.Need = 4
		takeRate(t, other, token, &d)
		require.Zero(t, d.Given, "as a whole or not at all")
		require.EqualValues(t, 3, d.Left)
		require.InDelta(t, time.Hour, d.Wait, float64(time.Minute))
		d.Need, d.Extra = 1, 10
		takeRate(t, other, token, &d)
		require.EqualValues(t, 3, d.Given, "a part of the extra")
		require.Zero(t, d.Left)
		d.Need, d.Extra = 2, 10
		takeRate(t, one, token, &d)
		require.Zero(t, d.Given)
		require.InDelta(t, 2*time.Hour, d.Wait, float64(time.Minute))
		d.Need, d.Extra = 0, 10
		takeRate(t, one, token, &d)
		require.Zero(t, d.Given)
		require.Zero(t, d.Wait, "there was no need")
	}},
	{"ItFillsUpWithTime", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), perSecond(100)
		d.Interval, d.Need = 100*time.Millisecond, 100
		takeRate(t, s, token, &d)
		require.EqualValues(t, 100, d.Given)
		before := s.Now()
		in.Pass(time.Second)
		d.Need, d.Extra = 10, 90
		takeRate(t, s, token, &d)
		require.GreaterOrEqual(t, d.Given, int64(10))
		require.LessOrEqual(t, d.Given, int64((s.Now().Sub(before)+clockTolerance)/d.Interval)+1)
	}},
	{"ItIsFullWithTheBurst", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), perSecond(5)
		d.Interval, d.Need = time.Millisecond, 5
		takeRate(t, s, token, &d)
		in.Pass(200 * time.Millisecond)
		d.Interval = time.Hour // from here on nothing fills up
		d.Need, d.Extra = 0, 100
		takeRate(t, s, token, &d)
		require.EqualValues(t, 5, d.Given)
	}},
	{"AfterTheWaitTheNeedIsMet", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), perSecond(10)
		d.Interval, d.Need = 100*time.Millisecond, 10
		takeRate(t, s, token, &d)
		d.Need = 6
		takeRate(t, s, token, &d)
		require.Zero(t, d.Given)
		require.Positive(t, d.Wait)
		require.LessOrEqual(t, d.Wait, 600*time.Millisecond)
		if in.Quick {
			in.Pass(d.Wait - 1)
			takeRate(t, s, token, &d)
			require.Zero(t, d.Given)
			require.EqualValues(t, 1, d.Wait)
		}
		in.Pass(d.Wait)
		takeRate(t, s, token, &d)
		require.EqualValues(t, 6, d.Given)
	}},
	{"WhatIsReturnedIsThereAgain", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), perSecond(10)
		d.Interval, d.Need = time.Hour, 10
		takeRate(t, s, token, &d)
		d.Need, d.Return = 0, 4
		takeRate(t, s, token, &d)
		require.EqualValues(t, 4, d.Left)
		d.Need, d.Return = 5, 1
		takeRate(t, s, token, &d)
		require.EqualValues(t, 5, d.Given, "returned and drawn in one")
		require.Zero(t, d.Left)
		d.Need, d.Return = 0, 1000
		takeRate(t, s, token, &d)
		require.EqualValues(t, 10, d.Left, "never more than the burst")
	}},
	{"ABurstOfZeroGivesNothing", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), perSecond(0)
		d.Need, d.Extra = 1, 5
		takeRate(t, s, token, &d)
		require.Zero(t, d.Given)
		require.Zero(t, d.Left)
		require.Positive(t, d.Wait)
	}},
	{"TheRateMayChange", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), perSecond(10)
		d.Interval, d.Need = time.Hour, 4
		takeRate(t, s, token, &d)
		d.Burst, d.Need = 2, 1
		takeRate(t, s, token, &d)
		require.Zero(t, d.Given)
		require.Zero(t, d.Left)
		require.Positive(t, d.Wait)
		d.Burst = 10
		takeRate(t, s, token, &d)
		require.EqualValues(t, 1, d.Given, "a smaller burst in between gives nothing away")
		require.EqualValues(t, 5, d.Left)
	}},
	{"SlowAndFastRatesAreExact", func(t *testing.T, in Installation) {
		s := in.Node(nil)
		token, d := unique("token"), perSecond(1_000_000)
		d.Interval, d.Need = time.Minute, 1_000_000
		takeRate(t, s, token, &d)
		require.EqualValues(t, 1_000_000, d.Given)
		d.Need = 1
		takeRate(t, s, token, &d)
		require.Zero(t, d.Given)
		require.InDelta(t, time.Minute, d.Wait, float64(10*time.Second))
		fast := perSecond(1_000_000)
		fast.Interval, fast.Need = time.Microsecond, 1_000_000
		takeRate(t, s, token, &fast)
		require.EqualValues(t, 1_000_000, fast.Given)
		require.LessOrEqual(t, fast.Left, int64(1_000_000))
	}},
	{"ConcurrentDrawsNeverHaveMoreThanTheBurstAndTheRate", func(t *testing.T, in Installation) {
		nodes := []store.Store{in.Node(nil), in.Node(nil)}
		token, first := unique("token"), perSecond(500)
		first.Interval = time.Hour
		var sum atomic.Int64
		together(t, 8, func(i int) {
			for range 50 {
				d := first
				d.Need, d.Extra = 1, 1
				draws := []store.RateDraw{d}
				if err := nodes[i%2].Take(context.Background(), token, nil, draws); err != nil {
					t.Error(err)
					return
				}
				sum.Add(draws[0].Given)
			}
		})
		require.EqualValues(t, 500, sum.Load())
	}},
	{"ItDoesAsTheModel", rateProperty},
}

// rateProperty compares a rate with a model that counts: never do more units pass than the burst and what fills up. If
// the time of the installation passes at once, each answer is compared.
func rateProperty(t *testing.T, in Installation) {
	s := in.Node(nil)
	rapid.Check(t, func(t *rapid.T) {
		token, d := unique("token"), perSecond(rapid.Int64Range(1, 50).Draw(t, "burst"))
		d.Interval = time.Duration(rapid.IntRange(1, 2000).Draw(t, "interval")) * time.Millisecond
		began := s.Now()
		// The model's level is in units of time: it has filled up to level, which is at most the burst.
		full := time.Duration(d.Burst) * d.Interval
		level, passed, drawn := full, time.Duration(0), int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"draw": func(t *rapid.T) {
				one := d
				one.Need, one.Extra = rapid.Int64Range(0, 60).Draw(t, "need"), rapid.Int64Range(0, 60).Draw(t, "extra")
				one.Return = rapid.Int64Range(0, drawn).Draw(t, "return")
				takeRate(t, s, token, &one)
				drawn += one.Given - one.Return
				require.True(t, one.Given == 0 || one.Given >= one.Need && one.Given <= one.Need+one.Extra)
				elapsed := s.Now().Sub(began) + clockTolerance
				require.LessOrEqual(t, drawn, d.Burst+int64(elapsed/d.Interval))
				if !in.Quick {
					return
				}
				level = min(full, level+time.Duration(one.Return)*d.Interval)
				has := int64(level / d.Interval)
				want, wait := int64(0), time.Duration(0)
				if one.Need <= has {
					want = one.Need + min(one.Extra, has-one.Need)
				} else {
					wait = time.Duration(one.Need)*d.Interval - level
				}
				level -= time.Duration(want) * d.Interval
				require.Equal(t, want, one.Given)
				require.Equal(t, wait, one.Wait)
				require.Equal(t, int64(level/d.Interval), one.Left)
			},
			"pass": func(t *rapid.T) {
				if in.Quick {
					by := time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond
					in.Pass(by)
					passed += by
					level = min(full, level+by)
				}
			},
		})
	})
}
