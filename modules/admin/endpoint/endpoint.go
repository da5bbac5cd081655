// Package endpoint is the port by which a module gives the operators' listener (modules/admin) an endpoint of its own.
// Neither imports the other.
package endpoint

import "net/http"

// Access says who may use an endpoint. An Endpoint that does not say it has the narrowest.
type Access uint8

// The kinds of access, the narrowest first.
const (
	// Operator is who shows admin.token, or who is on this machine if there is no token. It is for what changes something
	// or costs something, such as a profile. A request that another site has a browser send is refused, also a GET.
	Operator Access = iota
	// Reader is who shows admin.token, or anyone who reaches the listener if there is no token. It is for what shows the
	// inside of the service, and changes and costs nothing.
	Reader
	// Anyone is for what shows nothing but health and metrics.
	Anyone
)

var accessNames = [...]string{Operator: "operator", Reader: "reader", Anyone: "anyone"}

// Valid reports whether the access is one of those above.
func (a Access) Valid() bool { return int(a) < len(accessNames) }

func (a Access) String() string {
	if !a.Valid() {
		return "unknown"
	}
	return accessNames[a]
}

// Endpoint is one of the operators' endpoints.
type Endpoint struct {
	// Pattern is a method and a path as net/http's ServeMux has them: "POST /admin/reload", "GET /admin/keys/{name}". A
	// GET is also a HEAD. Two endpoints that would answer one request are an error at start.
	Pattern string
	// About says in a sentence what the endpoint does; the index at / shows it.
	About string
	// Access says who may use the endpoint. Who may not is answered before the handler is asked.
	Access Access
	// Handler answers. The context of its request ends with the client, and when the service stops. A body is limited to a
	// MiB and to admin.read_timeout. What the handler panics with is answered 500 and logged.
	Handler http.Handler
}
