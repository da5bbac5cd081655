package posthog

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// query is what a request's query string says.
type query struct {
	data        string
	compression string
	sentAt      time.Time
	beacon      bool
	retryCount  int
}

// parseQuery reads the parameters that the protocol knows. Of two equal parameters the first counts.
func parseQuery(raw string) (query, *events.Error) {
	var q query
	var seen [5]bool
	first := func(i int) bool {
		was := seen[i]
		seen[i] = true
		return !was
	}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		key, value, _ := strings.Cut(pair, "=")
		switch {
		case key == "data" && first(0):
			data, err := url.QueryUnescape(value)
			if err != nil {
				return query{}, events.Errorf(events.Invalid,
					"failed to decode request: invalid percent-encoding in query parameter data")
			}
			q.data = data
		case key == "compression" && first(1):
			q.compression = unescaped(value)
		case (key == "_" || key == "sent_at") && first(2):
			ms, err := strconv.ParseInt(unescaped(value), 10, 64)
			if err != nil {
				return query{}, notInteger(key)
			}
			// A client that sends seconds in the place of milliseconds ends up in 1970, which is useless as a clock.
			if at := time.UnixMilli(ms).UTC(); at.Year() > 2020 && at.Year() <= 9999 {
				q.sentAt = at
			}
		case key == "beacon" && first(3):
			n, err := strconv.ParseInt(unescaped(value), 10, 64)
			if err != nil {
				return query{}, notInteger(key)
			}
			q.beacon = n == 1
		case key == "retry_count" && first(4):
			q.retryCount, _ = strconv.Atoi(unescaped(value))
		}
	}
	return q, nil
}

// unescaped undoes percent-encoding. A value that is not properly encoded stays as it is, and no parameter knows such a
// value.
func unescaped(value string) string {
	if plain, err := url.QueryUnescape(value); err == nil {
		return plain
	}
	return value
}

func notInteger(key string) *events.Error {
	return events.Errorf(events.Invalid, "failed to decode request: query parameter %s must be an integer", key)
}
