package route

import (
	"strconv"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// The headers that tell a client about the limits of its project. The first two are those of the IETF's draft
// "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers), for programs: lists of structured fields
// (RFC 9651). HeaderLimits is for people, and only there if a limit has kept events from passing.
const (
	HeaderRateLimit       = "RateLimit"
	HeaderRateLimitPolicy = "RateLimit-Policy"
	HeaderLimits          = "X-Capture-Limits"
)

// largestInteger is the largest integer of a structured field.
const largestInteger = 999_999_999_999_999

// limitsSize is how many bytes most projects need for the values of all three headers.
const limitsSize = 512

// tell adds the headers about the limits. The names of limits are of a fixed number (events.Standing.Name), and the
// rest is numbers, so nothing in the headers is of the client or of a project's record.
func (r *Response) tell(standings []events.Standing) {
	if len(standings) == 0 {
		return
	}
	var room [limitsSize]byte
	text := room[:0]
	for i := range standings {
		text = appendLimit(text, &standings[i], 0)
	}
	policies := len(text)
	for i := range standings {
		text = appendPolicy(text, &standings[i], policies)
	}
	people := len(text)
	for i := range standings {
		text = appendForPeople(text, &standings[i], people)
	}
	all := string(text)
	header := make([]Field, len(r.Header), len(r.Header)+3)
	copy(header, r.Header)
	header = append(header, Field{HeaderRateLimit, all[:policies]})
	if people > policies {
		header = append(header, Field{HeaderRateLimitPolicy, all[policies:people]})
	}
	if len(all) > people {
		header = append(header, Field{HeaderLimits, all[people:]})
	}
	r.Header = header
}

// appendLimit appends what remains of a limit, such as "events-month";r=120;t=3600, to a list that begins at start.
func appendLimit(text []byte, s *events.Standing, start int) []byte {
	text = appendName(text, s, start)
	text = appendInteger(text, ";r=", s.Remaining)
	return appendInteger(text, ";t=", wholeSeconds(s.Reset))
}

// appendPolicy appends what a limit is, such as "events-month";q=1000;w=2678400. What a limit of PostHog's is, only
// PostHog knows.
func appendPolicy(text []byte, s *events.Standing, start int) []byte {
	if s.Kind == events.LimitBilling {
		return text
	}
	text = appendName(text, s, start)
	text = appendInteger(text, ";q=", s.Limit)
	return appendInteger(text, ";w=", wholeSeconds(s.Window))
}

// appendForPeople appends a sentence about a limit that has kept events from passing.
func appendForPeople(text []byte, s *events.Standing, start int) []byte {
	if !s.Over {
		return text
	}
	if len(text) > start {
		text = append(text, "; "...)
	}
	text = append(text, s.Name()...)
	if s.Kind == events.LimitBilling {
		text = append(text, " is reached"...)
	} else {
		text = appendInteger(text, " is reached (", s.Limit)
		text = appendInteger(text, " in ", wholeSeconds(s.Window))
		text = append(text, "s)"...)
	}
	text = appendInteger(text, ", wait ", wholeSeconds(s.Reset))
	return append(text, 's')
}

func appendName(text []byte, s *events.Standing, start int) []byte {
	if len(text) > start {
		text = append(text, ", "...)
	}
	text = append(text, '"')
	text = append(text, s.Name()...)
	return append(text, '"')
}

func appendInteger(text []byte, before string, n int64) []byte {
	return strconv.AppendInt(append(text, before...), max(0, min(n, largestInteger)), 10)
}

// wholeSeconds returns a time in seconds, rounded up: who waits so long has waited long enough.
func wholeSeconds(d time.Duration) int64 {
	seconds := int64(d / time.Second)
	if d%time.Second > 0 {
		seconds++
	}
	return seconds
}
