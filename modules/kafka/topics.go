package kafka

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/produce"
)

// topicKeeper looks after the topics that the producer writes to. The producer calls look every few seconds, one call
// after the other:
//
//  1. Each look asks the cluster about the topics. The answer also shows whether the cluster is there at all.
//  2. Each look creates missing topics, if it may: at first, after somebody has deleted a topic, and in a cluster that
//     has lost its data. After a failure the keeper tries again to create the topic, after a pause that grows from a
//     second to a minute.
//  3. The keeper warns of topics that take less than kafka.max_message_bytes. It asks for the limits of new topics at
//     once, and for the limits of the others every ten minutes.
//
// The keeper logs only what has changed since the look before.
type topicKeeper struct {
	next       atomic.Pointer[produce.Topics] // for the next look; nil: no change
	topics     produce.Topics
	maxMessage int
	log        *zap.Logger

	seen     map[string]bool      // topics that have existed
	attempts map[string]*creation // to create the missing topics
	fresh    []string             // topics created by the last look or just before it
	missing  string               // the last news logged of missing topics

	measured    map[string]bool // topics whose limit is known
	measureNext time.Time
	limits      string // the last news logged of limits
}

// creation is the history of the attempts to create a missing topic.
type creation struct {
	tries  int
	next   time.Time // when to try again
	reason string    // why the last attempt has failed, if it has
}

const (
	// firstCreation and lastCreation are the shortest and the longest pause between two attempts to create a topic.
	firstCreation = time.Second
	lastCreation  = time.Minute
	// measureEvery is how often the keeper reads the limits of topics that it has measured before.
	measureEvery = 10 * time.Minute

	batchOverhead = 1 << 10             // bytes; a record batch of one message has less beside it
	limitKey      = "max.message.bytes" // a topic's largest record batch
)

// notToBeCreated is why a missing topic is not created, and what to do.
const notToBeCreated = "kafka.topics.create is false: create the topics in Kafka, name existing ones in " +
	"kafka.topics, or let the service create them"

// errNoTopic is the error of look if the cluster is there but the topic of ordinary events is not.
var errNoTopic = errors.New("does not exist or this user may not see it")

func newTopicKeeper(topics produce.Topics, maxMessage int, log *zap.Logger) *topicKeeper {
	return &topicKeeper{
		topics: topics, maxMessage: maxMessage, log: log,
		seen: map[string]bool{}, attempts: map[string]*creation{}, measured: map[string]bool{},
	}
}

// look asks the cluster about the topics and does its work on them. It returns nil if ordinary events can be produced
// as far as the cluster says. Each request of look is given up after the client's dial timeout. look is not safe for
// concurrent use; each call may bring another client.
func (k *topicKeeper) look(client sarama.Client) error {
	if next := k.next.Swap(nil); next != nil {
		k.topics = *next
	}
	k.fresh = nil
	if err := refresh(client, k.topics.Names()); err != nil {
		return err
	}
	missing := k.absent(client)
	if k.topics.Create && k.create(client, missing) {
		if err := refresh(client, k.topics.Names()); err != nil {
			return err
		}
		missing = k.absent(client)
	}
	k.tellMissing(missing)
	k.measure(client)
	if !slices.Contains(missing, k.topics.Events) {
		return nil
	}
	text := fmt.Sprintf("topic %s %s", k.topics.Events, errNoTopic)
	if attempt := k.attempts[k.topics.Events]; attempt != nil && attempt.reason != "" {
		text += ": " + attempt.reason
	} else if !k.topics.Create {
		text += ": " + notToBeCreated
	}
	return &strangerError{text: text, cause: errNoTopic}
}

// refresh asks the cluster about the topics. An error about a topic counts as an answer, because it shows that the
// cluster is there.
func refresh(client sarama.Client, topics []string) error {
	err := client.RefreshMetadata(topics...)
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

// known reports whether the topic was in the cluster's last answer.
func known(client sarama.Client, topic string) bool {
	topics, err := client.Topics()
	return err == nil && slices.Contains(topics, topic)
}

// absent returns the topics that the cluster's last answer lacks. It forgets the limits of these topics, and the
// attempts to create the others.
func (k *topicKeeper) absent(client sarama.Client) []string {
	var missing []string
	for _, name := range k.topics.Names() {
		if known(client, name) {
			k.seen[name] = true
			delete(k.attempts, name)
			continue
		}
		missing = append(missing, name)
		delete(k.measured, name)
	}
	return missing
}

// create asks the controller in one request to create the missing topics whose next attempt is due. It reports whether
// any was due.
func (k *topicKeeper) create(client sarama.Client, missing []string) bool {
	var due []string
	for _, name := range missing {
		if k.attempts[name] == nil {
			k.attempts[name] = &creation{}
		}
		if !time.Now().Before(k.attempts[name].next) {
			due = append(due, name)
		}
	}
	if len(due) == 0 {
		return false
	}
	answers, err := k.request(client, due)
	var created, again []string
	for _, name := range due {
		refusal := err
		if err == nil {
			refusal = answerAbout(answers, name)
		}
		attempt := k.attempts[name]
		attempt.note(refusal)
		if attempt.reason == "" {
			k.fresh = append(k.fresh, name)
		}
		if refusal != nil {
			continue
		}
		created = append(created, name)
		if k.seen[name] {
			again = append(again, name)
		}
	}
	if len(created) > 0 {
		k.log.Info("created topics", zap.Strings("topics", created))
	}
	if len(again) > 0 {
		k.log.Warn("topics were gone and are created again: what was in them is lost", zap.Strings("topics", again))
	}
	return true
}

// note records an attempt and, unless refusal is nil, why it has failed. The pause grows even after a success, so that
// the keeper does not ask all the time for a topic that stays invisible. A topic that exists at the first attempt was
// created by another instance just now.
func (c *creation) note(refusal error) {
	pause := min(firstCreation<<min(c.tries, 10), lastCreation)
	c.tries++
	// Jitter spreads the requests of a fleet of services.
	c.next = time.Now().Add(pause/2 + rand.N(pause/2))
	switch {
	case refusal == nil:
		c.reason = ""
	case !errors.Is(refusal, sarama.ErrTopicAlreadyExists):
		c.reason = refusal.Error()
	case c.tries > 1:
		c.reason = "it exists, but the cluster does not show it to this user"
	}
}

func answerAbout(answers map[string]*sarama.TopicError, name string) error {
	switch answer := answers[name]; {
	case answer == nil:
		return errors.New("the controller has not answered")
	case errors.Is(answer, sarama.ErrNoError):
		return nil
	default:
		return answer
	}
}

// request asks the controller to create topics. It sets the limit of message size only if kafka.max_message_bytes is
// larger than the default; otherwise the cluster's limit applies.
func (k *topicKeeper) request(client sarama.Client, names []string) (map[string]*sarama.TopicError, error) {
	controller, err := dialController(client)
	if err != nil {
		return nil, err
	}
	defer controller.Close() //nolint:errcheck // the answer is there
	detail := &sarama.TopicDetail{NumPartitions: -1, ReplicationFactor: -1}
	if k.topics.Partitions > 0 {
		detail.NumPartitions = int32(k.topics.Partitions)
	}
	if k.topics.ReplicationFactor > 0 {
		detail.ReplicationFactor = int16(k.topics.ReplicationFactor)
	}
	if limit := strconv.Itoa(k.maxMessage + batchOverhead); k.maxMessage > int(DefaultConfig().MaxMessageBytes) {
		detail.ConfigEntries = map[string]*string{limitKey: &limit}
	}
	details := map[string]*sarama.TopicDetail{}
	for _, name := range names {
		details[name] = detail
	}
	config := client.Config()
	request := sarama.NewCreateTopicsRequest(config.Version, details, config.Net.DialTimeout/2, false)
	response, err := controller.CreateTopics(request)
	if err != nil {
		return nil, err
	}
	for _, answer := range response.TopicErrors {
		if errors.Is(answer, sarama.ErrNotController) {
			// The next attempt goes to the new controller.
			_, _ = client.RefreshController()
			break
		}
	}
	return response.TopicErrors, nil
}

// dialController opens a connection of its own. A broker answers the requests of a connection one after the other, so a
// slow request on the client's connection would hold up messages, and would wait for messages itself.
func dialController(client sarama.Client) (*sarama.Broker, error) {
	controller, err := client.Controller()
	if err != nil {
		return nil, err
	}
	config := *client.Config()
	config.Net.ReadTimeout = config.Net.DialTimeout
	broker := sarama.NewBroker(controller.Addr())
	if err := broker.Open(&config); err != nil {
		return nil, err
	}
	if _, err := broker.Connected(); err != nil {
		return nil, fmt.Errorf("controller: %w", err)
	}
	return broker, nil
}

// tellMissing logs the missing topics by the reason why they cannot be created. It leaves out topics that were created
// and are not visible yet.
func (k *topicKeeper) tellMissing(missing []string) {
	reasons := map[string][]string{}
	for _, name := range missing {
		reason := notToBeCreated
		if k.topics.Create {
			reason = k.attempts[name].reason
		}
		if reason != "" {
			reasons[reason] = append(reasons[reason], name)
		}
	}
	news := fmt.Sprint(reasons) // Sprint prints a map in the order of its keys
	if len(reasons) == 0 {
		news = ""
	}
	if news == k.missing {
		return
	}
	k.missing = news
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		k.log.Warn("topics do not exist: events for them wait in the spool where delivery.ack is auto or spool, and "+
			"are answered 503 where it is kafka, until the topics exist",
			zap.Strings("topics", reasons[reason]), zap.String("error", reason))
	}
	if news == "" {
		k.log.Info("all topics exist")
	}
}

// measure warns of topics that take less than a full record batch. Kafka refuses such a batch whole, so that events of
// any size are rejected together with the large ones beside them.
func (k *topicKeeper) measure(client sarama.Client) {
	var names []string
	unmeasured := false
	for _, name := range k.topics.Names() {
		if known(client, name) {
			names = append(names, name)
			unmeasured = unmeasured || !k.measured[name]
		}
	}
	if len(names) == 0 || !unmeasured && time.Now().Before(k.measureNext) {
		return
	}
	k.measureNext = time.Now().Add(measureEvery)
	for _, name := range names {
		k.measured[name] = true
	}
	needed := k.maxMessage + batchOverhead
	low, hidden, err := lowLimits(client, names, needed)
	news := ""
	if len(low)+len(hidden) > 0 || err != nil {
		news = fmt.Sprint(low, hidden, err)
	}
	if news == k.limits {
		return
	}
	k.limits = news
	if err != nil {
		k.log.Info("cannot read the topics' max.message.bytes", zap.Error(err))
	}
	if len(hidden) > 0 {
		k.log.Info("topics do not tell their max.message.bytes: see that it is enough, or let this user describe them",
			zap.Strings("topics", hidden), zap.Int("needed", needed))
	}
	if len(low) > 0 {
		k.log.Warn("topics take less than kafka.max_message_bytes, so batches are refused: "+
			"raise their max.message.bytes",
			zap.Strings("topics", low), zap.Int("needed", needed))
	}
	if news == "" {
		k.log.Info("all topics take kafka.max_message_bytes")
	}
}

// lowLimits returns the topics whose limit is lower than needed, and the topics whose limit the cluster does not tell.
func lowLimits(client sarama.Client, names []string, needed int) (low, hidden []string, err error) {
	controller, err := dialController(client)
	if err != nil {
		return nil, nil, err
	}
	defer controller.Close()                              //nolint:errcheck // the answer is there
	request := &sarama.DescribeConfigsRequest{Version: 4} // sarama lowers it to the broker's version
	for _, name := range names {
		request.Resources = append(request.Resources,
			&sarama.ConfigResource{Type: sarama.TopicResource, Name: name, ConfigNames: []string{limitKey}})
	}
	response, err := controller.DescribeConfigs(request)
	if err != nil {
		return nil, nil, err
	}
	for _, answer := range response.Resources {
		if sarama.KError(answer.ErrorCode) != sarama.ErrNoError {
			hidden = append(hidden, answer.Name)
		}
		for _, entry := range answer.Configs {
			if limit, err := strconv.Atoi(entry.Value); entry.Name == limitKey && err == nil && limit < needed {
				low = append(low, answer.Name)
			}
		}
	}
	slices.Sort(low)
	slices.Sort(hidden)
	return low, hidden, nil
}

// awaitLeaders waits until every partition of the topics that the last look has created has a leader, but no longer
// than the client's dial timeout. It is a part of connecting: a message that comes before the leader would fail.
func (k *topicKeeper) awaitLeaders(client sarama.Client) {
	for deadline := time.Now().Add(client.Config().Net.DialTimeout); ; {
		waiting := slices.DeleteFunc(slices.Clone(k.fresh), func(name string) bool { return isLed(client, name) })
		if len(waiting) == 0 {
			return
		}
		if time.Now().After(deadline) {
			k.log.Warn("created topics have no leaders yet", zap.Strings("topics", waiting))
			return
		}
		<-time.After(client.Config().Metadata.Retry.Backoff)
		if err := refresh(client, waiting); err != nil {
			k.log.Warn("created topics have no leaders yet", zap.Strings("topics", waiting), zap.Error(err))
			return
		}
	}
}

// isLed reports whether every partition of the topic had a leader when the cluster was last asked.
func isLed(client sarama.Client, topic string) bool {
	all, err := client.Partitions(topic)
	if err != nil || len(all) == 0 {
		return false
	}
	led, err := client.WritablePartitions(topic)
	return err == nil && len(led) == len(all)
}
