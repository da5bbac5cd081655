package route

import (
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// standing returns a limit as a client hears of it in most of these tests.
func standing(change func(*events.Standing)) events.Standing {
	s := events.Standing{
		Resource: events.ResourceEvents, Kind: events.LimitMonth, Limit: 1_000_000, Window: 31 * 24 * time.Hour,
		Remaining: 123, Reset: 456 * time.Second,
	}
	if change != nil {
		change(&s)
	}
	return s
}

// headersOf returns the headers of the answer to a batch that was judged by the limits.
func headersOf(standings ...events.Standing) map[string]string {
	var batch events.Batch
	for _, s := range standings {
		batch.Standings.Add(s)
	}
	headers := map[string]string{}
	for _, field := range (Response{Status: 200}).About(&batch).Header {
		headers[field.Name] = field.Value
	}
	return headers
}

func TestAnAnswerTellsWhereTheProjectStandsWithItsLimits(t *testing.T) {
	rate := standing(func(s *events.Standing) {
		s.Resource, s.Kind, s.Limit, s.Window = events.ResourceRecordings, events.LimitRate, 100, time.Second
		s.Remaining, s.Reset = 4999, time.Millisecond
	})
	require.Equal(t, map[string]string{
		HeaderRateLimit:       `"events-month";r=123;t=456, "recordings-rate";r=4999;t=1`,
		HeaderRateLimitPolicy: `"events-month";q=1000000;w=2678400, "recordings-rate";q=100;w=1`,
	}, headersOf(standing(nil), rate))
}

func TestALimitThatIsReachedIsToldToPeople(t *testing.T) {
	over := standing(func(s *events.Standing) { s.Over, s.Remaining = true, 0 })
	user := standing(func(s *events.Standing) {
		s.Kind, s.Over, s.Limit, s.Window, s.Remaining = events.LimitUserRate, true, 10, time.Minute, 0
	})
	headers := headersOf(over, standing(func(s *events.Standing) { s.Kind = events.LimitDay }), user)
	require.Equal(t, "events-month is reached (1000000 in 2678400s), wait 456s; "+
		"events-user is reached (10 in 60s), wait 456s", headers[HeaderLimits])
	require.Equal(t, `"events-month";r=0;t=456, "events-day";r=123;t=456, "events-user";r=0;t=456`,
		headers[HeaderRateLimit])
}

func TestALimitOfPostHogsHasNoPolicy(t *testing.T) {
	billing := standing(func(s *events.Standing) {
		s.Kind, s.Over, s.Limit, s.Window, s.Remaining = events.LimitBilling, true, 0, 0, 0
	})
	require.Equal(t, map[string]string{
		HeaderRateLimit: `"events-billing";r=0;t=456`,
		HeaderLimits:    "events-billing is reached, wait 456s",
	}, headersOf(billing))
}

func TestAProjectWithoutLimitsCostsNothing(t *testing.T) {
	batch, response := &events.Batch{}, Response{Status: 200}
	require.Empty(t, headersOf())
	require.Zero(t, testing.AllocsPerRun(100, func() { response = response.About(batch) }))
}

// Both headers are lists of strings with integers as parameters, whatever the numbers are.
func TestTheHeadersAreStructuredFields(t *testing.T) {
	item := `"[a-z-]+"(;[a-z]=[0-9]{1,15}){2}`
	list := regexp.MustCompile(`^` + item + `(, ` + item + `)*$`)
	for _, n := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
		var all []events.Standing
		for kind := events.LimitMinute; kind < events.LimitBilling; kind++ {
			all = append(all, standing(func(s *events.Standing) {
				s.Kind, s.Limit, s.Remaining, s.Window, s.Reset = kind, n, n, time.Duration(n), time.Duration(n)
				s.Over = true
			}))
		}
		for name, value := range headersOf(all...) {
			if name != HeaderLimits {
				require.Regexp(t, list, value)
			}
			require.NotContains(t, value, "-9")
			require.Equal(t, len(all)-1, strings.Count(value, "; ")+strings.Count(value, ", \""), value)
		}
	}
	// The response keeps its own headers, and shares them with no other one.
	own := make([]Field, 1, 8)
	own[0] = Field{"ETag", "x"}
	batch := &events.Batch{}
	batch.Standings.Add(standing(nil))
	require.Len(t, Response{Header: own}.About(batch).Header, 3)
	require.Zero(t, own[:2][1])
}

func BenchmarkTheHeadersOfAProjectWithThreeLimits(b *testing.B) {
	batch := &events.Batch{}
	for kind := events.LimitDay; kind <= events.LimitRate; kind++ {
		batch.Standings.Add(standing(func(s *events.Standing) { s.Kind = kind }))
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = Response{Status: 200}.About(batch)
	}
}
