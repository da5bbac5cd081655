//go:build chaos && linux

package chaos

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/proof"
)

// guilty is a load with some events that are larger than the limit of refusedSize, even compressed.
var guilty = proof.Shape{Workers: 16, Keys: 4, PerKey: 5, Pad: 150, Every: 50, Large: 40_000, Reason: "too_large"}

// smallLimit is the topic's limit in refusedSize, in bytes.
const smallLimit = "16384"

// configure sets a topic's configuration for all services; an empty value is the cluster's default.
func (s *stage) configure(topic, key, value string) error {
	entry := sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}
	if value == "" {
		entry = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationDelete}
	}
	return s.kafka.admin(func(admin sarama.ClusterAdmin) error {
		for _, service := range s.services {
			if err := admin.IncrementalAlterConfig(sarama.TopicResource, service.prefix+topic,
				map[string]sarama.IncrementalAlterConfigsEntry{key: entry}, false); err != nil {
				return err
			}
		}
		return nil
	})
}

// refusedSize: the topic takes no large batches for a while. Events that are too large by themselves become dead
// letters. No event that was in a batch with them does.
func refusedSize(s *stage) error {
	if err := s.configure(topicEvents, "max.message.bytes", smallLimit); err != nil {
		return err
	}
	last(shortOr(4*time.Second, 60*time.Second))
	s.kafka.cut()
	last(2 * time.Second)
	if err := s.kafka.mend(); err != nil {
		return err
	}
	if err := s.flow(); err != nil {
		return err
	}
	return s.configure(topicEvents, "max.message.bytes", "")
}

// refusedTimestamp: Kafka is away for longer than the topic allows a message to be old. Kafka refuses the events in the
// spool for their time, and the service sends them again with the present time.
func refusedTimestamp(s *stage) error {
	if err := s.configure(topicEvents, "message.timestamp.before.max.ms", "3000"); err != nil {
		return err
	}
	s.kafka.cut()
	last(shortOr(6*time.Second, 60*time.Second))
	return s.kafka.mend()
}

// forbidden: the service's user may no longer write to the topic, and then no longer see it. Each time the right is
// given back.
func forbidden(s *stage) error {
	for _, denied := range []sarama.AclOperation{sarama.AclOperationWrite, sarama.AclOperationAll} {
		if err := s.deny(denied); err != nil {
			return err
		}
		// The requests that came before have their answers a moment later.
		last(2 * time.Second)
		err := s.observe(shortOr(5*time.Second, 30*time.Second), modeKafka)
		if err := errors.Join(err, s.allow()); err != nil {
			return err
		}
		if err := s.flow(); err != nil {
			return err
		}
	}
	return nil
}

// deny forbids everybody an operation on the services' topics. It returns when the broker knows that nobody may write.
func (s *stage) deny(operation sarama.AclOperation) error {
	s.later(s.allow)
	if err := s.forbid(operation); err != nil {
		return err
	}
	err := process.Poll(createPatience, 20*time.Millisecond, func() (bool, error) {
		topics, err := s.topics(s.kafka.brokers[0])
		return err == nil && len(topics) == len(s.services) && !slices.ContainsFunc(topics, mayWrite), err
	})
	if err != nil {
		return fmt.Errorf("the topics are not forbidden: %w", err)
	}
	return nil
}

// mayWrite reports whether the broker lets this program write to a topic.
func mayWrite(topic *sarama.TopicMetadata) bool {
	return topic.Err == sarama.ErrNoError && topic.TopicAuthorizedOperations&(1<<sarama.AclOperationWrite) != 0
}

// forbid sets the ACLs of deny.
func (s *stage) forbid(operation sarama.AclOperation) error {
	return s.kafka.admin(func(admin sarama.ClusterAdmin) error {
		var acls []*sarama.ResourceAcls
		for _, service := range s.services {
			// A topic with any ACL forbids everything that no ACL allows.
			acls = append(acls, &sarama.ResourceAcls{
				Resource: sarama.Resource{
					ResourceType: sarama.AclResourceTopic, ResourceName: service.prefix + topicEvents,
					ResourcePatternType: sarama.AclPatternLiteral,
				},
				Acls: []*sarama.Acl{
					{Principal: "User:*", Host: "*", Operation: sarama.AclOperationAll,
						PermissionType: sarama.AclPermissionAllow},
					{Principal: "User:*", Host: "*", Operation: operation, PermissionType: sarama.AclPermissionDeny},
				},
			})
		}
		return admin.CreateACLs(acls)
	})
}

// allow removes the ACLs that deny has set.
func (s *stage) allow() error {
	return s.kafka.admin(func(admin sarama.ClusterAdmin) error {
		_, err := admin.DeleteACL(sarama.AclFilter{
			ResourceType: sarama.AclResourceTopic, ResourcePatternTypeFilter: sarama.AclPatternAny,
			Operation: sarama.AclOperationAny, PermissionType: sarama.AclPermissionAny,
		}, false)
		return err
	})
}

// throttledBytes is how many bytes a second the quota leaves to all services together.
const throttledBytes = 50_000

// throttled: a quota slows the service's client down, and is lifted. Soon afterwards answers come as fast as before.
func throttled(s *stage) error {
	if err := s.quota(false); err != nil {
		return err
	}
	s.later(func() error { return s.quota(true) })
	last(shortOr(6*time.Second, 60*time.Second))
	if err := s.quota(true); err != nil {
		return err
	}
	lifted := time.Now()
	return s.each(func(service *service) error {
		if err := service.awaitDrain(flowPatience); err != nil {
			return err
		}
		load := s.loads[service]
		err := process.Poll(flowPatience, 10*time.Millisecond, func() (bool, error) {
			before := load.Acked()
			last(time.Second)
			return float64(load.Acked()-before) >= 0.8*s.rate, nil
		})
		s.say(service, "settled_in=%s", proof.Short(time.Since(lifted)))
		return err
	})
}

// quota limits how many bytes a second clients of the service's name may write, or lifts that limit.
func (s *stage) quota(lift bool) error {
	return s.kafka.admin(func(admin sarama.ClusterAdmin) error {
		return admin.AlterClientQuotas(
			[]sarama.QuotaEntityComponent{{
				EntityType: sarama.QuotaEntityClientID, MatchType: sarama.QuotaMatchExact, Name: "capture",
			}},
			sarama.ClientQuotasOp{Key: "producer_byte_rate", Value: throttledBytes, Remove: lift}, false)
	})
}

// isWhole reports whether a partition of the topic has all of its three replicas in sync, or no leader.
func isWhole(topic *sarama.TopicMetadata) bool {
	return len(topic.Partitions) == 0 || slices.ContainsFunc(topic.Partitions, func(p *sarama.PartitionMetadata) bool {
		return len(p.Isr) > 2 || p.Leader <= 1
	})
}

// minISR: one of three brokers is away, and the topic wants all three replicas to be in sync.
func minISR(s *stage) error {
	if err := s.configure(topicEvents, "min.insync.replicas", "3"); err != nil {
		return err
	}
	broker := s.kafka.brokers[0]
	broker.kill()
	s.kafka.brokers[0].proxy.Stop()
	// The fault begins when the partitions that this broker led have other leaders, and when these know that it is out
	// of sync.
	for _, other := range s.kafka.brokers[1:] {
		if err := process.Poll(createPatience, 100*time.Millisecond, func() (bool, error) {
			topics, err := s.topics(other)
			return err == nil && len(topics) == len(s.services) && !slices.ContainsFunc(topics, isWhole), err
		}); err != nil {
			return fmt.Errorf("the broker that is away still counts as in sync: %w", err)
		}
	}
	// The requests that came before have their answers a moment later.
	last(2 * time.Second)
	if err := s.observe(4*time.Second, modeKafka); err != nil {
		return err
	}
	if err := s.configure(topicEvents, "min.insync.replicas", "2"); err != nil {
		return err
	}
	if err := s.flow(); err != nil {
		return err
	}
	if err := broker.start(); err != nil {
		return err
	}
	return errors.Join(s.kafka.awaitBrokers(), s.kafka.mend())
}
