// Package posthogenv translates the environment of PostHog's own capture service into a configuration file of this one, and
// says what has no counterpart here.
//
// Variables of all generations of that service are known; of several names for one thing the newest counts. The package is
// pure: it looks at nothing but its arguments.
package posthogenv
