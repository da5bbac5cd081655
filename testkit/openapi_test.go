package testkit_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/testkit"
)

// described is the document that the service serves, and a compiler of its schemas.
type described struct {
	document map[string]any
	compiler *jsonschema.Compiler
}

const documentURL = "urn:document"

func describe(t *testing.T, service *testkit.Service) *described {
	t.Helper()
	got := service.Admin("/admin/openapi.json")
	require.Equal(t, http.StatusOK, got.Status)
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(got.Body))
	require.NoError(t, err)
	d := &described{document: value.(map[string]any), compiler: jsonschema.NewCompiler()}
	d.compiler.AssertFormat()
	require.NoError(t, d.compiler.AddResource(documentURL, value))
	return d
}

// at returns what is at the keys of the document, or nil.
func (d *described) at(keys ...string) any {
	var found any = d.document
	for _, key := range keys {
		object, _ := found.(map[string]any)
		found = object[key]
	}
	return found
}

// exchange is a request to the operators' listener and its answer.
type exchange struct {
	method, path, template string // template is the path in the document
	body                   string
	status                 int
	answer                 string
	answered               http.Header
}

// check holds an exchange to the document.
func (d *described) check(t *testing.T, x *exchange) {
	t.Helper()
	what := x.method + " " + x.path
	operation := []string{"paths", x.template, strings.ToLower(x.method)}
	require.NotNil(t, d.at(operation...), "%s is not in the document", what)
	status := strconv.Itoa(x.status)
	require.NotNil(t, d.at(append(slices.Clone(operation), "responses", status)...),
		"%s: the document has no answer %s: %s", what, status, x.answer)
	contents, _ := d.at(append(slices.Clone(operation), "responses", status, "content")...).(map[string]any)
	if len(contents) == 0 {
		require.Empty(t, x.answer, what)
		return
	}
	for kind := range contents {
		if kind == "application/octet-stream" {
			continue // a profile with debug is text
		}
		require.Equal(t, kind, strings.TrimSpace(strings.Split(x.answered.Get("Content-Type"), ";")[0]), what)
		d.validate(t, x.answer, append(slices.Clone(operation), "responses", status, "content", kind, "schema")...)
	}
	for name := range x.answered {
		if name == "Etag" || name == "Location" || name == "Retry-After" {
			headers, _ := d.at(append(slices.Clone(operation), "responses", status, "headers")...).(map[string]any)
			known := slices.ContainsFunc(slices.Collect(maps.Keys(headers)), func(h string) bool {
				return http.CanonicalHeaderKey(h) == name
			})
			require.True(t, known, "%s: the document does not name the header %s", what, name)
		}
	}
	if x.body != "" && x.status < 300 {
		d.validate(t, x.body, append(slices.Clone(operation), "requestBody", "content", "application/json",
			"schema")...)
	}
}

// validate checks a JSON text by the schema at the keys, if there is one.
func (d *described) validate(t *testing.T, text string, keys ...string) {
	t.Helper()
	if d.at(keys...) == nil {
		return
	}
	pointer := "#"
	for _, key := range keys {
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(key)
	}
	schema, err := d.compiler.Compile(documentURL + pointer)
	require.NoError(t, err)
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	require.NoError(t, err, text)
	require.NoError(t, schema.Validate(value), text)
}

// The document is one of OpenAPI 3.1, by the schema of its authors.
func TestTheOpenAPIDocumentIsOne(t *testing.T) {
	service := testkit.Start(t)
	d := describe(t, service)
	text, err := os.ReadFile("testdata/openapi/openapi-3.1-schema.json")
	require.NoError(t, err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	require.NoError(t, compiler.AddResource("urn:openapi", value))
	schema, err := compiler.Compile("urn:openapi")
	require.NoError(t, err)
	require.NoError(t, schema.Validate(d.document))

	names := map[string]bool{}
	for path, item := range d.at("paths").(map[string]any) {
		for method, operation := range item.(map[string]any) {
			operation := operation.(map[string]any)
			id := operation["operationId"].(string)
			require.False(t, names[id], "%s %s: two operations are named %s", method, path, id)
			names[id] = true
			for _, parameter := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
				require.Contains(t, marshalled(t, operation["parameters"]), `"name":"`+parameter[1]+`"`)
			}
		}
	}
}

func marshalled(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}

// The index has every endpoint that there is, because the listener makes both of the same list.
func TestTheOpenAPIDocumentHasEveryEndpointWithItsAnswers(t *testing.T) {
	service := testkit.Start(t)
	d := describe(t, service)
	var index struct {
		Endpoints []struct{ Method, Path, About, Access string }
	}
	require.NoError(t, json.Unmarshal([]byte(service.Admin("/").Body), &index))
	require.Greater(t, len(index.Endpoints), 14)
	operations := 0
	for _, item := range d.at("paths").(map[string]any) {
		operations += len(item.(map[string]any))
	}
	require.Equal(t, len(index.Endpoints), operations)
	for _, e := range index.Endpoints {
		path := strings.ReplaceAll(e.Path, "...}", "}")
		operation := []string{"paths", path, strings.ToLower(e.Method)}
		require.Equal(t, e.About, d.at(append(operation, "summary")...), e.Path)
		responses, _ := d.at(append(operation, "responses")...).(map[string]any)
		success := 0
		for status := range responses {
			if status < "3" {
				success++
			}
		}
		require.Positive(t, success, "%s %s: its Operation names no success", e.Method, e.Path)
		require.Equal(t, e.Access != "anyone", responses["401"] != nil, e.Path)
		require.Equal(t, e.Access == "operator", responses["403"] != nil, e.Path)
	}
}

// documented asks the operators' listener, and holds each exchange to the document.
type documented struct {
	*testkit.Service
	*described
}

// ask sends a request to a path of the template, with the values of its parameters in turn, and returns the answer.
func (o *documented) ask(t *testing.T, method, template string, names []string, query, body string, header ...string,
) *exchange {
	t.Helper()
	x := &exchange{method: method, template: template, body: body}
	parts := strings.Split(template, "/")
	for i, part := range parts {
		if strings.HasPrefix(part, "{") {
			parts[i], names = strings.TrimPrefix(api.Path(names[0]), "/"), names[1:]
		}
	}
	x.path = strings.Join(parts, "/")
	request, err := http.NewRequestWithContext(t.Context(), method, o.AdminURL+x.path+query, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	got, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	require.NoError(t, err)
	text, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	require.NoError(t, got.Body.Close())
	x.status, x.answer, x.answered = got.StatusCode, string(text), got.Header
	o.check(t, x)
	return x
}

func TestTheEndpointsOfTheListenerAnswerAsTheDocumentSays(t *testing.T) {
	service := testkit.Start(t)
	o := &documented{service, describe(t, service)}
	for _, x := range []struct {
		method, template, query string
		status                  int
	}{
		{"GET", "/", "", 200},
		{"GET", "/metrics", "", 200},
		{"GET", "/healthz", "", 200},
		{"GET", "/readyz", "", 200},
		{"GET", "/admin/openapi.json", "", 200},
		{"GET", "/admin/reload", "", 200},
		{"GET", "/admin/store", "", 200},
		{"GET", "/admin/auth", "", 200},
		{"GET", "/admin/quota", "", 200},
		{"GET", "/admin/projects", "", 200},
		{"GET", "/admin/restrictions", "", 200},
		{"GET", "/admin/auth", "", 200},
		{"POST", "/admin/reload", "", 200},
		{"GET", "/admin/usage", "?from=2026-01-01&limit=5", 200},
		{"GET", "/admin/usage", "?from=x", 400},
		{"GET", "/admin/usage/reasons", "", 200},
		{"GET", "/debug/pprof/", "", 200},
		{"GET", "/debug/pprof/cmdline", "", 200},
		{"GET", "/debug/pprof/symbol", "", 200},
		{"POST", "/debug/pprof/symbol", "", 200},
		{"GET", "/debug/pprof/profile", "?seconds=1", 200},
		{"GET", "/debug/pprof/profile", "?seconds=-1", 400},
		{"GET", "/debug/pprof/trace", "?seconds=0.1", 200},
	} {
		require.Equal(t, x.status, o.ask(t, x.method, x.template, nil, x.query, "").status, "%v", x)
	}
	require.Equal(t, 200, o.ask(t, "GET", "/debug/pprof/{profile}", []string{"heap"}, "?debug=1", "").status)
	require.NoError(t, service.Set("admin.token=t0ken"))
	for _, template := range []string{"/", "/admin/usage", "/admin/reload", "/debug/pprof/profile"} {
		require.Equal(t, 401, o.ask(t, "GET", template, nil, "", "").status, template)
	}
	require.Equal(t, 403, o.ask(t, "POST", "/admin/reload", nil, "", "", "Sec-Fetch-Site", "cross-site").status)
	require.Equal(t, 200, o.ask(t, "GET", "/admin/usage", nil, "", "", "Authorization", "Bearer t0ken").status)
}
