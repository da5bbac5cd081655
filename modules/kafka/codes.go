package kafka

import (
	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/produce"
)

// action is what the producer does with a batch after an answer about it.
type action uint8

const (
	// actRetry sends the batch again after a pause.
	actRetry action = iota
	// actResolve asks for the partition's leader and then sends the batch again.
	actResolve
	// actAck reports the batch as acknowledged.
	actAck
	// actSplit sends the first half of the batch alone; a batch of one message is refused.
	actSplit
	// actRestamp sends the batch again with the present time in the place of its messages' own; a batch that had it fails.
	actRestamp
	// actRenew numbers the batch anew under the next epoch of the producer id, and sends it again.
	actRenew
	// actRenewID does the same under another producer id.
	actRenewID
	// actFail reports the batch, and what is behind it in its partition, as failed.
	actFail
)

// rule is what an error code means: what is done, and of which class the report is if that does not help.
type rule struct {
	action action
	class  produce.Class
	// unsure is set where the batch may have been appended all the same.
	unsure bool
}

// rules says what an answer of Kafka to a batch means. docs/delivery.md shows this table. A code that is not in it is
// tried again: a message must not be lost for a code that nobody thought of.
var rules = map[sarama.KError]rule{
	sarama.ErrNoError:                 {action: actAck},
	sarama.ErrDuplicateSequenceNumber: {action: actAck},

	// A leader that has appended the batch and then loses the partition, while it waits for the replicas, answers so, too.
	sarama.ErrUnknownTopicOrPartition: {action: actResolve, class: produce.Missing, unsure: true},
	sarama.ErrLeaderNotAvailable:      {action: actResolve, unsure: true},
	sarama.ErrNotLeaderForPartition:   {action: actResolve, unsure: true},
	sarama.ErrReplicaNotAvailable:     {action: actResolve, unsure: true},
	sarama.ErrBrokerNotAvailable:      {action: actResolve, unsure: true},
	sarama.ErrKafkaStorageError:       {action: actResolve, unsure: true},
	sarama.ErrFencedLeaderEpoch:       {action: actResolve, unsure: true},
	sarama.ErrUnknownLeaderEpoch:      {action: actResolve, unsure: true},
	errUnknownTopicID:                 {action: actResolve, class: produce.Missing, unsure: true},
	sarama.ErrNetworkException:        {action: actResolve, unsure: true},

	sarama.ErrUnknown:                      {action: actRetry, unsure: true},
	sarama.ErrInvalidMessage:               {action: actRetry},
	sarama.ErrRequestTimedOut:              {action: actRetry, class: produce.Timeout, unsure: true},
	sarama.ErrNotEnoughReplicas:            {action: actRetry},
	sarama.ErrNotEnoughReplicasAfterAppend: {action: actRetry, unsure: true},
	sarama.ErrThrottlingQuotaExceeded:      {action: actRetry},

	sarama.ErrMessageSizeTooLarge:         {action: actSplit, class: produce.TooLarge},
	sarama.ErrMessageSetSizeTooLarge:      {action: actSplit, class: produce.TooLarge},
	sarama.ErrInvalidRecord:               {action: actSplit, class: produce.Invalid},
	sarama.ErrInvalidTopic:                {action: actSplit, class: produce.Invalid},
	sarama.ErrPolicyViolation:             {action: actSplit, class: produce.Invalid},
	sarama.ErrUnsupportedForMessageFormat: {action: actSplit, class: produce.Invalid},

	sarama.ErrInvalidTimestamp: {action: actRestamp},

	sarama.ErrOutOfOrderSequenceNumber: {action: actRenew},
	sarama.ErrInvalidProducerEpoch:     {action: actRenew},
	sarama.ErrUnknownProducerID:        {action: actRenewID},
	sarama.ErrInvalidProducerIDMapping: {action: actRenewID},
	sarama.ErrProducerFenced:           {action: actRenewID},
	sarama.ErrInvalidTxnState:          {action: actRenewID},

	sarama.ErrTopicAuthorizationFailed:           {action: actFail, class: produce.Forbidden},
	sarama.ErrClusterAuthorizationFailed:         {action: actFail, class: produce.Forbidden},
	sarama.ErrTransactionalIDAuthorizationFailed: {action: actFail, class: produce.Forbidden},
	sarama.ErrSASLAuthenticationFailed:           {action: actFail, class: produce.Forbidden},
	sarama.ErrInvalidRequiredAcks:                {action: actFail},
	sarama.ErrUnsupportedVersion:                 {action: actFail},
	sarama.ErrUnsupportedCompressionType:         {action: actFail},
	sarama.ErrInvalidRequest:                     {action: actFail},
}

// errUnknownTopicID is UNKNOWN_TOPIC_ID, for which sarama has no name.
const errUnknownTopicID sarama.KError = 100

// ruleOf returns what the code means.
func ruleOf(code sarama.KError) rule {
	if known, ok := rules[code]; ok {
		return known
	}
	return rule{action: actRetry, unsure: true}
}
