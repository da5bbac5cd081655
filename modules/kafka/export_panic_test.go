package kafka

import "github.com/opencapture/capture/modules/kafka/batch"

// The functions below bring the producer's state into a disorder that makes the producer's code panic.

// IsSending reports whether a request is in flight.
func (p *Producer) IsSending() bool {
	p.core.mu.Lock()
	defer p.core.mu.Unlock()
	return p.core.flying > 0
}

// Disown makes a partition forget its topic, so that the code that cuts, acknowledges or gives up its next batch
// panics. It does so to the partitions of the topic that are not sending, or, if flying is set, to those that are. It
// reports whether there is one.
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

// Spoil takes the messages from the entries that wait for a topic, so that the code that encodes them panics. It
// returns how many entries it has spoiled.
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

// Forget takes away the core's topics, so that the code that looks for an unknown topic panics.
func (p *Producer) Forget() {
	p.core.mu.Lock()
	defer p.core.mu.Unlock()
	p.core.topics = nil
}

// Ring parks a nil partition, so that the code that looks after parked partitions panics, and runs that code.
func (p *Producer) Ring() {
	p.core.mu.Lock()
	p.core.parked[nil] = struct{}{}
	p.core.mu.Unlock()
	p.core.ring()
}

// Ask parks a nil partition, so that the code that takes the cluster's answers panics, and has the core ask.
func (p *Producer) Ask() {
	p.core.mu.Lock()
	defer p.core.mu.Unlock()
	p.core.parked[nil] = struct{}{}
	p.core.id = batch.NoProducer
	p.core.ask()
}

// Buffered returns how many bytes have no report yet.
func (p *Producer) Buffered() int64 {
	p.core.mu.Lock()
	defer p.core.mu.Unlock()
	return p.core.buffered
}
