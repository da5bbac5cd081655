package transport

import (
	"net/http"
	"strconv"

	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/module"
)

// statuses are the HTTP statuses that have a counter of their own, made at start. All others share one.
var statuses = [...]int{
	http.StatusOK, http.StatusNoContent, http.StatusNotModified, http.StatusBadRequest, http.StatusUnauthorized,
	http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestTimeout,
	http.StatusRequestEntityTooLarge,
	http.StatusUnsupportedMediaType, http.StatusTooManyRequests, http.StatusRequestHeaderFieldsTooLarge,
	http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable,
}

type serverMetrics struct {
	scope    tally.Scope
	received tally.Counter
	// unrouted counts the requests that reached no route, preflight those by which browsers ask leave. Neither times
	// them.
	unrouted, preflight counters
}

func newServerMetrics(scope tally.Scope) serverMetrics {
	m := serverMetrics{scope: scope, received: scope.Counter("body_bytes_total")}
	m.unrouted, m.preflight = m.counters("other"), m.counters("preflight")
	return m
}

// counters count requests by the status of the answer.
type counters struct {
	byStatus [len(statuses)]tally.Counter
	other    tally.Counter
}

func (m serverMetrics) counters(route string) counters {
	counter := func(status string) tally.Counter {
		return m.scope.Tagged(map[string]string{"route": route, "status": status}).Counter("requests_total")
	}
	c := counters{other: counter("other")}
	for i, status := range statuses {
		c.byStatus[i] = counter(strconv.Itoa(status))
	}
	return c
}

func (c *counters) count(status int) {
	for i, known := range statuses {
		if known == status {
			c.byStatus[i].Inc(1)
			return
		}
	}
	c.other.Inc(1)
}

// routeMetrics are one route's counters and its latency.
type routeMetrics struct {
	counters
	latency tally.Timer
}

func (m serverMetrics) route(path string) *routeMetrics {
	return &routeMetrics{
		counters: m.counters(path), latency: m.scope.Tagged(map[string]string{"route": path}).Timer("request_seconds"),
	}
}

// described says what the module's metrics count.
var described = module.Metrics{
	"requests_total":      "Requests by their route and the status of the answer; route other: no route has the path.",
	"request_seconds":     "How long requests took from their head to the answer, in seconds, by route.",
	"body_bytes_total":    "Bytes of bodies as they were read, still compressed.",
	"stage_seconds":       "How long a step of a request took, in seconds: decode, scan, or process.",
	"json_repaired_total": "Known faults of SDKs in JSON that were mended, by kind.",
}
