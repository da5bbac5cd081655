package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/store"
)

// TypeProblem is the content type of a Problem.
const TypeProblem = "application/problem+json"

// Problem is an answer that is no success, in the form of RFC 9457. It is an error, so that a handler can return it.
type Problem struct { //nolint:errname // RFC 9457 calls it so
	Type   string  `json:"type" doc:"The kind of problem, as a URN that programs may rely on."`
	Title  string  `json:"title" doc:"The kind of problem in words."`
	Status int     `json:"status" doc:"The status of the answer."`
	Detail string  `json:"detail" doc:"What is wrong, and what to do."`
	Faults []Fault `json:"faults,omitempty" doc:"The faults of the fields of a record."`

	retryAfter time.Duration
}

// Fault is what is wrong with a field.
type Fault struct {
	Field   string `json:"field" doc:"The field of the record."`
	Message string `json:"message" doc:"What is wrong with it, and what to do."`
}

func (p *Problem) Error() string { return p.Detail }

// kinds are the kinds of problems, by status: the words of their types, and their titles.
var kinds = map[int]struct{ word, title string }{
	http.StatusBadRequest:            {"bad-request", "The request is not understood"},
	http.StatusUnauthorized:          {"unauthorized", "The token of the operators is missing or wrong"},
	http.StatusForbidden:             {"forbidden", "The sender may not do this"},
	http.StatusNotFound:              {"not-found", "There is no such thing"},
	http.StatusMethodNotAllowed:      {"method-not-allowed", "The path has no such method"},
	http.StatusConflict:              {"conflict", "The thing does not allow this now"},
	http.StatusPreconditionFailed:    {"changed", "The record is not what the request says"},
	http.StatusRequestEntityTooLarge: {"too-large", "The body is too large"},
	http.StatusUnsupportedMediaType:  {"unsupported-type", "The body is not JSON"},
	http.StatusMisdirectedRequest:    {"wrong-host", "The listener does not answer to this host"},
	http.StatusUnprocessableEntity:   {"invalid", "The record has faults"},
	http.StatusPreconditionRequired:  {"precondition-required", "The request does not say what it changes"},
	http.StatusInternalServerError:   {"internal", "The service has failed"},
	http.StatusServiceUnavailable:    {"unavailable", "The service cannot do this now"},
}

// Statuses returns the statuses of all kinds of problems.
func Statuses() []int {
	var statuses []int
	for status := range kinds {
		statuses = append(statuses, status)
	}
	return statuses
}

// URN returns the type of the problems with a status.
func URN(status int) string { return "urn:capture:problem:" + kinds[status].word }

// Problemf makes a problem with one of the Statuses.
func Problemf(status int, format string, args ...any) *Problem {
	return &Problem{Type: URN(status), Title: kinds[status].title, Status: status, Detail: fmt.Sprintf(format, args...)}
}

// Invalid makes the problem of a record with faults. err is what a check of the record has returned.
func Invalid(err error) *Problem {
	p := Problemf(http.StatusUnprocessableEntity, "mend the fields that faults lists, and send the record again")
	p.Faults = FaultsOf(err)
	return p
}

// FaultsOf returns the faults in an error of a record's check.
func FaultsOf(err error) []Fault {
	var all *configs.FaultsError
	if !errors.As(err, &all) {
		return []Fault{{Message: err.Error()}}
	}
	faults := make([]Fault, len(all.Faults))
	for i, fault := range all.Faults {
		faults[i] = Fault{Field: fault.Key, Message: fault.Message}
	}
	return faults
}

// retrySoon is when a client should come again if the store or the audit log does not take a change.
const retrySoon = time.Second

// ProblemOf returns the problem that an error of a handler is.
func ProblemOf(err error) *Problem {
	var problem *Problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &tooLarge):
		return Problemf(http.StatusRequestEntityTooLarge, "the body may have at most %d bytes", tooLarge.Limit)
	case errors.Is(err, audit.ErrNotWritten):
		problem = Problemf(http.StatusServiceUnavailable, "nothing was changed, because changes are made only if they "+
			"can be noted: %s: mend admin.audit.file, or its disk", err)
	case errors.Is(err, store.ErrUnavailable):
		problem = Problemf(http.StatusServiceUnavailable, "%s: see /readyz, and store.redis.addrs", err)
	case errors.Is(err, store.ErrConflict):
		return Problemf(http.StatusPreconditionFailed, "%s: look at it again, and make the change to what is there now",
			err)
	default:
		return Problemf(http.StatusInternalServerError, "this failed: the log says why")
	}
	problem.retryAfter = retrySoon
	return problem
}

// Write answers with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds()))))
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // it has a form in JSON
	}
	w.Header().Set("Content-Type", TypeProblem)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that has left gets nothing
}
