package csp

import (
	"math"
	"time"
)

// samplingKey is what the sampling of a violation goes by: the page, and the minute in which the report came.
func samplingKey(documentURL string, now time.Time) string {
	return documentURL + "-" + now.UTC().Truncate(time.Minute).Format("2006-01-02T15:04:05")
}

// isSampled reports whether a violation with the key is among the part, from 0 to 1, that is kept. It is posthog-js's
// rule, which PostHog's service follows: the key's hash in hundredths is less than the part.
func isSampled(key string, rate float64) bool {
	hash := uint32(0)
	for _, c := range key {
		hash = 31*hash + uint32(c)
	}
	return int(hash%100) < int(math.Max(rate, 0)*100)
}
