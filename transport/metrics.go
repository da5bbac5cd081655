package transport

import (
	"net/http"
	"strconv"
	"time"

	"github.com/uber-go/tally/v4"
)

// statuses are the ones that the server answers; each has a counter of its own, made at start.
var statuses = [...]int{
	http.StatusOK, http.StatusNoContent, http.StatusBadRequest, http.StatusUnauthorized, http.StatusNotFound,
	http.StatusMethodNotAllowed, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
	http.StatusRequestHeaderFieldsTooLarge, http.StatusInternalServerError, http.StatusServiceUnavailable,
}

type serverMetrics struct {
	scope    tally.Scope
	received tally.Counter
	unrouted *routeMetrics
}

func newServerMetrics(scope tally.Scope) serverMetrics {
	m := serverMetrics{scope: scope, received: scope.Counter("body_bytes")}
	m.unrouted = m.route("other")
	return m
}

// routeMetrics are one route's counters by status and its latency.
type routeMetrics struct {
	byStatus [len(statuses)]tally.Counter
	other    tally.Counter
	latency  tally.Timer
}

func (m serverMetrics) route(path string) *routeMetrics {
	scope := m.scope.Tagged(map[string]string{"route": path})
	counter := func(status string) tally.Counter {
		return m.scope.Tagged(map[string]string{"route": path, "status": status}).Counter("requests")
	}
	r := &routeMetrics{other: counter("other"), latency: scope.Timer("request_seconds")}
	for i, status := range statuses {
		r.byStatus[i] = counter(strconv.Itoa(status))
	}
	return r
}

func (r *routeMetrics) observe(status int, took time.Duration) {
	r.latency.Record(took)
	for i, known := range statuses {
		if known == status {
			r.byStatus[i].Inc(1)
			return
		}
	}
	r.other.Inc(1)
}
