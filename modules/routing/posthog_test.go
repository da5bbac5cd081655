package routing

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
)

// withPostHog returns a store with the documents of testdata/posthog, which are what json.dumps of PostHog's
// application writes, to the byte.
func withPostHog(t *testing.T) *scriptedStore {
	t.Helper()
	s := newStore(t)
	s.posthog = true
	for _, name := range postHogActions {
		text, err := os.ReadFile(filepath.Join("testdata", "posthog", name+".json"))
		require.NoError(t, err)
		s.strings["event_ingestion_restriction_dynamic_config:"+name] = string(text)
	}
	return s
}

// topics are kafka.topics with two topics of the user's.
func topics() produce.Topics {
	all := produce.DefaultTopics()
	all.Custom = []string{"first", "second", "third"}
	return all
}

func TestPostHogsRestrictionsAreApplied(t *testing.T) {
	stage := startStage(t, configs.Fixed(DefaultConfig(), topics()), withPostHog(t))
	const session, at = `{"$session_id":"0190-bad"}`, "0190a1b2-0000-7000-8000-00000000000a"
	drop := func(id string) events.Event {
		return events.Event{Outcome: events.Outcome{
			State: events.StateDropped, Reason: events.ReasonRule, Rule: "posthog/drop_event_from_ingestion/" + id,
		}}
	}
	route := func(routing events.Routing) events.Event { return events.Event{Routing: routing} }
	loud := events.Routing{Overflow: true, Rule: "posthog/force_overflow_from_ingestion/1"}
	unkeyed := loud
	unkeyed.Unkeyed, unkeyed.SkipPerson = true, true
	for _, test := range []struct {
		token string
		event events.Event
		want  events.Event
	}{
		{"phc_gone", events.Event{Name: "a"}, drop("1")},
		{"phc_gone", events.Event{Name: "a", Lane: events.LaneHistorical}, drop("1")},
		{"phc_gone", events.Event{Name: "$exception", Lane: events.LaneExceptions}, events.Event{}},
		{"phc_gone", events.Event{Name: "a", Lane: events.LaneHeatmaps}, events.Event{}},
		{"phc_gone", events.Event{Name: "a", Lane: events.LaneLogs}, events.Event{}},
		{"phc_a", events.Event{Name: "sign up", DistinctID: "spämmer"}, drop("2")},
		{"phc_a", events.Event{Name: "$exception", DistinctID: `bot "7"`, Lane: events.LaneExceptions}, drop("2")},
		{"phc_a", events.Event{Name: "sign up", DistinctID: "somebody"}, events.Event{}},
		{"phc_a", events.Event{Name: "other", DistinctID: "spämmer"}, events.Event{}},
		{"phc_a", events.Event{SessionID: "0190-gone", Lane: events.LaneRecordings}, drop("3")},
		{"phc_a", events.Event{SessionID: "0190-gone"}, events.Event{}},
		{"phc_a", events.Event{UUID: uuid.MustParse(at), Lane: events.LaneAI}, drop("4")},
		{"phc_a", events.Event{UUID: uuid.MustParse(at)}, events.Event{}},
		{"phc_b", events.Event{Name: "a", DistinctID: "old"}, events.Event{}}, // other versions, other pipelines
		{"phc_loud", events.Event{}, route(unkeyed)},
		{"phc_loud", events.Event{Lane: events.LaneAI}, route(unkeyed)},
		{"phc_loud", events.Event{Lane: events.LaneRecordings}, route(loud)},
		{"phc_loud", events.Event{Lane: events.LaneExceptions}, events.Event{}},
		{"phc_a", events.Event{DistinctID: "bad", Raw: events.Raw{Properties: []byte(session)}},
			route(events.Routing{DLQ: "event_restriction", Rule: "posthog/redirect_to_dlq/1"})},
		{"phc_a", events.Event{DistinctID: "bad"}, events.Event{}},
		{"phc_vip", events.Event{Name: "vip"}, // the highest index of a topic that is there
			route(events.Routing{Topic: "third", Rule: "posthog/redirect_to_topic/2"})},
		{"phc_vip", events.Event{Name: "a"},
			route(events.Routing{Topic: "second", Rule: "posthog/redirect_to_topic/1"})},
		{"phc_a", events.Event{DistinctID: "quiet"},
			route(events.Routing{SkipPerson: true, Rule: "posthog/skip_person_processing/1"})},
	} {
		got := judge1(t, stage, events.Batch{Token: test.token}, test.event)
		require.Equal(t, test.want.Outcome, got.Outcome, "%s %+v", test.token, test.event)
		require.Equal(t, test.want.Routing, got.Routing, "%s %+v", test.token, test.event)
	}
	status := stage.status("phc_vip")
	require.Equal(t, "posthog", status.Sources[0].Source)
	require.Equal(t, "current", status.Sources[0].State)
	require.Equal(t, 10, status.Sources[0].Rules)
	require.Equal(t, []Broken{
		{"posthog/redirect_to_topic/4", "it names no topic in args.topic"},
		{"posthog/redirect_to_topic/5", "it names no topic in args.topic"},
		{"posthog/redirect_to_topic/6", `topic: "unknown" is none of kafka.topics: add it to kafka.topics.custom`},
	}, status.Sources[0].Broken)
	require.Len(t, status.Rules, 3)
	require.Equal(t, map[string]string{"token": "phc_vip", "action": "topic", "topic": "third", "events": "vip"},
		status.Rules[2].Fields)
	require.EqualValues(t, 1, status.Rules[2].Events)
}

func TestABrokenRestrictionOfPostHogsTakesNoOtherAlong(t *testing.T) {
	s := newStore(t)
	s.posthog = true
	key := restrictionKey + postHogActions[restriction.Drop]
	s.strings[key] = `[{"version":2,"token":7,"pipelines":["analytics"]}, 5,` +
		`{"version":2,"token":"","pipelines":["ai"]},` +
		`{"version":2,"token":"t","pipelines":["ai"],"event_uuids":["x"]},` +
		`{"version":2,"token":"t","pipelines":["analytics"],"args":[1],"index":null,"more":true,"distinct_ids":null,` +
		`"event_uuids":["x","0190a1b2-0000-7000-8000-00000000000a"]}]`
	s.strings[restrictionKey+postHogActions[restriction.DLQ]] = `{"version":2}`
	s.strings[restrictionKey+postHogActions[restriction.SkipPerson]] = `[{"version":2,"token":"t","pipelines":["ai"]}]`
	core, logged := observer.New(zapcore.WarnLevel)
	stage := startLogged(t, configs.Fixed(DefaultConfig()), s, zap.New(core), tally.NoopScope)
	got := judge1(t, stage, events.Batch{Token: "t"},
		events.Event{UUID: uuid.MustParse("0190a1b2-0000-7000-8000-00000000000a")})
	require.Equal(t, "posthog/drop_event_from_ingestion/5", got.Outcome.Rule)
	require.True(t, judge1(t, stage, events.Batch{Token: "t"}, events.Event{Lane: events.LaneAI}).Routing.SkipPerson)
	var ids []string
	for _, fault := range stage.status("").Sources[0].Broken {
		ids = append(ids, fault.Rule)
	}
	require.Equal(t, []string{
		"posthog/drop_event_from_ingestion/1", "posthog/drop_event_from_ingestion/2",
		"posthog/drop_event_from_ingestion/3", "posthog/drop_event_from_ingestion/4", "posthog/redirect_to_dlq",
	}, ids)
	require.Len(t, logged.All(), len(ids))
	stage.posthog.step(t.Context())
	require.Len(t, logged.All(), len(ids), "told once")
}

// A key that holds a list, say, says nothing. Its restrictions stay as they were until they are stale, and the others
// are read.
func TestADocumentThatIsNoTextTakesNoOtherAlong(t *testing.T) {
	s := newStore(t)
	s.posthog = true
	key := func(action restriction.Action) string { return restrictionKey + postHogActions[action] }
	entry := func(name string) string {
		return `[{"version":2,"token":"t","pipelines":["analytics"],"event_names":["` + name + `"]}]`
	}
	s.strings[key(restriction.Drop)] = entry("one")
	s.noText = map[string]bool{key(restriction.DLQ): true}
	core, logged := observer.New(zapcore.WarnLevel)
	stage := startLogged(t, configs.Fixed(DefaultConfig()), s, zap.New(core), tally.NoopScope)
	read := func() {
		stage.posthog.next = time.Time{}
		stage.posthog.step(t.Context())
	}
	drops := func(name string) bool {
		return judge1(t, stage, events.Batch{Token: "t"}, events.Event{Name: name}).Outcome.Rule != ""
	}
	require.True(t, drops("one"))
	broken := []Broken{{"posthog/redirect_to_dlq", "WRONGTYPE"}}
	require.Equal(t, broken, stage.status("").Sources[0].Broken)
	s.set(func() { s.strings[key(restriction.Drop)] = entry("two") })
	read()
	require.False(t, drops("one"))
	require.True(t, drops("two"))
	require.Len(t, logged.All(), 1, "told once")

	s.set(func() { s.noText = map[string]bool{key(restriction.Drop): true} })
	read()
	require.True(t, drops("two"), "the restrictions before stay")
	require.Equal(t, "posthog/drop_event_from_ingestion", stage.status("").Sources[0].Broken[0].Rule)
	s.set(func() { s.noText = nil })
	read()
	require.True(t, drops("two"))
	require.Empty(t, stage.status("").Sources[0].Broken)
}

func TestPostHogsRestrictionsAreReadAgainAndIgnoredOnceTheyAreStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := withPostHog(t)
		s.sets[sessionsKey] = map[string]time.Time{
			"busy": time.Now().Add(time.Hour), "calm": time.Now().Add(time.Second),
		}
		core, logged := observer.New(zapcore.InfoLevel)
		stage := startLogged(t, configs.Fixed(DefaultConfig(), topics()), s, zap.New(core), tally.NoopScope)
		logged.TakeAll() // the broken ones
		judge := func(token string, event events.Event) events.Event {
			return judge1(t, stage, events.Batch{Token: token, Received: time.Now()}, event)
		}
		recording := func(session string) events.Event {
			return events.Event{Lane: events.LaneRecordings, SessionID: session}
		}
		inOverflow := events.Routing{Overflow: true, Rule: "posthog/capture-overflow/replay"}
		require.Equal(t, events.StateDropped, judge("phc_gone", events.Event{}).Outcome.State)
		require.Equal(t, inOverflow, judge("any", recording("busy")).Routing)
		require.Equal(t, inOverflow, judge("any", recording("calm")).Routing)
		require.Zero(t, judge("any", recording("other")).Routing)
		require.Zero(t, judge("any", events.Event{SessionID: "busy"}).Routing, "it is no recording")
		time.Sleep(2 * time.Second)
		require.Zero(t, judge("any", recording("calm")).Routing, "its time is over")

		// What PostHog changes is in force within rules_refresh.
		key := restrictionKey + postHogActions[restriction.Drop]
		s.set(func() {
			s.strings[key] = `[{"version": 2, "token": "phc_new", "pipelines": ["analytics"]}]`
			s.sets[sessionsKey] = map[string]time.Time{"new": time.Now().Add(time.Hour)}
		})
		time.Sleep(15 * time.Second)
		require.Equal(t, events.StateDropped, judge("phc_new", events.Event{}).Outcome.State)
		require.Equal(t, events.StatePending, judge("phc_gone", events.Event{}).Outcome.State)
		require.Equal(t, inOverflow, judge("any", recording("new")).Routing)
		require.Zero(t, judge("any", recording("busy")).Routing)

		// A document that cannot be read leaves the one before in force, until it is stale. The others go on.
		s.set(func() { s.strings[key] = "[" })
		time.Sleep(4 * time.Minute)
		require.Equal(t, events.StateDropped, judge("phc_new", events.Event{}).Outcome.State)
		time.Sleep(2 * time.Minute)
		require.Equal(t, events.StatePending, judge("phc_new", events.Event{}).Outcome.State)
		require.True(t, judge("phc_loud", events.Event{}).Routing.Overflow)
		require.Equal(t, "ignored", stage.status("").Sources[0].State)
		s.set(func() { s.strings[key] = "" })
		time.Sleep(15 * time.Second)
		require.Equal(t, "current", stage.status("").Sources[0].State)

		// Without PostHog's Redis all stay for a while, and are ignored then.
		s.set(func() { s.postFault = fmt.Errorf("connection refused: %w", store.ErrUnavailable) })
		logged.TakeAll()
		time.Sleep(4 * time.Minute)
		require.True(t, judge("phc_loud", events.Event{}).Routing.Overflow)
		require.Equal(t, inOverflow, judge("any", recording("new")).Routing)
		require.Contains(t, stage.status("").Sources[0].Error, "connection refused")
		require.True(t, strings.HasPrefix(logged.All()[0].Message, "PostHog's restrictions cannot be read: "))
		require.LessOrEqual(t, logged.Len(), 5, "a line a minute at most")
		time.Sleep(2 * time.Minute)
		require.Zero(t, judge("phc_loud", events.Event{}).Routing)
		require.Zero(t, judge("any", recording("new")).Routing)
		require.Zero(t, stage.status("").Sources[0].Rules)
		s.set(func() { s.postFault = nil })
		time.Sleep(15 * time.Second)
		require.True(t, judge("phc_loud", events.Event{}).Routing.Overflow)
		require.Equal(t, inOverflow, judge("any", recording("new")).Routing)
	})
}

func TestPostHogsRestrictionsAreReadSoonAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := withPostHog(t)
		s.postFault = errAway
		stage := startStage(t, configs.Fixed(DefaultConfig(), topics()), s)
		s.set(func() { s.postFault = nil })
		for i := range 3 {
			time.Sleep(sessionsRefresh)
			synctest.Wait()
			got := judge1(t, stage, events.Batch{Token: "phc_gone"}, events.Event{})
			require.Equal(t, events.StateDropped, got.Outcome.State)
			require.EqualValues(t, i+1, stage.status("phc_gone").Rules[0].Events, "it is the same rule as before")
		}
	})
}

func TestPostHogsRestrictionsCanBeSwitchedOffAndOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, scope, environ := withPostHog(t), tally.NewTestScope("", nil), []string{}
		s.sets[sessionsKey] = map[string]time.Time{"busy": time.Now().Add(time.Hour)}
		live := load(t, &environ)
		stage := startLogged(t, live, s, zap.NewNop(), scope)
		for i, off := range []bool{false, true, false} {
			if i > 0 {
				environ = []string{fmt.Sprint("CAPTURE_ROUTING__POSTHOG=", !off)}
				_, err := live.Reload()
				require.NoError(t, err)
				synctest.Wait()
			}
			got := judge1(t, stage, events.Batch{Token: "phc_gone"}, events.Event{})
			require.Equal(t, off, got.Pending())
			got = judge1(t, stage, events.Batch{Received: time.Now()},
				events.Event{Lane: events.LaneRecordings, SessionID: "busy"})
			require.Equal(t, !off, got.Routing.Overflow)
			gauges := scope.Snapshot().Gauges()
			status := stage.status("").Sources[0]
			if off {
				require.Equal(t, SourceStatus{Source: "posthog", State: "off"}, status)
			} else {
				require.Equal(t, "current", status.State)
				require.Positive(t, status.Rules)
				require.Positive(t, status.BrokenRules)
			}
			require.InDelta(t, status.Rules, gauges["rules+source=posthog"].Value(), 0)
			require.InDelta(t, status.BrokenRules, gauges["broken_rules+source=posthog"].Value(), 0)
		}
		// What is stale is not when it is switched off.
		s.set(func() { s.postFault = errAway })
		time.Sleep(6 * time.Minute)
		require.InDelta(t, 1, scope.Snapshot().Gauges()["stale+source=posthog"].Value(), 0)
		environ = []string{"CAPTURE_ROUTING__POSTHOG=false"}
		_, err := live.Reload()
		require.NoError(t, err)
		synctest.Wait()
		require.Zero(t, scope.Snapshot().Gauges()["stale+source=posthog"].Value())
	})
}
