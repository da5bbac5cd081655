package testkit

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"
)

// Message is an event as it lies in Kafka.
type Message struct {
	Topic     string
	Partition int32
	Offset    int64
	// Key is nil where the message has none.
	Key     []byte
	Headers map[string]string
	// Value is the message's value; Envelope is the same, read.
	Value    []byte
	Envelope Envelope
}

// Envelope is a message's value. Data is the event's own JSON, taken out of the string that holds it.
type Envelope struct {
	UUID                string          `json:"uuid"`
	DistinctID          string          `json:"distinct_id"`
	IP                  string          `json:"ip"`
	Data                json.RawMessage `json:"-"`
	Now                 time.Time       `json:"now"`
	SentAt              *time.Time      `json:"sent_at"`
	Token               string          `json:"token"`
	Event               string          `json:"event"`
	Timestamp           time.Time       `json:"timestamp"`
	Cookieless          bool            `json:"is_cookieless_mode"`
	HistoricalMigration bool            `json:"historical_migration"`
}

// Messages returns all that lies in the service's topics, by topic and partition, each in order. What was acknowledged before
// the call is in it: it reads every partition up to its end. It works as long as the broker runs, so with the embedded one
// until the service is stopped.
func (s *Service) Messages() []Message {
	s.tb.Helper()
	messages, err := ReadTopics(s.brokers, s.topics...)
	if err != nil {
		s.tb.Fatalf("testkit: reading from Kafka: %v", err)
	}
	return messages
}

// Brokers are the addresses of the Kafka that the service writes to.
func (s *Service) Brokers() []string { return s.brokers }

// ReadTopics returns all that lies in the topics, from the beginning of each partition to what is its end at the call.
// Topics that do not exist hold nothing.
func ReadTopics(brokers []string, topics ...string) ([]Message, error) {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Consumer.Return.Errors = true
	// Closing a partition waits for its last fetch, which finds nothing.
	config.Consumer.MaxWaitTime = 20 * time.Millisecond
	config.Metadata.AllowAutoTopicCreation = false
	client, err := sarama.NewClient(brokers, config)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	existing, err := client.Topics()
	if err != nil {
		return nil, err
	}
	exists := make(map[string]bool, len(existing))
	for _, topic := range existing {
		exists[topic] = true
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, err
	}
	defer func() { _ = consumer.Close() }()
	// The partitions are read side by side: each waits for the broker more than it works.
	var (
		group errgroup.Group
		parts []*[]Message
	)
	for _, topic := range topics {
		if !exists[topic] {
			continue
		}
		partitions, err := client.Partitions(topic)
		if err != nil {
			return nil, fmt.Errorf("partitions of %s: %w", topic, err)
		}
		for _, partition := range partitions {
			part := new([]Message)
			parts = append(parts, part)
			group.Go(func() (err error) {
				if *part, err = readPartition(client, consumer, topic, partition); err != nil {
					return fmt.Errorf("%s/%d: %w", topic, partition, err)
				}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var messages []Message
	for _, part := range parts {
		messages = append(messages, *part...)
	}
	return messages, nil
}

func readPartition(client sarama.Client, consumer sarama.Consumer, topic string, partition int32) (messages []Message, err error) {
	first, err := client.GetOffset(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return nil, err
	}
	end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
	if err != nil || first >= end {
		return nil, err
	}
	records, err := consumer.ConsumePartition(topic, partition, first)
	if err != nil {
		return nil, err
	}
	defer func() { _ = records.Close() }()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		select {
		case record := <-records.Messages():
			message, err := newMessage(record)
			if err != nil {
				return nil, fmt.Errorf("offset %d: %w", record.Offset, err)
			}
			messages = append(messages, message)
			if record.Offset >= end-1 {
				return messages, nil
			}
		case err := <-records.Errors():
			return nil, err
		case <-deadline.C:
			return nil, fmt.Errorf("waited %s in vain for offset %d", patience, end-1)
		}
	}
}

func newMessage(record *sarama.ConsumerMessage) (Message, error) {
	message := Message{
		Topic: record.Topic, Partition: record.Partition, Offset: record.Offset,
		Key: record.Key, Value: record.Value, Headers: make(map[string]string, len(record.Headers)),
	}
	for _, header := range record.Headers {
		if _, twice := message.Headers[string(header.Key)]; twice {
			return Message{}, fmt.Errorf("header %s stands twice", header.Key)
		}
		message.Headers[string(header.Key)] = string(header.Value)
	}
	if err := json.Unmarshal(record.Value, &message.Envelope); err != nil {
		return Message{}, fmt.Errorf("value: %w", err)
	}
	var inner struct {
		Data string `json:"data"`
	}
	if err := json.Unmarshal(record.Value, &inner); err != nil {
		return Message{}, fmt.Errorf("data: %w", err)
	}
	message.Envelope.Data = json.RawMessage(inner.Data)
	return message, nil
}
