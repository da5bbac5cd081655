//go:build chaos && linux

package chaos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/proof"
)

// keep lets the services deliver everything that they have acknowledged, and reads the topics. It returns the time of
// that, and lets the loads go on. From then on the messages in the topics may be destroyed: the judge has seen them.
func (s *stage) keep() (time.Time, error) {
	for _, service := range s.services {
		load := s.loads[service]
		load.Pause()
		defer load.Resume()
	}
	err := s.each(func(service *service) error {
		if err := service.awaitDrain(drainPatience()); err != nil {
			return err
		}
		var kept []proof.Copy
		if err := s.read(service, func(c proof.Copy) { kept = append(kept, c) }); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kept[service] = append(s.kept[service], kept...)
		return nil
	})
	return time.Now(), err
}

// destroyed tells the judges that the topics were destroyed at the time gone. Batches that were sent between kept and
// gone may be lost. A batch that Kafka has acknowledged may be lost even if it was sent later, until the time again,
// when the topics were there again. A batch that the spool has taken after gone may not be lost.
func (s *stage) destroyed(kept, gone, again time.Time) {
	s.generation++
	for _, service := range s.services {
		s.excuseBatches(service, func(b proof.Batch) bool {
			until := gone
			if b.Ack == modeKafka {
				until = again
			}
			return !b.Sent().Before(kept) && b.Sent().Before(until)
		})
	}
}

// topics returns what a broker says of the services' topics of events, in its own order.
func (s *stage) topics(of *broker) ([]*sarama.TopicMetadata, error) {
	request := &sarama.MetadataRequest{Version: 10, IncludeTopicAuthorizedOperations: true}
	for _, service := range s.services {
		request.Topics = append(request.Topics, service.prefix+topicEvents)
	}
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	broker := sarama.NewBroker(address(of.direct))
	if err := broker.Open(config); err != nil {
		return nil, err
	}
	response, err := broker.GetMetadata(request)
	if err := errors.Join(err, broker.Close()); err != nil {
		return nil, err
	}
	return response.Topics, nil
}

// incarnations returns the ids of the services' topics of events, in the brokers' own order. ok is false if a topic is
// missing or has partitions without leaders.
func (s *stage) incarnations() (ids []sarama.Uuid, ok bool, err error) {
	topics, err := s.topics(s.kafka.brokers[0])
	if err != nil {
		return nil, false, err
	}
	ok = len(topics) == len(s.services)
	for _, topic := range topics {
		ok = ok && topic.Err == sarama.ErrNoError && len(topic.Partitions) > 0 &&
			!slices.ContainsFunc(topic.Partitions,
				func(p *sarama.PartitionMetadata) bool { return p.Err != sarama.ErrNoError })
		ids = append(ids, topic.Uuid)
	}
	return ids, ok, nil
}

// createPatience is how long the service may take to see that its topics are missing, and to create them.
const createPatience = 3 * time.Minute

// awaitTopics returns when the services have created their topics anew.
func (s *stage) awaitTopics(before []sarama.Uuid) error {
	err := process.Poll(createPatience, 20*time.Millisecond, func() (bool, error) {
		now, ok, err := s.incarnations()
		return ok && !slices.ContainsFunc(now, func(id sarama.Uuid) bool { return slices.Contains(before, id) }), err
	})
	if err != nil {
		return fmt.Errorf("the topics are not created anew: %w", err)
	}
	return nil
}

// hasTopics reports whether the broker still writes to the logs of any of these topics. The log of a topic that is
// deleted gets a directory whose name ends with -delete, after the broker has ended the last write.
func (b *broker) hasTopics(ids []sarama.Uuid) (bool, error) {
	files, err := filepath.Glob(filepath.Join(b.dir, "data", "*", "partition.metadata"))
	if err != nil {
		return false, err
	}
	for _, file := range files {
		if strings.HasSuffix(filepath.Dir(file), "-delete") {
			continue
		}
		content, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was deleted just now
		}
		if err != nil {
			return false, err
		}
		for _, id := range ids {
			if strings.Contains(string(content), id.String()) {
				return true, nil
			}
		}
	}
	return false, nil
}

// topicDeleted: somebody deletes the topic under load. The service creates it anew.
func topicDeleted(s *stage) error {
	before, _, err := s.incarnations()
	if err != nil {
		return err
	}
	if has, err := s.kafka.brokers[0].hasTopics(before); err != nil || !has {
		return fmt.Errorf("the broker's files are not as this package knows them: the topics are not found (%w)", err)
	}
	kept, err := s.keep()
	if err != nil {
		return err
	}
	if err := s.kafka.admin(func(admin sarama.ClusterAdmin) error {
		for _, service := range s.services {
			if err := admin.DeleteTopic(service.prefix + topicEvents); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := process.Poll(createPatience, 5*time.Millisecond, func() (bool, error) {
		now, _, err := s.incarnations()
		if err != nil || slices.ContainsFunc(now, func(id sarama.Uuid) bool { return slices.Contains(before, id) }) {
			return false, err
		}
		has, err := s.kafka.brokers[0].hasTopics(before)
		return !has, err
	}); err != nil {
		return fmt.Errorf("the topics are not deleted: %w", err)
	}
	gone := time.Now()
	if err := s.awaitTopics(before); err != nil {
		return err
	}
	s.destroyed(kept, gone, time.Now())
	return nil
}

// partitionsAdded: the topic gets more partitions under load, and again while its events wait in the spool.
func partitionsAdded(s *stage) error {
	add := func(count int32) error {
		return s.kafka.admin(func(admin sarama.ClusterAdmin) error {
			for _, service := range s.services {
				if err := admin.CreatePartitions(service.prefix+topicEvents, count, nil, false); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := add(5); err != nil {
		return err
	}
	last(4 * time.Second)
	s.kafka.cut()
	last(2 * time.Second)
	if err := add(8); err != nil {
		return err
	}
	last(time.Second)
	return s.kafka.mend()
}

// clusterEmpty: the cluster goes away and comes back without its data.
func clusterEmpty(s *stage) error {
	before, _, err := s.incarnations()
	if err != nil {
		return err
	}
	kept, err := s.keep()
	if err != nil {
		return err
	}
	last(time.Second)
	broker := s.kafka.brokers[0]
	broker.kill()
	gone := time.Now()
	last(time.Second)
	if err := errors.Join(broker.empty(), broker.start(), s.kafka.awaitBrokers()); err != nil {
		return err
	}
	if err := s.awaitTopics(before); err != nil {
		return err
	}
	s.destroyed(kept, gone, gone)
	return nil
}
