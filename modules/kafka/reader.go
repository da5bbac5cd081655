package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/produce"
)

// Reader reads topics for commands. Each call makes a connection of its own.
type Reader struct {
	cfg       Config
	bootstrap *Bootstrap
}

var _ produce.Reader = (*Reader)(nil)

// NewReader returns a reader of the section's cluster.
func NewReader(cfg Config, bootstrap *Bootstrap) *Reader {
	return &Reader{cfg: cfg, bootstrap: bootstrap}
}

// ReadTopic implements produce.Reader. A topic that does not exist holds nothing.
func (r *Reader) ReadTopic(
	ctx context.Context, topic string, each func(partition int32, offset int64, m *produce.Message) error,
) error {
	client, err := readingClient(ctx, r.cfg, r.bootstrap)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // nothing was written
	partitions, err := client.Partitions(topic)
	switch {
	case errors.Is(err, sarama.ErrUnknownTopicOrPartition):
		return nil
	case err != nil:
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return fmt.Errorf("kafka consumer: %w", err)
	}
	defer consumer.Close() //nolint:errcheck // nothing was written
	line := &timeline{client: client, consumer: consumer}
	for _, number := range partitions {
		p := &timePartition{topic: topic, number: number}
		if err := readPartition(ctx, line, p, each); err != nil {
			return err
		}
	}
	return nil
}

// readingClient returns a client for a command that reads. If no broker can be used, the error says why.
func readingClient(ctx context.Context, cfg Config, bootstrap *Bootstrap) (sarama.Client, error) {
	config, err := clientConfig(cfg)
	if err != nil {
		return nil, err
	}
	config.Consumer.Return.Errors = true
	config.Consumer.MaxWaitTime = 250 * time.Millisecond
	client, err := dial(ctx, bootstrap.Addresses(), cfg.Topics.Events, config)
	switch {
	case err == nil:
		return client, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case bootstrap.local != nil:
		return nil, fmt.Errorf("no broker answers at %s: is `capture serve` running?", bootstrap.local.Address())
	}
	return nil, fmt.Errorf("cannot use Kafka at %s: %w", strings.Join(bootstrap.Addresses(), ", "), err)
}

// offsets returns the oldest offset of a partition and the offset behind its newest message.
func offsets(client sarama.Client, topic string, partition int32) (oldest, end int64, err error) {
	err = askLeader(client, func() error {
		if oldest, err = client.GetOffset(topic, partition, sarama.OffsetOldest); err != nil {
			return err
		}
		end, err = client.GetOffset(topic, partition, sarama.OffsetNewest)
		return err
	})
	return oldest, end, err
}

// askLeader asks a partition's leader a question. It asks again while the leader is about to change or has just been
// elected.
func askLeader(client sarama.Client, ask func() error) error {
	for deadline := time.Now().Add(client.Config().Metadata.Timeout); ; {
		err := ask()
		moving := errors.Is(err, sarama.ErrNotLeaderForPartition) || errors.Is(err, sarama.ErrLeaderNotAvailable)
		if !moving || time.Now().After(deadline) {
			return err
		}
		<-time.After(client.Config().Metadata.Retry.Backoff)
	}
}

// readPatience is how long a message that should be there may take. A command that gives up too early has the user
// start it again.
const readPatience = 30 * time.Second

// readPartition passes on the messages that are in a partition now.
func readPartition(
	ctx context.Context, line *timeline, p *timePartition,
	each func(partition int32, offset int64, m *produce.Message) error,
) error {
	if err := p.open(line, Start{}, false); err != nil {
		return fmt.Errorf("topic %s, partition %d: %w", p.topic, p.number, err)
	}
	if p.reader == nil {
		return nil // it is empty
	}
	defer p.reader.Close() //nolint:errcheck // nothing was written
	return p.passToEnd(ctx, each)
}

// passToEnd passes on the messages up to the end of the partition.
func (p *timePartition) passToEnd(
	ctx context.Context, each func(partition int32, offset int64, m *produce.Message) error,
) error {
	for {
		at := p.next
		if err := p.fill(ctx, readPatience); err != nil {
			return fmt.Errorf("topic %s, partition %d: %w", p.topic, p.number, err)
		}
		got := p.head
		switch {
		case p.late:
			return fmt.Errorf("topic %s, partition %d: nothing has come for %s, although %d offsets are left: "+
				"Kafka is slow, or they are marks of transactions", p.topic, p.number, readPatience, p.end-at)
		case got == nil:
			return nil
		}
		p.head = nil
		m := produce.Message{Topic: got.Topic, Key: got.Key, Value: got.Value, Time: got.Timestamp}
		for _, header := range got.Headers {
			m.Headers = append(m.Headers, produce.Header{Key: header.Key, Value: header.Value})
		}
		if err := each(p.number, got.Offset, &m); err != nil {
			return err
		}
	}
}
