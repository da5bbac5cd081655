// Package admin is the operators' listener: metrics, health and profiles, apart from the listener that takes events, so that
// neither its load nor its exposure is the other's.
//
//	GET /metrics         what Prometheus scrapes
//	GET /healthz         200 as long as the process serves
//	GET /readyz          200 if the service is ready for traffic, else 503; the body is the JSON of observability.Report
//	GET /debug/pprof/    the profiles of net/http/pprof
//
// The contract: whoever reaches the listener is an operator. There is no authentication, and a profile shows the inside of
// the process: keep the listener on loopback or in a network of its own.
package admin
