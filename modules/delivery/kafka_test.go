package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// quick is how long Kafka is left alone in tests.
const quick = 20 * time.Millisecond

var errAway = errors.New("the brokers are away")

// stub is Kafka and its client as delivery sees them: it takes messages in order, holds them for as long as the test wants, and
// gives verdicts that the test chooses. What real brokers do is tested in testkit/chaos.
type stub struct {
	mu        sync.Mutex
	connected bool
	holding   bool
	judge     func(*events.Message) error // nil: acknowledged
	held      []*stubMessage
	stored    []events.Message
	sends     int
	full      bool
}

var _ events.Carrier = (*stub)(nil)

type stubMessage struct {
	events.Message
	parcel *stubParcel
	index  int
}

func newStub() *stub { return &stub{connected: true} }

// set changes the stub under its lock.
func (k *stub) set(change func(*stub)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(k)
}

// hold keeps messages without a verdict from now on.
func (k *stub) hold() { k.set(func(k *stub) { k.holding = true }) }

// release gives every held message its verdict, and holds no more.
func (k *stub) release(verdict error) {
	k.mu.Lock()
	held := k.held
	k.held, k.holding = nil, false
	k.mu.Unlock()
	for _, m := range held {
		k.settle(m, verdict)
	}
}

// goAway fails what is held and everything after that, as a client does that has lost its brokers.
func (k *stub) goAway() {
	k.set(func(k *stub) { k.connected, k.judge = false, func(*events.Message) error { return errAway } })
	k.release(errAway)
}

func (k *stub) comeBack() { k.set(func(k *stub) { k.connected, k.judge = true, nil }) }

func (k *stub) settle(m *stubMessage, verdict error) {
	if verdict == nil {
		k.mu.Lock()
		k.stored = append(k.stored, copyOf(m.Message))
		k.mu.Unlock()
	}
	m.parcel.settle(m.index, verdict)
}

func copyOf(m events.Message) events.Message {
	m.Key, m.Value, m.Headers = slices.Clone(m.Key), slices.Clone(m.Value), slices.Clone(m.Headers)
	for i, header := range m.Headers {
		m.Headers[i] = events.Header{Key: slices.Clone(header.Key), Value: slices.Clone(header.Value)}
	}
	return m
}

// values returns the values that lie in a topic, in their order.
func (k *stub) values(topic string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var values []string
	for _, m := range k.stored {
		if m.Topic == topic {
			values = append(values, string(m.Value))
		}
	}
	return values
}

func (k *stub) sent() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sends
}

func (k *stub) Write(context.Context, *events.Batch) { panic("delivery packs by itself") }

func (k *stub) DeadLetterTopic() string { return "dead" }

func (k *stub) Ready(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.connected {
		return errAway
	}
	return nil
}

func (k *stub) Start(context.Context) error { return nil }
func (k *stub) Stop(context.Context) error  { return nil }

func (k *stub) Flush(ctx context.Context) error {
	for {
		k.mu.Lock()
		held := len(k.held)
		k.mu.Unlock()
		if held == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// Pack makes a message of every event: its topic is that of its lane, its key the distinct_id, its value the name. An event with
// heatmap data makes a second one, in the topic "heatmaps".
func (k *stub) Pack(_ context.Context, batch *events.Batch) (events.Parcel, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.full {
		return nil, events.Errorf(events.Unavailable, "no room")
	}
	p := &stubParcel{kafka: k, done: make(chan struct{})}
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		m := events.Message{Topic: event.Lane.String(), Key: []byte(event.DistinctID), Value: []byte(event.Name)}
		p.add(i, m)
		if event.Heatmap != nil {
			m.Topic = "heatmaps"
			p.add(i, m)
		}
	}
	return p, nil
}

func (k *stub) Load(messages []events.Message) events.Parcel {
	p := &stubParcel{kafka: k, done: make(chan struct{})}
	for i := range messages {
		p.add(i, copyOf(messages[i]))
	}
	return p
}

type stubParcel struct {
	kafka    *stub
	messages []events.Message
	origins  []int
	done     chan struct{}

	mu       sync.Mutex
	wasSent  bool
	settled  []bool
	verdicts []error
	told     []bool
	left     bool
	late     func(int, error)
	open     int
}

func (p *stubParcel) add(origin int, m events.Message) {
	p.messages, p.origins = append(p.messages, m), append(p.origins, origin)
	p.settled, p.verdicts, p.told = append(p.settled, false), append(p.verdicts, nil), append(p.told, false)
	p.open++
}

func (p *stubParcel) Len() int                         { return len(p.messages) }
func (p *stubParcel) Event(i int) int                  { return p.origins[i] }
func (p *stubParcel) Read(i int, into *events.Message) { *into = p.messages[i] }
func (p *stubParcel) Done() <-chan struct{}            { return p.done }

func (p *stubParcel) Send(context.Context) {
	p.wasSent = true
	failed := false
	for i := range p.messages {
		m := &stubMessage{Message: p.messages[i], parcel: p, index: i}
		p.kafka.mu.Lock()
		p.kafka.sends++
		holding := p.kafka.holding
		if holding {
			p.kafka.held = append(p.kafka.held, m)
		}
		var verdict error
		if p.kafka.judge != nil {
			verdict = p.kafka.judge(&m.Message)
		}
		p.kafka.mu.Unlock()
		if holding {
			continue
		}
		if failed && verdict == nil {
			verdict = errors.New("behind a message that has failed")
		}
		failed = failed || verdict != nil
		p.kafka.settle(m, verdict)
	}
}

func (p *stubParcel) settle(i int, verdict error) {
	p.mu.Lock()
	p.settled[i], p.verdicts[i] = true, verdict
	p.open--
	last, late := p.open == 0, p.left && !p.told[i]
	p.mu.Unlock()
	if late && p.late != nil {
		p.late(i, verdict)
	}
	if last {
		close(p.done)
	}
}

func (p *stubParcel) Verdict(i int) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told[i] = p.settled[i]
	return p.settled[i], p.verdicts[i]
}

func (p *stubParcel) Settle(ctx context.Context, batch *events.Batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.messages {
		event := &batch.Events[p.origins[i]]
		p.told[i] = true
		switch {
		case !p.settled[i]:
			event.Fail(events.ReasonTimeout, events.Errorf(events.Unavailable, "%w", context.Cause(ctx)))
		case p.verdicts[i] != nil:
			event.Fail(events.ReasonUnavailable, events.Errorf(events.Unavailable, "%w", p.verdicts[i]))
		}
	}
	for i := range p.messages {
		batch.Events[p.origins[i]].Accept()
	}
}

func (p *stubParcel) Leave(late func(int, error)) {
	p.mu.Lock()
	if p.left {
		panic("left twice")
	}
	p.left, p.late = true, late
	var now []int
	for i := range p.messages {
		if p.settled[i] && !p.told[i] {
			now = append(now, i)
		}
	}
	p.mu.Unlock()
	for _, i := range now {
		if late != nil {
			late(i, p.verdicts[i])
		}
	}
}

// testConfig is quick: who waits for Kafka waits for a tenth of a second.
func testConfig(t testing.TB, ack mode) Config {
	cfg := DefaultConfig()
	cfg.Ack = ack.String()
	cfg.Spool.Dir = t.TempDir()
	cfg.Spool.Reserve = 0
	cfg.Spool.SegmentBytes = configs.MiB
	cfg.SpoolAfter = 50 * time.Millisecond
	cfg.Timeout = 200 * time.Millisecond
	cfg.StopTimeout = time.Second
	return cfg
}

// begin starts a delivery in front of the stub; stop ends it, once, at the end of the test at the latest.
func begin(t testing.TB, cfg Config, kafka *stub) (d *Delivery, scope tally.TestScope, stop func()) {
	t.Helper()
	return beginWith(t, cfg, kafka, quick)
}

// beginWith is begin with another time to leave Kafka alone.
func beginWith(t testing.TB, cfg Config, kafka *stub, openFor time.Duration) (d *Delivery, scope tally.TestScope, stop func()) {
	t.Helper()
	scope = tally.NewTestScope("", nil)
	log := zap.NewNop()
	if t, ok := t.(*testing.T); ok {
		log = zaptest.NewLogger(t)
	}
	d, err := newDeliveryWith(cfg, kafka, log, scope, openFor)
	require.NoError(t, err)
	require.NoError(t, d.Start(t.Context()))
	stop = sync.OnceFunc(func() { require.NoError(t, d.Stop(context.Background())) })
	t.Cleanup(func() {
		kafka.release(errAway)
		stop()
	})
	return d, scope, stop
}

// batchOf makes a batch of the lane's events, one a name, all of one user.
func batchOf(lane events.Lane, names ...string) *events.Batch {
	batch := &events.Batch{Token: "phc_test"}
	for _, name := range names {
		batch.Events = append(batch.Events, events.Event{Name: name, DistinctID: "user", Lane: lane})
	}
	return batch
}

// write writes ordinary events and returns their batch.
func write(t testing.TB, d *Delivery, names ...string) *events.Batch {
	t.Helper()
	batch := batchOf(events.LaneMain, names...)
	d.Write(t.Context(), batch)
	return batch
}

// requireSafe fails the test unless all events are accepted by the ack.
func requireSafe(t testing.TB, batch *events.Batch, ack events.Ack) {
	t.Helper()
	for i := range batch.Events {
		require.Equal(t, events.StateAccepted, batch.Events[i].Outcome.State, "event %d: %v", i, batch.Events[i].Outcome.Err)
	}
	require.Equal(t, ack, batch.Ack)
}

func requireFailed(t testing.TB, batch *events.Batch, reason events.Reason) {
	t.Helper()
	for i := range batch.Events {
		require.Equal(t, events.StateFailed, batch.Events[i].Outcome.State, "event %d", i)
		require.Equal(t, reason, batch.Events[i].Outcome.Reason)
		require.Equal(t, events.Unavailable, events.CodeOf(batch.Events[i].Outcome.Err))
	}
}

// requireArrived waits until the topic holds exactly these values, in this order, and nothing waits any more.
func requireArrived(t testing.TB, d *Delivery, kafka *stub, topic string, values ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return d.busy.Load() == 0 }, patience, time.Millisecond, "the spool is emptied")
	require.Equal(t, values, kafka.values(topic))
}

func names(from, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("e%04d", from+i)
	}
	return list
}

func count(scope tally.TestScope, name string) int64 {
	if counter, ok := scope.Snapshot().Counters()[name]; ok {
		return counter.Value()
	}
	return 0
}
