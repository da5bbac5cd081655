// Package routing applies the operator's own rules. A rule drops events of a project, moves them to overflow, sets them
// aside, sends them to a topic of their own, or keeps them from persons. Further settings say which events count as
// old.
//
// Rules come from three sources, which are joined:
//
//   - config: the section "routing". They change with the configuration, and a batch goes by those of Batch.Config.
//   - store: records of the kind "rule" in the shared state (store.Records), in the form of modules/restriction. The
//     store tells every node of a rule that the service has written. All rules are read again every
//     routing.rules_refresh, for those that were written by hand.
//   - posthog: the restrictions, and the sessions in overflow, that PostHog's application writes to its own Redis.
//
// The contract:
//   - A rule names a project by its token, and concerns all of its events or those that are in each of its lists: of
//     distinct_ids, names, sessions and uuids. The distinct_id is the one that the event is stored under. The session
//     is the one that the protocol gives, or else the property $session_id.
//   - If several rules concern an event, all of them hold. Of two topics, the one of the configuration goes before the
//     one of the store, and that before PostHog's; within a source, that of the narrower rule, of PostHog's rules that
//     of the higher index. events.Routing defines which destination wins. Heatmaps, client warnings and logs can be
//     dropped by a rule, but no rule redirects them.
//   - A batch is judged by one set of rules: Process takes the rules of the stores once, as a value that never changes.
//   - A rule with faults is told, and is not in force; it takes no other rule along.
//   - Every outcome says which rule it was: Outcome.Rule of a dropped event, Routing.Rule of any other.
//   - No request waits for a store. Without it, the rules that were read last stay in force for
//     routing.rules_stale_after, and routing.on_store_failure says what comes then.
//   - A batch costs no memory. Rules of other tokens cost it one lookup, those of its own token 25 to 120 ns an event.
package routing
