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

// The server refuses, hangs up and cuts answers off in turns. The history must hold exactly the batches that the server
// has acknowledged.
func TestLoadSendsABatchUntilItIsAcknowledged(t *testing.T) {
	var (
		mu       sync.Mutex
		requests int
		acked    = map[string]int{}
		refused  int
		cut      int
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Batch []struct{ UUID string }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			panic(err)
		}
		mu.Lock()
		defer mu.Unlock()
		requests++
		switch requests % 8 {
		case 2:
			refused++
			w.WriteHeader(http.StatusServiceUnavailable)
		case 4:
			cut++
			panic(http.ErrAbortHandler)
		case 6:
			cut++
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("x"))
		default:
			for _, event := range body.Batch {
				acked[event.UUID]++
			}
			w.Header().Set(AckHeader, "spool")
		}
	}))
	defer server.Close()

	shape := Shape{Workers: 4, Keys: 2, PerKey: 3}
	load := StartLoad(server.URL, shape, 0)
	require.Eventually(t, func() bool { return load.Acked() > 400 && load.Refused() > 0 },
		2*time.Minute, time.Millisecond)
	history := load.Stop()
	server.Close() // It waits for its handlers.
	mu.Lock()
	defer mu.Unlock()

	require.Equal(t, len(acked), history.Acked())
	require.Equal(t, refused, history.Refused)
	require.Equal(t, cut, history.Unanswered)
	attempts := 0
	for worker, batches := range history.Batches {
		for i, batch := range batches {
			require.Equal(t, "spool", batch.Ack)
			require.Positive(t, batch.Latency)
			attempts += batch.Attempts
			for number := i * shape.PerKey; number < (i+1)*shape.PerKey; number++ {
				for key := range shape.Keys {
					e := Event{Load: history.ID, Worker: worker, Key: key, Number: number}
					require.Equal(t, 1, acked[e.UUID().String()], "%+v", e)
				}
			}
		}
	}
	require.LessOrEqual(t, attempts, requests)
	require.Greater(t, attempts, len(acked)/shape.Size())
}

func TestLoadKeepsItsRate(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	started := time.Now()
	load := StartLoad(server.URL, Shape{Workers: 4, Keys: 1, PerKey: 5}, 1000)
	require.Eventually(t, func() bool { return load.Acked() >= 300 }, 2*time.Minute, time.Millisecond)
	// The load is no faster than it should be. A busy machine may make it slower.
	require.GreaterOrEqual(t, time.Since(started), 250*time.Millisecond)
	load.Stop()
}
