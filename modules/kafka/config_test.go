package kafka_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/kafka"
)

func TestTheDefaultsAreValid(t *testing.T) {
	require.NoError(t, kafka.DefaultConfig().Validate())
}

func TestEveryFaultIsReported(t *testing.T) {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = []string{"kafka-1:9092", "kafka-2"}
	cfg.Topics.Events = ""
	cfg.Topics.DLQ = "a b"
	cfg.Topics.AIOverflow = "ai/overflow"
	cfg.Topics.Custom = []string{"fine", ".."}
	cfg.Topics.Partitions = -1
	cfg.Compression = "lzma"
	cfg.MaxMessageBytes = 0
	cfg.AckTimeout = -time.Second
	cfg.Linger = -1
	cfg.TLS = kafka.TLS{CertFile: "c.pem"}
	cfg.SASL = kafka.SASL{Mechanism: "GSSAPI", Password: "hunter2"}
	err := cfg.Validate()
	for _, fault := range []string{
		`brokers: entry 2 must be host:port, got "kafka-2"`,
		"topics.events: must be 1 to 249", "topics.dlq: must be 1 to 249", "topics.ai_overflow: must be 1 to 249",
		`topics.custom: must be 1 to 249 letters, digits, dots, underscores or hyphens, got ".."`,
		"topics.partitions: must be from 0",
		"compression: must be none", "max_message_bytes: must be from", "ack_timeout: must be at least 10ms, got -1s",
		"linger: must be from 0 to half of ack_timeout (-500ms), got -1ns",
		"overflow_linger: must be from 0 to half of ack_timeout (-500ms), got 20ms",
		"tls.cert_file: must be given together with key_file", "tls.cert_file: has no effect",
		`sasl.mechanism: must be PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM, got "GSSAPI"`,
	} {
		require.ErrorContains(t, err, fault)
	}
	require.NotContains(t, err.Error(), "hunter2")
}

func TestEveryLoginNeedsItsOwnKeys(t *testing.T) {
	command := []string{"get-token", "--short"}
	for name, test := range map[string]struct {
		sasl  kafka.SASL
		fault string // empty: valid
	}{
		"no login":             {kafka.SASL{}, ""},
		"no mechanism":         {kafka.SASL{Username: "u"}, `sasl.username: has no effect with mechanism ""`},
		"password":             {kafka.SASL{Mechanism: "PLAIN", Username: "u", Password: "hunter2"}, ""},
		"password from a file": {kafka.SASL{Mechanism: "SCRAM-SHA-512", Username: "u", PasswordFile: "f"}, ""},
		"both passwords": {
			kafka.SASL{Mechanism: "PLAIN", Username: "u", Password: "hunter2", PasswordFile: "f"},
			"sasl.password: either",
		},
		"no password": {kafka.SASL{Mechanism: "SCRAM-SHA-256", Username: "u"}, "sasl.password: either"},
		"no user": {
			kafka.SASL{Mechanism: "PLAIN", Password: "hunter2"},
			"sasl.username: must not be empty with mechanism PLAIN",
		},
		"token of a user": {
			kafka.SASL{Mechanism: "PLAIN", Username: "u", Password: "hunter2", TokenFile: "f"},
			"sasl.token_file: has no effect",
		},
		"token from a file":    {kafka.SASL{Mechanism: "OAUTHBEARER", TokenFile: "f"}, ""},
		"token from a command": {kafka.SASL{Mechanism: "OAUTHBEARER", TokenCommand: command}, ""},
		"both tokens": {
			kafka.SASL{Mechanism: "OAUTHBEARER", TokenFile: "f", TokenCommand: command},
			"sasl.token_file: either",
		},
		"no token": {kafka.SASL{Mechanism: "OAUTHBEARER"}, "sasl.token_file: either"},
		"no program": {
			kafka.SASL{Mechanism: "OAUTHBEARER", TokenCommand: []string{""}},
			"sasl.token_command: must begin with a program",
		},
		"password beside a token": {
			kafka.SASL{Mechanism: "OAUTHBEARER", TokenFile: "f", Password: "hunter2"},
			"sasl.password: has no effect",
		},
		"region":    {kafka.SASL{Mechanism: "AWS_MSK_IAM", AWSRegion: "eu-central-1"}, ""},
		"no region": {kafka.SASL{Mechanism: "AWS_MSK_IAM"}, "sasl.aws_region: must not be empty"},
		"region of another login": {
			kafka.SASL{Mechanism: "OAUTHBEARER", TokenFile: "f", AWSRegion: "eu-central-1"},
			"sasl.aws_region: has no effect",
		},
		"command beside AWS's token": {
			kafka.SASL{Mechanism: "AWS_MSK_IAM", AWSRegion: "eu-central-1", TokenCommand: command},
			"sasl.token_command: has no effect",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := kafka.DefaultConfig()
			cfg.TLS.Enabled = true
			cfg.SASL = test.sasl
			err := cfg.Validate()
			if test.fault == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.fault)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}

	cfg := kafka.DefaultConfig()
	cfg.SASL = kafka.SASL{Mechanism: "AWS_MSK_IAM", AWSRegion: "eu-central-1"}
	require.EqualError(t, cfg.Validate(), "tls.enabled: must be true with kafka.sasl.mechanism AWS_MSK_IAM")
}

type local string

func (l local) Address() string { return string(l) }
func (l local) String() string  { return "local broker at " + string(l) }

func TestTheLocalBrokerIsUsedOnlyWithoutBrokers(t *testing.T) {
	cfg := kafka.DefaultConfig()
	_, err := kafka.NewBootstrap(cfg)
	require.EqualError(t, err,
		"kafka.brokers is empty and this build has no embedded broker: set kafka.brokers or include modules/embedded")
	_, err = kafka.NewBootstrap(cfg, local("a:1"), local("b:1"))
	require.ErrorContains(t, err, "2 embedded brokers")

	bootstrap, err := kafka.NewBootstrap(cfg, local("a:1"))
	require.NoError(t, err)
	require.Equal(t, []string{"a:1"}, bootstrap.Addresses())

	cfg.Brokers = []string{"kafka:9092"}
	bootstrap, err = kafka.NewBootstrap(cfg, local("a:1"))
	require.NoError(t, err)
	require.Equal(t, []string{"kafka:9092"}, bootstrap.Addresses())
}
