package admin

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/admin/openapi"
)

// listing is the entry of one endpoint in the index.
type listing struct {
	Method string `json:"method" doc:"The method of HTTP."`
	Path   string `json:"path" doc:"The path, with its parameters in braces."`
	About  string `json:"about" doc:"What the endpoint does."`
	Access string `json:"access" doc:"Who may use it." enum:"operator,reader,anyone"`
}

// Link reports whether a person can open the path in a browser.
func (l listing) Link() bool { return l.Method == http.MethodGet && !strings.Contains(l.Path, "{") }

// index is the body of the index.
type index struct {
	Endpoints []listing `json:"endpoints" doc:"All endpoints, in the order of their paths."`
}

// html writes the index for a person. (html/template would make the binary a quarter larger: the linker keeps every
// method of every type in a program with a template.)
func (x index) html() string {
	var page strings.Builder
	page.WriteString("<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Capture</title>\n" +
		"<h1>Capture: operators' endpoints</h1>\n<table>\n<tr><th>method<th>path<th>what it does<th>who may\n")
	for _, e := range x.Endpoints {
		path := html.EscapeString(e.Path)
		if e.Link() {
			path = `<a href="` + path + `">` + path + "</a>"
		}
		fmt.Fprintf(&page, "<tr><td>%s<td>%s<td>%s<td>%s\n",
			html.EscapeString(e.Method), path, html.EscapeString(e.About), html.EscapeString(e.Access))
	}
	page.WriteString("</table>\n</html>\n")
	return page.String()
}

// newIndexes returns the endpoints that tell of all endpoints: the list and the document.
func newIndexes(version string, others []endpoint.Endpoint) []endpoint.Endpoint {
	list, document := listEndpoint(), documentEndpoint()
	all := slices.Concat(others, []endpoint.Endpoint{list, document})
	list.Handler, document.Handler = listOf(all), documentOf(version, all)
	return []endpoint.Endpoint{list, document}
}

func listEndpoint() endpoint.Endpoint {
	return endpoint.Endpoint{
		Pattern: "GET /{$}",
		About:   "This list: HTML for a browser, else JSON.",
		Access:  endpoint.Reader,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{
			{Status: http.StatusOK, About: "The list.", Of: index{}},
		}},
	}
}

func listOf(all []endpoint.Endpoint) http.Handler {
	var body index
	for i := range all {
		e := &all[i]
		method, path, _ := strings.Cut(e.Pattern, " ")
		body.Endpoints = append(body.Endpoints, listing{
			Method: method, Path: strings.TrimSuffix(path, "{$}"), About: e.About, Access: e.Access.String(),
		})
	}
	slices.SortFunc(body.Endpoints, func(a, b listing) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method))
	})
	asHTML := body.html()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			writeJSON(w, http.StatusOK, body)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(w, asHTML) // it fails only when the client has left
	})
}

func documentEndpoint() endpoint.Endpoint {
	return endpoint.Endpoint{
		Pattern: "GET /admin/openapi.json",
		About:   "The description of all endpoints for programs, in the form of OpenAPI 3.1.",
		Access:  endpoint.Reader,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{
			{Status: http.StatusOK, About: "The document.", Type: "application/json"},
		}},
	}
}

func documentOf(version string, all []endpoint.Endpoint) http.Handler {
	document := openapi.Document(openapi.Info{
		Title: "Capture: operators' endpoints", Version: cmp.Or(version, "unknown"),
		Description: "What operators see and change, on admin.listen.",
	}, all, api.Problem{})
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(document) // it fails only when the client has left
	})
}
