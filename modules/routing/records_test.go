package routing

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
)

// putRule writes a rule as the operators' API does.
func putRule(t testing.TB, s store.Store, name string, fields store.Fields) {
	t.Helper()
	before, err := s.Get(context.Background(), restriction.Kind, name)
	require.NoError(t, err)
	require.NoError(t, s.Put(context.Background(), restriction.Kind, name, before, fields))
}

func dropOf(token string) store.Fields { return store.Fields{"token": token, "action": "drop"} }

// ruleOf returns the id of the rule that drops an event of the token, or "".
func ruleOf(t testing.TB, stage *Stage, token string) string {
	t.Helper()
	event := judge1(t, stage, events.Batch{Token: token}, events.Event{Name: "$pageview", DistinctID: "u"})
	return event.Outcome.Rule
}

var errAway = fmt.Errorf("%w: connection refused", store.ErrUnavailable)

func TestRulesOfTheStoreAreAppliedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		stage := startStage(t, configs.Fixed(DefaultConfig(), topics()), s)
		putRule(t, s, "spam", store.Fields{
			"token": "phc_a", "action": "drop", "events": "$pageview", "distinct_ids": "u, v",
		})
		time.Sleep(2 * gather)
		require.Equal(t, "store/spam", ruleOf(t, stage, "phc_a"))
		require.Empty(t, ruleOf(t, stage, "phc_b"))
		putRule(t, s, "spam", dropOf("phc_b"))
		putRule(t, s, "vip", store.Fields{"token": "phc_a", "action": "topic", "topic": "first", "events": "$pageview"})
		putRule(t, s, "vip-all", store.Fields{"token": "phc_a", "action": "topic", "topic": "second"})
		time.Sleep(2 * gather)
		require.Equal(t, "store/spam", ruleOf(t, stage, "phc_b"))
		got := judge1(t, stage, events.Batch{Token: "phc_a"}, events.Event{Name: "$pageview", DistinctID: "u"})
		require.Equal(t, events.Routing{Topic: "first", Rule: "store/vip"}, got.Routing, "the narrower rule")
		got = judge1(t, stage, events.Batch{Token: "phc_a"}, events.Event{Name: "a"})
		require.Equal(t, events.Routing{Topic: "second", Rule: "store/vip-all"}, got.Routing)
		putRule(t, s, "spam", nil)
		time.Sleep(2 * gather)
		require.Empty(t, ruleOf(t, stage, "phc_b"))
		require.EqualValues(t, 1, stage.status("phc_a").Rules[0].Events)
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, stage.status("phc_a").Rules[0].Events, "it is the same rule as before")
	})
}

func TestTheRulesOfTheStartAreInForceBeforeTheFirstRequest(t *testing.T) {
	s := newStore(t)
	stage, err := NewStage(configs.Fixed(DefaultConfig()), s, zap.NewNop(), tally.NoopScope)
	require.NoError(t, err)
	require.NoError(t, s.Start(t.Context()))
	putRule(t, s, "spam", dropOf("phc_a"))
	require.NoError(t, stage.Start(t.Context()))
	require.Equal(t, "store/spam", ruleOf(t, stage, "phc_a"))
	require.NoError(t, stage.Stop(t.Context()))
	require.NoError(t, s.Stop(t.Context()))
	require.Equal(t, "store/spam", ruleOf(t, stage, "phc_a"), "requests may run until the end")
}

// quiet is a store that tells nobody of changes, as for rules that were written by hand.
type quiet struct{ *scriptedStore }

func (quiet) Watch(string, func(string)) {}

func TestRulesThatWereWrittenByHandAreFoundBySoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		stage, err := NewStage(configs.Fixed(DefaultConfig()), quiet{s}, zap.NewNop(), tally.NoopScope)
		require.NoError(t, err)
		require.NoError(t, s.Start(t.Context()))
		require.NoError(t, stage.Start(t.Context()))
		defer func() {
			require.NoError(t, stage.Stop(t.Context()))
			require.NoError(t, s.Stop(t.Context()))
		}()
		putRule(t, s, "spam", dropOf("phc_a"))
		time.Sleep(time.Second)
		require.Empty(t, ruleOf(t, stage, "phc_a"))
		time.Sleep(10 * time.Second)
		require.Equal(t, "store/spam", ruleOf(t, stage, "phc_a"))
		s.set(func() { s.hidden = "spam" })
		time.Sleep(11 * time.Second)
		require.Equal(t, "store/spam", ruleOf(t, stage, "phc_a"), "what a list has missed is looked up")
		putRule(t, s, "spam", nil)
		putRule(t, s, "broken", store.Fields{"token": "phc_a"})
		time.Sleep(11 * time.Second)
		require.Empty(t, ruleOf(t, stage, "phc_a"))
		require.Equal(t, 1, stage.status("").Sources[0].BrokenRules)
		putRule(t, s, "broken", nil)
		time.Sleep(11 * time.Second)
		require.Zero(t, stage.status("").Sources[0].BrokenRules)
	})
}

// A rule that the node was told of while the store was away is read as soon as it is back.
func TestANoticeIsFollowedOnceTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		stage := startStage(t, configs.Fixed(DefaultConfig()), s)
		time.Sleep(5 * time.Second)
		s.set(func() { s.fault = errAway })
		require.NoError(t, s.Put(t.Context(), restriction.Kind, "spam", nil, dropOf("phc_a")))
		time.Sleep(time.Second)
		s.set(func() { s.fault = nil })
		time.Sleep(retryAfter + gather)
		require.Equal(t, "store/spam", ruleOf(t, stage, "phc_a"))
		s.set(func() { s.gets = 0 })
		time.Sleep(time.Minute)
		s.set(func() { require.LessOrEqual(t, s.gets, 15, "and it is not asked all the time then") })
	})
}

func TestRulesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		stage := startStage(t, configs.Fixed(DefaultConfig()), s)
		for name, after := range map[string]time.Duration{"a": time.Hour, "b": time.Minute, "c": -time.Minute} {
			putRule(t, s, name, store.Fields{
				"token": "phc_" + name, "action": "drop",
				"expires": time.Now().Add(after).UTC().Format(time.RFC3339Nano),
			})
		}
		time.Sleep(time.Second)
		require.Equal(t, "store/a", ruleOf(t, stage, "phc_a"))
		require.Equal(t, "store/b", ruleOf(t, stage, "phc_b"))
		require.Empty(t, ruleOf(t, stage, "phc_c"))
		time.Sleep(59*time.Second + shortest)
		require.Empty(t, ruleOf(t, stage, "phc_b"), "to the moment")
		require.Equal(t, "store/a", ruleOf(t, stage, "phc_a"))
		require.Equal(t, 1, stage.status("").Sources[0].Rules)
		time.Sleep(time.Hour)
		require.Empty(t, ruleOf(t, stage, "phc_a"))
	})
}

func TestABrokenRuleIsToldAndTakesNoOtherAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		core, logged := observer.New(zapcore.WarnLevel)
		scope := tally.NewTestScope("", nil)
		stage := startLogged(t, configs.Fixed(DefaultConfig(), topics()), s, zap.New(core), scope)
		putRule(t, s, "good", dropOf("phc_a"))
		putRule(t, s, "mistyped", store.Fields{"token": "phc_b", "action": "drop", "evnts": "$pageview"})
		putRule(t, s, "nowhere", store.Fields{"token": "phc_c", "action": "topic", "topic": "unknown"})
		putRule(t, s, "a name with\nblanks", dropOf("phc_d"))
		time.Sleep(30 * time.Second)
		require.Equal(t, "store/good", ruleOf(t, stage, "phc_a"))
		require.Empty(t, ruleOf(t, stage, "phc_b"), "not in part either")
		require.Empty(t, ruleOf(t, stage, "phc_d"))
		status := stage.status("").Sources[0]
		require.Equal(t, 1, status.Rules)
		require.Equal(t, 3, status.BrokenRules)
		require.Equal(t, []Broken{
			{"store/a name with\nblanks", `the name of a rule must be 1 to 64 letters, digits, dots, underscores or ` +
				`hyphens, got "a name with\nblanks"`},
			{"store/mistyped", `"evnts": is no field of a rule: did you mean events?`},
			{"store/nowhere", `topic: "unknown" is none of kafka.topics: add it to kafka.topics.custom`},
		}, status.Broken)
		require.Equal(t, 3, logged.Len(), "each is told once")
		require.Equal(t, "store/a name with\nblanks", logged.All()[0].ContextMap()["rule"])
		require.InDelta(t, 3, scope.Snapshot().Gauges()["broken_rules+source=store"].Value(), 0)
		putRule(t, s, "good", store.Fields{"token": "phc_a", "action": "dorp"})
		time.Sleep(time.Second)
		require.Empty(t, ruleOf(t, stage, "phc_a"), "what it was before is not what it says")
		putRule(t, s, "good", dropOf("phc_a"))
		putRule(t, s, "mistyped", nil)
		time.Sleep(time.Second)
		require.Equal(t, "store/good", ruleOf(t, stage, "phc_a"))
		require.Equal(t, 2, stage.status("").Sources[0].BrokenRules)
		require.Equal(t, 4, logged.Len(), "each is told once")
	})
}

// However many rules are broken, the log and the operators are told of the first ones.
func TestOfManyBrokenRulesTheFirstAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		core, logged := observer.New(zapcore.WarnLevel)
		stage := startLogged(t, configs.Fixed(DefaultConfig()), s, zap.New(core), tally.NoopScope)
		for i := range 2 * maxTold {
			require.NoError(t, s.Put(t.Context(), restriction.Kind, fmt.Sprintf("rule-%03d", i), nil,
				store.Fields{"token": "phc_a"}))
		}
		time.Sleep(time.Second)
		status := stage.status("").Sources[0]
		require.Equal(t, 2*maxTold, status.BrokenRules)
		require.Len(t, status.Broken, maxTold)
		require.Equal(t, "store/rule-000", status.Broken[0].Rule)
		require.Equal(t, maxTold, logged.Len())
	})
}

// load returns a configuration that can change.
func load(t *testing.T, environ *[]string) *configs.Live {
	t.Helper()
	read := func() (*configs.Set, error) {
		return configs.Load([]configs.Section{
			{Name: "routing", Defaults: DefaultConfig()}, {Name: "topics", Defaults: topics()},
		}, configs.Source{Environ: *environ})
	}
	set, err := read()
	require.NoError(t, err)
	return configs.NewLive(set, read)
}

func TestARuleIsInForceOnceItsTopicIsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, environ := newStore(t), []string{}
		live := load(t, &environ)
		stage := startStage(t, live, s)
		putRule(t, s, "vip", store.Fields{"token": "phc_a", "action": "topic", "topic": "vip"})
		time.Sleep(time.Second)
		require.Equal(t, 1, stage.status("").Sources[0].BrokenRules)
		for _, custom := range []string{"vip", "first"} {
			environ = []string{"CAPTURE_TOPICS__CUSTOM=" + custom}
			_, err := live.Reload()
			require.NoError(t, err)
			time.Sleep(2 * gather)
			got := judge1(t, stage, events.Batch{Token: "phc_a"}, events.Event{})
			require.Equal(t, custom == "vip", got.Routing.Topic == "vip", custom)
		}
	})
}

func TestWithoutTheStoreTheLastRulesStayUntilTheyAreStale(t *testing.T) {
	for _, onFailure := range []string{store.FailOpen, store.FailClosed} {
		synctest.Test(t, func(t *testing.T) {
			s, scope := newStore(t), tally.NewTestScope("", nil)
			cfg := DefaultConfig()
			cfg.OnStoreFailure = onFailure
			core, logged := observer.New(zapcore.InfoLevel)
			stage := startLogged(t, configs.Fixed(cfg), s, zap.New(core), scope)
			putRule(t, s, "spam", dropOf("phc_a"))
			time.Sleep(time.Second)
			s.set(func() { s.fault = errAway })
			time.Sleep(4 * time.Minute)
			require.Equal(t, "store/spam", ruleOf(t, stage, "phc_a"))
			require.Equal(t, "current", stage.status("").Sources[0].State)
			require.Contains(t, stage.status("").Sources[0].Error, "connection refused")
			time.Sleep(2 * time.Minute)
			counters := scope.Snapshot().Counters()
			if onFailure == store.FailOpen {
				require.Empty(t, ruleOf(t, stage, "phc_a"))
				require.Equal(t, "ignored", stage.status("").Sources[0].State)
				require.EqualValues(t, 1, scope.Snapshot().Counters()["open_admissions_total+"].Value())
			} else {
				require.Equal(t, "store/spam", ruleOf(t, stage, "phc_a"))
				require.Equal(t, "stale", stage.status("").Sources[0].State)
			}
			require.False(t, stage.User().Closed(), "no event fails")
			require.InDelta(t, 1, scope.Snapshot().Gauges()["stale+source=store"].Value(), 0)
			require.NotZero(t, counters["read_failures_total+source=store"].Value())
			require.Contains(t, logged.All()[0].Message, "the rules of the shared state cannot be read: ")
			s.set(func() { s.fault = nil })
			time.Sleep(2 * time.Second)
			require.Equal(t, "store/spam", ruleOf(t, stage, "phc_a"))
			require.Equal(t, "current", stage.status("").Sources[0].State)
			require.Zero(t, scope.Snapshot().Gauges()["stale+source=store"].Value())
		})
	}
}

func TestANodeThatHasReadNoRulesPassesOrRefusesEvents(t *testing.T) {
	for _, onFailure := range []string{store.FailOpen, store.FailClosed} {
		synctest.Test(t, func(t *testing.T) {
			s, scope := newStore(t), tally.NewTestScope("", nil)
			s.fault = errAway
			cfg := DefaultConfig()
			cfg.OnStoreFailure, cfg.Drop = onFailure, []string{"phc_gone"}
			stage := startLogged(t, configs.Fixed(cfg), s, zap.NewNop(), scope)
			require.Equal(t, "unread", stage.status("").Sources[0].State)
			got := judge1(t, stage, events.Batch{Token: "phc_a"}, events.Event{})
			counters := scope.Snapshot().Counters()
			if onFailure == store.FailOpen {
				require.True(t, got.Pending())
				require.EqualValues(t, 1, counters["open_admissions_total+"].Value())
				require.Equal(t, "config/drop/1", ruleOf(t, stage, "phc_gone"))
			} else {
				require.Equal(t, events.StateFailed, got.Outcome.State)
				require.Equal(t, events.ReasonStore, got.Outcome.Reason)
				require.Equal(t, events.Unavailable, events.CodeOf(got.Outcome.Err))
				require.EqualValues(t, 1, counters["refused_total+"].Value())
			}
			require.Equal(t, onFailure == store.FailClosed, stage.User().Closed())
			s.set(func() { s.fault = nil })
			time.Sleep(2 * time.Second)
			got = judge1(t, stage, events.Batch{Token: "phc_a"}, events.Event{})
			require.True(t, got.Pending())
			require.False(t, stage.User().Closed())
		})
	}
}

// A store that breaks off and comes back again and again has the rules listed about once a second, and not each time.
func TestRulesAreNotListedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		stage := startStage(t, configs.Fixed(DefaultConfig()), s)
		for range 1000 {
			stage.records.notice("")
			time.Sleep(10 * time.Millisecond)
		}
		s.set(func() {
			require.LessOrEqual(t, s.lists, 12)
			require.GreaterOrEqual(t, s.lists, 9)
			s.lists = 0
		})
		time.Sleep(time.Minute)
		s.set(func() { require.LessOrEqual(t, s.lists, 8) })
	})
}

// Where reading all rules takes long, it is done less often. That a rule is old does not make it stale: the store
// answers.
func TestAStoreThatIsSlowIsAskedForAllRulesLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		s.slow = 20 * time.Second
		stage := startStage(t, configs.Fixed(DefaultConfig()), s)
		time.Sleep(time.Minute)
		s.set(func() { s.lists = 0 })
		for range 60 {
			time.Sleep(time.Minute)
			require.Equal(t, "current", stage.status("").Sources[0].State)
		}
		s.set(func() { require.LessOrEqual(t, s.lists, int(time.Hour/(leisure*s.slow))+1) })
	})
}

// More notices than are worth to be followed one by one make one reading of all rules.
func TestNoticesAreGatheredInABoundedPlace(t *testing.T) {
	s := newStore(t)
	stage, err := NewStage(configs.Fixed(DefaultConfig()), s, zap.NewNop(), tally.NoopScope)
	require.NoError(t, err)
	stage.records.take()
	for i := range 3 * maxChanged {
		stage.records.notice(fmt.Sprint(i))
	}
	names, all := stage.records.take()
	require.Len(t, names, maxChanged)
	require.True(t, all)
}

// Further rules than there is room for are told, and the others stay.
func TestThereIsRoomForSoManyRules(t *testing.T) {
	s := newStore(t)
	stage := startStage(t, configs.Fixed(DefaultConfig()), s)
	long := strings.TrimSuffix(strings.Repeat(strings.Repeat("e", 990)+",", 60), ",")
	n := maxRuleBytes/60_000 + 5
	for i := range n {
		putRule(t, s, fmt.Sprintf("rule-%04d", i), store.Fields{"token": "phc_a", "action": "drop", "events": long})
	}
	require.Eventually(t, func() bool {
		status := stage.status("").Sources[0]
		return status.Rules+status.BrokenRules == n && status.BrokenRules > 0 && status.Rules > 100 &&
			strings.HasPrefix(status.Broken[0].Faults, "there is no room for it: the rules in force may be 50000")
	}, 20*time.Second, 10*time.Millisecond)
}

func TestTheNodesOwnAnswerAndAllSourcesAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := withPostHog(t)
		cfg := DefaultConfig()
		cfg.Topics = []string{"phc_vip:event=both=first"}
		cfg.SkipPerson = []string{"phc_vip"}
		stage := startStage(t, configs.Fixed(cfg, topics()), s)
		putRule(t, s, "aside", store.Fields{
			"token": "phc_vip", "action": "topic", "topic": "third", "events": "stored, both",
		})
		putRule(t, s, "dlq", store.Fields{"token": "phc_vip", "action": "dlq", "events": "bad"})
		time.Sleep(time.Second)
		for name, want := range map[string]events.Routing{
			"both":   {Topic: "first", SkipPerson: true, Rule: "config/topics/1"},
			"stored": {Topic: "third", SkipPerson: true, Rule: "store/aside"},
			"other":  {Topic: "second", SkipPerson: true, Rule: "posthog/redirect_to_topic/1"},
			"bad":    {Topic: "second", DLQ: "event_restriction", SkipPerson: true, Rule: "store/dlq"},
		} {
			got := judge1(t, stage, events.Batch{Token: "phc_vip"}, events.Event{Name: name})
			require.Equal(t, want, got.Routing, name)
		}
		var ids []string
		for _, rule := range stage.status("phc_vip").Rules {
			ids = append(ids, rule.Rule)
		}
		require.Equal(t, []string{
			"posthog/redirect_to_topic/3", "posthog/redirect_to_topic/1", "posthog/redirect_to_topic/2", "store/aside",
			"store/dlq", "config/topics/1", "config/skip_person/1",
		}, ids)
	})
}
