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

// listing is the entry of one endpoint in the index.
type listing struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	About  string `json:"about"`
	Access string `json:"access"`
}

// Link reports whether a person can open the path in a browser.
func (l listing) Link() bool { return l.Method == http.MethodGet && !strings.Contains(l.Path, "{") }

// index is the body of the index.
type index struct {
	Endpoints []listing `json:"endpoints"`
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

// newIndex returns the endpoint that lists the other endpoints and itself.
func newIndex(others []endpoint.Endpoint) endpoint.Endpoint {
	own := endpoint.Endpoint{
		Pattern: "GET /{$}",
		About:   "This list: HTML for a browser, else JSON.",
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
		_, _ = io.WriteString(w, asHTML) // it fails only when the client has left
	})
	return own
}
