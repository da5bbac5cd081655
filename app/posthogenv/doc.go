// Package posthogenv translates the environment of PostHog's own capture service into a configuration file of this one,
// and lists the variables that have no counterpart here.
//
// The package knows the variables of all generations of that service. Of several names for one setting the newest
// counts. The package is pure: it reads nothing but its arguments.
package posthogenv
