package kafka

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/produce"
)

// link sends the batches of the partitions that one broker leads. One goroutine, run, encodes and sends; the reader of the
// broker's connection, which is sarama's, brings the answers.
type link struct {
	core *core
	id   int32
	work *sync.Cond // on core.mu
	// callback is answered, made a function once.
	callback func(*sarama.ProduceResponse, error)

	// The core's mu guards these.
	broker   *sarama.Broker
	ready    []*partition
	inFlight bool
	failure  error // why the request in flight has no answer: run closes the connection
	closed   bool

	// sent are the partitions of the request in flight. Whoever has set inFlight writes it, and whoever resets inFlight reads it.
	sent []*partition
	// records is memory for the request that is being encoded. It is run's.
	records recordMemory
}

// link returns the link to a broker. The caller holds mu.
func (c *core) link(broker *sarama.Broker) *link {
	l := c.links[broker.ID()]
	if l == nil {
		l = &link{core: c, id: broker.ID(), work: sync.NewCond(&c.mu)}
		l.callback = l.answered
		c.links[l.id] = l
		c.work.Go(l.run)
	}
	l.broker = broker
	return l
}

// run sends what is ready, a request at a time, until the link is closed and has nothing left.
func (l *link) run() {
	c := l.core
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for l.failure == nil && (l.inFlight || len(l.ready) == 0 && !l.closed) {
			l.work.Wait()
		}
		switch {
		case l.failure != nil:
			l.disconnect()
		case len(l.ready) == 0:
			return
		default:
			l.send()
		}
	}
}

// send sends one request. It is called with mu, and returns with it.
func (l *link) send() {
	c, broker := l.core, l.broker
	l.cut(time.Now())
	if len(l.sent) > 0 {
		l.inFlight = true
		request := l.request()
		c.unlock()
		l.fill(request)
		if err := broker.AsyncProduce(request, l.callback); err != nil {
			l.answered(nil, err)
		}
		l.records.forget()
	} else {
		c.unlock()
	}
	c.mu.Lock()
}

// disconnect closes the connection on which a request has got no answer, and has everything sent again by whoever leads the
// partitions then. It is called with mu, and returns with it.
func (l *link) disconnect() {
	c, broker := l.core, l.broker
	c.mu.Unlock()
	_ = broker.Close() // the error that matters is known
	now := time.Now()
	c.mu.Lock()
	err := l.failure
	l.failure, l.inFlight = nil, false
	for _, p := range l.sent {
		c.unanswered(p, err, now)
	}
	for _, p := range l.ready {
		if p.state == ready && p.link == l {
			p.link, p.state = nil, idle
			c.place(p, now)
		}
	}
	clear(l.ready)
	l.ready = l.ready[:0]
	c.unlock()
	c.mu.Lock()
}

// cut takes a batch of each ready partition, as long as they have room in one request. Partitions that have waited too long are
// given up. The caller holds mu.
func (l *link) cut(now time.Time) {
	c := l.core
	l.sent = l.sent[:0]
	room := maxRequest
	n := 0
	for ; n < len(l.ready) && room > 0; n++ {
		p := l.ready[n]
		if p.state != ready {
			continue // it was given up
		}
		if p.link != l || c.id == noProducerID {
			c.unpark(p, idle)
			c.place(p, now)
			continue
		}
		if c.expired(p.oldest(), now) {
			c.giveUp(p, p.class, p.cause)
			continue
		}
		if len(p.batch) == 0 {
			c.cutBatch(p, now)
		}
		if p.numbering == noProducerID {
			p.number(c.id)
		}
		for i := range p.batch {
			room -= p.batch[i].size
		}
		p.state = sending
		l.sent = append(l.sent, p)
	}
	l.ready = slices.Delete(l.ready, 0, n)
}

// cutBatch makes the partition's next batch, and gives it its number.
func (c *core) cutBatch(p *partition, now time.Time) {
	t := p.topic
	if t.limit < c.cfg.maxBatch && now.Sub(t.limitAge) > limitRelaxes {
		t.limit, t.limitAge = min(2*t.limit, c.cfg.maxBatch), now
	}
	most := p.waiting.len()
	if p.suspects > 0 {
		most = p.suspects
	}
	p.batch = p.waiting.shift(c.batchMemory(), t.limit, most)
	p.stamp = now
	p.number(c.id)
}

// request returns an empty request. It holds no place for the batches of l.sent yet.
func (l *link) request() *sarama.ProduceRequest {
	return &sarama.ProduceRequest{
		RequiredAcks: sarama.WaitForAll,
		Timeout:      int32(l.core.cfg.timeout.Milliseconds()),
		// Later versions, which are flexible, make sarama measure every record twice.
		Version: 8,
	}
}

// fill adds the batches of l.sent. It holds no lock: nobody changes the batch of a partition that is sending.
func (l *link) fill(request *sarama.ProduceRequest) {
	count, headers := 0, 0
	for _, p := range l.sent {
		count += len(p.batch)
		for i := range p.batch {
			headers += len(p.batch[i].message.Headers)
		}
	}
	l.records.reserve(len(l.sent), count, headers)
	for _, p := range l.sent {
		request.AddBatch(p.topic.name, p.id, l.records.batch(p, l.core.cfg.codec))
	}
}

// recordMemory is what batches are made of while a request is encoded. It is used again for the next one.
type recordMemory struct {
	batches        []sarama.RecordBatch
	records        []sarama.Record
	recordPointers []*sarama.Record
	headers        []sarama.RecordHeader
	headerPointers []*sarama.RecordHeader
}

// reserve makes room for a request, so that nothing moves while it is built.
func (m *recordMemory) reserve(batches, records, headers int) {
	m.batches = slices.Grow(m.batches[:0], batches)
	m.records = slices.Grow(m.records[:0], records)
	m.recordPointers = slices.Grow(m.recordPointers[:0], records)
	m.headers = slices.Grow(m.headers[:0], headers)
	m.headerPointers = slices.Grow(m.headerPointers[:0], headers)
}

// forget drops what the memory refers to, and memory that an unusually large request has needed.
func (m *recordMemory) forget() {
	const kept = 1 << 14
	if cap(m.records) > kept || cap(m.headers) > 16*kept {
		*m = recordMemory{}
		return
	}
	clear(m.batches)
	clear(m.records)
	clear(m.headers)
}

// batch returns the partition's batch as sarama encodes it.
func (m *recordMemory) batch(p *partition, codec sarama.CompressionCodec) *sarama.RecordBatch {
	stamp := func(e *entry) time.Time {
		if p.restamped || e.message.Time.IsZero() {
			return p.stamp
		}
		return e.message.Time
	}
	first := stamp(&p.batch[0])
	latest := first
	start := len(m.records)
	for i := range p.batch {
		message := p.batch[i].message
		at := stamp(&p.batch[i])
		if at.After(latest) {
			latest = at
		}
		from := len(m.headerPointers)
		for j := range message.Headers {
			header := &message.Headers[j]
			m.headers = append(m.headers, sarama.RecordHeader{Key: header.Key, Value: header.Value})
			m.headerPointers = append(m.headerPointers, &m.headers[len(m.headers)-1])
		}
		m.records = append(m.records, sarama.Record{
			Headers:        m.headerPointers[from:len(m.headerPointers):len(m.headerPointers)],
			TimestampDelta: time.Duration(at.UnixMilli()-first.UnixMilli()) * time.Millisecond,
			OffsetDelta:    int64(i),
			Key:            message.Key,
			Value:          message.Value,
		})
		m.recordPointers = append(m.recordPointers, &m.records[len(m.records)-1])
	}
	m.batches = append(m.batches, sarama.RecordBatch{
		Version: 2, Codec: codec, CompressionLevel: sarama.CompressionLevelDefault,
		LastOffsetDelta: int32(len(p.batch) - 1),
		FirstTimestamp:  first, MaxTimestamp: latest,
		ProducerID: p.numbering.id, ProducerEpoch: p.numbering.epoch, FirstSequence: p.next,
		Records: m.recordPointers[start:len(m.recordPointers):len(m.recordPointers)],
	})
	return &m.batches[len(m.batches)-1]
}

// answered takes the answer to the request in flight, or why there is none.
func (l *link) answered(response *sarama.ProduceResponse, err error) {
	c := l.core
	now := time.Now()
	c.mu.Lock()
	if err != nil {
		// The connection must be closed before anybody asks for a new one, and not from here, where sarama reads it.
		l.failure = err
		l.work.Signal()
		c.mu.Unlock()
		return
	}
	l.inFlight = false
	for _, p := range l.sent {
		if block := response.GetBlock(p.topic.name, p.id); block != nil {
			c.answer(p, block, now)
		} else {
			c.unanswered(p, errors.New("the answer does not mention the partition"), now)
		}
	}
	l.work.Signal()
	c.unlock()
}

// unanswered has a batch sent again about which nothing is known.
func (c *core) unanswered(p *partition, err error, now time.Time) {
	class := produce.Unavailable
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		class, err = produce.Timeout, fmt.Errorf("no answer from the broker: %w", err)
	}
	p.link = nil
	c.retry(p, rule{class: class, unsure: true}, err, now)
}

// answer does with a batch what Kafka's answer asks for. The caller holds mu.
func (c *core) answer(p *partition, block *sarama.ProduceResponseBlock, now time.Time) {
	r := ruleOf(block.Err)
	switch r.action {
	case actAck:
		c.acknowledge(p, now)
	case actResolve:
		p.link = nil
		c.retry(p, r, block.Err, now)
	case actSplit:
		c.split(p, r.class, reasonOf(block), now)
	case actRestamp:
		if p.restamped || !slices.ContainsFunc(p.batch, func(e entry) bool { return !e.message.Time.IsZero() }) {
			c.giveUp(p, produce.Unavailable, fmt.Errorf("the present time is refused, the clock of the broker or of this machine is wrong: %w", block.Err))
			return
		}
		p.restamped, p.stamp = true, now
		p.state = idle
		c.place(p, now)
	case actRenew, actRenewID:
		c.renew(p, r, block.Err, now)
	case actFail:
		c.giveUp(p, r.class, block.Err)
	default:
		c.retry(p, r, block.Err, now)
	}
}

// reasonOf returns the error with the broker's own words about it.
func reasonOf(block *sarama.ProduceResponseBlock) error {
	text := ""
	switch {
	case len(block.RecordErrors) > 0 && block.RecordErrors[0].BatchIndexErrorMessage != nil:
		text = *block.RecordErrors[0].BatchIndexErrorMessage
	case block.ErrorMessage != nil:
		text = *block.ErrorMessage
	}
	if text == "" {
		return block.Err
	}
	return fmt.Errorf("%w (%s)", block.Err, text)
}

// acknowledge reports the batch, and goes on to what is behind it.
func (c *core) acknowledge(p *partition, now time.Time) {
	batch := p.batch
	p.advance(len(batch))
	p.suspects = max(0, p.suspects-len(batch))
	p.settled()
	p.topic.missingSince = time.Time{}
	c.end(ending{entries: batch})
	p.state = idle
	c.place(p, now)
}

// retry has the batch sent again after a pause, or gives it up when its time is over.
func (c *core) retry(p *partition, r rule, err error, now time.Time) {
	p.attempts++
	p.class, p.cause, p.unsure = r.class, err, p.unsure || r.unsure
	if p.gone || c.expired(p.oldest(), now) {
		c.giveUp(p, p.class, p.cause)
		return
	}
	p.notUntil = now.Add(backoff(p.attempts))
	p.state = idle
	c.place(p, now)
}

// renew numbers the batch anew. If the numbers that Kafka does not accept are of the producer's present epoch or id, then the
// producer takes another one.
func (c *core) renew(p *partition, r rule, err error, now time.Time) {
	if p.numbering == c.id {
		if r.action == actRenewID {
			c.renewID()
		} else {
			c.renewEpoch()
		}
	}
	p.numbering = noProducerID // the next attempt takes the producer's
	c.retry(p, rule{}, err, now)
}

// split has a batch that Kafka has refused sent again in halves, so that only the messages are refused that are at fault. The
// halves have its numbers: this attempt has appended nothing.
func (c *core) split(p *partition, class produce.Class, err error, now time.Time) {
	if p.unsure {
		c.abandonNumbers(p) // an earlier attempt may have been appended whole
	}
	batch := p.batch
	if len(batch) > 1 {
		bytes := 0
		for i := range batch {
			bytes += batch[i].size
		}
		half := len(batch) / 2
		p.suspects = max(p.suspects, len(batch))
		p.waiting.unshift(batch[half:])
		clear(batch[half:])
		p.batch = batch[:half]
		if class == produce.TooLarge {
			p.topic.limit, p.topic.limitAge = max(min(p.topic.limit, bytes/2), 1), now
		}
		p.state = idle
		c.place(p, now)
		return
	}
	p.suspects = max(0, p.suspects-1)
	p.settled()
	p.state = sending // until the report is made
	c.end(ending{entries: batch, err: produce.Errorf(class, "Kafka refused the message: %w", err), partition: p})
}

// backoff is the pause before an attempt to send a batch again, the first of which is number 1.
func backoff(retry int) time.Duration {
	return min(50*time.Millisecond<<min(retry-1, 10), time.Second)
}
