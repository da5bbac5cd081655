//go:build linux

package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/redis"
	"github.com/opencapture/capture/testkit/redisserver"
)

// These tests need real servers: each starts its own.

// open makes a node's store, without starting it.
func open(t testing.TB, cfg store.Config, scope tally.Scope) store.Running {
	t.Helper()
	require.NoError(t, cfg.Validate())
	log := zap.NewNop()
	if testing.Verbose() {
		log = zaptest.NewLogger(t)
	}
	s, err := store.Open(store.Parts{Config: cfg, Live: configs.Fixed(cfg), Log: log, Scope: scope}, redis.Backend())
	require.NoError(t, err)
	return s
}

// start makes and starts a node's store, which ends with the test.
func start(t testing.TB, cfg store.Config, before ...func(store.Store)) store.Running {
	t.Helper()
	s := open(t, cfg, tally.NoopScope)
	for _, f := range before {
		f(s)
	}
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	return s
}

// config returns the configuration for servers at these addresses. A machine under load has time for each call: that a
// call ends is looked at by what becomes of it, and not by the clock.
func config(addrs ...string) store.Config {
	cfg := store.DefaultConfig()
	cfg.Redis.Addrs = addrs
	cfg.Timeout = time.Second
	return cfg
}

// kept are options of a server that has everything again after a kill: the file outlives the process.
var kept = redisserver.Options{AppendOnly: true, Lines: []string{"appendfsync no"}}

// dump is a key's value and when it ends.
type dump struct {
	value string
	end   int64
}

// save returns a function that gives the servers back what they have now.
func save(t testing.TB, primaries func() []*redisserver.Server) func() {
	saved := map[*redisserver.Server]map[string]dump{}
	for _, server := range primaries() {
		saved[server] = map[string]dump{}
		keys, err := server.Do("KEYS", "*")
		require.NoError(t, err)
		for _, key := range keys.([]any) {
			name := key.(string)
			value, err := server.Do("DUMP", name)
			require.NoError(t, err)
			end, err := server.Do("PEXPIRETIME", name)
			require.NoError(t, err)
			if text, exists := value.(string); exists {
				saved[server][name] = dump{text, max(0, end.(int64))}
			}
		}
	}
	return func() {
		for _, server := range primaries() {
			_, err := server.Do("FLUSHALL")
			require.NoError(t, err)
			for name, d := range saved[server] {
				_, err := server.Do("RESTORE", name, strconv.FormatInt(d.end, 10), d.value, "ABSTTL")
				require.NoError(t, err)
			}
		}
	}
}

// primariesOf returns the servers that are primaries at present.
func primariesOf(servers []*redisserver.Server) (primaries []*redisserver.Server) {
	for _, server := range servers {
		if role, err := server.Do("ROLE"); err == nil && role.([]any)[0] == "master" {
			primaries = append(primaries, server)
		}
	}
	return primaries
}

// eventually waits for what happens soon.
func eventually(t testing.TB, condition func() bool, what ...any) {
	t.Helper()
	require.Eventually(t, condition, 30*time.Second, time.Millisecond, what...)
}

func digests(n int, salt uint64) []store.Digest {
	all := make([]store.Digest, n)
	for i := range all {
		copy(all[i][:], fmt.Sprintf("%08x%08x", salt, i))
	}
	return all
}

func parseInt(t testing.TB, text any) float64 {
	t.Helper()
	n, err := strconv.ParseInt(fmt.Sprint(text), 10, 64)
	require.NoError(t, err)
	return float64(n)
}
