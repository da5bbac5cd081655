package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/produce"
)

// core takes messages, gathers them by partition and sends them as batches. It uses sarama for connections, metadata and the
// encoding of requests.
//
//   - A partition has one batch in flight at most. What comes meanwhile is gathered and becomes the next one.
//   - A link, which is the connection to one broker, has one request in flight at most. It holds a batch of each of the
//     broker's partitions that have one. A request goes out at once when none is in flight.
//   - What becomes of a batch is decided by rules. Its messages have their reports before anything behind them is sent.
//
// One mutex guards all of it. No goroutine holds that while it encodes, uses the network or reports.
type core struct {
	cfg     coreConfig
	log     *zap.Logger // at most one line in a while for each text
	metrics *metrics

	mu     sync.Mutex
	client sarama.Client // nil: not connected
	why    error         // why there is no client
	topics map[string]*topic
	links  map[int32]*link
	parked map[*partition]struct{}
	id     producerID
	// unreported counts the messages that have no report yet.
	unreported int
	buffered   int64         // bytes of these
	flushed    chan struct{} // closed when unreported becomes 0; nil: nobody waits for that
	refusing   bool          // Produce fails
	closed     bool          // nothing is sent again
	// ended are the messages that whoever holds mu has ended, until unlock reports them.
	ended []ending
	// free is memory for batches and endings.
	freeBatches [][]entry
	freeEndings [][]ending

	alarm   *time.Timer // for parked partitions
	alarmAt time.Time

	resolve chan struct{} // ticked when there is something to ask the cluster
	done    chan struct{} // closed by close
	work    sync.WaitGroup
}

// coreConfig is what the core takes from the section.
type coreConfig struct {
	maxBatch   int           // bytes of a batch, before compression
	ackTimeout time.Duration // from produce to report
	timeout    time.Duration // how long a broker may wait for replicas
	linger     time.Duration
	codec      sarama.CompressionCodec
}

const (
	// maxRequest is how many bytes of batches a request has at most, unless a single batch has more.
	maxRequest = 16 << 20
	// missingPatience is how long messages wait for a topic that is said not to exist, such as one that was just created.
	missingPatience = time.Second
	// limitRelaxes is how long it takes until a topic that has refused large batches is offered larger ones again.
	limitRelaxes = time.Minute
)

var (
	errClosed       = produce.Errorf(produce.Unavailable, "kafka: the producer is stopping")
	errNotConnected = errors.New("not connected yet")
)

func newCore(cfg coreConfig, log *zap.Logger, metrics *metrics) *core {
	c := &core{
		cfg: cfg, log: log, metrics: metrics,
		why:     errNotConnected,
		topics:  map[string]*topic{},
		links:   map[int32]*link{},
		parked:  map[*partition]struct{}{},
		id:      noProducerID,
		resolve: make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	c.alarm = time.AfterFunc(time.Hour, c.ring)
	c.alarm.Stop()
	c.work.Go(c.resolveAll)
	return c
}

// produce implements produce.Producer.
func (c *core) produce(messages []produce.Message, report func(int, error)) {
	if len(messages) == 0 {
		return
	}
	now := time.Now()
	c.mu.Lock()
	if c.refusing || c.client == nil {
		err := error(errClosed)
		if !c.refusing {
			err = produce.Errorf(produce.Unavailable, "not connected to Kafka: %w", c.why)
		}
		c.mu.Unlock()
		c.metrics.failed[produce.Unavailable].Inc(int64(len(messages)))
		for i := range messages {
			report(i, err)
		}
		return
	}
	c.unreported += len(messages)
	bytes := 0
	spread := spreader{core: c, now: now}
	for i := range messages {
		m := &messages[i]
		e := entry{message: m, report: report, index: i, size: m.Size(), at: now}
		bytes += e.size
		spread.add(c.topic(m.Topic), e)
	}
	spread.end()
	c.buffered += int64(bytes)
	c.unlock()
}

// spreader puts messages into the partitions that they belong to.
type spreader struct {
	core    *core
	now     time.Time
	topic   *topic
	unkeyed *partition // for the topic's messages without a key
	last    *partition // has messages, and is not placed yet
}

// add puts a message into its partition, or into the topic's waiting room while the partitions are not known.
func (s *spreader) add(t *topic, e entry) {
	if t != s.topic {
		s.topic, s.unkeyed = t, nil
	}
	if len(t.partitions) == 0 {
		t.waiting.push(e)
		s.core.setAlarm(e.at.Add(s.core.cfg.ackTimeout))
		s.core.ask()
		return
	}
	var p *partition
	if e.message.Key != nil {
		p = t.partitions[partitionOf(e.message.Key, len(t.partitions))]
	} else {
		if s.unkeyed == nil {
			s.unkeyed = t.unkeyed()
		}
		p = s.unkeyed
	}
	if p != s.last {
		s.end()
	}
	p.waiting.push(e)
	s.last = p
}

// end places the partition that the last messages went into. They are together by now, and so are sent together.
func (s *spreader) end() {
	if s.last != nil {
		s.core.place(s.last, s.now)
		s.last = nil
	}
}

// ask has resolveAll look what there is to ask the cluster.
func (c *core) ask() {
	select {
	case c.resolve <- struct{}{}:
	default:
	}
}

// topic returns the topic of that name. The caller holds mu.
func (c *core) topic(name string) *topic {
	t := c.topics[name]
	if t == nil {
		t = &topic{name: name, limit: c.cfg.maxBatch}
		c.topics[name] = t
	}
	return t
}

// unkeyed returns the partition for messages without a key: another one for every call of produce, of those that are not known
// to be in trouble, if there is one.
func (t *topic) unkeyed() *partition {
	n := len(t.partitions)
	if t.sticky == 0 {
		t.sticky = rand.IntN(n)
	}
	for range n {
		t.sticky++
		if p := t.partitions[t.sticky%n]; p.link != nil && p.attempts == 0 {
			return p
		}
	}
	return t.partitions[t.sticky%n]
}

// place puts a partition that is not sending where it belongs by what waits in it. The caller holds mu.
func (c *core) place(p *partition, now time.Time) {
	switch {
	case p.state == sending || p.state == ready:
		return
	case p.isEmpty():
		c.unpark(p, idle)
		return
	case p.link == nil || c.id == noProducerID:
		c.park(p, p.oldest().Add(c.cfg.ackTimeout))
		c.ask()
		return
	}
	until := p.notUntil
	if c.cfg.linger > 0 && len(p.batch) == 0 && p.waiting.bytes < p.topic.limit {
		if full := p.oldest().Add(c.cfg.linger); full.After(until) {
			until = full
		}
	}
	if until.After(now) {
		c.park(p, until)
		return
	}
	c.unpark(p, ready)
	p.link.ready = append(p.link.ready, p)
	if !p.link.inFlight {
		p.link.work.Signal()
	}
}

// park lets the partition wait until then, or until something else places it.
func (c *core) park(p *partition, until time.Time) {
	p.state = parked
	c.parked[p] = struct{}{}
	c.setAlarm(until)
}

// setAlarm has ring called then, or earlier.
func (c *core) setAlarm(at time.Time) {
	if c.alarmAt.IsZero() || at.Before(c.alarmAt) {
		c.alarmAt = at
		c.alarm.Reset(max(time.Until(at), time.Millisecond))
	}
}

func (c *core) unpark(p *partition, to state) {
	if p.state == parked {
		delete(c.parked, p)
	}
	p.state = to
}

// ring places the parked partitions whose time has come, and gives up what has waited too long.
func (c *core) ring() {
	now := time.Now()
	c.mu.Lock()
	c.alarmAt = time.Time{}
	for p := range c.parked {
		if c.expired(p.oldest(), now) {
			c.giveUp(p, p.class, p.cause)
			continue
		}
		c.place(p, now)
	}
	for _, t := range c.topics {
		if t.waiting.len() == 0 {
			continue
		}
		oldest := t.waiting.entries[t.waiting.head].at
		if c.expired(oldest, now) {
			c.failTopic(t, produce.Errorf(produce.Timeout, "topic %s: Kafka did not say where its partitions are", t.name))
			continue
		}
		c.setAlarm(oldest.Add(c.cfg.ackTimeout))
	}
	c.unlock()
}

// expired reports whether a message that was produced then has waited for its acknowledgement long enough.
func (c *core) expired(at, now time.Time) bool { return c.closed || now.Sub(at) >= c.cfg.ackTimeout }

// giveUp fails everything that waits in a partition, in its order: the batch for the cause, and what is behind it because of
// that. Should Kafka have appended the batch all the same, or append it later, then it must not take what comes next for a copy
// of it: that gets numbers of another epoch.
func (c *core) giveUp(p *partition, class produce.Class, cause error) {
	if cause == nil {
		class, cause = produce.Timeout, errors.New("the partition has no leader")
	}
	err := produce.Errorf(class, "topic %s, partition %d: %w", p.topic.name, p.id, cause)
	batch, unsure := p.batch, p.unsure
	p.batch = nil
	if len(batch) == 0 {
		batch = p.waiting.shift(c.batchMemory(), c.cfg.maxBatch, p.waiting.len())
	}
	behind := p.waiting.shift(c.batchMemory(), p.waiting.bytes, p.waiting.len())
	if unsure && p.numbering == c.id {
		c.renewEpoch()
	}
	p.settled()
	p.suspects = 0
	c.unpark(p, sending) // nothing new is sent before these reports
	c.end(p, batch, err)
	c.end(p, behind, produce.Errorf(produce.Behind, "a message in front of this one was not acknowledged: %w", err))
}

// renewEpoch gives the numbers to come another epoch, or, when there is no further one, another producer id.
func (c *core) renewEpoch() {
	if c.id == noProducerID {
		return
	}
	if c.id.epoch == math.MaxInt16 {
		c.renewID()
		return
	}
	c.id.epoch++
}

// renewID asks Kafka for another producer id.
func (c *core) renewID() {
	c.id = noProducerID
	c.ask()
}

// failTopic fails all that waits for a topic.
func (c *core) failTopic(t *topic, err error) {
	c.end(nil, t.waiting.shift(c.batchMemory(), t.waiting.bytes, t.waiting.len()), err)
}

// ending is messages that have the same report.
type ending struct {
	entries []entry
	err     error
	// held is a partition that sends nothing until the reports are made; nil: none does.
	held *partition
}

// end ends messages: unlock reports them. The caller holds mu.
func (c *core) end(held *partition, entries []entry, err error) {
	if c.ended == nil && len(c.freeEndings) > 0 {
		n := len(c.freeEndings) - 1
		c.ended, c.freeEndings = c.freeEndings[n], c.freeEndings[:n]
	}
	c.ended = append(c.ended, ending{entries: entries, err: err, held: held})
}

// batchMemory returns an empty slice for the entries of a batch. The caller holds mu.
func (c *core) batchMemory() []entry {
	if n := len(c.freeBatches); n > 0 {
		memory := c.freeBatches[n-1]
		c.freeBatches = c.freeBatches[:n-1]
		return memory
	}
	return nil
}

// unlock lets go of mu and reports the messages that were ended.
func (c *core) unlock() {
	ended := c.ended
	c.ended = nil
	buffered := c.buffered
	c.mu.Unlock()
	if ended == nil {
		c.metrics.buffered.Update(float64(buffered))
		return
	}
	count, bytes := 0, 0
	for i := range ended {
		n := c.report(&ended[i])
		count, bytes = count+len(ended[i].entries), bytes+n
	}
	const kept = 64
	now := time.Now()
	c.mu.Lock()
	c.unreported -= count
	c.buffered -= int64(bytes)
	if c.unreported == 0 && c.flushed != nil {
		close(c.flushed)
		c.flushed = nil
	}
	for i := range ended {
		if p := ended[i].held; p != nil && p.state == sending {
			p.state = idle
			c.place(p, now)
		}
		if memory := ended[i].entries; cap(memory) > 0 && len(c.freeBatches) < kept {
			clear(memory)
			c.freeBatches = append(c.freeBatches, memory[:0])
		}
	}
	clear(ended)
	if len(c.freeEndings) < kept {
		c.freeEndings = append(c.freeEndings, ended[:0])
	}
	c.unlock()
}

// report reports the messages of an ending and counts them, and returns how many bytes they have.
func (c *core) report(e *ending) (bytes int) {
	for i := range e.entries {
		bytes += e.entries[i].size
		e.entries[i].report(e.entries[i].index, e.err)
	}
	n := int64(len(e.entries))
	switch {
	case n == 0:
	case e.err == nil:
		c.metrics.acked.Inc(n)
		c.metrics.bytes.Inc(int64(bytes))
		c.metrics.latency.Record(time.Since(e.entries[0].at))
	default:
		c.metrics.failed[produce.ClassOf(e.err)].Inc(n)
	}
	return bytes
}

// flush implements produce.Producer.
func (c *core) flush(ctx context.Context) error {
	c.mu.Lock()
	if c.unreported == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.flushed == nil {
		c.flushed = make(chan struct{})
	}
	flushed := c.flushed
	c.mu.Unlock()
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kafka: messages have no report yet: %w", context.Cause(ctx))
	}
}
