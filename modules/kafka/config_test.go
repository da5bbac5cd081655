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
		"topics.events: must be 1 to 249", "topics.dlq: must be 1 to 249", "topics.ai_overflow: must be 1 to 249", `topics.custom: must be 1 to 249 letters, digits, dots, underscores or hyphens, got ".."`,
		"topics.partitions: must be from 0",
		"compression: must be none", "max_message_bytes: must be from", "ack_timeout: must be at least 10ms, got -1s", "linger: must be",
		"tls.cert_file: must be given together with key_file", "tls.cert_file: has no effect",
		`sasl.mechanism: must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, got "GSSAPI"`, "sasl.username: must not be empty",
	} {
		require.ErrorContains(t, err, fault)
	}
	require.NotContains(t, err.Error(), "hunter2")
}

type local string

func (l local) Address() string { return string(l) }
func (l local) String() string  { return "local broker at " + string(l) }

func TestTheLocalBrokerIsUsedOnlyWithoutBrokers(t *testing.T) {
	cfg := kafka.DefaultConfig()
	_, err := kafka.NewBootstrap(cfg)
	require.EqualError(t, err, "kafka.brokers is empty and this build has no embedded broker: set kafka.brokers or include modules/embedded")
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
