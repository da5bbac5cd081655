// Package client is what the commands have in common that ask the operators' listener of a running service: where it
// is, the token, how a problem is told, and what to do if nobody answers. modules/admin provides Own to the graph.
package client
