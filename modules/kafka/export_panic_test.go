package kafka

import "github.com/opencapture/capture/modules/kafka/batch"

// The following bring the producer's state into a disorder that makes its code panic.

// IsSending reports whether a request is in flight.
func (p *Producer) IsSending() bool {
	p.core.mu.Lock()
	defer p.core.mu.Unlock()
	return p.core.flying > 0
}

// Disown makes the code panic that cuts, acknowledges or gives up the next batch of a topic that is not being sent, or
// with flying set one that waits for its answer. It reports whether there is such a partition.
func (p *Producer) Disown(name string, flying bool) (found bool) {
	p.core.mu.Lock()
	defer p.core.mu.Unlock()
	for _, t := range p.core.topics {
		for _, p := range t.partitions {
			if t.name == name && (p.state == sending) == flying {
				p.topic, found = nil, true
			}
		}
	}
	return found
}

// Spoil makes the code panic that encodes what waits for a topic, and returns how many messages that are.
func (p *Producer) Spoil(name string) (spoiled int) {
	p.core.mu.Lock()
	defer p.core.mu.Unlock()
	for _, t := range p.core.topics {
		for _, p := range t.partitions {
			for i := p.waiting.head; t.name == name && i < len(p.waiting.entries); i++ {
				p.waiting.entries[i].message = nil
				spoiled++
			}
		}
	}
	return spoiled
}

// Forget makes the code panic that looks for a topic it does not know yet.
func (p *Producer) Forget() {
	p.core.mu.Lock()
	defer p.core.mu.Unlock()
	p.core.topics = nil
}

// Ring parks a partition that is none, which makes the code panic that looks after the parked ones, and has that look.
func (p *Producer) Ring() {
	p.core.mu.Lock()
	p.core.parked[nil] = struct{}{}
	p.core.mu.Unlock()
	p.core.ring()
}

// Ask parks a partition that is none, which makes the code panic that has asked the cluster, and has that ask.
func (p *Producer) Ask() {
	p.core.mu.Lock()
	defer p.core.mu.Unlock()
	p.core.parked[nil] = struct{}{}
	p.core.id = batch.NoProducer
	p.core.ask()
}
