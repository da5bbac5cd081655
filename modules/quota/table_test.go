package quota

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// A flood of tokens that strangers invent takes no more accounts than there may be, and changes no count.
func TestAFloodOfTokensIsBoundedAndForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		node := shared.node(func(c *Config) { c.MaxAccounts, c.OnStoreFailure = minAccounts, failClosed })
		limits := quotas("events=1000/day", "events=5000/month")
		passed, most := 0, 0
		for i := range 4000 {
			node.send(fmt.Sprintf("phc_invented_%d", i), limits, 1)
			if i%40 == 0 {
				passed += node.send("phc_real", limits, 25)
			}
			used, _ := node.journal.accounts()
			most = max(most, used)
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, most, minAccounts)
		require.Equal(t, 1000, passed, "exactly the quota, however often the account was given up")
		require.Zero(t, node.scope.Snapshot().Counters()["full_total+"].Value())
		require.Equal(t, int64(1000), node.used("phc_real", limits).Used)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.LessOrEqual(t, node.table.count.Load(), int64(minAccounts))
	})
}

// Projects that come back again and again, to a table that has no room for all of them, get a new account each time:
// more of them in a window than nodes may have accounts of a counter.
func TestProjectsThatComeBackAreCountedHoweverOftenTheyWereGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		nodes := []*node{}
		for range 2 {
			nodes = append(nodes, shared.node(func(c *Config) {
				c.MaxAccounts, c.OnStoreFailure = minAccounts, failClosed
			}))
		}
		limits := quotas("events=2000/month", "events=1500/day")
		const rounds, projects = 1200, minAccounts / 2 // the table has room for half of them
		token := func(i int) string { return fmt.Sprintf("phc_%d", i) }
		var renewed, last [projects]uint64
		for round := range rounds {
			node := nodes[round/100%2] // the projects stay with a node for a while
			for i := range projects {
				require.Equal(t, 1, node.send(token(i), limits, 1), "round %d of %s", round, token(i))
				if (round+i)%10 == 0 { // what is given back, the node holds until it rests
					batch := batchOf(token(i), limits, 1)
					_, settle := node.judge(batch)
					fail(batch, settle)
				}
				time.Sleep(2 * futileFor)
				node.see(token(i), func(s *subject) {
					require.Len(t, s.accounts, 2)
					if serial := s.accounts[0].slot.serial; serial != last[i] {
						renewed[i], last[i] = renewed[i]+1, serial
					}
				})
			}
		}
		require.Greater(t, slices.Min(renewed[:]), uint64(1024))
		for _, node := range nodes {
			require.Zero(t, node.scope.Snapshot().Counters()["full_total+"].Value())
			require.NoError(t, node.stop())
		}
		reader := shared.node(nil)
		for i := range projects {
			is := reader.used(token(i), limits)
			require.Equal(t, int64(rounds), is.Used, token(i))
			require.Zero(t, is.Held, token(i))
		}
	})
}

// What a request has drawn and not taken yet is not given back by the keeper, who may come between: the request would
// take its quota for used up.
func TestTheKeeperLeavesWhatARequestHasJustDrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := quotas("events=100/day")
		require.Equal(t, 1, node.send("phc_a", limits, 1))
		time.Sleep(2*resting + tick/2) // the keeper itself comes at no moment that the test does not choose
		s := node.table.find("phc_a")
		need := needs{events.ResourceEvents: 7}
		s.mu.Lock()
		mine := s.join(&need)
		s.begin(node.now().UnixNano(), node.mono())
		s.mu.Unlock()
		node.lead(t.Context(), s, mine)
		node.look(t.Context(), resting)
		s.mu.Lock()
		s.leave(&need, mine)
		found := s.look(&need, node.now().UnixNano(), node.mono(), mine)
		s.mu.Unlock()
		require.Equal(t, need, found.quota)
		require.Equal(t, int64(8), node.used("phc_a", limits).Used)
		node.look(t.Context(), resting)
		require.Equal(t, int64(1), node.used("phc_a", limits).Used, "it is given back when nobody waits for it")
	})
}

// What holds something, or has a request on its way, makes no room.
func TestAccountsInUseAreNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		node := shared.node(func(c *Config) { c.MaxAccounts = minAccounts })
		limits := quotas("events=10/day")
		var batches []*events.Batch
		var settles []events.Settle
		for i := range 2 * minAccounts {
			batch := batchOf(fmt.Sprintf("phc_%d", i), limits, 12)
			_, settle := node.judge(batch)
			batches, settles = append(batches, batch), append(settles, settle)
		}
		full := node.scope.Snapshot().Counters()["full_total+"].Value()
		require.Positive(t, full)
		for i := range batches {
			want := 10
			if settles[i] == nil {
				want = 12 // there was no room for the account, and events pass uncounted
				full--
			}
			require.Equal(t, want, batches[i].Pending())
			fail(batches[i], settles[i])
		}
		require.Zero(t, full)
		require.Equal(t, 10, node.send("phc_0", limits, 12), "all was given back")
	})
}

// A closed installation fails what it cannot count.
func TestWithoutRoomAClosedNodeFailsTheEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(func(c *Config) { c.MaxAccounts, c.OnStoreFailure = minAccounts, failClosed })
		limits := quotas("events=10/day", "events=11/month", "events=12/hour")
		for i := range minAccounts {
			batch := batchOf(fmt.Sprintf("phc_%d", i), limits, 1)
			node.judge(batch) // and never settled
		}
		batch := batchOf("phc_last", limits, 1)
		require.Equal(t, map[events.Outcome]int{
			{State: events.StateFailed, Reason: events.ReasonStore}: 1,
		}, node.end(batch))
	})
}

func TestSubjectsThatNobodyUsesLeaveTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		node.send("phc_a", quotas("events=10/minute"), 1)
		node.send("phc_b", rates("events=10/s"), 1)
		node.send("phc_c", quotas("events=10/day"), 1)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		require.Equal(t, int64(1), node.table.count.Load())
		require.NotNil(t, node.table.find("phc_c"))
	})
}

// Requests, floods, and the keeper that gives back and removes, at the same time: the race detector looks, and the
// numbers are right.
func TestEverythingAtTheSameTime(t *testing.T) {
	t.Parallel()
	shared := newStore(t)
	node := shared.node(func(c *Config) { c.MaxAccounts, c.OnStoreFailure = minAccounts, failClosed })
	limits := quotas("events=30000/day")
	limits.Rates = rates("events=1000000/s").Rates
	const tokens = 4
	var passed [tokens]atomic.Int64
	var workers, keeper sync.WaitGroup
	stop := make(chan struct{})
	keeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				node.look(t.Context(), 0)
			}
		}
	})
	for worker := range 8 {
		workers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for i := range 400 {
				if i%10 == 0 {
					node.send(fmt.Sprintf("phc_invented_%d_%d", worker, i), limits, 1)
				}
				token := random.IntN(tokens)
				batch := batchOf(fmt.Sprintf("phc_%d", token), limits, 1+random.IntN(40))
				n, settle := node.judge(batch)
				if random.IntN(4) == 0 {
					fail(batch, settle)
				} else {
					passed[token].Add(int64(n))
					accept(batch, settle)
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	keeper.Wait()
	node.look(t.Context(), 0)
	node.look(t.Context(), 0)
	for token := range passed {
		require.Equal(t, passed[token].Load(), node.used(fmt.Sprintf("phc_%d", token), limits).Used)
	}
}
