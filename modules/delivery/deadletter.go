package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/produce"
)

// deadLetterLog is the name of the log of dead letters; no topic can have it.
const deadLetterLog = "@dead-letters"

// deadLetters keeps the messages that Kafka has refused for good: in the topic of dead letters, and on the disk what that refuses
// as well.
type deadLetters struct {
	d     *Delivery
	topic string
}

// step says in a dead letter which part of the service has made it one.
const step = "delivery"

// newDeadLetter returns a copy of a refused message as a dead letter. It shares nothing with the message.
func (l *deadLetters) newDeadLetter(m *produce.Message, refusal error) produce.Message {
	now := time.Now()
	letter := copyOf(m)
	letter.Topic = l.topic
	if letter.Time.IsZero() {
		letter.Time = now
	}
	letter.Headers = produce.WithoutDLQHeaders(letter.Headers)
	for _, header := range []struct{ key, value string }{
		{produce.HeaderDLQReason, produce.ClassOf(refusal).String()},
		{produce.HeaderDLQStep, step},
		{produce.HeaderDLQTime, now.UTC().Format(produce.DLQTimeFormat)},
		{produce.HeaderDLQTopic, m.Topic},
	} {
		letter.Headers = append(letter.Headers, produce.Header{Key: []byte(header.key), Value: []byte(header.value)})
	}
	return letter
}

// keep makes the request's refused messages dead letters, and gives them their fates.
func (l *deadLetters) keep(ctx context.Context, r *request) {
	var refused []int
	for i := range r.items {
		if it := &r.items[i]; it.fate == fateOpen && it.state.Load() == stateReported && produce.IsRefusal(it.err) {
			refused = append(refused, i)
		}
	}
	fates := l.write(ctx, r.started, r.exempt, refused, func(i int) (*produce.Message, error) { return &r.messages[i], r.items[i].err })
	for k, i := range refused {
		it := &r.items[i]
		if it.fate = fates[k].fate; it.fate == fateFailed {
			it.fail(fates[k].why)
		}
	}
}

// keepDrained makes messages of the spool that were refused dead letters. It sets the errors of those to nil that are safe. The
// records of dead letters pass the limits of the spool: each has a record there already, which goes next.
func (l *deadLetters) keepDrained(ctx context.Context, messages []produce.Message, errs []error) {
	var refused []int
	for i, err := range errs {
		if produce.IsRefusal(err) {
			refused = append(refused, i)
		}
	}
	if len(refused) == 0 {
		return
	}
	fates := l.write(ctx, time.Now(), true, refused, func(i int) (*produce.Message, error) { return &messages[i], errs[i] })
	for k, i := range refused {
		errs[i] = fates[k].why
	}
}

// ending is what became of a dead letter.
type ending struct {
	fate fate
	why  error
}

// write makes messages dead letters. Those that were meant for the topic of dead letters itself go to the disk.
func (l *deadLetters) write(ctx context.Context, started time.Time, exempt bool, refused []int, message func(i int) (*produce.Message, error)) []ending {
	fates := make([]ending, len(refused))
	var letters []produce.Message
	var origins []int // of the letters, in refused
	for k, i := range refused {
		m, refusal := message(i)
		letter := l.newDeadLetter(m, refusal)
		if m.Topic == l.topic {
			letter.Headers = m.Headers // It says already what it is, and where it was meant to go.
			fates[k] = l.toDisk(ctx, &letter, refusal, exempt)
			continue
		}
		letters, origins = append(letters, letter), append(origins, k)
	}
	if len(letters) == 0 {
		return fates
	}
	r := l.d.requests.get(l.d)
	defer r.leave()
	r.started, r.exempt = started, exempt
	r.fill(letters)
	for i := range r.uses {
		r.uses[i].mode = modeAuto
	}
	r.run(ctx)
	for j, k := range origins {
		it := &r.items[j]
		fates[k] = ending{fate: it.fate, why: it.why}
		m, refusal := message(refused[k])
		said := []zap.Field{zap.String("topic", m.Topic), zap.Error(refusal)}
		if it.fate == fateFailed {
			fates[k].why = fmt.Errorf("keep a dead letter: %w", it.why)
			l.d.log.Error("a message was refused for good and cannot be kept", append(said, zap.NamedError("dead_letter", it.why))...)
			continue
		}
		if it.err == nil || !produce.IsRefusal(it.err) { // toDisk counts the others
			l.d.metrics.dead(produce.ClassOf(refusal).String(), "topic").Inc(1)
			l.d.log.Debug("a message was refused for good and is a dead letter", said...)
		}
	}
	return fates
}

// toDisk keeps a dead letter on the disk.
func (l *deadLetters) toDisk(ctx context.Context, letter *produce.Message, refusal error, exempt bool) ending {
	opened := l.d.spooling.opened.Load()
	if opened == nil {
		return ending{fate: fateFailed, why: errors.Join(refusal, errNoSpool)}
	}
	appendTo := opened.Log(deadLetterLog).Append
	if exempt {
		appendTo = opened.Log(deadLetterLog).AppendExempt
	}
	if _, err := appendTo(ctx, [][]byte{appendRecord(nil, letter, letter.Time)}); err != nil {
		return ending{fate: fateFailed, why: errors.Join(refusal, err)}
	}
	l.d.metrics.dead(reasonOf(letter), "disk").Inc(1)
	l.d.log.Warn("a dead letter was refused by its topic as well, and is kept on the disk: see capture dlq", zap.Error(refusal))
	return ending{fate: fateSpool}
}

// reasonOf returns why a message is a dead letter.
func reasonOf(letter *produce.Message) string {
	for _, header := range letter.Headers {
		if string(header.Key) == produce.HeaderDLQReason {
			return string(header.Value)
		}
	}
	return ""
}
