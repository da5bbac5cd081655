package sdk

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// example is a script of two users, and example.stored what lies in Kafka if all goes well.
func example(t *testing.T) (script, []stored) {
	t.Helper()
	s, err := readScript([]byte(`{"user":"ann","event":"opened","id":"1"}
{"user":"bob","event":"opened","id":"2"}
{"user":"ann","event":"$create_alias","id":""}
{"user":"ann","event":"closed","id":"3"}
{"auto":"$feature_flag_called","min":1}
{"user":"ann","event":"$exception","id":"4"}
{"user":"ann","event":"closed","id":"5"}
`))
	require.NoError(t, err)
	return s, []stored{
		{told{"ann", "opened", "1"}, "events", 3},
		{told{"ann", "$create_alias", ""}, "events", 3},
		{told{"ann", "closed", "3"}, "events", 3},
		{told{"ann", "$feature_flag_called", ""}, "events", 3},
		{told{"ann", "closed", "5"}, "events", 3},
		{told{"bob", "opened", "2"}, "events", 1},
		{told{"ann", "$exception", "4"}, "exceptions", 0},
	}
}

func TestACompleteScriptHasNoFault(t *testing.T) {
	s, messages := example(t)
	require.Equal(t, result{sent: 6, kafka: 6, auto: 1}, compare(s, messages))
}

func TestWhatIsWrongInKafkaIsFound(t *testing.T) {
	swap := func(m []stored, i, j int) []stored {
		m[i], m[j] = m[j], m[i]
		return m
	}
	without := func(m []stored, i int) []stored { return append(m[:i:i], m[i+1:]...) }
	for name, test := range map[string]struct {
		change func([]stored) []stored
		want   result
	}{
		"an event is missing": {
			func(m []stored) []stored { return without(m, 2) },
			result{kafka: 5, auto: 1, faults: []string{`closed of ann (id "3"): missing`}},
		},
		"an event without id is missing": {
			func(m []stored) []stored { return without(m, 1) },
			result{kafka: 5, auto: 1, faults: []string{`$create_alias of ann (id ""): missing`}},
		},
		"an event is there twice": {
			func(m []stored) []stored { return append(m, m[5]) },
			result{
				kafka: 7, auto: 1, duplicates: 1, faults: []string{`opened of bob (id "2") in events: copy number 2`},
			},
		},
		"an event without id is there twice": {
			func(m []stored) []stored { return append(m, m[1]) },
			result{
				kafka: 7, auto: 1, duplicates: 1,
				faults: []string{`$create_alias of ann (id "") in events: copy number 2`},
			},
		},
		"an event is in another topic as well": {
			func(m []stored) []stored { return append(m, stored{m[0].told, "events_overflow", 0}) },
			result{
				kafka: 7, auto: 1, duplicates: 1,
				faults: []string{`opened of ann (id "1") in events_overflow: copy number 2`},
			},
		},
		"two events of a user are out of order": {
			func(m []stored) []stored { return swap(m, 2, 4) },
			result{
				kafka: 6, auto: 1, misordered: 1,
				faults: []string{`closed of ann (id "3") in events: behind closed (id "5"), which was told later`},
			},
		},
		"an event without id is out of order": {
			func(m []stored) []stored { return swap(m, 0, 1) },
			result{
				kafka: 6, auto: 1, misordered: 1,
				faults: []string{
					`opened of ann (id "1") in events: behind $create_alias (id ""), which was told later`,
				},
			},
		},
		"the events of a user are in two partitions": {
			func(m []stored) []stored { m[4].partition = 4; return m },
			result{
				kafka: 6, auto: 1, misordered: 1,
				faults: []string{`closed of ann (id "5") in events: in partition 4, but the ` +
					`user's events before it in 3`},
			},
		},
		"an event has another user": {
			func(m []stored) []stored { m[5].User = "ann"; return m },
			result{kafka: 6, auto: 1, faults: []string{`opened of bob (id "2") has become opened of ann`}},
		},
		"an event has another name": {
			func(m []stored) []stored { m[5].Event = "$identify"; return m },
			result{kafka: 6, auto: 1, faults: []string{`opened of bob (id "2") has become $identify of bob`}},
		},
		"what the SDK sends of its own accord is missing": {
			func(m []stored) []stored { return without(m, 3) },
			result{kafka: 6, faults: []string{"$feature_flag_called, which the SDK sends of its own accord: at " +
				"least 1 must arrive, 0 did"}},
		},
		"an event is there that nobody announced": {
			func(m []stored) []stored { return append(m, stored{told{"eve", "opened", ""}, "events", 1}) },
			result{kafka: 6, auto: 1, faults: []string{`opened of eve (id "") in events: nobody ` +
				`has told or announced it`}},
		},
		"an event has an id that was not told": {
			func(m []stored) []stored { return append(m, stored{told{"ann", "opened", "9"}, "events", 3}) },
			result{kafka: 6, auto: 1, faults: []string{`opened of ann (id "9") in events: nobody ` +
				`has told or announced it`}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, messages := example(t)
			test.want.sent = 6
			require.Equal(t, test.want, compare(s, test.change(messages)))
		})
	}
}

func TestADriverMustKeepToItsFormat(t *testing.T) {
	for name, output := range map[string]string{
		"something else than JSON": "Flushing...",
		"a line without event":     `{"user":"ann","id":"1"}`,
		"a line without user":      `{"event":"opened","id":"1"}`,
		"an id twice": `{"user":"ann","event":"opened","id":"1"}` + "\n" +
			`{"user":"ann","event":"closed","id":"1"}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readScript([]byte(output))
			require.ErrorContains(t, err, "the driver printed")
		})
	}
}
