// Package endpoint is the port by which a module gives an endpoint of its own to the operators' listener
// (modules/admin). Neither module imports the other.
package endpoint

import "net/http"

// Access says who may use an endpoint. The zero value is the narrowest access.
type Access uint8

// The kinds of access, the narrowest first.
const (
	// Operator is for endpoints that change something or cost something, such as a profile. The request must show
	// admin.token. If no token is set, it must come from this machine. A request that another site makes a browser send
	// is refused, even a GET.
	Operator Access = iota
	// Reader is for endpoints that show the inside of the service and neither change nor cost anything. The request
	// must show admin.token. If no token is set, everybody who reaches the listener may read.
	Reader
	// Anyone is for endpoints that show nothing but health and metrics.
	Anyone
)

var accessNames = [...]string{Operator: "operator", Reader: "reader", Anyone: "anyone"}

// Valid reports whether the access is one of the constants above.
func (a Access) Valid() bool { return int(a) < len(accessNames) }

func (a Access) String() string {
	if !a.Valid() {
		return "unknown"
	}
	return accessNames[a]
}

// Endpoint is one of the operators' endpoints.
type Endpoint struct {
	// Pattern is a method and a path in the form of net/http's ServeMux: "POST /admin/reload", "GET
	// /admin/keys/{name}". A GET also answers HEAD. If two endpoints would answer the same request, the service does
	// not start.
	Pattern string
	// About says in a sentence what the endpoint does. The index at / shows it.
	About string
	// Access says who may use the endpoint. The listener refuses all other requests before it calls the handler.
	Access Access
	// Handler answers. The context of its request ends when the client leaves and when the service stops. The body is
	// limited to 1 MiB in size and to admin.read_timeout in time. If the handler panics, the client gets a 500 and the
	// panic is logged.
	Handler http.Handler
	// Operation describes the endpoint to programs.
	Operation Operation
}
