package posthog

import (
	"net/http"

	"github.com/opencapture/capture/modules/events"
)

// Response is the answer to a request.
type Response struct {
	Status int
	// ContentType is empty where there is no body.
	ContentType string
	Body        string
	// Retry is set when trying again later is right: the answer then says when.
	Retry bool
}

const (
	typeJSON = "application/json"
	typeText = "text/plain; charset=utf-8"
)

// success answers that every event is safe, or was not meant to be kept. A beacon has nobody who reads the answer.
func success(beacon bool) Response {
	if beacon {
		return Response{Status: http.StatusNoContent}
	}
	return Response{Status: http.StatusOK, ContentType: typeJSON, Body: `{"status":"Ok"}`}
}

// answer maps a batch's outcomes. Anything that failed makes the client send all of it again; otherwise one good event makes
// the answer a success, since the bad ones would be as bad the next time.
func (h *Handler) answer(batch *events.Batch, beacon bool) Response {
	good := false
	var rejected, failed error
	for i := range batch.Events {
		switch outcome := &batch.Events[i].Outcome; outcome.State {
		case events.StateAccepted:
			good = true
		case events.StateDropped:
			// The protocol takes this one out before it looks at the rest.
			good = good || outcome.Reason != events.ReasonPerformanceEvent
		case events.StateRejected:
			if rejected == nil {
				rejected = outcome.Err
			}
		default:
			if failed == nil {
				failed = outcome.Err
			}
		}
	}
	switch {
	case failed != nil && events.CodeOf(failed) == events.Internal:
		return Refusal(failed)
	case failed != nil:
		return Refusal(errTransient)
	case rejected != nil && (!good || h.config.BatchPolicy == PolicyAllOrNothing):
		if events.CodeOf(rejected) == events.TooLarge {
			rejected = events.Errorf(events.TooLarge, "maximum event size exceeded: %w", rejected)
		}
		return Refusal(rejected)
	default:
		return success(beacon)
	}
}

var errTransient = events.Errorf(events.Unavailable, "transient error, please retry")

// Refusal maps an error's code to a status. What an internal error says stays inside.
func Refusal(err error) Response {
	code, body := events.CodeOf(err), err.Error()
	status := http.StatusInternalServerError
	switch code {
	case events.Invalid:
		status = http.StatusBadRequest
	case events.Unauthorized:
		status = http.StatusUnauthorized
	case events.SlowClient:
		status = http.StatusRequestTimeout
	case events.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case events.Unavailable:
		status = http.StatusServiceUnavailable
	default:
		body = "internal server error"
	}
	return Response{Status: status, ContentType: typeText, Body: body, Retry: code == events.Unavailable}
}
