package kafka

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/produce"
)

// connection is a client that has reached the cluster.
type connection struct {
	client sarama.Client
	topics produce.Topics
}

// connect makes one attempt to reach the cluster, and creates the topics that are missing if it may.
func connect(addresses []string, config *sarama.Config, topics produce.Topics, log *zap.Logger) (*connection, error) {
	client, err := sarama.NewClient(addresses, config)
	if err != nil {
		return nil, err
	}
	conn := &connection{client: client, topics: topics}
	if err := conn.refresh(); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	if missing := conn.missing(); len(missing) > 0 {
		if topics.Create {
			conn.create(missing, config.Producer.MaxMessageBytes, log)
			missing = conn.missing()
		}
		if len(missing) > 0 {
			log.Warn("topics do not exist: events for them will be refused until somebody creates them", zap.Strings("topics", missing))
		}
	}
	conn.checkLimits(config.Producer.MaxMessageBytes, log)
	return conn, nil
}

// refresh asks the cluster about our topics. An answer about a topic, even a bad one, is an answer: the cluster is there.
func (c *connection) refresh() error {
	err := c.client.RefreshMetadata(c.topics.Names()...)
	for _, answer := range []error{
		sarama.ErrUnknownTopicOrPartition, sarama.ErrLeaderNotAvailable, sarama.ErrReplicaNotAvailable,
		sarama.ErrTopicAuthorizationFailed, sarama.ErrInvalidTopic,
	} {
		if errors.Is(err, answer) {
			return nil
		}
	}
	return err
}

// check returns nil if events can be produced, as far as the cluster says.
func (c *connection) check() error {
	if err := c.refresh(); err != nil {
		return err
	}
	if !c.known(c.topics.Events) {
		return fmt.Errorf("topic %s does not exist or this user may not see it", c.topics.Events)
	}
	return nil
}

// known reports whether the topic was in the cluster's last answer.
func (c *connection) known(topic string) bool {
	topics, err := c.client.Topics()
	return err == nil && slices.Contains(topics, topic)
}

func (c *connection) missing() []string {
	return slices.DeleteFunc(c.topics.Names(), c.known)
}

const (
	batchOverhead = 1 << 10             // more bytes than a record batch of one message takes beside the message
	limitKey      = "max.message.bytes" // a topic's largest record batch
)

// create creates topics as far as the cluster lets us; what could not be created is logged once, and stays missing. A topic
// that has to take larger messages than is usual says so; the others leave it to the cluster.
func (c *connection) create(names []string, maxMessage int, log *zap.Logger) {
	admin, err := sarama.NewClusterAdminFromClient(c.client)
	if err != nil {
		log.Warn("cannot create topics", zap.Error(err))
		return
	}
	detail := &sarama.TopicDetail{NumPartitions: -1, ReplicationFactor: -1}
	if c.topics.Partitions > 0 {
		detail.NumPartitions = int32(c.topics.Partitions)
	}
	if c.topics.ReplicationFactor > 0 {
		detail.ReplicationFactor = int16(c.topics.ReplicationFactor)
	}
	if limit := strconv.Itoa(maxMessage + batchOverhead); maxMessage > int(DefaultConfig().MaxMessageBytes) {
		detail.ConfigEntries = map[string]*string{limitKey: &limit}
	}
	var created []string
	refused := map[string][]string{}
	for _, name := range names {
		switch err := admin.CreateTopic(name, detail, false); {
		case err == nil:
			created = append(created, name)
		case errors.Is(err, sarama.ErrTopicAlreadyExists):
		default:
			refused[err.Error()] = append(refused[err.Error()], name)
		}
	}
	if len(created) > 0 {
		log.Info("created topics", zap.Strings("topics", created))
	}
	for reason, names := range refused {
		log.Warn("cannot create topics: create them yourself, or allow this user to", zap.Strings("topics", names), zap.String("error", reason))
	}
	if err := c.awaitLeaders(created); err != nil {
		log.Warn("created topics are not ready yet", zap.Error(err))
	}
}

// checkLimits warns of topics that take less than a full record batch. Kafka refuses such a batch whole, so that events of any size
// are rejected with the large ones beside them.
func (c *connection) checkLimits(maxMessage int, log *zap.Logger) {
	admin, err := sarama.NewClusterAdminFromClient(c.client)
	if err != nil {
		log.Info("cannot read the topics' max.message.bytes", zap.Error(err))
		return
	}
	var asked []*sarama.ConfigResource
	for _, name := range c.topics.Names() {
		if c.known(name) {
			asked = append(asked, &sarama.ConfigResource{Type: sarama.TopicResource, Name: name, ConfigNames: []string{limitKey}})
		}
	}
	answers, err := admin.DescribeConfigs(asked, sarama.DescribeConfigsOptions{})
	if err != nil {
		log.Info("cannot read the topics' max.message.bytes", zap.Error(err))
		return
	}
	needed := maxMessage + batchOverhead
	var low, hidden []string
	for _, answer := range answers {
		if answer.ErrorCode != sarama.ErrNoError {
			hidden = append(hidden, answer.Name)
		}
		for _, entry := range answer.Configs {
			if limit, err := strconv.Atoi(entry.Value); entry.Name == limitKey && err == nil && limit < needed {
				low = append(low, answer.Name)
			}
		}
	}
	if len(hidden) > 0 {
		log.Info("topics do not tell their max.message.bytes: see yourself that it is enough, or allow this user to describe their configuration",
			zap.Strings("topics", hidden), zap.Int("needed", needed))
	}
	if len(low) > 0 {
		log.Warn("topics take less than kafka.max_message_bytes, and Kafka will refuse batches of events for them: raise their max.message.bytes",
			zap.Strings("topics", low), zap.Int("needed", needed))
	}
}

// awaitLeaders waits until every partition of the topics has a leader, which takes a moment after they were created: a message
// that comes before would fail, and after a few of them the client takes no more for that partition for ten seconds.
func (c *connection) awaitLeaders(topics []string) error {
	for deadline := time.Now().Add(c.client.Config().Metadata.Timeout); ; {
		if err := c.refresh(); err != nil {
			return err
		}
		waiting := slices.DeleteFunc(slices.Clone(topics), c.isLed)
		if len(waiting) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no leader for %s", strings.Join(waiting, ", "))
		}
		<-time.After(c.client.Config().Metadata.Retry.Backoff)
	}
}

// isLed reports whether every partition of the topic had a leader when the cluster was last asked.
func (c *connection) isLed(topic string) bool {
	all, err := c.client.Partitions(topic)
	if err != nil || len(all) == 0 {
		return false
	}
	led, err := c.client.WritablePartitions(topic)
	return err == nil && len(led) == len(all)
}
