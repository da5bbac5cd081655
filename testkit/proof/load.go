package proof

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// AckHeader is the header in which an answer says where the events are.
	AckHeader = "X-Capture-Ack"
	// answerTimeout is how long a worker waits for an answer. The service must answer much earlier.
	answerTimeout = 2 * time.Minute
	// pause is how long a worker waits before it sends a batch again.
	pause = 100 * time.Millisecond
)

// Load sends events as an SDK does. Each worker sends a batch until it is acknowledged, and then the next batch.
type Load struct {
	// attempt sends a batch once, or in a storm several times at once. It reports whether the batch was acknowledged.
	attempt func(body []byte, batch *Batch) bool
	rate    float64
	history *History
	client  *http.Client
	stop    chan struct{}
	workers sync.WaitGroup
	heard   []*Answers
	// gate is read-locked by each worker from its first attempt to send a batch until the batch is acknowledged.
	gate sync.RWMutex

	acked, refused, unanswered atomic.Int64
}

// StartLoad starts a load on the service at url. rate is in events per second, over all workers. With rate 0 each
// worker sends as soon as it has an answer. A worker that was held up does not catch up. Each of heard is told every
// answer.
func StartLoad(url string, shape Shape, rate float64, heard ...*Answers) *Load {
	l := newLoad(shape, rate, heard...)
	l.attempt = func(body []byte, batch *Batch) bool {
		answer := l.send(context.Background(), url, body)
		return l.note(answer, batch)
	}
	l.start()
	return l
}

func newLoad(shape Shape, rate float64, heard ...*Answers) *Load {
	return &Load{
		rate: rate, history: NewHistory(shape), stop: make(chan struct{}), heard: heard,
		client: &http.Client{Timeout: answerTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: shape.Workers}},
	}
}

func (l *Load) start() {
	for worker := range l.history.Workers {
		l.workers.Go(func() { l.work(worker) })
	}
}

// Acked returns how many events are acknowledged by now.
func (l *Load) Acked() int64 { return l.acked.Load() }

// Pause returns when every batch that was sent is acknowledged. The load sends no further batches until Resume.
func (l *Load) Pause() { l.gate.Lock() }

// Resume ends a Pause.
func (l *Load) Resume() { l.gate.Unlock() }

// Refused returns how many attempts were answered by now with another status than 200.
func (l *Load) Refused() int64 { return l.refused.Load() }

// Stop ends the load and returns its history. It waits for the requests that are on their way. A batch that is not
// acknowledged then never will be, and its events are no obligations.
func (l *Load) Stop() *History {
	close(l.stop)
	l.workers.Wait()
	l.client.CloseIdleConnections()
	l.history.Refused, l.history.Unanswered = int(l.refused.Load()), int(l.unanswered.Load())
	return l.history
}

func (l *Load) work(worker int) {
	var (
		body     []byte
		interval time.Duration
		next     = time.Now()
	)
	if l.rate > 0 {
		interval = time.Duration(float64(time.Second) * float64(l.history.Size()*l.history.Workers) / l.rate)
		// The workers take turns.
		next = next.Add(interval * time.Duration(worker) / time.Duration(l.history.Workers))
	}
	for number := 0; ; number++ {
		if !l.wait(time.Until(next)) {
			return
		}
		next = next.Add(interval)
		if now := time.Now(); next.Before(now) {
			next = now
		}
		body = l.body(body[:0], l.history.Project(), worker, number)
		batch, acked := l.deliver(body)
		if !acked {
			return
		}
		l.history.Batches[worker] = append(l.history.Batches[worker], batch)
		l.acked.Add(int64(l.history.Size()))
	}
}

// deliver sends a batch until it is acknowledged. It returns false if the load ends first.
func (l *Load) deliver(body []byte) (batch Batch, acked bool) {
	l.gate.RLock()
	defer l.gate.RUnlock()
	for batch.Attempts = 1; !l.attempt(body, &batch); batch.Attempts++ {
		if !l.wait(pause) {
			return batch, false
		}
	}
	return batch, true
}

// wait waits for d. It returns false if the load must end.
func (l *Load) wait(d time.Duration) bool {
	select {
	case <-l.stop:
		return false
	default:
	}
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.stop:
		return false
	case <-timer.C:
		return true
	}
}

// body appends a batch of a project in the form in which the load sends it.
func (l *Load) body(to []byte, project string, worker, number int) []byte {
	to = append(to, `{"api_key":"`+project+`","batch":[`...)
	for k := range l.history.PerKey {
		for key := range l.history.Keys {
			if k+key > 0 {
				to = append(to, ',')
			}
			e := Event{Load: l.history.ID, Worker: worker, Key: key, Number: number*l.history.PerKey + k}
			to = e.appendJSON(to, l.history.Shape)
		}
	}
	return append(to, `]}`...)
}

// Attempt is one request with a batch, and its answer.
type Attempt struct {
	// Node is the number of the service in a storm.
	Node int
	// From and To are when the request was sent and when it ended.
	From, To time.Time
	// Status is that of the answer; 0: there was none. Ack says where the service has put the batch.
	Status int
	Ack    string
}

// send makes one attempt on the service at url.
func (l *Load) send(ctx context.Context, url string, body []byte) (a Attempt) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/batch/", bytes.NewReader(body))
	if err != nil {
		panic(err) // Only a malformed URL.
	}
	request.Header.Set("Content-Type", "application/json")
	a.From = time.Now()
	response, err := l.client.Do(request)
	if err == nil {
		// An answer that is cut off counts as none: its status has been sent, but the client can't trust it.
		_, err = io.Copy(io.Discard, response.Body)
		err = errors.Join(err, response.Body.Close())
	}
	a.To = time.Now()
	if err == nil {
		a.Status, a.Ack = response.StatusCode, response.Header.Get(AckHeader)
	}
	return a
}

// note counts an attempt, and reports whether it has acknowledged the batch.
func (l *Load) note(a Attempt, batch *Batch) bool {
	l.hear(a.Status)
	switch a.Status {
	case http.StatusOK:
		batch.Ack, batch.At, batch.Latency = a.Ack, a.To, a.To.Sub(a.From)
		return true
	case 0:
		l.unanswered.Add(1)
	default:
		l.refused.Add(1)
	}
	return false
}

// hear tells each of heard how an attempt was answered. Status 0 means that there was no answer.
func (l *Load) hear(status int) {
	for _, answers := range l.heard {
		answers.Add(status, time.Now())
	}
}
