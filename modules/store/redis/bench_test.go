//go:build linux

package redis_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/testkit/redisserver"
)

// cpu returns the processor time of this process so far. The server has a process of its own.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// measure runs f for each request of a benchmark, by so many callers at once, and reports the processor time of this
// process for each event, and that of the server.
func measure(b *testing.B, server *redisserver.Server, events, callers int, f func()) {
	b.Helper()
	busy := func() float64 {
		user, err := serverCPU(server)
		require.NoError(b, err)
		return user
	}
	b.SetParallelism(callers)
	servers := busy()
	began := cpu(b)
	b.ResetTimer()
	if callers == 1 {
		for range b.N {
			f()
		}
	} else {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				f()
			}
		})
	}
	b.StopTimer()
	n := float64(b.N) * float64(events)
	b.ReportMetric(float64((cpu(b)-began).Nanoseconds())/n, "client-ns/event")
	b.ReportMetric((busy()-servers)*1e9/n, "server-ns/event")
}

// serverCPU returns the processor time of the server in seconds.
func serverCPU(server *redisserver.Server) (total float64, err error) {
	info, err := server.Info("cpu")
	if err != nil {
		return 0, err
	}
	var system, user float64
	_, err = fmt.Sscanf(info, "# CPU\r\nused_cpu_sys:%f\r\nused_cpu_user:%f\r\n", &system, &user)
	return system + user, err
}

var salt atomic.Uint64

// fresh fills digests that nobody has had.
func fresh(d []store.Digest) {
	request := salt.Add(1)
	for i := range d {
		binary.LittleEndian.PutUint64(d[i][:], request)
		binary.LittleEndian.PutUint64(d[i][8:], uint64(i)|rand.Uint64()<<16)
	}
}

// BenchmarkDeduplication is all that a request costs of deduplication: it reserves its events and settles them.
func BenchmarkDeduplication(b *testing.B) {
	redisserver.Integration(b)
	server := redisserver.Start(b, redisserver.Options{})
	for _, events := range []int{1, 50} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("events=%d/callers=%d", events, callers), func(b *testing.B) {
				cfg := config(server.Addr)
				s := start(b, cfg)
				measure(b, server, events, callers, func() {
					d, claims := make([]store.Digest, events), make([]store.Claim, events)
					fresh(d)
					owner := store.Owner(rand.Uint64())
					if err := s.Reserve(context.Background(), "phc_token", owner, d, time.Minute, claims); err != nil {
						b.Error(err)
					}
					s.Settle("phc_token", owner, d, time.Minute, nil)
				})
			})
		}
	}
}

// BenchmarkReserve compares ways to reserve: the script with all digests in one argument, which is the one in use; the
// same with a key for each digest; and SET NX GET for each digest.
func BenchmarkReserve(b *testing.B) {
	redisserver.Integration(b)
	server := redisserver.Start(b, redisserver.Options{})
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr, Protocol: 2, DisableIdentity: true})
	b.Cleanup(func() { _ = client.Close() })
	const head, owner = "capture:1:dedup:{phc_token}:", "0123456789abcdef"
	keyed := goredis.NewScript(`
		local all = true
		for i, key in ipairs(KEYS) do
			if not redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) then all = false end
		end
		return all and 1 or 0`)
	require.NoError(b, keyed.Load(b.Context(), client).Err())
	ctx := b.Context()
	for _, events := range []int{1, 50} {
		b.Run(fmt.Sprintf("one-argument/events=%d", events), func(b *testing.B) {
			cfg := config(server.Addr)
			s := start(b, cfg)
			d, claims := make([]store.Digest, events), make([]store.Claim, events)
			measure(b, server, events, 1, func() {
				fresh(d)
				if err := s.Reserve(ctx, "phc_token", 1, d, time.Minute, claims); err != nil {
					b.Fatal(err)
				}
			})
		})
		b.Run(fmt.Sprintf("script-with-keys/events=%d", events), func(b *testing.B) {
			d, all := make([]store.Digest, events), make([]string, events)
			measure(b, server, events, 1, func() {
				fresh(d)
				for i := range d {
					all[i] = head + string(d[i][:])
				}
				if err := keyed.EvalSha(ctx, client, all, owner, 60_000).Err(); err != nil {
					b.Fatal(err)
				}
			})
		})
		b.Run(fmt.Sprintf("set-nx-get/events=%d", events), func(b *testing.B) {
			d := make([]store.Digest, events)
			measure(b, server, events, 1, func() {
				fresh(d)
				pipe := client.Pipeline()
				for i := range d {
					key := head + string(d[i][:])
					_ = pipe.Process(ctx, goredis.NewStringCmd(ctx, "set", key, owner, "nx", "get", "px", 60_000))
				}
				if _, err := pipe.Exec(ctx); err != nil && err != goredis.Nil { //nolint:errorlint // as it is returned
					b.Fatal(err)
				}
			})
		})
	}
}

// BenchmarkTake is a draw from three quotas and a rate of a token.
func BenchmarkTake(b *testing.B) {
	redisserver.Integration(b)
	server := redisserver.Start(b, redisserver.Options{})
	cfg := config(server.Addr)
	s := start(b, cfg)
	now := s.Now()
	var quotas []store.QuotaDraw
	for _, counter := range []string{"quota:events:minute", "quota:events:day", "quota:events:month"} {
		quotas = append(quotas, store.QuotaDraw{
			Counter: counter, Node: "node", Start: now.Add(-time.Hour), End: now.Add(time.Hour), Limit: 1 << 50,
			Unspent: 1 << 40, Need: 1, Extra: 10,
		})
	}
	rates := []store.RateDraw{{Counter: "rate:events", Interval: 1, Burst: 1 << 40, Need: 1, Extra: 10}}
	measure(b, server, 1, 1, func() {
		if err := s.Take(b.Context(), "phc_token", quotas, rates); err != nil {
			b.Fatal(err)
		}
		for i := range quotas {
			quotas[i].Granted = quotas[i].Given
		}
	})
}

// TestWhatADigestTakesInRedis is where docs/self-hosting.md has its numbers from.
func TestWhatADigestTakesInRedis(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	cfg := config(server.Addr)
	scope := tally.NewTestScope("", nil)
	s := open(t, cfg, scope)
	require.NoError(t, s.Start(t.Context()))
	before, err := server.InfoInt("memory", "used_memory")
	require.NoError(t, err)
	const requests, events = 1000, 100
	token := "phc_" + fmt.Sprintf("%043d", 0)
	d, claims := make([]store.Digest, events), make([]store.Claim, events)
	for range requests {
		fresh(d)
		require.NoError(t, s.Reserve(t.Context(), token, 1, d, time.Minute, claims))
		s.Settle(token, 1, d, time.Hour, nil)
	}
	now := s.Now()
	for i := range 10 {
		quotas := []store.QuotaDraw{{
			Counter: "quota:events:month:20261101", Node: fmt.Sprint("capture-", i), Start: now.Add(-time.Hour),
			End: now.Add(time.Hour), Limit: 1 << 30, Unspent: 1 << 20, Need: 1000, Extra: 100_000,
		}}
		rates := []store.RateDraw{{Counter: "rate:events", Interval: time.Second, Burst: 1000, Need: 10}}
		require.NoError(t, s.Take(t.Context(), "other"+token[:42], quotas, rates))
		for _, key := range []string{"quota:{other%s}:events:month:20261101", "rate:{other%s}:events"} {
			size, err := server.Do("MEMORY", "USAGE", "capture:1:"+fmt.Sprintf(key, token[:42]))
			require.NoError(t, err)
			t.Logf("%s: %d bytes with %d nodes", key, size, i+1)
			require.Less(t, parseInt(t, size), 1000.0)
		}
	}
	require.NoError(t, s.Stop(t.Context()))
	after, err := server.InfoInt("memory", "used_memory")
	require.NoError(t, err)
	each := float64(after-before) / requests / events
	t.Logf("%.0f bytes a digest", each)
	require.Less(t, each, 220.0)
	require.Greater(t, each, 100.0)
}
