package proof

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The server holds the first request up. The batches that are due meanwhile are sent later, and their latencies count
// from the times at which they were due.
func TestAPaceCountsTheTimeForWhichItWasHeldUp(t *testing.T) {
	var requests atomic.Int64
	held := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			<-held
		}
		w.WriteHeader(http.StatusTeapot)
	}))
	defer server.Close()
	begin := time.Now()
	pace := StartPace(Shape{Workers: 1, Keys: 1, PerKey: 2}, 2000, func(worker, number int) Target {
		assert.Zero(t, worker)
		return Target{URL: server.URL, Token: "phc_a"}
	})
	require.Eventually(t, func() bool { return requests.Load() == 1 && time.Since(begin) > 50*time.Millisecond },
		time.Minute, time.Millisecond)
	close(held)
	require.Eventually(t, func() bool { return len(pace.Answers()) >= 20 }, time.Minute, time.Millisecond)
	pace.Stop()
	answers := pace.Answers()
	for i, a := range answers[1:] {
		require.InDelta(t, time.Millisecond, a.Due.Sub(answers[i].Due), float64(time.Microsecond), "none is left out")
	}
	for _, a := range answers[:20] {
		require.Equal(t, http.StatusTeapot, a.Status)
		require.Greater(t, a.At.Sub(a.Due), 20*time.Millisecond, "it has waited")
	}
}

// The batches of all workers are due one after the other.
func TestAPaceSharesTheTimeAmongItsWorkers(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	const workers, rounds = 4, 3
	pace := StartPace(Shape{Workers: workers, Keys: 1, PerKey: 2}, 2000, func(int, int) Target {
		return Target{URL: server.URL, Token: "phc_a"}
	})
	var due []time.Time
	begun := func() bool {
		due = due[:0]
		for _, a := range pace.Answers() {
			due = append(due, a.Due)
		}
		slices.SortFunc(due, time.Time.Compare)
		for i := 1; i < min(len(due), workers*rounds); i++ {
			if due[i].Sub(due[i-1]) > 1500*time.Microsecond {
				return false // the one between them has no answer yet
			}
		}
		return len(due) >= workers*rounds
	}
	require.Eventually(t, begun, time.Minute, time.Millisecond)
	pace.Stop()
	for i := 1; i < workers*rounds; i++ {
		require.InDelta(t, time.Millisecond, due[i].Sub(due[i-1]), float64(time.Microsecond))
	}
}
