package delivery

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

// script is a producer whose reports come exactly when a test says so. It keeps the promises of the port: messages of a
// topic, which has one partition, keep their order, and when one of them fails for a passing reason, those behind it
// fail as well. It also checks that no message changes before its report. The tests of modules/kafka cover a real
// producer.
type script struct {
	t       testing.TB
	mu      sync.Mutex
	holds   func(topic string) bool      // nil: nothing is held
	judge   func(*produce.Message) error // nil: acknowledged
	topics  map[string][]*scripted       // the messages without a report
	stored  []produce.Message
	ready   error
	changed []string // messages that somebody has changed before their report

	reporting sync.Mutex // one report at a time
	running   atomic.Int32
}

type scripted struct {
	message *produce.Message
	sum     uint64
	report  func(int, error)
	index   int
}

var _ produce.Producer = (*script)(nil)

var (
	errAway    = produce.Errorf(produce.Unavailable, "the brokers are away")
	errRefused = produce.Errorf(produce.Invalid, "refused")
)

func newScript(t testing.TB) *script {
	k := &script{t: t, topics: map[string][]*scripted{}}
	t.Cleanup(func() { require.Empty(t, k.changed, "messages that were changed while the producer had them") })
	return k
}

func sum(m *produce.Message) uint64 {
	h := fnv.New64a()
	for _, text := range [][]byte{[]byte(m.Topic), m.Key, m.Value} {
		_, _ = h.Write(append(text, 0))
	}
	for _, header := range m.Headers {
		_, _ = h.Write(header.Key)
		_, _ = h.Write(header.Value)
	}
	return h.Sum64()
}

func (k *script) Produce(messages []produce.Message, report func(int, error)) {
	k.mu.Lock()
	for i := range messages {
		m := &messages[i]
		k.topics[m.Topic] = append(k.topics[m.Topic], &scripted{message: m, sum: sum(m), report: report, index: i})
	}
	k.mu.Unlock()
	k.running.Add(1)
	go func() {
		defer k.running.Add(-1)
		k.settle()
	}()
}

// settle reports on the messages that are there and not held.
func (k *script) settle() {
	k.reporting.Lock()
	defer k.reporting.Unlock()
	for {
		k.mu.Lock()
		list, failure := k.next()
		k.mu.Unlock()
		if list == nil {
			return
		}
		for i, s := range list {
			err := failure
			if i > 0 {
				err = produce.Errorf(produce.Behind, "behind: %w", failure)
			}
			if sum(s.message) != s.sum {
				k.set(func() { k.changed = append(k.changed, string(s.message.Value)) })
			}
			s.report(s.index, err)
		}
	}
}

// next takes the first message of any topic. If that message fails for a passing reason, next takes all messages behind
// it too.
func (k *script) next() (list []*scripted, err error) {
	for topic, queue := range k.topics {
		if len(queue) == 0 || k.holds != nil && k.holds(topic) {
			continue
		}
		if k.judge != nil {
			err = k.judge(queue[0].message)
		}
		n := 1
		switch {
		case err == nil:
			k.stored = append(k.stored, copyOf(queue[0].message))
		case !produce.IsRefusal(err):
			n = len(queue)
		}
		k.topics[topic] = queue[n:]
		return queue[:n], err
	}
	return nil, nil
}

func (k *script) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// hold makes messages of the topics wait for their reports from now on; without topics, messages of all topics.
func (k *script) hold(topics ...string) {
	k.set(func() {
		k.holds = func(topic string) bool { return len(topics) == 0 || slices.Contains(topics, topic) }
	})
}

// release reports on the held messages, and no longer holds new ones.
func (k *script) release() {
	k.set(func() { k.holds = nil })
	k.settle()
}

// always makes the producer judge all messages alike.
func (k *script) always(err error) {
	k.set(func() { k.judge, k.ready = func(*produce.Message) error { return err }, err })
}

func (k *script) back() { k.set(func() { k.judge, k.ready = nil, nil }) }

// names returns the names of the stored events of a topic.
func (k *script) names(topic string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := []string{}
	for i := range k.stored {
		if k.stored[i].Topic == topic {
			list = append(list, nameOf(&k.stored[i]))
		}
	}
	return list
}

// held returns how many messages have no report.
func (k *script) held() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, queue := range k.topics {
		n += len(queue)
	}
	return n
}

func nameOf(m *produce.Message) string {
	for _, header := range m.Headers {
		if bytes.Equal(header.Key, []byte("event")) {
			return string(header.Value)
		}
	}
	return ""
}

func (k *script) Flush(ctx context.Context) error {
	for k.held() > 0 || k.running.Load() > 0 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Microsecond):
		}
	}
	return nil
}

func (k *script) Ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ready
}

func (k *script) Start(context.Context) error { return nil }

// Stop fails the held messages, like a producer whose connection is closed.
func (k *script) Stop(context.Context) error {
	var judge func(*produce.Message) error
	k.set(func() { judge, k.judge = k.judge, func(*produce.Message) error { return errors.New("stopping") } })
	k.release()
	k.set(func() { k.judge = judge })
	return k.Flush(context.Background())
}

const patience = 60 * time.Second

func eventually(t require.TestingT, condition func() bool, what ...any) {
	for deadline := time.Now().Add(patience); !condition(); <-time.After(time.Millisecond) {
		require.True(t, time.Now().Before(deadline), what...)
	}
}

var scriptTopics = produce.Topics{
	Events: "main", Recordings: "recordings", Historical: "main", ClientWarnings: "main",
	Exceptions: "exceptions", Overflow: "main", RecordingsOverflow: "recordings", Heatmaps: "heatmaps", AI: "ai",
	Logs: "main", DLQ: "dead",
}

// scriptConfig makes delivery wait for Kafka only as long as a scripted producer needs, and for the client for ever.
func scriptConfig(t testing.TB, ack mode) Config {
	cfg := DefaultConfig()
	cfg.Ack = ack.String()
	cfg.Spool.Dir, cfg.Spool.Reserve, cfg.Spool.SegmentBytes = t.TempDir(), 0, configs.MiB
	cfg.SpoolAfter, cfg.Timeout, cfg.StopTimeout = 5*time.Millisecond, patience, patience
	return cfg
}

// begin starts a delivery to a scripted producer. stop ends both, once, and at the latest at the end of the test.
func begin(t testing.TB, cfg Config, k *script) (d *Delivery, stop func()) {
	t.Helper()
	d = newScripted(t, cfg, k, tally.NoopScope)
	require.NoError(t, d.Start(t.Context()))
	stop = sync.OnceFunc(func() {
		require.NoError(t, d.Stop(context.Background()))
		require.NoError(t, k.Stop(context.Background()))
	})
	t.Cleanup(func() {
		k.release()
		stop()
	})
	return d, stop
}

var settingsOfScript = produce.Settings{Topics: scriptTopics, MaxMessageBytes: 1 << 20}

func newScripted(t require.TestingT, cfg Config, k *script, scope tally.Scope) *Delivery {
	d, err := NewDelivery(configs.Fixed(cfg), settingsOfScript, k, zap.NewNop(), scope)
	require.NoError(t, err)
	Hurry(d)
	return d
}

// batchOf makes a batch of events in a lane, one for each name, all of one user.
func batchOf(lane events.Lane, user string, names ...string) *events.Batch {
	batch := &events.Batch{Token: "phc_test", Received: time.Now()}
	for _, name := range names {
		batch.Events = append(batch.Events, events.Event{
			Name: name, DistinctID: user, Lane: lane, Timestamp: batch.Received,
			Raw: events.Raw{Properties: []byte("{}")},
		})
	}
	return batch
}

func write(t testing.TB, d *Delivery, names ...string) *events.Batch {
	t.Helper()
	batch := batchOf(events.LaneMain, "user", names...)
	d.Write(t.Context(), batch)
	require.Zero(t, batch.Pending())
	return batch
}

func requireSafe(t require.TestingT, batch *events.Batch, ack events.Ack) {
	for i := range batch.Events {
		require.Equal(t, events.StateAccepted, batch.Events[i].Outcome.State, "event %d: %v", i,
			batch.Events[i].Outcome.Err)
	}
	require.Equal(t, ack, batch.Ack)
}
