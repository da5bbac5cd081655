package admin

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/opencapture/capture/modules/admin/endpoint"
)

// listing is what the index says about an endpoint.
type listing struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	About  string `json:"about"`
	Access string `json:"access"`
}

// Link reports whether a person can follow the path.
func (l listing) Link() bool { return l.Method == http.MethodGet && !strings.Contains(l.Path, "{") }

// index is the body of the index.
type index struct {
	Endpoints []listing `json:"endpoints"`
}

// html writes the index for a person. (html/template would do it too, and make the binary a quarter larger: a program
// with a template keeps every method of every type.)
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

// newIndex returns the endpoint that lists the others and itself.
func newIndex(others []endpoint.Endpoint) endpoint.Endpoint {
	own := endpoint.Endpoint{
		Pattern: "GET /{$}",
		About:   "This list; as JSON for who does not accept text/html.",
		Access:  endpoint.Reader,
	}
	var body index
	for _, e := range slices.Concat(others, []endpoint.Endpoint{own}) {
		method, path, _ := strings.Cut(e.Pattern, " ")
		body.Endpoints = append(body.Endpoints, listing{
			Method: method, Path: strings.TrimSuffix(path, "{$}"), About: e.About, Access: e.Access.String(),
		})
	}
	slices.SortFunc(body.Endpoints, func(a, b listing) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method))
	})
	asHTML := body.html()
	own.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			writeJSON(w, http.StatusOK, body)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(w, asHTML) // an error is the client's, who has left
	})
	return own
}
