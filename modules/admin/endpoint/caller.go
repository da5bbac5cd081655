package endpoint

import "context"

// Caller is who has sent a request, as far as the listener knows. The name is what the sender says of himself.
type Caller struct {
	// Name is the user name of basic authentication, or else the header X-Capture-Actor. It proves nothing: admin.token
	// is one for all. It is at most MaxName bytes long.
	Name string
	// Login says why the listener admitted the sender: admin.token, loopback, or none for endpoints that ask nothing.
	Login string
	// Address is the address of the connection, without the port.
	Address string
}

// ActorHeader is the header by which a client says who uses it.
const ActorHeader = "X-Capture-Actor"

// MaxName is how long a name may be, in bytes. The rest is cut off.
const MaxName = 128

type callerKey struct{}

// WithCaller returns a context that has the caller. The listener calls it.
func WithCaller(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// CallerOf returns who has sent the request with this context.
func CallerOf(ctx context.Context) Caller {
	caller, _ := ctx.Value(callerKey{}).(Caller)
	return caller
}
