package admin

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
)

// status decodes the status of the configuration from an answer.
func status(t *testing.T, got response) configs.Status {
	t.Helper()
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	var status configs.Status
	require.NoError(t, json.Unmarshal([]byte(got.body), &status))
	return status
}

func TestAReloadPutsTheConfigurationInForceOrSaysWhyNot(t *testing.T) {
	r := start(t, plan{})
	got := r.get(t, "/admin/reload")
	require.Equal(t, http.StatusOK, got.status)
	first := status(t, got)
	require.Equal(t, 1, first.Number)
	require.Empty(t, first.Error)

	r.set("hosts", "capture.internal")
	got = r.send(t, http.MethodPost, "/admin/reload")
	require.Equal(t, http.StatusOK, got.status)
	second := status(t, got)
	require.Equal(t, 2, second.Number)
	require.Equal(t, []string{"admin.hosts"}, second.Changed)
	require.Equal(t, http.StatusOK, r.get(t, "/healthz", "Host", "capture.internal").status)

	for setting, fault := range map[[2]string]string{
		{"hosts", "http://x"}:      "admin.hosts: must be names such as capture.internal",
		{"read_timeout", "soon"}:   `admin.read_timeout: "soon" is not a duration`,
		{"listen", "127.0.0.1:17"}: "admin.listen: needs a restart",
	} {
		old := r.settings[setting[0]]
		r.set(setting[0], setting[1])
		got = r.send(t, http.MethodPost, "/admin/reload")
		require.Equal(t, http.StatusConflict, got.status)
		require.Contains(t, status(t, got).Error, fault)
		require.Equal(t, 2, status(t, got).Number, "the old one stays in force")
		got = r.get(t, "/admin/reload")
		require.Equal(t, http.StatusOK, got.status)
		require.Contains(t, status(t, got).Error, fault)
		if old == "" {
			delete(r.settings, setting[0])
		} else {
			r.set(setting[0], old)
		}
	}
	require.Equal(t, http.StatusOK, r.get(t, "/healthz", "Host", "capture.internal").status)
	got = r.send(t, http.MethodPost, "/admin/reload")
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.Empty(t, status(t, got).Error)
	require.Equal(t, http.StatusMethodNotAllowed, r.send(t, http.MethodPut, "/admin/reload").status)
}

func TestAReloadIsInTheAuditLogOrIsNotMade(t *testing.T) {
	r := start(t, plan{})
	r.set("hosts", "capture.internal")
	require.Equal(t, http.StatusOK, r.send(t, http.MethodPost, "/admin/reload", "X-Capture-Actor", "eve").status)
	lines := strings.Split(strings.TrimSpace(r.audited.String()), "\n")
	require.Len(t, lines, 2)
	require.Regexp(t, `^{"time":"[^"]+","id":"[0-9a-f-]{36}","step":"begin","actor":"eve","login":"loopback",`+
		`"address":"127.0.0.1","method":"POST","path":"/admin/reload","kind":"configuration","before":{"number":1}}$`,
		lines[0])
	require.Regexp(t, `"step":"end","kind":"configuration",`+
		`"after":{"number":2,"changed":\["admin.hosts"\]},"result":"done"}$`, lines[1])

	r.set("hosts", "http://x")
	require.Equal(t, http.StatusConflict, r.send(t, http.MethodPost, "/admin/reload").status)
	require.Regexp(t, `"result":"admin.hosts: must be names[^"]*[^\n]*}\n$`, r.audited.String())

	r.set("hosts", "capture.internal")
	r.set("audit.file", filepath.Join(t.TempDir(), "none", "audit.jsonl"))
	require.Equal(t, http.StatusOK, r.send(t, http.MethodPost, "/admin/reload").status, "the old file takes it")
	r.set("hosts", "other.internal")
	got := r.send(t, http.MethodPost, "/admin/reload")
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Equal(t, "1", got.header.Get("Retry-After"))
	require.Contains(t, got.body, "nothing was changed, because changes are made only if they can be noted")
	require.Equal(t, 3, status(t, r.get(t, "/admin/reload")).Number)
}

func TestTheIndexListsEveryEndpointForAProgramAndForAPerson(t *testing.T) {
	r := start(t, plan{endpoints: []endpoint.Endpoint{{
		Pattern: "GET /admin/keys/{name}", About: "A key & what it <opens>.", Handler: http.NotFoundHandler(),
	}}})
	got := r.get(t, "/")
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	var list index
	require.NoError(t, json.Unmarshal([]byte(got.body), &list))
	var paths []string
	about := map[string]listing{}
	for _, e := range list.Endpoints {
		paths = append(paths, e.Method+" "+e.Path+" "+e.Access)
		about[e.Path] = e
	}
	require.Equal(t, []string{
		"GET / reader",
		"GET /admin/keys/{name} operator",
		"GET /admin/openapi.json reader",
		"GET /admin/reload reader",
		"POST /admin/reload operator",
		"GET /debug/pprof/ reader",
		"GET /debug/pprof/cmdline reader",
		"GET /debug/pprof/profile operator",
		"GET /debug/pprof/symbol reader",
		"POST /debug/pprof/symbol reader",
		"GET /debug/pprof/trace operator",
		"GET /debug/pprof/{profile...} operator",
		"GET /healthz anyone",
		"GET /metrics anyone",
		"GET /readyz anyone",
	}, paths)
	require.Equal(t, "A key & what it <opens>.", about["/admin/keys/{name}"].About)

	got = r.get(t, "/", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	require.Equal(t, "text/html; charset=utf-8", got.header.Get("Content-Type"))
	require.Contains(t, got.body, `<td><a href="/metrics">/metrics</a>`)
	require.Contains(t, got.body, `<td>/admin/keys/{name}<td>A key &amp; what it &lt;opens&gt;.<td>operator`)
	require.NotContains(t, got.body, `href="/admin/keys`)
	require.Contains(t, got.body, `<tr><td>POST<td>/admin/reload<td>`, "a person cannot follow a POST")
}
