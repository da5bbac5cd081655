package api

import (
	"net/http"
	"slices"

	"github.com/opencapture/capture/modules/admin/endpoint"
)

// abouts says when an operation answers with a problem.
var abouts = map[int]string{
	http.StatusBadRequest:            "A parameter or the body cannot be read.",
	http.StatusNotFound:              "There is no such thing.",
	http.StatusConflict:              "The thing does not allow this now.",
	http.StatusPreconditionFailed:    "The record is not what If-Match or If-None-Match says.",
	http.StatusRequestEntityTooLarge: "The body is larger than 1 MiB.",
	http.StatusUnsupportedMediaType:  "The body is not application/json.",
	http.StatusUnprocessableEntity:   "The record has faults.",
	http.StatusPreconditionRequired:  "If-Match and If-None-Match are both missing.",
	http.StatusServiceUnavailable:    "The shared state or the audit log does not answer.",
}

// describe returns what the document says of the operation.
func (op *Operation) describe() endpoint.Operation {
	answers := slices.Clone(op.Answers)
	statuses := append(slices.Clone(op.Problems), http.StatusBadRequest)
	if op.Body != nil {
		statuses = append(statuses, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if op.changes() {
		statuses = append(statuses, http.StatusServiceUnavailable)
	}
	slices.Sort(statuses)
	for _, status := range slices.Compact(statuses) {
		answer := endpoint.Answer{Status: status, About: abouts[status], Of: Problem{}, Type: TypeProblem}
		if status == http.StatusServiceUnavailable {
			answer.Headers = map[string]string{"Retry-After": "Seconds after which to ask again."}
		}
		answers = append(answers, answer)
	}
	return endpoint.Operation{Parameters: op.Parameters, Body: op.Body, Answers: answers}
}

// Preconditions are the parameters of an operation that changes a record.
func Preconditions() []endpoint.Parameter {
	return []endpoint.Parameter{
		{In: endpoint.Header, Name: "If-Match", About: "The ETag of the record that the client has seen; or * for " +
			"whatever is there."},
		{In: endpoint.Header, Name: "If-None-Match", About: "* to make a record that does not exist yet."},
	}
}

// The parameters of a list.
const (
	limitName = "limit"
	afterName = "after"

	usualLimit = 100
	maxLimit   = 1000
)

// Paging are the parameters of a list in pages.
func Paging() []endpoint.Parameter {
	return []endpoint.Parameter{
		{In: endpoint.Query, Name: limitName, Of: 0, About: "How many items the page has: 1 to 1000, else 100."},
		{In: endpoint.Query, Name: afterName, About: "The word next of the page before. Without it, the list begins."},
	}
}
