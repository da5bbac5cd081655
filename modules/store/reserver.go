package store

import (
	"context"
	"time"
)

// Digest identifies what may be done once: the first 128 bits of a cryptographic hash, or a random number of as many.
type Digest [16]byte

// Owner is who reserves: a random number for each request.
type Owner uint64

// Claim is what Reserve found.
type Claim uint8

// The claims. The zero value is none of them.
const (
	// Reserved: nobody had reserved the digest. The owner has it now, until the lease ends or the owner settles.
	Reserved Claim = iota + 1
	// Busy: another owner has reserved the digest, and the end of that is not known.
	Busy
	// Done: an owner has committed the digest, and the window is not over, or not for longer than an eighth of it.
	Done
)

// Reserver keeps digests that are in work or done. A digest belongs to a token: the same digest of another token is
// another one.
//
// A reservation ends with its lease. So an owner that dies between Reserve and Commit leaves nothing behind that could
// swallow a retry.
type Reserver interface {
	// Reserve reserves the digests for the owner, in one round trip at most, and writes what it found of digests[i]
	// into claims[i], which must be as long. A digest that the owner itself has reserved before, and not settled, is
	// Reserved again, and its lease begins anew: so an owner that takes long keeps what it has. Two digests must not be
	// the same. With an error, some of the digests may be reserved all the same: the owner settles them as if they
	// were. Reserve keeps nothing of what it is given when it has returned.
	Reserve(ctx context.Context, token string, owner Owner, digests []Digest, lease time.Duration, claims []Claim) error

	// Settle notes the end of a request: the committed digests are Done for the window, and those that the owner
	// releases are free for the next that reserves them, unless another owner has them by now. Settle copies what it is
	// given, gathers it with that of other requests, and returns at once. The node that has settled sees the new state
	// at once; other nodes see the digests Busy until the store has it, which takes a few milliseconds. If the store
	// does not answer, Settle tries again until the leases have ended, with what is committed for an eighth of the
	// window if that is longer, and counts what it then gives up.
	Settle(token string, owner Owner, commit []Digest, window time.Duration, release []Digest)
}
