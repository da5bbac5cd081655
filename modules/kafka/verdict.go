package kafka

import (
	"context"
	"errors"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/events"
)

var (
	errStopping = errors.New("kafka: the producer is stopping")
	errNoAnswer = errors.New("no acknowledgement from Kafka in time")
	errBehind   = errors.New("a message before this one was not acknowledged")
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

// refusal makes an events.RefusedError of an error that will be the same for the same message, and leaves others alone. A topic that
// this user may not write to is one for whoever keeps the message, as only an operator can change it, and so is a time that the
// topic does not take, as nobody can; a client is to send again.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sarama.ErrMessageSizeTooLarge):
		return events.Refused("too_large", err)
	case errors.Is(err, sarama.ErrInvalidRecord), errors.Is(err, sarama.ErrInvalidTopic):
		return events.Refused("invalid", err)
	case errors.Is(err, sarama.ErrInvalidTimestamp):
		return events.Refused("timestamp", err)
	case errors.Is(err, sarama.ErrTopicAuthorizationFailed):
		return events.Refused("unauthorized", err)
	default:
		return err
	}
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
