package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
)

func dlqCommand() module.Command {
	return module.Command{
		Use:   "dlq",
		Short: "List dead letters, show them, or send them again",
		Long: `Dead letters are messages that Kafka has refused for good, and events that a rule has set aside.
They lie in the topic kafka.topics.dlq. Dead letters that this topic has refused as well lie on the disk, in the
spool.`,
		Example:  "  capture dlq list --filter reason=too_large",
		Commands: []module.Command{dlqListCommand(), dlqShowCommand(), replayCommand()},
	}
}

const aboutFilter = `

--filter selects dead letters by key=value and may be repeated; all must hold. Keys: id, reason, topic (where the
message was meant to go, one of kafka.topics), token, distinct_id, event, since and until (times of RFC 3339, compared
with the time at which the message became a dead letter).`

func dlqListCommand() module.Command {
	var filters []string
	return module.Command{
		Use: "list", Short: "List dead letters",
		Long: `Lists dead letters, those on the disk first. With --output json each dead letter is an object on a
line of its own.` + aboutFilter,
		Example: `  capture dlq list --filter reason=too_large --filter since=2026-11-27T00:00:00Z
  capture dlq list --output json | jq .topic`,
		Output: module.Table, Flags: filterFlag(&filters), Values: filterValues,
		Run: func(use module.Invocation, cfg Config, settings produce.Settings, topics produce.Reader) error {
			wanted, err := parseFilter(filters, settings.Topics)
			if err != nil {
				return err
			}
			list := use.List("id", "time", "reason", "topic", "token", "distinct_id", "event", "size")
			letters := letterReader{cfg.Spool, settings.Topics.DLQ, topics}
			err = letters.each(use, wanted, func(l *letter, _ *produce.Message) error {
				return list.Add(l, l.ID, l.Time.Format(time.RFC3339), l.Reason, l.Topic, l.Token, l.DistinctID, l.Event,
					configs.ByteSize(l.Bytes).Approx())
			})
			return errors.Join(list.Flush(), err)
		},
	}
}

func dlqShowCommand() module.Command {
	var filters []string
	return module.Command{
		Use: "show", Short: "Show dead letters with the messages themselves, as JSON",
		Long: `Shows the columns of list and the message itself, its key, headers and value: as JSON, an object a
line.` + aboutFilter,
		Example: "  capture dlq show --filter id=events_dlq/0/17",
		Flags:   filterFlag(&filters), Values: filterValues,
		Run: func(use module.Invocation, cfg Config, settings produce.Settings, topics produce.Reader) error {
			wanted, err := parseFilter(filters, settings.Topics)
			if err != nil {
				return err
			}
			use.Output = module.JSON
			list := use.List()
			letters := letterReader{cfg.Spool, settings.Topics.DLQ, topics}
			return letters.each(use, wanted, func(l *letter, m *produce.Message) error {
				l.open(m)
				return list.Add(l)
			})
		},
	}
}

func replayCommand() module.Command {
	var filters []string
	var dry bool
	return module.Command{
		Use: "replay", Short: "Send dead letters to the topics that they were meant for",
		Long: `Sends dead letters to the topics that they were meant for, those on the disk first.

A dead letter on the disk is removed once its message is in its topic. Beside a running service, which has the disk to
itself, replay leaves these alone and says how many they are. A dead letter in Kafka stays where it is, so a second
replay sends its message again: a consumer tells the copies by their uuid.

Messages go to topics of kafka.topics only. A dead letter is skipped and counted if it does not say where it was meant
to go, names another topic, or cannot be read. The exit code is 0 if every selected dead letter was sent, and 1 if one
was skipped or refused again.` + aboutFilter,
		Example: `  capture dlq replay --dry-run
  capture dlq replay --filter topic=exceptions`,
		Flags: func(flags *module.Flags) {
			filterFlag(&filters)(flags)
			flags.BoolVar(&dry, "dry-run", false, "say what would be sent, and do nothing")
		},
		Values: filterValues,
		Run: func(
			use module.Invocation, cfg Config, settings produce.Settings, producer produce.Producer,
			topics produce.Reader,
		) error {
			wanted, err := parseFilter(filters, settings.Topics)
			if err != nil {
				return err
			}
			letters := letterReader{cfg.Spool, settings.Topics.DLQ, topics}
			return replay(use, letters, wanted, producer, settings.Topics, dry)
		},
	}
}

func filterFlag(filters *[]string) func(*module.Flags) {
	return func(flags *module.Flags) {
		flags.StringArrayVar(filters, "filter", nil, "`KEY=VALUE` that a dead letter must have; may be repeated")
	}
}

// filterKeys are the keys that --filter knows.
var filterKeys = []string{"id", "reason", "topic", "token", "distinct_id", "event", "since", "until"}

var filterValues = map[string]any{"filter": func() (begun []string, err error) {
	for _, key := range filterKeys {
		begun = append(begun, key+"=")
	}
	return begun, nil
}}

// letter is a dead letter as the commands print it.
type letter struct {
	// ID is topic/partition/offset, or disk/record.
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
	Step   string    `json:"step,omitempty"`
	// Rule is the rule of the operator's that set the message aside, if one did.
	Rule string `json:"rule,omitempty"`
	// Topic is where the message was meant to go; it is empty if nobody knows.
	Topic      string `json:"topic,omitempty"`
	Token      string `json:"token,omitempty"`
	DistinctID string `json:"distinct_id,omitempty"`
	Event      string `json:"event,omitempty"`
	UUID       string `json:"uuid,omitempty"`
	Bytes      int    `json:"bytes"`

	Key     *string           `json:"key,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	// Value is the message's value as produce.JSONOf gives it. A value that is no text is in ValueBase64 instead.
	Value       json.RawMessage `json:"value,omitempty"`
	ValueBase64 []byte          `json:"value_base64,omitempty"`
}

func newLetter(id string, m *produce.Message) letter {
	l := letter{ID: id, Time: m.Time.UTC(), Bytes: len(m.Value)}
	for _, header := range m.Headers {
		value := string(header.Value)
		switch string(header.Key) {
		case produce.HeaderDLQReason:
			l.Reason = value
		case produce.HeaderDLQStep:
			l.Step = value
		case produce.HeaderDLQRule:
			l.Rule = value
		case produce.HeaderDLQTopic:
			l.Topic = value
		case produce.HeaderDLQTime:
			if at, err := time.Parse(time.RFC3339, value); err == nil {
				l.Time = at.UTC()
			}
		case "token":
			l.Token = value
		case "distinct_id":
			l.DistinctID = value
		case "event":
			l.Event = value
		case "uuid":
			l.UUID = value
		}
	}
	return l
}

// open adds the message itself: its key, headers and value.
func (l *letter) open(m *produce.Message) {
	if m.Key != nil {
		key := string(m.Key)
		l.Key = &key
	}
	l.Headers = map[string]string{}
	for _, header := range m.Headers {
		l.Headers[string(header.Key)] = string(header.Value)
	}
	if l.Value = produce.JSONOf(m.Value); l.Value == nil {
		l.ValueBase64 = m.Value
	}
}

// filter is the keys and values that a letter must have.
type filter map[string]string

func parseFilter(texts []string, topics produce.Topics) (filter, error) {
	f := filter{}
	for _, text := range texts {
		key, value, found := strings.Cut(text, "=")
		if !found {
			return nil, module.Misusef("--filter wants KEY=VALUE, got %q", text)
		}
		if !slices.Contains(filterKeys, key) {
			return nil, module.Misusef("--filter: %q is not one of %s", key, strings.Join(filterKeys, ", "))
		}
		if _, err := time.Parse(time.RFC3339, value); err != nil && (key == "since" || key == "until") {
			return nil, module.Misusef("--filter %s: %q is not a time such as 2026-11-27T15:04:05Z", key, value)
		}
		if names := topics.Names(); key == "topic" && !slices.Contains(names, value) {
			return nil, module.Misusef("--filter topic: %q is none of the topics of the configuration: %s",
				value, strings.Join(names, ", "))
		}
		f[key] = value
	}
	return f, nil
}

func (f filter) matches(l *letter) bool {
	for key, value := range f {
		at, _ := time.Parse(time.RFC3339, value)
		matches := false
		switch key {
		case "id":
			matches = l.ID == value
		case "reason":
			matches = l.Reason == value
		case "topic":
			matches = l.Topic == value
		case "token":
			matches = l.Token == value
		case "distinct_id":
			matches = l.DistinctID == value
		case "event":
			matches = l.Event == value
		case "since":
			matches = !l.Time.Before(at)
		case "until":
			matches = l.Time.Before(at)
		}
		if !matches {
			return false
		}
	}
	return true
}

// letterReader reads dead letters from the disk and from Kafka.
type letterReader struct {
	spool  SpoolConfig
	topic  string
	topics produce.Reader
}

// inKafka calls each for the wanted letters in the topic.
func (r letterReader) inKafka(ctx context.Context, wanted filter, each func(*letter, *produce.Message) error) error {
	return r.topics.ReadTopic(ctx, r.topic, func(partition int32, offset int64, m *produce.Message) error {
		if l := newLetter(fmt.Sprintf("%s/%d/%d", r.topic, partition, offset), m); wanted.matches(&l) {
			return each(&l, m)
		}
		return nil
	})
}

// onDisk calls each for the wanted letters in the log. It leaves out the letters that cannot be read, and returns how
// many these are.
func (r letterReader) onDisk(
	ctx context.Context, log *spool.Log, wanted filter, each func(uint64, *letter, *produce.Message) error,
) (unreadable int, err error) {
	var chunk spool.Chunk
	var m produce.Message
	defer func() { unreadable += int(log.Stats().CorruptRecords) }()
	for ctx.Err() == nil {
		if err := log.Read(&chunk, chunkBytes); err != nil {
			return unreadable, err
		}
		if len(chunk.Records) == 0 {
			return unreadable, nil
		}
		for _, record := range chunk.Records {
			if err := readRecord(record.Payload, &m); err != nil {
				unreadable++
				continue
			}
			if l := newLetter(fmt.Sprintf("disk/%d", record.Seq), &m); wanted.matches(&l) {
				if err := each(record.Seq, &l, &m); err != nil {
					return unreadable, err
				}
			}
		}
	}
	return unreadable, context.Cause(ctx)
}

// each calls see for the wanted letters, first for those on the disk.
func (r letterReader) each(
	use module.Invocation, wanted filter, see func(*letter, *produce.Message) error,
) (err error) {
	found := uint64(0)
	progress := use.Progress("dead letters found")
	defer progress.End()
	count := func(l *letter, m *produce.Message) error {
		found++
		progress.Set(found, 0)
		progress.Clear()
		return see(l, m)
	}
	if err := isThere(r.spool); err != nil {
		use.Hint("dead letters on the disk are not looked for: %s", err)
	}
	opened, err := spool.Inspect(r.spool.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	unreadable, err := r.onDisk(use.Context, opened.Log(deadLetterLog), wanted,
		func(_ uint64, l *letter, m *produce.Message) error { return count(l, m) })
	if unreadable > 0 {
		err = errors.Join(err, fmt.Errorf("%d dead letters on the disk cannot be read by this version", unreadable))
	}
	// The letters on the disk are listed also when Kafka is away.
	return errors.Join(err, r.inKafka(use.Context, wanted, count))
}

// replay sends letters to the topics that they were meant for, the letters on the disk first.
func replay(
	use module.Invocation, letters letterReader, wanted filter, producer produce.Producer, topics produce.Topics,
	dry bool,
) (err error) {
	r := replayer{out: use.Out, progress: use.Progress("dead letters sent"), producer: producer, dry: dry}
	r.topics = slices.DeleteFunc(topics.Names(), func(name string) bool { return name == topics.DLQ })
	defer r.progress.End()
	if !dry {
		end, err := connect(use.Context, producer)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	opened, faultOnDisk := openSpool(letters.spool, dry)
	inUse := errors.Is(faultOnDisk, spool.ErrInUse)
	switch {
	case inUse:
		faultOnDisk = nil
	case faultOnDisk == nil:
		log := opened.Log(deadLetterLog)
		r.unreadable, faultOnDisk = letters.onDisk(use.Context, log, wanted,
			func(seq uint64, l *letter, m *produce.Message) error {
				sent, err := r.send(use.Context, l, m)
				if sent {
					log.Done(seq)
				}
				return err
			})
		faultOnDisk = errors.Join(faultOnDisk, opened.Close())
	}
	if faultOnDisk != nil {
		faultOnDisk = fmt.Errorf("dead letters on the disk: %w", faultOnDisk)
	}
	faultInKafka := letters.inKafka(use.Context, wanted, func(l *letter, m *produce.Message) error {
		_, err := r.send(use.Context, l, m)
		return err
	})
	r.progress.End()
	if inUse {
		faultOnDisk = letters.tellOfDisk(use, wanted)
	}
	verb := "sent"
	if dry {
		verb = "would be sent"
	}
	_, err = fmt.Fprintf(use.Out, "%d dead letters %s, %d were refused again, %d skipped\n",
		r.sent, verb, r.refused, r.skipped())
	if r.refused > 0 {
		err = errors.Join(err, fmt.Errorf("%d dead letters were refused again", r.refused))
	}
	for _, skipped := range []struct {
		count int
		why   string
	}{
		{r.homeless, "do not say where they were meant to go"},
		{r.strayed, "were meant for a topic that is none of the configuration's: to send them, add it to " +
			"kafka.topics.custom"},
		{r.unreadable, "on the disk cannot be read by this version"},
	} {
		if skipped.count > 0 {
			err = errors.Join(err, fmt.Errorf("skipped: %d dead letters %s", skipped.count, skipped.why))
		}
	}
	return errors.Join(faultOnDisk, faultInKafka, err)
}

// tellOfDisk says how many of the wanted letters lie on the disk, which a running service has to itself.
func (r letterReader) tellOfDisk(use module.Invocation, wanted filter) (err error) {
	opened, err := spool.Inspect(r.spool.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	left := 0
	_, err = r.onDisk(use.Context, opened.Log(deadLetterLog), wanted, func(uint64, *letter, *produce.Message) error {
		left++
		return nil
	})
	if left > 0 {
		use.Hint("%d dead letters on the disk were left alone, because a service runs and uses the spool: stop the "+
			"service and replay them", left)
	}
	return err
}

type replayer struct {
	out      io.Writer
	progress *module.Progress
	producer produce.Producer
	// topics are the topics to which letters are sent.
	topics []string
	dry    bool

	sent, refused                 int
	homeless, strayed, unreadable int // skipped
}

func (r *replayer) skipped() int { return r.homeless + r.strayed + r.unreadable }

// send sends one letter and prints that it did, or what it did instead. An error is a reason to stop.
func (r *replayer) send(ctx context.Context, l *letter, m *produce.Message) (sent bool, err error) {
	switch {
	case l.Topic == "":
		r.homeless++
		return false, r.tell("%s skipped: it does not say where it was meant to go", l.ID)
	case !slices.Contains(r.topics, l.Topic):
		r.strayed++
		return false, r.tell("%s skipped: topic %q is none of the configuration's", l.ID, l.Topic)
	}
	verb := "would be sent"
	if !r.dry {
		again := *m
		again.Topic, again.Headers = l.Topic, produce.WithoutDLQHeaders(m.Headers)
		switch refusal := sendAlone(ctx, r.producer, again); {
		case produce.IsRefusal(refusal):
			r.refused++
			return false, r.tell("%s to %s: refused again: %v", l.ID, l.Topic, refusal)
		case refusal != nil:
			return false, fmt.Errorf("send %s to %s: %w", l.ID, l.Topic, refusal)
		}
		verb = "sent"
	}
	r.sent++
	r.progress.Set(uint64(r.sent), 0)
	return !r.dry, r.tell("%s %s to %s", l.ID, verb, l.Topic)
}

// tell prints a line.
func (r *replayer) tell(format string, args ...any) error {
	r.progress.Clear()
	_, err := fmt.Fprintf(r.out, format+"\n", args...)
	return err
}

// sendAlone sends one message and returns the report on it, or the context's cause. It sends a copy, so the caller may
// use the message's bytes again at once.
func sendAlone(ctx context.Context, producer produce.Producer, m produce.Message) error {
	reported := make(chan error, 1)
	producer.Produce([]produce.Message{copyOf(&m)}, func(_ int, err error) { reported <- err })
	select {
	case err := <-reported:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// copyOf returns a copy that shares no memory with m.
func copyOf(m *produce.Message) produce.Message {
	c := produce.Message{Topic: m.Topic, Key: bytes.Clone(m.Key), Value: bytes.Clone(m.Value), Time: m.Time}
	for _, header := range m.Headers {
		c.Headers = append(c.Headers, produce.Header{Key: bytes.Clone(header.Key), Value: bytes.Clone(header.Value)})
	}
	return c
}
