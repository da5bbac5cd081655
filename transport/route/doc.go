// Package route is the contract between the server and the protocols. A Route is a path that a module serves, a Request
// is the part of an HTTP request that a protocol needs, and a Response is the answer to it. A protocol knows nothing of
// the server that carries it, and the server knows nothing of what its routes say.
package route
