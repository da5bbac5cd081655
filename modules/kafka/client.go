package kafka

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/panics"
)

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

const (
	mechanismOAuth = "OAUTHBEARER"
	mechanismMSK   = "AWS_MSK_IAM" // to the broker it is OAUTHBEARER with a token that AWS signs
)

var mechanisms = map[string]sarama.SASLMechanism{
	"PLAIN":         sarama.SASLTypePlaintext,
	"SCRAM-SHA-256": sarama.SASLTypeSCRAMSHA256,
	"SCRAM-SHA-512": sarama.SASLTypeSCRAMSHA512,
	mechanismOAuth:  sarama.SASLTypeOAuth,
	mechanismMSK:    sarama.SASLTypeOAuth,
}

func isHostPort(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || !configs.IsHostName(host) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// clientConfig returns the settings that every connection to the cluster has. It reads the files of certificates and
// passwords.
func clientConfig(cfg Config) (*sarama.Config, error) {
	client := sarama.NewConfig()
	client.Version = sarama.MaxVersion
	client.ClientID = cfg.ClientID
	client.Net.DialTimeout = cfg.ConnectTimeout
	client.Net.WriteTimeout = cfg.ConnectTimeout
	client.Metadata.Timeout = cfg.ConnectTimeout
	// A cluster may have thousands of topics: the client asks only about ours. A question about a topic must not create
	// it.
	client.Metadata.Full = false
	client.Metadata.AllowAutoTopicCreation = false
	client.Metadata.Retry.Backoff = 100 * time.Millisecond
	client.MetricRegistry = noMetrics{}

	if cfg.TLS.Enabled {
		config, err := tlsConfig(cfg.TLS)
		if err != nil {
			return nil, err
		}
		client.Net.TLS.Enable = true
		client.Net.TLS.Config = config
	}
	if cfg.SASL.Mechanism != "" {
		if err := login(client, cfg); err != nil {
			return nil, err
		}
	}
	return client, nil
}

// login sets how the client logs in to the brokers.
func login(client *sarama.Config, cfg Config) error {
	sasl := &client.Net.SASL
	sasl.Enable = true
	sasl.Mechanism = mechanisms[cfg.SASL.Mechanism]
	if sasl.Mechanism == sarama.SASLTypeOAuth {
		tokens, err := cfg.SASL.tokens(cfg.ConnectTimeout)
		sasl.TokenProvider = tokens
		return err
	}
	password, err := cfg.SASL.password()
	if err != nil {
		return err
	}
	sasl.User, sasl.Password = cfg.SASL.Username, password
	switch sasl.Mechanism {
	case sarama.SASLTypeSCRAMSHA256:
		sasl.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: sha256.New} }
	case sarama.SASLTypeSCRAMSHA512:
		sasl.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: sha512.New} }
	}
	return nil
}

// producerConfig adds the settings for producing messages to those of clientConfig.
func producerConfig(cfg Config) (*sarama.Config, error) {
	client, err := clientConfig(cfg)
	if err != nil {
		return nil, err
	}
	client.Producer.Compression = codecs[cfg.Compression]
	client.Producer.MaxMessageBytes = int(cfg.MaxMessageBytes)
	// The core repeats a question itself, and works on other things in between.
	client.Metadata.Retry.Max = 0

	// The client gives up a broker that hangs early enough for another attempt within ack_timeout.
	client.Net.ReadTimeout = cfg.AckTimeout / 2
	client.Producer.Timeout = max(cfg.AckTimeout/3, time.Millisecond)
	if err := client.Validate(); err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return client, nil
}

func tlsConfig(cfg TLS) (*tls.Config, error) {
	roots, err := authorities(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("kafka.tls.ca_file: %w", err)
	}
	own, err := clientCertificates(cfg)
	if err != nil {
		return nil, fmt.Errorf("kafka.tls.cert_file: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName, RootCAs: roots, Certificates: own,
	}, nil
}

// authorities reads the authorities in a PEM file; nil without a file.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}

// clientCertificates reads the client certificate with its key, if there is one.
func clientCertificates(cfg TLS) ([]tls.Certificate, error) {
	if cfg.CertFile == "" || cfg.KeyFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	return []tls.Certificate{pair}, nil
}

// scramClient is one SCRAM login. sarama runs it in a goroutine of its own, so it turns a panic into a failed login.
type scramClient struct {
	hash         scram.HashGeneratorFcn
	conversation *scram.ClientConversation
}

var _ sarama.SCRAMClient = (*scramClient)(nil)

func (s *scramClient) Begin(user, password, authzID string) error {
	return panics.Catch(func() error {
		client, err := s.hash.NewClient(user, password, authzID)
		if err != nil {
			return fmt.Errorf("scram: %w", err)
		}
		s.conversation = client.NewConversation()
		return nil
	})
}

func (s *scramClient) Step(challenge string) (answer string, err error) {
	err = panics.Catch(func() error {
		answer, err = s.conversation.Step(challenge)
		return err
	})
	return answer, err
}

func (s *scramClient) Done() bool { return s.conversation.Done() }
