package kafka

import (
	"os"
	"os/exec"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/produce"
)

// Config is the configuration section "kafka".
type Config struct {
	Brokers  []string `key:"brokers" doc:"Addresses of the cluster's brokers, as host:port. Two or three are enough, since they name the others. Empty: the embedded broker."`
	ClientID string   `key:"client_id" doc:"Name under which the brokers log and meter this service."`

	Topics produce.Topics `key:"topics"`

	Compression     string           `key:"compression" doc:"How batches of messages are compressed: none, gzip, snappy, lz4 or zstd."`
	MaxMessageBytes configs.ByteSize `key:"max_message_bytes" doc:"Largest message, before compression: key, value, headers and the record's own overhead. A larger event is rejected; a larger recording is split. Topics that exist already must have a max.message.bytes that is larger than this."`
	Linger          time.Duration    `key:"linger" doc:"How long the producer waits for more messages before it sends a request. 0: it sends a request as soon as the request before is answered."`
	OverflowLinger  time.Duration    `key:"overflow_linger" doc:"How often the producer sends what waits for the overflow topics. So a project that sends more than it may takes little of what others need. 0: as it sends to other topics."`
	AckTimeout      time.Duration    `key:"ack_timeout" doc:"How long a message may take until all in-sync replicas have it; after that it has failed. The default outlasts the election of a new leader, so that the message is not sent a second time. A request may stop waiting for its messages earlier: see delivery."`
	ConnectTimeout  time.Duration    `key:"connect_timeout" doc:"How long one attempt to reach the cluster may take. The start waits for the first attempt, for a second at most."`
	FlushTimeout    time.Duration    `key:"flush_timeout" doc:"How long a stop waits, after delivery.stop_timeout, for Kafka to acknowledge the messages that the producer still holds."`

	TLS  TLS  `key:"tls" live:"true"`
	SASL SASL `key:"sasl" live:"true"`
}

// TLS says how connections to the brokers are encrypted. The brokers' certificates are always verified.
type TLS struct {
	Enabled    bool   `key:"enabled" doc:"Encrypt the connections to the brokers."`
	CAFile     string `key:"ca_file" doc:"PEM file with the authorities that verify the brokers' certificates. The service reads this file and the others here again when they change. Empty: the system's authorities."`
	CertFile   string `key:"cert_file" doc:"PEM file with the client certificate, for brokers that ask for one."`
	KeyFile    string `key:"key_file" doc:"PEM file with the client certificate's key."`
	ServerName string `key:"server_name" doc:"Name that the brokers' certificates must carry. Empty: the host in each broker's address."`
}

// SASL says how the service logs in to the brokers.
type SASL struct {
	Mechanism    string          `key:"mechanism" doc:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 (with username and password), OAUTHBEARER (with a token) or AWS_MSK_IAM (Amazon MSK, with the credentials that AWS's tools find: environment, profile or role). Empty: no login."`
	Username     string          `key:"username" doc:"User to log in as."`
	Password     configs.Secret  `key:"password" doc:"The user's password."`
	PasswordFile string          `key:"password_file" doc:"File with the user's password, instead of password. The service reads it again when it changes."`
	TokenFile    string          `key:"token_file" doc:"File with the token for OAUTHBEARER. The service reads it at every login."`
	TokenCommand configs.Command `key:"token_command" doc:"Command that prints the token for OAUTHBEARER, instead of token_file: a program and its arguments, run without a shell for connect_timeout at most. Let the program read its secrets from a file or the environment: other users of the machine can see its arguments. The first line that a failed program writes to stderr is logged. The service runs it again before the token expires: by the claim exp if the token is a JSON Web Token, else after a minute."`
	AWSRegion    string          `key:"aws_region" doc:"AWS region of the brokers, for AWS_MSK_IAM."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		ClientID:        "capture",
		Topics:          produce.DefaultTopics(),
		OverflowLinger:  20 * time.Millisecond,
		Compression:     "lz4",
		MaxMessageBytes: 1_000_000,
		AckTimeout:      30 * time.Second,
		ConnectTimeout:  5 * time.Second,
		FlushTimeout:    3 * time.Second,
	}
}

// largestMessage keeps a request below the size that sarama and most brokers take. No event comes near it.
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
	faults.Check(c.Linger >= 0 && c.Linger <= c.AckTimeout/2, "linger",
		"must be from 0 to half of ack_timeout (%s), got %s", c.AckTimeout/2, c.Linger)
	faults.Check(c.OverflowLinger >= 0 && c.OverflowLinger <= c.AckTimeout/2, "overflow_linger",
		"must be from 0 to half of ack_timeout (%s), got %s", c.AckTimeout/2, c.OverflowLinger)
	for _, timeout := range []struct {
		key string
		d   time.Duration
	}{{"ack_timeout", c.AckTimeout}, {"connect_timeout", c.ConnectTimeout}, {"flush_timeout", c.FlushTimeout}} {
		faults.Check(timeout.d >= 10*time.Millisecond, timeout.key, "must be at least 10ms, got %s", timeout.d)
	}
	faults.Nest("tls", c.TLS.Validate())
	faults.Nest("sasl", c.SASL.Validate())
	faults.Check(c.SASL.Mechanism != mechanismMSK || c.TLS.Enabled, "tls.enabled",
		"must be true with kafka.sasl.mechanism %s", mechanismMSK)
	return faults.Err()
}

// startPatience limits how long the start waits for the first connection. Messages that come before the first
// connection can be kept elsewhere.
const startPatience = time.Second

// StartBudget is how long the start waits for the first connection.
func (c Config) StartBudget() time.Duration { return min(c.ConnectTimeout, startPatience) }

// StopBudget is how long the stop waits for the messages in flight.
func (c Config) StopBudget() time.Duration { return c.FlushTimeout }

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
		faults.Check((s.Password != "") != (s.PasswordFile != ""), "password",
			"either password or password_file must be given with mechanism %s", s.Mechanism)
	}
	if token {
		faults.Check((s.TokenFile != "") != (len(s.TokenCommand) > 0), "token_file",
			"either token_file or token_command must be given with mechanism %s", s.Mechanism)
		faults.Check(len(s.TokenCommand) == 0 || s.TokenCommand[0] != "", "token_command", "must begin with a program")
	}
	if msk {
		faults.Check(s.AWSRegion != "", "aws_region", "must not be empty with mechanism %s", s.Mechanism)
	}
	return faults.Err()
}

// filesAreThere checks that the files that the section names can be read and hold what they should, and that the
// section's command can be run.
func filesAreThere(set *configs.Set) error {
	c, err := configs.SectionOf[Config](set)
	if err != nil {
		return err
	}
	var faults configs.Faults
	for _, file := range []struct{ key, path string }{
		{"kafka.tls.ca_file", c.TLS.CAFile}, {"kafka.tls.cert_file", c.TLS.CertFile},
		{"kafka.tls.key_file", c.TLS.KeyFile},
		{"kafka.sasl.password_file", c.SASL.PasswordFile}, {"kafka.sasl.token_file", c.SASL.TokenFile},
	} {
		if file.path != "" {
			_, err := os.ReadFile(file.path)
			faults.Check(err == nil, file.key, "%v", err)
		}
	}
	if faults.Err() == nil {
		_, err := authorities(c.TLS.CAFile)
		faults.Check(err == nil, "kafka.tls.ca_file", "%v", err)
		_, err = clientCertificates(c.TLS)
		faults.Check(err == nil, "kafka.tls.cert_file", "%v", err)
	}
	if command := c.SASL.TokenCommand; len(command) > 0 && command[0] != "" {
		_, err := exec.LookPath(command[0])
		faults.Check(err == nil, "kafka.sasl.token_command", "%v", err)
	}
	return faults.Err()
}
