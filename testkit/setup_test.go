package testkit_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

// shop is the origin of a page that an SDK runs on.
const shop = "http://shop.example"

// want has, for each SDK and path, the fields of an answer that the SDK reads, as JSON (sdks.md, 2 and 4). The SDK
// ignores the rest of the answer.
var want = []struct{ sdk, path, fields string }{
	{"posthog-js-1.0.6", "/decide/", `{"config":{"enable_collect_everything":true}}`},
	{"posthog-js-1.57.4", "/decide/",
		`{"config":{"enable_collect_everything":true},"autocapture_opt_out":false,
		"supportedCompression":["gzip","gzip-js"],"sessionRecording":{"endpoint":"/s/"},
		"featureFlags":{},"featureFlagPayloads":{},"errorsWhileComputingFlags":false,
		"siteApps":[],"isAuthenticated":false,"toolbarParams":{},"capturePerformance":false}`},
	{"posthog-js-1.200.2", "/decide/",
		`{"supportedCompression":["gzip","gzip-js"],"analytics":{"endpoint":"/i/v0/e/"},"autocapture_opt_out":false,
		"sessionRecording":{"endpoint":"/s/"},"heatmaps":true,"elementsChainAsString":true,"defaultIdentifiedOnly":true,
		"featureFlags":{},"featureFlagPayloads":{},"errorsWhileComputingFlags":false,"surveys":false,"siteApps":[]}`},
	{"posthog-js-1.449.2", "/array/",
		`{"supportedCompression":["gzip","gzip-js"],"analytics":{"endpoint":"/i/v0/e/"},"autocapture_opt_out":false,
		"sessionRecording":{"endpoint":"/s/"},"heatmaps":true,"elementsChainAsString":true,
		"hasFeatureFlags":true,"surveys":false}`},
	{"posthog-js", "/api/surveys/", `{"surveys":[]}`},
	{"", "/flags/definitions", `{"flags":[],"group_type_mapping":{},"cohorts":{}}`},
	{"", "/api/feature_flag/local_evaluation", `{"flags":[],"group_type_mapping":{},"cohorts":{}}`},
	{"", "/flags/", `{"flags":{},"errorsWhileComputingFlags":false}`},
	{"", "/decide/", `{"featureFlags":{},"featureFlagPayloads":{},"errorsWhileComputingFlags":false}`},
}

func TestEveryRecordedSetUpCallIsAnsweredWithWhatItsSDKReads(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink),
		testkit.Set("transport.setup.recording_endpoint", "/s/"),
		testkit.Set("transport.setup.recorder_bundled", "true"))
	rows := recordings(t, "testdata/setup.jsonl")
	require.Len(t, rows, 26)
	for _, row := range rows {
		var header []string
		for name, value := range row.Headers {
			header = append(header, name, value)
		}
		response := service.Request(row.Method, row.Path+"?"+row.RawQuery, string(row.Body), header...)
		require.Equal(t, 200, response.Status, "%s: %s", row.SDK, row.Path)
		if row.Headers["origin"] != "" {
			require.Equal(t, shop, response.Header.Get("Access-Control-Allow-Origin"))
			require.Equal(t, "true", response.Header.Get("Access-Control-Allow-Credentials"))
		}
		if row.Method == http.MethodOptions {
			require.Empty(t, response.Body)
			require.Equal(t, "content-type", response.Header.Get("Access-Control-Allow-Headers"))
			continue
		}
		body, isScript := strings.CutPrefix(response.Body,
			`(function(){window._POSTHOG_REMOTE_CONFIG=window._POSTHOG_REMOTE_CONFIG||{};`+
				`window._POSTHOG_REMOTE_CONFIG["phc_test"]={config:`)
		if isScript {
			require.Equal(t, "application/javascript", response.Header.Get("Content-Type"))
			body = strings.TrimSuffix(body, `,siteApps:[]}})();`)
		} else {
			require.Equal(t, "application/json", response.Header.Get("Content-Type"))
		}
		requireFields(t, row, body)
	}
	require.Empty(t, sink.Events())
}

func requireFields(t *testing.T, row recording, body string) {
	var got map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(body), &got), body)
	for _, w := range want {
		if !strings.HasPrefix(row.SDK, w.sdk) || !strings.HasPrefix(row.Path, w.path) {
			continue
		}
		var fields map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(w.fields), &fields))
		for name, value := range fields {
			require.JSONEq(t, string(value), string(got[name]), "%s: %s: %s", row.SDK, row.Path, name)
		}
		return
	}
	require.Fail(t, "nobody knows what is read of the answer", "%s: %s", row.SDK, row.Path)
}

func TestSetUpIsAnsweredOnItsPathsAndNowhereElse(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()),
		testkit.Set("transport.setup.exceptions", "true"))
	for path, status := range map[string]int{
		"/flags": 200, "/flags/": 200, "/decide": 200, "/flags/definitions/": 200, "/api/surveys": 200,
		"/array/phc_test/config": 200, "/array/phc_test/config/": 200, "/array/phc_test/config.js": 200,
		"/array/phc_test/config.js/": 200,
		"/array/a%22b/config.js":     404, "/array/a.b/config.js": 404, "/array/a.b/config": 200,
		"/array//config.js":            404,
		"/api/surveys/?token=phc_test": 200, "/api/early_access_features/?token=phc_test&stage=beta": 200,
		"/api/projects/7/feature_flags":        404,
		"/api/web_experiments/?token=phc_test": 200,
		"/api/product_tours/?token=phc_test":   200,
		"/array/phc_test/array.js":             404, "/array/a/b/config.js": 404, "/static/array.js": 404,
		"/static/1.449.2/surveys.js": 404,
		"/api/users":                 404, "/flags/other": 404,
	} {
		require.Equal(t, status, service.Request("GET", path, "").Status, path)
	}
	config := service.Request("GET", "/array/phc_test/config", "").Body
	require.Contains(t, config, `"sessionRecording":false`)
	require.Contains(t, config, `"autocaptureExceptions":true`)

	// Events that are sent to this path by mistake, and bodies that nobody can read, are answered all the same.
	for _, body := range []string{hello, "\x1f\x8b\x08garbage", "data=%%%", "{"} {
		require.Equal(t, 200, service.Post("/flags/?v=2", body, "Content-Encoding", "gzip").Status)
		require.Equal(t, 200, service.Post("/decide/?v=3", body, "Content-Type",
			"application/x-www-form-urlencoded").Status)
	}
	require.Equal(t, 413, service.Post("/flags/?v=2", strings.Repeat("x", 1<<20+1)).Status)
	require.Contains(t, service.Request("POST", "/flags/?v=2", "{}", "X-Request-Id", `a"b`).Body, `"requestId":"a\"b"`)

	tag := service.Request("GET", "/flags/definitions?token=phc_test", "").Header.Get("ETag")
	response := service.Request("GET", "/api/feature_flag/local_evaluation/?token=phc_test", "", "If-None-Match", tag)
	require.Equal(t, 304, response.Status)
	require.Equal(t, tag, response.Header.Get("ETag"))
	require.Empty(t, response.Body)
	requireMetric(t, service, `transport_requests_total{route="/api/feature_flag/local_evaluation",status="304"} 1`)
}

// A HEAD is answered like a GET, without the body. A client that asks whether a script exists must get the status of
// the script.
func TestHEADOfASetUpCallIsItsGETWithoutTheBody(t *testing.T) {
	alone := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()))
	passing := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()),
		testkit.Set("transport.upstream", postHog(t).URL))
	for _, service := range []*testkit.Service{alone, passing} {
		for _, path := range []string{
			"/decide", "/array/phc_test/config.js", "/array/a.b/config.js", "/array/phc_test/array.js",
			"/flags/definitions", "/api/surveys/",
			"/static/array.js", "/static/missing", "/static/empty",
		} {
			get, head := service.Request("GET", path, ""), service.Request("HEAD", path, "")
			require.Equal(t, get.Status, head.Status, path)
			require.Empty(t, head.Body)
			for _, name := range []string{"Content-Type", "Cache-Control", "ETag", "Content-Length"} {
				if service == passing && get.Status == 200 && name == "Content-Length" {
					// The upstream's answer names the method, so the length differs.
					require.NotEmpty(t, head.Header.Get(name))
					continue
				}
				require.Equal(t, get.Header.Get(name), head.Header.Get(name), "%s: %s", path, name)
			}
		}
	}
}

func TestSetUpCanBeLeftToOthers(t *testing.T) {
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()),
		testkit.Set("transport.serve", "analytics"))
	require.Equal(t, 404, service.Post("/flags/?v=2", "{}").Status)
	require.Equal(t, 200, service.Post("/e/", hello).Status)
}

// requireMetric waits for a line of the metrics, because metrics are reported from time to time.
func requireMetric(t *testing.T, service *testkit.Service, line string) {
	t.Helper()
	service.Eventually(line, func() bool { return strings.Contains(service.Admin("/metrics").Body, line) })
}

// large is the size of an answer that does not fit the buffers of a socket.
const large = 24 << 20

// postHog is a PostHog host whose answers repeat the requests that it got.
func postHog(t *testing.T) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		header := w.Header()
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("Set-Cookie", "theirs=1")
		header.Set("X-Request-Id", "theirs")
		header.Set("Vary", "Accept-Encoding")
		header.Set("ETag", `"1"`)
		switch {
		case r.Header.Get("If-None-Match") == `"1"`:
			w.WriteHeader(http.StatusNotModified)
		case strings.HasSuffix(r.URL.Path, "/missing"):
			http.NotFound(w, r)
		case strings.HasSuffix(r.URL.Path, "/empty"):
			w.WriteHeader(http.StatusNoContent)
		case strings.HasSuffix(r.URL.Path, "/large"):
			_, _ = w.Write(bytes.Repeat([]byte("x"), large))
		default:
			header.Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{
				"method": r.Method, "uri": r.RequestURI, "header": r.Header, "body": string(body),
			})
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestWithAnUpstreamSetUpIsItsBusiness(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("transport.upstream", postHog(t).URL))
	for _, call := range []struct{ method, path string }{
		{"POST", "/flags/?v=2&compression=base64"}, {"GET", "/decide/?ip=1&_=1795383015452"}, {"POST", "/decide/?v=3"},
		{"GET", "/array/phc_test/config.js"}, {"GET", "/array/phc_test/config"}, {"GET", "/array/phc_test/array.js"},
		{"GET", "/flags/definitions?token=phc_test&send_cohorts"},
		{"GET", "/api/feature_flag/local_evaluation/?token=phc_test"},
		{"GET", "/api/surveys/?token=phc_test"}, {"GET", "/static/1.449.2/lazy-recorder.js"},
		{"GET", "/static/recorder.js?v=1.200.2"},
	} {
		body := ""
		if call.method == "POST" {
			body = "a body"
		}
		response := service.Request(call.method, call.path, body, "Origin", shop, "Cookie", "session=secret",
			"Authorization", "Bearer phx_test",
			"Connection", "X-One", "Connection", "X-Two", "X-One", "1", "X-Two", "2", "X-Forwarded-For",
			"203.0.113.7, 10.0.0.1", "X-Forwarded-Proto", "https")
		require.Equal(t, 200, response.Status, call.path)
		var seen struct {
			Method, URI, Body string
			Header            http.Header
		}
		require.NoError(t, json.Unmarshal([]byte(response.Body), &seen))
		require.Equal(t, []string{call.method, call.path, body}, []string{seen.Method, seen.URI, seen.Body})
		require.Equal(t, "203.0.113.7", seen.Header.Get("X-Forwarded-For"))
		require.Equal(t, "https", seen.Header.Get("X-Forwarded-Proto"))
		require.Equal(t, strings.TrimPrefix(service.URL, "http://"), seen.Header.Get("X-Forwarded-Host"))
		require.Equal(t, "Bearer phx_test", seen.Header.Get("Authorization"))
		for _, name := range []string{"Cookie", "X-One", "X-Two"} {
			require.NotContains(t, seen.Header, name)
		}

		require.Equal(t, []string{shop}, response.Header["Access-Control-Allow-Origin"])
		require.Equal(t, "true", response.Header.Get("Access-Control-Allow-Credentials"))
		require.NotContains(t, response.Header, "Set-Cookie")
		require.NotEqual(t, "theirs", response.Header.Get("X-Request-Id"))
		vary := strings.Join(response.Header["Vary"], ", ")
		require.Contains(t, vary, "Origin", "a shared cache must keep the pages' answers apart")
		require.Contains(t, vary, "Accept-Encoding")
	}

	preflight := service.Request("OPTIONS", "/flags/?v=2", "", "Origin", shop,
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
	require.Equal(t, 200, preflight.Status)
	require.Equal(t, shop, preflight.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "content-type", preflight.Header.Get("Access-Control-Allow-Headers"))

	response := service.Request("GET", "/flags/definitions", "", "If-None-Match", `"1"`)
	require.Equal(t, 304, response.Status)
	require.Equal(t, `"1"`, response.Header.Get("ETag"))
	response = service.Request("GET", "/static/empty", "")
	require.Equal(t, 204, response.Status)
	require.Empty(t, response.Body)
	require.Equal(t, 404, service.Request("GET", "/static/%2e%2e/api/users", "").Status)

	require.Equal(t, 200, service.Post("/e/", hello).Status)
	require.Len(t, sink.Events(), 1, "events stay here")
}

// passedOn reports whether the upstream has answered, and with what.
func passedOn(response testkit.Response) (method string, is bool) {
	var seen struct{ Method, URI string }
	is = json.Unmarshal([]byte(response.Body), &seen) == nil && seen.URI != ""
	return seen.Method, is
}

func TestWhatIsServedHereStaysHereAndAllElseIsPassedOn(t *testing.T) {
	var graph served
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()), testkit.Populate(&graph),
		testkit.Set("transport.upstream", postHog(t).URL))
	paths := []string{"/", "/_liveness", "/_readiness"}
	for _, r := range graph.Routes {
		if r.Path != route.Rest {
			paths = append(paths, r.Path)
		}
	}
	require.Greater(t, len(paths), 15)
	for _, path := range paths {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS"} {
			_, is := passedOn(service.Request(method, path, ""))
			require.False(t, is, "%s %s", method, path)
		}
		require.Equal(t, 405, service.Request("PUT", path, "").Status, path)
	}

	for _, path := range []string{
		"/api/early_access_features/?token=phc_test", "/api/conversations/v1/widget/message", "/site_app/1/a/b/",
		"/i/v1/metrics", "/metrics", "/robots.txt", "/batchy", "/e/f", "/nobody/has/heard/of/this",
	} {
		for _, method := range []string{"GET", "POST"} {
			got, is := passedOn(service.Request(method, path, ""))
			require.True(t, is, "%s %s", method, path)
			require.Equal(t, method, got)
		}
		require.Equal(t, 200, service.Request("OPTIONS", path, "").Status, path)
		response := service.Request("DELETE", path, "")
		require.Equal(t, 405, response.Status, path)
		require.Equal(t, "GET, HEAD, OPTIONS, POST", response.Header.Get("Allow"))
	}
	response := service.Request("GET", "/api/surveys/", "a body", "Content-Type", "text/plain")
	got, _ := passedOn(response)
	require.Equal(t, "GET", got, "a request that only asks is not turned into one that sends")
	require.Contains(t, response.Body, `"body":""`)
}

func TestABodyIsPassedOnUpToTheLimitOfBodies(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()),
		testkit.Set("transport.upstream", postHog(t).URL), testkit.Set("transport.max_body", "2MiB"))
	_, is := passedOn(service.Post("/api/feedback/audio", strings.Repeat("x", 2<<20)))
	require.True(t, is)
	require.Equal(t, 413, service.Post("/api/feedback/audio", strings.Repeat("x", 2<<20+1)).Status)
}

// A group that is switched off here is served by the upstream, as every path that nobody here serves. Without the group
// setup nothing is passed on.
func TestAGroupThatIsSwitchedOffIsLeftToTheUpstream(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()),
		testkit.Set("transport.upstream", postHog(t).URL), testkit.Set("transport.serve", "analytics,setup"))
	method, is := passedOn(service.Post("/s/", "a recording"))
	require.True(t, is)
	require.Equal(t, "POST", method)
	require.Equal(t, 200, service.Post("/e/", hello).Status)
	_, is = passedOn(service.Request("GET", "/i/v1/logs", ""))
	require.True(t, is, "that path takes no GET, and is not served")

	require.NoError(t, service.Set("transport.serve=analytics"))
	for _, path := range []string{"/s/", "/flags/", "/nobody/has/heard/of/this"} {
		response := service.Post(path, "x")
		require.Equal(t, 404, response.Status, path)
		require.Empty(t, response.Header.Get("Allow"))
	}
	require.Equal(t, 404, service.Request("PUT", "/s/", "").Status)
	require.Equal(t, 405, service.Request("PUT", "/e/", "").Status)
}

func TestAnUpstreamThatIsAwayIsSaidSo(t *testing.T) {
	t.Parallel()
	upstream := postHog(t)
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()),
		testkit.Set("transport.upstream", upstream.URL))
	upstream.Close()
	response := service.Post("/flags/?v=2", "{}", "Origin", shop)
	require.Equal(t, 502, response.Status)
	require.Equal(t, "the upstream did not answer", response.Body)
	require.Equal(t, "5", response.Header.Get("Retry-After"))
	require.Equal(t, shop, response.Header.Get("Access-Control-Allow-Origin"))
	requireMetric(t, service, `transport_requests_total{route="/*",status="502"} 1`)
	require.Equal(t, 200, service.Post("/e/", hello).Status)
}

// The upstream's answer counts against the budget while the client reads it, and no longer, whether the client reads to
// the end or leaves.
func TestAnAnswerOfTheUpstreamIsHeldUntilItsClientHasIt(t *testing.T) {
	t.Parallel()
	var budget *memory.Budget
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()), testkit.Populate(&budget),
		testkit.Set("transport.upstream", postHog(t).URL))
	free := func() bool { return budget.InUse() == 0 }
	for _, leaves := range []bool{false, true} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(service.URL, "http://"))
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, "GET /static/large HTTP/1.1\r\nHost: capture.example\r\n\r\n")
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.EqualValues(t, large, response.ContentLength)
		require.GreaterOrEqual(t, budget.InUse(), int64(large), "the client has not got it all yet")
		if leaves {
			require.NoError(t, conn.Close())
		} else {
			n, err := io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			require.EqualValues(t, large, n)
		}
		service.Eventually("the budget to be free", free)
	}
}

// The upstream repeats the address that this service takes for the client's.
func TestTheNetworksOfTrustedProxiesFollowTheirFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "provider.txt")
	write := func(text string) {
		require.NoError(t, os.WriteFile(file+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	write("# as of today\n127.0.0.0/8\n")
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()),
		testkit.Set("transport.upstream", postHog(t).URL), testkit.Set("transport.trusted_proxies", "file:"+file))
	client := func() string {
		var seen struct{ Header http.Header }
		response := service.Request("GET", "/x", "", "X-Forwarded-For", "203.0.113.9, 198.51.100.7")
		require.NoError(t, json.Unmarshal([]byte(response.Body), &seen))
		return seen.Header.Get("X-Forwarded-For")
	}
	require.Equal(t, "198.51.100.7", client())

	write("127.0.0.0/8\n198.51.100.0/24 # new\n")
	service.Eventually("the new networks", func() bool { return client() == "203.0.113.9" })

	write("<html>no such file</html>")
	requireMetric(t, service, "capture_config_last_reload_successful 0")
	require.Equal(t, "203.0.113.9", client(), "the last good version holds")
	write("127.0.0.0/8\n")
	requireMetric(t, service, "capture_config_last_reload_successful 1")
	require.Equal(t, "198.51.100.7", client())
	write("127.0.0.0/8\n198.51.100.0/24")
	service.Eventually("the networks to be there again", func() bool { return client() == "203.0.113.9" })
	require.NoError(t, os.Remove(file))
	requireMetric(t, service, "capture_config_last_reload_successful 0")
	require.Equal(t, "203.0.113.9", client())
}

func TestAFaultyFileOfTrustedProxiesKeepsTheServiceFromStarting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "provider.txt")
	load := func() error {
		_, err := app.Load(standard.Modules(), configs.Source{
			Environ: []string{"CAPTURE_TRANSPORT__TRUSTED_PROXIES=10.0.0.0/8,file:" + file},
		})
		return err
	}
	require.ErrorContains(t, load(), "transport.trusted_proxies: file:"+file+": cannot be read: no such file")
	require.NoError(t, os.WriteFile(file, []byte("198.51.100.0/24\n\nsecret\n"), 0o600))
	err := load()
	require.ErrorContains(t, err, "transport.trusted_proxies: file:"+file+", line 3: is neither a network")
	require.NotContains(t, err.Error(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("198.51.100.0/24"), 0o600))
	require.NoError(t, load())
}
