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
	for _, text := range []string{"", "yesterday", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z",
		"2026-11-23T24:00:00Z", "NaN", "1e400", "2026-11-23T19:52:25.Z", "Fri, 20 Nov 2026 10:00:00 XYZ"} {
		_, ok := parseTime(text)
		require.False(t, ok, text)
	}
}

// FuzzParseTime compares the parser with the library: what the library takes for a time is the same time here, and
// every time is in UTC.
func FuzzParseTime(f *testing.F) {
	f.Add("2026-11-23T19:52:25.857975+00:00")
	f.Add("2026-02-30T19:52:25Z")
	f.Add("2026-11-23T19:52:60-23:59")
	f.Add("Mon, 23 Nov 2026 19:52:25 GMT")
	f.Add("1795463545.5")
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parseTime(text)
		if ok && got.Location() != time.UTC {
			t.Fatalf("parseTime(%q) = %v", text, got)
		}
		if want, err := time.Parse(time.RFC3339Nano, text); err == nil && len(text) <= maxTime &&
			(!ok || !want.Equal(got)) {
			t.Fatalf("parseTime(%q) = %v %t, want %v", text, got, ok, want)
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
		clock             Clock
		stamp             time.Time
		offset            int64
		hasOffset, ignore bool
		want              time.Time
	}{
		{name: "skew is corrected", clock: Clock{Now: now, SentAt: sent}, stamp: stamp, want: now.Add(-time.Minute)},
		{name: "without sent_at the timestamp stands", clock: Clock{Now: now}, stamp: stamp, want: stamp},
		{name: "$ignore_sent_at", clock: Clock{Now: now, SentAt: sent}, stamp: stamp, ignore: true, want: stamp},
		{name: "nothing: now", clock: Clock{Now: now, SentAt: sent}, want: now},
		{name: "offset overrides", clock: Clock{Now: now, SentAt: sent}, stamp: stamp, offset: 1000, hasOffset: true,
			want: now.Add(-time.Second)},
		{name: "retry: no correction", clock: Clock{Now: now, SentAt: sent, Retried: true}, stamp: stamp, want: stamp},
		{name: "retry: offset from sent_at", clock: Clock{Now: now, SentAt: sent, Retried: true}, offset: 1000,
			hasOffset: true, want: sent.Add(-time.Second)},
		{name: "offset of centuries", clock: Clock{Now: now}, offset: 1000 * 365 * 24 * 3_600_000, hasOffset: true,
			want: now.AddDate(0, 0, -365_000)},
		{name: "offset to before year 0: epoch", clock: Clock{Now: now}, offset: maxMilliseconds, hasOffset: true,
			want: time.Unix(0, 0).UTC()},
		{name: "offset ahead: now", clock: Clock{Now: now}, offset: -maxMilliseconds, hasOffset: true, want: now},
		{name: "skew of centuries", clock: Clock{Now: now, SentAt: now.AddDate(1000, 0, 0)},
			stamp: now.AddDate(1000, 0, -1), want: now.AddDate(0, 0, -1)},
		{name: "too far ahead: now", clock: Clock{Now: now}, stamp: now.Add(23*time.Hour + 1), want: now},
		{name: "just not too far ahead", clock: Clock{Now: now}, stamp: now.Add(23 * time.Hour),
			want: now.Add(23 * time.Hour)},
		{name: "before year 0: epoch", clock: Clock{Now: now}, stamp: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC),
			want: time.Unix(0, 0).UTC()},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.clock.eventTime(test.stamp, !test.stamp.IsZero(), test.offset, test.hasOffset, test.ignore)
			require.Equal(t, test.want, got)
		})
	}
}
