package kafka_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// authority makes a certificate for 127.0.0.1 that is its own authority, and writes its PEM file.
func authority(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// secured returns brokers that know the user "capture" with the password "secret", and the file of their authority.
// CAPTURE_TEST_KAFKA_SASL_BROKERS names the brokers, comma-separated, and CAPTURE_TEST_KAFKA_CA_FILE the file. Without
// these variables secured starts a broker of the test's own.
func secured(t *testing.T, mechanism string) (brokers []string, caFile string) {
	t.Helper()
	if brokers := os.Getenv("CAPTURE_TEST_KAFKA_SASL_BROKERS"); brokers != "" {
		return strings.Split(brokers, ","), os.Getenv("CAPTURE_TEST_KAFKA_CA_FILE")
	}
	certificate, file := authority(t)
	broker := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}),
		kfake.EnableSASL(), kfake.Superuser(mechanism, "capture", "secret"))
	return broker.ListenAddrs(), file
}

func TestEventsGoThroughTLSAndEveryLogin(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			brokers, file := secured(t, mechanism)
			cfg := config(brokers...)
			cfg.TLS = kafka.TLS{Enabled: true, CAFile: file}
			cfg.SASL = kafka.SASL{Mechanism: mechanism, Username: "capture", Password: "secret"}
			require.NoError(t, cfg.Validate())
			producer, _ := start(t, cfg)
			send(producer, messages(cfg.Topics.Events, 0, 3)).requireAcknowledged(t)
		})
	}
}

func TestABrokerWithoutAProperCertificateOrLoginIsNotReady(t *testing.T) {
	t.Parallel()
	certificate, file := authority(t)
	broker := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}),
		kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "capture", "secret"))
	_, foreign := authority(t)
	for name, change := range map[string]func(*kafka.Config){
		"unknown authority":    func(cfg *kafka.Config) { cfg.TLS.CAFile = foreign },
		"system's authorities": func(cfg *kafka.Config) { cfg.TLS.CAFile = "" },
		"other name":           func(cfg *kafka.Config) { cfg.TLS.ServerName = "kafka.example.com" },
		"wrong password":       func(cfg *kafka.Config) { cfg.SASL.Password = configs.Secret("wrong") },
		"no TLS":               func(cfg *kafka.Config) { cfg.TLS = kafka.TLS{} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(broker.ListenAddrs()...)
			cfg.ConnectTimeout = time.Second
			cfg.AckTimeout = time.Second
			cfg.TLS = kafka.TLS{Enabled: true, CAFile: file}
			cfg.SASL = kafka.SASL{Mechanism: "SCRAM-SHA-512", Username: "capture", Password: "secret"}
			change(&cfg)
			producer, _ := newProducer(t, cfg)
			require.NoError(t, producer.Start(t.Context()))
			err := producer.Ready()
			require.Error(t, err)
			require.NotContains(t, err.Error(), "secret")
			require.Equal(t, produce.Unavailable,
				produce.ClassOf(send(producer, messages(cfg.Topics.Events, 0, 1)).wait(t)[0]))
		})
	}
}

func TestMissingCertificateFilesAreNamed(t *testing.T) {
	cfg := config("127.0.0.1:9092")
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	for _, files := range []kafka.TLS{
		{Enabled: true, CAFile: "no/such/file.pem"},
		{Enabled: true, CertFile: "no/such/file.pem", KeyFile: "no/such/key.pem"},
	} {
		cfg.TLS = files
		_, err := kafka.NewProducer(cfg, bootstrap, nil, nil)
		require.ErrorContains(t, err, "no/such/file.pem")
		require.ErrorContains(t, err, "kafka.tls.")
	}
}
