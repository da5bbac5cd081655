// Package routing applies the operator's own rules. A rule drops the events of a project or user, moves them to
// overflow, sets them aside, or sends them to a topic of their own. Further rules say which events count as old. The
// rules are in the configuration, and all of them change without a restart.
//
// The contract: a rule names a project by its token, or one user of a project as token:distinct_id (the token ends at
// the first colon). The distinct_id is the one that the event is stored under. If several rules concern an event, all
// of them hold; of two topics the one of the user's rule wins. events.Routing defines which destination wins. Heatmaps,
// client warnings and logs can be dropped by a rule, but no rule redirects them.
package routing
