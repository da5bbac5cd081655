package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/semaphore"

	"github.com/opencapture/capture/modules/events"
)

// Producer is the sink that writes events to Kafka. Its life:
//
//  1. NewProducer checks what can be checked without a network, and reads certificates.
//  2. Start makes a first attempt to reach the cluster. If that fails it succeeds all the same, and attempts go on in the
//     background; meanwhile Ready says why, and Write fails every event at once.
//  3. Connected, it asks the cluster every few seconds whether it is still there, for Ready.
//  4. Stop refuses new batches, waits for what is in flight, and says how much of it was not acknowledged.
//
// Start and Stop are called once; the other methods are safe for concurrent use.
type Producer struct {
	cfg       Config
	bootstrap *Bootstrap
	config    *sarama.Config
	encoder   *Encoder
	log       *zap.Logger
	sampled   *zap.Logger // for what may happen to every message

	packing *semaphore.Weighted // bytes of messages that are built and not sent
	budget  *semaphore.Weighted // bytes of messages that sarama has
	health  atomic.Pointer[health]
	// trouble is the last failure, if no message has been acknowledged since.
	trouble atomic.Pointer[health]

	mu       sync.RWMutex // guards the three below, and that senders grows only while not stopping
	conn     *connection
	started  bool
	stopping bool

	stop       chan struct{} // closed when Stop begins
	cut        chan struct{} // closed when senders must leave
	supervised chan struct{} // closed when the background work has ended

	senders  sync.WaitGroup // Writes that hand messages to sarama
	inFlight sync.WaitGroup // messages without a verdict
	drains   sync.WaitGroup // readers of sarama's verdicts

	awaited   atomic.Int64 // messages without a verdict whose writer has not given up
	cutting   atomic.Bool  // set when messages are no longer waited for
	unflushed atomic.Int64 // awaited messages that failed after that

	metrics metrics
}

var _ events.Carrier = (*Producer)(nil)

type metrics struct {
	latency         tally.Timer
	acked           tally.Counter
	failed          [classCount]tally.Counter
	bytes           tally.Counter
	bufferedBytes   tally.Gauge
	lateAcks        tally.Counter
	heatmapsDropped tally.Counter

	mu       sync.Mutex // keeps the gauge's updates in the order of the changes
	buffered int64
}

func (m *metrics) buffer(delta int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buffered += delta
	m.bufferedBytes.Update(float64(m.buffered))
}

// health is what the last look at the cluster has shown.
type health struct {
	err error
	at  time.Time
}

const (
	// probeInterval is how often the cluster is asked whether it is still there.
	probeInterval = 2 * time.Second
	// troubleCounts is how long a failed message makes the producer not ready: then the next ones may try.
	troubleCounts = 5 * time.Second
	// staleAfter is when a good answer no longer counts, because the question after it hangs.
	staleAfter = 15 * time.Second

	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second

	// What may go wrong with every message is logged once in this time, by its text.
	logEvery = 10 * time.Second
)

// NewProducer returns a producer that is not connected. The scope records, for every message, acknowledgement
// ("messages_acked_total") or failure ("messages_failed_total", by class), bytes acknowledged ("bytes_total") and held for sarama
// ("buffered_bytes"), acknowledgements that came after their writer had given up ("late_acks_total"), the time from the first
// message of a batch handed over to its last verdict ("produce_seconds"), and heatmap data that was too large to be written beside
// its event ("heatmaps_dropped_total").
func NewProducer(cfg Config, bootstrap *Bootstrap, log *zap.Logger, scope tally.Scope) (*Producer, error) {
	config, err := producerConfig(cfg)
	if err != nil {
		return nil, err
	}
	p := &Producer{
		cfg:       cfg,
		bootstrap: bootstrap,
		config:    config,
		encoder:   NewEncoder(cfg),
		log:       log,
		sampled: log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, logEvery, 1, 0)
		})),
		packing:    semaphore.NewWeighted(int64(cfg.Buffer)),
		budget:     semaphore.NewWeighted(int64(cfg.Buffer)),
		stop:       make(chan struct{}),
		cut:        make(chan struct{}),
		supervised: make(chan struct{}),
		metrics: metrics{
			latency:         scope.Timer("produce_seconds"),
			acked:           scope.Counter("messages_acked_total"),
			bytes:           scope.Counter("bytes_total"),
			bufferedBytes:   scope.Gauge("buffered_bytes"),
			lateAcks:        scope.Counter("late_acks_total"),
			heatmapsDropped: scope.Counter("heatmaps_dropped_total"),
		},
	}
	for class, name := range classNames {
		p.metrics.failed[class] = scope.Tagged(map[string]string{"class": name}).Counter("messages_failed_total")
	}
	p.health.Store(&health{err: errors.New("not connected yet")})
	return p, nil
}

// String describes for a human where events go.
func (p *Producer) String() string {
	if p.bootstrap.local != nil {
		return p.bootstrap.String()
	}
	return p.bootstrap.String() + ", topic " + p.cfg.Topics.Events
}

// Start begins to connect. It returns when the first attempt has ended, or connect_timeout, a second or ctx is over, and never
// fails for a cluster that cannot be reached.
func (p *Producer) Start(ctx context.Context) error {
	p.mu.Lock()
	p.started = true
	p.mu.Unlock()
	first := make(chan struct{})
	go p.supervise(p.bootstrap.Addresses(), first)
	patience := time.NewTimer(p.cfg.StartBudget())
	defer patience.Stop()
	select {
	case <-first:
	case <-patience.C:
	case <-ctx.Done():
	}
	return nil
}

// supervise connects, however long that takes, and then looks after the connection until Stop.
func (p *Producer) supervise(addresses []string, first chan struct{}) {
	defer close(p.supervised)
	conn := p.keepConnecting(addresses, first)
	if conn == nil {
		return
	}
	probe := time.NewTicker(probeInterval)
	defer probe.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-probe.C:
			if err := conn.check(); !errors.Is(err, sarama.ErrClosedClient) {
				p.report(err)
			}
		}
	}
}

// keepConnecting returns nil if Stop came first. It closes first after the first attempt.
func (p *Producer) keepConnecting(addresses []string, first chan struct{}) *connection {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		conn, err := connect(addresses, p.config, p.cfg.Topics, p.log)
		if err == nil {
			if !p.open(conn) {
				return nil
			}
			err = conn.check()
		}
		p.report(err)
		if first != nil {
			close(first)
			first = nil
		}
		if conn != nil {
			return conn
		}
		// Jitter keeps a fleet of services from asking a cluster that comes back all at once.
		retry := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-p.stop:
			retry.Stop()
			return nil
		case <-retry.C:
		}
	}
}

// open lets Writes through, unless Stop has begun: then it closes the connection and reports false.
func (p *Producer) open(conn *connection) bool {
	conn.drain(&p.drains, p.settle)
	p.mu.Lock()
	stopping := p.stopping
	if !stopping {
		p.conn = conn
	}
	p.mu.Unlock()
	if stopping {
		p.close(conn)
	}
	return !stopping
}

func (p *Producer) close(conn *connection) {
	if err := conn.close(&p.drains); err != nil {
		p.log.Warn("closing the connection to Kafka", zap.Error(err))
	}
}

// report stores what a look at the cluster has shown, and logs when that has changed.
func (p *Producer) report(err error) {
	before := p.health.Swap(&health{err: err, at: time.Now()})
	switch {
	case err != nil && (before.at.IsZero() || before.err == nil):
		p.log.Warn("events cannot be produced: trying again in the background", zap.Stringer("brokers", p.bootstrap), zap.Error(err))
	case err == nil && before.err != nil:
		p.log.Info("events can be produced", zap.Stringer("brokers", p.bootstrap))
	}
}

// Ready returns nil if the cluster answered when it was last asked and takes messages, or what is wrong. It asks nobody itself.
func (p *Producer) Ready(context.Context) error {
	seen := p.health.Load()
	if seen.err != nil {
		return fmt.Errorf("%s: %w", p.bootstrap, seen.err)
	}
	if age := time.Since(seen.at); age > staleAfter {
		return fmt.Errorf("%s: no answer for %s", p.bootstrap, age.Round(time.Second))
	}
	if trouble := p.trouble.Load(); trouble != nil && time.Since(trouble.at) < troubleCounts {
		return fmt.Errorf("%s: messages are not acknowledged: %w", p.bootstrap, trouble.err)
	}
	return nil
}

// Write produces the pending events and returns when each has an outcome: when Kafka has acknowledged or refused all, or when
// ctx or ack_timeout is over. An event without a verdict by then has failed with events.ReasonTimeout, although Kafka may
// still get it. Before the first connection, and after Stop has begun, everything fails at once.
func (p *Producer) Write(ctx context.Context, batch *events.Batch) {
	if _, err := p.connected(); err != nil {
		p.fail(batch, events.ReasonUnavailable, classUnavailable, err)
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.AckTimeout, errNoAnswer)
	defer cancel()
	packed, err := p.pack(ctx, batch)
	if err != nil {
		p.fail(batch, events.ReasonTimeout, classTimeout, err)
		return
	}
	packed.Send(ctx)
	select {
	case <-packed.Done():
	case <-ctx.Done():
	}
	packed.Settle(ctx, batch)
	packed.Leave(nil)
	batch.Ack = events.AckKafka
}

// Pack implements events.Carrier. Parcels that are not sent yet, or will not be, take a buffer of memory beside the one that is
// sarama's.
func (p *Producer) Pack(ctx context.Context, batch *events.Batch) (events.Parcel, error) {
	packed, err := p.pack(ctx, batch)
	if err != nil {
		return nil, err
	}
	return packed, nil
}

func (p *Producer) pack(ctx context.Context, batch *events.Batch) (*parcel, error) {
	// What a batch will take is known only once it is built, so room for the worst case is taken first and the rest given back.
	// A batch that is larger than the whole buffer goes alone.
	reserved := min(p.encoder.bound(batch), int64(p.cfg.Buffer))
	if err := p.packing.Acquire(ctx, reserved); err != nil {
		return nil, events.Errorf(events.Unavailable, "no room in kafka.buffer (%s): %w", p.cfg.Buffer, context.Cause(ctx))
	}
	pending := batch.Pending()
	set := p.encoder.Encode(batch)
	p.metrics.failed[classTooLarge].Inc(int64(pending - batch.Pending()))
	p.metrics.heatmapsDropped.Inc(int64(set.heatmapsDropped))
	packed := newParcel(p, set)
	packed.packed = min(packed.size, reserved)
	p.packing.Release(reserved - packed.packed)
	return packed, nil
}

// Load implements events.Carrier. The messages' bytes are not copied and count against the buffer only once they are sent.
func (p *Producer) Load(messages []events.Message) events.Parcel {
	loaded := newParcel(p, p.encoder.load(messages))
	loaded.strict = true
	return loaded
}

// DeadLetterTopic implements events.Carrier.
func (p *Producer) DeadLetterTopic() string { return p.cfg.Topics.DLQ }

// Flush implements events.Carrier.
func (p *Producer) Flush(ctx context.Context) error {
	flushed := done(p.inFlight.Wait)
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kafka: messages have no verdict yet: %w", context.Cause(ctx))
	}
}

// fail ends and counts the events that have not come as far as sarama.
func (p *Producer) fail(batch *events.Batch, reason events.Reason, class class, err error) {
	p.metrics.failed[class].Inc(int64(batch.FailPending(reason, err)))
}

// connected returns the connection, or why there is none to be used.
func (p *Producer) connected() (*connection, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.usable()
}

func (p *Producer) usable() (*connection, error) {
	switch {
	case p.stopping:
		return nil, events.Errorf(events.Unavailable, "%w", errStopping)
	case p.conn == nil:
		return nil, events.Errorf(events.Unavailable, "not connected to Kafka: %w", p.health.Load().err)
	}
	return p.conn, nil
}

// begin admits n messages. The caller must send them, all of them.
func (p *Producer) begin(n int) (*connection, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	conn, err := p.usable()
	if err != nil {
		return nil, err
	}
	p.senders.Add(1)
	p.inFlight.Add(n)
	p.awaited.Add(int64(n))
	return conn, nil
}

// settle takes a message's verdict from sarama: nil means acknowledged.
func (p *Producer) settle(message *sarama.ProducerMessage, err error) {
	m, ours := message.Metadata.(*Message)
	if !ours {
		return // a marker of sarama's own
	}
	if err != nil {
		p.sampled.Warn("a message was not produced", zap.String("topic", m.Topic), zap.Error(err))
	}
	switch {
	case err == nil && p.trouble.Load() != nil:
		p.trouble.Store(nil)
	case err != nil && cannotStore(err):
		p.trouble.Store(&health{err: err, at: time.Now()})
	}
	p.metrics.bytes.Inc(m.parcel.settle(m, err))
	p.inFlight.Done()
}

func (p *Producer) release(n int64) {
	p.budget.Release(n)
	p.metrics.buffer(-n)
}

// Stop refuses new batches, waits until those in flight have their verdict or flush_timeout or ctx is over, and closes the
// connection. It returns an error that says how many messages were not acknowledged; their writers were told.
func (p *Producer) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.FlushTimeout)
	defer cancel()
	p.mu.Lock()
	again, started, conn := p.stopping, p.started, p.conn
	p.stopping = true
	p.mu.Unlock()
	if again || !started {
		return nil
	}
	close(p.stop)
	var err error
	if conn != nil {
		err = p.flush(ctx, conn)
	}
	wait(ctx, p.supervised)
	return err
}

// flush ends the connection. That comes last, because sarama fails what it is about to send again when it is closed.
func (p *Producer) flush(ctx context.Context, conn *connection) error {
	patience, cancel := context.WithTimeout(ctx, p.cfg.FlushTimeout*9/10)
	defer cancel()
	wait(patience, done(p.inFlight.Wait))

	p.cutting.Store(true)
	close(p.cut)
	p.senders.Wait()
	wait(ctx, done(func() { p.close(conn) }))
	if lost := p.unflushed.Load() + p.awaited.Load(); lost > 0 {
		return fmt.Errorf("kafka: %d messages unflushed", lost)
	}
	return nil
}

// done runs f in a goroutine and returns a channel that is closed when f has returned.
func done(f func()) <-chan struct{} {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		f()
	}()
	return returned
}

// wait returns when the channel is closed or ctx is over.
func wait(ctx context.Context, closed <-chan struct{}) {
	select {
	case <-closed:
	case <-ctx.Done():
	}
}
