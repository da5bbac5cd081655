package posthog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Section 2.11 of the protocol: the accepted forms.
func TestParseTimeReadsEveryFormOfTheProtocol(t *testing.T) {
	for text, want := range map[string]string{
		"2026-11-23T19:52:25Z":               "2026-11-23T19:52:25Z",
		"2026-11-23T19:52:25.857975+00:00":   "2026-11-23T19:52:25.857975Z",
		"2026-11-23T19:52:25.123456789Z":     "2026-11-23T19:52:25.123456789Z",
		"2026-11-23T19:52:25.1234567891234Z": "2026-11-23T19:52:25.123456789Z",
		"2026-11-23T19:52:25+05:30":          "2026-11-23T14:22:25Z",
		"2026-11-23T19:52:25-03":             "2026-11-23T22:52:25Z",
		"2026-11-23T19:52:25.5+03":           "2026-11-23T16:52:25.5Z",
		"2026-11-23T19:52:25+0300":           "2026-11-23T16:52:25Z",
		"2026-11-23T19:52:25":                "2026-11-23T19:52:25Z",
		"2026-11-23T19:52:25.25":             "2026-11-23T19:52:25.25Z",
		"2026-11-23 19:52:25":                "2026-11-23T19:52:25Z",
		"2026-11-23 19:52:25.857975+00:00":   "2026-11-23T19:52:25.857975Z",
		"2026-11-23":                         "2026-11-23T00:00:00Z",
		"2026/11/23":                         "2026-11-23T00:00:00Z",
		"11/23/2026":                         "2026-11-23T00:00:00Z",
		"2026/11/23 10:00:00":                "2026-11-23T10:00:00Z",
		"Mon, 23 Nov 2026 19:52:25 +0100":    "2026-11-23T18:52:25Z",
		"Mon, 23 Nov 2026 19:52:25 GMT":      "2026-11-23T19:52:25Z",
		"1795463545":                         "2026-11-23T19:52:25Z",
		"1795463545.5":                       "2026-11-23T19:52:25.5Z",
		"1795463545123":                      "2026-11-23T19:52:25.123Z",
		"2024-02-29T00:00:00Z":               "2024-02-29T00:00:00Z",
		" 2026-11-23T19:52:25Z ":             "2026-11-23T19:52:25Z",
		"Fri, 20 Nov 2026 10:00:00 EST":      "2026-11-20T15:00:00Z",
		"20 Nov 2026 10:00:00 GMT":           "2026-11-20T10:00:00Z",
		"20 Nov 2026 10:00 +0200":            "2026-11-20T08:00:00Z",
		"2026-11-20t10:00:00z":               "2026-11-20T10:00:00Z",
		"2026-11-20T10:00:60Z":               "2026-11-20T10:01:00Z",
		"2026-11-20 10:00:00 UTC":            "2026-11-20T10:00:00Z",
	} {
		got, ok := parseTime(text)
		require.True(t, ok, text)
		require.Equal(t, want, got.Format(time.RFC3339Nano), text)
	}
	for _, text := range []string{"", "yesterday", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-11-23T24:00:00Z", "NaN", "1e400", "2026-11-23T19:52:25.Z", "Fri, 20 Nov 2026 10:00:00 XYZ"} {
		_, ok := parseTime(text)
		require.False(t, ok, text)
	}
}

func FuzzParseTime(f *testing.F) {
	f.Add("2026-11-23T19:52:25.857975+00:00")
	f.Add("2026-02-30T19:52:25Z")
	f.Add("2026-11-23T19:52:60-23:59")
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parseRFC3339(text)
		if !ok {
			return
		}
		want, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || !want.Equal(got) {
			t.Fatalf("parseRFC3339(%q) = %v, want %v (%v)", text, got, want, err)
		}
	})
}

// Section 2.11 of the protocol, and section 0 for retries.
func TestEventTimeFollowsTheRules(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	sent := now.Add(-time.Hour) // the client's clock is an hour slow
	stamp := sent.Add(-time.Minute)
	for _, test := range []struct {
		name              string
		clock             clock
		stamp             time.Time
		offset            int64
		hasOffset, ignore bool
		want              time.Time
	}{
		{name: "skew is corrected", clock: clock{now: now, sentAt: sent}, stamp: stamp, want: now.Add(-time.Minute)},
		{name: "without sent_at the timestamp stands", clock: clock{now: now}, stamp: stamp, want: stamp},
		{name: "$ignore_sent_at", clock: clock{now: now, sentAt: sent}, stamp: stamp, ignore: true, want: stamp},
		{name: "nothing: now", clock: clock{now: now, sentAt: sent}, want: now},
		{name: "offset overrides", clock: clock{now: now, sentAt: sent}, stamp: stamp, offset: 1000, hasOffset: true, want: now.Add(-time.Second)},
		{name: "retry: no correction", clock: clock{now: now, sentAt: sent, retried: true}, stamp: stamp, want: stamp},
		{name: "retry: offset from sent_at", clock: clock{now: now, sentAt: sent, retried: true}, offset: 1000, hasOffset: true, want: sent.Add(-time.Second)},
		{name: "offset of centuries", clock: clock{now: now}, offset: 1000 * 365 * 24 * 3_600_000, hasOffset: true, want: now.AddDate(0, 0, -365_000)},
		{name: "offset to before year 0: epoch", clock: clock{now: now}, offset: maxMilliseconds, hasOffset: true, want: time.Unix(0, 0).UTC()},
		{name: "offset ahead: now", clock: clock{now: now}, offset: -maxMilliseconds, hasOffset: true, want: now},
		{name: "skew of centuries", clock: clock{now: now, sentAt: now.AddDate(1000, 0, 0)}, stamp: now.AddDate(1000, 0, -1), want: now.AddDate(0, 0, -1)},
		{name: "too far ahead: now", clock: clock{now: now}, stamp: now.Add(23*time.Hour + 1), want: now},
		{name: "just not too far ahead", clock: clock{now: now}, stamp: now.Add(23 * time.Hour), want: now.Add(23 * time.Hour)},
		{name: "before year 0: epoch", clock: clock{now: now}, stamp: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), want: time.Unix(0, 0).UTC()},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.clock.eventTime(test.stamp, !test.stamp.IsZero(), test.offset, test.hasOffset, test.ignore)
			require.Equal(t, test.want, got)
		})
	}
}
