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
	// answerTimeout is how long a worker waits for an answer. The service is to answer much earlier.
	answerTimeout = 30 * time.Second
	// pause is how long a worker waits before it sends a batch again.
	pause = 100 * time.Millisecond
)

// Load sends events as an SDK does: each worker sends a batch until it is acknowledged, then the next one.
type Load struct {
	url     string
	rate    float64
	history *History
	client  *http.Client
	stop    chan struct{}
	workers sync.WaitGroup
	heard   []*Answers
	// gate is read-locked by a worker from its first attempt to send a batch until that is acknowledged.
	gate sync.RWMutex

	acked, refused, unanswered atomic.Int64
}

// StartLoad starts a load on the service at url. Rate is in events per second, over all workers; with 0
// each worker sends as soon as it is answered. A worker that was held up does not make up for it. Each of
// heard is told of every answer.
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

// Acked is how many events are acknowledged by now.
func (l *Load) Acked() int64 { return l.acked.Load() }

// Pause returns when every batch that was sent is acknowledged, and keeps the load from sending others until Resume.
func (l *Load) Pause() { l.gate.Lock() }

// Resume ends what Pause has begun.
func (l *Load) Resume() { l.gate.Unlock() }

// Refused is how many attempts were answered by another status than 200 by now.
func (l *Load) Refused() int64 { return l.refused.Load() }

// Stop ends the load and returns its history. Requests that are on their way are waited for; batches that are not
// acknowledged then never are, and are no obligations.
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

// deliver sends a batch until it is acknowledged. It returns false if the load ends before.
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

// wait returns false if the load is to end.
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

// body appends a batch as it is sent.
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

// send makes one attempt and tells whether it was acknowledged.
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
	// An answer that is cut off is none: its status has been sent, but the client can't trust it.
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

// hear tells those who want to hear of it how an attempt was answered; 0: not at all.
func (l *Load) hear(status int) {
	for _, answers := range l.heard {
		answers.Add(status, time.Now())
	}
}
