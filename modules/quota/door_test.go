package quota

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// What the door turns away ends as it would behind the door, and asks nobody.
func TestWhatCannotPassIsTurnedAwayAtTheDoorAsTheStageWould(t *testing.T) {
	limited := func(over events.Over, whole bool) *events.Limits {
		limits := rates("events=2/h burst=40")
		limits.Over, limits.Whole = over, whole
		return limits
	}
	usedUp := quotas("events=40/day")
	usedUp.Over = events.OverOverflow
	for name, limits := range map[string]*events.Limits{
		"quota": usedUp, "drop": limited(events.OverDrop, false), "reject": limited(events.OverReject, false),
		"whole": limited(events.OverReject, true), "nothing at all": quotas("events=0/month"),
	} {
		synctest.Test(t, func(t *testing.T) {
			shared := newStore(t)
			node := shared.node(nil)
			node.send("phc_a", limits, 40)
			behind, at := batchOf("phc_a", limits, 3), batchOf("phc_a", limits, 3)
			_, err := node.Process(context.Background(), behind)
			require.NoError(t, err)
			require.Zero(t, behind.Pending(), name)
			counted, asked := node.scope.Snapshot().Counters(), shared.takes.Load()
			require.Equal(t, 3, node.turnsAway(at), name)
			require.Equal(t, asked, shared.takes.Load(), name)
			require.Equal(t, behind, at, name)
			for key, counter := range node.scope.Snapshot().Counters() {
				if before := counted[key].Value(); before > 0 && key != "draws_total+outcome=ok" {
					require.Contains(t, []int64{before, before + 3}, counter.Value(), "%s: %s", name, key)
				}
			}
			require.Zero(t, node.table.find("phc_a").visits.Load(), name)
		})
	}
}

func TestTheDoorCountsWhatItTurnsAway(t *testing.T) {
	node := newStore(t).node(nil)
	limits := quotas("events=0/month")
	node.send("phc_a", limits, 1)
	require.Equal(t, 4, node.turnsAway(batchOf("phc_a", limits, 4)))
	require.Equal(t, int64(5),
		node.scope.Snapshot().Counters()["events_total+outcome=over_quota,resource=events"].Value())
}

// leaves requires that the door does not touch the batch.
func (n *node) leaves(batch *events.Batch, why string) {
	n.t.Helper()
	untouched := *batch
	untouched.Events = slices.Clone(batch.Events)
	require.Zero(n.t, n.turnsAway(batch), why)
	require.Equal(n.t, &untouched, batch, why)
}

// The door leaves alone every request of which an event might pass, and does not touch it.
func TestTheDoorLeavesAloneWhatMayPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		node.leaves(batchOf("phc_a", nil, 2), "no limits")
		limits := quotas("events=10/minute", "exceptions=10/minute")
		node.leaves(batchOf("phc_a", limits, 2), "nothing was sent yet")
		require.Equal(t, 8, node.send("phc_a", limits, 8))
		node.leaves(batchOf("phc_a", limits, 20), "there is room")
		require.Equal(t, 2, node.send("phc_a", limits, 20))
		require.Zero(t, node.send("phc_a", limits, 1))
		require.Equal(t, 1, node.turnsAway(batchOf("phc_a", limits, 1)))

		mixed := batchOf("phc_a", limits, 2)
		mixed.Events[0].Name = "$exception"
		node.leaves(mixed, "there is room for one of the events")
		mixed.Events[0].Lane = events.LaneLogs // no limit
		require.Equal(t, 1, node.turnsAway(mixed))
		require.True(t, mixed.Events[0].Pending(), "an event without a limit goes on")

		ended := batchOf("phc_a", limits, 1)
		ended.Events[0].Accept()
		node.leaves(ended, "the event has ended")

		node.leaves(batchOf("phc_a", quotas("events=11/minute", "exceptions=10/minute"), 1), "the limit was raised")
		require.Equal(t, 1, node.send("phc_a", quotas("events=11/minute", "exceptions=10/minute"), 2))
		time.Sleep(time.Minute)
		node.leaves(batchOf("phc_a", limits, 1), "the window is over")
		require.Equal(t, 1, node.send("phc_a", limits, 1))
	})
}

// What goes to overflow is accepted, so duplicates have to be found among it.
func TestWhatGoesToOverflowIsNotTurnedAway(t *testing.T) {
	node := newStore(t).node(nil)
	limits := rates("events=2/h burst=2")
	limits.Over = events.OverOverflow
	for range 3 {
		require.Equal(t, 4, node.send("phc_a", limits, 4))
		node.leaves(batchOf("phc_a", limits, 4), "overflow")
	}
}

// Without the store on_store_failure decides, and not the door.
func TestTheDoorTurnsNobodyAwayForWantOfTheStore(t *testing.T) {
	for _, mode := range []string{failOpen, failClosed} {
		shared := newStore(t)
		node := shared.node(func(c *Config) { c.OnStoreFailure = mode })
		shared.fails(away)
		limits := quotas("events=10/day")
		for range 3 {
			node.send("phc_a", limits, 1)
			node.leaves(batchOf("phc_a", limits, 1), mode)
		}
	}
}

func TestTheDoorIsInFrontOfTheStageThatLooksForDuplicates(t *testing.T) {
	require.Greater(t, door{}.Phase(), events.PhaseValidate)
	require.Less(t, door{}.Phase(), events.PhaseDedup)
	require.NotEqual(t, (&Quota{}).Name(), door{}.Name())
}

// After a stop nothing is known, and nothing is turned away.
func TestTheDoorIsOpenAfterAStop(t *testing.T) {
	node := newStore(t).node(nil)
	limits := quotas("events=0/month")
	node.send("phc_a", limits, 1)
	require.NoError(t, node.stop())
	require.Zero(t, node.turnsAway(batchOf("phc_a", limits, 1)))
}

// BenchmarkTheDoor is a project with room in its limits, and one without.
func BenchmarkTheDoor(b *testing.B) {
	for name, limits := range map[string]*events.Limits{"open": far(), "shut": quotas("events=0/month")} {
		b.Run(name, func(b *testing.B) {
			node := newStore(b).node(nil)
			node.send("phc_a", limits, 10)
			batch := batchOf("phc_a", limits, 10)
			b.ReportAllocs()
			for b.Loop() {
				for i := range batch.Events {
					batch.Events[i].Outcome, batch.Events[i].Charge = events.Outcome{}, 0
				}
				batch.Standings = events.Standings{}
				_, _ = door{node.Quota}.Process(b.Context(), batch)
			}
		})
	}
}
