// Package endpoint is the port by which a module gives the operators' listener (modules/admin) an endpoint of its own.
// Neither imports the other.
package endpoint

import "net/http"

// Access says who may use an endpoint.
type Access uint8

// The kinds of access, the widest first.
const (
	// Anyone may: what shows nothing but health and metrics.
	Anyone Access = iota
	// Reader is who shows admin.token, or anyone who reaches the listener if there is no token: what shows the inside of
	// the service, and changes and costs nothing.
	Reader
	// Operator is who shows admin.token, or who is on this machine if there is no token: what changes something or costs
	// something. Requests of a browser from another site are refused.
	Operator
)

// Endpoint is one of the operators' endpoints.
type Endpoint struct {
	// Pattern is as net/http's ServeMux has it, with a method: "POST /admin/reload". Two endpoints with one pattern are an
	// error at start.
	Pattern string
	// About says in a sentence what the endpoint does; the index at / shows it.
	About string
	// Access says who may use the endpoint.
	Access Access
	// Handler answers. Its request's context ends with the client.
	Handler http.Handler
}
