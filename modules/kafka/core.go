package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/kafka/batch"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

// core takes messages, gathers them by partition and sends them as batches, which package batch makes. It uses sarama
// for connections, metadata and the encoding of requests.
//
//   - A partition has one batch in flight at most. Messages that come meanwhile wait for the partition's next batch.
//   - A link, which is the connection to one broker, has one request in flight at most. The request holds one batch of
//     each of the broker's partitions that have messages. A link without a request in flight sends the next one at
//     once.
//   - The rules decide what an answer means for a batch. The messages of a batch have their reports before any message
//     behind them is sent.
//
// One mutex, mu, guards all of it. No goroutine holds mu while it encodes, uses the network or reports. A function that
// locks mu defers unlock. After a panic of a goroutine that holds mu, nothing that mu guards can be trusted, and the
// core begins anew.
type core struct {
	cfg     coreConfig
	log     *zap.Logger
	causes  *observability.Causes // why messages fail
	metrics *metrics

	mu     sync.Mutex
	client sarama.Client // nil: not connected
	why    error         // why there is no client
	topics map[string]*topic
	links  map[int32]*link
	parked map[*partition]struct{}
	id     batch.Producer
	flying int // requests in flight
	// panicked is why the core has begun anew. Produce fails until the batches that were in flight then have their
	// reports. Nil: the core has not begun anew.
	panicked error
	// unreported counts the messages that have no report yet.
	unreported int
	buffered   int64         // bytes of the unreported messages
	flushed    chan struct{} // closed when unreported becomes 0; nil: nobody waits
	refusing   bool          // Produce fails
	closed     bool          // nothing is sent again
	// ended holds the messages that a holder of mu has ended. The unlock of that holder reports them.
	ended []ending
	// freeBatches and freeEndings are memory for batches and endings.
	freeBatches [][]entry
	freeEndings [][]ending

	began   time.Time   // the turns of topics are counted from here
	alarm   *time.Timer // for parked partitions
	alarmAt time.Time

	resolve chan struct{}   // ticked when there is a question to the cluster
	ctx     context.Context // over when close begins
	cancel  context.CancelFunc
	work    *panics.Group
}

// coreConfig is the part of the section that the core takes.
type coreConfig struct {
	maxBatch   int           // bytes of a batch, before compression
	ackTimeout time.Duration // from produce to report
	timeout    time.Duration // how long a broker may wait for replicas
	linger     time.Duration
	// overflow are the topics whose messages are sent at intervals of overflowLinger: those of all partitions together,
	// so that they take few requests.
	overflow       []string
	overflowLinger time.Duration
	codec          sarama.CompressionCodec
}

const (
	// maxRequest is the most bytes of batches in a request, unless a single batch has more.
	maxRequest = 4 << 20
	// missingPatience is how long messages wait for a topic that the cluster says does not exist. A topic that was
	// created just now is such a topic.
	missingPatience = time.Second
	// limitRelaxes is how long a topic that has refused large batches is spared before it is offered larger ones again.
	limitRelaxes = time.Minute
)

var (
	errClosed       = produce.Errorf(produce.Unavailable, "kafka: the producer is stopping")
	errNotConnected = errors.New("not connected yet")
)

// These are the names, in the log, of the work that panics.
const (
	producing  = "the producer"
	resolving  = "the producer's questions about topics"
	connecting = "the producer's connection to a broker"
	reporting  = "who takes the producer's reports"
)

func newCore(cfg coreConfig, log *zap.Logger, causes *observability.Causes, metrics *metrics) *core {
	c := &core{
		cfg: cfg, log: log, causes: causes, metrics: metrics,
		why:     errNotConnected,
		topics:  map[string]*topic{},
		links:   map[int32]*link{},
		parked:  map[*partition]struct{}{},
		id:      batch.NoProducer,
		resolve: make(chan struct{}, 1),
		work:    panics.NewGroup(log),
		began:   time.Now(),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.alarm = panics.AfterFunc(log, producing, time.Hour, c.ring)
	c.alarm.Stop()
	return c
}

// start starts resolveAll, which asks the cluster what the core has to know.
func (c *core) start() { c.work.Keep(c.ctx, resolving, c.resolveAll) }

// produce implements produce.Producer.
func (c *core) produce(messages []produce.Message, report func(int, error)) {
	if len(messages) == 0 {
		return
	}
	if err := c.take(messages, report); err != nil {
		c.metrics.failed[produce.Unavailable].Inc(int64(len(messages)))
		for i := range messages {
			c.tell(report, i, err)
		}
	}
}

// take takes the messages, or returns why it takes none.
func (c *core) take(messages []produce.Message, report func(int, error)) error {
	now := time.Now()
	s := spreader{core: c, now: now}
	c.mu.Lock()
	defer s.unlock(messages, report)
	if err := c.refusal(); err != nil {
		return err
	}
	c.unreported += len(messages)
	s.taken = len(messages)
	for i := range messages {
		m := &messages[i]
		s.add(c.topic(m.Topic), entry{message: m, report: report, index: i, size: m.Size(), at: now})
	}
	s.end()
	return nil
}

// refusal returns why the core takes no messages, or nil if it takes them. The caller holds mu.
func (c *core) refusal() error {
	if c.flying == 0 {
		c.panicked = nil
	}
	switch {
	case c.refusing:
		return errClosed
	case c.client == nil:
		return produce.Errorf(produce.Unavailable, "not connected to Kafka: %w", c.why)
	default:
		return c.panicked
	}
}

// spreader puts messages into their partitions.
type spreader struct {
	core    *core
	now     time.Time
	topic   *topic
	call    time.Time  // when the last message was produced
	unkeyed *partition // the partition for the unkeyed messages of one call and topic
	last    *partition // has messages and is not placed yet

	taken, spread int // how many messages
	bytes         int // of the messages that are spread
}

// unlock is the core's unlock for a spreader. After a panic of the spreader, the messages that it has not spread fail.
func (s *spreader) unlock(messages []produce.Message, report func(int, error)) {
	caught := panics.Caught(recover())
	s.core.buffered += int64(s.bytes)
	var rest []entry
	for i := s.spread; i < s.taken; i++ {
		rest = append(rest, entry{message: &messages[i], report: report, index: i, at: s.now})
	}
	s.core.letGo(caught, nil, rest)
}

// pushed counts a message that add has pushed into a queue.
func (s *spreader) pushed(e *entry) {
	s.spread++
	s.bytes += e.size
}

// add puts a message into its partition, or into the topic's queue while the topic's partitions are not known.
func (s *spreader) add(t *topic, e entry) {
	if t != s.topic || e.at != s.call {
		s.topic, s.call, s.unkeyed = t, e.at, nil
	}
	if len(t.partitions) == 0 || t.held {
		t.waiting.push(e)
		s.pushed(&e)
		s.core.setAlarm(e.at.Add(s.core.cfg.ackTimeout))
		if t.waiting.len() == 1 {
			s.core.ask()
		}
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
	s.pushed(&e)
	s.last = p
}

// end places the partition that the last messages went into. The messages are together by then, so that one batch takes
// them.
func (s *spreader) end() {
	if s.last != nil {
		s.core.place(s.last, s.now)
		s.last = nil
	}
}

// ask wakes resolveAll to ask the cluster what the core has to know.
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
		if slices.Contains(c.cfg.overflow, name) {
			t.turn = c.cfg.overflowLinger
		}
		c.topics[name] = t
	}
	return t
}

// unkeyed returns the partition for messages without a key. Each call of produce gets another partition. A partition
// that is not known to be in trouble comes first.
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

// place moves a partition that is not sending to the state that its messages call for. The caller holds mu.
func (c *core) place(p *partition, now time.Time) {
	switch {
	case p.state == sending || p.state == ready:
		return
	case p.isEmpty():
		c.unpark(p, idle)
		return
	case p.gone:
		c.giveUp(p, produce.Unavailable, errGone)
		return
	case c.closed:
		c.giveUp(p, produce.Unavailable, errClosed)
		return
	case p.link == nil || c.id == batch.NoProducer:
		if p.state != parked {
			c.ask() // a question about a parked partition is open already
		}
		c.park(p, p.oldest().Add(c.cfg.ackTimeout))
		return
	}
	until := p.notUntil
	gathers := (c.cfg.linger > 0 || p.topic.turn > 0) && !c.refusing // a stop waits for no others
	if gathers && len(p.batch) == 0 && p.waiting.bytes < p.topic.limit {
		until = later(until, c.gathered(p))
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

// gathered returns when the messages of a partition have waited long enough for others.
func (c *core) gathered(p *partition) time.Time {
	oldest := p.oldest()
	until := oldest.Add(c.cfg.linger)
	if turn := p.topic.turn; turn > 0 {
		until = later(until, c.began.Add(oldest.Sub(c.began).Truncate(turn)+turn))
	}
	return until
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// park lets the partition wait until the given time, or until another call places it.
func (c *core) park(p *partition, until time.Time) {
	p.state = parked
	c.parked[p] = struct{}{}
	c.setAlarm(until)
}

// setAlarm arranges that ring is called at the given time, or earlier.
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

// ring places the parked partitions whose time has come, and gives up messages that have waited too long.
func (c *core) ring() {
	now := time.Now()
	c.mu.Lock()
	defer c.unlock()
	c.alarmAt = time.Time{}
	for p := range c.parked {
		if c.expired(p.oldest(), now) {
			c.giveUp(p, p.class, p.cause)
			continue
		}
		c.place(p, now)
	}
	for _, t := range c.topics {
		if t.waiting.len() == 0 || t.held {
			continue
		}
		oldest := t.waiting.entries[t.waiting.head].at
		if c.expired(oldest, now) {
			cause := t.cause
			if cause == nil {
				cause = errors.New("its partitions are not known")
			}
			c.failTopic(t, produce.Errorf(produce.Timeout, "topic %s: %w", t.name, cause))
			continue
		}
		c.setAlarm(oldest.Add(c.cfg.ackTimeout))
	}
}

// expired reports whether a message that was produced at the given time has waited for its acknowledgement long enough.
func (c *core) expired(at, now time.Time) bool { return c.closed || now.Sub(at) >= c.cfg.ackTimeout }

// giveUp fails every message of a partition, in order. The messages of the batch fail for the cause. The messages
// behind the batch fail because the batch did, also the messages that are produced while giveUp's reports are made.
func (c *core) giveUp(p *partition, class produce.Class, cause error) {
	switch {
	case cause != nil:
	case c.client == nil:
		class, cause = produce.Timeout, fmt.Errorf("not connected to Kafka: %w", c.why)
	case p.link == nil:
		class, cause = produce.Timeout, errors.New("the partition has no leader")
	default:
		class, cause = produce.Timeout, errors.New("what is in front of it was not acknowledged in time")
	}
	err := produce.Errorf(class, "topic %s, partition %d: %w", p.topic.name, p.id, cause)
	batch := p.batch
	if len(batch) == 0 {
		batch = p.waiting.shift(c.batchMemory(), c.cfg.maxBatch, p.waiting.len())
	}
	unsure := p.unsure
	p.settled()
	c.end(ending{entries: batch, err: err})
	if unsure {
		c.abandonNumbers(p)
	}
	p.suspects = 0
	c.unpark(p, sending) // no message is sent before these reports
	c.failBehind(p, produce.Errorf(produce.Behind, "a message in front of this one was not acknowledged: %w", err))
}

// failBehind fails the messages behind a batch that has failed.
func (c *core) failBehind(p *partition, err error) {
	behind := p.waiting.shift(c.batchMemory(), p.waiting.bytes, p.waiting.len())
	c.end(ending{entries: behind, err: err, partition: p, failsRest: true})
}

// abandonNumbers numbers the partition's next batch under another epoch. Kafka may have appended the messages that have
// the present numbers, or may yet append them, and would take other messages with these numbers for a copy.
func (c *core) abandonNumbers(p *partition) {
	if p.numbering == c.id {
		c.renewEpoch()
	}
	p.numbering, p.unsure = batch.NoProducer, false
}

// renewEpoch takes the next epoch for the batches that are numbered from now on. After the last epoch it takes another
// producer id.
func (c *core) renewEpoch() {
	if c.id == batch.NoProducer {
		return
	}
	if c.id.Epoch == math.MaxInt16 {
		c.renewID()
		return
	}
	c.id.Epoch++
}

// renewID asks Kafka for another producer id.
func (c *core) renewID() {
	c.id = batch.NoProducer
	c.ask()
}

// failTopic fails all messages that wait for a topic, also those that are produced while its reports are made.
func (c *core) failTopic(t *topic, err error) {
	if t.held || t.waiting.len() == 0 {
		return
	}
	t.held = true
	entries := t.waiting.shift(c.batchMemory(), t.waiting.bytes, t.waiting.len())
	c.end(ending{entries: entries, err: err, topic: t, failsRest: true})
}

// ending is a list of messages that have the same report.
type ending struct {
	entries []entry
	err     error
	// partition sends nothing until the reports are made, and topic spreads no messages over its partitions until then.
	// Nil: nothing is held.
	partition *partition
	topic     *topic
	// failsRest is set if messages that are produced while the reports are made fail as well. Their producer does not
	// know yet that a message in front of them has failed.
	failsRest bool
}

// end ends messages; the next unlock reports them. The caller holds mu.
func (c *core) end(e ending) {
	if c.ended == nil && len(c.freeEndings) > 0 {
		n := len(c.freeEndings) - 1
		c.ended, c.freeEndings = c.freeEndings[n], c.freeEndings[:n]
	}
	c.ended = append(c.ended, e)
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

// unlock reports the ended messages without holding mu, and then unlocks mu. The caller defers it.
func (c *core) unlock() { c.letGo(panics.Caught(recover()), nil, nil) }

// letGo is unlock for all callers. caught is the panic of the caller, or nil. For a panic in the code of a link, in is
// that link. For a panic of a spreader, rest holds the messages that are in no queue.
func (c *core) letGo(caught *panics.Error, in *link, rest []entry) {
	defer c.mu.Unlock()
	for {
		if caught != nil {
			c.beginAnew(caught, in)
			c.end(ending{entries: rest, err: anew(caught)})
		}
		if caught = c.reportEnded(); caught == nil {
			break
		}
		in, rest = nil, nil
	}
	c.metrics.buffered.Update(float64(c.buffered))
}

// reportEnded reports the ended messages, and the messages that end because of these reports. It unlocks mu while it
// reports.
func (c *core) reportEnded() (caught *panics.Error) {
	defer func() { caught = panics.Caught(recover()) }()
	const kept, keptEntries = 64, 4096
	for c.ended != nil {
		ended := c.ended
		c.ended = nil
		c.mu.Unlock()
		count, bytes := 0, 0
		for i := range ended {
			count += len(ended[i].entries)
			bytes += c.report(&ended[i])
		}
		now := time.Now()
		c.mu.Lock()
		c.unreported -= count
		c.buffered -= int64(bytes)
		if c.unreported == 0 && c.flushed != nil {
			close(c.flushed)
			c.flushed = nil
		}
		for i := range ended {
			c.resume(&ended[i], now)
			if memory := ended[i].entries; cap(memory) > 0 && cap(memory) <= keptEntries && len(c.freeBatches) < kept {
				clear(memory)
				c.freeBatches = append(c.freeBatches, memory[:0])
			}
		}
		clear(ended)
		if len(c.freeEndings) < kept {
			c.freeEndings = append(c.freeEndings, ended[:0])
		}
	}
	return nil
}

// anew is the report on a message that the core gives up when it begins anew. Kafka may have the message.
func anew(caught *panics.Error) error {
	return produce.Errorf(produce.Unavailable, "the producer begins anew: %w", caught)
}

// beginAnew gives up the state of the core after a panic of a goroutine that held mu. It reports every message, except
// the messages of requests in flight, which get their reports from the answers. The core then makes its topics,
// partitions and links anew, and numbers batches in another epoch. in is the link whose code has panicked, or nil. The
// caller holds mu.
func (c *core) beginAnew(caught *panics.Error, in *link) {
	panics.Log(c.log, producing, caught)
	err := anew(caught)
	if in != nil && !in.inFlight {
		for _, p := range in.sent {
			if p.state == sending && len(p.batch) > 0 { // the batch is in no request, and nobody reports on it
				p.state = idle
				c.forsake(p, err)
			}
		}
		in.sent = in.sent[:0]
	}
	for _, t := range c.topics {
		c.end(ending{entries: t.waiting.rest(nil), err: err})
		for _, p := range t.partitions {
			c.forsake(p, err)
		}
	}
	c.topics, c.parked = map[string]*topic{}, map[*partition]struct{}{}
	c.dropLinks()
	c.renewEpoch()
	if c.flying > 0 {
		c.panicked = err
	}
}

// forsake gives up a partition and the messages that wait in it. It leaves alone a batch that is in flight.
func (c *core) forsake(p *partition, err error) {
	var entries []entry
	if p.state != sending {
		entries = append(entries, p.batch...)
		p.settled()
		p.state = idle
	}
	p.gone = true
	c.end(ending{entries: p.waiting.rest(entries), err: err})
}

// dropLinks lets each link end when its request in flight has its answer. The caller holds mu.
func (c *core) dropLinks() {
	for _, l := range c.links {
		l.closed = true
		l.ready = nil
		l.work.Signal()
	}
	c.links = map[int32]*link{}
}

// resume goes on with the partition or topic that an ending has held, after the reports are made. The caller holds mu.
func (c *core) resume(e *ending, now time.Time) {
	switch p, t := e.partition, e.topic; {
	case p != nil && e.failsRest && p.waiting.len() > 0:
		c.failBehind(p, e.err)
	case p != nil:
		p.state = idle
		c.place(p, now)
	case t != nil:
		t.held = false
		c.failTopic(t, e.err)
	}
}

// report reports the messages of an ending and counts them, and returns how many bytes they have.
func (c *core) report(e *ending) (bytes int) {
	for i := range e.entries {
		bytes += e.entries[i].size
		c.tell(e.entries[i].report, e.entries[i].index, e.err)
	}
	if len(e.entries) > 0 {
		panics.Do(c.log, producing, func() { c.count(e, bytes) })
	}
	return bytes
}

// tell makes a report. A report that panics counts as made.
func (c *core) tell(report func(int, error), i int, err error) {
	defer func() {
		if caught := panics.Caught(recover()); caught != nil {
			panics.Log(c.log, reporting, caught)
		}
	}()
	report(i, err)
}

// count counts messages that have their reports, and logs why messages have failed, and that they do no longer.
func (c *core) count(e *ending, bytes int) {
	n := int64(len(e.entries))
	if e.err == nil {
		c.metrics.acked.Inc(n)
		c.metrics.bytes.Inc(int64(bytes))
		c.metrics.latency.Record(time.Since(e.entries[0].at))
		c.causes.Log(nil)
		return
	}
	c.metrics.failed[produce.ClassOf(e.err)].Inc(n)
	if !produce.IsRefusal(e.err) && produce.ClassOf(e.err) != produce.Behind {
		c.causes.Log(e.err)
	}
}

// flush implements produce.Producer.
func (c *core) flush(ctx context.Context) error {
	select {
	case <-c.awaitReports():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kafka: messages have no report yet: %w", context.Cause(ctx))
	}
}

// awaitReports returns a channel that is closed when every message has its report.
func (c *core) awaitReports() <-chan struct{} {
	c.mu.Lock()
	defer c.unlock()
	flushed := c.flushed
	if flushed == nil {
		flushed = make(chan struct{})
		if c.unreported == 0 {
			close(flushed)
		} else {
			c.flushed = flushed
		}
	}
	return flushed
}
