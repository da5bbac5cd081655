package proof

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Storm is a load of clients that do not wait: they send every batch three times at once, to two services, and hang up
// on some of the requests. They do so until at least one of the requests is answered 200.
type Storm struct {
	*Load

	urls  [2]string
	mu    sync.Mutex
	kills []Kill
}

// Kill is when a service was killed: From is before the signal, To when the process was gone.
type Kill struct {
	Node     int
	From, To time.Time
}

const (
	// stormCopies is how often a batch is sent at once.
	stormCopies = 3
	// hangUps is the part of the requests whose client hangs up, within hangUpWithin.
	hangUps      = 0.2
	hangUpWithin = 15 * time.Millisecond
	// abandoned is how long a service may go on with a request whose client has hung up.
	abandoned = 5 * time.Second
)

// StartStorm starts a storm on two services. The arguments are those of StartLoad.
func StartStorm(urls [2]string, shape Shape, rate float64, heard ...*Answers) *Storm {
	s := &Storm{Load: newLoad(shape, rate, heard...), urls: urls}
	s.client.Transport = &http.Transport{MaxIdleConnsPerHost: stormCopies * shape.Workers}
	s.attempt = s.sendAll
	s.start()
	return s
}

// sendAll sends a batch to both services at once, to one of them twice, and returns when all requests have ended.
func (s *Storm) sendAll(body []byte, batch *Batch) (acked bool) {
	first := rand.IntN(len(s.urls))
	var attempts [stormCopies]Attempt
	var all sync.WaitGroup
	for i := range attempts {
		node := (first + i) % len(s.urls)
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if rand.Float64() < hangUps {
			ctx, cancel = context.WithTimeout(ctx, rand.N(hangUpWithin))
		}
		all.Go(func() {
			defer cancel()
			attempts[i] = s.send(ctx, s.urls[node], body)
			attempts[i].Node = node
		})
	}
	all.Wait()
	batch.Attempts += len(attempts) - 1
	batch.sent = append(batch.sent, attempts[:]...)
	for _, attempt := range attempts {
		if s.note(attempt, batch) {
			acked = true
		}
	}
	return acked
}

// Killed tells the storm that a service was killed.
func (s *Storm) Killed(kill Kill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kills = append(s.kills, kill)
}

// Stop ends the storm as Load.Stop does. The history says which batches a killed service had.
func (s *Storm) Stop() *History {
	history := s.Load.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, batches := range history.Batches {
		for i := range batches {
			for _, attempt := range batches[i].sent {
				for _, kill := range s.kills {
					batches[i].Caught = batches[i].Caught || attempt.caught(kill)
				}
			}
		}
	}
	return history
}

// caught reports whether the service had the attempt when it was killed. It may have had one that was not answered,
// whose client hung up shortly before. It had none that was answered before: the store may not know of that answer yet,
// but it keeps the reservation for longer than the other attempts wait (dedup.lease, dedup.wait).
func (a Attempt) caught(kill Kill) bool {
	end := a.To
	if a.Status == 0 {
		end = end.Add(abandoned)
	}
	return a.Node == kill.Node && a.From.Before(kill.To) && end.After(kill.From)
}
