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

	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

// Producer writes messages to Kafka. Its life:
//
//  1. NewProducer checks everything that can be checked without a network, and reads certificates.
//  2. Start makes a first attempt to reach the cluster. If the attempt fails, Start succeeds all the same, and the
//     producer tries again in the background. Meanwhile Ready says why, and Produce fails every message at once.
//  3. Once connected, the producer asks the cluster every few seconds whether it still answers, and looks after the
//     topics.
//  4. Stop refuses new messages, waits for the reports on the messages that the producer holds, and says how many of
//     them were not acknowledged.
//
// Start and Stop are called once; the other methods are safe for concurrent use.
type Producer struct {
	cfg       Config
	bootstrap *Bootstrap
	core      *core
	log       *zap.Logger
	reached   *observability.Causes // whether the cluster answers
	renewed   *observability.Causes // whether changed certificates and passwords let in
	health    atomic.Pointer[health]

	login atomic.Pointer[identity] // that the next connection is made with; nil: that of the last one

	// The supervisor uses these:
	client  sarama.Client // nil: not connected
	section Config        // that config is made of
	config  *sarama.Config
	keeper  *topicKeeper
	files   *fileWatch // of certificates and passwords
	stale   bool       // the section or the files have changed since config was made

	started  atomic.Bool
	stopping atomic.Bool
	ctx      context.Context // over when Stop begins
	cancel   context.CancelFunc
	work     *panics.Group
}

var _ produce.Producer = (*Producer)(nil)

type metrics struct {
	latency  tally.Timer
	acked    tally.Counter
	failed   []tally.Counter // by produce.Class
	bytes    tally.Counter
	buffered tally.Gauge
}

// health is the result of the last look at the cluster.
type health struct {
	err error
	at  time.Time
}

const (
	// probeInterval is how often the producer asks the cluster whether it still answers.
	probeInterval = 2 * time.Second
	// staleAfter is the age at which a good answer no longer counts, because the question after it hangs.
	staleAfter = 15 * time.Second

	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second

	// logEvery is how often the producer logs one cause of failures.
	logEvery = time.Minute
)

// NewProducer returns a producer that is not connected. The scope records messages acknowledged
// ("messages_acked_total") and failed ("messages_failed_total", by class), bytes acknowledged ("bytes_total") and held
// ("buffered_bytes"), both before compression, and the time from the first message of a batch to its acknowledgement
// ("produce_seconds").
func NewProducer(cfg Config, bootstrap *Bootstrap, log *zap.Logger, scope tally.Scope) (*Producer, error) {
	files := newFileWatch(cfg.credentialFiles())
	config, err := producerConfig(cfg)
	if err != nil {
		return nil, err
	}
	m := &metrics{
		latency:  scope.Timer("produce_seconds"),
		acked:    scope.Counter("messages_acked_total"),
		bytes:    scope.Counter("bytes_total"),
		buffered: scope.Gauge("buffered_bytes"),
	}
	for _, class := range produce.Classes() {
		m.failed = append(m.failed,
			scope.Tagged(map[string]string{"class": class.String()}).Counter("messages_failed_total"))
	}
	causes := observability.NewCauses(log, "messages are not acknowledged", "messages are acknowledged again", logEvery)
	p := &Producer{
		cfg:       cfg,
		bootstrap: bootstrap,
		section:   cfg,
		config:    config,
		keeper:    newTopicKeeper(cfg.Topics, int(cfg.MaxMessageBytes), log),
		files:     files,
		core: newCore(coreConfig{
			maxBatch:   int(cfg.MaxMessageBytes),
			ackTimeout: cfg.AckTimeout,
			timeout:    config.Producer.Timeout,
			linger:     cfg.Linger,
			overflow:   cfg.Topics.Overflows(), overflowLinger: cfg.OverflowLinger,
			codec: config.Producer.Compression,
		}, log, causes, m),
		log: log,
		reached: observability.NewCauses(log, bootstrap.String()+" cannot be used, trying again in the background",
			"Kafka can be used again", logEvery),
		renewed: observability.NewCauses(log,
			"certificates or passwords have changed, and Kafka cannot be reached with them: "+
				"the connection with the old ones is kept",
			"Kafka is reached with the changed certificates and passwords", logEvery),
		work: panics.NewGroup(log),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.health.Store(&health{err: errNotConnected})
	return p, nil
}

// SetLogin has the producer connect anew with other certificates and another login. As long as the producer cannot
// reach Kafka with them, it keeps its present connection.
func (p *Producer) SetLogin(tls TLS, sasl SASL) { p.login.Store(&identity{tls, sasl}) }

// identity is what a connection is made with.
type identity struct {
	tls  TLS
	sasl SASL
}

// SetTopics has the producer look after other topics and create missing ones in another way, from its next look on.
func (p *Producer) SetTopics(topics produce.Topics) { p.keeper.next.Store(&topics) }

// String describes for a human where events go and, if they do not arrive there now, why.
func (p *Producer) String() string {
	text := p.bootstrap.String()
	if p.bootstrap.local == nil {
		text += ", topic " + p.cfg.Topics.Events
	}
	switch err := p.health.Load().err; {
	case err == nil:
		return text
	case errors.Is(err, errNotConnected):
		return text + " (not connected: no answer so far; the service goes on trying)"
	case errors.Is(err, errNoTopic):
		return text + " (" + err.Error() + ")"
	default:
		return text + " (not connected: " + observability.RootCause(err).Error() + "; the service goes on trying)"
	}
}

// Start begins to connect. It returns when the first attempt has ended, or when connect_timeout, a second or ctx is
// over. It succeeds even if the cluster cannot be reached.
func (p *Producer) Start(ctx context.Context) error {
	p.started.Store(true)
	p.core.start()
	first := make(chan struct{})
	attempted := sync.OnceFunc(func() { close(first) })
	p.work.Keep(p.ctx, "the supervision of the connection to Kafka", func(ctx context.Context) {
		p.supervise(ctx, p.bootstrap.Addresses(), attempted)
	})
	patience := time.NewTimer(p.cfg.StartBudget())
	defer patience.Stop()
	select {
	case <-first:
	case <-patience.C:
	case <-ctx.Done():
	}
	return nil
}

// supervise connects, however long that takes, and then looks after the connection until ctx is over. It calls
// attempted after the first attempt. A panic in supervise drops the connection; the next call of supervise makes
// another one.
func (p *Producer) supervise(ctx context.Context, addresses []string, attempted func()) {
	ended := false
	defer func() {
		client := p.client
		p.client = nil
		if !ended {
			p.core.setClient(nil, errUnsupervised)
			p.health.Store(&health{err: errUnsupervised, at: time.Now()})
		}
		if client != nil {
			p.close(client)
		}
	}()
	if !p.keepConnecting(ctx, addresses, attempted) {
		ended = true
		return
	}
	probe := time.NewTicker(probeInterval)
	defer probe.Stop()
	for {
		select {
		case <-ctx.Done():
			ended = true
			return
		case <-probe.C:
			p.reconnect(addresses)
			p.report(p.keeper.look(p.client))
			p.core.recount(p.client)
		}
	}
}

var errUnsupervised = errors.New("the supervision of the connection panicked and begins anew: see the log")

// keepConnecting tries to connect until an attempt succeeds. It returns false if ctx is over first.
func (p *Producer) keepConnecting(ctx context.Context, addresses []string, attempted func()) bool {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		client, err := p.connect(addresses)
		if err != nil {
			p.core.setClient(nil, err)
		} else {
			p.client = client
			p.core.setClient(client, nil)
			err = p.keeper.look(client)
		}
		p.report(err)
		attempted()
		if client != nil {
			return true
		}
		// Jitter spreads the attempts of a fleet of services when a cluster comes back.
		retry := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
			retry.Stop()
			return false
		case <-retry.C:
		}
	}
}

// isStale reports whether the client's configuration must be made anew, because the section or the content of the
// files has changed.
func (p *Producer) isStale() bool {
	if next := p.login.Swap(nil); next != nil {
		p.section.TLS, p.section.SASL = next.tls, next.sasl
		p.files = newFileWatch(p.section.credentialFiles())
		p.stale = true
	}
	p.stale = p.files.Changed() || p.stale
	return p.stale
}

// connect makes one attempt to reach the cluster with the present content of the files of certificates and passwords,
// and to create the topics that are missing.
func (p *Producer) connect(addresses []string) (sarama.Client, error) {
	if p.isStale() {
		config, err := producerConfig(p.section)
		if p.stale = err != nil; p.stale {
			return nil, err
		}
		p.config = config
	}
	client, err := dial(p.ctx, addresses, p.keeper.topics.Events, p.config)
	if err != nil {
		return nil, err
	}
	useful := false
	defer func() {
		if !useful {
			p.close(client)
		}
	}()
	if err := p.keeper.look(client); err != nil && !errors.Is(err, errNoTopic) {
		return nil, err
	}
	p.keeper.awaitLeaders(client)
	useful = true
	return client, nil
}

// reconnect connects anew if certificates or passwords have changed. The core sends the batches in flight with the old
// client again with the new one. Kafka recognises a batch that it has already.
func (p *Producer) reconnect(addresses []string) {
	if !p.isStale() {
		return
	}
	p.stale = true // connect reads the files
	renewed, err := p.connect(addresses)
	p.renewed.Log(err)
	if err != nil {
		p.stale = true
		return
	}
	p.log.Info("connected to Kafka anew, with the changed certificates and passwords")
	before := p.client
	p.client = renewed
	p.core.setClient(renewed, nil)
	p.close(before)
}

func (p *Producer) close(client sarama.Client) {
	if err := client.Close(); err != nil && !errors.Is(err, sarama.ErrClosedClient) {
		p.log.Warn("closing the connection to Kafka", zap.Error(err))
	}
}

// report stores the result of a look at the cluster.
func (p *Producer) report(err error) {
	var caught *panics.Error
	if errors.As(err, &caught) { // in a callback of sarama's, such as that of a login
		panics.Log(p.log, "the connection to Kafka", caught)
	}
	before := p.health.Swap(&health{err: err, at: time.Now()})
	if err == nil && errors.Is(before.err, errNotConnected) {
		p.log.Info("connected to Kafka", zap.Stringer("brokers", p.bootstrap))
	}
	p.reached.Log(err)
}

// Ready implements produce.Producer. It tells the result of the last look at the cluster.
func (p *Producer) Ready() error {
	seen := p.health.Load()
	if seen.err != nil {
		return fmt.Errorf("%s: %w", p.bootstrap, seen.err)
	}
	if age := time.Since(seen.at); age > staleAfter {
		return fmt.Errorf("%s: no answer for %s", p.bootstrap, age.Round(time.Second))
	}
	return nil
}

// Produce implements produce.Producer. A message that is not acknowledged within ack_timeout fails. Before the first
// connection, and after Stop has begun, every message fails at once.
func (p *Producer) Produce(messages []produce.Message, report func(i int, err error)) {
	p.core.produce(messages, report)
}

// Flush implements produce.Producer.
func (p *Producer) Flush(ctx context.Context) error { return p.core.flush(ctx) }

// Stop refuses new messages, waits until the messages that the producer holds have their reports or until flush_timeout
// or ctx is over, and closes the connection. It waits for no report while Kafka does not answer. Each message has its
// report, which tells its owner whether the message must be kept elsewhere. Stop logs how many messages were not
// acknowledged.
func (p *Producer) Stop(ctx context.Context) error {
	if p.stopping.Swap(true) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.FlushTimeout)
	defer cancel()
	p.core.refuse()
	if p.Ready() == nil {
		patience, done := context.WithTimeout(ctx, p.cfg.FlushTimeout*9/10)
		defer done()
		_ = p.core.flush(patience) // core.close returns how many messages are left
	}
	if unflushed := p.core.close(); unflushed > 0 {
		p.log.Warn("messages were not acknowledged before the end: "+
			"what is not in the spool is lost, or is sent again by its client",
			zap.Int("messages", unflushed))
	}
	p.cancel()
	if p.started.Load() {
		wait(ctx, p.work.Ended())
	}
	wait(ctx, p.core.work.Ended())
	return nil
}

// wait returns when the channel is closed or ctx is over.
func wait(ctx context.Context, closed <-chan struct{}) {
	select {
	case <-closed:
	case <-ctx.Done():
	}
}
