package kafka

import (
	"time"

	"github.com/IBM/sarama"
)

var (
	NewTopicKeeper = newTopicKeeper
	ErrNoTopic     = errNoTopic
	Known          = known
)

// Look is one look at the topics.
func (k *topicKeeper) Look(client sarama.Client) error { return k.look(client) }

// AwaitLeaders waits for the leaders of the topics that the last look has created.
func (k *topicKeeper) AwaitLeaders(client sarama.Client) { k.awaitLeaders(client) }

// MeasureAgain makes the next look read the limits of all topics.
func (k *topicKeeper) MeasureAgain() { k.measureNext = time.Time{} }

// CreationPauses returns the pauses after that many failed attempts.
func CreationPauses(attempts int) []time.Duration {
	var pauses []time.Duration
	for attempt := new(creation); len(pauses) < attempts; {
		before := time.Now()
		attempt.note(sarama.ErrPolicyViolation)
		pauses = append(pauses, attempt.next.Sub(before))
	}
	return pauses
}
