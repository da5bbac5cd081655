package kafka

import (
	"slices"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/produce"
)

// Backoff returns the pause before an attempt to send a batch again.
var Backoff = backoff

// PartitionOf returns which of count partitions a key belongs to.
var PartitionOf = partitionOf

// Codes returns the error codes that have a rule.
func Codes() []int16 {
	var codes []int16
	for code := range rules {
		codes = append(codes, int16(code))
	}
	slices.Sort(codes)
	return codes
}

// Rule returns the producer's action after a code, in words, the class of the report if that does not help, and whether
// the broker may have appended the batch.
func Rule(code int16) (does string, class produce.Class, unsure bool) {
	r := ruleOf(sarama.KError(code))
	does = map[action]string{
		actRetry: "retry", actResolve: "retry", actAck: "ack", actSplit: "split", actRestamp: "restamp",
		actRenew: "renew", actRenewID: "renew id",
		actFail: "fail",
	}[r.action]
	return does, r.class, r.unsure
}

// Swap gives the producer a new client and returns that client. The client before stays open.
func (p *Producer) Swap() (sarama.Client, error) {
	client, err := sarama.NewClient(p.bootstrap.Addresses(), p.config)
	if err == nil {
		p.core.setClient(client, nil)
	}
	return client, err
}

// RenewEpoch takes another epoch, as the core does when it gives up a batch that may have been appended.
func (p *Producer) RenewEpoch() {
	p.core.mu.Lock()
	defer p.core.unlock()
	p.core.renewEpoch()
}

// RenewID takes another producer id, as the core does when Kafka no longer knows the present one.
func (p *Producer) RenewID() {
	p.core.mu.Lock()
	defer p.core.unlock()
	p.core.renewID()
}
