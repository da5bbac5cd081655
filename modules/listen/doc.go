// Package listen binds the addresses that the configuration names. It is a leaf that the servers of the service share.
package listen
