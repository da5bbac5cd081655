package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/kafka/batch"
	"github.com/opencapture/capture/modules/produce"
)

// resolveAll asks the cluster what the core has to know: the partitions of topics, their leaders, and a producer id. It
// tries again, with growing pauses, until every question is answered.
func (c *core) resolveAll(ctx context.Context) {
	const first, last = 20 * time.Millisecond, time.Second
	c.ask() // for the questions from before a panic
	for {
		select {
		case <-c.resolve:
		case <-ctx.Done():
			return
		}
		for pause := first; !c.resolveOnce(); pause = min(2*pause, last) {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-c.resolve: // a new question
				pause = first
			case <-ctx.Done():
				timer.Stop()
				return
			}
			timer.Stop()
		}
	}
}

// resolveOnce asks once, and reports whether every question is answered.
func (c *core) resolveOnce() bool {
	client, wanted, wantsID := c.questions()
	if client == nil {
		return true // setClient asks again
	}
	resolved := true
	if wantsID {
		resolved = c.resolveID(client)
	}
	if len(wanted) == 0 {
		return resolved
	}
	slices.Sort(wanted)
	err := client.RefreshMetadata(wanted...)
	for _, name := range wanted {
		if !c.learn(client, name, look(client, name, err), 0) {
			resolved = false
		}
	}
	return resolved
}

// questions returns the open questions to the cluster: the client to ask, the topics to ask about, and whether to ask
// for a producer id.
func (c *core) questions() (client sarama.Client, wanted []string, wantsID bool) {
	c.mu.Lock()
	defer c.unlock()
	for _, t := range c.topics {
		if t.isUnresolved() {
			wanted = append(wanted, t.name)
		}
	}
	return c.client, wanted, c.id == batch.NoProducer && (len(wanted) > 0 || len(c.parked) > 0)
}

// learn takes what a client has found out about a topic, provided that it is still the core's client and has found at
// least that many partitions. It returns false if a question about the topic is still open.
func (c *core) learn(client sarama.Client, name string, f finding, least int) bool {
	c.mu.Lock()
	defer c.unlock()
	return c.client != client || len(f.leaders) < least || c.found(name, f)
}

// isUnresolved reports whether messages wait for an answer of the cluster about the topic.
func (t *topic) isUnresolved() bool {
	return t.waiting.len() > 0 ||
		slices.ContainsFunc(t.partitions, func(p *partition) bool { return p.state == parked && p.link == nil })
}

// resolveID asks for a producer id and reports whether the core has one.
func (c *core) resolveID(client sarama.Client) bool {
	answer, err := requestID(client)
	now := time.Now()
	c.mu.Lock()
	defer c.unlock()
	if err != nil {
		denied := errors.Is(err, sarama.ErrClusterAuthorizationFailed)
		err = fmt.Errorf("no producer id from Kafka: %w", err)
		for p := range c.parked {
			if denied {
				c.giveUp(p, produce.Forbidden, err)
			} else if p.cause == nil {
				p.class, p.cause = produce.Unavailable, err
			}
		}
		return false
	}
	if c.id == batch.NoProducer {
		c.id = batch.Producer{ID: answer.ProducerID, Epoch: answer.ProducerEpoch}
	}
	for p := range c.parked {
		c.place(p, now)
	}
	return true
}

// requestID asks any broker for a producer id.
func requestID(client sarama.Client) (*sarama.InitProducerIDResponse, error) {
	broker := client.LeastLoadedBroker()
	if broker == nil {
		return nil, sarama.ErrOutOfBrokers
	}
	answer, err := broker.InitProducerID(&sarama.InitProducerIDRequest{
		Version: 4, TransactionTimeout: time.Minute, ProducerID: batch.NoProducer.ID, ProducerEpoch: -1,
	})
	if err == nil && answer.Err != sarama.ErrNoError {
		err = answer.Err
	}
	return answer, err
}

// finding is what the cluster says of a topic.
type finding struct {
	leaders []*sarama.Broker // by partition; nil: no leader
	err     error            // why partitions or leaders are missing
	missing bool             // the cluster says that the topic does not exist
	denied  bool             // the cluster says nothing to this user
}

// look returns what the client's last answer said of a topic. refreshed is the error of the refresh that got the
// answer.
func look(client sarama.Client, name string, refreshed error) finding {
	known, err := client.Topics()
	if err != nil {
		return finding{err: err}
	}
	if !slices.Contains(known, name) {
		f := finding{err: refreshed}
		if errors.Is(refreshed, sarama.ErrTopicAuthorizationFailed) ||
			errors.Is(refreshed, sarama.ErrUnknownTopicOrPartition) {
			// The error may be about another topic of the refresh: look asks for this one alone.
			f.err = client.RefreshMetadata(name)
		}
		f.denied = errors.Is(f.err, sarama.ErrTopicAuthorizationFailed)
		f.missing = errors.Is(f.err, sarama.ErrUnknownTopicOrPartition)
		if f.err == nil {
			f.err = errors.New("the cluster did not mention it")
		}
		return f
	}
	ids, err := client.Partitions(name)
	if err != nil {
		return finding{err: err}
	}
	f := finding{leaders: make([]*sarama.Broker, len(ids)), err: sarama.ErrLeaderNotAvailable}
	led, err := client.WritablePartitions(name)
	if err != nil {
		f.err = err
	}
	for _, id := range led {
		leader, err := client.Leader(name, id)
		if err != nil {
			f.err = err
		} else if int(id) < len(f.leaders) {
			f.leaders[id] = leader
		}
	}
	return f
}

// found takes a finding about a topic, and reports whether no question about the topic is left. The caller holds mu.
func (c *core) found(name string, f finding) bool {
	if c.closed {
		return true
	}
	now := time.Now()
	t := c.topic(name)
	if len(f.leaders) == 0 {
		return c.notFound(t, f, now)
	}
	t.cause, t.missingSince = nil, time.Time{}
	c.resize(t, len(f.leaders))
	resolved := true
	for i, p := range t.partitions {
		if p.link != nil || p.state == sending {
			continue
		}
		leader := f.leaders[i]
		if leader == nil {
			if p.cause == nil {
				p.class, p.cause = produce.Unavailable, f.err
			}
			resolved = resolved && p.isEmpty()
			continue
		}
		p.link = c.link(leader)
		c.place(p, now)
	}
	if t.waiting.len() > 0 && !t.held {
		spread := spreader{core: c, now: now}
		for t.waiting.len() > 0 {
			spread.add(t, t.waiting.pop())
		}
		spread.end()
	}
	return resolved
}

// resize gives the topic as many partitions as it has in the cluster. The messages that wait for a removed partition
// fail: their producer has put them in order for that partition and does not know to which they belong now. If the
// partition comes back, its batches have numbers of another epoch.
func (c *core) resize(t *topic, count int) {
	if len(t.partitions) > count {
		c.renewEpoch()
	}
	for len(t.partitions) < count {
		t.partitions = append(t.partitions,
			&partition{topic: t, id: int32(len(t.partitions)), numbering: batch.NoProducer})
	}
	for _, p := range t.partitions[count:] {
		p.gone = true
		if p.state != sending && !p.isEmpty() {
			c.giveUp(p, produce.Unavailable, errGone)
		}
	}
	t.partitions = t.partitions[:count]
}

var errGone = errors.New("the topic was made anew without this partition")

// notFound notes why the topic cannot be written to. If Kafka denies the topic, or misses it for longer than
// missingPatience, the messages that wait for the topic fail.
func (c *core) notFound(t *topic, f finding, now time.Time) bool {
	t.cause = f.err
	switch {
	case !f.missing:
		t.missingSince = time.Time{}
	case t.missingSince.IsZero():
		t.missingSince = now
	}
	class := produce.Unavailable
	switch {
	case f.denied:
		class = produce.Forbidden
	case f.missing && now.Sub(t.missingSince) >= missingPatience:
		class = produce.Missing
	default:
		for _, p := range t.partitions {
			if p.cause == nil {
				p.class, p.cause = class, f.err
			}
		}
		return false
	}
	err := produce.Errorf(class, "topic %s: %w", t.name, f.err)
	c.failTopic(t, err)
	for _, p := range t.partitions {
		if p.state != sending && !p.isEmpty() {
			c.giveUp(p, class, f.err)
		}
	}
	return true
}

// setClient makes the core use a client from now on. Batches in flight with the client before get their answer, or are
// sent again when the caller closes that client. A nil client means that there is none; why says why.
func (c *core) setClient(client sarama.Client, why error) {
	c.mu.Lock()
	defer c.unlock()
	c.client, c.why = client, why
	c.dropLinks()
	now := time.Now()
	for _, t := range c.topics {
		for _, p := range t.partitions {
			p.link = nil
			if p.state != sending {
				c.unpark(p, idle)
				c.place(p, now)
			}
		}
	}
	c.ask()
}

// recount looks whether topics have more partitions than before, or leaders again. The caller has refreshed the
// client's metadata.
func (c *core) recount(client sarama.Client) {
	for name, count := range c.counts() {
		c.learn(client, name, look(client, name, nil), count)
	}
}

// counts returns the number of partitions of each topic whose partitions are known.
func (c *core) counts() map[string]int {
	c.mu.Lock()
	defer c.unlock()
	counts := map[string]int{}
	for _, t := range c.topics {
		if len(t.partitions) > 0 {
			counts[t.name] = len(t.partitions)
		}
	}
	return counts
}

// refuse makes Produce fail from now on.
func (c *core) refuse() {
	c.mu.Lock()
	defer c.unlock()
	c.refusing = true
	now := time.Now()
	for p := range c.parked {
		c.place(p, now)
	}
}

// close fails the messages that have no report yet, and ends the goroutines. It returns how many messages had no
// report. Messages in flight get theirs when the answer comes, or when the connection is closed.
func (c *core) close() (unreported int) {
	c.mu.Lock()
	defer c.unlock()
	c.refusing, c.closed = true, true
	unreported = c.unreported
	c.alarm.Stop()
	c.cancel()
	for _, l := range c.links {
		l.closed = true
		l.work.Signal()
	}
	for _, t := range c.topics {
		c.failTopic(t, errClosed)
		for _, p := range t.partitions {
			if p.state != sending && !p.isEmpty() {
				c.giveUp(p, produce.Unavailable, errClosed)
			}
		}
	}
	return unreported
}
