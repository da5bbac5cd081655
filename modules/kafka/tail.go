package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
)

func tailCommand() module.Command {
	var t Tail
	var from string
	return module.Command{
		Use:   "tail",
		Short: "Print events as they arrive in Kafka",
		Long: `Prints events as they arrive in Kafka until interrupted: as JSON, an object a line, or as a table of what
they are about. Reads from kafka.brokers or, where that is empty, from the embedded broker of a running
"capture serve".`,
		Example: `  capture tail --from start --limit 10
  capture tail --topic exceptions --token phc_mine --output table`,
		Output: module.JSON,
		Flags: func(flags *module.Flags) {
			flags.StringArrayVar(&t.Topics, "topic", nil,
				"topic `NAME` to read; may be repeated (default: every topic of kafka.topics)")
			flags.StringVar(&t.Token, "token", "", "print only events of this project `TOKEN`")
			flags.StringVar(&from, "from", "now", "`WHERE` to begin: start (the oldest event that is kept) or now")
			flags.IntVar(&t.Limit, "limit", 0, "stop after this `NUMBER` of events (default: never)")
		},
		Values: map[string]any{
			"topic": func(cfg Config) ([]string, error) { return cfg.Topics.Names(), nil },
			"from":  []string{"start", "now"},
		},
		Run: func(use module.Invocation, cfg Config, bootstrap *Bootstrap) error {
			if t.Limit < 0 {
				return module.Misusef("--limit must not be negative, got %d", t.Limit)
			}
			t.FromStart = from == "start"
			return t.Run(use, cfg, bootstrap)
		},
	}
}

// Tail prints events from Kafka.
type Tail struct {
	// Topics are the topics to read. Empty: the topics of the section that exist.
	Topics []string
	// Token selects a project. Empty: all projects.
	Token string
	// FromStart begins with the oldest event that Kafka still has, instead of with the next one.
	FromStart bool
	// Limit is how many events to print; 0 means no limit.
	Limit int
}

// Line is one event as JSON shows it.
type Line struct {
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Key       *string           `json:"key"`
	Timestamp time.Time         `json:"timestamp"`
	Headers   map[string]string `json:"headers"`
	// Value is the message's JSON, in which the JSON text of the field data is replaced by the JSON itself. It is a
	// string if the message is not JSON.
	Value json.RawMessage `json:"value"`
}

// Run prints events until the user interrupts it or the limit is reached. Neither of these is an error.
func (t Tail) Run(use module.Invocation, cfg Config, bootstrap *Bootstrap) error {
	config, err := clientConfig(cfg)
	if err != nil {
		return err
	}
	config.Consumer.Return.Errors = true
	config.Consumer.MaxWaitTime = 250 * time.Millisecond
	client, err := sarama.NewClient(bootstrap.Addresses(), config)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close() //nolint:errcheck // nothing was written
	topics, err := t.topics(client, cfg, bootstrap)
	if err != nil {
		return err
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return fmt.Errorf("kafka consumer: %w", err)
	}
	defer consumer.Close() //nolint:errcheck // the readers are closed below

	ctx, cancel := context.WithCancelCause(use.Context)
	defer cancel(nil)
	lines := make(chan *sarama.ConsumerMessage)
	readers := panics.NewGroup(zap.NewNop()) // Run returns a reader's panic
	defer readers.Wait()
	defer cancel(nil)
	for _, topic := range topics {
		partitions, err := client.Partitions(topic)
		if err != nil {
			return fmt.Errorf("topic %s: %w", topic, err)
		}
		for _, partition := range partitions {
			offset := sarama.OffsetNewest
			if t.FromStart {
				offset = sarama.OffsetOldest
			}
			var reader sarama.PartitionConsumer
			err := askLeader(client, func() (err error) {
				reader, err = consumer.ConsumePartition(topic, partition, offset)
				return err
			})
			if err != nil {
				return fmt.Errorf("topic %s, partition %d: %w", topic, partition, err)
			}
			readers.Go("the reader of a partition", func() {
				if err := panics.Catch(func() error { return read(ctx, reader, lines) }); err != nil {
					cancel(err)
				}
			})
		}
	}
	use.Context = ctx
	return t.print(use, lines)
}

// read passes a partition's messages on until ctx is over.
func read(ctx context.Context, reader sarama.PartitionConsumer, lines chan<- *sarama.ConsumerMessage) error {
	defer reader.Close() //nolint:errcheck // nothing was written
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-reader.Errors():
			// The reader tries again by itself after every error but this one: its offset is no longer in the
			// partition.
			if err != nil && errors.Is(err, sarama.ErrOffsetOutOfRange) {
				return fmt.Errorf("the oldest events were removed while they were read: %w", err)
			}
		case message, open := <-reader.Messages():
			if !open {
				return nil
			}
			select {
			case lines <- message:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// quiet is the time without an event after which the user gets a hint.
const quiet = 5 * time.Second

func (t Tail) print(use module.Invocation, lines <-chan *sarama.ConsumerMessage) error {
	list := use.List("time", "topic", "partition/offset", "token", "distinct_id", "event")
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	for printed := 0; t.Limit == 0 || printed < t.Limit; {
		select {
		case <-use.Context.Done():
			cause := context.Cause(use.Context)
			if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
				return nil
			}
			return cause
		case <-silence.C:
			t.wonder(use)
		case message := <-lines:
			line := newLine(message)
			if t.Token != "" && line.Headers["token"] != t.Token {
				continue
			}
			silence.Stop()
			printed++
			err := list.Add(line, line.Timestamp.Format(time.RFC3339), line.Topic,
				fmt.Sprintf("%d/%d", line.Partition, line.Offset),
				line.Headers["token"], line.Headers["distinct_id"], line.Headers["event"])
			if err := errors.Join(err, list.Flush()); err != nil {
				if errors.Is(err, syscall.EPIPE) {
					return nil // the reader of our output has seen enough
				}
				return err
			}
		}
	}
	return nil
}

// wonder tells the user what to look at when no event comes.
func (t Tail) wonder(use module.Invocation) {
	what, advice := "nothing", "does the service get events? See capture_events_received_total in its /metrics"
	if t.Token != "" {
		what = "nothing with the token " + t.Token
	}
	if !t.FromStart {
		advice += "; --from start shows earlier ones"
	}
	use.Hint("%s has come for %s: %s", what, quiet, advice)
}

// topics returns the topics to read, all of which exist.
func (t Tail) topics(client sarama.Client, cfg Config, bootstrap *Bootstrap) ([]string, error) {
	wanted := t.Topics
	if len(wanted) == 0 {
		wanted = cfg.Topics.Names()
	}
	// A topic that does not exist is named in the error below.
	if err := client.RefreshMetadata(wanted...); err != nil && len(client.Brokers()) == 0 {
		if bootstrap.local != nil {
			return nil, fmt.Errorf("no broker answers at %s: is `capture serve` running?", bootstrap.local.Address())
		}
		return nil, fmt.Errorf("no broker answers at %s: %w", strings.Join(bootstrap.Addresses(), ", "), err)
	}
	known, err := client.Topics()
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	existing := slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return !slices.Contains(known, name) })
	switch {
	case len(t.Topics) > 0 && len(existing) < len(t.Topics):
		missing := slices.DeleteFunc(slices.Clone(wanted),
			func(name string) bool { return slices.Contains(known, name) })
		return nil, fmt.Errorf("no such topic: %s", strings.Join(missing, ", "))
	case len(existing) == 0:
		return nil, fmt.Errorf("none of the topics exists: %s", strings.Join(wanted, ", "))
	}
	return existing, nil
}

func newLine(message *sarama.ConsumerMessage) Line {
	line := Line{
		Topic: message.Topic, Partition: message.Partition, Offset: message.Offset,
		Timestamp: message.Timestamp.UTC(), Headers: make(map[string]string, len(message.Headers)),
	}
	if message.Key != nil {
		key := string(message.Key)
		line.Key = &key
	}
	for _, header := range message.Headers {
		line.Headers[string(header.Key)] = string(header.Value)
	}
	line.Value = opened(message.Value)
	return line
}

// opened returns a message's JSON, in which the string in the field data is replaced by the JSON that it holds. The
// order of the fields is kept.
func opened(value []byte) json.RawMessage {
	if !json.Valid(value) {
		text, _ := json.Marshal(string(value)) // a string can always be marshalled
		return text
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return value
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return value
		}
		var field json.RawMessage
		if err := decoder.Decode(&field); err != nil {
			return value
		}
		if name != "data" {
			continue
		}
		var data string
		if err := json.Unmarshal(field, &data); err != nil || !json.Valid([]byte(data)) {
			return value
		}
		end := int(decoder.InputOffset())
		return slices.Concat(value[:end-len(field)], []byte(data), value[end:])
	}
	return value
}
