package kafka_test

import (
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// messages returns n messages of one key, whose values are their numbers, beginning with first.
func messages(topic string, first, n int) []produce.Message {
	list := make([]produce.Message, n)
	for i := range list {
		list[i] = produce.Message{Topic: topic, Key: []byte("user"), Value: []byte(strconv.Itoa(first + i))}
	}
	return list
}

// reports holds the reports of a producer on some messages.
type reports struct {
	mu    sync.Mutex
	errs  []error
	order []int // messages in the order of their reports
	times []int // number of reports by message
	done  chan struct{}
}

// send produces messages and returns their reports, some of which may still be to come.
func send(producer *kafka.Producer, list []produce.Message) *reports {
	return sendAnd(producer, list, func(int, error) {})
}

// sendAnd is send, and calls within in each report.
func sendAnd(producer *kafka.Producer, list []produce.Message, within func(i int, err error)) *reports {
	r := &reports{errs: make([]error, len(list)), times: make([]int, len(list)), done: make(chan struct{})}
	producer.Produce(list, func(i int, err error) {
		within(i, err)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.errs[i] = err
		r.times[i]++
		r.order = append(r.order, i)
		if len(r.order) == len(list) {
			close(r.done)
		}
	})
	return r
}

// wait waits until every message has its report, and returns the errors.
func (r *reports) wait(t testing.TB) []error {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.mu.Lock()
		defer r.mu.Unlock()
		require.Fail(t, "not all messages have a report", "%d of %d", len(r.order), len(r.errs))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range r.times {
		require.Equal(t, 1, n, "reports on message %d", i)
	}
	return r.errs
}

func (r *reports) requireAcknowledged(t testing.TB) {
	t.Helper()
	for i, err := range r.wait(t) {
		require.NoError(t, err, "message %d", i)
	}
}

// requireInOrder requires that the reports on the messages of a partition were made in the order of the messages.
func (r *reports) requireInOrder(t testing.TB) {
	t.Helper()
	r.wait(t)
	require.True(t, slices.IsSorted(r.order), "%v", r.order)
}

// requireFailed requires that every message has failed with that class.
func (r *reports) requireFailed(t testing.TB, class produce.Class) {
	t.Helper()
	for i, err := range r.wait(t) {
		require.Error(t, err, "message %d", i)
		require.Equal(t, class, produce.ClassOf(err), "message %d: %v", i, err)
	}
}

// requireArrived requires that a topic holds exactly these values, each once and in order.
func requireArrived(t *testing.T, brokers []string, topic string, want []string) {
	t.Helper()
	records := consume(t, brokers, topic, len(want))
	got := make([]string, len(records))
	for i := range records {
		got[i] = string(records[i].Value)
	}
	require.Equal(t, want, got)
}

func TestMessagesAreInKafkaInOrder(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, scope := start(t, cfg)
	const n = 5000
	var sent []*reports
	for i := 0; i < n; i += 50 {
		sent = append(sent, send(producer, messages(cfg.Topics.Events, i, 50)))
	}
	for _, r := range sent {
		r.requireAcknowledged(t)
		r.requireInOrder(t)
	}
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, n))
	require.NoError(t, producer.Flush(t.Context()))
	require.EqualValues(t, n, counter(scope, "messages_acked_total+"))
	require.Positive(t, counter(scope, "bytes_total+"))
	require.Zero(t, scope.Snapshot().Gauges()["buffered_bytes+"].Value())
}

func TestConcurrentCallersKeepEachKeysOrder(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Linger = time.Millisecond
	producer, _ := start(t, cfg)
	const callers, each = 8, 100
	var group sync.WaitGroup
	all := make([][]*reports, callers)
	for c := range callers {
		group.Go(func() {
			for n := 0; n < each; n += 5 {
				list := messages(cfg.Topics.Events, n, 5)
				for i := range list {
					list[i].Key = []byte(strconv.Itoa(c))
				}
				all[c] = append(all[c], send(producer, list))
			}
		})
	}
	group.Wait()
	for _, sent := range all {
		for _, r := range sent {
			r.requireAcknowledged(t)
		}
	}
	next := map[string]int{}
	for _, r := range consume(t, cfg.Brokers, cfg.Topics.Events, callers*each) {
		require.Equal(t, strconv.Itoa(next[string(r.Key)]), string(r.Value), "%s", r.Key)
		next[string(r.Key)]++
	}
	require.Len(t, next, callers)
}
