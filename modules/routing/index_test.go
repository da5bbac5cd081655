package routing

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/restriction"
)

// naive judges an event as the contract says it, rule by rule.
func naive(rules []*rule, token string, event *events.Event, session string) (v verdict) {
	in := func(list []string, text string) bool { return len(list) == 0 || slices.Contains(list, text) }
	for _, r := range rules {
		if r.Token == token && r.lanes.has(event.Lane) && in(r.DistinctIDs, event.DistinctID) &&
			in(r.Events, event.Name) && in(r.Sessions, session) &&
			(len(r.UUIDs) == 0 || slices.Contains(r.UUIDs, event.UUID)) &&
			(v[r.Action] == nil || v[r.Action].rank < r.rank) {
			v[r.Action] = r
		}
	}
	return v
}

func TestTheIndexFindsWhatALookAtEveryRuleFinds(t *testing.T) {
	numbered := func(prefix string, n int) (all []string) {
		for i := range n {
			all = append(all, prefix+strconv.Itoa(i))
		}
		return all
	}
	ids := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	tokens, users, names, sessions := numbered("t", 3), numbered("u", 12), numbered("e", 12), numbered("s", 12)
	users = append(users, strings.Repeat("u", 63), strings.Repeat("u", 90))
	names = append(names, strings.Repeat("e", 64))
	some := func(t *rapid.T, of []string, label string) []string {
		most := rapid.SampledFrom([]int{0, 0, 1, 3, 12}).Draw(t, label+" most")
		return rapid.SliceOfN(rapid.SampledFrom(of), 0, most).Draw(t, label)
	}
	rapid.Check(t, func(t *rapid.T) {
		var rules []*rule
		for i := range rapid.IntRange(0, 30).Draw(t, "rules") {
			of := restriction.Rule{
				Token: rapid.SampledFrom(tokens).Draw(t, "token"), DistinctIDs: some(t, users, "users"),
				Action: rapid.SampledFrom(restriction.Actions()).Draw(t, "action"),
				Events: some(t, names, "names"), Sessions: some(t, sessions, "sessions"),
			}
			if rapid.IntRange(0, 4).Draw(t, "uuids") == 0 {
				of.UUIDs = rapid.SliceOfN(rapid.SampledFrom(ids), 1, 3).Draw(t, "ids")
			}
			from := source(rapid.IntRange(0, int(fromConfig)).Draw(t, "from"))
			r := newRule(from, strconv.Itoa(i), of, fieldsOf(&of)*rankOfField+int64(i))
			if rapid.Bool().Draw(t, "some lanes") {
				r.lanes = lanes(rapid.Uint16Range(0, 255).Draw(t, "lanes"))
			}
			rules = append(rules, r)
		}
		rules = rapid.Permutation(rules).Draw(t, "order")
		x := newIndex(rules)
		require.Equal(t, len(rules), x.size)
		for range 20 {
			token := rapid.SampledFrom(tokens).Draw(t, "token of the event")
			id := rapid.SampledFrom(append([]string{""}, sessions...)).Draw(t, "session")
			event := events.Event{
				Name:       rapid.SampledFrom(names).Draw(t, "name"),
				DistinctID: rapid.SampledFrom(users).Draw(t, "user"),
				UUID:       rapid.SampledFrom(ids).Draw(t, "uuid"),
				Lane:       rapid.SampledFrom(events.Lanes()).Draw(t, "lane"),
			}
			switch {
			case id == "":
				event.Raw.Properties = []byte(`{"$session_id":7}`)
			case rapid.Bool().Draw(t, "as property"):
				event.Raw.Properties = []byte(`{"a":1,"$session_id":"` + id + `"}`)
			default:
				event.SessionID = id
			}
			var got verdict
			var s session
			if p := x.projects[token]; p != nil {
				p.judge(&event, &s, &got)
			}
			want := naive(rules, token, &event, id)
			for action := range want {
				require.Same(t, want[action], got[action], "%+v %+v", event, restriction.Action(action))
			}
		}
	})
}

// manyRules are rules of a thousand tokens, ten for each.
func manyRules() (all []*rule) {
	for token := range 1000 {
		for i := range 10 {
			of := restriction.Rule{Token: fmt.Sprintf("phc_%040d", token), Action: restriction.Action(i % 5)}
			if of.Action == restriction.Drop {
				of.Action = restriction.SkipPerson // so that events go on and meet the other rules
			}
			switch i % 4 {
			case 0:
				of.DistinctIDs = []string{fmt.Sprintf("user-%d", i)}
			case 1:
				of.Events = []string{fmt.Sprintf("event-%d", i), "$pageleave"}
			case 2:
				of.DistinctIDs = []string{fmt.Sprintf("user-%d", i), "bot"}
				of.Events = []string{"$pageview"}
			case 3:
				of.UUIDs = []uuid.UUID{uuid.New()}
			}
			all = append(all, newRule(fromStore, strconv.Itoa(token)+"."+strconv.Itoa(i), of, int64(i)))
		}
	}
	return all
}

// A batch costs no memory, whether rules concern it or not, and wherever the rules come from.
func TestABatchCostsNoAllocationWithManyRules(t *testing.T) {
	stage := newStage(t, someRules)
	stage.publish(func(s *shared) { s.store, s.posthog = newIndex(manyRules()), newIndex(manyRules()) })
	batch := stock(50)
	for _, token := range []string{"phc_other", "phc_concerned", fmt.Sprintf("phc_%040d", 500)} {
		batch.Token = token
		require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = stage.Process(t.Context(), batch) }), token)
	}
	require.Equal(t, 50, batch.Pending())
}

func benchmark(b *testing.B, token string, user string) {
	stage := newStage(b, someRules)
	stage.publish(func(s *shared) { s.store = newIndex(manyRules()) })
	batch := stock(50)
	batch.Token = token
	for i := range batch.Events {
		batch.Events[i].DistinctID, batch.Events[i].UUID = user, uuid.New()
		batch.Events[i].Name = []string{"$pageview", "$autocapture", "order completed", "$identify"}[i%4]
	}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = stage.Process(b.Context(), batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Events)), "ns/event")
}

func BenchmarkTenThousandRules(b *testing.B) {
	token := fmt.Sprintf("phc_%040d", 500)
	b.Run("OfOtherTokens", func(b *testing.B) { benchmark(b, "phc_other", "user") })
	b.Run("OfTheTokenForOtherEvents", func(b *testing.B) { benchmark(b, token, "user") })
	b.Run("OfTheTokenForTheEvent", func(b *testing.B) { benchmark(b, token, "bot") })
}

func BenchmarkMakingTheIndexOfTenThousandRules(b *testing.B) {
	rules := manyRules()
	for b.Loop() {
		newIndex(rules)
	}
}
