package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/kafka/batch"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

// link sends the batches of the partitions that one broker leads. Its goroutine, run, encodes and sends. sarama's
// reader of the broker's connection brings the answers.
type link struct {
	core *core
	id   int32
	work *sync.Cond // on core.mu
	// callback is the method called as a function value, made once.
	callback func(*sarama.ProduceResponse, error)

	// The core's mu guards these.
	broker   *sarama.Broker
	ready    []*partition
	inFlight bool
	failure  error // why the request in flight has no answer; run then disconnects
	closed   bool

	// sent are the partitions of the request in flight that have no answer yet. Nobody changes it while run encodes the
	// request.
	sent []*partition

	// Only run uses these: the broker that the request went to, and memory for the request that run encodes.
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
	// stepLook looks again for work.
	stepLook step = iota
	stepSend
	stepDisconnect
	stepEnd
)

// run sends the ready batches, one request at a time, until the link is closed and has no batch left. Each of its steps
// catches its own panics.
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

// unlock is the core's unlock for the code of the link.
func (l *link) unlock() { l.core.letGo(panics.Caught(recover()), l, nil) }

// next waits until there is work, and returns the step to take. For stepSend, l.sent holds the partitions to send.
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

// send sends one request. After a panic of send nobody knows whether the request went out.
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

// landed notes that no request is in flight any more. The caller holds mu.
func (l *link) landed() {
	if l.inFlight {
		l.inFlight = false
		l.core.flying--
	}
}

// disconnect closes the connection on which a request has got no answer. The batches go again to the brokers that lead
// their partitions then.
func (l *link) disconnect() {
	c := l.core
	panics.Do(c.log, connecting, func() { _ = l.to.Close() }) // l.failure is the error that matters
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

// cut takes a batch of each ready partition, as long as the batches fit into one request. It gives up partitions that
// have waited too long. The caller holds mu.
func (l *link) cut(now time.Time) {
	c := l.core
	l.sent = l.sent[:0]
	room := maxRequest
	n := 0
	for ; n < len(l.ready) && room > 0; n++ {
		p := l.ready[n]
		if p.state != ready {
			continue // the partition was given up
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

// cutBatch makes the partition's next batch, and gives the batch its number.
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

// request returns a request without batches; fill adds them.
func (l *link) request() *sarama.ProduceRequest {
	return &sarama.ProduceRequest{
		RequiredAcks: sarama.WaitForAll,
		Timeout:      int32(l.core.cfg.timeout.Milliseconds()),
		// Versions above 8, which are flexible, make sarama measure every record twice.
		Version: 8,
	}
}

// fill adds the batches of l.sent. It holds no lock, because nobody changes the batch of a partition that is sending.
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

// called calls answered for sarama. It catches every panic, even one of beginAnew, because sarama's goroutine must not
// see any.
func (l *link) called(response *sarama.ProduceResponse, err error) {
	defer func() {
		if caught := panics.Caught(recover()); caught != nil {
			panics.Log(l.core.log, connecting, caught)
		}
	}()
	l.answered(response, err)
}

// answered takes the answer to the request in flight, or the error that came instead.
func (l *link) answered(response *sarama.ProduceResponse, err error) {
	c := l.core
	now := time.Now()
	c.mu.Lock()
	defer l.unlock()
	defer l.work.Signal()
	if err != nil {
		// run closes the connection before any goroutine asks for a new one. sarama's reader, which called this, must
		// not close it.
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

// unanswered sends a batch again whose request got no answer. After a panic it gives up the batch: the next attempt may
// panic, too, and hold up the batches that are sent with it.
func (c *core) unanswered(p *partition, err error, now time.Time) {
	p.link = nil
	var panicked *panics.Error
	if errors.As(err, &panicked) {
		p.unsure = true
		c.giveUp(p, produce.Unavailable, err)
		return
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the broker has closed the connection: %w", err)
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
			c.giveUp(p, produce.Unavailable,
				fmt.Errorf("the present time is refused, the clock of the broker or of this machine is wrong: %w",
					block.Err))
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

// reasonOf returns the broker's error together with the broker's own text.
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

// acknowledge reports the batch as acknowledged, and goes on to the messages behind it.
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

// retry sends the batch again after a pause, or gives it up when its time is over.
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

// renew numbers the batch anew. If Kafka has refused numbers of the producer's present epoch or id, the producer takes
// another one.
func (c *core) renew(p *partition, r rule, err error, now time.Time) {
	if p.numbering == c.id {
		if r.action == actRenewID {
			c.renewID()
		} else {
			c.renewEpoch()
		}
	}
	p.numbering = batch.NoProducer // the next attempt takes the producer's present id and epoch
	c.retry(p, rule{}, err, now)
}

// split sends the halves of a batch that Kafka has refused, one after the other, so that Kafka refuses only the faulty
// messages. The halves keep the batch's numbers, because this attempt has appended nothing.
func (c *core) split(p *partition, class produce.Class, err error, now time.Time) {
	if p.unsure {
		c.abandonNumbers(p) // an earlier attempt may have appended the whole batch
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

// backoff returns the pause before an attempt to send a batch again. retry is the number of the attempt; the first is
// 1.
func backoff(retry int) time.Duration {
	return min(50*time.Millisecond<<min(retry-1, 10), time.Second)
}
