package warnings

import (
	"context"
	"sync"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
)

const (
	// maxQueued is how many warnings may wait to be written. A warning takes a few kilobytes.
	maxQueued = 1024
	// writeTimeout is how long the write of one warning may take.
	writeTimeout = 5 * time.Second
)

// Warner is the stage that tells projects about their faulty events. Start and Stop are each called once, Start first.
// Process and the Settle that it returns are safe for concurrent use at any time. After Stop they send nothing.
type Warner struct {
	config  *configs.Value[Config]
	sink    events.Sink
	log     *zap.Logger
	metrics [kindCount]metrics
	settle  events.Settle // observe; bound once, because binding it allocates

	mu       sync.Mutex // guards the throttle and stopped; no message is queued after stopped
	throttle *throttle
	stopped  bool

	queue  chan message // closed when stopped is set
	cancel context.CancelFunc
	work   *panics.Group
}

var _ events.Stage = (*Warner)(nil)

type metrics struct{ sent, throttled, dropped tally.Counter }

// NewWarner returns a warner of the section that writes to the sink. The scope counts warnings by type: those that were
// written ("sent_total"), those that were held back because the project was warned in this interval
// ("throttled_total"), and those that were lost because the queue was full, the sink did not take them or the service
// stopped ("dropped_total").
func NewWarner(live *configs.Live, sink events.Sink, log *zap.Logger, scope tally.Scope) (*Warner, error) {
	config, err := configs.Current[Config](live)
	if err != nil {
		return nil, err
	}
	w := &Warner{
		config: config, sink: sink, log: log, throttle: newThrottle(),
		queue: make(chan message, maxQueued), work: panics.NewGroup(log),
	}
	w.settle = w.observe
	for kind := range w.metrics {
		tagged := scope.Tagged(map[string]string{"type": kinds[kind].name})
		w.metrics[kind] = metrics{
			sent: tagged.Counter("sent_total"), throttled: tagged.Counter("throttled_total"),
			dropped: tagged.Counter("dropped_total"),
		}
	}
	return w, nil
}

// Phase is events.PhaseObserve, so that the warner is the last to learn how events ended.
func (w *Warner) Phase() events.Phase { return events.PhaseObserve }

// Name is "warnings".
func (w *Warner) Name() string { return "warnings" }

// Process changes nothing. The Settle that it returns looks at the batch when the batch has ended.
func (w *Warner) Process(context.Context, *events.Batch) (events.Settle, error) {
	return w.settle, nil
}

// observe queues the warnings that a batch deserves. It does not wait. A batch that deserves none costs one look at
// each event.
func (w *Warner) observe(_ context.Context, batch *events.Batch) {
	var found findings
	cfg := w.config.In(batch.Config)
	if !cfg.Enabled || batch.Token == "" || !found.look(batch, cfg.Rules) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind := range kindCount {
		if found[kind].events > 0 {
			w.tell(batch, kind, found[kind], cfg.Interval)
		}
	}
}

func (w *Warner) tell(batch *events.Batch, kind kind, found finding, interval time.Duration) {
	held, ok := w.throttle.pass(batch.Token, kind, batch.Received, interval)
	switch {
	case !ok:
		w.metrics[kind].throttled.Inc(1)
		return
	case w.stopped:
		w.metrics[kind].dropped.Inc(1)
		return
	}
	select {
	case w.queue <- newMessage(batch, kind, found, held):
	default:
		w.metrics[kind].dropped.Inc(1)
	}
}

// Start begins to write the queued warnings.
func (w *Warner) Start(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.work.Keep(ctx, writer, w.run)
	return nil
}

// writer names the goroutine that writes warnings in the log lines about its panics.
const writer = "the writer of warnings"

func (w *Warner) run(ctx context.Context) {
	lost := 0
	for message := range w.queue {
		if !w.write(ctx, message) && ctx.Err() != nil {
			lost++
		}
	}
	if lost > 0 {
		w.log.Warn("warnings to projects were not written in time to stop", zap.Int("warnings", lost))
	}
}

// write reports whether the sink has taken the message.
func (w *Warner) write(ctx context.Context, m message) bool {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	batch := &events.Batch{
		Token: m.token, Received: m.event.Timestamp, RequestID: m.requestID, Events: []events.Event{m.event},
	}
	panics.Do(w.log, writer, func() { w.sink.Write(ctx, batch) }) // if the sink panics, the warning counts as lost
	outcome := batch.Events[0].Outcome
	if outcome.State != events.StateAccepted {
		w.metrics[m.kind].dropped.Inc(1)
		w.log.Debug("a warning was not written", zap.String("type", kinds[m.kind].name),
			zap.String("request_id", m.requestID), zap.Error(outcome.Err))
		return false
	}
	w.metrics[m.kind].sent.Inc(1)
	return true
}

// Stop writes the queued warnings for as long as the configuration or ctx allows, whichever is shorter. It drops,
// counts and logs the others. It returns no error for them, because no event is lost.
func (w *Warner) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.config.Now().StopTimeout)
	defer cancel()
	defer w.cancel()
	w.mu.Lock()
	w.stopped = true
	close(w.queue)
	w.mu.Unlock()
	written := w.work.Ended()
	select {
	case <-written:
	case <-ctx.Done():
		// A sink returns when its context is over, so this wait is short.
		w.cancel()
		<-written
	}
	return nil
}
