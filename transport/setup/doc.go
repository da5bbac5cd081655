// Package setup answers the calls that an SDK makes before it sends events, and beside them: for its configuration, its
// feature flags, its surveys, and whatever else a project may offer its users.
//
// This service has none of these. Answers says so, in each of the shapes that SDKs of any age read, and tells
// browsers where to send events and what to record. An SDK that is pointed at this service alone is content with that.
// The answers are made once for each configuration. They depend on the request's path, on two parameters of its query
// and, for flag definitions, on If-None-Match. Whatever else an SDK says, the answer is the same, and a request that
// holds something else by mistake is no error.
//
// Where a PostHog installation has flags and surveys, Proxy passes the same calls on to it instead, and with them every
// other request that the service does not serve itself: the SDKs' scripts, and what the SDKs of tomorrow may ask for.
package setup
