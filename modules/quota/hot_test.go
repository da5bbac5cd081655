package quota

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/events"
)

func userRates(texts ...string) *events.Limits {
	return &events.Limits{UserRates: rates(texts...).Rates, Over: events.OverDrop}
}

// sendAs sends n events of a user, and returns how many pass.
func (n *node) sendAs(limits *events.Limits, distinctID string, count int) int {
	batch := batchOf("phc_a", limits, count)
	for i := range batch.Events {
		batch.Events[i].DistinctID = distinctID
	}
	passed, settle := n.judge(batch)
	accept(batch, settle)
	return passed
}

func TestAUserWhoSendsLittleIsNeverDrawn(t *testing.T) {
	t.Parallel()
	shared := newStore(t)
	node := shared.node(nil)
	limits := userRates("events=100/m burst=800")
	for i := range 500 {
		require.Equal(t, 100, node.sendAs(limits, fmt.Sprint("u", i), 100))
	}
	require.Zero(t, shared.takes.Load())
	require.Zero(t, node.hot.count())
}

func TestAUserOverTheRateIsLimitedAndOthersAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := userRates("events=10/s burst=80")
		passed := node.sendAs(limits, "busy", 500)
		require.GreaterOrEqual(t, passed, 80)
		require.LessOrEqual(t, passed, 90)
		require.Equal(t, 10, node.sendAs(limits, "other", 10))
		time.Sleep(time.Minute)
		passed = node.sendAs(limits, "busy", 500)
		require.GreaterOrEqual(t, passed, 70, "the burst is back")
		require.LessOrEqual(t, passed, 90)
	})
}

func TestWhatUsersOfAllNodesSendIsWithinTheBound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			shared := newStore(t)
			defer shared.stop()
			rate := int64(rapid.IntRange(1, 50).Draw(rt, "rate"))
			burst := int64(rapid.IntRange(1, 200).Draw(rt, "burst"))
			count := rapid.IntRange(1, 4).Draw(rt, "nodes")
			limits := userRates(fmt.Sprintf("events=%d/s burst=%d", rate, burst))
			var all []*node
			for range count {
				all = append(all, shared.node(func(c *Config) { c.MaxUsers = shardCount }))
			}
			begin := time.Now()
			passed := map[string]int64{}
			for range rapid.IntRange(1, 40).Draw(rt, "requests") {
				user := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "user")
				node := rapid.SampledFrom(all).Draw(rt, "node")
				passed[user] += int64(node.sendAs(limits, user, rapid.IntRange(1, 100).Draw(rt, "events")))
				time.Sleep(time.Duration(rapid.IntRange(0, 500).Draw(rt, "pause")) * time.Millisecond)
				fill := float64(burst) + float64(rate)*time.Since(begin).Seconds()
				bound := fill*(1+float64(count)/coldShare) + 1
				for user, n := range passed {
					if float64(n) > bound {
						rt.Fatalf("%s: %d events passed, and the bound is %f", user, n, bound)
					}
				}
			}
			for _, node := range all {
				_ = node.stop()
			}
		})
	})
}

// Whoever floods the node with users makes others take accounts, and no more.
func TestMillionsOfUsersNeitherGrowMemoryNorLimitAnybody(t *testing.T) {
	t.Parallel()
	h := newHot(shardCount * 4)
	r := newRate(rates("events=10/s burst=80").Rates[0], false, false)
	prefix := h.prefix("phc_a")
	for i := range 2_000_000 {
		h.of(prefix, "phc_a", fmt.Sprint("flood", i), events.ResourceEvents, &r, 1)
	}
	require.LessOrEqual(t, h.count(), shardCount*4)
	node := newStore(t).node(func(c *Config) { c.MaxUsers = shardCount * 4 })
	limits := userRates("events=10/s burst=80")
	for i := range 3000 {
		require.Equal(t, 40, node.sendAs(limits, fmt.Sprint("u", i), 40), "an innocent user is not limited")
	}
	require.LessOrEqual(t, node.hot.count(), shardCount*4)
}

func TestWithoutTheStoreUsersPassOrFailAsConfigured(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]int{failOpen: 50, failClosed: 0} {
		shared := newStore(t)
		node := shared.node(func(c *Config) { c.OnStoreFailure = policy })
		shared.fails(away)
		require.Equal(t, want, node.sendAs(userRates("events=1/s burst=1"), "u", 50), policy)
	}
}

func TestEventsOverAUsersRateAreTreatedAsTheProjectSays(t *testing.T) {
	t.Parallel()
	for over, want := range map[events.Over]events.Outcome{
		events.OverOverflow: accepted,
		events.OverDrop:     {State: events.StateDropped, Reason: events.ReasonRateLimited},
		events.OverReject:   {State: events.StateFailed, Reason: events.ReasonRateLimited},
	} {
		node := newStore(t).node(nil)
		limits := userRates("events=1/h burst=1")
		limits.Over = over
		batch := batchOf("phc_a", limits, 2)
		node.end(batch)
		require.Equal(t, accepted, batch.Events[0].Outcome)
		last := &batch.Events[1]
		last.Outcome.Err = nil
		require.Equal(t, want, last.Outcome)
		overflow := over == events.OverOverflow
		require.Equal(t, events.Routing{
			Overflow: overflow, Unkeyed: overflow, SkipPerson: overflow, Limited: overflow,
		}, last.Routing)
		require.Equal(t, over == events.OverReject, batch.RetryAfter > 0)
		standings := batch.Standings.All()
		require.Len(t, standings, 1)
		require.Equal(t, "events-user", standings[0].Name())
		require.True(t, standings[0].Over)
	}
}

func TestManyBusyUsersInOneRequestAndManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	shared := newStore(t)
	node := shared.node(nil)
	limits := userRates("events=1/h burst=1")
	var group sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 4 {
		group.Go(func() {
			batch := batchOf("phc_a", limits, 600)
			for i := range batch.Events {
				batch.Events[i].DistinctID = fmt.Sprint("u", i%300)
			}
			n, settle := node.judge(batch)
			accept(batch, settle)
			mu.Lock()
			defer mu.Unlock()
			passed += n
		})
	}
	group.Wait()
	require.Equal(t, 300, passed, "each user has one event")
	require.LessOrEqual(t, shared.takes.Load(), int64(4*3))
}

func FuzzAUserNeverGetsMoreThanTheCounterHas(f *testing.F) {
	f.Add("a", "b", uint8(3))
	f.Add("x:{y}\n", "*", uint8(200))
	f.Fuzz(func(t *testing.T, one, other string, n uint8) {
		node := newStore(t).node(nil)
		limits := userRates("events=1/h burst=2")
		require.Equal(t, min(2, int(n)), node.sendAs(limits, one, int(n)))
		if one != other {
			require.Equal(t, min(2, int(n)), node.sendAs(limits, other, int(n)))
		}
		require.Equal(t, max(0, 2-int(n)), node.sendAs(limits, one, 5))
	})
}

func TestAnEventOfAUserWhoSendsLittleAllocatesNothing(t *testing.T) {
	h := newHot(shardCount)
	r := newRate(rates("events=10000000/s").Rates[0], false, false)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if h.of(h.prefix("phc_a"), "phc_a", "u", events.ResourceEvents, &r, 1) != nil {
			t.Fatal("the user has an account")
		}
	}))
}

func BenchmarkUsersWhoSendLittle(b *testing.B) {
	h := newHot(16384)
	r := newRate(rates("events=10000000/s").Rates[0], false, false)
	ids := make([]string, 4096)
	for i := range ids {
		ids[i] = fmt.Sprintf("01a2052d-2e75-7ea2-9012-%012d", i)
	}
	prefix, now, i := h.prefix("phc_a"), int64(0), 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		now += 100
		h.of(prefix, "phc_a", ids[i%len(ids)], events.ResourceEvents, &r, now)
	}
}
