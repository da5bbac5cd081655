package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery/encode"
	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

// Delivery is the sink that makes events safe as the section says. Its life:
//
//  1. Start opens the spool and begins to drain the records that an earlier process left. If the spool cannot be
//     opened, the service starts all the same, and further attempts follow in the background.
//  2. Stop ends the drains, waits for the producer's reports, and closes the spool.
//
// Start and Stop are called once; the other methods are safe for concurrent use.
type Delivery struct {
	cfg      Config // as the service started with it; for the keys that need a restart
	terms    *configs.Value[*terms]
	producer produce.Producer
	encoder  *encode.Encoder
	log      *zap.Logger
	metrics  metrics
	times    times
	causes   *observability.Causes // why events could not be made safe

	buffer    *semaphore.Weighted // bytes of delivery.buffer
	records   *semaphore.Weighted // bytes of records on their way to the spool
	requests  pool
	spooling  *spooling
	letters   *deadLetters
	readiness *readiness
	rate      *rateLimiter // shared by all drains

	mu     sync.RWMutex
	topics map[string]*topic

	ctx    context.Context // cancelled when the drains must end
	cancel context.CancelFunc
	work   *panics.Group
}

// times are durations that the section does not configure. Tests set shorter ones.
type times struct {
	openFor               time.Duration // how long a breaker stays open
	reopen                time.Duration // the pause before another attempt to open the spool
	firstPause, lastPause time.Duration // of a drain, after an attempt that has delivered nothing
	slow                  time.Duration // how long a request waits for Kafka before readiness counts it as a failure
	doorShut              time.Duration // how long a request waits for the last records of its topic to leave the spool
	// counts is how long readiness takes an outcome as evidence for the next one.
	counts time.Duration
	// allFails is how long requests must do nothing but fail before the service is not ready. One topic in trouble, or
	// one bad moment, is no reason to turn all traffic away.
	allFails time.Duration
}

var usualTimes = times{
	openFor: time.Second, reopen: time.Second, firstPause: 100 * time.Millisecond, lastPause: 2 * time.Second,
	slow: 3 * time.Second, doorShut: 250 * time.Millisecond,
	counts: 5 * time.Second, allFails: time.Second,
}

// terms is what one configuration asks of the delivery.
type terms struct {
	Config
	modes  []mode              // by lane
	topics [modeCount][]string // the topics of the lanes with each mode; the topic of ordinary events is first
}

func newTerms(cfg Config, topics *produce.Topics) (*terms, error) {
	modes, err := cfg.modes()
	if err != nil {
		return nil, err
	}
	t := &terms{Config: cfg, modes: modes}
	for _, lane := range events.Lanes() {
		m := modes[lane]
		t.topics[m] = append(t.topics[m], encode.Topic(topics, lane))
	}
	return t, nil
}

// useSpool reports whether the spool may make the events of a lane safe.
func (t *terms) useSpool() bool { return len(t.topics[modeSpool])+len(t.topics[modeAuto]) > 0 }

// NewDelivery returns a delivery to the producer. The caller starts it with Start.
func NewDelivery(
	live *configs.Live, settings produce.Settings, producer produce.Producer, log *zap.Logger, scope tally.Scope,
) (*Delivery, error) {
	cfg, err := configs.SectionOf[Config](live.View().Set())
	if err != nil {
		return nil, err
	}
	terms, err := configs.NewValue(live, func(cfg Config) (*terms, error) { return newTerms(cfg, &settings.Topics) })
	if err != nil {
		return nil, err
	}
	d := &Delivery{
		cfg:      cfg,
		terms:    terms,
		producer: producer,
		encoder:  encode.NewEncoder(settings),
		log:      log,
		metrics:  newMetrics(scope),
		times:    usualTimes,
		causes:   observability.NewCauses(log, "events are answered 503", "events are made safe again", time.Minute),
		buffer:   semaphore.NewWeighted(int64(cfg.Buffer)),
		records:  semaphore.NewWeighted(int64(cfg.Buffer) / portionShare),
		rate:     newRateLimiter(func() DrainConfig { return terms.Now().Drain }),
		topics:   map[string]*topic{},
		work:     panics.NewGroup(log),
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.spooling = newSpooling(d)
	d.letters = &deadLetters{d: d, topic: settings.Topics.DLQ}
	d.readiness = newReadiness(d, settings.Topics)
	return d, configs.Follow(live, func(_, _ Config) (configs.Change, error) {
		return configs.Change{Commit: d.spooling.limit}, nil
	})
}

// String tells a human what a 200 means.
func (d *Delivery) String() string {
	text := "ack " + d.terms.Now().Ack
	if !d.spooling.isOpen() {
		return text + ", without a spool"
	}
	usage := d.spooling.usage()
	return fmt.Sprintf("%s, spool in %s (%s of %s)", text, d.cfg.Spool.Dir,
		configs.ByteSize(usage.Bytes).Approx(), configs.ByteSize(usage.Max).Approx())
}

// Start opens the spool and begins to drain it.
func (d *Delivery) Start(context.Context) error {
	d.work.Keep(d.ctx, "the measurement of the drains", d.measure)
	d.spooling.start()
	return nil
}

// topic returns the state of a topic, and makes it at the first use.
func (d *Delivery) topic(name string) *topic {
	d.mu.RLock()
	t := d.topics[name]
	d.mu.RUnlock()
	if t != nil {
		return t
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t = d.topics[name]; t == nil {
		t = &topic{name: name, breaker: breaker{openFor: d.times.openFor}}
		d.topics[name] = t
	}
	return t
}

// all returns the state of every topic that had any message.
func (d *Delivery) all() []*topic {
	d.mu.RLock()
	defer d.mu.RUnlock()
	topics := make([]*topic, 0, len(d.topics))
	for _, t := range d.topics {
		topics = append(topics, t)
	}
	return topics
}

// waits reports whether records of any topic wait in the spool.
func (d *Delivery) waits() bool {
	for _, t := range d.all() {
		if t.isWaiting() {
			return true
		}
	}
	return false
}

// Waiting returns how many records are in the spool and not yet in Kafka.
func (d *Delivery) Waiting() uint64 {
	waiting := uint64(0)
	for _, t := range d.all() {
		if s := t.spooler.Load(); s != nil {
			stats := s.log.Stats()
			waiting += stats.Records + stats.Pending
		}
	}
	return waiting
}

// Usage returns how much of the disk the spool takes, or the zero Usage while the spool is not open.
func (d *Delivery) Usage() spool.Usage { return d.spooling.usage() }

// Stop ends the drains, and closes the spool. Before it closes the spool, it waits until the producer has reported on
// all messages that it holds, or until stop_timeout or ctx is over. A record without a report by then stays in the
// spool, and the next process sends it again.
func (d *Delivery) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.StopTimeout, errors.New("delivery.stop_timeout is over"))
	defer cancel()
	d.spooling.stop()
	unsure := panics.Try(d.log, "the producer", func() error {
		if err := d.producer.Ready(); err != nil {
			return err // without Kafka no report will come
		}
		return d.producer.Flush(ctx)
	})
	select {
	case <-d.work.Ended():
	case <-ctx.Done():
	}
	for _, t := range d.all() {
		if s := t.spooler.Load(); s != nil {
			panics.Do(d.log, s.drain(), s.settle) // the next process sends again the records that are not settled
		}
	}
	if waiting := d.Waiting(); waiting > 0 {
		fields := []zap.Field{zap.Uint64("records", waiting), zap.String("dir", d.cfg.Spool.Dir)}
		if unsure != nil {
			fields = append(fields, zap.NamedError("some_may_be_sent_twice", unsure))
		}
		d.log.Info("events stay in the spool for the next process", fields...)
	}
	return d.spooling.close()
}

// pause waits, and reports whether the service goes on.
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

// retryAfter returns how long a client is asked to wait because of an error. 0 leaves the time to the client.
func (d *Delivery) retryAfter(why error) time.Duration {
	switch {
	case errors.Is(why, spool.ErrFull):
		return d.untilDrained(int64(d.cfg.Spool.SegmentBytes))
	case errors.Is(why, errWaits):
		return d.untilDrained(d.Usage().Bytes)
	case errors.Is(why, errOpen):
		return d.times.openFor
	default:
		return 0
	}
}

// untilDrained returns how long it takes until so many bytes of the spool, or all of them, are in Kafka. It returns 0
// if nothing waits, and a minute while Kafka does not answer, because then nobody knows.
func (d *Delivery) untilDrained(bytes int64) time.Duration {
	const unknown = time.Minute
	if !d.waits() {
		return 0
	}
	if d.producer.Ready() != nil {
		return unknown
	}
	// The measured rate is an average, and too low when the drain has just begun.
	rate := max(d.rate.drained(), float64(d.terms.Now().Drain.MinRate)/4)
	return min(drainTime(min(bytes, d.Usage().Bytes), rate), unknown)
}

// drainTime returns how long so many bytes take at a rate, at least a second.
func drainTime(bytes int64, rate float64) time.Duration {
	return max(time.Duration(float64(bytes)/rate*float64(time.Second)), time.Second)
}
