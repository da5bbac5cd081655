package events

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAQuotaIsReadAndWritten(t *testing.T) {
	for text, want := range map[string]Quota{
		"events=1000000/month": {ResourceEvents, PerMonth, 1_000_000},
		"recordings=0/day":     {ResourceRecordings, PerDay, 0},
		"ai=5/minute":          {ResourceAI, PerMinute, 5},
		"logs=7/hour":          {ResourceLogs, PerHour, 7},
	} {
		got, err := ParseQuota(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
		require.Equal(t, text, got.String())
	}
	for text, fault := range map[string]string{
		"":                                "must be RESOURCE=NUMBER/TIME",
		"events":                          "must be RESOURCE=NUMBER/TIME",
		"events=5":                        "must be RESOURCE=NUMBER/TIME",
		"event=5/day":                     "the resource must be one of events, recordings, exceptions, ai,",
		"events=-1/day":                   "must be a whole number that is not negative",
		"events=1e6/day":                  "must be a whole number that is not negative",
		"events=5/week":                   `the period must be one of minute, hour, day, month, got "week"`,
		"events=5/day/hour":               "the period must be one of",
		"events=99999999999999999999/day": "must be a whole number that is not negative",
	} {
		_, err := ParseQuota(text)
		require.ErrorContains(t, err, fault, text)
	}
}

func TestARateIsReadAndWritten(t *testing.T) {
	for text, want := range map[string]Rate{
		"events=100/s":             {ResourceEvents, 100, time.Second, 1000},
		"events=100/s burst=5000":  {ResourceEvents, 100, time.Second, 5000},
		"exceptions=1/h":           {ResourceExceptions, 1, time.Hour, 1},
		"recordings=600/m burst=1": {ResourceRecordings, 600, time.Minute, 1},
	} {
		got, err := ParseRate(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
		again, err := ParseRate(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
	for text, fault := range map[string]string{
		"events=100":                               "must be RESOURCE=NUMBER/TIME",
		"events=100/day":                           "the unit of time must be s, m or h",
		"events=0/s":                               "a rate must not be 0",
		"events=100/s burst":                       "the burst must be a positive whole number",
		"events=100/s burst=0":                     "the burst must be a positive whole number",
		"events=100/s 500":                         "the burst must be a positive whole number",
		"events=2000000000/s":                      "more than one event a nanosecond",
		"events=1/h burst=9000000000000000000":     "the burst is too large",
		"events=9223372036854775807/h burst=1":     "more than one event a nanosecond",
		"events=1/s burst=99999999999999999999999": "the burst must be a positive whole number",
	} {
		_, err := ParseRate(text)
		require.ErrorContains(t, err, fault, text)
	}
	require.Equal(t, 10*time.Millisecond, Rate{Limit: 100, Per: time.Second}.Interval())
}

// The calendar is that of the time's zone, summer time and offsets of half an hour included.
func TestAWindowFollowsTheCalendarOfTheZone(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	kolkata, err := time.LoadLocation("Asia/Kolkata")
	require.NoError(t, err)
	for _, test := range []struct {
		period     Period
		at         string
		zone       *time.Location
		start, end string
	}{
		{PerMonth, "2026-01-31T23:30:00Z", berlin, "2026-01-31T23:00:00Z", "2026-02-28T23:00:00Z"},
		{PerMonth, "2026-12-15T00:00:00Z", time.UTC, "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{PerDay, "2026-03-29T12:00:00Z", berlin, "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{PerDay, "2026-10-25T12:00:00Z", berlin, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		{PerHour, "2026-06-01T10:45:30.5Z", kolkata, "2026-06-01T10:30:00Z", "2026-06-01T11:30:00Z"},
		{PerHour, "2026-10-25T01:30:00Z", berlin, "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"},
		{PerMinute, "2026-06-01T10:45:59.999Z", kolkata, "2026-06-01T10:45:00Z", "2026-06-01T10:46:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, test.at)
		require.NoError(t, err)
		start, end := test.period.Window(at.In(test.zone))
		require.Equal(t, test.start, start.UTC().Format(time.RFC3339Nano), "%s of %s", test.period, test.at)
		require.Equal(t, test.end, end.UTC().Format(time.RFC3339Nano), "%s of %s", test.period, test.at)
	}
}

// In some zones the clocks change at midnight, so that a day has no 0:00, or has it twice. Whatever the zone, a moment
// is in its window, and one day begins where the other ends.
func TestAMomentIsInItsWindowAlsoWhenTheClocksChangeAtMidnight(t *testing.T) {
	for _, name := range []string{
		"America/Santiago", "America/Havana", "America/Asuncion", "America/Nuuk", "America/Scoresbysund",
		"Atlantic/Azores", "Africa/Cairo", "Africa/Casablanca", "Asia/Beirut", "Asia/Gaza", "Australia/Lord_Howe",
		"Europe/Berlin", "Pacific/Apia", "Antarctica/Troll", "UTC",
	} {
		zone, err := time.LoadLocation(name)
		require.NoError(t, err)
		for change := time.Date(2012, 1, 2, 0, 0, 0, 0, zone); !change.IsZero() && change.Year() < 2036; {
			for before := -26 * time.Hour; before < 26*time.Hour; before += 10 * time.Minute {
				at := change.Add(before)
				for _, period := range Periods() {
					start, end := period.Window(at)
					if start.After(at) || !end.After(at) {
						t.Fatalf("%s: %s is not in the %s from %s to %s", name, at, period, start, end)
					}
					if period < PerDay {
						continue
					}
					if next, _ := period.Window(end); !next.Equal(end) {
						t.Fatalf("%s: the %s of %s ends at %s, the next one begins at %s", name, period, at, end, next)
					}
					if start.Add(-time.Nanosecond).Day() == start.Day() || start.Month() != at.Month() {
						t.Fatalf("%s: the %s of %s begins at %s", name, period, at, start)
					}
				}
			}
			_, change = change.ZoneBounds()
		}
	}
}

func TestTheWaysOverARateHaveNames(t *testing.T) {
	for over := range overCount {
		got, err := ParseOver(over.String())
		require.NoError(t, err)
		require.Equal(t, over, got)
	}
	_, err := ParseOver("ignore")
	require.ErrorContains(t, err, "must be one of overflow, drop, reject")
	for _, resource := range Resources() {
		got, err := ParseResource(resource.String())
		require.NoError(t, err)
		require.Equal(t, resource, got)
	}
}

func TestEveryEventBelongsToOneResource(t *testing.T) {
	t.Parallel()
	tour := Raw{Properties: []byte(`{"$product_tour_id":"t1"}`)}
	for _, test := range []struct {
		event Event
		want  Resource
	}{
		{Event{Name: "$pageview"}, ResourceEvents},
		{Event{Name: "old", Lane: LaneHistorical}, ResourceEvents},
		{Event{Name: "$$heatmap", Lane: LaneHeatmaps}, ResourceEvents},
		{Event{Name: "$snapshot", Lane: LaneRecordings}, ResourceRecordings},
		{Event{Name: "$exception", Lane: LaneExceptions}, ResourceExceptions},
		{Event{Name: "$exception"}, ResourceExceptions},
		{Event{Name: "$ai_generation", Lane: LaneAI}, ResourceAI},
		{Event{Name: "$ai_feedback"}, ResourceAI},
		{Event{Name: "line", Lane: LaneLogs}, ResourceLogs},
		{Event{Name: "survey sent"}, ResourceSurveys},
		{Event{Name: "survey shown"}, ResourceSurveys},
		{Event{Name: "survey dismissed"}, ResourceSurveys},
		{Event{Name: "survey dismissed", Raw: tour}, ResourceEvents},
		{Event{Name: "survey closed"}, ResourceEvents},
	} {
		require.Equal(t, test.want, test.event.Resource(), "%s in %s", test.event.Name, test.event.Lane)
	}
}
