package proof

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/produce"
)

const (
	// fetchBytes is how many bytes one request asks for.
	fetchBytes = 16 << 20
	// readPatience is how long a partition may yield no message.
	readPatience = 2 * time.Minute
	// uuidHeader is the header of a message that holds the event's uuid.
	uuidHeader = "uuid"
)

// Message is a message in a topic.
type Message struct {
	Topic     string
	Partition int32
	Offset    int64
	// ID is the uuid from the message's header.
	ID, Value []byte
	// Reason is the reason in the header of a dead letter.
	Reason string
}

// ReadCopies shows every message in the topics that begin with the prefix, from the beginning of each partition to its
// end at the time of the call. It leaves out topics whose names end with skip. The name of the dead letter topic ends
// with dlq. generation counts how often the topics have been made anew: messages of a later generation lie behind those
// of an earlier one.
func ReadCopies(brokers []string, prefix, skip, dlq string, generation int, see func(Copy)) error {
	return Read(brokers, prefix, skip, func(m Message) {
		see(Copy{
			ID: m.ID, Value: m.Value, Topic: m.Topic, Partition: m.Partition,
			Offset: m.Offset + int64(generation)<<generationBits,
			DLQ:    strings.HasSuffix(m.Topic, dlq), Reason: m.Reason,
		})
	})
}

// generationBits is how many bits of an offset number the messages within one generation of a topic.
const generationBits = 40

// Read shows every message in the topics that begin with the prefix, as ReadCopies does.
func Read(brokers []string, prefix, skip string, see func(Message)) error {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Metadata.AllowAutoTopicCreation = false
	client, err := sarama.NewClient(brokers, config)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	topics, err := client.Topics()
	if err != nil {
		return err
	}
	for _, topic := range topics {
		if !strings.HasPrefix(topic, prefix) || strings.HasSuffix(topic, skip) {
			continue
		}
		partitions, err := client.Partitions(topic)
		if err != nil {
			return fmt.Errorf("partitions of %s: %w", topic, err)
		}
		for _, partition := range partitions {
			if err := readPartition(client, topic, partition, func(record *sarama.Record, offset int64) {
				see(Message{
					Topic: topic, Partition: partition, Offset: offset, Value: record.Value,
					ID: header(record, uuidHeader), Reason: string(header(record, produce.HeaderDLQReason)),
				})
			}); err != nil {
				return fmt.Errorf("%s/%d: %w", topic, partition, err)
			}
		}
	}
	return nil
}

func header(record *sarama.Record, name string) []byte {
	for _, header := range record.Headers {
		if string(header.Key) == name {
			return header.Value
		}
	}
	return nil
}

// readPartition asks the partition's leader itself, because a consumer would wait for more messages before it ends.
func readPartition(client sarama.Client, topic string, partition int32, see func(*sarama.Record, int64)) error {
	next, err := client.GetOffset(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
	if err != nil || next >= end {
		return err
	}
	leader, err := client.Leader(topic, partition)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(readPatience); next < end; {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s in vain for offset %d of %d", readPatience, next, end)
		}
		request := &sarama.FetchRequest{Version: 4, MinBytes: 1, MaxBytes: fetchBytes, MaxWaitTime: 100}
		request.AddBlock(topic, partition, next, fetchBytes, -1)
		response, err := leader.Fetch(request)
		if err != nil {
			return err
		}
		block := response.GetBlock(topic, partition)
		if block == nil {
			return errors.New("the broker's answer lacks the partition")
		}
		if block.Err != sarama.ErrNoError {
			return block.Err
		}
		for _, records := range block.RecordsSet {
			for _, record := range records.RecordBatch.Records {
				offset := records.RecordBatch.FirstOffset + record.OffsetDelta
				if offset < next {
					continue // a batch comes whole
				}
				see(record, offset)
				next, deadline = offset+1, time.Now().Add(readPatience)
			}
		}
	}
	return nil
}
