package delivery

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/events"
)

// Delivery makes events safe as the section says. Its life:
//
//  1. NewDelivery looks at the base sink. One that is no events.Carrier is left alone: then all the rest does nothing.
//  2. Start opens the spool and begins to empty what an earlier process left. A spool that cannot be opened does not keep the
//     service from starting; attempts go on in the background.
//  3. Stop ends the emptying, waits for the verdicts on what Kafka's client has, and closes the spool.
//
// Start and Stop are called once; the other methods are safe for concurrent use.
type Delivery struct {
	cfg     Config
	carrier events.Carrier
	modes   []mode // by lane
	uniform bool   // every lane has the same
	log     *zap.Logger
	metrics metrics

	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	pace    *pace
	openFor time.Duration

	spool  atomic.Pointer[spool.Spool]
	broken atomic.Pointer[error] // why there is no spool
	busy   atomic.Int64          // queues that are not empty

	mu     sync.RWMutex
	queues map[string]*queue

	ctx    context.Context // over when the drains must end
	cancel context.CancelFunc
	work   sync.WaitGroup
}

const (
	// layerOrder puts the layer next to the base sink: it needs the messages, which no other layer sees.
	layerOrder = math.MaxInt

	// openFor is how long Kafka is left alone after it did not answer in time, until the next attempt.
	openFor = time.Second

	// reopen is how long to wait before another attempt to open the spool.
	reopen = 5 * time.Second
)

var (
	errTimeout = errors.New("the events were not safe in time (delivery.timeout)")
	errLate    = errors.New("no acknowledgement within delivery.spool_after")
	errNoSpool = errors.New("the spool is not open")
)

// NewDelivery returns a delivery in front of the base sink that has not been started.
func NewDelivery(cfg Config, base events.Sink, log *zap.Logger, scope tally.Scope) (*Delivery, error) {
	return newDeliveryWith(cfg, base, log, scope, openFor)
}

// newDeliveryWith is NewDelivery for tests, which have less time to leave Kafka alone.
func newDeliveryWith(cfg Config, base events.Sink, log *zap.Logger, scope tally.Scope, openFor time.Duration) (*Delivery, error) {
	modes, err := cfg.modes()
	if err != nil {
		return nil, err
	}
	d := &Delivery{
		cfg:     cfg,
		modes:   modes,
		uniform: len(slices.Compact(slices.Clone(modes))) == 1,
		log:     log,
		metrics: newMetrics(scope),
		breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			Name:        "kafka",
			MaxRequests: 1,
			Timeout:     openFor,
			ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures > 0 },
			OnStateChange: func(_ string, from, to gobreaker.State) {
				log.Debug("circuit breaker", zap.Stringer("from", from), zap.Stringer("to", to))
			},
		}),
		pace:    newPace(cfg.Drain),
		openFor: openFor,
		queues:  map[string]*queue{},
	}
	d.carrier, _ = base.(events.Carrier)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.broken.Store(&errNoSpool)
	return d, nil
}

// Layer returns the layer.
func (d *Delivery) Layer() events.Layer {
	return events.Layer{Order: layerOrder, Name: "delivery", Wrap: func(next events.Sink) events.Sink {
		if d.carrier == nil {
			return next
		}
		return d
	}}
}

// String describes for a human what a 200 means.
func (d *Delivery) String() string {
	if d.carrier == nil {
		return "as safe as the sink makes them: it has no part in delivery.ack"
	}
	text := "ack " + d.cfg.Ack
	if err := d.broken.Load(); err != nil {
		return text + ", without a spool"
	}
	usage := d.Usage()
	return fmt.Sprintf("%s, spool in %s (%.1f MB of %.1f GB)", text, d.cfg.Spool.Dir, float64(usage.Bytes)/1e6, float64(usage.Max)/1e9)
}

// Usage returns what the spool takes on the disk; nothing without one.
func (d *Delivery) Usage() spool.Usage {
	opened := d.spool.Load()
	if opened == nil {
		return spool.Usage{}
	}
	return opened.Usage()
}

// Start opens the spool and begins to empty it.
func (d *Delivery) Start(context.Context) error {
	if d.carrier == nil {
		return nil
	}
	d.work.Go(d.measure)
	err := d.open()
	if err == nil {
		return nil
	}
	d.broken.Store(&err)
	d.log.Error("the spool cannot be used: events are only safe once Kafka has them. Trying again in the background", zap.Error(err))
	d.work.Go(func() {
		for d.pause(reopen) {
			err := d.open()
			if err == nil {
				d.log.Info("the spool can be used")
				return
			}
			d.broken.Store(&err)
		}
	})
	return nil
}

// open opens the spool and begins to empty what is in it.
func (d *Delivery) open() error {
	opened, err := d.cfg.Spool.open(d.metrics.synced.Record, d.log)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return errors.Join(d.ctx.Err(), opened.Close())
	}
	d.spool.Store(opened)
	d.broken.Store(nil)
	waiting := uint64(0)
	for _, log := range opened.Logs() {
		if log.Name() != deadLetters {
			waiting += log.Stats().Records
			d.addQueue(log.Name(), log)
		}
	}
	if waiting > 0 {
		d.log.Info("events of an earlier process wait in the spool", zap.Uint64("records", waiting))
	}
	return nil
}

// queue returns the queue of a topic, or nil without a spool.
func (d *Delivery) queue(topic string) *queue {
	d.mu.RLock()
	q := d.queues[topic]
	d.mu.RUnlock()
	if q != nil {
		return q
	}
	opened := d.spool.Load()
	if opened == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if q = d.queues[topic]; q == nil && d.ctx.Err() == nil {
		q = d.addQueue(topic, opened.Log(topic))
	}
	return q
}

// addQueue makes the queue of a topic and has it emptied. The caller holds mu.
func (d *Delivery) addQueue(topic string, log *spool.Log) *queue {
	q := newQueue(topic, log, &d.busy)
	d.queues[topic] = q
	d.work.Go(func() { d.drain(q) })
	return q
}

// Waiting returns how many records are in the spool and not in Kafka.
func (d *Delivery) Waiting() uint64 {
	waiting := uint64(0)
	for _, q := range d.all() {
		waiting += q.log.Stats().Records
	}
	return waiting
}

// all returns the queues.
func (d *Delivery) all() []*queue {
	d.mu.RLock()
	defer d.mu.RUnlock()
	queues := make([]*queue, 0, len(d.queues))
	for _, q := range d.queues {
		queues = append(queues, q)
	}
	return queues
}

// isBusy reports whether messages of one of the parcel's topics go to the spool.
func (d *Delivery) isBusy(parcel events.Parcel) bool {
	return d.busy.Load() > 0 && d.any(parcel, (*queue).isBusy)
}

// any reports whether one of the parcel's topics has a queue of which that is true.
func (d *Delivery) any(parcel events.Parcel, is func(*queue) bool) bool {
	var m events.Message
	last := ""
	for i := range parcel.Len() {
		if parcel.Read(i, &m); m.Topic == last {
			continue
		}
		last = m.Topic
		d.mu.RLock()
		q := d.queues[last]
		d.mu.RUnlock()
		if q != nil && is(q) {
			return true
		}
	}
	return false
}

// Stop ends the emptying of the spool, waits until Kafka's client has given its verdict on what it holds or stop_timeout or ctx
// is over, and closes the spool. What has no verdict by then stays in the spool, to be sent again by the next process.
func (d *Delivery) Stop(ctx context.Context) error {
	if d.carrier == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.StopTimeout, errors.New("delivery.stop_timeout is over"))
	defer cancel()
	d.mu.Lock()
	d.cancel()
	d.mu.Unlock()
	unsure := d.carrier.Flush(ctx)
	ended := make(chan struct{})
	go func() {
		d.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	opened := d.spool.Load()
	if opened == nil {
		return nil
	}
	if waiting := d.Waiting(); waiting > 0 {
		fields := []zap.Field{zap.Uint64("records", waiting), zap.String("dir", d.cfg.Spool.Dir)}
		if unsure != nil {
			fields = append(fields, zap.NamedError("some_may_be_sent_twice", unsure))
		}
		d.log.Info("events stay in the spool for the next process", fields...)
	}
	if err := opened.Close(); err != nil {
		return fmt.Errorf("close the spool: %w", err)
	}
	return nil
}

// pause waits and reports whether the service goes on.
func (d *Delivery) pause(length time.Duration) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-d.ctx.Done():
		return false
	}
}

// spools reports whether the default ack needs the spool.
func (d *Delivery) spools() bool {
	standard, _ := parseMode(d.cfg.Ack)
	return standard == modeSpool || standard == modeAuto
}

// Ready returns nil if events can be made safe, or what is wrong.
func (d *Delivery) Ready(ctx context.Context) error {
	if d.carrier == nil || !d.spools() {
		return nil
	}
	if err := d.broken.Load(); err != nil {
		if d.carrier.Ready(ctx) == nil {
			return nil
		}
		return fmt.Errorf("neither Kafka nor the spool takes events: %w", *err)
	}
	usage := d.Usage()
	// A disk that somebody else has filled is no reason while all events go straight to Kafka.
	fill := float64(usage.Bytes) / float64(max(usage.Bytes+usage.Room, 1))
	if d.cfg.Spool.UnreadyFill == 1 || fill < d.cfg.Spool.UnreadyFill || d.busy.Load() == 0 && d.carrier.Ready(ctx) == nil {
		return nil
	}
	return fmt.Errorf("the spool in %s is %.0f%% full: see why Kafka does not take its events, or give it more room (delivery.spool.max_bytes, and the disk)",
		d.cfg.Spool.Dir, 100*fill)
}

// Spare returns why the service is ready without Kafka, or "" if it is not.
func (d *Delivery) Spare(context.Context) string {
	if d.carrier == nil || !d.spools() || d.broken.Load() != nil {
		return ""
	}
	return "the spool in " + filepath.Clean(d.cfg.Spool.Dir) + " takes what Kafka does not"
}

// allow asks the circuit breaker. The result is to be called with how it went: an error means that Kafka did not answer.
func (d *Delivery) allow() (func(error), error) {
	done, err := d.breaker.Allow()
	if err != nil {
		return nil, events.Errorf(events.Unavailable, "Kafka has not answered in time and is left alone for a moment: %w", err)
	}
	return done, nil
}

// outage returns an error if the verdicts on a parcel say that Kafka is away, rather than something about a topic or a message.
func (d *Delivery) outage(ctx context.Context, unsettled int, failure error) error {
	switch {
	case unsettled > 0:
		return errLate
	case failure != nil:
		return d.carrier.Ready(ctx)
	default:
		return nil
	}
}

// retryAfter is how long it takes until the spool has room again, as fast as it is emptied now.
func (d *Delivery) retryAfter() time.Duration {
	const least, most = time.Second, 5 * time.Minute
	rate := d.pace.drained()
	if rate <= 0 {
		return time.Minute
	}
	wait := time.Duration(float64(d.cfg.Spool.SegmentBytes) / rate * float64(time.Second))
	return min(max(wait, least), most)
}
