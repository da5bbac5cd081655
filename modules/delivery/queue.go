package delivery

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/delivery/spool"
)

// queue is what waits for Kafka in one topic: its log, and who is about to add to it. While it is busy, new messages of the topic
// follow into the log.
type queue struct {
	topic string
	log   *spool.Log
	// others counts the queues that are busy.
	others *atomic.Int64

	busy atomic.Bool // changed under mu
	wake chan struct{}

	mu        sync.Mutex
	appending int       // calls that add records
	held      int       // records whose message Kafka's client holds as well
	since     time.Time // of the first record, as far as is known
}

func newQueue(topic string, log *spool.Log, others *atomic.Int64) *queue {
	q := &queue{topic: topic, log: log, others: others, wake: make(chan struct{}, 1)}
	if log.Stats().Records > 0 {
		q.enter()
	}
	return q
}

// enter makes the queue busy. The caller holds mu, or is alone with the queue.
func (q *queue) enter() {
	if !q.busy.Load() {
		q.busy.Store(true)
		q.others.Add(1)
		q.since = time.Now()
	}
}

func (q *queue) isBusy() bool { return q.busy.Load() }

// holds reports whether there are records that nothing may overtake.
func (q *queue) holds() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held > 0 || q.log.Stats().Records > 0
}

// begin announces records, of which held are with Kafka's client as well. It is followed by end.
func (q *queue) begin(held int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.enter()
	q.appending++
	q.held += held
}

// end says that the records that begin has announced are in the log, or will not be.
func (q *queue) end() {
	q.mu.Lock()
	q.appending--
	q.mu.Unlock()
	q.stir()
}

// release says that Kafka's client has done with n of the messages that it held.
func (q *queue) release(n int) {
	q.mu.Lock()
	q.held -= n
	q.mu.Unlock()
	q.stir()
}

// stir has the drain look again.
func (q *queue) stir() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// drainable reports whether the log may be sent: while Kafka's client holds a message of it, nothing that follows may overtake it.
func (q *queue) drainable() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.busy.Load() && q.held == 0
}

// rest ends being busy if there is nothing in the log nor about to be.
func (q *queue) rest() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy.Load() && q.appending == 0 && q.held == 0 && q.log.Stats().Records == 0 {
		q.busy.Store(false)
		q.others.Add(-1)
		q.since = time.Time{}
	}
}

// seen notes the time of the first record, if it has one.
func (q *queue) seen(first time.Time) {
	if first.IsZero() {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.since = first
}

// oldest returns the time of the first record, or zero if there is none.
func (q *queue) oldest() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.since
}
