package kafka

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/events"
)

// A message's state says who may still touch what. Exactly one side wins the change from waiting: sarama's verdict
// (settled), after which the writer reads err, or the writer's patience (abandoned), after which a verdict only frees memory.
const (
	stateWaiting uint32 = iota
	stateSettled
	stateAbandoned
)

// delivery is the messages of one Write on their way. It never refers to the batch, which belongs to the caller again when
// Write returns, while sarama may hold messages for longer.
type delivery struct {
	set       *Set
	unsettled atomic.Int64
	reserved  int64
	done      chan struct{} // closed when every message is settled

	users   atomic.Int32 // the writer, and sarama: who still uses the set
	tainted atomic.Bool  // a message failed or was abandoned: the set is not to be used again
}

var (
	errStopping = errors.New("kafka: the producer is stopping")
	errNoAnswer = errors.New("no acknowledgement from Kafka in time")
)

// class is a label value of the failed-messages metric.
type class int

const (
	classTooLarge class = iota
	classRefused
	classTimeout
	classUnavailable
	classCount
)

var classNames = [classCount]string{"too_large", "refused", "timeout", "unavailable"}

// classify says what sarama's error means for the event that it is about.
func classify(err error) class {
	switch {
	case errors.Is(err, sarama.ErrMessageSizeTooLarge):
		return classTooLarge
	case errors.Is(err, sarama.ErrInvalidRecord):
		return classRefused
	case errors.Is(err, errNoAnswer), errors.Is(err, context.DeadlineExceeded), errors.Is(err, sarama.ErrRequestTimedOut):
		return classTimeout
	default:
		return classUnavailable
	}
}

// final reports whether sending the same message again is pointless.
func final(err error) bool {
	class := classify(err)
	return class == classTooLarge || class == classRefused
}

// cannotStore reports whether the error means that a broker that answers takes no messages, such as with a full disk. That is a
// reason not to be ready; one topic that is missing or forbidden is none, as it must not turn the events of others away.
func cannotStore(err error) bool {
	for _, refusal := range []error{sarama.ErrUnknown, sarama.ErrKafkaStorageError, sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// judge ends the event by sarama's verdict.
func judge(event *events.Event, err error) {
	if err == nil {
		event.Accept()
		return
	}
	switch classify(err) {
	case classTooLarge:
		event.Reject(events.ReasonTooLarge, events.Errorf(events.TooLarge, "Kafka refused the message: %w", err))
	case classRefused:
		event.Reject(events.ReasonRefused, events.Errorf(events.Invalid, "Kafka refused the message: %w", err))
	case classTimeout:
		event.Fail(events.ReasonTimeout, events.Errorf(events.Unavailable, "produce: %w", err))
	default:
		event.Fail(events.ReasonUnavailable, events.Errorf(events.Unavailable, "produce: %w", err))
	}
}
