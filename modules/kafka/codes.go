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
	// actRestamp sends the batch again with the present time in the place of its messages' own times. A batch that was
	// sent with the present time already fails.
	actRestamp
	// actRenew numbers the batch anew under the next epoch of the producer id, and sends it again.
	actRenew
	// actRenewID numbers the batch anew under another producer id, and sends it again.
	actRenewID
	// actFail reports the batch, and the messages behind it in its partition, as failed.
	actFail
)

// rule is the meaning of an error code: what the producer does, and the class of the report if that does not help.
type rule struct {
	action action
	class  produce.Class
	// unsure is set if the broker may have appended the batch in spite of the error.
	unsure bool
}

// rules says what an answer of Kafka to a batch means. docs/delivery.md shows this table. The producer tries again
// after a code that is not in the table: no message may be lost for a code that nobody thought of.
var rules = map[sarama.KError]rule{
	sarama.ErrNoError:                 {action: actAck},
	sarama.ErrDuplicateSequenceNumber: {action: actAck},

	// A leader that has appended the batch, and loses the partition while it waits for the replicas, gives these
	// answers, too.
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

// ruleOf returns the rule for a code.
func ruleOf(code sarama.KError) rule {
	if known, ok := rules[code]; ok {
		return known
	}
	return rule{action: actRetry, unsure: true}
}
