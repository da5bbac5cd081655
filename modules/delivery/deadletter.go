package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
)

// deadLetters is the name of the log of dead letters; no topic can have it.
const deadLetters = "@dead-letters"

// The headers that a dead letter has beside its own: why, since when, who says so, and where it was meant to go.
const (
	headerReason = "dlq_reason"
	headerStep   = "dlq_step"
	headerTime   = "dlq_timestamp"
	headerTopic  = "dlq_topic"

	step = "delivery"
	// timeFormat is RFC 3339 with milliseconds.
	timeFormat = "2006-01-02T15:04:05.000Z07:00"
)

// bury makes a message that Kafka has refused for good a dead letter: in Kafka, or else on the disk. An error means that it is
// neither.
func (d *Delivery) bury(ctx context.Context, m *events.Message, verdict error) error {
	var refusal *events.RefusedError
	if !errors.As(verdict, &refusal) || refusal.Reason == reasonTimestamp {
		return verdict
	}
	letter := *m
	letter.Topic = d.carrier.DeadLetterTopic()
	if letter.Time.IsZero() {
		letter.Time = time.Now()
	}
	header := func(key, value string) events.Header { return events.Header{Key: []byte(key), Value: []byte(value)} }
	letter.Headers = append(withoutDeadLetterHeaders(m.Headers),
		header(headerReason, refusal.Reason),
		header(headerStep, step),
		header(headerTime, time.Now().UTC().Format(timeFormat)),
		header(headerTopic, m.Topic),
	)
	said := d.log.With(zap.String("topic", m.Topic), zap.String("reason", refusal.Reason), zap.NamedError("verdict", verdict))
	var refused error
	if letter.Topic != m.Topic {
		if refused = sendAlone(ctx, d.carrier, letter); refused == nil {
			d.metrics.buried(refusal.Reason, "topic").Inc(1)
			said.Debug("a message was refused for good and is in the topic of dead letters")
			return nil
		}
	}
	opened := d.spool.Load()
	if opened == nil {
		return errors.Join(refused, errNoSpool)
	}
	log := opened.Log(deadLetters)
	// It comes from a log that has it twice for a moment.
	if _, err := log.AppendExempt(ctx, [][]byte{appendRecord(nil, &letter)}); err != nil {
		said.Error("a message was refused for good and cannot be kept", zap.NamedError("dead_letter_topic", refused), zap.Error(err))
		return fmt.Errorf("keep a dead letter: %w", errors.Join(refused, err))
	}
	d.metrics.buried(refusal.Reason, "disk").Inc(1)
	said.Warn("a message was refused for good, as its dead letter was, and is kept on the disk: see capture dlq", zap.NamedError("dead_letter_topic", refused))
	return nil
}

// withoutDeadLetterHeaders returns a copy without what an earlier death has left, such as that of a letter that was replayed.
func withoutDeadLetterHeaders(headers []events.Header) []events.Header {
	return slices.DeleteFunc(slices.Clone(headers), func(h events.Header) bool {
		switch string(h.Key) {
		case headerReason, headerStep, headerTime, headerTopic:
			return true
		default:
			return false
		}
	})
}
