package auth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/opencapture/capture/modules/auth"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/testkit"
)

// file writes projects where a configuration can name them.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "projects.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const someProjects = `
phc_free: {id: 1}
phc_off: {enabled: false}
phc_web: {origins: https://shop.example, require_origin: true}
phc_office: {networks: 203.0.113.0/24}
phc_scoped: {scopes: events}
phc_replay: {endpoints: recordings}
`

func event(token, name string) string {
	return fmt.Sprintf(`{"api_key":%q,"event":%q,"distinct_id":"u"}`, token, name)
}

func v1Headers(header, value string) []string {
	return []string{
		header, value, "PostHog-Sdk-Info", "test/1", "PostHog-Attempt", "1", "User-Agent", "test",
		"PostHog-Request-Id", "01a20526-db14-71b9-bce0-3d6c94bebba0",
		"PostHog-Request-Timestamp", time.Now().UTC().Format(time.RFC3339), "Content-Type", "application/json",
	}
}

func v1Batch(names ...string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = fmt.Sprintf(`{"event":%q,"uuid":"0198c0de-0000-7000-8000-00000000000%d","distinct_id":"u",`+
			`"timestamp":"2026-11-24T11:58:00Z","properties":{}}`, name, i)
	}
	return `{"created_at":"2026-11-24T11:59:00Z","batch":[` + strings.Join(all, ",") + `]}`
}

const (
	logs  = `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}`
	spans = `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c",` +
		`"spanId":"b7ad6b7169203331","name":"x","startTimeUnixNano":"1","endTimeUnixNano":"2",` +
		`"attributes":[{"key":"gen_ai.system","value":{"stringValue":"x"}}]}]}]}]}`
	form = "--x\r\nContent-Disposition: form-data; name=\"event\"\r\nContent-Type: application/json\r\n\r\n" +
		`{"event":"$ai_span","uuid":"0198c0de-0000-7000-8000-000000000001","distinct_id":"u",` +
		`"properties":{"$ai_model":"m"}}` + "\r\n--x--\r\n"
	report = `{"csp-report":{"document-uri":"https://a.example/","violated-directive":"img-src"}}`
)

// The refusals in the words of every protocol.
func TestEveryProtocolRefusesWhomTheProjectsDoNotAllow(t *testing.T) {
	t.Parallel()
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("auth.mode", "strict"),
		testkit.Set("auth.projects", file(t, someProjects)), testkit.Set("transport.trusted_proxies", "127.0.0.0/8"))
	json := []string{"Content-Type", "application/json"}
	send := map[string]func(token string, header ...string) testkit.Response{
		"v0": func(token string, header ...string) testkit.Response {
			return service.Post("/e/", event(token, "a"), header...)
		},
		"v0, token in the query": func(token string, header ...string) testkit.Response {
			return service.Post("/batch/?token="+token, `{"batch":[{"event":"a","distinct_id":"u"}]}`, header...)
		},
		"v1": func(token string, header ...string) testkit.Response {
			return service.Post("/i/v1/analytics/events", v1Batch("a"),
				append(v1Headers("Authorization", "Bearer "+token), header...)...)
		},
		"logs": func(token string, header ...string) testkit.Response {
			return service.Post("/i/v1/logs?token="+token, logs, append(json, header...)...)
		},
		"spans": func(token string, header ...string) testkit.Response {
			return service.Post("/i/v0/ai/otel", spans, append(append(json, "X-Api-Key", token), header...)...)
		},
		"AI": func(token string, header ...string) testkit.Response {
			return service.Post("/i/v0/ai", form, append([]string{
				"Content-Type", "multipart/form-data; boundary=x", "X-Api-Key", token,
			}, header...)...)
		},
		"reports": func(token string, header ...string) testkit.Response {
			return service.Post("/report?token="+token, report, append([]string{
				"Content-Type", "application/csp-report",
			}, header...)...)
		},
	}
	stored := 0
	for protocol, send := range send {
		for _, test := range []struct {
			token, text string
			status      int
			header      []string
		}{
			{"phc_nobody", "API key does not belong to any project", 401, nil},
			{"phc_off", "is disabled", 403, nil},
			{"phc_replay", "may not use this endpoint", 403, nil},
			{"phc_web", "takes no events from this site", 403, nil},
			{"phc_web", "takes no events from this site", 403, []string{"Origin", "https://other.example"}},
			{"phc_office", "takes no events from this address", 403, []string{"X-Forwarded-For", "198.51.100.7"}},
		} {
			answer := send(test.token, test.header...)
			require.Equal(t, test.status, answer.Status, "%s: %s: %s", protocol, test.token, answer.Body)
			require.Contains(t, answer.Body, test.text, protocol)
			require.Empty(t, answer.Header.Get("Retry-After"), "it is not to be sent again")
		}
		require.Len(t, sink.Events(), stored, protocol)
		require.Less(t, send("phc_free").Status, 300, protocol)
		require.Less(t, send("phc_web", "Origin", "https://shop.example").Status, 300, protocol)
		require.Less(t, send("phc_office", "X-Forwarded-For", "203.0.113.9").Status, 300, protocol)
		stored += 3
		require.Len(t, sink.Events(), stored, protocol)
	}
	answer := send["v1"]("phc_off")
	require.Contains(t, answer.Body, `"error":"forbidden"`)
	require.Contains(t, send["v1"]("phc_nobody").Body, `"error":"invalid_api_token"`)
	require.Contains(t, send["logs"]("phc_off").Body, `"code":7`)
	require.Equal(t, 403, service.Post("/s/", `{"api_key":"phc_off","event":"$snapshot"}`).Status)

	// Events that were read are counted with the reason, requests in any case.
	for _, line := range []string{
		`capture_events_rejected_total{reason="unknown_token"} 2`,
		`capture_auth_refused_total{reason="unknown_token"} 8`,
		`capture_auth_refused_total{reason="network_not_allowed"} 7`,
	} {
		service.Eventually(line, func() bool { return strings.Contains(service.Admin("/metrics").Body, line+"\n") })
	}
}

func TestOfABatchTheEventsInScopeAreKept(t *testing.T) {
	t.Parallel()
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink),
		testkit.Set("auth.projects", file(t, someProjects)))
	batch := func(names ...string) string {
		all := make([]string, len(names))
		for i, name := range names {
			all[i] = fmt.Sprintf(`{"event":%q,"distinct_id":"u%d"}`, name, i)
		}
		return `{"api_key":"phc_scoped","batch":[` + strings.Join(all, ",") + `]}`
	}
	require.Equal(t, 200, service.Post("/batch/", batch("a", "$exception", "b")).Status)
	require.Len(t, sink.Events(), 2)
	answer := service.Post("/batch/", batch("$exception", "$ai_span"))
	require.Equal(t, 403, answer.Status)
	require.Equal(t, "the project of this API key takes no events of the kind exceptions", answer.Body)

	answer = service.Post("/i/v1/analytics/events", v1Batch("c", "$exception"),
		v1Headers("Authorization", "Bearer phc_scoped")...)
	require.Equal(t, 200, answer.Status)
	require.Contains(t, answer.Body, `{"result":"drop","details":"out_of_scope"}`)
	require.Len(t, sink.Events(), 3)
	answer = service.Post("/batch/", `{"api_key":"phc_scoped","historical_migration":true,"batch":[{"event":"a",`+
		`"distinct_id":"u"}]}`)
	require.Equal(t, 403, answer.Status)
	require.Contains(t, answer.Body, "no migrations of old events")
	service.Eventually("the count", func() bool {
		return strings.Contains(service.Admin("/metrics").Body,
			`capture_events_rejected_total{reason="out_of_scope"} 5`)
	})
}

func TestAKeyMayStandInItsOwnHeader(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()), testkit.Set("auth.mode", "strict"),
		testkit.Set("auth.projects", file(t, someProjects)))
	require.Equal(t, 200, service.Post("/i/v1/analytics/events", v1Batch("a"),
		v1Headers("X-Api-Key", "phc_free")...).Status)
	bare := `{"event":"a","distinct_id":"u"}`
	require.Equal(t, 200, service.Post("/e/", bare, "X-Api-Key", "phc_free").Status)
	require.Equal(t, 200, service.Post("/e/", bare, "Authorization", "Bearer phc_free, Basic c3Rh").Status)
	require.Equal(t, 401, service.Post("/e/", event("phc_nobody", "a"), "X-Api-Key", "phc_free").Status,
		"the body's token goes first on v0")
	for _, word := range []string{"undefined", "null"} {
		answer := service.Post("/i/v1/analytics/events", v1Batch("a"), v1Headers("Authorization", "Bearer "+word)...)
		require.Equal(t, 401, answer.Status)
		require.Contains(t, answer.Body, "has undefined, null or the like in the place of the token")
	}
	answer := service.Post("/e/", bare, "Authorization", "Bearer phx_secret")
	require.Equal(t, 401, answer.Status)
	require.Equal(t, "API key is not valid: personal_api_key", answer.Body)
}

// The records of the shared state are in force at once, and a file while the service runs.
func TestProjectsChangeWhileTheServiceRuns(t *testing.T) {
	t.Parallel()
	var records store.Records
	path := file(t, "phc_file: {}\n")
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()), testkit.Populate(&records),
		testkit.Set("auth.mode", "strict"), testkit.Set("auth.projects", path))
	status := func(token string) int { return service.Post("/e/", event(token, "a")).Status }
	require.Equal(t, 200, status("phc_file"))
	require.Equal(t, 401, status("phc_new"))
	odd := "p{h}c:\n*"
	for _, token := range []string{"phc_new", odd} {
		require.NoError(t, records.Put(t.Context(), "project", token, nil, store.Fields{"name": "New"}))
		service.Eventually("the record", func() bool { return status(token) == 200 })
	}
	require.NoError(t, records.Put(t.Context(), "project", odd, store.Fields{"name": "New"},
		store.Fields{"enabled": "false"}))
	service.Eventually("the change", func() bool { return status(odd) == 403 })
	require.NoError(t, records.Put(t.Context(), "project", odd, store.Fields{"enabled": "false"}, nil))
	service.Eventually("the removal", func() bool { return status(odd) == 401 })

	require.NoError(t, os.WriteFile(path+".new", []byte("phc_file: {enabled: false}\n"), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	service.Eventually("the file", func() bool { return status("phc_file") == 403 })
	require.NoError(t, service.Set("auth.mode=open"))
	require.Equal(t, 200, status("phc_other"))
	require.Equal(t, 403, status("phc_file"))

	var shown struct {
		Mode  string
		Files int
	}
	require.NoError(t, json.Unmarshal([]byte(service.Admin("/admin/auth").Body), &shown))
	require.Equal(t, "open", shown.Mode)
	require.Equal(t, 1, shown.Files)
}

// club is an authenticator of a module outside.
type club struct{}

func (club) Rank() int    { return 500 }
func (club) Name() string { return "club" }
func (club) Project(_ context.Context, token string) (*project.Record, error) {
	if member, found := strings.CutPrefix(token, "club_"); found {
		return &project.Record{ID: member}, nil
	}
	return nil, nil
}

func TestAModuleMayKnowProjectsOfItsOwn(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()), testkit.Set("auth.mode", "strict"),
		testkit.With(module.Module{
			Name: "club", Options: fx.Provide(auth.AsAuthenticator(func() club { return club{} })),
		}))
	require.Equal(t, 200, service.Post("/e/", event("club_ann", "a")).Status)
	require.Equal(t, 401, service.Post("/e/", event("phc_a", "a")).Status)
}

// The mode known is the dry run: projects hear of what strict would refuse.
func TestATokenOfNoProjectIsWarnedOfInTheModeKnown(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Set("auth.mode", "known"), testkit.Set("warnings.enabled", "true"),
		testkit.Set("auth.projects", file(t, someProjects)))
	require.Equal(t, 200, service.Post("/e/", event("phc_nobody", "a")).Status)
	require.Equal(t, 200, service.Post("/e/", event("phc_free", "a")).Status)
	service.Eventually("the warning", func() bool {
		for _, message := range service.Messages() {
			if strings.Contains(string(message.Value), "unknown_token") {
				return strings.Contains(string(message.Value), "phc_nobody")
			}
		}
		return false
	})
	for _, message := range service.Messages() {
		require.False(t, strings.Contains(string(message.Value), "unknown_token") &&
			strings.Contains(string(message.Value), "phc_free"))
	}
}
