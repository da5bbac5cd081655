// Package route is what the server and the protocols on it agree upon: a Route is a path that a module serves, a Request what a
// protocol needs of an HTTP request, and a Response its answer. A protocol knows nothing of the server that carries it, and the
// server nothing of what its routes say.
package route
