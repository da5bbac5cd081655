package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// timeline reads the messages of many partitions in the order of time. It is not safe for concurrent use.
type timeline struct {
	client     sarama.Client
	consumer   sarama.Consumer
	recent     int // how many messages of each partition Start.Recent begins with
	partitions []*timePartition
}

// timePartition is one partition of a timeline.
type timePartition struct {
	topic  string
	number int32
	reader sarama.PartitionConsumer
	// next is the offset of the next message, and end the offset behind the messages that were there when the
	// partition was opened.
	next, end int64
	since     time.Time               // an older message is left out
	head      *sarama.ConsumerMessage // read, and not passed on yet
	late      bool                    // a message that should be there has not come in time
}

const (
	// stall is how long a message that should be there may take. The last offsets of a partition may belong to the
	// marks of transactions, which no consumer gets.
	stall = 5 * time.Second
	// together is how long messages that arrive are gathered, so that they can be put in the order of time.
	together = 200 * time.Millisecond
	// mostTogether is how many messages are gathered at most.
	mostTogether = 10_000
	// topicPoll is how often a topic that does not exist yet is looked for.
	topicPoll = time.Second
)

// open begins to read the partitions of a topic. If follow is not set, it leaves out a partition that holds nothing to
// read.
func (l *timeline) open(topic string, from Start, follow bool) error {
	numbers, err := l.client.Partitions(topic)
	if err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	for _, number := range numbers {
		p := &timePartition{topic: topic, number: number}
		if err := p.open(l, from, follow); err != nil {
			return fmt.Errorf("topic %s, partition %d: %w", topic, number, err)
		}
		if p.reader != nil {
			l.partitions = append(l.partitions, p)
		}
	}
	return nil
}

func (p *timePartition) open(l *timeline, from Start, follow bool) (err error) {
	oldest, end, err := offsets(l.client, p.topic, p.number)
	if err != nil {
		return err
	}
	p.next, p.end = oldest, end
	switch {
	case from.Recent:
		p.next = max(oldest, end-int64(l.recent))
	case from.Now:
		p.next = end
	case !from.At.IsZero():
		p.since = from.At.Truncate(time.Millisecond) // as Kafka keeps times
		if p.next, err = l.firstSince(p, oldest, end); err != nil {
			return err
		}
	}
	if p.next >= end && !follow {
		return nil
	}
	return askLeader(l.client, func() (err error) {
		p.reader, err = l.consumer.ConsumePartition(p.topic, p.number, p.next)
		return err
	})
}

// firstSince returns the offset of the partition's first message that is not older than the partition's time. It is
// oldest if the broker keeps no index of times, as the embedded one, and end if no message is that new.
func (l *timeline) firstSince(p *timePartition, oldest, end int64) (offset int64, err error) {
	at := max(0, p.since.UnixMilli()) // what is below 0 does not mean a time to brokers
	err = askLeader(l.client, func() (err error) {
		offset, err = l.client.GetOffset(p.topic, p.number, at)
		return err
	})
	switch {
	case errors.Is(err, sarama.ErrUnsupportedForMessageFormat):
		return oldest, nil
	case err == nil && offset < 0:
		return end, nil
	}
	return offset, err
}

func (l *timeline) close() {
	for _, p := range l.partitions {
		_ = p.reader.Close() // nothing was written
	}
}

// late returns the partitions that have given less than they should hold.
func (l *timeline) late() (names []string) {
	for _, p := range l.partitions {
		if p.late {
			names = append(names, fmt.Sprintf("%s/%d", p.topic, p.number))
		}
	}
	return names
}

// drain passes on the messages that were there when their partitions were opened.
func (l *timeline) drain(ctx context.Context, each func(*sarama.ConsumerMessage) error) error {
	for {
		var oldest *timePartition
		for _, p := range l.partitions {
			if err := p.fill(ctx, stall); err != nil {
				return err
			}
			if p.head != nil && (oldest == nil || p.head.Timestamp.Before(oldest.head.Timestamp)) {
				oldest = p
			}
		}
		if oldest == nil {
			return nil
		}
		message := oldest.head
		oldest.head = nil
		if err := each(message); err != nil {
			return err
		}
	}
}

// fill reads the head of the partition, unless it has one or is at its end. If no message comes in the time that it may
// take, the partition is late, and counts as read to its end.
func (p *timePartition) fill(ctx context.Context, patience time.Duration) error {
	if p.head != nil || p.next >= p.end {
		return nil
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-p.reader.Errors():
			if err := readerFault(err); err != nil {
				return err
			}
		case message, open := <-p.reader.Messages():
			if !open {
				p.next = p.end
				return readerFault(<-p.reader.Errors())
			}
			p.next = message.Offset + 1
			if !message.Timestamp.Before(p.since) {
				p.head = message
				return nil
			}
			if p.next >= p.end {
				return nil
			}
			late.Reset(patience)
		case <-late.C:
			p.next, p.late = p.end, true
			return nil
		}
	}
}

// readerFault returns an error if the reader of a partition does not try again by itself: its offset is no longer in
// the partition.
func readerFault(err *sarama.ConsumerError) error {
	if err != nil && errors.Is(err, sarama.ErrOffsetOutOfRange) {
		return fmt.Errorf("the oldest events were removed while they were read: %w", err)
	}
	return nil
}

// follow passes on messages as they arrive, until ctx is over or each returns an error. It begins to read the missing
// topics when they come to exist, from their first message on. It calls silent once, after the time quiet.
func (l *timeline) follow(
	ctx context.Context, missing []string, each func(*sarama.ConsumerMessage) error, silent func(),
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	messages := make(chan *sarama.ConsumerMessage)
	readers := panics.NewGroup(zap.NewNop()) // follow returns a reader's panic
	defer readers.Wait()
	defer cancel(nil)
	begin := func(partitions []*timePartition) {
		for _, p := range partitions {
			readers.Go("the reader of a partition", func() {
				if err := panics.Catch(func() error { return p.pass(ctx, messages) }); err != nil {
					cancel(err)
				}
			})
		}
	}
	begin(l.partitions)
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	poll := time.NewTicker(topicPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-silence.C:
			silent()
		case <-poll.C:
			opened := len(l.partitions)
			var err error
			if missing, err = l.appeared(missing); err != nil {
				return err
			}
			begin(l.partitions[opened:])
		case message := <-messages:
			for _, message := range gather(ctx, message, messages) {
				if err := each(message); err != nil {
					return err
				}
			}
		}
	}
}

// appeared opens the topics that exist now, and returns those that do not.
func (l *timeline) appeared(missing []string) (still []string, err error) {
	if len(missing) == 0 {
		return nil, nil
	}
	// An error means that some do not exist, or that no broker answers: then the next poll finds them.
	_ = l.client.RefreshMetadata(missing...)
	known, err := l.client.Topics()
	if err != nil {
		return missing, nil //nolint:nilerr // the next poll asks again
	}
	for _, topic := range missing {
		if !slices.Contains(known, topic) {
			still = append(still, topic)
			continue
		}
		if err := l.open(topic, Start{}, true); err != nil {
			return nil, err
		}
	}
	return still, nil
}

// gather returns the message and those that arrive with it, in the order of time.
func gather(
	ctx context.Context, first *sarama.ConsumerMessage, messages <-chan *sarama.ConsumerMessage,
) []*sarama.ConsumerMessage {
	all := []*sarama.ConsumerMessage{first}
	enough := time.NewTimer(together)
	defer enough.Stop()
	for waiting := true; waiting && len(all) < mostTogether; {
		select {
		case message := <-messages:
			all = append(all, message)
		case <-enough.C:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
	slices.SortStableFunc(all, func(a, b *sarama.ConsumerMessage) int { return a.Timestamp.Compare(b.Timestamp) })
	return all
}

// pass passes the partition's messages on until ctx is over.
func (p *timePartition) pass(ctx context.Context, messages chan<- *sarama.ConsumerMessage) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-p.reader.Errors():
			if err := readerFault(err); err != nil {
				return err
			}
		case message, open := <-p.reader.Messages():
			if !open {
				return readerFault(<-p.reader.Errors())
			}
			if message.Timestamp.Before(p.since) {
				continue
			}
			select {
			case messages <- message:
			case <-ctx.Done():
				return nil
			}
		}
	}
}
