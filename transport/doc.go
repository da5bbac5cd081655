// Package transport is the front door: the HTTP server, built on Fiber, and the protocols behind it.
//
// The server reads every body itself, raw, as a stream and under a limit: what a client claims or compresses costs
// nothing until it has arrived. What it reads and what decode makes of it counts against one budget for the whole
// process; when that is spent, requests are answered 503 with Retry-After instead of growing the process. A request
// that is refused leaves its connection usable wherever the rest of its body is small enough to be read past.
//
// Stopping goes: readiness false, drain delay, no new connections, requests in flight to their end or to the deadline.
package transport
