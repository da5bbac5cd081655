package restriction_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
)

func TestEveryFieldIsReadAndWritten(t *testing.T) {
	fields := store.Fields{
		"token": "phc_a", "action": "topic", "topic": "vip_events", "distinct_ids": `alice, "a, b", "\"q\" \\"`,
		"events": "$pageview, sign up", "sessions": "0190-s", "expires": "2026-12-31T18:00:00+01:00",
		"uuids": "0190a1b2-0000-7000-8000-000000000001", "comment": "for the café",
	}
	rule, err := restriction.Parse(fields)
	require.NoError(t, err)
	require.Equal(t, restriction.Rule{
		Token: "phc_a", Action: restriction.Topic, Topic: "vip_events",
		DistinctIDs: []string{"alice", "a, b", `"q" \`}, Events: []string{"$pageview", "sign up"},
		Sessions: []string{"0190-s"}, UUIDs: []uuid.UUID{uuid.MustParse("0190a1b2-0000-7000-8000-000000000001")},
		Expires: rule.Expires, Comment: "for the café",
	}, rule)
	require.True(t, rule.Expires.Equal(time.Date(2026, 12, 31, 17, 0, 0, 0, time.UTC)))
	require.Equal(t, fields, rule.Fields())
	require.NoError(t, rule.CheckTopic([]string{"a", "vip_events"}))
	require.EqualError(t, rule.CheckTopic([]string{"a"}),
		`topic: "vip_events" is none of kafka.topics: add it to kafka.topics.custom`)
}

func TestEveryFaultIsToldWithItsField(t *testing.T) {
	for _, test := range []struct {
		fields store.Fields
		faults []string
	}{
		{nil, []string{
			"token: must be given: the token of the project whose events the rule concerns",
			"action: must be given: one of drop, overflow, dlq, topic, skip_person",
		}},
		{store.Fields{"token": "phx_1", "action": "delete", "tpoic": "t", "x\x1b": "1"}, []string{
			`"tpoic": is no field of a rule: did you mean topic?`,
			`"x\x1b": is no field of a rule: the fields are token, action, topic, distinct_ids, events, sessions, ` +
				`uuids, expires, comment`,
			"token: cannot be the token of a project (personal_api_key): no event has it",
			`action: must be one of drop, overflow, dlq, topic, skip_person, got "delete"`,
		}},
		{store.Fields{"token": "t", "action": "topic"}, []string{
			`topic: must be 1 to 249 letters, digits, dots, underscores or hyphens, got ""`,
		}},
		{store.Fields{"token": "t", "action": "drop", "topic": "vip"}, []string{"topic: needs the action topic"}},
		{store.Fields{
			"token": "t", "action": "drop", "distinct_ids": strings.Repeat("ä", 201), "events": `"open`,
			"sessions": "a,,b", "uuids": "1", "expires": "tomorrow", "comment": "a\nb",
		}, []string{
			`events: entry 1 has no closing quote: in quotes, write \" for a quote and \\ for a backslash`,
			"sessions: entry 2 is empty: separate the entries by one comma",
			`uuids: entry 1 must be a uuid, got "1"`,
			`expires: must be a time as of RFC 3339, such as 2026-12-31T18:00:00Z, got "tomorrow"`,
			`comment: must be text without control characters, got "a\nb"`,
			"distinct_ids: entry 1 is longer than 200 characters, to which distinct_ids are cut: no event has it",
		}},
		{store.Fields{
			"token": "t", "action": "drop", "distinct_ids": `"a" b`, "events": "a,", "sessions": "\xff",
			"comment": strings.Repeat("c", 1001),
		}, []string{
			"distinct_ids: entry 1 goes on behind its quotes: separate the entries by one comma",
			"events: entry 2 is empty: leave out the last comma",
			"sessions: entry 1 is not UTF-8",
			"comment: must have at most 1000 bytes, got 1001",
		}},
		{store.Fields{
			"token": "t", "action": "drop", "events": strings.Repeat("e", 1001),
			"sessions": strings.TrimSuffix(strings.Repeat("s,", 1001), ","),
		}, []string{
			"events: entry 1 must have at most 1000 bytes, got 1001",
			"sessions: must have at most 1000 entries, got 1001: make several rules of it",
		}},
	} {
		_, err := restriction.Parse(test.fields)
		require.EqualError(t, err, strings.Join(test.faults, "\n"), "%q", test.fields)
	}
}

func TestAnExpiryIsKeptToTheNanosecondAndIsNeverTheZeroTime(t *testing.T) {
	fields := store.Fields{"token": "t", "action": "drop", "expires": "2026-12-31T18:00:00.123456789Z"}
	rule, err := restriction.Parse(fields)
	require.NoError(t, err)
	require.Equal(t, fields, rule.Fields())
	_, err = restriction.Parse(store.Fields{"token": "t", "action": "drop", "expires": "0001-01-01T00:00:00Z"})
	require.ErrorContains(t, err, "expires: must be a time", "it would stand for never")
}

func TestADistinctIDIsMeasuredInCharacters(t *testing.T) {
	_, err := restriction.Parse(store.Fields{"token": "t", "action": "drop", "distinct_ids": strings.Repeat("ä", 200)})
	require.NoError(t, err)
}

func TestNamesAreSafeInLogsAndHeaders(t *testing.T) {
	for _, name := range []string{"a", "no-spam.2026_11", strings.Repeat("n", 64)} {
		require.NoError(t, restriction.CheckName(name))
	}
	for _, name := range []string{"", "a b", "ä", "a\nb", "a/b", "a{b}", strings.Repeat("n", 65)} {
		require.ErrorContains(t, restriction.CheckName(name), "the name of a rule must be 1 to 64 letters", "%q", name)
	}
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	text := rapid.StringMatching(`[ ,"\\a\nä$]{0,6}x[ ,"\\a\nä$]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		rule := restriction.Rule{
			Token: rapid.StringMatching(`[!-~]{1,64}`).Filter(func(s string) bool {
				return !strings.HasPrefix(s, "phx_")
			}).Draw(t, "token"),
			Action:      rapid.SampledFrom(restriction.Actions()).Draw(t, "action"),
			DistinctIDs: rapid.SliceOfN(text, 0, 4).Draw(t, "distinct_ids"),
			Events:      rapid.SliceOfN(text, 0, 4).Draw(t, "events"),
			Sessions:    rapid.SliceOfN(text, 0, 4).Draw(t, "sessions"),
			Comment:     rapid.StringMatching(`(a[ a"']{0,9}a)?`).Draw(t, "comment"),
		}
		if rule.Action == restriction.Topic {
			rule.Topic = rapid.StringMatching(`[a-z_-]{1,20}`).Draw(t, "topic")
		}
		if seconds := rapid.Int64Range(0, 1<<32).Draw(t, "expires"); seconds > 0 {
			rule.Expires = time.Unix(seconds, 0).UTC()
		}
		for range rapid.IntRange(0, 3).Draw(t, "uuids") {
			rule.UUIDs = append(rule.UUIDs, uuid.New())
		}
		fields := rule.Fields()
		got, err := restriction.Parse(fields)
		require.NoError(t, err, "%q", fields)
		require.Equal(t, fmt.Sprint(rule), fmt.Sprint(got))
		require.Equal(t, fields, got.Fields())
	})
}

func TestAnyTextIsReadOrRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fields := store.Fields{"token": "phc_a", "action": "drop"}
		for _, field := range []string{"distinct_ids", "events", "sessions", "uuids", "expires", "comment", "topic"} {
			fields[field] = rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[",\\ a]{0,12}`),
				rapid.String()).Draw(t, field)
		}
		rule, err := restriction.Parse(fields)
		if err != nil {
			require.Zero(t, rule)
			return
		}
		again, err := restriction.Parse(rule.Fields())
		require.NoError(t, err)
		require.Equal(t, rule, again)
	})
}

func TestTheDocumentationHasTheFields(t *testing.T) {
	text, err := os.ReadFile("../../docs/restrictions.md")
	require.NoError(t, err)
	var table strings.Builder
	table.WriteString("| field | meaning |\n|---|---|\n")
	for _, field := range restriction.Reference() {
		fmt.Fprintf(&table, "| `%s` | %s |\n", field.Name, field.About)
	}
	require.Contains(t, string(text), table.String(), "docs/restrictions.md is to have this table:\n%s", table.String())
}
