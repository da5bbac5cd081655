//go:build linux

package auth_test

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/redis"
	"github.com/opencapture/capture/testkit"
	"github.com/opencapture/capture/testkit/redisserver"
)

// A node on a real Redis: hashes that people write, changes by another node, a Redis that dies, and a start without it.
func TestProjectsInRedis(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{AppendOnly: true})
	replica := filepath.Join(t.TempDir(), "auth", "projects.json")
	node := func(settings ...testkit.Option) *testkit.Service {
		return testkit.Start(t, append(settings, testkit.Override[events.Sink](testkit.NewSink()),
			testkit.Set("store.redis.addrs", server.Addr), testkit.Set("store.posthog.addrs", server.Addr),
			testkit.Set("auth.mode", "strict"), testkit.Set("auth.replica", replica),
			testkit.Set("auth.on_store_failure", "closed"), testkit.Set("dedup.window", "0s"),
			testkit.Set("auth.ttl", "1s"), testkit.Set("auth.unknown_ttl", "1s"))...)
	}
	status := func(service *testkit.Service, token string) int {
		return service.Post("/e/", event(token, "a")).Status
	}
	do := func(args ...string) {
		t.Helper()
		_, err := server.Do(args...)
		require.NoError(t, err)
	}
	do("SET", "capture_known_tokens_swept_at", strconv.FormatInt(time.Now().Unix(), 10))
	do("SET", "capture_known_token:phc_posthog", "1")
	do("HSET", "capture:1:project:{phc_hand}", "id", "7", "name", "By hand")

	service := node()
	require.Equal(t, 200, status(service, "phc_hand"))
	require.Equal(t, 200, status(service, "phc_posthog"))
	require.Equal(t, 401, status(service, "phc_nobody"))

	// What is written by hand counts soon, what another node writes at once.
	do("HSET", "capture:1:project:{phc_hand}", "enabled", "false")
	service.Eventually("the change by hand", func() bool { return status(service, "phc_hand") == 403 })
	do("HDEL", "capture:1:project:{phc_hand}", "enabled")
	service.Eventually("the change back", func() bool { return status(service, "phc_hand") == 200 })
	require.NoError(t, service.Set("auth.ttl=1h", "auth.unknown_ttl=1h"))
	other := otherNode(t, server.Addr)
	require.Equal(t, 401, status(service, "phc_api"))
	require.NoError(t, other.Put(t.Context(), "project", "phc_api", nil, store.Fields{"id": "8"}))
	service.Eventually("the other node's record", func() bool { return status(service, "phc_api") == 200 })

	// A record with faults leaves the last good one in force.
	do("HSET", "capture:1:project:{phc_hand}", "enabled", "never")
	require.NoError(t, service.Set("auth.ttl=1s", "auth.unknown_ttl=1s"))
	service.Eventually("the fault", func() bool {
		require.Equal(t, 200, status(service, "phc_hand"))
		return strings.Contains(service.Admin("/admin/auth").Body, "never")
	})
	do("HDEL", "capture:1:project:{phc_hand}", "enabled")

	server.Kill()
	for range 3 {
		require.Equal(t, 200, status(service, "phc_hand"))
	}
	require.Equal(t, 503, status(service, "phc_new"))
	require.NoError(t, service.Set("auth.on_store_failure=open"))
	require.Equal(t, 200, status(service, "phc_new"))
	require.NoError(t, service.Stop())

	// The node starts without Redis, and knows whom it knew.
	service = node()
	require.Equal(t, 200, status(service, "phc_hand"))
	require.Equal(t, 200, status(service, "phc_api"))
	require.Equal(t, 503, status(service, "phc_new"))
	require.NoError(t, server.Restart())
	service.Eventually("Redis", func() bool { return status(service, "phc_new") == 401 })
	require.Equal(t, 200, status(service, "phc_hand"))
}

// otherNode is the store of another node.
func otherNode(t *testing.T, addr string) store.Records {
	t.Helper()
	c := store.DefaultConfig()
	c.Redis.Addrs = []string{addr}
	running, err := store.Open(store.Parts{
		Config: c, Live: configs.Fixed(c), Log: zap.NewNop(), Scope: tally.NoopScope,
	}, redis.Backend())
	require.NoError(t, err)
	require.NoError(t, running.Start(context.Background()))
	t.Cleanup(func() { _ = running.Stop(context.Background()) })
	return running
}
