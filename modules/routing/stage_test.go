package routing

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

var received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func newStage(t testing.TB, cfg Config) *Stage {
	t.Helper()
	return startStage(t, configs.Fixed(cfg), newStore(t))
}

// process passes one event through a stage of the defaults with the given rules, and returns the event afterwards,
// without the id of the rule.
func process(t *testing.T, cfg Config, batch events.Batch, event events.Event) events.Event {
	t.Helper()
	cfg = rulesOf(cfg)
	require.NoError(t, cfg.Validate())
	batch.Received = received
	got := judge1(t, newStage(t, cfg), batch, event)
	require.False(t, got.Outcome.Rule != "" && got.Routing.Rule != "", "one of them at most")
	got.Outcome.Rule, got.Routing.Rule = "", ""
	return got
}

// judge1 passes one event through a stage and returns the event afterwards.
func judge1(t testing.TB, stage *Stage, batch events.Batch, event events.Event) events.Event {
	t.Helper()
	batch.Events = []events.Event{event}
	settle, err := stage.Process(t.Context(), &batch)
	require.NoError(t, err)
	require.Nil(t, settle)
	return batch.Events[0]
}

// rulesOf returns the defaults with the rules of a section.
func rulesOf(cfg Config) Config {
	all := DefaultConfig()
	all.Drop, all.Overflow, all.SkipPerson, all.DLQ, all.Topics = cfg.Drop, cfg.Overflow, cfg.SkipPerson, cfg.DLQ,
		cfg.Topics
	all.HistoricalAfter, all.HistoricalOnly = cfg.HistoricalAfter, cfg.HistoricalOnly
	return all
}

var (
	pending = events.Outcome{}
	dropped = events.Outcome{State: events.StateDropped, Reason: events.ReasonRule}
	forced  = events.Routing{Overflow: true, Unkeyed: true, SkipPerson: true}
)

// Section 5.3: by token or token:distinct_id, whatever the lane.
func TestEventsAreDroppedByTokenOrUser(t *testing.T) {
	cfg := Config{Drop: []string{"phc_gone", "phc_a:spammer", "phc_a:a:b"}}
	for _, test := range []struct {
		token, distinctID string
		want              events.Outcome
	}{
		{"phc_gone", "anybody", dropped},
		{"phc_a", "spammer", dropped},
		{"phc_a", "a:b", dropped},
		{"phc_a", "a", pending},
		{"phc_a", "somebody", pending},
		{"phc_b", "spammer", pending},
		{"phc_gon", "anybody", pending},
	} {
		for _, lane := range events.Lanes() {
			got := process(t, cfg, events.Batch{Token: test.token},
				events.Event{DistinctID: test.distinctID, Lane: lane})
			require.Equal(t, test.want, got.Outcome, "%s:%s in %s", test.token, test.distinctID, lane)
			require.Equal(t, lane, got.Lane)
			require.Zero(t, got.Routing)
		}
	}
}

// Section 5.2: an event that is forced to overflow loses its key and leaves persons alone. Section 4.2: only the lanes
// main, AI and recordings have an overflow. Section 4.3: a recording keeps its session's key.
func TestOverflowIsForcedInTheLanesThatHaveOne(t *testing.T) {
	cfg := Config{Overflow: []string{"phc_loud", "phc_a:hot"}}
	for _, test := range []struct {
		lane events.Lane
		want events.Routing
	}{
		{events.LaneMain, forced},
		{events.LaneAI, forced},
		{events.LaneRecordings, events.Routing{Overflow: true}},
		{events.LaneHistorical, events.Routing{}},
		{events.LaneExceptions, events.Routing{}},
		{events.LaneHeatmaps, events.Routing{}},
		{events.LaneClientWarnings, events.Routing{}},
		{events.LaneLogs, events.Routing{}},
	} {
		for _, who := range [][2]string{{"phc_loud", "anybody"}, {"phc_a", "hot"}} {
			got := process(t, cfg, events.Batch{Token: who[0]}, events.Event{DistinctID: who[1], Lane: test.lane})
			require.Equal(t, test.want, got.Routing, "%v in %s", who, test.lane)
			require.True(t, got.Pending())
		}
		got := process(t, cfg, events.Batch{Token: "phc_a"}, events.Event{DistinctID: "cold", Lane: test.lane})
		require.Zero(t, got.Routing)
	}
}

// Section 5.5: heatmaps and client warnings belong to no pipeline that has restrictions.
func TestEventsAreSetAsideRedirectedAndKeptFromPersonsByTokenOrUser(t *testing.T) {
	cfg := Config{
		SkipPerson: []string{"phc_a:bot", "phc_b"},
		DLQ:        []string{"phc_a:bad"},
		Topics:     []string{"phc_a:vip=vip_events", "phc_c=all_of_c", "phc_c:vip=vip_events"},
	}
	for _, test := range []struct {
		token, distinctID string
		want              events.Routing
	}{
		{"phc_a", "bot", events.Routing{SkipPerson: true}},
		{"phc_b", "anybody", events.Routing{SkipPerson: true}},
		{"phc_a", "bad", events.Routing{DLQ: "event_restriction"}},
		{"phc_a", "vip", events.Routing{Topic: "vip_events"}},
		{"phc_c", "anybody", events.Routing{Topic: "all_of_c"}},
		{"phc_c", "vip", events.Routing{Topic: "vip_events"}},
		{"phc_a", "anybody", events.Routing{}},
	} {
		for _, lane := range events.Lanes() {
			want := test.want
			switch lane {
			case events.LaneHeatmaps, events.LaneClientWarnings, events.LaneLogs:
				want = events.Routing{}
			}
			got := process(t, cfg, events.Batch{Token: test.token},
				events.Event{DistinctID: test.distinctID, Lane: lane})
			require.Equal(t, want, got.Routing, "%s:%s in %s", test.token, test.distinctID, lane)
			require.True(t, got.Pending())
		}
	}
}

func TestAUserIsHeldToTheRulesForAllOfItsProjectToo(t *testing.T) {
	cfg := Config{
		Overflow: []string{"phc_a"}, SkipPerson: []string{"phc_a"}, DLQ: []string{"phc_a:u"},
		Topics: []string{"phc_a=all"},
	}
	got := process(t, cfg, events.Batch{Token: "phc_a"}, events.Event{DistinctID: "u"})
	require.Equal(t, events.Routing{
		DLQ: "event_restriction", Topic: "all", Overflow: true, Unkeyed: true, SkipPerson: true,
	}, got.Routing)

	cfg = Config{Drop: []string{"phc_a"}, DLQ: []string{"phc_a:u"}}
	got = process(t, cfg, events.Batch{Token: "phc_a"}, events.Event{DistinctID: "u"})
	require.Equal(t, dropped, got.Outcome)
}

// A rule does not undo what an earlier stage or the protocol has set on an event.
func TestWhatWasDecidedBeforeStays(t *testing.T) {
	before := events.Routing{SkipPerson: true, Overflow: true}
	cfg := Config{DLQ: []string{"phc_a"}}
	got := process(t, cfg, events.Batch{Token: "phc_a"}, events.Event{Routing: before})
	require.Equal(t, events.Routing{DLQ: "event_restriction", SkipPerson: true, Overflow: true}, got.Routing)

	over := events.Outcome{State: events.StateDropped, Reason: events.ReasonQuota}
	cfg = Config{DLQ: []string{"phc_a"}, Drop: []string{"phc_a"}, HistoricalOnly: true, HistoricalAfter: time.Hour}
	got = process(t, cfg, events.Batch{Token: "phc_a"}, events.Event{Outcome: over})
	require.Equal(t, events.Event{Outcome: over}, got)
}

// Section 2.12: events of the main lane that are as old as the threshold.
func TestOldEventsGoToTheHistoricalLane(t *testing.T) {
	for _, test := range []struct {
		after time.Duration
		lane  events.Lane
		age   time.Duration
		want  events.Lane
	}{
		{24 * time.Hour, events.LaneMain, 24 * time.Hour, events.LaneHistorical},
		{24 * time.Hour, events.LaneMain, 24*time.Hour - time.Millisecond, events.LaneMain},
		{24 * time.Hour, events.LaneMain, -time.Hour, events.LaneMain},
		{24 * time.Hour, events.LaneExceptions, 48 * time.Hour, events.LaneExceptions},
		{24 * time.Hour, events.LaneAI, 48 * time.Hour, events.LaneAI},
		{24 * time.Hour, events.LaneRecordings, 48 * time.Hour, events.LaneRecordings},
		{0, events.LaneMain, 1e6 * time.Hour, events.LaneMain},
	} {
		got := process(t, Config{HistoricalAfter: test.after}, events.Batch{Token: "phc_a"},
			events.Event{Lane: test.lane, Timestamp: received.Add(-test.age)})
		require.Equal(t, test.want, got.Lane, "%s in %s after %s", test.age, test.lane, test.after)
	}
	// Year 1 is further away than a duration reaches.
	got := process(t, Config{HistoricalAfter: time.Hour}, events.Batch{Token: "phc_a"},
		events.Event{Timestamp: time.Time{}.AddDate(1, 0, 0)})
	require.Equal(t, events.LaneHistorical, got.Lane)
	// Section 4.2: historical events ignore overflow.
	got = process(t, Config{HistoricalAfter: time.Hour, Overflow: []string{"phc_a"}}, events.Batch{Token: "phc_a"},
		events.Event{Timestamp: received.Add(-2 * time.Hour)})
	require.Equal(t, events.LaneHistorical, got.Lane)
	require.Zero(t, got.Routing)
}

// Section 1.1, mode import.
func TestOnlyMigrationsAreTakenInImportMode(t *testing.T) {
	cfg := Config{HistoricalOnly: true}
	got := process(t, cfg, events.Batch{Token: "phc_a"}, events.Event{Timestamp: received.Add(-1000 * time.Hour)})
	require.Equal(t, events.Outcome{State: events.StateDropped, Reason: events.ReasonNotHistorical}, got.Outcome)
	got = process(t, cfg, events.Batch{Token: "phc_a", Historical: true}, events.Event{Lane: events.LaneHistorical})
	require.True(t, got.Pending())
}

func TestABatchThatNoRuleConcernsCostsNoAllocation(t *testing.T) {
	stage := newStage(t, someRules)
	batch := stock(50)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = stage.Process(t.Context(), batch) }))
	batch.Token = "phc_concerned"
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = stage.Process(t.Context(), batch) }),
		"nor does one that rules concern")
}

var someRules = rulesOf(Config{
	Drop: []string{"phc_gone", "phc_concerned:spammer"}, Topics: []string{"phc_concerned:vip=vip"},
})

func stock(n int) *events.Batch {
	batch := &events.Batch{Token: "phc_other", Received: received, Events: make([]events.Event, n)}
	for i := range batch.Events {
		batch.Events[i] = events.Event{Name: "$pageview", DistinctID: "user", Timestamp: received}
	}
	return batch
}

func BenchmarkNoRuleConcernsTheBatch(b *testing.B) {
	stage, batch := newStage(b, someRules), stock(50)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = stage.Process(b.Context(), batch)
	}
}

func BenchmarkRulesConcernTheBatch(b *testing.B) {
	stage, batch := newStage(b, someRules), stock(50)
	batch.Token = "phc_concerned"
	b.ReportAllocs()
	for b.Loop() {
		_, _ = stage.Process(b.Context(), batch)
	}
}

func TestWhatRulesHaveDecidedAboutIsCounted(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Drop, cfg.Overflow, cfg.DLQ = []string{"phc_gone"}, []string{"phc_loud"}, []string{"phc_loud:bad"}
	cfg.SkipPerson, cfg.Topics = []string{"phc_loud"}, []string{"phc_loud=first"}
	scope := tally.NewTestScope("", nil)
	stage := startLogged(t, configs.Fixed(cfg), newStore(t), zap.NewNop(), scope)
	for range 2 {
		judge1(t, stage, events.Batch{Token: "phc_gone"}, events.Event{})
		judge1(t, stage, events.Batch{Token: "phc_loud"}, events.Event{})
	}
	judge1(t, stage, events.Batch{Token: "phc_loud"}, events.Event{DistinctID: "bad", Lane: events.LaneExceptions})
	for action, want := range map[string]int64{"drop": 2, "overflow": 2, "dlq": 1, "topic": 3, "skip_person": 3} {
		require.Equal(t, want, scope.Snapshot().Counters()["applied_total+action="+action].Value(), action)
	}
	require.EqualValues(t, 2, stage.status("phc_gone").Rules[0].Events)
}

func TestOfManyRulesOfATokenTheFirstAreShown(t *testing.T) {
	cfg := DefaultConfig()
	for i := range 2 * maxShown {
		cfg.Drop = append(cfg.Drop, fmt.Sprint("phc_a:user-", i))
	}
	stage := newStage(t, cfg)
	require.Len(t, stage.status("phc_a").Rules, maxShown)
	require.Equal(t, 2*maxShown, stage.status("").Sources[1].Rules)
}
