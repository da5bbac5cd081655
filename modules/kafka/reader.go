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
	config, err := clientConfig(r.cfg)
	if err != nil {
		return err
	}
	config.Consumer.Return.Errors = true
	config.Consumer.MaxWaitTime = 250 * time.Millisecond
	client, err := sarama.NewClient(r.bootstrap.Addresses(), config)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close() //nolint:errcheck // nothing was written
	partitions, err := client.Partitions(topic)
	switch {
	case errors.Is(err, sarama.ErrUnknownTopicOrPartition):
		return nil
	case errors.Is(err, sarama.ErrOutOfBrokers):
		return fmt.Errorf("no broker answers at %s: %w", strings.Join(r.bootstrap.Addresses(), ", "), err)
	case err != nil:
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return fmt.Errorf("kafka consumer: %w", err)
	}
	defer consumer.Close() //nolint:errcheck // nothing was written
	for _, partition := range partitions {
		if err := readPartition(ctx, client, consumer, topic, partition, each); err != nil {
			return err
		}
	}
	return nil
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

func readPartition(
	ctx context.Context, client sarama.Client, consumer sarama.Consumer, topic string, partition int32,
	each func(partition int32, offset int64, m *produce.Message) error,
) error {
	next, end, err := offsets(client, topic, partition)
	if err != nil {
		return fmt.Errorf("topic %s, partition %d: %w", topic, partition, err)
	}
	if next >= end {
		return nil
	}
	reader, err := consumer.ConsumePartition(topic, partition, next)
	if err != nil {
		return fmt.Errorf("topic %s, partition %d: %w", topic, partition, err)
	}
	defer reader.Close() //nolint:errcheck // nothing was written
	for next < end {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-reader.Errors():
			return fmt.Errorf("topic %s, partition %d: %w", topic, partition, err)
		case got := <-reader.Messages():
			next = got.Offset + 1
			m := produce.Message{Topic: got.Topic, Key: got.Key, Value: got.Value, Time: got.Timestamp}
			for _, header := range got.Headers {
				m.Headers = append(m.Headers, produce.Header{Key: header.Key, Value: header.Value})
			}
			if err := each(partition, got.Offset, &m); err != nil {
				return err
			}
		}
	}
	return nil
}
