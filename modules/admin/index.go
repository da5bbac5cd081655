package admin

import (
	"cmp"
	"html/template"
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

var page = template.Must(template.New("index").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Capture</title>
<h1>Capture: operators' endpoints</h1>
<table>
<tr><th>method<th>path<th>what it does<th>who may
{{- range .Endpoints}}
<tr><td>{{.Method}}<td>{{if .Link}}<a href="{{.Path}}">{{.Path}}</a>{{else}}{{.Path}}{{end -}}
<td>{{.About}}<td>{{.Access}}
{{- end}}
</table>
</html>
`))

// newIndex returns the endpoint that lists the other endpoints and itself.
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
	own.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			writeJSON(w, http.StatusOK, body)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := page.Execute(w, body); err != nil {
			panic(http.ErrAbortHandler) // the client has left
		}
	})
	return own
}
