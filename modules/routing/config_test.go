package routing

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheDefaultsAreValidAndSayNothing(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	require.Empty(t, newPolicy(DefaultConfig()).projects)
}

func TestEveryFaultOfTheSectionIsReported(t *testing.T) {
	err := Config{
		Drop:       []string{"", "phc_a"},
		Overflow:   []string{":user"},
		SkipPerson: []string{"phc_a:"},
		DLQ:        []string{":"},
		Topics: []string{"phc_a", "=t", "phc_a=", "phc_a=has space", "phc_a=..", "phc_b=one", "phc_b=two",
			"phc_b=" + strings.Repeat("t", 250)},
		HistoricalAfter: -time.Second,
	}.Validate()
	const topic = "must name a topic of 1 to 249 letters, digits, dots, underscores or hyphens, got "
	require.EqualError(t, err, strings.Join([]string{
		`drop: entry 1 must be a token or token:distinct_id, got ""`,
		`overflow: entry 1 must be a token or token:distinct_id, got ":user"`,
		`skip_person: entry 1 must be a token or token:distinct_id, got "phc_a:"`,
		`dlq: entry 1 must be a token or token:distinct_id, got ":"`,
		`topics: entry 1 must be token=topic or token:distinct_id=topic, got "phc_a"`,
		`topics: entry 2 must be a token or token:distinct_id, got ""`,
		`topics: entry 3 ` + topic + `""`,
		`topics: entry 4 ` + topic + `"has space"`,
		`topics: entry 4 gives "phc_a" another topic than an earlier one`,
		`topics: entry 5 ` + topic + `".."`,
		`topics: entry 5 gives "phc_a" another topic than an earlier one`,
		`topics: entry 7 gives "phc_b" another topic than an earlier one`,
		`topics: entry 8 ` + topic + `"` + strings.Repeat("t", 250) + `"`,
		`topics: entry 8 gives "phc_b" another topic than an earlier one`,
		`historical_after: must not be negative, got -1s`,
	}, "\n"), err.Error())
}

func TestADistinctIDMayHoldColonsAndEqualsSigns(t *testing.T) {
	cfg := Config{Drop: []string{"phc_a:urn:user:1"}, Topics: []string{"phc_a:a=b:c=vip.events-1_x"}}
	require.NoError(t, cfg.Validate())
	project := newPolicy(cfg).projects["phc_a"]
	require.True(t, project.users["urn:user:1"].drop)
	require.Equal(t, "vip.events-1_x", project.users["a=b:c"].topic)
}
