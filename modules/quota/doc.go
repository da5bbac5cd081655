// Package quota counts what projects send against their limits, and stops what is over. Quotas are numbers of events in
// a window of the calendar; rates are numbers of events in a time, with a burst.
//
// The nodes of an installation share the counters (store.Counters), but a request rarely waits for them: a node draws a
// share of a limit ahead and spends it by itself. What a node holds it has drawn, so however many nodes there are, and
// whichever of them die, no more events pass than a limit allows. How much the nodes may hold unspent is bounded, too:
// one percent of a quota, and of a burst a tenth by each node, from its upper half.
//
// The contract:
//
//   - An event passes if all of its limits have room. For an event that does not pass, nothing is spent. With
//     Limits.Whole the events of a request that are under limits pass only together.
//   - Quotas count events that are accepted. When the events have ended, those that were not accepted are given back to
//     the window that they were counted in, while that lasts. A duplicate is not counted. An event that has timed out
//     counts until the sink tells that it is not safe (events.Late, overdue.go). Events over a rate that go to
//     overflow are accepted, and so count against the quotas.
//   - A request makes one round trip to the store at most, and usually none. It makes a second one if it stands at the
//     end of a quota that other nodes have used meanwhile, or at the end of a window. Requests of one token that need
//     the store at the same time share a round trip. If a call fails, nobody who waited for it calls again.
//   - Without the store a node goes on with what it holds. What it lacks then passes uncounted or fails, as
//     quota.on_store_failure says. A quota that is known to be used up stays so.
//   - A kill of the process loses no count. What the node held is in a file (journal), and the next process goes on
//     with it. Without that file, what the old process held counts as spent.
//
// What a node draws from a rate it spends within a time that the store's burst allows for, so that never more than
// burst + rate * t pass in a time t. An event counts at the moment of the draw if its request waited for the draw.
//
// The decision and its reasons: docs/decisions/0028-shares-without-expiry.md. For operators: docs/limits.md.
package quota
