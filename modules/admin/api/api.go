package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/endpoint"
)

// API makes endpoints. It is safe for concurrent use.
type API struct {
	audit *audit.Log
	log   *zap.Logger
}

// New returns an API whose changes are noted in the audit log, which is nil for an API that changes nothing. The other
// log has the errors that clients do not see.
func New(auditLog *audit.Log, log *zap.Logger) *API { return &API{audit: auditLog, log: log} }

// Operation is one endpoint of an API.
type Operation struct {
	// Pattern, About and Access are those of an endpoint.Endpoint.
	Pattern, About string
	Access         endpoint.Access
	// Parameters are those of the query, and those of the path that are to be described. A parameter of the query that
	// is not listed is refused.
	Parameters []endpoint.Parameter
	// Body is any value of the type that the body has. Nil: there is none.
	Body any
	// Answers are the successes. Problems are added for the statuses that Problems lists, and for those that every
	// operation has.
	Answers  []endpoint.Answer
	Problems []int
	// Handle answers. An error that is no *Problem is answered as what it wraps: store.ErrUnavailable,
	// store.ErrConflict, audit.ErrNotWritten. Any other is logged and answered with 500.
	Handle func(*Call) (*Answer, error)
}

// Answer is the success of an operation.
type Answer struct {
	Status int
	// Body is answered as JSON. Nil: the answer has no body.
	Body any
	// ETag is the tag of the record in the body, Location the path of a record that was made. Either may be empty.
	ETag, Location string
}

// OK is the answer 200 with a body.
func OK(body any) *Answer { return &Answer{Status: http.StatusOK, Body: body} }

// Endpoint returns the endpoint of an operation.
func (a *API) Endpoint(op Operation) endpoint.Endpoint {
	return endpoint.Endpoint{
		Pattern: op.Pattern, About: op.About, Access: op.Access, Operation: op.describe(),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.serve(&op, w, r) }),
	}
}

func (a *API) serve(op *Operation, w http.ResponseWriter, r *http.Request) {
	call, err := newCall(a, op, r)
	if err == nil && op.Body == nil && op.changes() {
		err = call.refuseBody()
	}
	var answer *Answer
	if err == nil {
		answer, err = op.Handle(call)
	}
	if err != nil {
		problem := ProblemOf(err)
		if problem.Status == http.StatusInternalServerError {
			a.log.Error("a request of an operator failed", zap.String("endpoint", op.Pattern), zap.Error(err))
		}
		problem.Write(w)
		return
	}
	answer.write(w)
}

func (a *Answer) write(w http.ResponseWriter) {
	header := w.Header()
	if a.ETag != "" {
		header.Set("ETag", a.ETag)
	}
	if a.Location != "" {
		header.Set("Location", a.Location)
	}
	header.Set("Cache-Control", "no-store")
	if a.Body == nil {
		w.WriteHeader(a.Status)
		return
	}
	body, err := json.Marshal(a.Body)
	if err != nil {
		panic(err) // the types of an API have a form in JSON
	}
	header.Set("Content-Type", "application/json")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(a.Status)
	_, _ = w.Write(append(body, '\n')) // a client that has left gets nothing
}

// changes reports whether the operation changes something.
func (op *Operation) changes() bool { return !strings.HasPrefix(op.Pattern, http.MethodGet+" ") }

var errNoJSON = errors.New("the body is empty")
