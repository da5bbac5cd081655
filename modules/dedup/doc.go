// Package dedup keeps an event that is sent again from being stored again. A client that has had no answer sends its
// request once more, to the same node or to another one, and the event may be stored by then, or about to be.
//
// It is a stage with a settlement, on store.Reserver:
//
//  1. Every event has an identity, a digest of 128 bits: see identity.go.
//  2. Process reserves the digests of all pending events of a request, in one call. An event whose digest is Done is a
//     duplicate: accepted, not stored, and not counted against a quota, because the stages behind leave it alone.
//  3. An event whose digest is Busy is in the hands of another request. Nobody knows yet how that one ends, so this one
//     waits for it, for dedup.wait at most. If the end still is not known, the event fails as in_flight (503), and the
//     client sends it again later.
//  4. The settlement commits the events that are safe, for dedup.window, and releases the others: an event that has
//     failed, was dropped or was rejected is judged anew when it is sent again. Of an event that has timed out nobody
//     knows yet whether it will be stored. Its reservation is kept until the sink tells (events.Late, overdue.go). If
//     the sink will never know, the reservation stays until it ends by itself.
//
// The contract:
//   - No event is lost. An event counts as a duplicate only if an event with the same identity is safe, or becomes safe
//     together with it. A reservation ends dedup.lease after its node has died.
//   - Two requests with the same event that run at the same time, on any nodes, store the event once. The window begins
//     when the first one settles.
//   - A request that takes longer than the lease keeps its reservations: a goroutine, the keeper, makes them again.
//   - If the store does not answer, on_store_failure says what happens: open lets events pass, closed fails them.
//   - A Process costs no memory of its own: what a request needs is used again by the next.
package dedup
