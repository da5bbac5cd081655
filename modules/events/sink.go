package events

import "context"

// Sink makes events safe. Write gives every pending event of the batch an outcome: Accept for an event that is safe
// now, Reject for one that can never be safe (too large), Fail for all others. Write returns when all are decided or
// ctx is over, and keeps nothing of the batch afterwards. Write must be safe for concurrent use and keeps the order of
// events within a call.
type Sink interface {
	Write(ctx context.Context, batch *Batch)
}
