package kafka

import (
	"context"
	"time"

	"github.com/IBM/sarama"
)

var (
	ClientConfig = clientConfig
	NewFileWatch = newFileWatch
)

// CredentialFiles are the files that ClientConfig reads.
func (c Config) CredentialFiles() []string { return c.credentialFiles() }

// NoMetrics is the registry that sarama gets.
type NoMetrics = noMetrics

// NewTokens returns a cache of the tokens that fetch gets.
func NewTokens(fetch func(context.Context) (string, time.Time, error)) sarama.AccessTokenProvider {
	return &tokenCache{limit: time.Second, fetch: fetch}
}
