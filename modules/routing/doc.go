// Package routing is the operator's own rules: which projects and users are dropped, moved out of the way of others,
// set aside, or sent to a topic of their own, and which events count as old. The rules stand in the configuration; all
// of them change without a restart.
//
// The contract: a rule names a project by its token, or one user of it as token:distinct_id (the token ends at the
// first colon), where the distinct_id is the one that the event is stored under. Where several rules concern an event,
// all of them hold; of two topics the user's wins. What the rules of a destination mean together is events.Routing's to
// say. Heatmaps, client warnings and logs are never redirected, but dropped like everything else.
package routing
