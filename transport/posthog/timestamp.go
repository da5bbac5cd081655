package posthog

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// maxFuture is how far ahead of the service's clock an event's time may lie before it is taken for wrong.
const maxFuture = 23 * time.Hour

// maxTime is the longest text in bytes that is read as a time.
const maxTime = 64

// layouts are the forms beside RFC 3339 that SDKs and their users write. They are tried in this order. A layout without
// a zone means UTC.
var layouts = []string{
	"2006-01-02T15:04:05Z07",
	"2006-01-02T15:04:05",
	"2006-01-02T15:04Z07:00",
	"2006-01-02T15:04",
	"2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05 Z07:00",
	"2006-01-02 15:04:05Z07",
	"2006-01-02 15:04:05 -0700",
	"2006-01-02 15:04:05 UTC",
	"2006-01-02 15:04:05",
	"2006-01-02 15:04",
	"2006-01-02T15:04:05-0700",
	"2006-01-02",
	"2006/01/02 15:04:05",
	"2006/01/02",
	"01/02/2006 15:04:05",
	"01/02/2006",
}

// parseTime reads a time in any of the forms that the protocol allows. A bare number is seconds since 1970, or
// milliseconds if in seconds it would lie beyond the year 5138.
func parseTime(s string) (time.Time, bool) {
	if t, ok := parseDate(s); ok {
		return t, true
	}
	return parseEpoch(strings.TrimSpace(s))
}

// parseDate is parseTime without bare numbers.
func parseDate(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if len(s) > maxTime || s == "" {
		return time.Time{}, false
	}
	if len(s) > 19 && s[10] == 't' {
		s = strings.ToUpper(s)
	}
	if len(s) > 19 && s[16:19] == ":60" {
		// This is a leap second, which the clocks of computers do not have.
		t, ok := parseDate(s[:16] + ":59" + s[19:])
		return t.Add(time.Second), ok
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), true
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return parseRFC2822(s)
}

// zones are the names of zones that RFC 2822 knows. Nobody can say what other names mean.
var zones = map[string]string{
	"UT": "+0000", "GMT": "+0000", "UTC": "+0000", "Z": "+0000",
	"EST": "-0500", "EDT": "-0400", "CST": "-0600", "CDT": "-0500", "MST": "-0700", "MDT": "-0600", "PST": "-0800",
	"PDT": "-0700",
}

// parseRFC2822 reads a date as mail writes it: Mon, 23 Nov 2026 19:52:25 +0100. The weekday and the seconds may be
// missing.
func parseRFC2822(s string) (time.Time, bool) {
	if comma := strings.IndexByte(s, ','); comma >= 0 {
		s = strings.TrimSpace(s[comma+1:])
	}
	if space := strings.LastIndexByte(s, ' '); space >= 0 {
		if offset, ok := zones[strings.ToUpper(s[space+1:])]; ok {
			s = s[:space+1] + offset
		}
	}
	for _, layout := range [...]string{"2 Jan 2006 15:04:05 -0700", "2 Jan 2006 15:04 -0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

func parseEpoch(s string) (time.Time, bool) {
	n, err := strconv.ParseFloat(s, 64)
	const limit = 1e11
	switch {
	case err != nil || math.IsNaN(n) || math.Abs(n) >= limit*1000:
		return time.Time{}, false
	case math.Abs(n) >= limit:
		return time.UnixMicro(int64(n * 1e3)).UTC(), true
	default:
		return time.UnixMicro(int64(n * 1e6)).UTC(), true
	}
}

// Clock is what is known about the time of a request: the service's now, and the client's if the client has sent it.
type Clock struct {
	Now    time.Time
	SentAt time.Time // zero: unknown
	// Retried is set if the request carries the sent_at and the offsets of an earlier attempt. The distance from
	// sent_at to now is then the delay of the retry, and not the skew of the client's clock.
	Retried bool
}

// At computes when an event with a timestamp happened. ignoreSentAt is set if the client asks the service not to
// correct its clock.
func (c Clock) At(stamp time.Time, ignoreSentAt bool) time.Time {
	return c.eventTime(stamp, true, 0, false, ignoreSentAt)
}

// eventTime computes when an event happened. stamp is its timestamp, if hasStamp says that there is a readable one.
// offset is how many milliseconds before the sending it happened, if hasOffset says that there is one.
func (c Clock) eventTime(stamp time.Time, hasStamp bool, offset int64, hasOffset, ignoreSentAt bool) time.Time {
	sentAt := c.SentAt
	if ignoreSentAt {
		sentAt = time.Time{}
	}
	t := c.Now
	switch {
	case hasOffset && c.Retried && !sentAt.IsZero():
		t = before(sentAt, offset)
	case hasOffset:
		t = before(c.Now, offset)
	case hasStamp && !c.Retried && !sentAt.IsZero():
		t = time.Unix(stamp.Unix()+c.Now.Unix()-sentAt.Unix(),
			int64(stamp.Nanosecond()+c.Now.Nanosecond()-sentAt.Nanosecond())).UTC()
	case hasStamp:
		t = stamp
	}
	if t.After(c.Now.Add(maxFuture)) {
		t = c.Now
	}
	if year := t.Year(); year < 0 || year > 9999 {
		t = time.Unix(0, 0).UTC()
	}
	return t
}

// before returns the time so many milliseconds before t. It uses no Duration, which would hold no more than 292 years.
func before(t time.Time, ms int64) time.Time {
	return time.Unix(t.Unix()-ms/1000, int64(t.Nanosecond())-ms%1000*int64(time.Millisecond)).UTC()
}
