// Package store is the state that the nodes of an installation share, as the ports that its users need: Reserver keeps
// what is in work or done (modules/dedup), Counters lends out shares of limits (modules/quota), Records keeps what
// operators set (modules/auth, modules/routing), and PostHog reads what PostHog keeps in its own Redis.
//
// There are two implementations: modules/store/redis for any number of nodes, and modules/store/local for one node with
// nothing installed. One suite of tests, modules/store/storetest, holds both to the contract that is written here.
//
// The contract: every call ends within the deadline of the store (store.timeout) or of its context, whichever is
// sooner. Only Records.List and the methods of PostHog may take longer, since no request waits for them. A call that
// the store did not answer ends with an error that wraps ErrUnavailable. After some of these a breaker opens. While it
// is open, a call fails at once, and a goroutine of the store looks whether the store is there again: no request waits
// for a dead store twice. What a user of the store does without it is the user's to say. All methods are safe for
// concurrent use.
package store
