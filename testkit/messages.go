package testkit

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// Message is an event as it is stored in Kafka.
type Message struct {
	Topic     string
	Partition int32
	Offset    int64
	// Key is nil if the message has no key.
	Key     []byte
	Headers map[string]string
	// Value is the message's value. Envelope is the decoded Value.
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

// Messages returns all messages in the service's topics, by topic and partition, each in order. It waits until the
// spool is empty and then reads every partition up to its end, so the result has every event that was acknowledged
// before the call. Messages works as long as the broker runs. The embedded broker runs until the service is stopped.
func (s *Service) Messages() []Message {
	s.tb.Helper()
	if s.spooled != nil {
		s.Eventually("the spool to be empty", func() bool { return s.spooled.Waiting() == 0 })
	}
	messages, err := ReadTopics(s.brokers, s.topics...)
	if err != nil {
		s.tb.Fatalf("testkit: reading from Kafka: %v", err)
	}
	return messages
}

// Brokers returns the addresses of the Kafka that the service writes to.
func (s *Service) Brokers() []string { return s.brokers }

// ReadTopics returns all messages in the topics, from the beginning of each partition to its end at the time of the
// call. A topic that does not exist holds none.
func ReadTopics(brokers []string, topics ...string) ([]Message, error) {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
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
	var messages []Message
	for _, topic := range topics {
		if !exists[topic] {
			continue
		}
		partitions, err := client.Partitions(topic)
		if err != nil {
			return nil, fmt.Errorf("partitions of %s: %w", topic, err)
		}
		for _, partition := range partitions {
			if messages, err = readPartition(client, topic, partition, messages); err != nil {
				return nil, fmt.Errorf("%s/%d: %w", topic, partition, err)
			}
		}
	}
	return messages, nil
}

// fetchBytes is how much a request asks for. The broker also returns a message that is larger.
const fetchBytes = 8 << 20

// readPartition asks the partition's leader itself, because a consumer would wait for more messages before it ends.
func readPartition(client sarama.Client, topic string, partition int32, messages []Message) ([]Message, error) {
	next, err := offsetOf(client, topic, partition, sarama.OffsetOldest)
	if err != nil {
		return nil, err
	}
	end, err := offsetOf(client, topic, partition, sarama.OffsetNewest)
	if err != nil || next >= end {
		return messages, err
	}
	leader, err := client.Leader(topic, partition)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); next < end; {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("waited %s in vain for offset %d", patience, end-1)
		}
		request := &sarama.FetchRequest{Version: 4, MinBytes: 1, MaxBytes: fetchBytes, MaxWaitTime: 100}
		request.AddBlock(topic, partition, next, fetchBytes, -1)
		response, err := leader.Fetch(request)
		if err != nil {
			return nil, err
		}
		block := response.GetBlock(topic, partition)
		if block == nil {
			return nil, errors.New("the broker's answer lacks the partition")
		}
		if block.Err != sarama.ErrNoError {
			return nil, block.Err
		}
		for _, records := range block.RecordsSet {
			for _, record := range records.RecordBatch.Records {
				offset := records.RecordBatch.FirstOffset + record.OffsetDelta
				if offset < next {
					continue // a batch comes whole
				}
				message, err := newMessage(topic, partition, offset, record)
				if err != nil {
					return nil, fmt.Errorf("offset %d: %w", offset, err)
				}
				messages = append(messages, message)
				next = offset + 1
			}
		}
	}
	return messages, nil
}

// offsetOf returns the oldest or the newest offset of a partition. It asks again if the leader has just been elected.
func offsetOf(client sarama.Client, topic string, partition int32, which int64) (int64, error) {
	for deadline := time.Now().Add(patience); ; {
		offset, err := client.GetOffset(topic, partition, which)
		moving := errors.Is(err, sarama.ErrNotLeaderForPartition) || errors.Is(err, sarama.ErrLeaderNotAvailable)
		if !moving || time.Now().After(deadline) {
			return offset, err
		}
		<-time.After(client.Config().Metadata.Retry.Backoff)
	}
}

func newMessage(topic string, partition int32, offset int64, record *sarama.Record) (Message, error) {
	message := Message{
		Topic: topic, Partition: partition, Offset: offset,
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
