package quota

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// sparse is a rate that is far above what the tests' projects send.
func sparse() *events.Limits {
	limits := rates("events=10000/s burst=100000")
	limits.Over = events.OverDrop
	return limits
}

// trickle sends five events every half second, and returns how often the store was asked.
func (n *node) trickle(requests int) int64 {
	before := n.counters.(shared).takes.Load()
	for range requests {
		require.Equal(n.t, 5, n.send("phc_a", sparse(), 5))
		time.Sleep(500 * time.Millisecond)
	}
	return n.counters.(shared).takes.Load() - before
}

// What a node holds for a busy project ends within a second. A project with a request now and then would ask for each.
func TestAProjectThatSendsLittleSeldomAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		node.trickle(10)
		require.LessOrEqual(t, node.trickle(120), int64(8), "a minute")
		time.Sleep(horizon)
		require.Equal(t, int64(1), node.trickle(1), "what was kept has ended")
	})
}

func TestWhatWasKeptAndNotUsedIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		node.trickle(10)
		takes := node.counters.(shared).takes.Load()
		for range 100 {
			batch := batchOf("phc_a", sparse(), 5)
			passed, settle := node.judge(batch)
			require.Equal(t, 5, passed)
			fail(batch, settle)
		}
		require.Equal(t, takes, node.counters.(shared).takes.Load(), "the same events, 100 times")
		for range 30 {
			require.Equal(t, 5, node.send("phc_a", sparse(), 5))
		}
		require.Greater(t, node.counters.(shared).takes.Load(), takes)
	})
}

// Many nodes keep what they can, and then all of them send as much as they can at once.
func TestWhatAllNodesKeepIsWithinTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, limits := newStore(t), rates("events=1000/s burst=10000")
		limits.Over = events.OverDrop
		rate := limits.Rates[0]
		nodes := make([]*node, 24)
		for i := range nodes {
			nodes[i] = shared.node(nil)
		}
		level, at := float64(rate.Burst), time.Now()
		pass := func(n int) {
			now := time.Now()
			level = min(float64(rate.Burst), level+now.Sub(at).Seconds()/rate.Interval().Seconds()) - float64(n)
			at = now
			require.GreaterOrEqual(t, level, -1e-6, "more than burst + rate * t")
		}
		for range 5 {
			time.Sleep(horizon) // the burst is full again
			for range 12 {
				for _, node := range nodes {
					pass(node.send("phc_a", limits, 5))
				}
				time.Sleep(400 * time.Millisecond)
			}
			time.Sleep(4 * time.Second)
			kept := int64(0)
			for _, node := range nodes {
				node.see("phc_a", func(s *subject) { kept += s.rates[events.ResourceEvents].kept })
			}
			require.Positive(t, kept)
			require.LessOrEqual(t, kept, 2*newRate(rate, false, true).kept)
			for _, node := range nodes {
				pass(node.send("phc_a", limits, 1000))
			}
		}
	})
}
