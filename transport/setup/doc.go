// Package setup answers the calls that an SDK makes before it sends events, and beside them: for its configuration, its
// feature flags and its surveys.
//
// This service has no flags and no surveys. Answers says so, in each of the shapes that SDKs of any age read, and tells
// browsers where to send events and what to record. An SDK that is pointed at this service alone is content with that.
// The answers are made once for each configuration. They depend on the request's path, on two parameters of its query
// and, for flag definitions, on If-None-Match. Whatever else an SDK says, the answer is the same, and a request that
// holds something else by mistake is no error.
//
// Where a PostHog installation has flags and surveys, Proxy passes the same calls on to it instead, and the calls for
// the SDKs' scripts as well.
package setup
