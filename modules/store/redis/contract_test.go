//go:build linux

package redis_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/storetest"
	"github.com/opencapture/capture/testkit/redisserver"
)

// contract runs the suite on an installation whose primaries are these servers.
func contract(t *testing.T, cfg store.Config, servers []*redisserver.Server) {
	posthog := redisserver.Start(t, redisserver.Options{})
	cfg.PostHog.Addrs, cfg.PostHog.Prefix = []string{posthog.Addr}, "posthog:"
	primaries := func() []*redisserver.Server { return primariesOf(servers) }
	storetest.Run(t, func(t *testing.T) storetest.Installation {
		return storetest.Installation{
			Node: func(before func(store.Store)) store.Store {
				var first []func(store.Store)
				if before != nil {
					first = append(first, before)
				}
				s := start(t, cfg, first...)
				// A machine under load may take longer than the start waits.
				eventually(t, func() bool { return s.Status().Reachable })
				return s
			},
			Pass: time.Sleep,
			Save: func() func() { return save(t, primaries) },
			Restart: func() {
				probe := start(t, cfg)
				for _, server := range servers {
					server.Kill()
				}
				for _, server := range servers {
					require.NoError(t, server.Restart())
				}
				eventually(t, func() bool {
					draws := []store.RateDraw{{Counter: "rate:x", Interval: 1}}
					return probe.Take(context.Background(), "x", nil, draws) == nil
				})
			},
			Away: func() func() {
				for _, server := range servers {
					require.NoError(t, server.Stop())
				}
				return func() {
					for _, server := range servers {
						require.NoError(t, server.Continue())
					}
				}
			},
			Deadline: cfg.Timeout + time.Second/4, OpenDeadline: 10 * time.Millisecond,
			SetSorted: func(key string, members map[string]float64) {
				command := []string{"ZADD", cfg.PostHog.Prefix + key}
				for member, score := range members {
					command = append(command, strconv.FormatFloat(score, 'f', -1, 64), member)
				}
				_, err := posthog.Do(command...)
				require.NoError(t, err)
			},
			SetString: func(key, value string) {
				_, err := posthog.Do("SET", key, value)
				require.NoError(t, err)
			},
		}
	})
}

func TestOneServerKeepsTheContract(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	server := redisserver.Start(t, kept)
	contract(t, config(server.Addr), []*redisserver.Server{server})
}

func TestAClusterOfThreeKeepsTheContract(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	cluster := redisserver.StartCluster(t, 3, 0, kept)
	contract(t, config(cluster.Addrs()...), cluster.Servers)
}

func TestAPrimaryUnderSentinelsKeepsTheContract(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	sentinel := redisserver.StartSentinel(t, 0, kept)
	cfg := config(sentinel.Addrs()...)
	cfg.Redis.Master = sentinel.Master
	contract(t, cfg, sentinel.Servers)
}
