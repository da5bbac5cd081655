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

// deadLetters keeps the messages that Kafka has refused for good. They go to the topic of dead letters. If that topic
// refuses a dead letter too, it goes to the disk.
type deadLetters struct {
	d     *Delivery
	topic string
}

// step tells in a dead letter which part of the service has set the message aside.
const step = "delivery"

// refused is a message that Kafka has refused, and the fate of its dead letter.
type refused struct {
	message *produce.Message
	refusal error
	fate    fate
	why     error // if fate is fateFailed
}

// newDeadLetter returns a dead letter of the refused message. The two share their memory.
func (l *deadLetters) newDeadLetter(m *produce.Message, refusal error) produce.Message {
	now := time.Now()
	letter := *m
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

// keep makes dead letters of the request's refused messages, and gives the messages their fates. The request keeps its
// memory until the producer has reported on the dead letters.
func (l *deadLetters) keep(ctx context.Context, r *request) {
	var items []*item
	var list []refused
	for i := range r.items {
		if it := &r.items[i]; it.fate == fateOpen && it.wasRefused() {
			items = append(items, it)
			list = append(list, refused{message: &r.messages[i], refusal: it.err})
		}
	}
	letters := l.d.requests.get(l.d, r.terms)
	letters.started, letters.exempt, letters.origin = r.started, r.exempt, r
	r.users.Add(1)
	l.write(ctx, letters, list)
	for k, it := range items {
		it.fate, it.why = list[k].fate, list[k].why
	}
}

// wasRefused reports whether the owner has a report that Kafka refuses the message.
func (it *item) wasRefused() bool {
	return it.state.Load() == stateReported && produce.IsRefusal(it.err)
}

// keepDrained makes dead letters of the refused messages of the spool. It sets a message's error to nil once its dead
// letter is safe. The records of dead letters pass the limits of the spool: the refused message has a record in the
// spool already, and that record goes next. The letters are copies, since the producer may hold them longer than the
// drain keeps its chunk.
func (l *deadLetters) keepDrained(ctx context.Context, messages []produce.Message, errs []error) {
	var indexes []int
	var list []refused
	for i, err := range errs {
		if produce.IsRefusal(err) {
			m := copyOf(&messages[i])
			indexes = append(indexes, i)
			list = append(list, refused{message: &m, refusal: err})
		}
	}
	if len(list) == 0 {
		return
	}
	letters := l.d.requests.get(l.d, l.d.terms.Now())
	letters.exempt = true
	l.write(ctx, letters, list)
	for k, i := range indexes {
		errs[i] = list[k].why
	}
}

// write makes dead letters of the messages by a request of their own, and recycles that request. A message that was
// meant for the topic of dead letters itself goes to the disk.
func (l *deadLetters) write(ctx context.Context, r *request, list []refused) {
	defer r.leave()
	var messages []produce.Message
	var ends []*refused // of the messages
	for i := range list {
		of := &list[i]
		letter := l.newDeadLetter(of.message, of.refusal)
		if of.message.Topic == l.topic {
			letter.Headers = of.message.Headers // It is a dead letter already, and says where it was meant to go.
			l.toDisk(ctx, &letter, of, r.exempt)
			continue
		}
		messages, ends = append(messages, letter), append(ends, of)
	}
	r.fill(messages)
	for i := range r.uses {
		r.uses[i].mode = modeAuto
	}
	r.run(ctx)
	for i, of := range ends {
		it := &r.items[i]
		said := []zap.Field{zap.String("topic", of.message.Topic), zap.Error(of.refusal)}
		switch of.fate = it.fate; {
		case it.fate == fateFailed:
			of.why = fmt.Errorf("keep a dead letter: %w", it.why)
			l.d.log.Error("a message was refused for good and cannot be kept",
				append(said, zap.NamedError("dead_letter", it.why))...)
		case !it.wasRefused(): // toDisk counts the refused letters
			l.d.metrics.dead(produce.ClassOf(of.refusal).String(), "topic").Inc(1)
			l.d.log.Debug("a message was refused for good and is a dead letter", said...)
		}
	}
}

// toDisk keeps a dead letter on the disk.
func (l *deadLetters) toDisk(ctx context.Context, letter *produce.Message, of *refused, exempt bool) {
	opened := l.d.spooling.opened.Load()
	if opened == nil {
		of.fate, of.why = fateFailed, errors.Join(of.refusal, errNoSpool)
		return
	}
	appendTo := opened.Log(deadLetterLog).Append
	if exempt {
		appendTo = opened.Log(deadLetterLog).AppendExempt
	}
	if _, err := appendTo(ctx, [][]byte{appendRecord(nil, letter, letter.Time)}); err != nil {
		of.fate, of.why = fateFailed, errors.Join(of.refusal, err)
		return
	}
	of.fate = fateSpool
	l.d.metrics.dead(reasonOf(letter), "disk").Inc(1)
	l.d.log.Warn("a dead letter was refused by its topic as well, and is kept on the disk: see capture dlq",
		zap.Error(of.refusal))
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
