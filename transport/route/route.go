package route

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

// Group is a set of routes that an installation serves or not (transport.serve).
type Group string

// The groups of the stock modules.
const (
	Analytics  Group = "analytics"
	Recordings Group = "recordings"
	AI         Group = "ai"
	Logs       Group = "logs"
	Setup      Group = "setup"
)

// Groups returns the groups of the stock modules.
func Groups() []Group { return []Group{Analytics, Recordings, AI, Logs, Setup} }

// Route is a path that a module serves.
type Route struct {
	// Group decides whether an installation serves the route. A group that is not one of Groups is always served.
	Group Group

	// Path is the path without a trailing slash; it is served with one, too. A segment that begins with a colon stands
	// for any one segment, and a last segment * for any rest.
	Path string

	// Methods are those that reach Handle. OPTIONS, and HEAD where there is GET, are answered by the server where they
	// are not among them. A GET that carries a body is taken for a POST where both are.
	Methods []string

	// MaxBody is the largest body on the wire, in bytes, by the configuration that judges the request (nil: the one in
	// force). Without a MaxBody it is what transport.max_body says. More than half of transport.max_in_flight it can
	// not be.
	MaxBody func(*configs.View) int64

	// Token returns the project's token of a request whose head says it, without a look at the body. With it the gates can
	// refuse a request before its body is read. Nil: the body has the token.
	Token func(request *Request) (string, *events.Error)

	// Handle answers a request. The context is not the client's: a request that came whole is worth keeping, whoever
	// waits.
	Handle func(ctx context.Context, request *Request) Response

	// Refuse answers a request whose body could not be read; nil is Refusal.
	Refuse func(request *Request, err error) Response
}

// Request is what a protocol needs of an HTTP request. All of it is valid until the handler has returned; whoever needs
// it longer copies it.
type Request struct {
	Method          string
	Path            string
	RawQuery        string
	ContentType     string
	ContentEncoding string
	// Header has the other headers; nil is none.
	Header Header
	// Body is the body as it came over the wire.
	Body []byte
	// ClientIP is the address of the client behind the proxies that are trusted.
	ClientIP  string
	RequestID string
	// TraceParent is the trace that the request belongs to, as in events.Batch.
	TraceParent string
	// Received is the service's now for all that the request holds.
	Received time.Time
	// Gates decide whether the caller may send, Caller is what they were told before the body was read.
	Gates  events.Gates
	Caller events.Caller
	// Config is the configuration that judges the request, from beginning to end; nil: the one in force.
	Config *configs.View
}

// Describe writes into a batch what the request says of all its events, whatever the protocol.
func (r *Request) Describe(batch *events.Batch) {
	batch.Received, batch.ClientIP, batch.RequestID = r.Received, r.ClientIP, r.RequestID
	batch.TraceParent, batch.Config = r.TraceParent, r.Config
}

// Admit asks the gates about the batch's token, unless they know it already, and says in the batch whom the token belongs
// to. An error refuses the request; the events that were pending have ended by it. The protocol calls Admit when the batch
// has its token and before it is processed.
func (r *Request) Admit(ctx context.Context, batch *events.Batch) error {
	if len(r.Gates) == 0 {
		return nil
	}
	if r.Caller.Token != batch.Token {
		r.Caller.Token = batch.Token
		if err := r.Gates.Admit(ctx, &r.Caller); err != nil {
			code := events.CodeOf(err)
			for i := range batch.Events {
				if code == events.Unavailable || code == events.Internal {
					batch.Events[i].Fail(events.ReasonNotAdmitted, err)
				} else {
					batch.Events[i].Reject(events.ReasonNotAdmitted, err)
				}
			}
			return err
		}
	}
	batch.Project = r.Caller.Project
	return nil
}

// Fixed is a limit that is the same in every configuration.
func Fixed(limit int64) func(*configs.View) int64 { return func(*configs.View) int64 { return limit } }

// Get returns a header's value, or "". It is valid as long as the request is.
func (r *Request) Get(name string) string {
	if r.Header == nil {
		return ""
	}
	return string(r.Header.Peek(name))
}

// Header is a request's headers; names are not case-sensitive.
type Header interface {
	Peek(name string) []byte
	// VisitAll calls visit for every header, in any order; what it hands over is valid as long as the request is.
	VisitAll(visit func(name, value []byte))
}

// Headers is a Header made by hand, for callers without a server, such as tests. Its names are looked up as they are
// written.
type Headers map[string]string

var _ Header = Headers(nil)

// Peek implements Header.
func (h Headers) Peek(name string) []byte { return []byte(h[name]) }

// VisitAll implements Header.
func (h Headers) VisitAll(visit func(name, value []byte)) {
	for name, value := range h {
		visit([]byte(name), []byte(value))
	}
}

// Response is the answer to a request.
type Response struct {
	Status int
	// ContentType is empty where there is no body.
	ContentType string
	Body        string
	// Bytes is the body in the place of Body where it is large: it is not copied. Done, if there is one, is then called
	// once, when the answer has been written or given up.
	Bytes []byte
	Done  func()
	// Retry is set when trying again later is right: the answer then says when, RetryAfter from now or else as
	// configured.
	Retry      bool
	RetryAfter time.Duration
	// Ack is what made the request's events safe; the answer names it.
	Ack events.Ack
	// Header has further headers of the answer; a name may be there more than once.
	Header []Field
}

// Field is one header of an answer.
type Field struct{ Name, Value string }

// The content types of the protocols' answers.
const (
	TypeJSON = "application/json"
	TypeText = "text/plain; charset=utf-8"
)

// About adds to the answer to a batch what is the same in every protocol: what made its events safe, and how long the
// sink asks to wait. It is called when the batch has been processed.
func (r Response) About(batch *events.Batch) Response {
	r.RetryAfter = cmp.Or(batch.RetryAfter, r.RetryAfter)
	if r.Status < http.StatusBadRequest {
		r.Ack = batch.Ack
	}
	return r
}
