// Package admin is the operators' listener, apart from the listener that takes events, so that neither its load nor its
// exposure is the other's. It serves the endpoints of all modules: a module adds one through the value group of
// modules/admin/endpoint, and admin's own are of the same kind.
//
//	GET  /                 the list of all endpoints: HTML for a browser, else JSON
//	GET  /metrics          what Prometheus scrapes
//	GET  /healthz          200 as long as the process serves
//	GET  /readyz           200 if the service is ready for traffic, else 503; with observability.Report as JSON
//	GET  /admin/reload     how the last exchange of the configuration ended: the JSON of configs.Status
//	POST /admin/reload     loads the configuration and puts it in force: 200, or 409 with the reason in "error"
//	GET  /debug/pprof/     the profiles of net/http/pprof
//
// # Who is answered
//
// A request is judged by the configuration that is in force when the request begins. The first of these checks that
// it fails decides the answer:
//
//   - Its Host is an address, localhost or a name in admin.hosts, else 421. Otherwise a web page could give the
//     listener's address a name of its own and read everything through the browser of an operator (DNS rebinding).
//     An empty Host is refused as well. The port of the Host, the case of a name and a dot at its end make no
//     difference. This holds for /metrics and health, too.
//   - A request that another site has a browser send must not change or cost anything, else 403. So a browser's
//     POST, and any request to an endpoint for operators, comes from a page of the listener or was typed by a
//     person. Programs other than browsers do not send the headers that this is judged by (Sec-Fetch-Site, Origin).
//   - Who asks may use the endpoint (endpoint.Access), else 401 or 403. Health and metrics are for anyone. With
//     admin.token, everything else asks for the token: as "Authorization: Bearer TOKEN", or as the password of basic
//     authentication with any user name, which is what browsers and "go tool pprof http://:TOKEN@host/..." can do.
//     Without admin.token, whoever reaches the listener reads, and what changes or costs something works from
//     loopback only. Loopback is judged by the connection and never by a header: behind a proxy on the same machine,
//     everybody is on loopback, so that a proxy there needs a token to be set.
//
// The listener speaks HTTP without TLS: off loopback, the token is for a network whose readers are trusted, or for
// behind a proxy that ends TLS. Off loopback and over HTTP, browsers do not say which site sends a GET. An operator
// whose browser holds the token as a password can be made to take a profile there, whose answer the other site cannot
// read.
//
// # Profiles
//
// A profile, also one of the heap or of the goroutines, costs: it is for operators. One that runs for a while (profile,
// trace, and others with ?seconds) takes 60 seconds at most, else 400, and runs alone, else 409. It ends with its client,
// and early when the service stops.
//
// # Slow and broken requests
//
// Timeouts of connections are the section's. A head is limited to 64 KiB and a body to 1 MiB. A handler that panics is
// answered 500, counted in capture_panics_total and logged; an answer that had begun is cut off.
package admin
