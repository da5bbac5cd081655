package kafka

import (
	"slices"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/produce"
)

// Backoff is the pause before an attempt.
var Backoff = backoff

// PartitionOf returns which of count partitions a key belongs to.
var PartitionOf = partitionOf

// Codes returns the error codes that there are rules for.
func Codes() []int16 {
	var codes []int16
	for code := range rules {
		codes = append(codes, int16(code))
	}
	slices.Sort(codes)
	return codes
}

// Rule returns what is done about a code, in words, the class of the report if that does not help, and whether the batch may have been
// appended.
func Rule(code int16) (does string, class produce.Class, unsure bool) {
	r := ruleOf(sarama.KError(code))
	does = map[action]string{
		actRetry: "retry", actResolve: "retry", actAck: "ack", actSplit: "split", actRestamp: "restamp", actRenew: "renew", actRenewID: "renew id",
		actFail: "fail",
	}[r.action]
	return does, r.class, r.unsure
}

// Swap gives the producer a client of its own in the place of the one that it has, and returns it. The one before is as it was.
func (p *Producer) Swap() (sarama.Client, error) {
	client, err := sarama.NewClient(p.bootstrap.Addresses(), p.config)
	if err == nil {
		p.core.setClient(client, nil)
	}
	return client, err
}

// RenewEpoch does what giving up a batch does that may have been appended.
func (p *Producer) RenewEpoch() {
	p.core.mu.Lock()
	defer p.core.unlock()
	p.core.renewEpoch()
}

// RenewID does what Kafka asks for that knows the producer id no more.
func (p *Producer) RenewID() {
	p.core.mu.Lock()
	defer p.core.unlock()
	p.core.renewID()
}
