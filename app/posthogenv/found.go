package posthogenv

import (
	"slices"
	"strings"
)

const translates = "\"capture config from-posthog-env\" translates its environment into a configuration file"

// Whose says of a variable of PostHog's capture service that it is one, and what to do. Of any other variable it says
// nothing.
func Whose(name string) string {
	if !isKnown(name) {
		return ""
	}
	return "it is one of PostHog's own capture service, and " + translates
}

// Found returns a sentence about the variables of PostHog's capture service in an environment, in the form of
// os.Environ, which this service does not read. It returns "" if there is none. CAPTURE_ variables do not count: the
// service does not start with them. Neither do names alone that other programs use as well, such as LOG_LEVEL.
func Found(environ []string) string {
	var names []string
	for name := range parse(environ) {
		if !strings.HasPrefix(name, "CAPTURE_") && !slices.Contains(common, name) && isKnown(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "variables of PostHog's own capture service have no effect here: " + strings.Join(names, ", ") + ": " +
		translates
}

// common are names that say nothing about whose they are.
var common = []string{
	"ADDRESS", "LOG_LEVEL", "RUST_LOG", "REDIS_URL", "OTEL_URL", "OTEL_SAMPLING_RATE", "OTEL_SERVICE_NAME",
	"CONCURRENCY_LIMIT", "REQUEST_TIMEOUT_SECONDS",
}

func isKnown(name string) bool {
	t := translation{settings: settings(nil)}
	_, remarked := remarkOn(name)
	return t.isSetting(name) || remarked
}
