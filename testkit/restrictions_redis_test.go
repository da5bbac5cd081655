package testkit_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/testkit"
	"github.com/opencapture/capture/testkit/redisserver"
)

// routingSource is a source of rules as GET /admin/routing shows it.
type routingSource struct {
	Source, State string
	Rules         int
	Sessions      int
	BrokenRules   int `json:"broken_rules"`
}

func sourceOf(t *testing.T, service *testkit.Service, name string) routingSource {
	t.Helper()
	var status struct{ Sources []routingSource }
	require.NoError(t, json.Unmarshal([]byte(service.Admin("/admin/routing").Body), &status))
	for _, source := range status.Sources {
		if source.Source == name {
			return source
		}
	}
	t.Fatalf("there is no source %q", name)
	return routingSource{}
}

// Two nodes on one real Redis, which is PostHog's as well: rules hold on both, whoever has written them, and stay while
// Redis is away.
func TestRulesInARealRedisHoldOnAllNodes(t *testing.T) {
	redisserver.Integration(t)
	redis := redisserver.Start(t, redisserver.Options{})
	do := func(command ...string) {
		t.Helper()
		_, err := redis.Do(command...)
		require.NoError(t, err)
	}
	documents, err := filepath.Glob("../modules/routing/testdata/posthog/*.json")
	require.NoError(t, err)
	require.Len(t, documents, restriction.ActionCount)
	for _, path := range documents {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		do("SET", "event_ingestion_restriction_dynamic_config:"+strings.TrimSuffix(filepath.Base(path), ".json"),
			string(text))
	}
	do("ZADD", "ph:@posthog/capture-overflow/replay",
		strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10), "busy",
		strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10), "calm")

	var nodes []*testkit.Service
	var sinks []*testkit.Sink
	var records store.Records
	for range 2 {
		sink := testkit.NewSink()
		sinks = append(sinks, sink)
		nodes = append(nodes, testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Populate(&records),
			testkit.Set("store.redis.addrs", redis.Addr), testkit.Set("store.posthog.addrs", redis.Addr),
			testkit.Set("store.posthog.prefix", "ph:"), testkit.Set("routing.rules_refresh", "1s"),
			testkit.Set("kafka.topics.custom", "first, second, third")))
	}
	send := func(node int, token, name string) (kept bool) {
		t.Helper()
		before := len(sinks[node].Events())
		response := nodes[node].Post("/e/", `{"api_key":"`+token+`","event":"`+name+`","distinct_id":"u","uuid":"`+
			uuid.NewString()+`"}`)
		require.Equal(t, 200, response.Status, response.Body)
		return len(sinks[node].Events()) > before
	}
	for i, node := range nodes {
		require.Equal(t, routingSource{Source: "posthog", State: "current", Rules: 10, Sessions: 1, BrokenRules: 3},
			sourceOf(t, node, "posthog"))
		require.False(t, send(i, "phc_gone", "any"), "PostHog's restriction")
		require.True(t, send(i, "phc_vip", "vip"))
		kept := sinks[i].Events()
		require.Equal(t, events.Routing{Topic: "third", Rule: "posthog/redirect_to_topic/2"}, kept[len(kept)-1].Routing)
	}

	// A rule of the service is told to all nodes, one by hand is found, and a broken one takes none along.
	require.NoError(t, records.Put(t.Context(), restriction.Kind, "told", nil,
		store.Fields{"token": "phc_told", "action": "drop"}))
	do("HSET", "capture:1:rule:{by-hand}", "token", "phc_hand", "action", "drop", "events", "spam")
	do("HSET", "capture:1:rule:{broken}", "token", "phc_broken", "action", "delete")
	for i, node := range nodes {
		node.Eventually("the rules are in force", func() bool {
			source := sourceOf(t, node, "store")
			return source == routingSource{Source: "store", State: "current", Rules: 2, BrokenRules: 1}
		})
		require.False(t, send(i, "phc_told", "any"))
		require.False(t, send(i, "phc_hand", "spam"))
		require.True(t, send(i, "phc_hand", "ham"))
		require.True(t, send(i, "phc_broken", "any"))
	}

	// A hung and a killed Redis change nothing, and no request fails.
	require.NoError(t, redis.Stop())
	for i := range nodes {
		require.False(t, send(i, "phc_told", "any"))
		require.True(t, send(i, "phc_other", "any"))
	}
	require.NoError(t, redis.Continue())
	do("DEL", "capture:1:rule:{by-hand}")
	for i, node := range nodes {
		node.Eventually("the rule is gone", func() bool { return sourceOf(t, node, "store").Rules == 1 })
		require.True(t, send(i, "phc_hand", "spam"))
	}
	redis.Kill()
	for i := range nodes {
		require.False(t, send(i, "phc_told", "any"))
		require.False(t, send(i, "phc_gone", "any"))
	}
	require.NoError(t, redis.Restart())
	for _, node := range nodes {
		node.Eventually("the empty Redis has no rules", func() bool { return sourceOf(t, node, "store").Rules == 0 })
	}
}
