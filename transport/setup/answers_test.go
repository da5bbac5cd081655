package setup

import (
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/transport/route"
)

var ctx = context.Background()

func get(t *testing.T, response route.Response) object {
	t.Helper()
	require.Equal(t, 200, response.Status)
	require.Equal(t, route.TypeJSON, response.ContentType)
	var fields object
	require.NoError(t, json.Unmarshal([]byte(response.Body), &fields))
	return fields
}

func header(response route.Response, name string) (values []string) {
	for _, field := range response.Header {
		if field.Name == name {
			values = append(values, field.Value)
		}
	}
	return values
}

func requireFields(t *testing.T, fields, wanted object) {
	t.Helper()
	for name, want := range wanted {
		require.Equal(t, want, fields[name], name)
	}
}

// answersOf makes the answers of a configuration.
func answersOf(config Config) *Answers {
	a, err := NewAnswers(configs.Fixed(config))
	if err != nil {
		panic(err)
	}
	return a
}

// withRecordings returns a configuration in which mobile SDKs, and pages that bring the recorder along, record.
func withRecordings() Config {
	config := DefaultConfig()
	config.RecordingEndpoint, config.RecorderBundled = "/s/", true
	return config
}

// The version that an SDK asks for decides which shape it reads (sdks.md, 2, Flags).
func TestFlagsAreToldInTheShapeThatIsAskedFor(t *testing.T) {
	a := answersOf(DefaultConfig())
	received := time.Date(2026, 11, 24, 1, 2, 3, 4e6, time.UTC)
	values := object{"featureFlags": object{}, "featureFlagPayloads": object{}}
	details := object{"flags": object{}}
	for query, want := range map[string]object{
		"":                                  values,
		"v=1":                               values,
		"v=x&_=1":                           values,
		"v=99999999999999999999":            values,
		"v=2":                               details,
		"_=1&v=2&compression=base64":        details,
		"v=3":                               details,
		"v=2&v=1":                           details,
		"v=2&config=false&send_config=true": details,
	} {
		response := a.Flags(ctx, &route.Request{RawQuery: query, RequestID: `a"b\`, Received: received})
		want = maps.Clone(want)
		maps.Copy(want, object{
			"errorsWhileComputingFlags": false, "requestId": `a"b\`, "evaluatedAt": float64(received.UnixMilli()),
		})
		require.Equal(t, want, get(t, response), query)
		require.Equal(t, []string{"no-store"}, header(response, "Cache-Control"), query)
	}
}

// Mobile SDKs get their configuration from /flags, as posthog-js did for a while.
func TestFlagsBringTheConfigurationIfAskedTo(t *testing.T) {
	a := answersOf(DefaultConfig())
	for _, query := range []string{"v=2&config=true", "config=1", "config=true&v=2"} {
		got := get(t, a.Flags(ctx, &route.Request{RawQuery: query}))
		for name, value := range get(t, a.Config(ctx, &route.Request{})) {
			require.Equal(t, value, got[name], "%s: %s", query, name)
		}
		require.Contains(t, got, "requestId")
	}
}

// /decide listed flags at first, then gave their values, then their payloads as well, and then everything in one object
// (sdks.md, 2). The configuration is always in the answer, because posthog-js up to 1.200 reads it in the first answer
// only.
func TestDecideSaysNoFlagsInTheShapeThatIsAskedFor(t *testing.T) {
	a := answersOf(DefaultConfig())
	list, values := object{"featureFlags": []any{}}, object{"featureFlags": object{}}
	payloads := object{"featureFlags": object{}, "featureFlagPayloads": object{}, "errorsWhileComputingFlags": false}
	details := object{"flags": object{}, "errorsWhileComputingFlags": false}
	for query, want := range map[string]object{
		"ip=1&_=1795383015452": list, "v=1": list, "v=-7": list, "v=": list,
		"v=2&ip=1": values,
		"v=3&ip=1&_=1795382947307&ver=1.200.2&compression=base64": payloads,
		"v=4": details, "v=5": details,
	} {
		response := a.Decide(ctx, &route.Request{RawQuery: query})
		want = maps.Clone(want)
		maps.Copy(want, get(t, a.Config(ctx, &route.Request{})))
		require.Equal(t, want, get(t, response), query)
		require.Equal(t, []string{"no-store"}, header(response, "Cache-Control"), query)
	}
}

// The configuration that each browser SDK needs is in sdks.md, 2 (Config) and 4 (checklist, 9).
func TestTheConfigurationSaysWhatIsConfigured(t *testing.T) {
	response := answersOf(withRecordings()).Config(ctx, &route.Request{})
	require.Equal(t, []string{"public, max-age=300"}, header(response, "Cache-Control"))
	fields := get(t, response)
	requireFields(t, fields, object{
		"supportedCompression":  []any{"gzip", "gzip-js"},
		"analytics":             object{"endpoint": "/i/v0/e/"},
		"sessionRecording":      object{"endpoint": "/s/"},
		"autocapture_opt_out":   false,
		"config":                object{"enable_collect_everything": true},
		"heatmaps":              true,
		"autocaptureExceptions": false,
		"errorTracking":         object{"autocaptureExceptions": false, "suppressionRules": []any{}},
		"hasFeatureFlags":       true,
		"surveys":               false,
	})

	fields = get(t, answersOf(Config{AnalyticsEndpoint: "/e/", Exceptions: true}).Config(ctx, &route.Request{}))
	requireFields(t, fields, object{
		"analytics":             object{"endpoint": "/e/"},
		"sessionRecording":      false,
		"autocapture_opt_out":   true,
		"config":                object{"enable_collect_everything": false},
		"heatmaps":              false,
		"autocaptureExceptions": true,
		"errorTracking":         object{"autocaptureExceptions": true, "suppressionRules": []any{}},
	})
}

// script is all that config.js may be, whatever the path says.
var script = regexp.MustCompile(`^\(function\(\)\{` +
	`window\._POSTHOG_REMOTE_CONFIG=window\._POSTHOG_REMOTE_CONFIG\|\|\{\};` +
	`window\._POSTHOG_REMOTE_CONFIG\["([A-Za-z0-9_-]{1,64})"\]=\{config:(\{.*\}),siteApps:\[\]\}\}\)\(\);$`)

func TestTheScriptKeepsTheConfigurationUnderTheToken(t *testing.T) {
	a := answersOf(DefaultConfig())
	for _, path := range []string{"/array/phc_Test-1/config.js", "/array/phc_Test-1/config.js/"} {
		response := a.Script(ctx, &route.Request{Path: path})
		require.Equal(t, 200, response.Status)
		require.Equal(t, "application/javascript", response.ContentType)
		parts := script.FindStringSubmatch(response.Body)
		require.Len(t, parts, 3, response.Body)
		require.Equal(t, "phc_Test-1", parts[1])
		require.Equal(t, a.Config(ctx, &route.Request{}).Body, parts[2])
	}
}

func TestNothingOfAConfigurationEndsTheScript(t *testing.T) {
	config := DefaultConfig()
	config.AnalyticsEndpoint = "/</script><script>\u2028\""
	response := answersOf(config).Script(ctx, &route.Request{Path: "/array/k/config.js"})
	require.NotContains(t, response.Body, "<")
	require.NotContains(t, response.Body, "\u2028")
}

func TestATokenThatIsNoneHasNoScript(t *testing.T) {
	a := answersOf(DefaultConfig())
	for _, token := range []string{"", strings.Repeat("a", 65), `x"]=1;alert(1)//`, "a%22b", "a.b", "a b", "é",
		"</script>", "a\x00b"} {
		response := a.Script(ctx, &route.Request{Path: "/array/" + token + "/config.js"})
		require.Equal(t, 404, response.Status, token)
		require.Equal(t, "not found", response.Body, token)
	}
	require.Equal(t, 200, a.Script(ctx,
		&route.Request{Path: "/array/" + strings.Repeat("a", 64) + "/config.js"}).Status)
}

func FuzzNoPathMakesAnotherScript(f *testing.F) {
	for _, path := range []string{"/array/phc_test/config.js", "/array//config.js", `/array/"];x/config.js`,
		"/array/a/b/config.js", "", "config.js"} {
		f.Add(path)
	}
	a := answersOf(DefaultConfig())
	f.Fuzz(func(t *testing.T, path string) {
		response := a.Script(ctx, &route.Request{Path: path})
		if response.Status == 404 {
			require.Equal(t, "not found", response.Body)
			return
		}
		parts := script.FindStringSubmatch(response.Body)
		require.Len(t, parts, 3, response.Body)
		require.Contains(t, path, parts[1])
		require.Equal(t, a.Config(ctx, &route.Request{}).Body, parts[2])
	})
}

// Servers that evaluate flags ask for definitions again and again, with the tag of the definitions that they have
// (sdks.md, 2, Flags).
func TestDefinitionsThatAreKnownAreNotSentAgain(t *testing.T) {
	a := answersOf(DefaultConfig())
	response := a.Definitions(ctx, &route.Request{})
	require.Equal(t, object{"flags": []any{}, "group_type_mapping": object{}, "cohorts": object{}}, get(t, response))
	tag := header(response, "ETag")[0]
	require.Regexp(t, `^"[0-9a-f]{32}"$`, tag)
	for list, status := range map[string]int{
		tag: 304, "W/" + tag: 304, `"x", ` + tag: 304, "*": 304, `"x"`: 200,
		strings.Trim(tag, `"`): 200, "": 200, ",,": 200,
	} {
		var headers fasthttp.RequestHeader
		headers.Set("If-None-Match", list)
		response := a.Definitions(ctx, &route.Request{Header: &headers})
		require.Equal(t, status, response.Status, list)
		require.Equal(t, []string{tag}, header(response, "ETag"), list)
		require.Equal(t, status == 200, response.Body != "", list)
	}
}

// What posthog-js and the mobile SDKs read of each answer. A field that is absent would make posthog-js call back a
// page with undefined, or log an error.
func TestThereIsNothingOfWhatSDKsAskFor(t *testing.T) {
	want := map[string]string{
		"/api/surveys": "surveys", "/api/early_access_features": "earlyAccessFeatures",
		"/api/web_experiments": "experiments", "/api/product_tours": "product_tours",
	}
	for _, served := range answersOf(DefaultConfig()).Routes() {
		if field := want[served.Path]; field != "" {
			response := served.Handle(ctx, &route.Request{Path: served.Path + "/"})
			require.Equal(t, object{field: []any{}}, get(t, response), served.Path)
			require.Equal(t, []string{"public, max-age=300"}, header(response, "Cache-Control"), served.Path)
			delete(want, served.Path)
		}
	}
	require.Empty(t, want)
}

// Events that were sent here by mistake, and requests that nobody can read, change nothing: the answer is the same.
func TestNoBodyIsRead(t *testing.T) {
	for _, served := range answersOf(DefaultConfig()).Routes() {
		require.Equal(t, route.Setup, served.Group)
		require.EqualValues(t, 1<<20, served.MaxBody(nil))
		path := strings.ReplaceAll(served.Path, ":token", "phc_test")
		want := served.Handle(ctx, &route.Request{Path: path})
		for _, body := range []string{"\x1f\x8b\x08garbage",
			`{"event":"a","distinct_id":"u","token":"k"}`, "data=%%%"} {
			got := served.Handle(ctx, &route.Request{
				Path: path, Body: []byte(body), ContentType: "application/json", ContentEncoding: "gzip",
			})
			require.Equal(t, want, got, path)
			require.Equal(t, 200, got.Status, path)
		}
	}
}

func TestWhatIsWrongInTheConfigurationIsSaid(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	require.NoError(t, Config{AnalyticsEndpoint: "/x/y%20z"}.Validate())
	for _, endpoint := range []string{"s/", "http://host/s/", "//host/s/", "/s/?a=1", "/s/#a", "/s b/", "/%zz"} {
		err := Config{AnalyticsEndpoint: endpoint, RecordingEndpoint: endpoint}.Validate()
		var faults *configs.FaultsError
		require.ErrorAs(t, err, &faults, endpoint)
		keys := []string{faults.Faults[0].Key, faults.Faults[1].Key}
		require.Equal(t, []string{"analytics_endpoint", "recording_endpoint"},
			slices.Sorted(slices.Values(keys)), endpoint)
	}
	require.ErrorContains(t, Config{}.Validate(), "analytics_endpoint")

	require.NoError(t, withRecordings().Validate())
	lonely := withRecordings()
	lonely.RecorderBundled = false
	require.ErrorContains(t, lonely.Validate(),
		"recording_endpoint: tells browsers to record, and nothing here serves the recorder")
}
