package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/kafka/batch"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

// link sends the batches of the partitions that one broker leads. One goroutine, run, encodes and sends; the reader of the
// broker's connection, which is sarama's, brings the answers.
type link struct {
	core *core
	id   int32
	work *sync.Cond // on core.mu
	// callback is called, made a function once.
	callback func(*sarama.ProduceResponse, error)

	// The core's mu guards these.
	broker   *sarama.Broker
	ready    []*partition
	inFlight bool
	failure  error // why the request in flight has no answer: run closes the connection
	closed   bool

	// sent are the partitions of the request in flight that have no answer yet. While the request is encoded nobody
	// changes it.
	sent []*partition

	// These are run's: the broker that the request went to, and memory for the one that is being encoded.
	to      *sarama.Broker
	records batch.Memory
}

// link returns the link to a broker. The caller holds mu.
func (c *core) link(broker *sarama.Broker) *link {
	l := c.links[broker.ID()]
	if l == nil {
		l = &link{core: c, id: broker.ID(), work: sync.NewCond(&c.mu)}
		l.callback = l.called
		c.links[l.id] = l
		c.work.Keep(c.ctx, connecting, l.run)
	}
	l.broker = broker
	return l
}

// step is what run does next.
type step uint8

const (
	// stepLook looks again what there is to do.
	stepLook step = iota
	stepSend
	stepDisconnect
	stepEnd
)

// run sends what is ready, a request at a time, until the link is closed and has nothing left. No step of it panics.
func (l *link) run(context.Context) {
	for {
		switch l.next() {
		case stepSend:
			l.send()
		case stepDisconnect:
			l.disconnect()
		case stepEnd:
			return
		}
	}
}

// unlock is the core's for the link's own code.
func (l *link) unlock() { l.core.letGo(panics.Caught(recover()), l, nil) }

// next waits until there is something to do, and says what. What is to be sent is in l.sent.
func (l *link) next() step {
	c := l.core
	c.mu.Lock()
	defer l.unlock()
	for l.failure == nil && (l.inFlight || len(l.ready) == 0 && !l.closed) {
		l.work.Wait()
	}
	switch {
	case l.failure != nil:
		return stepDisconnect
	case len(l.ready) == 0:
		return stepEnd
	}
	l.cut(time.Now())
	if len(l.sent) == 0 {
		return stepLook
	}
	l.inFlight, l.to = true, l.broker
	c.flying++
	return stepSend
}

// send sends one request. After a panic nobody knows whether it went out.
func (l *link) send() {
	defer l.records.Forget()
	err := panics.Try(l.core.log, connecting, func() error {
		request := l.request()
		l.fill(request)
		return l.to.AsyncProduce(request, l.callback)
	})
	if err != nil {
		l.answered(nil, err)
	}
}

// landed says that no request is in flight any more. The caller holds mu.
func (l *link) landed() {
	if l.inFlight {
		l.inFlight = false
		l.core.flying--
	}
}

// disconnect closes the connection on which a request has got no answer, and has everything sent again by whoever leads the
// partitions then.
func (l *link) disconnect() {
	c := l.core
	panics.Do(c.log, connecting, func() { _ = l.to.Close() }) // the error that matters is known
	now := time.Now()
	c.mu.Lock()
	defer l.unlock()
	err := l.failure
	l.failure = nil
	l.landed()
	for _, p := range l.sent {
		c.unanswered(p, err, now)
	}
	l.sent = l.sent[:0]
	for _, p := range l.ready {
		if p.state == ready && p.link == l {
			p.link, p.state = nil, idle
			c.place(p, now)
		}
	}
	clear(l.ready)
	l.ready = l.ready[:0]
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
		if p.link != l || c.id == batch.NoProducer {
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
		if p.numbering == batch.NoProducer {
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
	l.records.Reserve(len(l.sent), count, headers)
	for _, p := range l.sent {
		l.records.Begin(batch.Spec{
			Codec: l.core.cfg.codec, Producer: p.numbering, Sequence: p.next, Time: p.stamp, Restamp: p.restamped,
		})
		for i := range p.batch {
			l.records.Add(p.batch[i].message)
		}
		request.AddBatch(p.topic.name, p.id, l.records.End())
	}
}

// called is answered for sarama, whose goroutine must not see a panic, even one of beginAnew.
func (l *link) called(response *sarama.ProduceResponse, err error) {
	defer func() {
		if caught := panics.Caught(recover()); caught != nil {
			panics.Log(l.core.log, connecting, caught)
		}
	}()
	l.answered(response, err)
}

// answered takes the answer to the request in flight, or why there is none.
func (l *link) answered(response *sarama.ProduceResponse, err error) {
	c := l.core
	now := time.Now()
	c.mu.Lock()
	defer l.unlock()
	defer l.work.Signal()
	if err != nil {
		// The connection must be closed before anybody asks for a new one, and not from here, where sarama reads it.
		l.failure = err
		return
	}
	l.landed()
	for _, p := range l.sent {
		if block := response.GetBlock(p.topic.name, p.id); block != nil {
			c.answer(p, block, now)
		} else {
			c.unanswered(p, errors.New("the answer does not mention the partition"), now)
		}
	}
	l.sent = l.sent[:0]
}

// unanswered has a batch sent again about which nothing is known. After a panic it is given up: the next attempt may
// panic, too, and hold up what is sent with it.
func (c *core) unanswered(p *partition, err error, now time.Time) {
	p.link = nil
	var panicked *panics.Error
	if errors.As(err, &panicked) {
		p.unsure = true
		c.giveUp(p, produce.Unavailable, err)
		return
	}
	class := produce.Unavailable
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		class, err = produce.Timeout, fmt.Errorf("no answer from the broker: %w", err)
	}
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
	acked := p.batch
	p.next = batch.Behind(p.next, len(acked))
	p.suspects = max(0, p.suspects-len(acked))
	p.settled()
	c.end(ending{entries: acked})
	p.topic.missingSince = time.Time{}
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
	p.numbering = batch.NoProducer // the next attempt takes the producer's
	c.retry(p, rule{}, err, now)
}

// split has a batch that Kafka has refused sent again in halves, so that only the messages are refused that are at fault. The
// halves have its numbers: this attempt has appended nothing.
func (c *core) split(p *partition, class produce.Class, err error, now time.Time) {
	if p.unsure {
		c.abandonNumbers(p) // an earlier attempt may have been appended whole
	}
	refused := p.batch
	if len(refused) > 1 {
		bytes := 0
		for i := range refused {
			bytes += refused[i].size
		}
		half := len(refused) / 2
		p.suspects = max(p.suspects, len(refused))
		p.waiting.unshift(refused[half:])
		clear(refused[half:])
		p.batch = refused[:half]
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
	c.end(ending{entries: refused, err: produce.Errorf(class, "Kafka refused the message: %w", err), partition: p})
}

// backoff is the pause before an attempt to send a batch again, the first of which is number 1.
func backoff(retry int) time.Duration {
	return min(50*time.Millisecond<<min(retry-1, 10), time.Second)
}
