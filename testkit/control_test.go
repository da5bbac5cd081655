package testkit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/opencapture/capture/modules/control"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/testkit"
)

// An operator's change holds for the next events, and every answer is one that the document describes.
func TestWhatOperatorsChangeHoldsForTheNextEvents(t *testing.T) { changed(t) }

// changed makes all kinds of changes in a service with these settings.
func changed(t *testing.T, options ...testkit.Option) {
	sink := testkit.NewSink()
	audited := filepath.Join(t.TempDir(), "audit.jsonl")
	service := testkit.Start(t, append(options, testkit.Override[events.Sink](sink),
		testkit.Set("admin.audit.file", audited))...)
	o := &documented{service, describe(t, service)}
	const project, quotas = "/admin/projects/{token}", "/admin/projects/{token}/quotas"
	const quota = quotas + "/{resource}/{period}"
	token := []string{"phc_{*}/?#"}
	send := func() (status int) {
		// While the shared state does not answer, events fail, and count against nothing.
		service.Eventually("the event to be judged", func() bool {
			status = service.Post("/capture/", `{"api_key":"phc_{*}/?#","event":"a","distinct_id":"u"}`).Status
			return status != 503
		})
		return status
	}
	asJSON := []string{"Content-Type", "application/json"}
	fresh := append([]string{"If-None-Match", "*"}, asJSON...)
	require.Equal(t, 200, send())
	require.Len(t, sink.Events(), 1)

	require.Equal(t, 404, o.ask(t, "GET", project, token, "", "").status)
	disabled := `{"fields":{"name":"Shop","enabled":"false"}}`
	require.Equal(t, 428, o.ask(t, "PUT", project, token, "", disabled, asJSON...).status)
	require.Equal(t, 422, o.ask(t, "PUT", project, token, "", `{"fields":{"zone":"Mars"}}`, fresh...).status)
	require.Equal(t, 400, o.ask(t, "PUT", project, token, "", `{"field":{}}`, fresh...).status)
	asText := []string{"If-None-Match", "*", "Content-Type", "text/plain"}
	require.Equal(t, 415, o.ask(t, "PUT", project, token, "", disabled, asText...).status)
	require.Equal(t, 413, o.ask(t, "PUT", project, token, "", strings.Repeat(" ", 1<<20+1), fresh...).status)
	made := o.ask(t, "PUT", project, token, "", disabled, fresh...)
	require.Equal(t, 201, made.status)
	tag := made.answered.Get("Etag")
	require.Equal(t, 200, o.ask(t, "GET", project, token, "", "").status)
	service.Eventually("the disabled project to be refused", func() bool { return send() == 403 })

	// The project may send three events a day.
	enabled := `{"fields":{"name":"Shop","quotas":"events=3/day"}}`
	require.Equal(t, 412, o.ask(t, "PUT", project, token, "", enabled, fresh...).status)
	changed := o.ask(t, "PUT", project, token, "", enabled, append([]string{"If-Match", tag}, asJSON...)...)
	require.Equal(t, 200, changed.status)
	service.Eventually("the project to be admitted", func() bool { return send() == 200 })
	kept := func() int { return len(sink.Events()) }
	for range 5 {
		require.Equal(t, 200, send(), "events over a quota are dropped")
	}
	require.Equal(t, 1+3, kept())
	shown := func() (limits control.Limits) {
		x := o.ask(t, "GET", quotas, token, "", "")
		require.Equal(t, 200, x.status, x.answer)
		require.NoError(t, json.Unmarshal([]byte(x.answer), &limits))
		return limits
	}
	limits := shown()
	require.True(t, limits.Own)
	require.Len(t, limits.Quotas, 1)
	require.Equal(t, int64(3), limits.Quotas[0].Used-limits.Quotas[0].Held)
	require.Zero(t, limits.Quotas[0].Remaining)

	// What is given back may be sent.
	day := append(token, "events", "day")
	refunded := o.ask(t, "POST", quota+"/refund", day, "", `{"events":2}`, asJSON...)
	require.Equal(t, 200, refunded.status, refunded.answer)
	service.Eventually("two more events", func() bool { send(); return kept() == 1+3+2 })
	require.Equal(t, 200, o.ask(t, "POST", quota+"/reset", day, "", "").status)
	service.Eventually("three more events", func() bool { send(); return kept() == 1+3+2+3 })
	send()
	require.Equal(t, 1+3+2+3, kept())
	require.Equal(t, 422, o.ask(t, "POST", quota+"/refund", day, "", `{}`, asJSON...).status)
	hour := append(token, "events", "hour")
	require.Equal(t, 404, o.ask(t, "POST", quota+"/reset", hour, "", "").status)

	// A quota is set alone.
	tag = o.ask(t, "GET", quotas, token, "", "").answered.Get("Etag")
	matching := append([]string{"If-Match", tag}, asJSON...)
	require.Equal(t, 422, o.ask(t, "PUT", quota, hour, "", `{"limit":-1}`, matching...).status)
	require.Equal(t, 428, o.ask(t, "PUT", quota, hour, "", `{"limit":1}`, asJSON...).status)
	set := o.ask(t, "PUT", quota, hour, "", `{"limit":1000}`, matching...)
	require.Equal(t, 200, set.status, set.answer)
	require.Len(t, shown().Quotas, 2)
	require.Equal(t, 412, o.ask(t, "DELETE", quota, hour, "", "", "If-Match", tag).status)
	require.Equal(t, 200, o.ask(t, "DELETE", quota, hour, "", "", "If-Match", set.answered.Get("Etag")).status)
	require.Equal(t, 404, o.ask(t, "DELETE", quota, hour, "", "", "If-Match", "*").status)

	list := o.ask(t, "GET", "/admin/projects", nil, "?limit=1", "")
	require.Contains(t, list.answer, `"name":"phc_{*}/?#"`)
	require.Equal(t, 400, o.ask(t, "GET", "/admin/projects", nil, "?limit=x", "").status)
	require.Equal(t, 204, o.ask(t, "DELETE", project, token, "", "", "If-Match", "*").status)
	require.Equal(t, 404, o.ask(t, "DELETE", project, token, "", "", "If-Match", "*").status)

	const restriction = "/admin/restrictions/{name}"
	rule := []string{"noisy"}
	drop := `{"fields":{"token":"phc_a","action":"drop","events":"heartbeat"}}`
	require.Equal(t, 404, o.ask(t, "GET", restriction, rule, "", "").status)
	require.Equal(t, 201, o.ask(t, "PUT", restriction, rule, "", drop, fresh...).status)
	require.Equal(t, 200, o.ask(t, "GET", restriction, rule, "", "").status)
	require.Equal(t, 422, o.ask(t, "PUT", restriction, rule, "",
		`{"fields":{"token":"phc_a","action":"topic","topic":"nowhere"}}`, "If-Match", "*").status)
	require.Equal(t, 400, o.ask(t, "GET", restriction, []string{"no name"}, "", "").status)
	require.Contains(t, o.ask(t, "GET", "/admin/restrictions", nil, "", "").answer, `"name":"noisy"`)
	require.Equal(t, 204, o.ask(t, "DELETE", restriction, rule, "", "", "If-Match", "*").status)

	text, err := os.ReadFile(audited)
	require.NoError(t, err)
	require.Equal(t, 2*9, strings.Count(string(text), "\n"), "nine changes:\n%s", text)
	require.Equal(t, 9, strings.Count(string(text), `"result":"done"`))

	// Without the audit log nothing changes.
	require.NoError(t, service.Set("admin.audit.file="+filepath.Join(audited, "none")))
	require.Equal(t, 503, o.ask(t, "PUT", project, token, "", enabled, fresh...).status)
	require.Equal(t, 503, o.ask(t, "POST", "/admin/reload", nil, "", "").status)
	require.Equal(t, 404, o.ask(t, "GET", project, token, "", "").status)
}

// witness is a stage that sees how events end.
type witness struct {
	mu    sync.Mutex
	ended []string
}

func (*witness) Phase() events.Phase { return events.PhasePlugins }
func (*witness) Name() string        { return "witness" }

func (w *witness) Process(context.Context, *events.Batch) (events.Settle, error) {
	return func(_ context.Context, batch *events.Batch) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for i := range batch.Events {
			outcome := &batch.Events[i].Outcome
			w.ended = append(w.ended, strings.TrimSpace(
				fmt.Sprint(outcome.State, " ", outcome.Reason, " ", outcome.Rule)))
		}
	}, nil
}

func (w *witness) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ended)
}

// A rule that is set by the API of one node drops events on another one, and everything that tells of events names it:
// the outcome, the answer, the usage, the metrics, the warning to the project and the list of rules. Without the rule
// the events are kept again.
func TestARuleThatTheAPISetsDropsEvents(t *testing.T) { ruled(t, 1) }

// ruled sets a rule by the first of some nodes, and sends to the last.
func ruled(t *testing.T, count int, options ...testkit.Option) {
	seen := &witness{}
	var nodes []*testkit.Service
	for range count {
		nodes = append(nodes, testkit.Start(t, append(options,
			testkit.Set("warnings.enabled", "true"), testkit.Set("warnings.rules", "true"),
			testkit.With(module.Module{Name: "witness", Options: fx.Provide(
				events.AsStage(func() *witness { return seen }),
			)}))...))
	}
	service := nodes[count-1]
	o := &documented{nodes[0], describe(t, nodes[0])}
	const path = "/admin/restrictions/{name}"
	name := []string{"no-heartbeats"}
	headers := []string{"If-None-Match", "*", "Content-Type", "application/json"}
	const rule = `{"fields":{"token":"phc_a","action":"drop","events":"heartbeat","distinct_ids":"u1"}}`
	require.Equal(t, 201, o.ask(t, "PUT", path, name, "", rule, headers...).status)
	inForce(t, service, 1)

	const id = "0198c0de-0000-7000-8000-00000000000"
	request := func() string {
		now := time.Now().UTC().Format(time.RFC3339Nano)
		one := func(n int, event, user string) string {
			return fmt.Sprintf(`{"event":%q,"uuid":"%s%d","distinct_id":%q,"timestamp":%q,"properties":{}}`,
				event, id, n, user, now)
		}
		response := service.Post("/i/v1/analytics/events", fmt.Sprintf(`{"created_at":%q,"batch":[%s,%s]}`, now,
			one(1, "heartbeat", "u1"), one(2, "heartbeat", "u2")), "Authorization", "Bearer phc_a",
			"Content-Type", "application/json", "PostHog-Sdk-Info", "test/1.0.0", "PostHog-Attempt", "1",
			"PostHog-Request-Id", id+"9", "PostHog-Request-Timestamp", now)
		require.Equal(t, 200, response.Status, response.Body)
		return response.Body
	}
	const answer = `{"results":{"` + id + `1":{"result":%s},"` + id + `2":{"result":%s}}}`
	require.Equal(t, fmt.Sprintf(answer, `"drop","details":"event_restriction_drop"`, `"ok"`), request())
	service.Eventually("the events have ended", func() bool { return len(seen.seen()) == 2 })
	require.ElementsMatch(t, []string{"dropped rule store/no-heartbeats", "accepted"}, seen.seen())
	service.Eventually("the project is warned", func() bool { return len(service.Messages()) == 2 })
	for _, message := range service.Messages() {
		if message.Envelope.Event == "$$client_ingestion_warning" {
			require.Contains(t, string(message.Envelope.Data), `"rule":"store/no-heartbeats"`)
		} else {
			require.Equal(t, "u2", message.Envelope.DistinctID)
		}
	}
	service.Eventually("the usage has the events", func() bool { return sums(usageRows(t, service))["received"] == 2 })
	rows := usageRows(t, service)
	require.Equal(t, "phc_a", rows[0].Token)
	require.Equal(t, map[string]uint64{"received": 2, "accepted": 1, "duplicates": 0, "dropped rule": 1}, sums(rows))
	require.Equal(t, 1, metric(t, service.Admin("/metrics").Body, `capture_events_dropped_total\{reason="rule"\}`))
	service.Eventually("the rule is counted", func() bool {
		return metric(t, service.Admin("/metrics").Body, `capture_routing_applied_total\{action="drop"\}`) == 1 &&
			strings.Contains(service.Admin("/admin/routing?token=phc_a").Body,
				`{"rule":"store/no-heartbeats","fields":`+
					`{"action":"drop","distinct_ids":"u1","events":"heartbeat","token":"phc_a"},"events":1}`)
	})

	require.Equal(t, 204, o.ask(t, "DELETE", path, name, "", "", "If-Match", "*").status)
	inForce(t, service, 0)
	require.Equal(t, fmt.Sprintf(answer, `"ok"`, `"ok","details":"duplicate"`), request(),
		"what was dropped is no copy")
	service.Eventually("the event is kept", func() bool { return len(service.Messages()) == 3 })
}
