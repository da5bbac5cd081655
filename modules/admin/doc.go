// Package admin is the operators' listener: metrics, health, reloads and profiles. It is apart from the listener that
// takes events, so that the load and the exposure of the one do not affect the other.
//
//	GET  /                lists the endpoints
//	GET  /metrics         the metrics that Prometheus scrapes
//	GET  /healthz         200 as long as the process serves
//	GET  /readyz          200 if the service is ready for traffic, else 503; the body is JSON (observability.Report)
//	GET  /admin/reload    how the last exchange of the configuration ended
//	POST /admin/reload    loads the configuration and puts it in force
//	GET  /debug/pprof/    the profiles of net/http/pprof
//
// Other modules add endpoints of their own (see package endpoint).
//
// The contract: each endpoint says who may use it. Health and metrics are for everybody who reaches the listener. All
// else asks for admin.token. Without a token, everybody who reaches the listener may read, and requests that change or
// cost something are answered from loopback only. Profiles and other endpoints show the inside of the process: set a
// token before the listener leaves loopback.
package admin
