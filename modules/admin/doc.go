// Package admin is the operators' listener. It is apart from the listener that takes events, so that the load and the
// exposure of the one do not affect the other. It serves the endpoints of all modules: a module adds an endpoint
// through the value group of modules/admin/endpoint, and admin's own endpoints join the same group.
//
//	GET  /                    the list of all endpoints: HTML for a browser, else JSON
//	GET  /metrics             the metrics that Prometheus scrapes
//	GET  /healthz             200 as long as the process serves
//	GET  /readyz              200 if the service is ready for traffic, else 503; with observability.Report as JSON
//	GET  /admin/openapi.json  the description of all endpoints for programs, in the form of OpenAPI 3.1
//	GET  /admin/reload        how the last exchange of the configuration ended: the JSON of configs.Status
//	POST /admin/reload        loads the configuration and puts it in force: 200, or 409 with the reason in "error"
//	GET  /debug/pprof/        the profiles of net/http/pprof
//
// # Which requests are answered
//
// A request is judged by the configuration that is in force when the request begins. The listener makes these checks in
// order, and the first check that the request fails decides the answer:
//
//   - The Host must be an address, localhost or a name in admin.hosts, else the answer is 421. Without this check a web
//     page could give the listener's address a name of its own and read everything through the browser of an operator
//     (DNS rebinding). An empty Host is refused as well, but for a request of HTTP/1.0, as
//     simple probes send it. The port of the Host, the case of a name and a dot at its end
//     make no difference. The check holds for /metrics and health, too.
//   - A request that another site makes a browser send must not change or cost anything, else the answer is 403. So a
//     browser's POST, and any request of a browser to an endpoint for operators, must come from a page of the listener,
//     or a person must have typed its address. Programs other than browsers do not send the headers that this check
//     reads (Sec-Fetch-Site, Origin).
//   - The sender must be allowed to use the endpoint (endpoint.Access), else the answer is 401 or 403. Health and
//     metrics are for everybody. With admin.token, every other endpoint asks for the token: as "Authorization: Bearer
//     TOKEN", or as the password of basic authentication with any user name. Browsers can send the latter, and so can
//     "go tool pprof http://:TOKEN@host/...". Without admin.token, everybody who reaches the listener may read, and
//     requests that change or cost something are answered from loopback only. The connection decides what is loopback,
//     never a header: behind a proxy on the same machine every client is on loopback, so a proxy there needs a token.
//
// The listener speaks HTTP without TLS. Off loopback, use the token in a network whose readers you trust, or behind a
// proxy that ends TLS. Off loopback and over HTTP, browsers do not say which site sends a GET. Another site can then
// make an operator's browser that holds the token as a password take a profile. The other site cannot read the answer.
//
// Every refusal is a problem of RFC 9457 (application/problem+json): see modules/admin/api, which is also what the
// endpoints of other modules have in common. What operators change is in the audit log: see modules/admin/audit.
//
// # Profiles
//
// Every profile costs something, also one of the heap or of the goroutines, so profiles are for operators. A profile
// that runs for a while (profile, trace, and others with ?seconds) takes at most 60 seconds, else the answer is 400.
// Only one runs at a time, else the answer is 409. It ends when its client leaves, and early when the service stops.
//
// # Slow and broken requests
//
// The timeouts of connections are those of the section. A head is limited to 64 KiB and a body to 1 MiB. A panic of a
// handler is answered with 500, counted in capture_panics_total and logged. If the answer had begun, it is cut off.
package admin
