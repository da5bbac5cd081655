// Package transport is the HTTP server, built on Fiber, and the protocols behind it.
//
// The server reads every body itself: raw, as a stream and under a limit. It takes memory as the bytes arrive, not as
// the client announces them, and it reads a compressed body as it comes. The bytes that the server reads, and the bytes
// that decode makes of them, count against one budget for the whole process. When the budget is spent, the server
// answers 503 with Retry-After, and the process does not grow. After a refused request the connection stays usable if
// the rest of the body is small enough to be skipped; a request that the gates refuse always ends its connection.
//
// A stop takes four steps: readiness turns false, the drain delay passes, the listener closes, and the requests in
// flight run to their end or to the deadline.
package transport
