package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
)

func tailCommand() module.Command {
	return module.Command{
		Name:  "tail",
		Short: "Print events as they arrive in Kafka, one JSON line each",
		Long: `Prints events as they arrive in Kafka, one JSON line each, until interrupted. Reads from kafka.brokers or,
where that is empty, from the embedded broker of a running "capture serve".`,
		Flags: func(flags *pflag.FlagSet) {
			flags.StringArray("topic", nil, "topic `NAME` to read; may be repeated (default: every topic of kafka.topics)")
			flags.String("token", "", "print only events of this project `TOKEN`")
			flags.String("from", "now", "where to begin: start (the oldest event that is kept) or now")
			flags.Int("limit", 0, "stop after this many events (default: never)")
		},
		Run: runTail,
	}
}

func runTail(use module.Invocation, cfg Config, bootstrap *Bootstrap) error {
	if len(use.Args) > 0 {
		return fmt.Errorf("tail takes no arguments, got %q: name topics with --topic", use.Args)
	}
	var t Tail
	var from string
	var err error
	for _, flag := range []struct {
		name string
		get  func() error
	}{
		{"topic", func() error { t.Topics, err = use.Flags.GetStringArray("topic"); return err }},
		{"token", func() error { t.Token, err = use.Flags.GetString("token"); return err }},
		{"from", func() error { from, err = use.Flags.GetString("from"); return err }},
		{"limit", func() error { t.Limit, err = use.Flags.GetInt("limit"); return err }},
	} {
		if err := flag.get(); err != nil {
			return fmt.Errorf("--%s: %w", flag.name, err)
		}
	}
	switch from {
	case "start":
		t.FromStart = true
	case "now":
	default:
		return fmt.Errorf("--from must be start or now, got %q", from)
	}
	if t.Limit < 0 {
		return fmt.Errorf("--limit must not be negative, got %d", t.Limit)
	}
	return t.Run(use.Context, cfg, bootstrap, use.Out)
}

// Tail prints events from Kafka, one JSON line each.
type Tail struct {
	// Topics are the topics to read; empty means those of the section that exist.
	Topics []string
	// Token selects a project; empty means all.
	Token string
	// FromStart begins with the oldest event that is kept instead of with the next one.
	FromStart bool
	// Limit is how many events to print; 0 means no limit.
	Limit int
}

// Line is one printed event.
type Line struct {
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Key       *string           `json:"key"`
	Timestamp time.Time         `json:"timestamp"`
	Headers   map[string]string `json:"headers"`
	// Value is the message's JSON with the JSON in its field data opened up, or a string if the message is not JSON.
	Value json.RawMessage `json:"value"`
}

// Run prints until ctx or the limit is over, both of which are no error.
func (t Tail) Run(ctx context.Context, cfg Config, bootstrap *Bootstrap, out io.Writer) error {
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

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := make(chan *sarama.ConsumerMessage)
	readers := panics.NewGroup(zap.NewNop()) // a reader's panic is what Run returns
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
	return t.print(ctx, lines, out)
}

// read passes a partition's messages on until ctx is over.
func read(ctx context.Context, reader sarama.PartitionConsumer, lines chan<- *sarama.ConsumerMessage) error {
	defer reader.Close() //nolint:errcheck // nothing was written
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-reader.Errors():
			// The reader itself tries again, but for a range that is no longer there.
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

func (t Tail) print(ctx context.Context, lines <-chan *sarama.ConsumerMessage, out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for printed := 0; t.Limit == 0 || printed < t.Limit; {
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
				return cause
			}
			return nil
		case message := <-lines:
			line := newLine(message)
			if t.Token != "" && line.Headers["token"] != t.Token {
				continue
			}
			printed++
			if err := encoder.Encode(line); err != nil {
				if errors.Is(err, syscall.EPIPE) {
					return nil // the reader of our output has seen enough
				}
				return fmt.Errorf("print an event: %w", err)
			}
		}
	}
	return nil
}

// topics returns the topics to read, which exist.
func (t Tail) topics(client sarama.Client, cfg Config, bootstrap *Bootstrap) ([]string, error) {
	wanted := t.Topics
	if len(wanted) == 0 {
		wanted = cfg.Topics.Names()
	}
	// A topic that is not there is told below, with its name.
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
		missing := slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return slices.Contains(known, name) })
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

// opened returns a message's JSON with the string in its field data replaced by the JSON that it holds. The order of the
// fields is kept.
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
