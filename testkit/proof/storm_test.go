package proof

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Two services share what they have stored. The second one never answers.
func TestAStormSendsEachBatchToBothServicesUntilOneAcknowledges(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := [2]map[string]int{{}, {}}
	var urls [2]string
	for node := range urls {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var body struct {
				Batch []struct{ UUID string }
			}
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				panic(http.ErrAbortHandler) // the client has hung up
			}
			mu.Lock()
			for _, event := range body.Batch {
				seen[node][event.UUID]++
			}
			mu.Unlock()
			if node == 1 {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set(AckHeader, "kafka")
		}))
		defer server.Close()
		urls[node] = server.URL
	}
	storm := StartStorm(urls, Shape{Workers: 2, Keys: 2, PerKey: 2}, 0)
	flows := func() {
		goal := storm.Acked() + 200
		require.Eventually(t, func() bool { return storm.Acked() > goal }, 2*time.Minute, time.Millisecond)
	}
	flows()
	kill := Kill{Node: 1, From: time.Now(), To: time.Now().Add(time.Millisecond)}
	storm.Killed(kill)
	flows()
	history := storm.Stop()
	caught, acked := 0, 0
	mu.Lock()
	defer mu.Unlock()
	for worker, batches := range history.Batches {
		for number, batch := range batches {
			acked += history.Size()
			require.GreaterOrEqual(t, batch.Attempts, stormCopies)
			require.Equal(t, "kafka", batch.Ack)
			require.Len(t, batch.sent, batch.Attempts)
			id := Event{Load: history.ID, Worker: worker, Number: number * history.PerKey}.UUID().String()
			require.Positive(t, seen[0][id])
			had := false
			for _, attempt := range batch.sent {
				had = had || attempt.Node == 1 && attempt.From.Before(kill.To) &&
					attempt.To.After(kill.From.Add(-abandoned))
			}
			require.Equal(t, had, batch.Caught)
			if batch.Caught {
				caught++
			}
		}
	}
	require.Equal(t, history.Acked(), acked)
	require.Positive(t, caught)
	require.Less(t, caught, acked/history.Size())
	require.Positive(t, history.Unanswered)
}

func TestAnAttemptIsCaughtByTheKillOfItsService(t *testing.T) {
	t.Parallel()
	zero := time.Now()
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	kill := Kill{Node: 1, From: at(1000), To: at(1010)}
	for _, c := range []struct {
		node, from, to, status int
		want                   bool
	}{
		{1, 900, 999, 200, false}, {1, 900, 1001, 200, true}, {1, 900, 1005, 503, true},
		{1, 900, 999, 0, true}, {1, -4002, -4001, 0, false}, {1, -4002, -3999, 0, true},
		{1, 1005, 1020, 0, true}, {1, 1011, 1020, 0, false}, {0, 900, 1005, 0, false},
	} {
		a := Attempt{Node: c.node, From: at(c.from), To: at(c.to), Status: c.status}
		require.Equal(t, c.want, a.caught(kill), "%+v", c)
	}
}

func TestTheVerdictTellsWhichDuplicatesAKilledServiceHad(t *testing.T) {
	t.Parallel()
	history := NewHistory(Shape{Workers: 1, Keys: 1, PerKey: 1})
	history.Batches[0] = []Batch{{Attempts: 3}, {Attempts: 3, Caught: true}}
	judge := NewJudge(history)
	for number, copies := range []int{2, 3} {
		e := Event{Load: history.ID, Number: number}
		for offset := range copies {
			value := []byte(`{"uuid":"` + e.UUID().String() + `","data":"` +
				`{\"properties\":{\"n\":` + string(rune('0'+number)) + `,\"pad\":\"\"}}"}`)
			judge.See(Copy{ID: []byte(e.UUID().String()), Value: value, Topic: "t", Offset: int64(10*number + offset)})
		}
	}
	v := judge.Verdict()
	require.Equal(t, 3, v.Duplicated)
	require.Equal(t, 2, v.Caught)
	require.Zero(t, v.Mangled+v.Lost+v.Reordered)
	require.Contains(t, v.Line("x"), "duplicated=3")
	require.Contains(t, v.Line("x"), " caught=2")
}
