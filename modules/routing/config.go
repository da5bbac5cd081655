package routing

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
)

// Config is the section "routing".
type Config struct {
	Drop       []string `key:"drop" live:"true" doc:"Whose events are dropped, each entry a token for all events of a project, or for some of them token:distinct_id, token:event=NAME, token:session=ID or token:uuid=UUID. The client is answered as if the events were kept. Rules of more than one condition are records of the shared state: see docs/restrictions.md."`
	Overflow   []string `key:"overflow" live:"true" doc:"Whose events go to the overflow topic of their lane; entries as in drop. There, events other than recordings are spread over all partitions, and the pipeline does not update persons from them. Lanes without an overflow topic ignore the rule. While kafka.topics.ai_overflow is empty, AI events stay in their topic, but persons are not updated from them either."`
	SkipPerson []string `key:"skip_person" live:"true" doc:"From whose events the pipeline behind Kafka does not update persons; entries as in drop."`
	DLQ        []string `key:"dlq" live:"true" doc:"Whose events are set aside in kafka.topics.dlq; entries as in drop."`
	Topics     []string `key:"topics" live:"true" doc:"Whose events go to a topic of their own; entries as in drop, each followed by =topic, such as token:event=NAME=topic. Every topic must be one of kafka.topics, for example of kafka.topics.custom."`

	RulesRefresh    time.Duration `key:"rules_refresh" live:"true" doc:"How often the rules of the shared state and of PostHog's Redis are read again. A rule that the service itself writes is in force at once on all nodes, one that was written by hand within this time. Where reading takes long, it is done less often: see docs/restrictions.md."`
	RulesStaleAfter time.Duration `key:"rules_stale_after" live:"true" doc:"How long the rules that were read last stay in force while the store they come from does not answer."`
	OnStoreFailure  string        `key:"on_store_failure" live:"true" doc:"What happens to the rules of the shared state when it has not answered for rules_stale_after. open: they are ignored, so that no old rule drops events. closed: they stay in force, and while the node has not read any since its start, events are answered 503. The rules of PostHog's Redis are ignored in either case, as PostHog does it."`
	PostHog         bool          `key:"posthog" live:"true" doc:"Apply the restrictions, and the overflow of sessions, that PostHog's application has written to its Redis (store.posthog)."`

	HistoricalAfter time.Duration `key:"historical_after" live:"true" doc:"Ordinary events that happened at least this long before they arrived go to kafka.topics.historical. 0: none."`
	HistoricalOnly  bool          `key:"historical_only" live:"true" doc:"Take only migrations of old events: all events of a request without historical_migration are dropped, and the client is answered as if they were kept."`
}

// DefaultConfig returns the defaults of the section: no rules but those of the store.
func DefaultConfig() Config {
	return Config{
		RulesRefresh: 10 * time.Second, RulesStaleAfter: 5 * time.Minute, OnStoreFailure: store.FailOpen, PostHog: true,
	}
}

// The limits of settings.
const (
	shortestRefresh = time.Second
	longestRefresh  = time.Hour
	longestStale    = 30 * 24 * time.Hour
)

// lists are the keys with rules, by their action.
func (c *Config) lists() [restriction.ActionCount]struct {
	key     string
	entries []string
} {
	return [restriction.ActionCount]struct {
		key     string
		entries []string
	}{
		restriction.Drop: {"drop", c.Drop}, restriction.Overflow: {"overflow", c.Overflow},
		restriction.DLQ: {"dlq", c.DLQ}, restriction.Topic: {"topics", c.Topics},
		restriction.SkipPerson: {"skip_person", c.SkipPerson},
	}
}

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	topics := map[string]string{}
	for action, list := range c.lists() {
		for i, entry := range list.entries {
			rule, err := parseEntry(restriction.Action(action), entry)
			if err != nil {
				faults.Addf(list.key, "entry %d %s", i+1, err)
			}
			if rule.Topic == "" {
				continue
			}
			who := entry[:len(entry)-len(rule.Topic)]
			other, twice := topics[who]
			faults.Check(!twice || other == rule.Topic, list.key, "entry %d gives %q another topic than an earlier one",
				i+1, strings.TrimSuffix(who, "="))
			topics[who] = rule.Topic
		}
	}
	faults.Check(c.RulesRefresh >= shortestRefresh && c.RulesRefresh <= longestRefresh, "rules_refresh",
		"must be from %s to %s, got %s", shortestRefresh, longestRefresh, c.RulesRefresh)
	faults.Check(c.RulesStaleAfter >= c.RulesRefresh && c.RulesStaleAfter <= longestStale, "rules_stale_after",
		"must be from rules_refresh (%s) to %s, got %s", c.RulesRefresh, longestStale, c.RulesStaleAfter)
	store.CheckOnFailure(&faults, c.OnStoreFailure)
	faults.Check(c.HistoricalAfter >= 0, "historical_after", "must not be negative, got %s", c.HistoricalAfter)
	return faults.Err()
}

func (c *Config) isClosed() bool { return c.OnStoreFailure == store.FailClosed }

// entryForms is how an entry may look, for people.
const entryForms = "a token, token:distinct_id, token:event=NAME, token:session=ID or token:uuid=UUID"

// parseEntry reads a rule of the configuration. It returns what it has read of a faulty one, so that further faults are
// found.
func parseEntry(action restriction.Action, entry string) (rule restriction.Rule, err error) {
	rule.Action = action
	who := entry
	if action == restriction.Topic {
		// A distinct_id may hold any character, and a topic no equals sign.
		i := strings.LastIndexByte(entry, '=')
		if i < 0 {
			return rule, fmt.Errorf("must be token=topic or token:distinct_id=topic, got %q", entry)
		}
		who, rule.Topic = entry[:i], entry[i+1:]
	}
	token, value, some := strings.Cut(who, ":")
	rule.Token = token
	if token == "" || some && value == "" {
		return rule, fmt.Errorf("must be %s, got %q", entryForms, who)
	}
	if some {
		field, text, named := strings.Cut(value, "=")
		list := &rule.DistinctIDs
		switch {
		case named && field == "distinct_id":
			value = text
		case named && field == "event":
			list, value = &rule.Events, text
		case named && field == "session":
			list, value = &rule.Sessions, text
		case named && field == "uuid":
			id, fault := uuid.Parse(text)
			if fault != nil {
				return rule, fmt.Errorf("must have a uuid behind uuid=, got %q", text)
			}
			rule.UUIDs, list = []uuid.UUID{id}, nil
		}
		if value == "" {
			return rule, fmt.Errorf("must be %s, got %q", entryForms, who)
		}
		if list != nil {
			*list = []string{value}
		}
	}
	if action == restriction.Topic && !produce.IsTopicName(rule.Topic) {
		return rule, fmt.Errorf("must name a topic of %s, got %q", produce.TopicNameRule, rule.Topic)
	}
	return rule, nil
}

// rules returns the rules of the section. The name of a rule is its key and the number of its entry.
func (c *Config) rules() (all []*rule) {
	for action, list := range c.lists() {
		for i, entry := range list.entries {
			of, err := parseEntry(restriction.Action(action), entry)
			if err != nil {
				continue // Validate has refused the configuration
			}
			name := list.key + "/" + strconv.Itoa(i+1)
			all = append(all, newRule(fromConfig, name, of, fieldsOf(&of)*rankOfField+int64(i)))
		}
	}
	return all
}

// rankOfField is more than the number of rules that a source may have.
const rankOfField = 1 << 32

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
	for i, entry := range own.Topics {
		if rule, err := parseEntry(restriction.Topic, entry); err == nil {
			faults.Check(slices.Contains(kept, rule.Topic), "routing.topics",
				"entry %d sends events to %q, which is none of kafka.topics: add it to kafka.topics.custom", i+1,
				rule.Topic)
		}
	}
	return faults.Err()
}
