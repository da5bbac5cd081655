package testkit_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/control"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
)

// An operator's change holds for the next events, and every answer is one that the document describes.
func TestWhatOperatorsChangeHoldsForTheNextEvents(t *testing.T) {
	sink := testkit.NewSink()
	audited := filepath.Join(t.TempDir(), "audit.jsonl")
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("admin.audit.file", audited))
	o := &documented{service, describe(t, service)}
	const project, quotas = "/admin/projects/{token}", "/admin/projects/{token}/quotas"
	const quota = quotas + "/{resource}/{period}"
	token := []string{"phc_{*}/?#"}
	send := func() int {
		return service.Post("/capture/", `{"api_key":"phc_{*}/?#","event":"a","distinct_id":"u"}`).Status
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
