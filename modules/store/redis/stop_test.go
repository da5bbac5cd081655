//go:build linux

package redis

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/testkit/redisserver"
)

// A stop tells a server that did not answer at first.
func TestTheStopTriesAgain(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	server := redisserver.Start(t, redisserver.Options{})
	cfg := store.DefaultConfig()
	cfg.Redis.Addrs = []string{server.Addr}
	scope := tally.NewTestScope("", nil)
	s, err := New(store.Parts{Config: cfg, Live: configs.Fixed(cfg), Log: zap.NewNop(), Scope: scope})
	require.NoError(t, err)
	shard := s.servers.all()[0]
	s.Settle("token", 1, []store.Digest{{1}}, time.Hour, nil)
	require.NoError(t, server.Stop())
	told := make(chan error, 1)
	go func() { told <- shard.settleAll(t.Context()) }()
	require.Eventually(t, func() bool {
		failures := int64(0)
		for name, counter := range scope.Snapshot().Counters() {
			if strings.Contains(name, "fail") {
				failures += counter.Value()
			}
		}
		return failures > 0
	}, time.Minute, time.Millisecond)
	require.NoError(t, server.Continue())
	require.NoError(t, <-told)
	require.Zero(t, s.queue.digests.Load())
	claims := make([]store.Claim, 1)
	require.Eventually(t, func() bool {
		return s.Reserve(t.Context(), "token", 2, []store.Digest{{1}}, time.Hour, claims) == nil
	}, time.Minute, time.Millisecond)
	require.Equal(t, store.Done, claims[0])
	require.NoError(t, s.client.Close())
}
