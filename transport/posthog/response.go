package posthog

import (
	"net/http"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/route"
)

// success answers that every event is safe, or was not meant to be kept. A beacon has nobody who reads the answer.
func success(beacon bool) route.Response {
	if beacon {
		return route.Response{Status: http.StatusNoContent}
	}
	return route.Response{Status: http.StatusOK, ContentType: route.TypeJSON, Body: `{"status":"Ok"}`}
}

// What a client is told that it has used up its quota of.
const (
	resourceEvents     = "events"
	resourceRecordings = "recordings"
)

// answer maps a batch's outcomes. Anything that failed makes the client send all of it again; otherwise one good event makes
// the answer a success, since the bad ones would be as bad the next time. Where the quota has taken all that was good, the
// answer says so: current SDKs then pause.
func (h *Handler) answer(batch *events.Batch, beacon bool, resource string) route.Response {
	good, overQuota := false, false
	var rejected *events.Event
	var failed error
	for i := range batch.Events {
		switch outcome := &batch.Events[i].Outcome; outcome.State {
		case events.StateAccepted:
			good = true
		case events.StateDropped:
			switch outcome.Reason {
			case events.ReasonPerformanceEvent:
				// The protocol takes this one out before it looks at the rest.
			case events.ReasonQuota:
				overQuota = true
			default:
				good = true
			}
		case events.StateRejected:
			if rejected == nil {
				rejected = &batch.Events[i]
			}
		default:
			if failed == nil {
				failed = outcome.Err
			}
		}
	}
	switch {
	case failed != nil && events.CodeOf(failed) == events.Internal:
		return route.Refusal(failed)
	case failed != nil:
		return route.Refusal(errTransient)
	case rejected != nil && (!good && !overQuota || h.config.BatchPolicy == PolicyAllOrNothing):
		return route.Refusal(rejection(rejected))
	case overQuota && !good:
		return route.Response{Status: http.StatusOK, ContentType: route.TypeJSON, Body: `{"status":"Ok","quota_limited":["` + resource + `"]}`}
	default:
		return success(beacon)
	}
}

// rejection is what a client is told of a rejected event.
func rejection(event *events.Event) error {
	err := event.Outcome.Err
	switch {
	case events.CodeOf(err) != events.TooLarge:
		return err
	case event.Lane == events.LaneAI:
		return events.Errorf(events.TooLarge, "maximum AI event size exceeded: %w", err)
	default:
		return events.Errorf(events.TooLarge, "maximum event size exceeded: %w", err)
	}
}

var errTransient = events.Errorf(events.Unavailable, "transient error, please retry")
