package state

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// history makes a judge of requests of one event each, in milliseconds from a quarter second before a full minute.
type history struct {
	judge
	zero time.Time
}

func newHistory() *history {
	return &history{
		judge: judge{copies: map[uuid.UUID]int{}},
		zero:  time.Date(2026, 11, 30, 12, 0, 59, 750e6, time.UTC),
	}
}

func (h *history) add(from, to, copies int, told answer) {
	e := sent{
		id: uuid.New(), token: "a", answer: told, from: h.zero.Add(time.Duration(from) * time.Millisecond),
		to: h.zero.Add(time.Duration(to) * time.Millisecond),
	}
	h.events = append(h.events, e)
	if copies > 0 {
		h.copies[e.id] = copies
	}
}

func TestTheJudgeTellsWhatBecameOfEvents(t *testing.T) {
	t.Parallel()
	h := newHistory()
	h.add(0, 1, 1, accepted)
	h.add(0, 1, 2, accepted)
	h.add(0, 1, 0, accepted)
	h.add(0, 1, 0, limited)
	h.add(0, 1, 0, failed)
	h.add(0, 1, 1, failed)
	h.add(0, 1, 0, unknown)
	h.add(0, 1, 1, unknown)
	v := h.tell("a", events.ResourceEvents)
	require.Equal(t, verdict{passed: 4, inFlight: 1, late: 1, lost: 1, twice: 1}, v)
	require.Equal(t, verdict{}, h.tell("b", events.ResourceEvents))
	require.Equal(t, verdict{}, h.tell("a", events.ResourceRecordings))
	require.Equal(t, "test/project                 limit=x passed=4 over=0 in_flight=1 late=1 lost=1 twice=1!",
		v.line("test", "project", "x", "!"))
}

func TestTheJudgeCountsAnEventInTheWindowThatItMustHaveBeenIn(t *testing.T) {
	t.Parallel()
	quota := events.Quota{Period: events.PerMinute, Limit: 2}
	h := newHistory()
	h.add(0, 100, 1, accepted)
	h.add(0, 100, 1, accepted)
	h.add(240, 260, 1, accepted) // in the old window or in the new one
	h.add(260, 300, 1, accepted)
	h.add(260, 300, 1, accepted)
	require.Zero(t, h.quota("a", quota, time.UTC).over)
	h.add(400, 500, 1, accepted)
	require.EqualValues(t, 1, h.quota("a", quota, time.UTC).over)
	h.add(400, 500, 1, failed)
	require.EqualValues(t, 1, h.quota("a", quota, time.UTC).over, "what was given back does not count")
	h.add(0, 100, 3, unknown)
	require.EqualValues(t, 3, h.quota("a", quota, time.UTC).over)
}

func TestTheJudgeFindsTheTimeInWhichTooMuchPassed(t *testing.T) {
	t.Parallel()
	// One event in ten milliseconds, and three at once.
	rate := events.Rate{Limit: 100, Per: time.Second, Burst: 3}
	h := newHistory()
	for range 3 {
		h.add(0, 5, 1, accepted)
	}
	for i := range 50 {
		h.add(10*i, 10*i+10, 1, accepted)
	}
	require.Zero(t, h.rate("a", rate).over)
	h.add(300, 309, 1, accepted)
	require.EqualValues(t, 1, h.rate("a", rate).over)
	h.add(300, 309, 2, unknown)
	require.EqualValues(t, 3, h.rate("a", rate).over)
}

func TestTheJudgeFindsTheUserOfWhomTooMuchPassed(t *testing.T) {
	t.Parallel()
	// Of each user sixteen at once and one in ten milliseconds, and of each process two and one in eighty beside that.
	rate := events.Rate{Limit: 100, Per: time.Second, Burst: 16}
	h := newHistory()
	add := func(user string, life int64, from, n int) {
		for range n {
			h.add(from, from+1, 1, accepted)
			e := &h.events[len(h.events)-1]
			e.user, e.life = user, life
		}
	}
	add("a", 1, 0, 16)
	add("b", 1, 0, 16)
	add("b", 2, 0, 4)
	require.Zero(t, h.userRate("a", rate).over)
	add("a", 1, 0, 2)
	require.Zero(t, h.userRate("a", rate).over)
	add("a", 1, 0, 1)
	require.EqualValues(t, 1, h.userRate("a", rate).over)
	h.events = nil
	add("a", 1, 0, 18)
	add("a", 2, 0, 2)
	require.Zero(t, h.userRate("a", rate).over, "a second process lets two more pass")
	add("a", 2, 79, 10)
	require.Zero(t, h.userRate("a", rate).over)
	add("a", 2, 79, 1)
	require.EqualValues(t, 1, h.userRate("a", rate).over, "in 80 ms there is room for 8, and one more of each process")
}
