package kafka

import (
	"regexp"
	"slices"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

// Config is the configuration section "kafka".
type Config struct {
	Brokers  []string `key:"brokers" doc:"Addresses of the cluster's brokers, as host:port; two or three are enough to find the rest. Empty: the embedded broker."`
	ClientID string   `key:"client_id" doc:"Name under which the brokers log and meter this service."`

	Topics Topics `key:"topics"`

	Compression     string           `key:"compression" doc:"How batches of messages are compressed: none, gzip, snappy, lz4 or zstd."`
	MaxMessageBytes configs.ByteSize `key:"max_message_bytes" doc:"Largest message, before compression: key, value, headers and the record's own overhead. A larger event is rejected; a larger recording is split. Topics that exist already must have a max.message.bytes that is larger than this."`
	Buffer          configs.ByteSize `key:"buffer" doc:"Bytes of messages that may wait for Kafka's acknowledgement at once, in the whole process; who comes then waits for room. As much again may be taken by messages that are being built."`
	Linger          time.Duration    `key:"linger" doc:"How long to wait for more messages before a request is sent. 0: a request is sent as soon as the one before it is answered."`
	AckTimeout      time.Duration    `key:"ack_timeout" doc:"How long a message may take until all in-sync replicas have it; then it has failed. It outlasts the election of a new leader, so that the message is not sent a second time. Whoever waits for it may give up before: see delivery."`
	ConnectTimeout  time.Duration    `key:"connect_timeout" doc:"How long one attempt to reach the cluster may take. The start waits for the first, but no longer than a second."`
	FlushTimeout    time.Duration    `key:"flush_timeout" doc:"How long messages in flight may take to be acknowledged when stopping."`

	TLS  TLS  `key:"tls"`
	SASL SASL `key:"sasl"`
}

// Topics names the topic of each stream and says how missing ones are made.
type Topics struct {
	Events             string   `key:"events" doc:"Topic of ordinary events."`
	Recordings         string   `key:"recordings" doc:"Topic of session recordings; what is too large for one message is split."`
	Historical         string   `key:"historical" doc:"Topic of events that a client marks as a migration of old ones."`
	ClientWarnings     string   `key:"client_warnings" doc:"Topic of warnings: those that SDKs send about themselves ($$client_ingestion_warning), and the service's own about what clients send."`
	Exceptions         string   `key:"exceptions" doc:"Topic of $exception events."`
	Overflow           string   `key:"overflow" doc:"Topic of ordinary events that are kept out of the way of others, such as those of a user who sends too many."`
	RecordingsOverflow string   `key:"recordings_overflow" doc:"Topic of recordings that are kept out of the way of others, such as those of a session that sends too much."`
	Heatmaps           string   `key:"heatmaps" doc:"Topic of heatmap data, be it sent as $$heatmap events or within others."`
	AI                 string   `key:"ai" doc:"Topic of AI events."`
	AIOverflow         string   `key:"ai_overflow" doc:"Topic of AI events that are kept out of the way of others. Empty: they stay in the topic of AI events."`
	Logs               string   `key:"logs" doc:"Topic of log records."`
	DLQ                string   `key:"dlq" doc:"Topic of events of any kind that a rule sets aside; the header dlq_reason says why."`
	Custom             []string `key:"custom" doc:"Further topics that rules send events to; they are created and looked after like the others."`

	Create            bool `key:"create" doc:"Create the topics that are missing when connecting."`
	Partitions        int  `key:"partitions" doc:"Partitions of a topic that is created. 0: the broker's default."`
	ReplicationFactor int  `key:"replication_factor" doc:"Replicas of a topic that is created. 0: the broker's default."`
}

// TLS says how connections to the brokers are encrypted. The brokers' certificates are always verified.
type TLS struct {
	Enabled    bool   `key:"enabled" doc:"Encrypt the connections to the brokers."`
	CAFile     string `key:"ca_file" doc:"PEM file with the authorities that the brokers' certificates are verified against. It and the other files here are read again when they change. Empty: the system's."`
	CertFile   string `key:"cert_file" doc:"PEM file with the client certificate, for brokers that ask for one."`
	KeyFile    string `key:"key_file" doc:"PEM file with the client certificate's key."`
	ServerName string `key:"server_name" doc:"Name that the brokers' certificates must be for. Empty: the host in each broker's address."`
}

// SASL says how the service logs in to the brokers.
type SASL struct {
	Mechanism    string         `key:"mechanism" doc:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 (with username and password), OAUTHBEARER (with a token) or AWS_MSK_IAM (Amazon MSK, with the credentials that AWS's tools find: environment, profile or role). Empty: no login."`
	Username     string         `key:"username" doc:"User to log in as."`
	Password     configs.Secret `key:"password" doc:"The user's password."`
	PasswordFile string         `key:"password_file" doc:"File with the user's password, instead of password. It is read again when it changes."`
	TokenFile    string         `key:"token_file" doc:"File with the token for OAUTHBEARER. It is read at every login."`
	TokenCommand []string       `key:"token_command" doc:"Command that prints the token for OAUTHBEARER, instead of token_file: program and arguments, run without a shell for connect_timeout at most. It is run again before the token expires: at its claim exp if it is a JSON Web Token, else after a minute."`
	AWSRegion    string         `key:"aws_region" doc:"AWS region of the brokers, for AWS_MSK_IAM."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		ClientID: "capture",
		Topics: Topics{
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
		},
		Compression:     "lz4",
		MaxMessageBytes: 1_000_000,
		Buffer:          64 * configs.MiB,
		AckTimeout:      30 * time.Second,
		ConnectTimeout:  5 * time.Second,
		FlushTimeout:    10 * time.Second,
	}
}

// largestMessage keeps a request below what sarama and most brokers take; an event is never near it.
const largestMessage = 64 * configs.MiB

// Validate reports every fault.
func (c Config) Validate() error {
	var faults configs.Faults
	for i, broker := range c.Brokers {
		faults.Check(isHostPort(broker), "brokers", "entry %d must be host:port, got %q", i+1, broker)
	}
	faults.Nest("topics", c.Topics.Validate())
	if _, known := codecs[c.Compression]; !known {
		faults.Addf("compression", "must be none, gzip, snappy, lz4 or zstd, got %q", c.Compression)
	}
	faults.Check(c.MaxMessageBytes >= configs.KiB && c.MaxMessageBytes <= largestMessage, "max_message_bytes",
		"must be from %s to %s, got %s", configs.KiB, largestMessage, c.MaxMessageBytes)
	faults.Check(c.Buffer >= 2*c.MaxMessageBytes, "buffer", "must hold at least two messages of max_message_bytes (%s), got %s", c.MaxMessageBytes, c.Buffer)
	faults.Check(c.Linger >= 0 && c.Linger <= c.AckTimeout/2, "linger", "must be from 0 to half of ack_timeout (%s), got %s", c.AckTimeout/2, c.Linger)
	for _, timeout := range []struct {
		key string
		d   time.Duration
	}{{"ack_timeout", c.AckTimeout}, {"connect_timeout", c.ConnectTimeout}, {"flush_timeout", c.FlushTimeout}} {
		faults.Check(timeout.d >= 10*time.Millisecond, timeout.key, "must be at least 10ms, got %s", timeout.d)
	}
	faults.Nest("tls", c.TLS.Validate())
	faults.Nest("sasl", c.SASL.Validate())
	faults.Check(c.SASL.Mechanism != mechanismMSK || c.TLS.Enabled, "tls.enabled", "must be true with kafka.sasl.mechanism %s", mechanismMSK)
	return faults.Err()
}

// startPatience is how long the start waits for the first connection at most: what comes before it can be kept elsewhere.
const startPatience = time.Second

// StartBudget is how long the start waits for the first connection.
func (c Config) StartBudget() time.Duration { return min(c.ConnectTimeout, startPatience) }

// StopBudget is how long the stop waits for what is in flight.
func (c Config) StopBudget() time.Duration { return c.FlushTimeout }

// topicName is what Kafka allows.
const topicName = `^[a-zA-Z0-9._-]{1,249}$`

// Validate reports every fault.
func (t Topics) Validate() error {
	var faults configs.Faults
	valid := regexp.MustCompile(topicName)
	for _, topic := range t.keyed() {
		faults.Check(valid.MatchString(topic.name) && topic.name != "." && topic.name != "..", topic.key,
			"must be 1 to 249 letters, digits, dots, underscores or hyphens, got %q", topic.name)
	}
	faults.Check(t.Partitions >= 0 && t.Partitions <= 10_000, "partitions", "must be from 0 to 10000, got %d", t.Partitions)
	faults.Check(t.ReplicationFactor >= 0 && t.ReplicationFactor <= 100, "replication_factor", "must be from 0 to 100, got %d", t.ReplicationFactor)
	return faults.Err()
}

// Names returns every topic that is written to, once.
func (t Topics) Names() []string {
	var names []string
	for _, topic := range t.keyed() {
		if !slices.Contains(names, topic.name) {
			names = append(names, topic.name)
		}
	}
	return names
}

// route returns the topic that an event goes to, and whether its key says which partition: where nothing needs an order, the
// message goes to any.
func (t *Topics) route(event *events.Event) (topic string, keyed bool) {
	routing := &event.Routing
	switch {
	case routing.DLQ != "":
		return t.DLQ, true
	case routing.Topic != "":
		return routing.Topic, true
	}
	switch event.Lane {
	case events.LaneHistorical:
		return t.Historical, true
	case events.LaneExceptions:
		return t.Exceptions, true
	case events.LaneHeatmaps:
		return t.Heatmaps, true
	case events.LaneClientWarnings:
		return t.ClientWarnings, true
	case events.LaneLogs:
		return t.Logs, true
	case events.LaneRecordings:
		if routing.Overflow {
			return t.RecordingsOverflow, true
		}
		return t.Recordings, true
	case events.LaneAI:
		if routing.Overflow && t.AIOverflow != "" {
			return t.AIOverflow, !routing.Unkeyed
		}
		return t.AI, true
	default:
		if routing.Overflow {
			return t.Overflow, !routing.Unkeyed && !routing.SkipPerson
		}
		return t.Events, !routing.SkipPerson
	}
}

// unburied returns the topic that an event would go to if it were not set aside.
func (t *Topics) unburied(event *events.Event) string {
	alive := *event
	alive.Routing.DLQ = ""
	topic, _ := t.route(&alive)
	return topic
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

// Validate reports every fault.
func (t TLS) Validate() error {
	var faults configs.Faults
	faults.Check((t.CertFile == "") == (t.KeyFile == ""), "cert_file", "must be given together with key_file")
	if !t.Enabled {
		for _, set := range []struct{ key, value string }{
			{"ca_file", t.CAFile}, {"cert_file", t.CertFile}, {"key_file", t.KeyFile}, {"server_name", t.ServerName},
		} {
			faults.Check(set.value == "", set.key, "has no effect while enabled is false")
		}
	}
	return faults.Err()
}

const mechanismNames = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM"

// Validate reports every fault.
func (s SASL) Validate() error {
	var faults configs.Faults
	_, known := mechanisms[s.Mechanism]
	if s.Mechanism != "" && !known {
		faults.Addf("mechanism", "must be %s, got %q", mechanismNames, s.Mechanism)
		return faults.Err()
	}
	token, msk := s.Mechanism == mechanismOAuth, s.Mechanism == mechanismMSK
	user := known && !token && !msk
	for _, set := range []struct {
		key       string
		is, wants bool
	}{
		{"username", s.Username != "", user},
		{"password", s.Password != "", user},
		{"password_file", s.PasswordFile != "", user},
		{"token_file", s.TokenFile != "", token},
		{"token_command", len(s.TokenCommand) > 0, token},
		{"aws_region", s.AWSRegion != "", msk},
	} {
		faults.Check(!set.is || set.wants, set.key, "has no effect with mechanism %q", s.Mechanism)
	}
	if user {
		faults.Check(s.Username != "", "username", "must not be empty with mechanism %s", s.Mechanism)
		faults.Check((s.Password != "") != (s.PasswordFile != ""), "password", "either password or password_file must be given with mechanism %s", s.Mechanism)
	}
	if token {
		faults.Check((s.TokenFile != "") != (len(s.TokenCommand) > 0), "token_file", "either token_file or token_command must be given with mechanism %s", s.Mechanism)
		faults.Check(len(s.TokenCommand) == 0 || s.TokenCommand[0] != "", "token_command", "must begin with a program")
	}
	if msk {
		faults.Check(s.AWSRegion != "", "aws_region", "must not be empty with mechanism %s", s.Mechanism)
	}
	return faults.Err()
}
