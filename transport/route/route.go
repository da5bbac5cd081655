package route

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

// Group is a set of routes that an installation serves or leaves out (transport.serve).
type Group string

// The groups of the stock modules.
const (
	Analytics  Group = "analytics"
	Recordings Group = "recordings"
	AI         Group = "ai"
	Logs       Group = "logs"
	Reports    Group = "reports"
	Setup      Group = "setup"
)

// Groups returns the groups of the stock modules.
func Groups() []Group { return []Group{Analytics, Recordings, AI, Logs, Reports, Setup} }

// Rest is the Path of the route that takes what no other route takes.
const Rest = "/*"

// Route is a path that a module serves.
type Route struct {
	// Group decides whether an installation serves the route. A group that is not one of Groups is always served.
	Group Group

	// Path is the path without a trailing slash; the server serves it with one, too. A segment that begins with a colon
	// stands for any one segment, and a last segment * for any rest. Rest stands for every path that no other route of
	// a served group has; at most one route of a build has it.
	Path string

	// Methods are the methods that reach Handle. If OPTIONS is not among them, the server answers it; so it does with
	// HEAD where GET is among them. If GET and POST are both among them, a GET that carries a body is taken for a POST,
	// except on Rest, which takes what it does not know as it comes.
	Methods []string

	// MaxBody returns the largest body on the wire, in bytes, by the configuration that judges the request (nil: the
	// one in force). A nil MaxBody stands for transport.max_body. The server takes no body that is larger than three
	// eighths of transport.max_in_flight, or than the share of an address, whatever MaxBody returns.
	MaxBody func(*configs.View) int64

	// Token returns the project's token of a request whose head has it, without a look at the body. With the token the
	// gates can refuse a request before the server reads its body. Nil: the token is in the body.
	Token func(request *Request) (string, *events.Error)

	// Handle answers a request. ctx goes on when the client has left: a request that has come whole is worth keeping,
	// whether or not somebody waits for the answer.
	Handle func(ctx context.Context, request *Request) Response

	// Refuse answers a request that the gates refused, or whose body could not be read; nil is Refusal.
	Refuse func(request *Request, err error) Response
}

// Request is the part of an HTTP request that a protocol needs. It is valid until the handler has returned; a handler
// that keeps a part of it longer copies that part.
type Request struct {
	Method          string
	Path            string
	RawQuery        string
	ContentType     string
	ContentEncoding string
	// Header has the other headers; nil has none.
	Header Header
	// Body is the body as it came over the wire.
	Body []byte
	// ClientIP is the address of the client behind the trusted proxies.
	ClientIP string
	// Secure is set if a trusted proxy says that the client reached it by TLS (X-Forwarded-Proto).
	Secure    bool
	RequestID string
	// TraceParent is the trace that the request belongs to, as in events.Batch.
	TraceParent string
	// Received is when the head of the request was there: the service's now for everything in it, whatever time the
	// body took.
	Received time.Time
	// Gates decide whether the caller may send. Caller is what they were told before the body was read, and whom they
	// found the token to belong to.
	Gates  events.Gates
	Caller events.Caller
	// Config is the configuration that judges the request from beginning to end; nil: the one in force.
	Config *configs.View
}

// Describe writes into a batch what the request says of all its events in every protocol.
func (r *Request) Describe(batch *events.Batch) {
	batch.Received, batch.ClientIP, batch.RequestID = r.Received, r.ClientIP, r.RequestID
	batch.TraceParent, batch.Config = r.TraceParent, r.Config
}

// Admit asks the gates about the batch's token, unless they have been asked about it already, and writes into the batch
// whom the token belongs to. With an error the request is refused, and Admit has ended the pending events. The protocol
// calls Admit when the batch has its token and before the batch is processed.
func (r *Request) Admit(ctx context.Context, batch *events.Batch) error {
	if len(r.Gates) == 0 {
		return nil
	}
	if r.Caller.Token != batch.Token {
		r.Caller.Token, r.Caller.Project = batch.Token, nil
		if err := r.Gates.Admit(ctx, &r.Caller); err != nil {
			code, reason := events.CodeOf(err), events.ReasonOf(err, events.ReasonNotAdmitted)
			for i := range batch.Events {
				if code == events.Unavailable || code == events.Internal {
					batch.Events[i].Fail(reason, err)
				} else {
					batch.Events[i].Reject(reason, err)
				}
			}
			return err
		}
	}
	batch.Project = r.Caller.Project
	return nil
}

// Fixed returns a MaxBody that is the same in every configuration.
func Fixed(limit int64) func(*configs.View) int64 { return func(*configs.View) int64 { return limit } }

// Get returns a header's value, or "".
func (r *Request) Get(name string) string {
	if r.Header == nil {
		return ""
	}
	return string(r.Header.Peek(name))
}

// Header is the headers of a request. Their names are not case-sensitive.
type Header interface {
	Peek(name string) []byte
	// VisitAll calls visit for every header, in any order. The name and the value are valid as long as the request is.
	VisitAll(visit func(name, value []byte))
}

// Headers is a Header made by hand, for callers without a server, such as tests. It looks names up as they are written.
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
	// Bytes is a large body in the place of Body. The server does not copy it, and calls Done once, if Done is set,
	// when it has written the answer or given it up.
	Bytes []byte
	Done  func()
	// Retry is set when the client should try again later. The answer then says when: RetryAfter from now, or for 0
	// after transport.retry_after.
	Retry      bool
	RetryAfter time.Duration
	// Ack is what made the request's events safe. The answer names it.
	Ack events.Ack
	// Header has further headers of the answer. A name may occur more than once.
	Header []Field
}

// Field is one header of an answer.
type Field struct{ Name, Value string }

// The content types of the protocols' answers.
const (
	TypeJSON = "application/json"
	TypeText = "text/plain; charset=utf-8"
)

// About adds to a batch's answer what is the same in every protocol: what made the events safe, how long the client is
// to wait, and where its project stands with its limits. The protocol calls About when the batch has been processed.
func (r Response) About(batch *events.Batch) Response {
	r.RetryAfter = cmp.Or(batch.RetryAfter, r.RetryAfter)
	if r.Status < http.StatusBadRequest {
		r.Ack = batch.Ack
	}
	r.tell(batch.Standings.All())
	return r
}
