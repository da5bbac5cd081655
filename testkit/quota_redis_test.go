//go:build linux

package testkit_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
	"github.com/opencapture/capture/testkit/redisserver"
)

// Two nodes share a quota in a real Redis, which is killed and started again under load: to the event, no more than the
// quota is stored, and in the end all of it. PostHog's own limits are in the same Redis.
func TestNodesShareAQuotaInRedis(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{AppendOnly: true})
	sink, dir := testkit.NewSink(), t.TempDir()
	node := func(i int) *testkit.Service {
		return testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("store.redis.addrs", server.Addr),
			testkit.Set("store.posthog.addrs", server.Addr), testkit.Set("quota.quotas", "events=20000/month"),
			testkit.Set("quota.dir", fmt.Sprintf("%s/%d", dir, i)), testkit.Set("quota.on_store_failure", "closed"),
			testkit.Set("dedup.window", "0s"), testkit.Set("store.breaker.pause", "100ms"),
			testkit.Set("store.timeout", "1s")) // a busy machine is no outage
	}
	hour := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	_, err := server.Do("ZADD", "@posthog/quota-limits/events", hour, "phc_billed")
	require.NoError(t, err)
	nodes := []*testkit.Service{node(0), node(1)}
	require.Equal(t, `{"status":"Ok","quota_limited":["events"]}`,
		nodes[0].Post("/batch", someEvents("phc_billed", 2)).Body)

	var failed atomic.Int64
	var workers sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 4 {
		workers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				response, err := nodes[worker%2].TryRequest("POST", "/batch", someEvents("phc_a", 1+(worker+i)%5))
				if err != nil || response.Status != 200 {
					failed.Add(1)
				}
			}
		})
	}
	stored := func(n int) func() bool { return func() bool { return len(sink.Events()) >= n } }
	nodes[0].Eventually("events are stored", stored(1000))
	server.Kill()
	nodes[0].Eventually("requests fail without Redis", func() bool { return failed.Load() > 0 })
	before := len(sink.Events())
	require.NoError(t, server.Restart())
	nodes[0].Eventually("events are stored again", stored(min(before+1000, 20_000)))
	close(stop)
	workers.Wait()
	require.LessOrEqual(t, len(sink.Events()), 20_000)

	// A stop gives back what the node holds, and the other one uses it up.
	for i, node := range nodes {
		node.Eventually("Redis answers the node", func() bool {
			return node.Post("/batch", someEvents(fmt.Sprint("phc_b", i), 1)).Status == 200
		})
	}
	require.NoError(t, nodes[0].Stop())
	const others = 2 // those of phc_b
	for last := -1; last < len(sink.Events()); {
		last = len(sink.Events())
		require.Equal(t, 200, nodes[1].Post("/batch", someEvents("phc_a", 500)).Status)
	}
	require.Len(t, sink.Events(), 20_000+others)
}

// Two nodes count a user together in a real Redis, however often the requests change nodes, and each of them lets an
// eighth pass beside that: what docs/limits.md promises, to the event. A node that is started anew has forgotten what
// it let pass, and counts as a further one. Other users, and the same user of another project, are not limited by that.
func TestNodesCountAUserTogetherInRedis(t *testing.T) {
	redisserver.Integration(t)
	server := redisserver.Start(t, redisserver.Options{})
	sink, dir := testkit.NewSink(), t.TempDir()
	var nodes []*testkit.Service
	node := func() *testkit.Service {
		nodes = append(nodes, testkit.Start(t, testkit.Override[events.Sink](sink),
			testkit.Set("store.redis.addrs", server.Addr), testkit.Set("store.timeout", "1s"),
			testkit.Set("quota.user_rates", "events=1/h burst=16, exceptions=1/h burst=7"),
			testkit.Set("quota.over", "drop"), testkit.Set("quota.on_store_failure", "closed"),
			testkit.Set("quota.dir", fmt.Sprintf("%s/%d", dir, len(nodes))), testkit.Set("dedup.window", "0s")))
		return nodes[len(nodes)-1]
	}
	send := func(node *testkit.Service, token, user, event string, n int) (passed int) {
		t.Helper()
		before := len(sink.Events())
		one := fmt.Sprintf(`{"event":%q,"distinct_id":%q}`, event, user)
		body := fmt.Sprintf(`{"api_key":%q,"batch":[%s]}`, token, one+strings.Repeat(","+one, n-1))
		// On a machine that is busy enough, the store may count as away for a while.
		node.Eventually("the node answers", func() bool { return node.Post("/batch", body).Status == 200 })
		return len(sink.Events()) - before
	}
	// No more than want have passed, and no fewer, unless an answer of Redis has been lost with what it had granted.
	exactly := func(want, got int, what string) {
		t.Helper()
		require.LessOrEqual(t, got, want, what)
		for _, node := range nodes {
			if strings.Contains(node.Admin("/metrics").Body, `capture_quota_draws_total{outcome="failed"}`) {
				return
			}
		}
		require.Equal(t, want, got, what)
	}
	node()
	node()
	for _, limit := range []struct {
		event     string
		all, cold int // what the nodes let pass together, and each of them beside that
	}{{"signed up", 16, 2}, {"$exception", 7, 0}} {
		passed := 0
		for i := range 12 {
			passed += send(nodes[i%2], "phc_a", "busy", limit.event, 3)
		}
		exactly(limit.all+2*limit.cold, passed, limit.event)
		exactly(limit.all+limit.cold, send(nodes[0], "phc_b", "busy", limit.event, 40), limit.event)
		exactly(5, send(nodes[1], "phc_a", "calm", limit.event, 5), limit.event)
	}
	require.NoError(t, nodes[0].Stop())
	nodes = nodes[1:]
	exactly(2, send(node(), "phc_a", "busy", "signed up", 40), "a node that is started anew")
}
