package routing

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/restriction"
)

func TestTheDefaultsAreValidAndSayNothing(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	require.Empty(t, newPolicy(DefaultConfig()).projects)
}

func TestEveryFaultOfTheSectionIsReported(t *testing.T) {
	err := Config{
		Drop:       []string{"", "phc_a", "phc_a:event=", "phc_a:uuid=1"},
		Overflow:   []string{":user"},
		SkipPerson: []string{"phc_a:"},
		DLQ:        []string{":"},
		Topics: []string{"phc_a", "=t", "phc_a=", "phc_a=has space", "phc_a=..", "phc_b=one", "phc_b=two",
			"phc_b=" + strings.Repeat("t", 250), "phc_b:event=x=one", "phc_b:event=x=two"},
		RulesRefresh: time.Millisecond, RulesStaleAfter: time.Microsecond, OnStoreFailure: "shut",
		HistoricalAfter: -time.Second,
	}.Validate()
	const topic = "must name a topic of 1 to 249 letters, digits, dots, underscores or hyphens, got "
	const form = "must be a token, token:distinct_id, token:event=NAME, token:session=ID or token:uuid=UUID, got "
	require.EqualError(t, err, strings.Join([]string{
		`drop: entry 1 ` + form + `""`,
		`drop: entry 3 ` + form + `"phc_a:event="`,
		`drop: entry 4 must have a uuid behind uuid=, got "1"`,
		`overflow: entry 1 ` + form + `":user"`,
		`dlq: entry 1 ` + form + `":"`,
		`topics: entry 1 must be token=topic or token:distinct_id=topic, got "phc_a"`,
		`topics: entry 2 ` + form + `""`,
		`topics: entry 3 ` + topic + `""`,
		`topics: entry 4 ` + topic + `"has space"`,
		`topics: entry 5 ` + topic + `".."`,
		`topics: entry 5 gives "phc_a" another topic than an earlier one`,
		`topics: entry 7 gives "phc_b" another topic than an earlier one`,
		`topics: entry 8 ` + topic + `"` + strings.Repeat("t", 250) + `"`,
		`topics: entry 8 gives "phc_b" another topic than an earlier one`,
		`topics: entry 10 gives "phc_b:event=x" another topic than an earlier one`,
		`skip_person: entry 1 ` + form + `"phc_a:"`,
		`rules_refresh: must be from 1s to 1h0m0s, got 1ms`,
		`rules_stale_after: must be from rules_refresh (1ms) to 720h0m0s, got 1µs`,
		`on_store_failure: must be open or closed, got "shut"`,
		`historical_after: must not be negative, got -1s`,
	}, "\n"), err.Error())
}

func TestEntriesNameUsersEventsSessionsAndUUIDs(t *testing.T) {
	id := uuid.MustParse("0190a1b2-0000-7000-8000-000000000001")
	for entry, want := range map[string]restriction.Rule{
		"phc_a":                        {},
		"phc_a:urn:user:1":             {DistinctIDs: []string{"urn:user:1"}},
		"phc_a:a=b:c":                  {DistinctIDs: []string{"a=b:c"}},
		"phc_a:event":                  {DistinctIDs: []string{"event"}},
		"phc_a:distinct_id=event=x":    {DistinctIDs: []string{"event=x"}},
		"phc_a:event=$page view:a=b":   {Events: []string{"$page view:a=b"}},
		"phc_a:session=s-1":            {Sessions: []string{"s-1"}},
		"phc_a:uuid=" + id.String():    {UUIDs: []uuid.UUID{id}},
		"phc_a:users, all of them :-)": {DistinctIDs: []string{"users, all of them :-)"}},
	} {
		want.Token = "phc_a"
		for _, action := range restriction.Actions() {
			text := entry
			if want.Action, want.Topic = action, ""; action == restriction.Topic {
				want.Topic = "vip.events-1_x"
				text += "=" + want.Topic
			}
			got, err := parseEntry(action, text)
			require.NoError(t, err, text)
			require.Equal(t, want, got, text)
		}
	}
}
