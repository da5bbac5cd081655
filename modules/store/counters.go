package store

import (
	"context"
	"time"
)

// Counters lends the nodes shares of limits, so that a node can spend its share without asking again. Whatever nodes
// and the store do, and whoever dies: the nodes together never have more than a limit allows.
//
// The counters of a token are told apart by their names, such as "quota:events:month:20261101" or
// "rate:events:10000000:5000".
type Counters interface {
	// Take draws from several counters of a token, in one round trip. Each draw succeeds or fails by itself; its
	// results are in the draw. With an error, no results are set, and the same draws may be tried again, but without
	// RateDraw.Return: what was given back may have arrived.
	Take(ctx context.Context, token string, quotas []QuotaDraw, rates []RateDraw) error

	// Usage returns how much of each of the token's counters of a window is used. A counter that nobody has drawn from
	// is not in the map.
	Usage(ctx context.Context, token string) (map[string]Usage, error)

	// Adjust adds n, which may be negative, to what is used of a counter of a window. The sum is never below what the
	// nodes hold at present. It returns what is used and held then, without the window's end. A counter that does not
	// exist stays so: a draw of nothing makes it.
	Adjust(ctx context.Context, token, counter string, n int64) (Usage, error)
}

// QuotaDraw is a node's draw from a counter that has a limit for a window of time.
//
// The node tells the store its whole account of the counter each time: all that it was ever granted, all that it ever
// gave back, and what it holds unspent. The store keeps the account of each node, and adds up the differences. So a
// draw whose answer was lost is simply made again, and a store that has lost what it knew, in a failover or a restart,
// knows it again when the nodes have drawn. The account of a node that has died stays as it is: what such a node held
// counts as spent, since it may be, until the node is back with its account.
//
// A node may forget its account, and open another one of the same counter later. The store keeps one account for each
// node: a draw from a newer one puts it in the place of the older one. What the older one was granted and did not give
// back then counts as spent for good, and what it held is no longer held. A store that loses that is not told it again.
type QuotaDraw struct {
	Counter string
	// Node is the node's name. It stays the same for as long as the node keeps its accounts. Account numbers the node's
	// accounts of the counter, upwards, up to 1<<50. A draw from an account that a newer one has replaced comes late:
	// its node has forgotten that account. Such a draw changes nothing and is granted nothing. Given is Granted, so a
	// need is not met, and Used is what the nodes have. It is not Stale: the node's clock is right.
	Node    string
	Account uint64
	// Start and End are the window. A draw outside of the window, by the store's clock, is Stale.
	Start, End time.Time
	// Limit is how much all nodes together may have in the window.
	Limit int64
	// Unspent is how much of that the nodes together may hold unspent at most, those that have died included, beyond
	// what the draws need. So no more than Unspent is out of reach when the rest of the limit is spent.
	Unspent int64
	// Granted and Returned are the node's account: the sums of what the account was granted and of what it gave back. A
	// node gives back by raising Returned. Held is what the node holds unspent.
	Granted, Returned, Held int64
	// Need is how much the node has to have beyond Held; it is granted as a whole or not at all. Extra is how much more
	// it would like to have, of which it gets a part or nothing.
	Need, Extra int64

	// The results. Given is the new sum of what the account was granted: the draw has brought Given-Granted. The need
	// is met if that is as much: what an answer that was lost had brought is in Given even if it is less. Used is how
	// much of the limit all nodes together have. Stale is set if it was not the time of the window.
	Given, Used int64
	Stale       bool
}

// RateDraw is a node's draw from a counter that fills up with time, by the generic cell rate algorithm (GCRA): one unit
// an interval, and at most a burst at once. What is drawn is to be spent within a time that the node knows. The burst
// that the node names is the smaller by what fills up in that time, so that no more than the whole burst and the rate
// ever passes.
type RateDraw struct {
	Counter string
	// Interval is the time that one unit takes. Burst is how many units there are at most.
	Interval time.Duration
	Burst    int64
	// Need, Extra: see QuotaDraw. Return is how much the node gives back of what it had drawn and not spent. The store
	// keeps no account of a rate: after an error nobody knows whether the store has taken it back, so the node forgets
	// it, and draws again with Return 0.
	Need, Extra, Return int64

	// The results. Given is what the draw has brought. Left is how many units there are now. If the need was not met,
	// Wait is how long it takes until it can be. A need of more than Burst never can.
	Given, Left int64
	Wait        time.Duration
}

// Usage is what is used of a counter of a window.
type Usage struct {
	// Used is what was granted to the nodes and not given back. Held is how much of that they held unspent when they
	// last said so.
	Used, Held int64
	// End is the window's end.
	End time.Time
}
