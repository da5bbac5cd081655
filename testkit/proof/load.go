package proof

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// AckHeader is the header in which an answer says where the events are.
	AckHeader = "X-Capture-Ack"
	// token is the project that the events are for.
	token = "phc_chaos"
	// answerTimeout is how long a worker waits for an answer. The service must answer much earlier.
	answerTimeout = 30 * time.Second
	// pause is how long a worker waits before it sends a batch again.
	pause = 100 * time.Millisecond
)

// Load sends events as an SDK does. Each worker sends a batch until it is acknowledged, and then the next batch.
type Load struct {
	url     string
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
	l := &Load{
		url: url + "/batch/", rate: rate, history: NewHistory(shape), stop: make(chan struct{}), heard: heard,
		client: &http.Client{Timeout: answerTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: shape.Workers}},
	}
	for worker := range shape.Workers {
		l.workers.Go(func() { l.work(worker) })
	}
	return l
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
		body = l.body(body[:0], worker, number)
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
	for batch.Attempts = 1; !l.send(body, &batch); batch.Attempts++ {
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

// body appends a batch in the form in which the load sends it.
func (l *Load) body(to []byte, worker, number int) []byte {
	to = append(to, `{"api_key":"`+token+`","batch":[`...)
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

// send makes one attempt, and reports whether the batch was acknowledged.
func (l *Load) send(body []byte, batch *Batch) bool {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, l.url, bytes.NewReader(body))
	if err != nil {
		panic(err) // Only a malformed URL.
	}
	request.Header.Set("Content-Type", "application/json")
	started := time.Now()
	response, err := l.client.Do(request)
	if err != nil {
		l.unanswered.Add(1)
		l.hear(0)
		return false
	}
	// An answer that is cut off counts as none: its status has been sent, but the client can't trust it.
	_, err = io.Copy(io.Discard, response.Body)
	if closeErr := response.Body.Close(); err != nil || closeErr != nil {
		l.unanswered.Add(1)
		l.hear(0)
		return false
	}
	l.hear(response.StatusCode)
	batch.At = time.Now()
	batch.Latency = batch.At.Sub(started)
	if response.StatusCode != http.StatusOK {
		l.refused.Add(1)
		return false
	}
	batch.Ack = response.Header.Get(AckHeader)
	return true
}

// hear tells each of heard how an attempt was answered. Status 0 means that there was no answer.
func (l *Load) hear(status int) {
	for _, answers := range l.heard {
		answers.Add(status, time.Now())
	}
}
