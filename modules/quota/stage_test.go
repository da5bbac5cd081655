package quota

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
)

// end judges n events and returns their outcomes, once the sink has accepted those that passed.
func (n *node) end(batch *events.Batch) (outcomes map[events.Outcome]int) {
	_, settle := n.judge(batch)
	accept(batch, settle)
	outcomes = map[events.Outcome]int{}
	for i := range batch.Events {
		outcome := batch.Events[i].Outcome
		outcome.Err = nil
		outcomes[outcome]++
	}
	return outcomes
}

var (
	accepted = events.Outcome{State: events.StateAccepted}
	quotaHit = events.Outcome{State: events.StateDropped, Reason: events.ReasonQuota}
)

func TestAQuotaLetsExactlyItsNumberPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := quotas("events=100/hour")
		require.Equal(t, 70, node.send("phc_a", limits, 70))
		require.Equal(t, 30, node.send("phc_a", limits, 70), "the first events of a batch pass")
		require.Equal(t, 0, node.send("phc_a", limits, 1))
		require.Equal(t, 100, node.send("phc_b", limits, 150), "each token has its own")
		require.Equal(t, int64(100), node.used("phc_a", limits).Used)
		require.Equal(t, map[events.Outcome]int{quotaHit: 1}, node.end(batchOf("phc_a", limits, 1)))
		time.Sleep(time.Hour)
		require.Equal(t, 60, node.send("phc_a", limits, 60), "the next hour has a quota of its own")
	})
}

func TestTheFirstEventsOfABatchPassAndTheOthersAreDropped(t *testing.T) {
	t.Parallel()
	node := newStore(t).node(nil)
	batch := batchOf("phc_a", quotas("events=3/month"), 5)
	batch.Events[1].Drop(events.ReasonRule)
	node.end(batch)
	for i, want := range []events.Outcome{
		accepted, {State: events.StateDropped, Reason: events.ReasonRule}, accepted, accepted, quotaHit,
	} {
		require.Equal(t, want, batch.Events[i].Outcome, i)
	}
	require.Equal(t, int64(3), node.used("phc_a", batch.Project.Limits).Used, "what others have dropped is not counted")
}

func TestAnEventThatOneLimitStopsIsCountedByNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := quotas("events=1000/month", "events=10/day", "events=400/hour")
		require.Equal(t, 7, node.send("phc_a", limits, 7))
		require.Equal(t, 3, node.send("phc_a", limits, 25))
		require.Equal(t, 0, node.send("phc_a", limits, 25))
		for _, quota := range limits.Quotas {
			_, spent := node.of("phc_a", quota.Period)
			require.Equal(t, int64(10), spent, "%s", quota)
		}
		time.Sleep(resting + 2*tick)
		synctest.Wait()
		usage, err := node.Usage(t.Context(), "phc_a", limits)
		require.NoError(t, err)
		for _, allowance := range usage {
			require.Equal(t, int64(10), allowance.Used, "%s", allowance.Quota)
		}
	})
}

func TestOfSeveralQuotasOfOnePeriodTheSmallestHolds(t *testing.T) {
	t.Parallel()
	node := newStore(t).node(nil)
	require.Equal(t, 20, node.send("phc_a", quotas("events=50/day", "events=20/day", "events=30/day"), 100))
}

func TestEachResourceHasItsOwnQuota(t *testing.T) {
	t.Parallel()
	node := newStore(t).node(nil)
	limits := quotas("events=1/day", "exceptions=2/day", "recordings=0/day", "surveys=1/day")
	batch := batchOf("phc_a", limits, 12)
	for i := range batch.Events {
		batch.Events[i].Name = []string{"e", "$exception", "$snapshot", "survey sent"}[i%4]
		if batch.Events[i].Name == "$snapshot" {
			batch.Events[i].Lane = events.LaneRecordings
		}
	}
	batch.Events = append(batch.Events, events.Event{Name: "$ai_span"})
	node.end(batch)
	passed := map[string]int{}
	for i := range batch.Events {
		if batch.Events[i].Outcome.State == events.StateAccepted {
			passed[batch.Events[i].Name]++
		}
	}
	require.Equal(t, map[string]int{"e": 1, "$exception": 2, "survey sent": 1, "$ai_span": 1}, passed,
		"a resource without a limit has none")
}

func TestAsAWholeTheEventsOfARequestPassOnlyTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := quotas("events=100/day", "exceptions=100/day")
		limits.Whole = true
		require.Equal(t, 60, node.send("phc_a", limits, 60))
		require.Equal(t, 0, node.send("phc_a", limits, 41))
		mixed := batchOf("phc_a", limits, 43) // 41 of them are one too many
		mixed.Events[0].Name = "$exception"
		mixed.Events[1].Lane = events.LaneLogs // no limit
		require.Equal(t, map[events.Outcome]int{quotaHit: 42, accepted: 1}, node.end(mixed))
	})
}

func TestAsAWholeARequestOfTheRestPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := quotas("events=100/day")
		limits.Whole = true
		limits.Rates = rates("events=1/s burst=50").Rates
		limits.Over = events.OverDrop
		require.Equal(t, 0, node.send("phc_a", limits, 51), "more than the burst never passes")
		require.Equal(t, 50, node.send("phc_a", limits, 50))
		require.Equal(t, 0, node.send("phc_a", limits, 50))
		time.Sleep(50 * time.Second)
		require.Equal(t, 50, node.send("phc_a", limits, 50))
		time.Sleep(50 * time.Second)
		require.Equal(t, 0, node.send("phc_a", limits, 1), "the quota is used up")
		require.Equal(t, int64(100), node.used("phc_a", limits).Used)
	})
}

func TestARateLetsItsBurstAndItsRatePass(t *testing.T) {
	for _, text := range []string{"events=10/s burst=100", "events=10/s burst=10", "events=600/m burst=1"} {
		synctest.Test(t, func(t *testing.T) {
			node := newStore(t).node(nil)
			limits := rates(text)
			limits.Over = events.OverDrop
			rate := limits.Rates[0]
			passed := node.send("phc_a", limits, 1000)
			require.LessOrEqual(t, int64(passed), rate.Burst)
			require.GreaterOrEqual(t, int64(passed), rate.Burst-rate.Burst/10)
			start := time.Now()
			for range 100 {
				time.Sleep(100 * time.Millisecond)
				passed += node.send("phc_a", limits, 5)
			}
			bound := float64(rate.Burst) + time.Since(start).Seconds()*10
			require.LessOrEqual(t, float64(passed), bound)
			require.Greater(t, float64(passed), 0.85*bound, "the rate itself passes")
		})
	}
}

func TestWhatIsOverARateGoesWhereTheProjectSays(t *testing.T) {
	t.Parallel()
	for over, want := range map[events.Over]events.Outcome{
		events.OverOverflow: accepted,
		events.OverDrop:     {State: events.StateDropped, Reason: events.ReasonRateLimited},
		events.OverReject:   {State: events.StateFailed, Reason: events.ReasonRateLimited},
	} {
		node := newStore(t).node(nil)
		limits := quotas("events=100/month")
		limits.Rates, limits.Over = rates("events=2/h burst=4").Rates, over
		batch := batchOf("phc_a", limits, 6)
		node.end(batch)
		for i := range batch.Events {
			event := &batch.Events[i]
			if i < 4 {
				require.Equal(t, accepted, event.Outcome)
				require.Zero(t, event.Routing)
				continue
			}
			require.Equal(t, want.State, event.Outcome.State)
			require.Equal(t, want.Reason, event.Outcome.Reason)
			overflows := event.Routing == events.Routing{Overflow: true, Unkeyed: true}
			require.Equal(t, over == events.OverOverflow, overflows)
			if over == events.OverReject {
				require.Equal(t, events.RateLimited, events.CodeOf(event.Outcome.Err))
			}
		}
		if over == events.OverReject {
			require.Equal(t, time.Hour, batch.RetryAfter, "two more need an hour")
		} else {
			require.Zero(t, batch.RetryAfter)
		}
		wantUsed := int64(4)
		if over == events.OverOverflow {
			wantUsed = 6 // they are accepted, so they count
		}
		allowance := node.used("phc_a", limits)
		require.Equal(t, wantUsed, allowance.Used-node.held("phc_a"), over.String())
	}
}

// see shows what the node keeps of a token, which no other goroutine changes meanwhile.
func (n *node) see(token string, see func(*subject)) {
	s := n.table.find(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	see(s)
}

// of returns what the node holds and what it has spent of a token's quota of events in a period: of the newest window,
// if there are several.
func (n *node) of(token string, period events.Period) (held, spent int64) {
	n.see(token, func(s *subject) {
		for _, a := range s.accounts {
			if a.quota.Resource == events.ResourceEvents && a.quota.Period == period {
				held = a.held()
				spent = a.slot.granted.Load() - a.slot.returned.Load() - held
			}
		}
	})
	return held, spent
}

// period is that of a token's first account.
func (n *node) period(token string) (period events.Period) {
	n.see(token, func(s *subject) { period = s.accounts[0].quota.Period })
	return period
}

func (n *node) held(token string) int64 {
	held, _ := n.of(token, n.period(token))
	return held
}

func (n *node) spent(token string) int64 {
	_, spent := n.of(token, n.period(token))
	return spent
}

func TestWhatIsNotAcceptedIsGivenBackExactly(t *testing.T) {
	t.Parallel()
	node := newStore(t).node(nil)
	limits := quotas("events=100/month", "exceptions=5/month")
	batch := batchOf("phc_a", limits, 60)
	_, settle := node.judge(batch)
	slices.Reverse(batch.Events)     // a plugin reorders,
	batch.Events[7].Name = "renamed" // renames,
	batch.Events[8].Name = "$exception"
	batch.Events = append(batch.Events, events.Event{Name: "added"}) // and adds.
	for i := range batch.Events {
		switch event := &batch.Events[i]; {
		case i < 10: // 10 are accepted, of which 2 are known already
			if i < 2 {
				event.AcceptDuplicate()
			}
			event.Accept()
		case i < 20:
			event.Drop(events.ReasonRule)
		case i < 30:
			event.Reject(events.ReasonTooLarge, errAsked)
		case i == 60:
			event.Accept()
		default:
			event.Fail(events.ReasonUnavailable, errAsked)
		}
	}
	settle(t.Context(), batch)
	require.Equal(t, int64(8), node.spent("phc_a"))
	require.Equal(t, 92, node.send("phc_a", limits, 100), "what was given back passes again")
	require.Equal(t, 0, node.send("phc_a", limits, 1))
	snapshot := node.scope.Snapshot().Counters()
	require.Equal(t, int64(52), snapshot["refunded_total+resource=events"].Value())
	require.Equal(t, int64(152), snapshot["events_total+outcome=passed,resource=events"].Value())
	require.Equal(t, int64(9), snapshot["events_total+outcome=over_quota,resource=events"].Value())
}

// Of events that have timed out nobody knows whether they are safe. They count until somebody does: the copy of one
// that was stored is a duplicate, which does not count.
func TestAnEventThatMayYetBeStoredCountsUntilItIsKnown(t *testing.T) {
	t.Parallel()
	node := newStore(t).node(nil)
	limits := quotas("events=100/month", "events=50/day")
	batch := batchOf("phc_a", limits, 30)
	_, settle := node.judge(batch)
	ends := make([]*events.Late, 20)
	for i := range ends {
		ends[i] = &events.Late{}
		ends[i].Await()
		batch.Events[i].FailLate(ends[i], errAsked)
	}
	fail(batch, settle)
	require.Equal(t, int64(20), node.spent("phc_a"))
	require.Equal(t, 30, node.send("phc_a", limits, 50))
	subject := node.table.find("phc_a")
	require.Equal(t, int32(1), subject.visits.Load(), "the accounts are kept")
	for i, end := range ends {
		end.Report(i < 15)
	}
	require.Zero(t, subject.visits.Load())
	require.Equal(t, 5, node.send("phc_a", limits, 50), "those that were not stored are given back")
	require.Equal(t, int64(15), node.scope.Snapshot().Counters()["refunded_total+resource=events"].Value())

	batch = batchOf("phc_b", limits, 1)
	_, settle = node.judge(batch)
	end := &events.Late{}
	end.Await()
	batch.Events[0].FailLate(end, errAsked)
	settle(t.Context(), batch)
	require.NoError(t, node.stop())
	end.Report(false) // it comes too late, and does no harm
}

// A sink that panics, a stage behind that fails, or a client that leaves: the events end as failed, and what they had
// taken is given back.
func TestWhatEndsInAPanicOrAFailureIsGivenBack(t *testing.T) {
	t.Parallel()
	limits := quotas("events=100/month")
	for name, test := range map[string]struct {
		sink  func(*events.Batch)
		stage func(*events.Batch) error
		spent int64
	}{
		"panic of the sink":      {sink: func(*events.Batch) { panic("sink") }},
		"panic of a stage":       {stage: func(*events.Batch) error { panic("stage") }},
		"a stage fails":          {stage: func(*events.Batch) error { return errors.New("no") }},
		"a stage removes events": {stage: func(b *events.Batch) error { b.Events = b.Events[:3]; return nil }},
		"the sink does nothing":  {sink: func(*events.Batch) {}},
		"half": {sink: func(b *events.Batch) {
			for i := range b.Events[:5] {
				b.Events[i].Accept()
			}
			panic("sink")
		}, spent: 5},
		"nothing": {spent: 10},
	} {
		node := newStore(t).node(nil)
		stages := []events.Stage{node.Quota, stage(test.stage)}
		pipeline, err := events.NewPipeline(zap.NewNop(), tally.NoopScope, stages...)
		require.NoError(t, err)
		processor := events.NewProcessor(pipeline, sink(test.sink), events.NewLedger(), zap.NewNop(), tally.NoopScope)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		processor.Process(ctx, batchOf("phc_a", limits, 10))
		require.Equal(t, test.spent, node.spent("phc_a"), name)
		require.Zero(t, node.table.find("phc_a").visits.Load())
	}
}

type stage func(*events.Batch) error

func (stage) Phase() events.Phase { return events.PhasePlugins }
func (stage) Name() string        { return "a stage" }

func (s stage) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	if s == nil {
		return nil, nil
	}
	return nil, s(batch)
}

type sink func(*events.Batch)

func (s sink) Write(_ context.Context, batch *events.Batch) {
	if s != nil {
		s(batch)
		return
	}
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
}

func TestWhatIsGivenBackAfterTheWindowIsOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := quotas("events=10/minute", "events=1000/day")
		before := batchOf("phc_a", limits, 10)
		_, settle := node.judge(before)
		time.Sleep(time.Minute)
		require.Equal(t, 4, node.send("phc_a", limits, 4))
		fail(before, settle)
		require.Equal(t, 6, node.send("phc_a", limits, 20), "the new minute has no more than its own")
		_, spent := node.of("phc_a", events.PerDay)
		require.Equal(t, int64(10), spent, "the day gets back what the minute does not")
		time.Sleep(2 * time.Minute)
		late := batchOf("phc_a", limits, 10)
		_, settle = node.judge(late)
		time.Sleep(3 * time.Minute)
		fail(late, settle)
		require.Equal(t, 10, node.send("phc_a", limits, 20), "not even when the window is forgotten")
	})
}

// An account that is given up leaves its place in the journal to another one, which gets nothing of it.
func TestARefundToAnAccountThatIsGivenUpGoesNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := quotas("events=10/minute")
		before := batchOf("phc_a", limits, 10)
		_, settle := node.judge(before)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		node.see("phc_a", func(s *subject) { require.Empty(t, s.accounts) })
		require.Equal(t, 1, node.send("phc_b", limits, 1), "the place in the journal is another's now")
		fail(before, settle)
		require.Equal(t, int64(1), node.spent("phc_b"))
	})
}

func TestTheStandingsOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := quotas("events=100/day", "events=150/month", "recordings=5/day")
		limits.Rates, limits.Over = rates("events=10/s burst=200").Rates, events.OverDrop
		batch := batchOf("phc_a", limits, 40)
		node.end(batch)
		now := time.Now().UTC()
		day := now.Truncate(24*time.Hour).AddDate(0, 0, 1).Sub(now)
		standings := batch.Standings.All()
		require.Len(t, standings, 3, "only limits that the events are under")
		require.Equal(t, events.Standing{
			Resource: events.ResourceEvents, Kind: events.LimitDay, Limit: 100, Window: 24 * time.Hour, Remaining: 60,
			Reset: day,
		}, standings[0])
		require.Equal(t, int64(110), standings[1].Remaining)
		require.Equal(t, "events-rate", standings[2].Name())
		require.Equal(t, int64(10), standings[2].Limit)
		require.Equal(t, time.Second, standings[2].Window)
		require.Equal(t, int64(150), standings[2].Remaining, "of a burst of 200, the nodes can draw 190 at once")

		over := batchOf("phc_a", limits, 100)
		node.end(over)
		standings = over.Standings.All()
		require.True(t, standings[0].Over)
		require.Zero(t, standings[0].Remaining)
		require.False(t, standings[1].Over)
		require.Equal(t, int64(50), standings[1].Remaining)

		unlimited := batchOf("phc_a", nil, 1)
		node.end(unlimited)
		require.Empty(t, unlimited.Standings.All())
	})
}

// A client that waits for the wrong limit waits for a month instead of a minute.
func TestOnlyTheLimitThatHasStoppedEventsIsToldAsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		over := func(limits *events.Limits, n int) (reached []string, remaining []int64) {
			batch := batchOf("phc_a", limits, n)
			node.end(batch)
			for _, s := range batch.Standings.All() {
				remaining = append(remaining, s.Remaining)
				if s.Over {
					reached = append(reached, s.Name())
				}
			}
			return reached, remaining
		}
		limits := quotas("events=5/minute", "events=6/hour", "events=30/day")
		reached, remaining := over(limits, 10)
		require.Equal(t, []string{"events-minute"}, reached)
		require.Equal(t, []int64{0, 1, 25}, remaining)
		time.Sleep(time.Minute + tick/2) // not at the moment at which the node gives back what rests
		reached, remaining = over(limits, 10)
		require.Equal(t, []string{"events-hour"}, reached)
		require.Equal(t, []int64{4, 0, 24}, remaining)

		whole := quotas("events=40/day", "events=50/month")
		whole.Whole, whole.Over = true, events.OverDrop
		reached, remaining = over(whole, 100)
		require.Equal(t, []string{"events-day", "events-month"}, reached, "neither has room for all")
		require.Equal(t, []int64{34, 50}, remaining, "a smaller request passes")

		rate := rates("events=1/m burst=5")
		rate.Whole, rate.Over = true, events.OverReject
		_, _ = over(rate, 3)
		batch := batchOf("phc_a", rate, 4)
		node.end(batch)
		standing := batch.Standings.All()[0]
		require.True(t, standing.Over)
		require.Equal(t, int64(2), standing.Remaining)
		require.Equal(t, 2*time.Minute, standing.Reset, "in two minutes there is room for four")
		require.Equal(t, 2*time.Minute, batch.RetryAfter)
	})
}

func TestLimitsOfAllProjectsHoldForThoseWithoutTheirOwn(t *testing.T) {
	t.Parallel()
	node := newStore(t).node(func(c *Config) { c.Quotas = []string{"events=5/day"} })
	require.Equal(t, 5, node.send("phc_a", nil, 10))
	require.Equal(t, 7, node.send("phc_b", quotas("events=7/day"), 10), "its own replace them")
	require.Equal(t, 10, node.send("phc_c", &events.Limits{}, 10), "no limits are limits, too")
	require.Equal(t, []events.Quota{{Resource: events.ResourceEvents, Period: events.PerDay, Limit: 5}},
		node.LimitsOf(nil).Quotas)
	require.Empty(t, node.LimitsOf(project(&events.Limits{})).Quotas)
}

func TestChangedLimitsCountWhatWasSentBefore(t *testing.T) {
	t.Parallel()
	node := newStore(t).node(nil)
	require.Equal(t, 100, node.send("phc_a", quotas("events=100/day"), 200))
	require.Equal(t, 0, node.send("phc_a", quotas("events=100/day"), 200), "the same limits, read again")
	require.Equal(t, 50, node.send("phc_a", quotas("events=150/day"), 200), "they are raised, which counts at once")
	require.Equal(t, 0, node.send("phc_a", quotas("events=120/day"), 200))
	require.Equal(t, 3, node.send("phc_a", quotas("events=120/day", "exceptions=3/day", "events=153/day"), 3)+
		node.send("phc_a", quotas("events=153/day"), 10))
}

// What was sent at a slow rate must not keep a project out once its rate is raised: a burst at one event an hour fills
// up in days. A rate that is lowered does not begin with what was sent at the fast one either.
func TestAChangedRateBeginsAnew(t *testing.T) {
	t.Parallel()
	node := newStore(t).node(nil)
	slow, fast := rates("events=1/h burst=15"), rates("events=1000/s burst=19")
	slow.Over, fast.Over = events.OverDrop, events.OverDrop
	require.Equal(t, 15, node.send("phc_a", slow, 20))
	require.Equal(t, 19, node.send("phc_a", fast, 19))
	require.Equal(t, 0, node.send("phc_a", slow, 1), "what was sent at this rate still counts")
	require.Less(t, node.sendAs(userRates("events=1/h burst=5"), "u", 9), 9)
	require.Equal(t, 19, node.sendAs(userRates("events=1000/s burst=19"), "u", 19))
}

func TestAWindowFollowsTheZoneOfTheProject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newStore(t).node(nil)
		limits := quotas("events=10/day")
		var err error
		limits.Zone, err = time.LoadLocation("Etc/GMT+1")
		require.NoError(t, err)
		require.Equal(t, 10, node.send("phc_a", limits, 20)) // It is midnight in UTC, and 23:00 there.
		time.Sleep(59 * time.Minute)
		require.Equal(t, 0, node.send("phc_a", limits, 20))
		time.Sleep(2 * time.Minute)
		require.Equal(t, 10, node.send("phc_a", limits, 20))
	})
}

// Without a call to the store there is no round trip, and with one there is one for all limits.
func TestARequestMakesOneRoundTripAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		node := shared.node(nil)
		limits := quotas("events=1000000/month", "events=100000/day", "exceptions=100000/day")
		limits.Rates = rates("events=1000/s burst=5000", "exceptions=1000/s burst=5000").Rates
		most, before := int64(0), int64(0)
		for i := range 2000 {
			batch := batchOf("phc_a", limits, 1+i%7)
			batch.Events[0].Name = "$exception"
			node.end(batch)
			most, before = max(most, shared.takes.Load()-before), shared.takes.Load()
			time.Sleep(10 * time.Millisecond)
		}
		require.Equal(t, int64(1), most)
		require.Less(t, shared.takes.Load(), int64(200), "2000 requests with 8000 events")
	})
}

func TestRequestsThatNeedTheStoreAtTheSameTimeShareARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		shared.hold = make(chan struct{})
		node := shared.node(nil)
		limits := quotas("events=90/day") // too small to draw ahead
		var passed atomic.Int64
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { passed.Add(int64(node.send("phc_a", limits, 1))) })
		}
		synctest.Wait()
		close(shared.hold)
		all.Wait()
		require.Equal(t, int64(90), passed.Load())
		require.LessOrEqual(t, shared.takes.Load(), int64(3), "one by the first, one for the others, one for the rest")
	})
}

// Without the store a node goes on with what it holds. What it lacks passes or fails.
func TestWithoutTheStore(t *testing.T) {
	for _, mode := range []string{failOpen, failClosed} {
		synctest.Test(t, func(t *testing.T) {
			shared := newStore(t)
			node := shared.node(func(c *Config) { c.OnStoreFailure = mode })
			limits := quotas("events=100000/day")
			for range 50 {
				require.Equal(t, 10, node.send("phc_a", limits, 10))
				time.Sleep(50 * time.Millisecond)
			}
			held := int(node.held("phc_a"))
			require.Greater(t, held, 10)
			shared.fails(away)
			require.Equal(t, 10, node.send("phc_a", limits, 10), "what it holds")
			batch := batchOf("phc_a", limits, held)
			outcomes := node.end(batch)
			if mode == failOpen {
				require.Equal(t, map[events.Outcome]int{accepted: held}, outcomes)
			} else {
				away := events.Outcome{State: events.StateFailed, Reason: events.ReasonStore}
				require.Equal(t, map[events.Outcome]int{accepted: held - 10, away: 10}, outcomes)
				require.Equal(t, events.Unavailable, events.CodeOf(batch.Events[held-1].Outcome.Err))
			}
			require.Zero(t, node.held("phc_a"))
			require.Equal(t, mode == failClosed, newUser(node.Quota).Closed())
			shared.fails(nil)
			require.Equal(t, 20, node.send("phc_a", limits, 20))
			name := map[string]string{failOpen: "uncounted", failClosed: "unknown"}[mode]
			require.Equal(t, int64(10),
				node.scope.Snapshot().Counters()["events_total+outcome="+name+",resource=events"].Value())
			require.NotNil(t, node.state().LastFailure)
		})
	}
}

func TestAQuotaThatIsUsedUpStaysSoWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		node := shared.node(nil)
		limits := quotas("events=10/hour")
		limits.Rates, limits.Over = rates("exceptions=1/h burst=1").Rates, events.OverDrop
		require.Equal(t, 10, node.send("phc_a", limits, 10))
		shared.fails(away)
		time.Sleep(time.Minute)
		require.Equal(t, 0, node.send("phc_a", limits, 10))
		time.Sleep(time.Hour)
		require.Equal(t, 10, node.send("phc_a", limits, 10), "of the next hour nothing is known")
		failed := batchOf("phc_a", limits, 2)
		failed.Events[0].Name, failed.Events[1].Name = "$exception", "$exception"
		require.Equal(t, map[events.Outcome]int{accepted: 2}, node.end(failed), "nor is it of the rate")
	})
}

// If a call fails, all fail who waited for it: nobody calls a dead store for the second time.
func TestNobodyWaitsTwiceForADeadStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		shared.hold = make(chan struct{})
		shared.fails(away)
		node := shared.node(nil)
		limits := quotas("events=90/minute")
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { require.Equal(t, 1, node.send("phc_a", limits, 1)) })
		}
		synctest.Wait()
		shared.hold <- struct{}{}
		all.Wait()
		require.Equal(t, int64(1), shared.takes.Load())
		close(shared.hold)
		synctest.Wait() // the node may be giving back
		node.see("phc_a", func(s *subject) {
			require.Zero(t, s.waiting)
			require.Zero(t, s.owed)
			require.Nil(t, s.draw)
			require.Nil(t, s.next, "a draw that nobody waits for keeps the subject in the table")
		})
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		require.Nil(t, node.table.find("phc_a"), "the subject leaves when its windows are over")
	})
}

// A draw that panics ends as one that fails.
func TestADrawThatPanicsFails(t *testing.T) {
	t.Parallel()
	shared := newStore(t)
	node := shared.node(func(c *Config) { c.OnStoreFailure = failClosed })
	shared.fails(func() (bool, error) { panic("the store") })
	require.Equal(t, 0, node.send("phc_a", quotas("events=90/day"), 1))
	shared.fails(nil)
	require.Equal(t, 1, node.send("phc_a", quotas("events=90/day"), 1))
}

// The answer to a draw may be lost: the units are there the next time.
func TestAnAnswerThatIsLostLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		node := shared.node(func(c *Config) { c.OnStoreFailure = failClosed })
		limits := quotas("events=100/day")
		lose := true
		shared.fails(func() (bool, error) { lose = !lose; return true, errIf(!lose) })
		passed := 0
		for range 100 {
			passed += node.send("phc_a", limits, 3)
			time.Sleep(time.Second)
		}
		require.Equal(t, 100, passed)
	})
}

func errIf(fails bool) error {
	if fails {
		return errAsked
	}
	return nil
}

// Nodes whose clocks are two seconds off, until the store has answered, count in the window of the store's clock.
func TestTheStoresClockDecidesOnTheWindow(t *testing.T) {
	for _, ahead := range []time.Duration{-2 * time.Second, 2 * time.Second} {
		for _, at := range []time.Duration{59 * time.Second, 61 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				shared := newStore(t)
				right := shared.node(nil)
				shared.skew(ahead)
				wrong := shared.node(func(c *Config) { c.OnStoreFailure = failClosed })
				limits := quotas("events=10/minute")
				time.Sleep(at)
				require.Equal(t, 7, wrong.send("phc_a", limits, 7), "%s ahead at %s", ahead, at)
				shared.skew(0)
				require.Equal(t, 3, right.send("phc_a", limits, 10), "%s ahead at %s", ahead, at)
				require.Equal(t, int64(10), right.used("phc_a", limits).Used)
			})
		}
	}
}

func TestAClockThatIsFarOffIsAFailureOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		node := shared.node(func(c *Config) { c.OnStoreFailure = failClosed })
		shared.skew(30 * time.Second)
		time.Sleep(45 * time.Second)
		require.Equal(t, 0, node.send("phc_a", quotas("events=10/minute"), 1))
	})
}

func TestWhatRestsIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		a, b := shared.node(nil), shared.node(nil)
		limits := quotas("events=100000/day")
		for range 100 {
			a.send("phc_a", limits, 5)
			time.Sleep(20 * time.Millisecond)
		}
		require.Positive(t, a.held("phc_a"))
		require.Greater(t, b.used("phc_a", limits).Used, int64(500))
		time.Sleep(resting + 2*tick)
		synctest.Wait()
		require.Zero(t, a.held("phc_a"))
		require.Equal(t, int64(500), b.used("phc_a", limits).Used)
		require.Zero(t, b.used("phc_a", limits).Held)
		gauges := a.scope.Snapshot().Gauges()
		require.InDelta(t, 1, gauges["accounts+"].Value(), 0)
		require.InDelta(t, 1, gauges["journal_ok+"].Value(), 0)
	})
}

func TestAStopGivesEverythingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		a, b := shared.node(nil), shared.node(nil)
		limits := quotas("events=100000/day")
		for i := range 100 {
			a.send(fmt.Sprintf("phc_%d", i%10), limits, 5)
			time.Sleep(20 * time.Millisecond)
		}
		held := 0
		for i := range 10 {
			held += int(a.held(fmt.Sprintf("phc_%d", i)))
		}
		require.Positive(t, held)
		require.NoError(t, a.stop())
		for i := range 10 {
			require.Equal(t, int64(50), b.used(fmt.Sprintf("phc_%d", i), limits).Used)
		}
		require.Equal(t, 5, a.send("phc_0", limits, 5), "a request that comes after that passes uncounted")
		require.Equal(t, int64(50), b.used("phc_0", limits).Used)
	})
}

func TestAStopWithoutTheStoreSaysWhatIsNotGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		dir := t.TempDir()
		a := shared.start(dir, nil)
		limits := quotas("events=100000/day")
		for range 100 {
			a.send("phc_a", limits, 5)
			time.Sleep(20 * time.Millisecond)
		}
		shared.fails(away)
		began := time.Now()
		require.ErrorContains(t, a.stop(), "were not given back; they are noted for the next start")
		require.Equal(t, DefaultConfig().StopTimeout, time.Since(began), "it has tried for as long as it may")
		shared.fails(nil)
		b := shared.start(dir, nil)
		time.Sleep(resting + 2*tick)
		synctest.Wait()
		require.Equal(t, int64(500), b.used("phc_a", limits).Used, "the next process gives them back")
	})
}

// A store that has just come back may not be known to be there yet when a node stops.
func TestAStopTriesAgainWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		a, b := shared.node(nil), shared.node(nil)
		limits := quotas("events=100000/day")
		for range 100 {
			a.send("phc_a", limits, 5)
			time.Sleep(20 * time.Millisecond)
		}
		require.Positive(t, a.held("phc_a"))
		back := time.Now().Add(time.Second)
		shared.fails(func() (bool, error) { return false, errIf(time.Now().Before(back)) })
		require.NoError(t, a.stop())
		require.WithinRange(t, time.Now(), back, back.Add(stopPause), "it has waited no longer than for the store")
		require.Equal(t, int64(500), b.used("phc_a", limits).Used)
	})
}

// A request that the stop of the service cuts off may end after the stage has stopped.
func TestASettlementAfterTheStopChangesNothing(t *testing.T) {
	t.Parallel()
	shared := newStore(t)
	dir := t.TempDir()
	a := shared.start(dir, nil)
	limits := quotas("events=100/day")
	batch := batchOf("phc_a", limits, 10)
	_, settle := a.judge(batch)
	require.NoError(t, a.stop())
	fail(batch, settle)
	b := shared.start(dir, nil)
	require.Equal(t, 90, b.send("phc_a", limits, 100))
}

func TestPostHogsOwnLimitsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		hour := time.Now().Add(time.Hour)
		shared.billed = map[string]map[string]time.Time{
			"@posthog/quota-limits/events":     {"phc_a": hour},
			"@posthog/quota-limits/llm_events": {"phc_b": hour, "phc_a": time.Now().Add(-time.Hour)},
			"@posthog/quota-limits/recordings": {"phc_b": hour},
			"@posthog/quota-limits/exceptions": {"phc_b": hour},
			"@posthog/quota-limits/surveys":    {"phc_b": hour},
		}
		node := shared.node(nil)
		batch := func(token string) *events.Batch {
			b := batchOf(token, nil, 7)
			b.Events[1].Name, b.Events[2].Lane = "$ai_span", events.LaneRecordings
			b.Events[3].Name, b.Events[4].Name, b.Events[5].Name = "$exception", "survey sent", "survey sent"
			b.Events[5].Raw.Properties = []byte(`{"$product_tour_id":1}`)
			b.Events[6].Lane = events.LaneLogs
			return b
		}
		limited := func(b *events.Batch) (indexes []int) {
			node.end(b)
			for i := range b.Events {
				if b.Events[i].Outcome == quotaHit {
					indexes = append(indexes, i)
				}
			}
			return indexes
		}
		a := batch("phc_a")
		require.Equal(t, []int{0, 5}, limited(a))
		require.Equal(t, []events.Standing{{
			Resource: events.ResourceEvents, Kind: events.LimitBilling, Over: true, Reset: time.Hour,
		}}, a.Standings.All())
		require.Equal(t, []int{1, 2, 3, 4}, limited(batch("phc_b")))
		require.Empty(t, limited(batch("phc_c")))

		shared.mu.Lock()
		shared.billedFault = errAsked
		shared.billed = map[string]map[string]time.Time{}
		shared.mu.Unlock()
		time.Sleep(time.Minute)
		require.Equal(t, []int{0, 5}, limited(batch("phc_a")), "what was read last stays in force")
		require.Equal(t, 1, node.logs.FilterMessageSnippet("cannot be read").Len(), "the log says so once")
		require.Contains(t, node.state().Billing.Error, "asked for")
		require.Equal(t, 1, node.state().Billing.Tokens["events"])
		time.Sleep(time.Hour)
		require.Empty(t, limited(batch("phc_a")), "but ends at its time")

		shared.mu.Lock()
		shared.billedFault = nil
		shared.mu.Unlock()
		time.Sleep(time.Minute)
		require.Nil(t, node.billing.sets.Load())
		require.NotNil(t, node.state().Billing.ReadAt)
	})
}

func TestPostHogsLimitsCanBeLeftAside(t *testing.T) {
	t.Parallel()
	shared := newStore(t)
	shared.billed = map[string]map[string]time.Time{
		"@posthog/quota-limits/events": {"phc_a": time.Now().Add(time.Hour)},
	}
	require.Equal(t, 0, shared.node(nil).send("phc_a", nil, 1))
	require.Equal(t, 1, shared.node(func(c *Config) { c.PostHog = false }).send("phc_a", nil, 1))
}

func TestOperatorsSeeAndChangeWhatIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		a, b := shared.node(nil), shared.node(nil)
		limits := quotas("events=100/day", "events=1000/month")
		require.Equal(t, 100, a.send("phc_a", limits, 120))
		require.Equal(t, 0, b.send("phc_a", limits, 1))
		time.Sleep(resting + 2*tick) // b has drawn from the quota of the month in vain
		synctest.Wait()
		usage, err := a.Usage(t.Context(), "phc_a", limits)
		require.NoError(t, err)
		now := time.Now().UTC()
		start, end := events.PerMonth.Window(now)
		require.Equal(t, events.Allowance{Quota: limits.Quotas[1], Used: 100, Start: start, Reset: end}, usage[1])

		got, err := a.Refund(t.Context(), "phc_a", limits, limits.Quotas[0], 30)
		require.NoError(t, err)
		require.Equal(t, int64(70), got.Used)
		require.Equal(t, 20, a.send("phc_a", limits, 20), "this node knows at once")
		time.Sleep(pause)
		require.Equal(t, 10, b.send("phc_a", limits, 20), "others within a second")
		got, err = a.Refund(t.Context(), "phc_a", limits, limits.Quotas[0], -5)
		require.NoError(t, err)
		require.Equal(t, int64(105), got.Used, "a negative refund is a charge")
		got, err = a.Reset(t.Context(), "phc_a", limits, limits.Quotas[0])
		require.NoError(t, err)
		require.Zero(t, got.Used)
		require.Equal(t, 100, a.send("phc_a", limits, 120))
		got, err = a.Reset(t.Context(), "phc_unknown", limits, limits.Quotas[0])
		require.NoError(t, err)
		require.Zero(t, got.Used)
		got, err = a.Refund(t.Context(), "phc_unknown", limits, limits.Quotas[0], -60)
		require.NoError(t, err)
		require.Equal(t, int64(60), got.Used, "a charge before the first event of the window")
		require.Equal(t, 40, a.send("phc_unknown", limits, 120))
		got, err = a.Refund(t.Context(), "phc_unknown", limits, limits.Quotas[0], math.MinInt64)
		require.NoError(t, err)
		require.Greater(t, got.Used, int64(100), "the largest charge is no refund")
	})
}

func TestARefundTellsWhatNodesHold(t *testing.T) {
	t.Parallel()
	node := newStore(t).node(nil)
	limits := quotas("events=100000/day")
	for range 3 {
		require.Equal(t, 100, node.send("phc_a", limits, 100))
	}
	before := node.used("phc_a", limits)
	require.Positive(t, before.Held)
	got, err := node.Refund(t.Context(), "phc_a", limits, limits.Quotas[0], 7)
	require.NoError(t, err)
	before.Used -= 7
	require.Equal(t, before, got)
}

func TestConcurrentRequestsPassExactlyTheQuota(t *testing.T) {
	t.Parallel()
	shared := newStore(t)
	limits := quotas("events=20000/month", "events=15000/day")
	var passed atomic.Int64
	var all sync.WaitGroup
	for range 3 {
		node := shared.node(func(c *Config) { c.OnStoreFailure = failClosed })
		for worker := range 8 {
			all.Go(func() {
				for i := range 300 {
					batch := batchOf("phc_a", limits, 1+(i+worker)%5)
					n, settle := node.judge(batch)
					if (i+worker)%7 == 0 {
						fail(batch, settle)
					} else {
						passed.Add(int64(n))
						accept(batch, settle)
					}
				}
			})
		}
	}
	all.Wait()
	require.LessOrEqual(t, passed.Load(), int64(15000))
	rest := shared.node(nil)
	for range 20 {
		passed.Add(int64(rest.send("phc_a", limits, 1000)))
	}
	require.LessOrEqual(t, passed.Load(), int64(15000))
	require.GreaterOrEqual(t, passed.Load(), int64(15000-150), "no more than one percent is out of reach")
}
