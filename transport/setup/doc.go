// Package setup answers what an SDK asks before, and beside, sending events: its configuration, its
// feature flags, its surveys.
//
// This service has no flags and no surveys. Answers says so, in each of the shapes that SDKs of any age read, and tells
// browsers where to send and what to record; an SDK that is pointed at this service alone is content. The answers are
// made at start, and nothing of a request but its path and two of its query's parameters is looked at: whatever else an
// SDK says there, the answer is the same, and a request that holds something else by mistake is no error.
//
// Where there is a PostHog installation that has flags and surveys, Proxy passes the same calls, and those for the
// SDKs' scripts, on to it instead.
package setup
