package kafka

import (
	"errors"
	"sync"

	"github.com/IBM/sarama"
	"go.uber.org/zap"
)

// connection is a client that has reached the cluster, and the producer on top of it.
type connection struct {
	client sarama.Client
	async  sarama.AsyncProducer
	keeper *topicKeeper
}

// connect makes one attempt to reach the cluster, creates the topics that are missing if it may, and sets up the
// producer.
func connect(addresses []string, config *sarama.Config, topics Topics, log *zap.Logger) (*connection, error) {
	client, err := sarama.NewClient(addresses, config)
	if err != nil {
		return nil, err
	}
	conn := &connection{client: client, keeper: newTopicKeeper(topics, config.Producer.MaxMessageBytes, log)}
	if err := conn.check(); err != nil && !errors.Is(err, errNoTopic) {
		return nil, errors.Join(err, client.Close())
	}
	conn.keeper.awaitLeaders(client)
	if conn.async, err = sarama.NewAsyncProducerFromClient(client); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return conn, nil
}

// check returns nil if events can be produced, as far as the cluster says.
func (c *connection) check() error { return c.keeper.look(c.client) }

// drain reads sarama's verdicts in two goroutines until close has ended the producer.
func (c *connection) drain(group *sync.WaitGroup, settle func(*sarama.ProducerMessage, error)) {
	group.Go(func() {
		for message := range c.async.Successes() {
			settle(message, nil)
		}
	})
	group.Go(func() {
		for failure := range c.async.Errors() {
			settle(failure.Msg, failure.Err)
		}
	})
}

// close ends the producer and then the client; drained must be waiting for the readers that drain started.
func (c *connection) close(drained *sync.WaitGroup) error {
	c.async.AsyncClose()
	drained.Wait()
	return c.client.Close()
}
