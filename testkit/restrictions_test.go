package testkit_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/testkit"
)

// inForce waits until the node has so many rules of the shared state in force.
func inForce(t *testing.T, service *testkit.Service, rules int) {
	t.Helper()
	service.Eventually("the rules are in force", func() bool {
		var status struct {
			Sources []struct {
				Source string `json:"source"`
				Rules  int    `json:"rules"`
			} `json:"sources"`
		}
		if err := json.Unmarshal([]byte(service.Admin("/admin/routing").Body), &status); err != nil {
			return false
		}
		for _, source := range status.Sources {
			if source.Source == "store" {
				return source.Rules == rules
			}
		}
		return false
	})
}

func TestRulesOfTheSharedStateHoldWhileTheServiceRuns(t *testing.T) {
	var records store.Records
	service := testkit.Start(t, testkit.Populate(&records), testkit.Set("kafka.topics.custom", "orders"),
		testkit.Set("warnings.enabled", "true"), testkit.Set("warnings.rules", "true"))
	for name, fields := range map[string]store.Fields{
		"no-spam": {"token": "phc_a", "action": "drop", "events": "spam", "distinct_ids": "u1, u2"},
		"aside":   {"token": "phc_a", "action": "dlq", "sessions": "s-1"},
		"orders":  {"token": "phc_a", "action": "topic", "topic": "orders", "events": "order completed"},
	} {
		require.NoError(t, records.Put(t.Context(), restriction.Kind, name, nil, fields))
	}
	inForce(t, service, 3)
	response := service.Post("/batch/", `{"api_key":"phc_a","batch":[
		{"event":"spam","distinct_id":"u1"},
		{"event":"spam","distinct_id":"u3"},
		{"event":"bad","distinct_id":"u1","properties":{"$session_id":"s-1"}},
		{"event":"order completed","distinct_id":"u1"}]}`)
	require.Equal(t, 200, response.Status, response.Body)
	service.Eventually("the messages are there", func() bool { return len(service.Messages()) == 4 })
	found := map[string]string{}
	for _, message := range service.Messages() {
		found[message.Envelope.Event] = message.Topic + " " + message.Headers["dlq_reason"] + " " +
			message.Headers["dlq_rule"]
		if message.Envelope.Event == "$$client_ingestion_warning" {
			require.Contains(t, string(message.Envelope.Data), `"rule":"store/no-spam"`)
		}
	}
	require.Contains(t, found["spam"], "clickhouse_events")
	require.Contains(t, found["bad"], "events_dlq event_restriction store/aside")
	require.Contains(t, found["order completed"], "orders  ")
	require.Contains(t, found, "$$client_ingestion_warning")
	require.Equal(t, 1, metric(t, service.Admin("/metrics").Body, `capture_events_dropped_total\{reason="rule"\}`))
	service.Eventually("the rules are counted", func() bool {
		return metric(t, service.Admin("/metrics").Body, `capture_routing_applied_total\{action="drop"\}`) == 1
	})
	shown := service.Admin("/admin/routing?token=phc_a").Body
	require.Contains(t, shown, `{"rule":"store/no-spam","fields":{"action":"drop","distinct_ids":"u1, u2",`+
		`"events":"spam","token":"phc_a"},"events":1}`)

	fields, err := records.Get(t.Context(), restriction.Kind, "no-spam")
	require.NoError(t, err)
	require.NoError(t, records.Put(t.Context(), restriction.Kind, "no-spam", fields, nil))
	inForce(t, service, 2)
	require.Equal(t, 200, service.Post("/e/", `{"api_key":"phc_a","event":"spam","distinct_id":"u1"}`).Status)
	service.Eventually("the event is kept", func() bool { return len(service.Messages()) == 5 })
}
