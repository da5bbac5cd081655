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

// answer renders what became of a batch. Anything that failed makes the client send all of it again; otherwise one good
// event makes the answer a success, since the bad ones would be as bad the next time. Where the quota has taken all
// that was good, the answer says so: current SDKs then pause.
func answer(batch *events.Batch, policy string, beacon bool, resource string) route.Response {
	sum := batch.Summary()
	good := sum.Accepted + sum.Dropped
	switch {
	case sum.Failed > 0:
		return route.ToFailure(sum.Failure).Refused()
	case sum.Rejected > 0 && (good+sum.Limited == 0 || policy == PolicyAllOrNothing):
		return route.ToRejection(sum.Rejection).Refused()
	case sum.Limited > 0 && good == 0:
		return route.Response{Status: http.StatusOK, ContentType: route.TypeJSON, Body: `{"status":"Ok","quota_limited":["` + resource + `"]}`}
	default:
		return success(beacon)
	}
}
