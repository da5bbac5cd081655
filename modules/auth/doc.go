// Package auth decides who may send what. A request shows the token of a project. The package knows the projects from
// files (auth.projects), from the state that the nodes share (records of the kind "project"), from PostHog's Redis, and
// from the authenticators of other modules, and holds each request to what its project may do.
//
// The levels, each with a reason of its own, in the order in which a request meets them:
//
//	invalid_token         401  the text has not the shape of a token (events.CheckToken; the protocols look)
//	unknown_token         401  the token belongs to no project, and auth.mode is strict
//	project_disabled      403  the project is disabled
//	out_of_scope          403  the project may not use this group of routes, or not send events of this kind
//	origin_not_allowed    403  the site that the request comes from is none of the project's
//	network_not_allowed   403  the address of the client is in none of the project's networks
//
// All but the scope of single events are judged by the gate, before the body is read if the head has the token. The
// stage then rejects the events that are out of scope, and keeps the others.
//
// The contract: a request whose project is known from a file, or was looked up before, waits for nobody. Records are
// refreshed in the background before they are old. A request with another token waits for one lookup at most, of
// auth.timeout at most, which it shares with all requests of the same token. A record that cannot be read, or read
// again, leaves the last good one in force. If nobody can say whom a token belongs to, auth.on_store_failure decides.
// What strangers make the service remember or look up is bounded, whatever tokens they invent. docs/projects.md is for
// operators.
package auth
