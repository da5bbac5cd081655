package events

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAStandingHasTheNameOfItsLimit(t *testing.T) {
	t.Parallel()
	for want, standing := range map[string]Standing{
		"events-month":     {Resource: ResourceEvents, Kind: LimitMonth},
		"events-minute":    {Resource: ResourceEvents, Kind: LimitKind(PerMinute)},
		"recordings-hour":  {Resource: ResourceRecordings, Kind: LimitKind(PerHour)},
		"ai-day":           {Resource: ResourceAI, Kind: LimitKind(PerDay)},
		"logs-rate":        {Resource: ResourceLogs, Kind: LimitRate},
		"events-user":      {Resource: ResourceEvents, Kind: LimitUserRate},
		"surveys-billing":  {Resource: ResourceSurveys, Kind: LimitBilling},
		"exceptions-month": {Resource: ResourceExceptions, Kind: LimitKind(PerMonth)},
		"unknown":          {Resource: resourceCount},
	} {
		require.Equal(t, want, standing.Name())
	}
	require.Equal(t, "unknown", limitKindCount.String())
	require.Equal(t, "billing", LimitBilling.String())
}

func TestStandingsKeepWhatSaysMostToAClient(t *testing.T) {
	var s Standings
	require.Empty(t, s.All())
	for i := range MaxStandings {
		s.Add(Standing{Kind: LimitRate, Limit: 100, Remaining: int64(50 + i)})
	}
	s.Add(Standing{Kind: LimitDay, Limit: 100, Remaining: 99})
	require.Len(t, s.All(), MaxStandings)
	for _, standing := range s.All() {
		require.Equal(t, LimitRate, standing.Kind, "what is far away gives way")
	}
	s.Add(Standing{Kind: LimitMonth, Limit: 100, Remaining: 1})
	require.Equal(t, LimitMonth, s.All()[MaxStandings-1].Kind)
	s.Add(Standing{Kind: LimitBilling, Over: true, Remaining: 0})
	require.Equal(t, LimitBilling, s.All()[MaxStandings-2].Kind)
	for range MaxStandings {
		s.Add(Standing{Kind: LimitHour, Over: true, Limit: 1, Remaining: 1})
	}
	for _, standing := range s.All() {
		require.True(t, standing.Over, "limits that are over stay")
	}
	require.Zero(t, testing.AllocsPerRun(10, func() { s.Add(Standing{Over: true}) }))
}

func TestAChargeTellsWhatWasCounted(t *testing.T) {
	t.Parallel()
	_, counted := Charge(0).Quota()
	require.False(t, counted)
	require.False(t, Charge(0).Rate())
	for _, resource := range Resources() {
		for _, rate := range []bool{false, true} {
			charge := ChargeOf(resource, rate)
			got, counted := charge.Quota()
			require.True(t, counted)
			require.Equal(t, resource, got)
			require.Equal(t, rate, charge.Rate())
		}
	}
}

func TestCountersHaveNames(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	start, _ := PerMonth.Window(time.Date(2026, 11, 30, 12, 0, 0, 0, berlin))
	quota := Quota{Resource: ResourceEvents, Period: PerMonth, Limit: 5}
	require.Equal(t, "quota:events:month:20261031T2300Z", quota.Counter(start))
	quota.Limit = 7
	require.Equal(t, "quota:events:month:20261031T2300Z", quota.Counter(start))
	rate := Rate{Resource: ResourceRecordings, Limit: 5, Per: time.Second, Burst: 50}
	require.Equal(t, "rate:recordings:200000000:50", rate.Counter())
	require.Equal(t, "user:recordings:200000000:50:ab", rate.UserCounter("ab"))
}
