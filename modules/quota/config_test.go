package quota

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

func TestTheDefaultsAreValidAndLimitNothing(t *testing.T) {
	t.Parallel()
	require.NoError(t, DefaultConfig().Validate())
	set, err := newSettings(DefaultConfig())
	require.NoError(t, err)
	require.False(t, set.plan.any)
	require.True(t, set.open)
	require.Equal(t, int64(24<<20), DefaultConfig().MemoryBudget(nil, 0))
	require.Equal(t, 2*time.Second, DefaultConfig().StopBudget())
}

func TestEveryFaultOfTheSectionIsReported(t *testing.T) {
	t.Parallel()
	err := Config{
		Quotas: []string{"events=5/day", "events"}, Rates: []string{"events=5", "logs=1/s", "logs=2/s"},
		Over: "ignore", Zone: "Berlin", OnStoreFailure: "maybe", MaxAccounts: 3,
	}.Validate()
	require.EqualError(t, err, strings.Join([]string{
		`quotas: entry 2: must be RESOURCE=NUMBER/TIME, got "events": a quota is such as events=1000000/month`,
		`rates: entry 1: must be RESOURCE=NUMBER/TIME, got "events=5": a rate is such as events=100/s or ` +
			`events=100/s burst=5000`,
		`rates: entry 3 is the second one for logs: a resource has one rate`,
		`over: must be one of overflow, drop, reject, got "ignore"`,
		`zone: must be the name of a time zone such as UTC or Europe/Berlin, got "Berlin"`,
		`on_store_failure: must be open or closed, got "maybe"`,
		`dir: must name a directory`,
		`max_accounts: must be from 64 to 4194304, got 3`,
		`max_users: must be from 64 to 4194304, got 0`,
		`stop_timeout: must be positive, got 0s`,
	}, "\n"), err.Error())
	_, err = newSettings(Config{Zone: "Local", Over: "drop"})
	require.ErrorContains(t, err, "zone: must be")
}

func TestTheSectionBecomesLimits(t *testing.T) {
	t.Parallel()
	var faults configs.Faults
	limits := Config{
		Quotas: []string{"events=5/day"}, Rates: []string{"logs=1/s"}, Over: "drop", Whole: true, Zone: "Europe/Berlin",
	}.limits(&faults)
	require.NoError(t, faults.Err())
	require.Equal(t, quotas("events=5/day").Quotas, limits.Quotas)
	require.Equal(t, rates("logs=1/s").Rates, limits.Rates)
	require.Equal(t, events.OverDrop, limits.Over)
	require.True(t, limits.Whole)
	require.Equal(t, "Europe/Berlin", limits.Zone.String())
}

// The burst that the store is told is smaller than the rate's by what fills up while the node holds what it has drawn,
// and by what the nodes keep: half of that they may draw at once, and half fills up while they keep it.
func TestWhatANodeHoldsOfARateIsTakenOffTheBurst(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		hold  time.Duration
		burst int64
		kept  int64
	}{
		"events=100/s burst=5000":     {time.Second, 4650, 125},
		"events=100/s burst=1000":     {500 * time.Millisecond, 900, 25},
		"events=100/s burst=400":      {200 * time.Millisecond, 360, 10},
		"events=100/s burst=399":      {390 * time.Millisecond, 360, 0},
		"events=100/s burst=100":      {100 * time.Millisecond, 90, 0},
		"events=100/s burst=20":       {20 * time.Millisecond, 18, 0},
		"events=100/s burst=19":       {0, 19, 0},
		"events=1/h burst=1":          {0, 1, 0},
		"events=1/h burst=100":        {time.Second, 99, 0},
		"events=1000000/s burst=25":   {2 * time.Microsecond, 23, 0},
		"events=1/s burst=1000000000": {time.Second, 949_999_999, 25_000_000},
		"events=1000000000/s burst=1000000000000": {
			time.Second, 997_000_000_000, 1_000_000_000,
		},
	} {
		rate := newRate(rates(text).Rates[0], false, true)
		require.Equal(t, want.hold, rate.hold, text)
		require.Equal(t, want.burst, rate.burst, text)
		require.Equal(t, want.kept, rate.kept, text)
		if want.kept > 0 {
			require.GreaterOrEqual(t, rate.keptInterval()*time.Duration(rate.kept), horizon, text)
		}
		user := newRate(rates(text).Rates[0], false, false)
		require.Zero(t, user.kept, text)
		whole := newRate(rates(text).Rates[0], true, true)
		require.Zero(t, whole.hold, text)
		require.Zero(t, whole.kept, text)
		require.Equal(t, whole.Burst, whole.burst, text)
	}
}

func TestPlansThatSayTheSameAreTheSame(t *testing.T) {
	t.Parallel()
	limits := func() *events.Limits {
		l := quotas("events=5/day", "logs=5/day")
		l.Rates = rates("events=5/s").Rates
		return l
	}
	p := newPlan(limits())
	require.True(t, p.sameAs(p.limits))
	require.True(t, p.sameAs(limits()))
	utc := limits()
	utc.Zone = time.UTC
	require.True(t, p.sameAs(utc))
	for _, change := range []func(*events.Limits){
		func(l *events.Limits) { l.Quotas[1].Limit++ },
		func(l *events.Limits) { l.Quotas = l.Quotas[:1] },
		func(l *events.Limits) { l.Rates[0].Burst++ },
		func(l *events.Limits) { l.Rates = nil },
		func(l *events.Limits) { l.Over = events.OverDrop },
		func(l *events.Limits) { l.Whole = true },
		func(l *events.Limits) { l.Zone = time.FixedZone("x", 3600) },
	} {
		other := limits()
		change(other)
		require.False(t, p.sameAs(other))
	}
}
