//go:build linux

package redis_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/redis"
	"github.com/opencapture/capture/testkit/redisserver"
)

const lease = time.Minute

// reserve reserves a digest of its own for a token.
func reserve(s store.Store, token string) error {
	d := digests(1, rand.Uint64())
	claims := make([]store.Claim, 1)
	err := s.Reserve(context.Background(), token, store.Owner(rand.Uint64()), d, lease, claims)
	if err == nil && claims[0] != store.Reserved {
		return fmt.Errorf("claim %d", claims[0])
	}
	return err
}

// works waits until the store serves the token again.
func works(t testing.TB, s store.Store, token string) {
	t.Helper()
	var err error
	eventually(t, func() bool {
		err = reserve(s, token)
		return err == nil
	}, "%v", err)
}

// load calls a store from several goroutines without a pause, until end is called.
type load struct {
	group *panics.Group
	stop  atomic.Bool

	mu   sync.Mutex
	seen []seen
}

// seen is when one call has begun, and how it has ended.
type seen struct {
	at  time.Time
	err error
}

func newLoad(s store.Store, callers int, token func() string) *load {
	l := &load{group: panics.NewGroup(zap.NewNop())}
	for range callers {
		l.group.Go("a caller", func() {
			for !l.stop.Load() {
				began := time.Now()
				one := seen{began, reserve(s, token())}
				l.mu.Lock()
				l.seen = append(l.seen, one)
				l.mu.Unlock()
				time.Sleep(time.Millisecond) // a request comes now and then
			}
		})
	}
	return l
}

func (l *load) end() []seen {
	l.stop.Store(true)
	l.group.Wait()
	return l.seen
}

// calls waits until so many further calls have ended.
func (l *load) calls(t testing.TB, n int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.seen)
	}
	want := count() + n
	eventually(t, func() bool { return count() >= want })
}

// atOnce reports whether a call has failed without a round trip: the breaker was open.
func atOnce(err error) bool { return strings.Contains(err.Error(), "the breaker is open") }

// hasWaited reports whether a call has failed since no answer came, and not because a server has refused something.
func hasWaited(err error) bool {
	return !atOnce(err) && (strings.Contains(err.Error(), "timeout") || strings.Contains(err.Error(), "deadline") ||
		strings.Contains(err.Error(), "too many calls wait"))
}

// requireWaitsOnce checks what became of the calls while a server was away: those of one round trip have waited for it,
// and it had at most one call of each caller. The others have failed at once.
func requireWaitsOnce(t *testing.T, calls []seen, callers int, from, to time.Time) {
	t.Helper()
	failed, waited := 0, 0
	for _, call := range calls {
		if call.err == nil || call.at.Before(from) || call.at.After(to) {
			continue
		}
		require.ErrorIs(t, call.err, store.ErrUnavailable)
		failed++
		if hasWaited(call.err) {
			waited++
		}
	}
	t.Logf("%d calls failed, %d waited", failed, waited)
	require.NotZero(t, failed)
	require.LessOrEqual(t, waited, callers, "nobody waits twice")
}

func TestNobodyWaitsTwiceForAServerThatHangs(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	s := start(t, config(server.Addr))
	const callers = 8
	l := newLoad(s, callers, func() string { return "token" })
	l.calls(t, 100)
	hung := time.Now()
	require.NoError(t, server.Stop())
	eventually(t, func() bool { return !s.Status().Reachable })
	l.calls(t, 1000)
	status := s.Status()
	require.NotEmpty(t, status.Trouble())
	require.WithinRange(t, *status.Parts[0].BreakerOpenSince, hung, time.Now())
	back := time.Now()
	require.NoError(t, server.Continue())
	works(t, s, "token")
	requireWaitsOnce(t, l.end(), callers, hung, back)
	require.True(t, s.Status().Reachable)
}

func TestNobodyWaitsForAServerThatWasKilled(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	s := start(t, config(server.Addr))
	const callers = 8
	l := newLoad(s, callers, func() string { return "token" })
	l.calls(t, 100)
	killed := time.Now()
	server.Kill()
	l.calls(t, 1000)
	back := time.Now()
	require.NoError(t, server.Restart())
	works(t, s, "token")
	requireWaitsOnce(t, l.end(), callers, killed, back)
}

func TestAServiceStartsWhileRedisIsAway(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	server.Kill()
	s := start(t, config(server.Addr))
	require.False(t, s.Status().Reachable)
	err := reserve(s, "token")
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.True(t, atOnce(err), "%v", err)
	require.NoError(t, server.Restart())
	works(t, s, "token")

	cluster := start(t, config("127.0.0.1:1", "127.0.0.1:2"))
	require.False(t, cluster.Status().Reachable)
	err = reserve(cluster, "token")
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "the servers of the Redis Cluster are not known", "nobody is asked")
	cluster.Settle("token", 1, digests(1, 1), time.Minute, nil)
	require.EqualValues(t, 1, cluster.Status().Waiting)
	require.ErrorContains(t, cluster.Stop(context.Background()), "Redis was not told of 1 digests")
}

func TestOnlyTheTokensOfAPrimaryThatIsAwayAreWithoutTheStore(t *testing.T) {
	redisserver.Integration(t)
	cluster := redisserver.StartCluster(t, 3, 1, redisserver.Options{})
	s := start(t, config(cluster.Addrs()[:2]...))
	var tokens []string
	for i := range 30 {
		tokens = append(tokens, fmt.Sprint("token", i))
		require.NoError(t, reserve(s, tokens[i]))
	}
	primary, err := cluster.PrimaryOf("capture:1:dedup:{token0}:")
	require.NoError(t, err)
	const callers = 4
	l := newLoad(s, callers, func() string { return "token0" })
	l.calls(t, 50)
	away := time.Now()
	primary.Kill()
	eventually(t, func() bool { return errors.Is(reserve(s, "token0"), store.ErrUnavailable) })
	other := 0
	for _, token := range tokens {
		if reserve(s, token) == nil {
			other++
		}
	}
	require.GreaterOrEqual(t, other, 10, "the other primaries serve")
	// What ends meanwhile is told to the replica that takes over.
	owner, d := store.Owner(7), digests(100, 7)
	s.Settle("token0", owner, d, time.Minute, nil)
	works(t, s, "token0")
	back := time.Now()
	requireWaitsOnce(t, l.end(), callers, away, back)
	claims := make([]store.Claim, len(d))
	require.NoError(t, s.Reserve(t.Context(), "token0", 8, d, lease, claims))
	for _, claim := range claims {
		require.Equal(t, store.Done, claim)
	}
	eventually(t, func() bool { return s.Status().Reachable && s.Status().Waiting == 0 })
	require.NoError(t, primary.Restart())
	require.NoError(t, cluster.Await())
	for _, token := range tokens {
		require.NoError(t, reserve(s, token))
	}
}

func TestSlotsThatMoveAreFollowed(t *testing.T) {
	redisserver.Integration(t)
	cluster := redisserver.StartCluster(t, 3, 0, redisserver.Options{})
	s := start(t, config(cluster.Addrs()...))
	from, err := cluster.PrimaryOf("capture:1:dedup:{token}:")
	require.NoError(t, err)
	to := cluster.Servers[0]
	if to == from {
		to = cluster.Servers[1]
	}
	ids := map[*redisserver.Server]string{}
	for _, server := range cluster.Servers {
		id, err := server.Do("CLUSTER", "MYID")
		require.NoError(t, err)
		ids[server] = id.(string)
	}
	slot, err := from.Do("CLUSTER", "KEYSLOT", "{token}")
	require.NoError(t, err)
	require.NoError(t, reserve(s, "token"))
	keys, err := from.Do("CLUSTER", "GETKEYSINSLOT", fmt.Sprint(slot), "1000")
	require.NoError(t, err)
	for _, key := range keys.([]any) {
		_, err := from.Do("DEL", key.(string))
		require.NoError(t, err)
	}
	for _, server := range []*redisserver.Server{to, from, cluster.Servers[2]} {
		_, err := server.Do("CLUSTER", "SETSLOT", fmt.Sprint(slot), "NODE", ids[to])
		require.NoError(t, err)
	}
	for range 100 {
		require.NoError(t, reserve(s, "token"), "the very first call is led on to the new server")
	}
	require.NoError(t, s.Put(t.Context(), "project", "token", nil, store.Fields{"a": "b"}))
	got, err := s.Get(t.Context(), "project", "token")
	require.NoError(t, err)
	require.Equal(t, store.Fields{"a": "b"}, got)
	require.True(t, s.Status().Reachable)
}

func TestAFailoverOfTheSentinelsIsFollowed(t *testing.T) {
	redisserver.Integration(t)
	sentinel := redisserver.StartSentinel(t, 1, redisserver.Options{})
	cfg := config(sentinel.Addrs()...)
	cfg.Redis.Master = sentinel.Master
	told := make(chan string, 1000)
	s := start(t, cfg, func(s store.Store) { s.Watch("project", func(name string) { told <- name }) })
	const callers = 4
	l := newLoad(s, callers, func() string { return "token" })
	l.calls(t, 50)
	for len(told) > 0 {
		<-told
	}
	away := time.Now()
	_, err := sentinel.Failover(t.Context())
	require.NoError(t, err)
	works(t, s, "token")
	requireWaitsOnce(t, l.end(), callers, away, time.Now())
	eventually(t, func() bool { return len(told) > 0 && <-told == "" })
	eventually(t, func() bool {
		name := fmt.Sprint("project", rand.Uint64())
		if s.Put(context.Background(), "project", name, nil, store.Fields{"a": "b"}) != nil {
			return false
		}
		for {
			select {
			case got := <-told:
				if got == name {
					return true
				}
			case <-time.After(100 * time.Millisecond):
				return false
			}
		}
	}, "the new primary tells of changes")
}

func TestADrawCountsOnlyWithItsReplicas(t *testing.T) {
	redisserver.Integration(t)
	sentinel := redisserver.StartSentinel(t, 1, redisserver.Options{})
	primary, err := sentinel.Primary()
	require.NoError(t, err)
	replica := sentinel.Servers[0]
	if replica == primary {
		replica = sentinel.Servers[1]
	}
	cfg := config(primary.Addr)
	cfg.Redis.Replicas = 1
	s := start(t, cfg)
	take := func() error {
		now := s.Now()
		return s.Take(context.Background(), "token", []store.QuotaDraw{{
			Counter: "quota:events", Node: "node", Start: now.Add(-time.Hour), End: now.Add(time.Hour), Limit: 1000,
			Need: 1,
		}}, nil)
	}
	require.NoError(t, take())
	used, err := replica.Do("HGET", "capture:1:quota:{token}:events", "used")
	require.NoError(t, err)
	require.Equal(t, "1", used)
	require.NoError(t, replica.Stop())
	require.ErrorIs(t, take(), store.ErrUnavailable)
	err = take()
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.True(t, atOnce(err), "nobody waits for a dead replica twice: %v", err)
	require.NoError(t, reserve(s, "token"), "what needs no replica goes on")
	require.NoError(t, replica.Continue())
	eventually(t, func() bool { return take() == nil })
}

func TestWhatEndsWhileRedisIsAwayIsToldLater(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, kept)
	cfg := config(server.Addr)
	cfg.Timeout = time.Second // a machine under load is no outage
	s, other := start(t, cfg), start(t, cfg)
	owner, d := store.Owner(1), digests(20_000, 1)
	claims := make([]store.Claim, 500)
	for at := 0; at < len(d); at += len(claims) {
		require.NoError(t, s.Reserve(t.Context(), "token", owner, d[at:at+len(claims)], lease, claims))
	}
	require.NoError(t, server.Stop())
	for at := 0; at < len(d); at += len(claims) {
		s.Settle("token", owner, d[at:at+400], lease, d[at+400:at+500])
	}
	require.EqualValues(t, len(d), s.Status().Waiting)
	require.NoError(t, server.Continue())
	works(t, s, "token")
	// The first call that succeeds sees all of it.
	for at := 0; at < len(d); at += len(claims) {
		require.NoError(t, s.Reserve(t.Context(), "token", 2, d[at:at+len(claims)], lease, claims))
		for i, claim := range claims {
			require.Equal(t, i < 400, claim == store.Done, i)
		}
	}
	eventually(t, func() bool { return s.Status().Waiting == 0 })
	require.NoError(t, other.Reserve(t.Context(), "token", 3, d[:500], lease, claims))
	require.Equal(t, store.Done, claims[0])
	require.Zero(t, s.Status().GivenUp)
}

func TestWhatFindsNoRoomOrLivesTooLongIsGivenUpAndCounted(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	cfg := config(server.Addr)
	cfg.Redis.Queue = 64 << 10
	scope := tally.NewTestScope("", nil)
	s := open(t, cfg, scope)
	require.NoError(t, s.Start(t.Context()))
	server.Kill()
	eventually(t, func() bool { return !s.Status().Reachable })
	d := digests(100_000, 1)
	for at := 0; at < len(d); at += 100 {
		s.Settle("token", 1, d[at:at+100], lease, nil)
	}
	waiting, lost := s.Status().Waiting, s.Status().GivenUp
	require.EqualValues(t, len(d), waiting+lost)
	require.Greater(t, waiting, int64(3000))
	require.Less(t, waiting, int64(5000), "64 KiB hold no more")
	eventually(t, func() bool {
		for name, counter := range scope.Snapshot().Counters() {
			if name == "settlements_given_up_total+" {
				return counter.Value() == lost
			}
		}
		return false
	})
	require.ErrorContains(t, s.Stop(t.Context()), fmt.Sprintf("Redis was not told of %d digests", waiting))
}

func TestTheStopTellsWhatHasEnded(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	s, other := start(t, config(server.Addr)), start(t, config(server.Addr))
	d := digests(5000, 1)
	for at := 0; at < len(d); at += 100 {
		s.Settle(fmt.Sprint("token", at%1000), 1, d[at:at+100], lease, nil)
	}
	require.NoError(t, s.Stop(t.Context()))
	claims := make([]store.Claim, 100)
	for at := 0; at < len(d); at += 100 {
		require.NoError(t, other.Reserve(t.Context(), fmt.Sprint("token", at%1000), 2, d[at:at+100], lease, claims))
		require.Equal(t, store.Done, claims[99])
	}
	require.ErrorIs(t, reserve(s, "token"), store.ErrUnavailable)
}

// A stop tells a server that did not answer at first.
func TestTheStopTriesAgain(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	scope := tally.NewTestScope("", nil)
	s := open(t, config(server.Addr), scope)
	d := digests(1, 1)
	s.Settle("token", 1, d, time.Hour, nil)
	require.NoError(t, server.Stop())
	told := make(chan error, 1)
	go func() { told <- redis.SettleAll(t.Context(), s) }()
	eventually(t, func() bool {
		failures := int64(0)
		for name, counter := range scope.Snapshot().Counters() {
			if strings.Contains(name, "fail") {
				failures += counter.Value()
			}
		}
		return failures > 0
	})
	require.NoError(t, server.Continue())
	require.NoError(t, <-told)
	require.Zero(t, s.Status().Waiting)
	other, claims := start(t, config(server.Addr)), make([]store.Claim, 1)
	require.NoError(t, other.Reserve(t.Context(), "token", 2, d, lease, claims))
	require.Equal(t, store.Done, claims[0])
	require.NoError(t, s.Stop(t.Context()))
}

func TestTheStopTellsAServerAlsoIfOthersHang(t *testing.T) {
	redisserver.Integration(t)
	cluster := redisserver.StartCluster(t, 3, 0, redisserver.Options{})
	s, other := start(t, config(cluster.Addrs()...)), start(t, config(cluster.Addrs()...))
	serves, err := cluster.PrimaryOf("capture:1:dedup:{token0}:")
	require.NoError(t, err)
	d, here := digests(10, 1), []string(nil)
	for i := range 30 {
		token := fmt.Sprint("token", i)
		primary, err := cluster.PrimaryOf("capture:1:dedup:{" + token + "}:")
		require.NoError(t, err)
		if primary == serves {
			here = append(here, token)
		}
	}
	for _, server := range cluster.Servers {
		if server != serves {
			require.NoError(t, server.Stop())
		}
	}
	for i := range 30 {
		s.Settle(fmt.Sprint("token", i), 1, d, lease, nil)
	}
	require.ErrorContains(t, s.Stop(t.Context()), "Redis was not told of")
	claims := make([]store.Claim, len(d))
	for _, token := range here {
		require.NoError(t, other.Reserve(t.Context(), token, 2, d, lease, claims))
		require.Equal(t, store.Done, claims[0])
	}
	for _, server := range cluster.Servers {
		require.NoError(t, server.Continue())
	}
}

func TestScriptsThatRedisHasForgottenAreSentAgain(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	s := start(t, config(server.Addr))
	d, claims := digests(1, 1), make([]store.Claim, 1)
	require.NoError(t, s.Reserve(t.Context(), "token", 1, d, lease, claims))
	_, err := server.Do("SCRIPT", "FLUSH")
	require.NoError(t, err)
	s.Settle("token", 1, nil, lease, d)
	require.NoError(t, s.Reserve(t.Context(), "token", 2, d, lease, claims))
	require.Equal(t, store.Reserved, claims[0], "what was settled before counts")
	_, err = server.Do("SCRIPT", "FLUSH")
	require.NoError(t, err)
	rates := []store.RateDraw{{Counter: "rate:events", Interval: time.Hour, Burst: 10, Need: 4}}
	require.NoError(t, s.Take(t.Context(), "token", nil, rates))
	require.EqualValues(t, 4, rates[0].Given)
	require.EqualValues(t, 6, rates[0].Left)
	require.True(t, s.Status().Reachable)
}

// A counter takes no more of Redis for the accounts that a node has opened and forgotten.
func TestACounterKeepsOneAccountForEachNode(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	server := redisserver.Start(t, redisserver.Options{})
	s := start(t, config(server.Addr))
	now := s.Now()
	for number := range uint64(200) {
		for _, node := range []string{"a", "b"} {
			quotas := []store.QuotaDraw{{
				Counter: "quota:events", Node: node, Account: number, Limit: 1000, Need: 2,
				Start: now.Add(-time.Hour), End: now.Add(time.Hour),
			}}
			require.NoError(t, s.Take(t.Context(), "token", quotas, nil))
			require.EqualValues(t, 2, quotas[0].Given)
		}
	}
	fields, err := server.Do("HGETALL", "capture:1:quota:{token}:events")
	require.NoError(t, err)
	require.ElementsMatch(t, []any{
		"used", "800", "held", "0", "n:a", "199:2:0:0", "n:b", "199:2:0:0",
	}, fields)
	for _, account := range []uint64{1 << 50, 1<<50 + 1} {
		quotas := []store.QuotaDraw{{
			Counter: "quota:events", Node: "a", Account: account, Start: now.Add(-time.Hour), End: now.Add(time.Hour),
		}}
		err := s.Take(t.Context(), "token", quotas, nil)
		require.Equal(t, account > 1<<50, err != nil, err)
	}
}

// acl is what docs/self-hosting.md tells operators to allow.
const acl = "capture on >first resetkeys ~capture:1:* resetchannels &capture:1:* nocommands +@connection +evalsha " +
	"+eval +script|load +set +get +del +pexpire +pttl +hget +hset +hlen +hmget +hgetall +zadd +zrange " +
	"+zremrangebyscore +pexpireat +time +wait +scan +publish +subscribe +cluster|slots +command"

func TestALoginWithTheDocumentedRightsOverTLSIsEnough(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{TLS: true, Users: []string{acl}})
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
	cfg := config(server.Addr)
	cfg.Redis.Username, cfg.Redis.PasswordFile = "capture", file
	cfg.Redis.TLS.Enabled, cfg.Redis.TLS.CAFile = true, server.CAFile
	told := make(chan string, 10)
	s := start(t, cfg, func(s store.Store) { s.Watch("project", func(name string) { told <- name }) })
	ctx := t.Context()
	require.NoError(t, reserve(s, "token"))
	d := digests(2, 1)
	s.Settle("token", 1, d[:1], lease, d[1:])
	now := s.Now()
	quotas := []store.QuotaDraw{{
		Counter: "quota:events", Node: "node", Start: now.Add(-time.Hour), End: now.Add(time.Hour), Limit: 10, Need: 1,
	}}
	require.NoError(t, s.Take(ctx, "token", quotas, []store.RateDraw{{Counter: "rate:events", Interval: 1, Burst: 1}}))
	_, err := s.Adjust(ctx, "token", "quota:events", 1)
	require.NoError(t, err)
	usage, err := s.Usage(ctx, "token")
	require.NoError(t, err)
	require.EqualValues(t, 2, usage["quota:events"].Used)
	require.NoError(t, s.Put(ctx, "project", "token", nil, store.Fields{"a": "b"}))
	_, err = s.Get(ctx, "project", "token")
	require.NoError(t, err)
	names, err := s.List(ctx, "project", "", 10)
	require.NoError(t, err)
	require.Equal(t, []string{"token"}, names)
	eventually(t, func() bool { return <-told == "token" })
	eventually(t, func() bool { return s.Status().Waiting == 0 })

	// The password changes while the service runs: new connections use the new one.
	_, err = server.Do("ACL", "SETUSER", "capture", "<first", ">second")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte("second\n"), 0o600))
	_, err = server.Do("CLIENT", "KILL", "USER", "capture")
	require.NoError(t, err)
	works(t, s, "token")
	require.NoError(t, os.WriteFile(file, []byte("wrong\n"), 0o600))
	_, err = server.Do("CLIENT", "KILL", "USER", "capture")
	require.NoError(t, err)
	eventually(t, func() bool {
		return errors.Is(reserve(s, "token"), store.ErrUnavailable) &&
			strings.Contains(s.Status().Trouble(), "WRONGPASS")
	})

	cfg.Redis.TLS.CAFile = ""
	stranger := start(t, cfg)
	eventually(t, func() bool { return strings.Contains(stranger.Status().Trouble(), "certificate") })
}

func TestTheClockIsTheServers(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	s := start(t, config(server.Addr))
	ask := func() time.Time {
		reply, err := server.Do("TIME")
		require.NoError(t, err)
		return time.Unix(int64(parseInt(t, reply.([]any)[0])), 0)
	}
	before := ask()
	now := s.Now()
	require.WithinRange(t, now, before.Add(-time.Second), ask().Add(2*time.Second))
}

func TestPostHogsRedisMayTakeAsLongAsIsConfigured(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	server := redisserver.Start(t, redisserver.Options{})
	cfg := config(server.Addr)
	cfg.PostHog.Addrs, cfg.PostHog.Timeout = []string{server.Addr}, time.Minute
	s := start(t, cfg)
	_, err := server.Do("SET", "text", "x")
	require.NoError(t, err)
	_, err = server.Do("LPUSH", "list", "x")
	require.NoError(t, err)
	require.NoError(t, second(s.Strings(t.Context(), "a", "text")))
	for what, err := range map[string]error{
		"a list as a text": second(s.Strings(t.Context(), "text", "list")),
		"a text as a set":  second(s.SortedSet(t.Context(), "text", time.Now())),
	} {
		require.Error(t, err, what)
		require.NotErrorIs(t, err, store.ErrUnavailable, "%s: Redis has answered", what)
	}
	require.NoError(t, server.Stop())
	read := make(chan error, 1)
	go func() { read <- second(s.Strings(context.Background(), "a")) }()
	select {
	case err := <-read:
		require.NoError(t, err)
		t.Fatal("the server hangs")
	case <-time.After(1500 * time.Millisecond): // longer than any other answer may take
	}
	require.NoError(t, server.Continue())
	require.NoError(t, <-read)
}

func second[T any](_ T, err error) error { return err }

func TestACallEndsWithItsContext(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	s := start(t, config(server.Addr))
	claims := make([]store.Claim, 1)
	call := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return s.Reserve(ctx, "token", 1, digests(1, 1), lease, claims)
	}
	eventually(t, func() bool { return call(500*time.Millisecond) == nil })
	require.Equal(t, store.Reserved, claims[0])
	require.NoError(t, server.Stop())
	err := call(20 * time.Millisecond)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded, "it does not wait for the round trip")
	require.NoError(t, server.Continue())
}
