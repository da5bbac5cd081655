package posthog

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// maxFuture is how far ahead of the service's clock an event may lie before its time is taken as wrong.
const maxFuture = 23 * time.Hour

// layouts are the forms beside RFC 3339 that SDKs and their users write, tried in this order. A layout without a zone means UTC.
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

// parseTime reads a time in any of the forms that the protocol allows. A bare number is seconds since 1970, or milliseconds
// where seconds would lie beyond the year 5138.
func parseTime(s string) (time.Time, bool) {
	if t, ok := parseDate(s); ok {
		return t, true
	}
	return parseEpoch(strings.TrimSpace(s))
}

// parseDate is parseTime without the bare numbers.
func parseDate(s string) (time.Time, bool) {
	if t, ok := parseRFC3339(s); ok {
		return t, true
	}
	s = strings.TrimSpace(s)
	if len(s) > 64 || s == "" {
		return time.Time{}, false
	}
	if len(s) > 19 && s[10] == 't' {
		s = strings.ToUpper(s)
	}
	if len(s) > 19 && s[16:19] == ":60" {
		// A leap second, which the clocks of computers do not have.
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

// zones are the names that RFC 2822 knows; of others nobody can say what they mean.
var zones = map[string]string{
	"UT": "+0000", "GMT": "+0000", "UTC": "+0000", "Z": "+0000",
	"EST": "-0500", "EDT": "-0400", "CST": "-0600", "CDT": "-0500", "MST": "-0700", "MDT": "-0600", "PST": "-0800", "PDT": "-0700",
}

// parseRFC2822 reads what mail has for a date, Mon, 23 Nov 2026 19:52:25 +0100, of which the weekday and the seconds may be
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

// parseRFC3339 reads what nearly every SDK sends, 2006-01-02T15:04:05.999999999 with Z or an offset, several times faster
// than time.Parse. It leaves to time.Parse whatever it is not sure of.
func parseRFC3339(s string) (time.Time, bool) {
	if len(s) < 20 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, false
	}
	year, ok1 := number(s[0:4])
	month, ok2 := number(s[5:7])
	day, ok3 := number(s[8:10])
	hour, ok4 := number(s[11:13])
	minute, ok5 := number(s[14:16])
	second, ok6 := number(s[17:19])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || month < 1 || month > 12 || day < 1 || day > 28 && day > daysIn(month, year) ||
		hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	s = s[19:]
	nanos := 0
	if s[0] == '.' {
		i, scale := 1, 100_000_000
		for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			nanos += int(s[i]-'0') * scale
			scale /= 10
		}
		if i == 1 {
			return time.Time{}, false
		}
		s = s[i:]
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	if s == "Z" {
		return t, true
	}
	if len(s) != 6 || s[3] != ':' || s[0] != '+' && s[0] != '-' {
		return time.Time{}, false
	}
	zoneHours, ok1 := number(s[1:3])
	zoneMinutes, ok2 := number(s[4:6])
	if !(ok1 && ok2) || zoneHours > 23 || zoneMinutes > 59 {
		return time.Time{}, false
	}
	zone := time.Duration(zoneHours)*time.Hour + time.Duration(zoneMinutes)*time.Minute
	if s[0] == '+' {
		zone = -zone
	}
	return t.Add(zone), true
}

// number reads decimal digits.
func number(s string) (n int, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

func daysIn(month, year int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// clock is what a request says about time: the service's own now, and the client's if it is known.
type clock struct {
	now    time.Time
	sentAt time.Time // zero: unknown
	// retried: the request carries the sent_at and the offsets of an earlier attempt, so the distance to now is not the
	// client's skew but the delay of the retry.
	retried bool
}

// eventTime computes when an event happened. stamp is its timestamp where it has a readable one, offset how many milliseconds
// before sending it happened.
func (c clock) eventTime(stamp time.Time, hasStamp bool, offset int64, hasOffset, ignoreSentAt bool) time.Time {
	sentAt := c.sentAt
	if ignoreSentAt {
		sentAt = time.Time{}
	}
	t := c.now
	switch {
	case hasOffset && c.retried && !sentAt.IsZero():
		t = before(sentAt, offset)
	case hasOffset:
		t = before(c.now, offset)
	case hasStamp && !c.retried && !sentAt.IsZero():
		t = time.Unix(stamp.Unix()+c.now.Unix()-sentAt.Unix(), int64(stamp.Nanosecond()+c.now.Nanosecond()-sentAt.Nanosecond())).UTC()
	case hasStamp:
		t = stamp
	}
	if t.After(c.now.Add(maxFuture)) {
		t = c.now
	}
	if year := t.Year(); year < 0 || year > 9999 {
		t = time.Unix(0, 0).UTC()
	}
	return t
}

// before is so many milliseconds before a time. A Duration would hold no more than 292 years.
func before(t time.Time, ms int64) time.Time {
	return time.Unix(t.Unix()-ms/1000, int64(t.Nanosecond())-ms%1000*int64(time.Millisecond)).UTC()
}
