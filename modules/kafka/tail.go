package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/terminal"
)

// The forms of a line of tail.
const (
	formatPretty = "pretty"
	formatJSON   = module.JSON
)

func tailCommand() module.Command {
	var t Tail
	var from string
	var noFollow bool
	return module.Command{
		Use:   "tail",
		Short: "Print events as they arrive in Kafka",
		Long: `Prints the newest events in Kafka, and then events as they arrive, until interrupted: a line an event, in
the order of time across all topics. It waits for topics that do not exist yet. It reads from kafka.brokers or, where
that is empty, from the embedded broker of a running "capture serve".

--from says where to begin: recent (the newest ten events, or --limit; of selected events, those among the newest
hundred of each partition), start (the oldest event that Kafka has), now (the next event), a time of RFC 3339, or how
long ago, such as 10m.

--format pretty is for people. --format json is for programs: an object a line.`,
		Example: `  capture tail
  capture tail --event signed_up --distinct-id user-1 --from 1h
  capture tail --from start --no-follow --format json | jq .value.data`,
		Flags: func(flags *module.Flags) {
			flags.StringArrayVar(&t.Topics, "topic", nil,
				"topic `NAME` to read; may be repeated (default: every topic of kafka.topics)")
			flags.StringVar(&t.Token, "token", "", "print only events of this project `TOKEN`")
			flags.StringVar(&t.Event, "event", "", "print only events of this `NAME`")
			flags.StringVar(&t.DistinctID, "distinct-id", "", "print only events of the user with this `ID`")
			flags.StringVar(&from, "from", "recent", "`WHERE` to begin: recent, start, now, a time, or how long ago")
			flags.BoolVar(&noFollow, "no-follow", false, "stop after the events that are in Kafka now")
			flags.IntVar(&t.Limit, "limit", 0, "stop after this `NUMBER` of events (default: never)")
			flags.StringVar(&t.Format, "format", formatPretty, "print a `FORMAT`: pretty, for people, or json")
		},
		Values: map[string]any{
			"topic":  func(cfg Config) ([]string, error) { return cfg.Topics.Names(), nil },
			"from":   func() ([]string, error) { return []string{"recent", "start", "now"}, nil },
			"format": []string{formatPretty, formatJSON},
		},
		Run: func(use module.Invocation, cfg Config, bootstrap *Bootstrap) (err error) {
			if t.Limit < 0 {
				return module.Misusef("--limit must not be negative, got %d", t.Limit)
			}
			if t.From, err = parseStart(from, time.Now()); err != nil {
				return err
			}
			if t.From == (Start{Now: true}) && noFollow {
				return module.Misusef("--from now and --no-follow leave nothing to print")
			}
			t.Follow = !noFollow
			return t.Run(use, cfg, bootstrap)
		},
	}
}

// Start says with which event of a partition to begin. The zero value begins with the oldest one.
type Start struct {
	// Recent begins with the newest events.
	Recent bool
	// Now begins with the next event.
	Now bool
	// At begins with the first event that is not older.
	At time.Time
}

func parseStart(text string, now time.Time) (Start, error) {
	switch text {
	case "recent":
		return Start{Recent: true}, nil
	case "start":
		return Start{}, nil
	case "now":
		return Start{Now: true}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return Start{At: at}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return Start{At: now.Add(-ago)}, nil
	}
	return Start{}, module.Misusef("--from must be recent, start, now, a time such as 2026-11-27T15:04:05Z, or how "+
		"long ago, such as 10m, got %q", text)
}

// Tail prints events from Kafka.
type Tail struct {
	// Topics are the topics to read. Empty: the topics of the section.
	Topics []string
	// Token, Event and DistinctID select events by these headers. Empty: all.
	Token, Event, DistinctID string
	// From says where to begin.
	From Start
	// Follow goes on with the events that arrive, and waits for topics that do not exist yet.
	Follow bool
	// Limit is how many events to print; 0 means no limit.
	Limit int
	// Format is pretty or json.
	Format string
}

const (
	// recentShown is how many of the newest events are shown, and recentRead how many of each partition are read to
	// find those that the user has selected.
	recentShown = 10
	recentRead  = 100
)

// newest returns how many of the newest events are shown.
func (t Tail) newest() int { return cmp.Or(t.Limit, recentShown) }

// selects reports whether the user wants only some events.
func (t Tail) selects() bool { return t.Token != "" || t.Event != "" || t.DistinctID != "" }

// errEnough ends the reading when the limit is reached.
var errEnough = errors.New("enough events")

// Run prints events until the user interrupts it, the limit is reached, or, without Follow, all is printed. None of
// these is an error.
func (t Tail) Run(use module.Invocation, cfg Config, bootstrap *Bootstrap) error {
	client, err := readingClient(use.Context, cfg, bootstrap)
	if err != nil {
		if use.Context.Err() != nil {
			return nil
		}
		return err
	}
	defer client.Close() //nolint:errcheck // nothing was written
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return fmt.Errorf("kafka consumer: %w", err)
	}
	defer consumer.Close() //nolint:errcheck // the readers are closed below

	existing, missing, err := t.topics(client, cfg)
	if err != nil {
		return err
	}
	source := &timeline{client: client, consumer: consumer, recent: t.newest()}
	if t.selects() {
		source.recent = max(source.recent, recentRead)
	}
	defer source.close()
	for _, topic := range existing {
		if err := source.open(topic, t.From, t.Follow); err != nil {
			return err
		}
	}
	use.Output = module.JSON // of the list, which pretty does not use
	p := &tailPrinter{tail: t, use: use, list: use.List()}
	err = t.print(use, source, missing, p)
	cause := context.Cause(use.Context)
	switch {
	case errors.Is(err, errEnough), errors.Is(err, syscall.EPIPE): // the reader of our output has seen enough
		return nil
	case use.Context.Err() != nil && errors.Is(err, cause):
		return nil
	}
	return err
}

// print prints what is there and then, with Follow, what arrives.
func (t Tail) print(use module.Invocation, source *timeline, missing []string, p *tailPrinter) error {
	if t.From.Recent {
		newest := &ring{size: t.newest()}
		err := source.drain(use.Context, func(message *sarama.ConsumerMessage) error {
			if p.wants(message) {
				newest.add(message)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, message := range newest.inOrder() {
			if err := p.print(message); err != nil {
				return err
			}
		}
	} else if err := source.drain(use.Context, p.print); err != nil {
		return err
	}
	if !t.Follow {
		if late := source.late(); len(late) > 0 {
			use.Hint("no more has come for %s from %s: Kafka is slow, or what is last there are marks of transactions",
				stall, strings.Join(late, ", "))
		}
		if p.printed == 0 {
			use.Hint("nothing%s is in Kafka: %s", t.about(), t.advice())
		}
		return nil
	}
	if len(missing) > 0 && (len(t.Topics) > 0 || len(source.partitions) == 0) {
		use.Hint("waiting for topics that do not exist yet: %s", strings.Join(missing, ", "))
	}
	return source.follow(use.Context, missing, p.print, func() {
		if p.printed == 0 {
			use.Hint("nothing%s has come for %s: %s", t.about(), quiet, t.advice())
		}
	})
}

// quiet is the time without an event after which the user gets a hint.
const quiet = 5 * time.Second

// about says which events are selected.
func (t Tail) about() string {
	var text strings.Builder
	for _, selected := range []struct{ what, value string }{
		{"token", t.Token}, {"event", t.Event}, {"distinct_id", t.DistinctID},
	} {
		if selected.value != "" {
			fmt.Fprintf(&text, " with the %s %s", selected.what, selected.value)
		}
	}
	return text.String()
}

// advice tells the user what to look at when no event comes.
func (t Tail) advice() string {
	advice := "does the service get events? See capture_events_received_total in its /metrics"
	if t.From != (Start{}) {
		advice += "; --from start shows earlier ones"
	}
	return advice
}

// topics returns the topics to read that exist, and those that may come to exist. Without Follow the latter are an
// error if the user has named them, or if no topic exists.
func (t Tail) topics(client sarama.Client, cfg Config) (existing, missing []string, err error) {
	wanted := slices.Compact(slices.Sorted(slices.Values(t.Topics))) // no topic is read twice
	if len(wanted) == 0 {
		wanted = cfg.Topics.Names()
	}
	// A topic that does not exist is among the missing ones.
	if err := client.RefreshMetadata(wanted...); errors.Is(err, sarama.ErrOutOfBrokers) {
		return nil, nil, fmt.Errorf("list topics: %w", err)
	}
	known, err := client.Topics()
	if err != nil {
		return nil, nil, fmt.Errorf("list topics: %w", err)
	}
	for _, topic := range wanted {
		switch {
		case slices.Contains(known, topic):
			existing = append(existing, topic)
		case !slices.Contains(cfg.Topics.Names(), topic):
			return nil, nil, fmt.Errorf("no such topic: %s; the topics of the configuration are %s", topic,
				strings.Join(cfg.Topics.Names(), ", "))
		default:
			missing = append(missing, topic)
		}
	}
	switch {
	case t.Follow:
	case len(t.Topics) > 0 && len(missing) > 0:
		return nil, nil, fmt.Errorf("the topic does not exist yet: %s", strings.Join(missing, ", "))
	case len(existing) == 0:
		return nil, nil, fmt.Errorf("none of the topics exists yet: %s", strings.Join(missing, ", "))
	}
	return existing, missing, nil
}

// ring keeps the newest messages.
type ring struct {
	size     int
	messages []*sarama.ConsumerMessage
	oldest   int // where the oldest message is, once the ring is full
}

func (r *ring) add(message *sarama.ConsumerMessage) {
	if len(r.messages) < r.size {
		r.messages = append(r.messages, message)
		return
	}
	r.messages[r.oldest] = message
	r.oldest = (r.oldest + 1) % r.size
}

// inOrder returns the messages in the order in which they were added.
func (r *ring) inOrder() []*sarama.ConsumerMessage {
	return slices.Concat(r.messages[r.oldest:], r.messages[:r.oldest])
}

// tailPrinter prints the events that the user wants.
type tailPrinter struct {
	tail    Tail
	use     module.Invocation
	list    *module.List
	printed int
}

// wants reports whether the message is of the events that the user has selected.
func (p *tailPrinter) wants(message *sarama.ConsumerMessage) bool {
	for _, selected := range []struct{ header, value string }{
		{"token", p.tail.Token}, {"event", p.tail.Event}, {"distinct_id", p.tail.DistinctID},
	} {
		if selected.value != "" && !slices.ContainsFunc(message.Headers, func(header *sarama.RecordHeader) bool {
			return string(header.Key) == selected.header && string(header.Value) == selected.value
		}) {
			return false
		}
	}
	return true
}

// print prints the message if the user wants it. It returns errEnough after the last one.
func (p *tailPrinter) print(message *sarama.ConsumerMessage) error {
	if !p.wants(message) {
		return nil
	}
	line := newLine(message)
	var err error
	if p.tail.Format == formatJSON {
		err = p.list.Add(line)
	} else if _, err = io.WriteString(terminal.Raw(p.use.Out), line.pretty(p.use.Color)); err != nil {
		err = fmt.Errorf("print an event: %w", err)
	}
	if p.printed++; err == nil && p.printed == p.tail.Limit {
		return errEnough
	}
	return err
}
