// Package listen binds the addresses that the configuration names. A leaf: the servers of the service share it.
package listen
