package produce

import (
	"regexp"
	"slices"

	"github.com/opencapture/capture/configs"
)

// Settings tells the makers of messages about the place that the messages go to.
type Settings struct {
	Topics Topics
	// MaxMessageBytes limits Message.Size.
	MaxMessageBytes int
}

// Topics is the configuration section "kafka.topics": the topic of each stream, and how missing topics are created.
type Topics struct {
	Events             string   `key:"events" doc:"Topic of ordinary events."`
	Recordings         string   `key:"recordings" doc:"Topic of session recordings. A recording that is too large for one message is split."`
	Historical         string   `key:"historical" doc:"Topic of events that a client marks as a migration of old ones."`
	ClientWarnings     string   `key:"client_warnings" doc:"Topic of warnings: those that SDKs send about themselves ($$client_ingestion_warning), and those that the service sends about the events of clients."`
	Exceptions         string   `key:"exceptions" doc:"Topic of $exception events."`
	Overflow           string   `key:"overflow" doc:"Topic of ordinary events that are kept out of the way of others, such as those of a user who sends too many."`
	RecordingsOverflow string   `key:"recordings_overflow" doc:"Topic of recordings that are kept out of the way of others, such as those of a session that sends too much."`
	Heatmaps           string   `key:"heatmaps" doc:"Topic of heatmap data, whether it was sent as $$heatmap events or within other events."`
	AI                 string   `key:"ai" doc:"Topic of AI events."`
	AIOverflow         string   `key:"ai_overflow" doc:"Topic of AI events that are kept out of the way of others. Empty: they stay in the topic of AI events."`
	Logs               string   `key:"logs" doc:"Topic of log records."`
	DLQ                string   `key:"dlq" doc:"Topic of events of any kind that a rule sets aside; the headers dlq_reason and dlq_rule say why."`
	Custom             []string `key:"custom" live:"true" doc:"Further topics that rules send events to. The service creates and watches them like the others."`

	Create            bool `key:"create" live:"true" doc:"Create the topics that are missing, when the service connects and whenever a topic goes missing later."`
	Partitions        int  `key:"partitions" live:"true" doc:"Partitions of a topic that is created. 0: the broker's default."`
	ReplicationFactor int  `key:"replication_factor" live:"true" doc:"Replicas of a topic that is created. 0: the broker's default."`
}

// DefaultTopics returns the defaults.
func DefaultTopics() Topics {
	return Topics{
		Events:             "clickhouse_events",
		Recordings:         "clickhouse_session_recording_events",
		Historical:         "historical_events",
		ClientWarnings:     "client_warnings",
		Exceptions:         "exceptions",
		Overflow:           "events_overflow",
		RecordingsOverflow: "session_recording_overflow",
		Heatmaps:           "heatmaps",
		AI:                 "ai_events",
		Logs:               "logs",
		DLQ:                "events_dlq",
		Create:             true,
	}
}

// LongestTopicName is how many characters the name of a topic may have.
const LongestTopicName = 249

// TopicNameRule is the rule of IsTopicName in words.
const TopicNameRule = "1 to 249 letters, digits, dots, underscores or hyphens"

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// IsTopicName reports whether Kafka allows the name for a topic.
func IsTopicName(name string) bool { return topicName.MatchString(name) && name != "." && name != ".." }

// Validate reports every fault.
func (t Topics) Validate() error {
	var faults configs.Faults
	for _, topic := range t.keyed() {
		faults.Check(IsTopicName(topic.name), topic.key, "must be %s, got %q", TopicNameRule, topic.name)
	}
	faults.Check(t.Partitions >= 0 && t.Partitions <= 10_000, "partitions",
		"must be from 0 to 10000, got %d", t.Partitions)
	faults.Check(t.ReplicationFactor >= 0 && t.ReplicationFactor <= 100, "replication_factor",
		"must be from 0 to 100, got %d", t.ReplicationFactor)
	return faults.Err()
}

// Names returns every topic that the service writes to, each once.
func (t Topics) Names() []string {
	var names []string
	for _, topic := range t.keyed() {
		if !slices.Contains(names, topic.name) {
			names = append(names, topic.name)
		}
	}
	return names
}

// Overflows returns the topics that have nothing but what is kept out of the way of others.
func (t Topics) Overflows() []string {
	var overflows, others []string
	for _, topic := range t.keyed() {
		switch topic.key {
		case "overflow", "recordings_overflow", "ai_overflow":
			overflows = append(overflows, topic.name)
		default:
			others = append(others, topic.name)
		}
	}
	return slices.DeleteFunc(overflows, func(name string) bool { return slices.Contains(others, name) })
}

type keyedTopic struct{ key, name string }

// keyed returns every topic that is set, with its key.
func (t Topics) keyed() []keyedTopic {
	topics := []keyedTopic{
		{"events", t.Events},
		{"recordings", t.Recordings},
		{"historical", t.Historical},
		{"client_warnings", t.ClientWarnings},
		{"exceptions", t.Exceptions},
		{"overflow", t.Overflow},
		{"recordings_overflow", t.RecordingsOverflow},
		{"heatmaps", t.Heatmaps},
		{"ai", t.AI},
		{"logs", t.Logs},
		{"dlq", t.DLQ},
	}
	if t.AIOverflow != "" {
		topics = append(topics, keyedTopic{"ai_overflow", t.AIOverflow})
	}
	for _, name := range t.Custom {
		topics = append(topics, keyedTopic{"custom", name})
	}
	return topics
}
