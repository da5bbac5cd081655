package testkit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
)

func TestTheOperatorsRulesDecideWhereEventsGo(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink),
		testkit.Set("routing.drop", "phc_gone, phc_a:spammer"),
		testkit.Set("routing.overflow", "phc_a:hot"),
		testkit.Set("routing.skip_person", "phc_a:bot"),
		testkit.Set("routing.dlq", "phc_a:bad"),
		testkit.Set("routing.topics", "phc_vip=vip_events"), testkit.Set("kafka.topics.custom", "vip_events"),
		testkit.Set("routing.historical_after", "24h"),
	)
	old := time.Now().Add(-25 * time.Hour).UTC().Format(time.RFC3339)
	for _, body := range []string{
		`{"api_key":"phc_gone","event":"gone","distinct_id":"u"}`,
		`{"api_key":"phc_vip","event":"vip","distinct_id":"u"}`,
		`{"api_key":"phc_vip","event":"$$heatmap","distinct_id":"u"}`,
		`{"api_key":"phc_a","batch":[
			{"event":"spam","distinct_id":"spammer"},
			{"event":"hot","distinct_id":"hot"},
			{"event":"$exception","distinct_id":"hot"},
			{"event":"bot","distinct_id":"bot"},
			{"event":"bad","distinct_id":"bad"},
			{"event":"old","distinct_id":"u","timestamp":"` + old + `"},
			{"event":"plain","distinct_id":"u"}]}`,
	} {
		response := service.Post("/batch/", body)
		require.Equal(t, 200, response.Status, response.Body)
	}
	type way struct {
		lane    events.Lane
		routing events.Routing
	}
	ways := map[string]way{}
	for _, event := range sink.Events() {
		ways[event.Name] = way{event.Lane, event.Routing}
	}
	require.Equal(t, map[string]way{
		"vip":       {routing: events.Routing{Topic: "vip_events", Rule: "config/topics/1"}},
		"$$heatmap": {lane: events.LaneHeatmaps},
		"hot": {routing: events.Routing{
			Overflow: true, Unkeyed: true, SkipPerson: true, Rule: "config/overflow/1",
		}},
		"$exception": {lane: events.LaneExceptions},
		"bot":        {routing: events.Routing{SkipPerson: true, Rule: "config/skip_person/1"}},
		"bad":        {routing: events.Routing{DLQ: "event_restriction", Rule: "config/dlq/1"}},
		"old":        {lane: events.LaneHistorical},
		"plain":      {},
	}, ways)
	require.Equal(t, 2, metric(t, service.Admin("/metrics").Body, `capture_events_dropped_total\{reason="rule"\}`))
}

func TestEveryTopicIsReadOnceAlsoOnesThatRulesChoose(t *testing.T) {
	vip, rest := "vip-"+uuid.NewString(), "rest-"+uuid.NewString()
	service := testkit.Start(t,
		testkit.Set("routing.topics", "phc_vip="+vip), testkit.Set("kafka.topics.custom", vip),
		testkit.Set("kafka.topics.events", rest), testkit.Set("kafka.topics.exceptions", rest))
	require.Equal(t, 200, service.Post("/batch/", `{"api_key":"phc_vip","event":"vip","distinct_id":"u"}`).Status)
	require.Equal(t, 200, service.Post("/batch/", `{"api_key":"phc_a","event":"a","distinct_id":"u"}`).Status)
	require.Equal(t, 200, service.Post("/batch/", `{"api_key":"phc_a","event":"$exception","distinct_id":"u"}`).Status)
	var found []string
	for _, message := range service.Messages() {
		found = append(found, message.Topic+" "+message.Envelope.Event)
	}
	require.ElementsMatch(t, []string{vip + " vip", rest + " a", rest + " $exception"}, found)
}

func TestInImportModeOnlyMigrationsAreTaken(t *testing.T) {
	service := testkit.Start(t, testkit.Set("routing.historical_only", "true"))
	require.Equal(t, 200, service.Post("/batch/", `{"api_key":"k","batch":[{"event":"new","distinct_id":"u"}]}`).Status)
	require.Equal(t, 200, service.Post("/batch/",
		`{"api_key":"k","historical_migration":true,"batch":[{"event":"old","distinct_id":"u"}]}`).Status)
	messages := service.Messages()
	require.Len(t, messages, 1)
	require.Equal(t, "old", messages[0].Envelope.Event)
	require.True(t, strings.HasSuffix(messages[0].Topic, "historical_events"), messages[0].Topic)
	require.Equal(t, 1, metric(t, service.Admin("/metrics").Body,
		`capture_events_dropped_total\{reason="not_historical"\}`))
}
