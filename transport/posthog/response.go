package posthog

import (
	"net/http"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/route"
)

// success answers that every event is safe or was not meant to be kept. The answer to a beacon has no body, because
// nobody reads it.
func success(beacon bool) route.Response {
	if beacon {
		return route.Response{Status: http.StatusNoContent}
	}
	return route.Response{Status: http.StatusOK, ContentType: route.TypeJSON, Body: `{"status":"Ok"}`}
}

// limitedWords are the words by which an answer tells a client which quota is used up.
var limitedWords = func() (words [events.ResourceCount]string) {
	for _, resource := range events.Resources() {
		words[resource] = resource.String()
	}
	words[events.ResourceAI] = "llm_events"
	return words
}()

// limited answers that the quota has taken all events that were good, and of which resources.
func limited(batch *events.Batch) route.Response {
	var found [events.ResourceCount]bool
	for i := range batch.Events {
		if event := &batch.Events[i]; event.Outcome.Reason == events.ReasonQuota {
			found[event.Resource()] = true
		}
	}
	body := []byte(`{"status":"Ok","quota_limited":[`)
	separator := `"`
	for resource, word := range limitedWords {
		if found[resource] {
			body = append(append(append(body, separator...), word...), '"')
			separator = `,"`
		}
	}
	return route.Response{Status: http.StatusOK, ContentType: route.TypeJSON, Body: string(append(body, "]}"...))}
}

// answer renders the outcomes of a batch. If an event has failed, the client is to send the whole batch again.
// Otherwise one good event makes the answer a success, since the bad events would be as bad the next time. If the quota
// has taken all events that were good, the answer says so, and current SDKs then pause.
func answer(batch *events.Batch, policy string, beacon bool) route.Response {
	sum := batch.Summary()
	good := sum.Accepted + sum.Dropped
	switch {
	case sum.Failed > 0:
		return route.Failed(sum.Failure)
	case sum.Rejected > 0 && (good+sum.Limited == 0 || policy == PolicyAllOrNothing):
		return route.ToRejection(sum.Rejection).Refused()
	case sum.Limited > 0 && good == 0:
		return limited(batch)
	default:
		return success(beacon)
	}
}
