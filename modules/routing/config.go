package routing

import (
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/produce"
)

// Config is the section "routing".
type Config struct {
	Drop       []string `key:"drop" live:"true" doc:"Projects and users whose events are dropped, each a token or token:distinct_id. The client is answered as if the events were kept."`
	Overflow   []string `key:"overflow" live:"true" doc:"Projects and users whose events go to the overflow topic of their lane, each a token or token:distinct_id. There, events other than recordings are spread over all partitions, and the pipeline does not update persons from them. Lanes without an overflow topic ignore the rule. While kafka.topics.ai_overflow is empty, AI events stay in their topic, but persons are not updated from them either."`
	SkipPerson []string `key:"skip_person" live:"true" doc:"Projects and users from whose events the pipeline behind Kafka does not update persons, each a token or token:distinct_id."`
	DLQ        []string `key:"dlq" live:"true" doc:"Projects and users whose events are set aside in kafka.topics.dlq, each a token or token:distinct_id."`
	Topics     []string `key:"topics" live:"true" doc:"Projects and users whose events go to a topic of their own, each token=topic or token:distinct_id=topic. Every topic must be one of kafka.topics, for example of kafka.topics.custom."`

	HistoricalAfter time.Duration `key:"historical_after" live:"true" doc:"Ordinary events that happened at least this long before they arrived go to kafka.topics.historical. 0: none."`
	HistoricalOnly  bool          `key:"historical_only" live:"true" doc:"Take only migrations of old events: all events of a request without historical_migration are dropped, and the client is answered as if they were kept."`
}

// DefaultConfig returns the defaults of the section: no rules.
func DefaultConfig() Config { return Config{} }

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	for _, list := range []struct {
		key   string
		rules []string
	}{{"drop", c.Drop}, {"overflow", c.Overflow}, {"skip_person", c.SkipPerson}, {"dlq", c.DLQ}} {
		for i, rule := range list.rules {
			checkWho(&faults, list.key, i, rule)
		}
	}
	topics := map[string]string{}
	for i, rule := range c.Topics {
		who, topic, found := cutTopic(rule)
		if !found {
			faults.Addf("topics", "entry %d must be token=topic or token:distinct_id=topic, got %q", i+1, rule)
			continue
		}
		checkWho(&faults, "topics", i, who)
		faults.Check(produce.IsTopicName(topic), "topics", "entry %d must name a topic of %s, got %q", i+1,
			produce.TopicNameRule, topic)
		other, twice := topics[who]
		faults.Check(!twice || other == topic, "topics",
			"entry %d gives %q another topic than an earlier one", i+1, who)
		topics[who] = topic
	}
	faults.Check(c.HistoricalAfter >= 0, "historical_after", "must not be negative, got %s", c.HistoricalAfter)
	return faults.Err()
}

// checkWho records a fault unless the rule names a project, or a user of a project.
func checkWho(faults *configs.Faults, key string, i int, who string) {
	token, distinctID, one := strings.Cut(who, ":")
	faults.Check(token != "" && (!one || distinctID != ""), key,
		"entry %d must be a token or token:distinct_id, got %q", i+1, who)
}

// cutTopic splits a rule into the project or user and the topic. It cuts at the last equals sign, because a distinct_id
// may hold any character and a topic no equals sign.
func cutTopic(rule string) (who, topic string, found bool) {
	i := strings.LastIndexByte(rule, '=')
	if i < 0 {
		return "", "", false
	}
	return rule[:i], rule[i+1:], true
}

// topicsAreKept checks that every topic of a rule is one of the topics under kafka.topics.
func topicsAreKept(set *configs.Set) error {
	own, err := configs.SectionOf[Config](set)
	if err != nil {
		return err
	}
	topics, err := configs.SectionOf[produce.Topics](set)
	if err != nil {
		return nil //nolint:nilerr // a build without Kafka has no topics to look after
	}
	var faults configs.Faults
	kept := topics.Names()
	for i, rule := range own.Topics {
		if _, topic, found := cutTopic(rule); found {
			faults.Check(slices.Contains(kept, topic), "routing.topics",
				"entry %d sends events to %q, which is none of kafka.topics: add it to kafka.topics.custom", i+1, topic)
		}
	}
	return faults.Err()
}
