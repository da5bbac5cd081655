// Package transport is the HTTP server, built on Fiber, and the protocols behind it.
//
// The server reads every request itself: the head line by line, without its cookies, and the body raw, as a stream and
// under a limit. Fiber routes what was read. The server takes memory as the bytes arrive, not as the client announces
// them, and it reads a compressed body as it comes. The bytes that the server reads, and the bytes that decode makes of
// them, count against one budget for the whole process. When the budget is spent, the server answers 503 with
// Retry-After, and the process does not grow. The last quarter of the budget is for small requests, a slow body ends
// with a 408, and no address may hold more than its share of the budget and of the connections.
//
// A request of which the end is in doubt ends its connection. After a refused request the connection stays usable if
// the rest of the body is small enough to be skipped; a request that the gates refuse always ends its connection.
//
// A stop takes four steps: readiness turns false, the drain delay passes, in which every answer is the last on its
// connection, the listener closes, and the requests in flight run to their end or to the deadline.
package transport
