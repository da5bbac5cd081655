package posthog

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/jsonscan"
)

// maxTime is the longest text in bytes that is read as a time.
const maxTime = 128

// parseTime reads a time in any of the forms that the protocol allows: RFC 3339, a number since 1970, and the forms of
// timeText. now completes a form that has no date, no year or no day.
func parseTime(s string, now time.Time) (time.Time, bool) {
	if len(s) > maxTime {
		return time.Time{}, false
	}
	if hasZone(s) {
		if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
			return t.UTC(), true
		}
	}
	var text timeText
	if !text.fold(s) {
		return time.Time{}, false
	}
	plain := string(text.plain)
	if t, ok := parseDigits(plain, now); ok {
		return t, true
	}
	if t, ok := parseEpoch(plain); ok {
		return t, true
	}
	return text.read(plain, now.UTC())
}

// hasZone reports whether a text ends like a time of RFC 3339. An error of package time costs more than this look.
func hasZone(s string) bool {
	last := len(s) - 1
	return last >= 0 && s[last] == 'Z' ||
		last >= len("+00:00") && s[last-2] == ':' && (s[last-5] == '+' || s[last-5] == '-')
}

// readTime reads the JSON value of a time: a text, or a number that means what the same digits mean in a text. ok is
// false for anything else, and for what parseTime cannot read.
func readTime(raw []byte, now time.Time) (t time.Time, ok bool) {
	switch {
	case len(raw) > len(`""`)+len(`\u0000`)*maxTime:
		return time.Time{}, false
	case raw[0] == '"':
		return parseTime(jsonscan.Text(raw), now)
	case isNumber(raw):
		return parseTime(jsonscan.Alias(raw), now)
	default:
		return time.Time{}, false
	}
}

// IsTime reports whether a JSON value is of a type that a time may have: a text or a number.
func IsTime(raw []byte) bool { return raw[0] == '"' || isNumber(raw) }

func isNumber(raw []byte) bool { return raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9' }

// parseDigits reads the two dates that look like numbers: 20141216, and 2014.03, which as upstream reads it is today's
// day of that month. As numbers, both would be a moment of 1970.
func parseDigits(s string, now time.Time) (time.Time, bool) {
	const first, last = 1990, 2099
	switch {
	case len(s) == len("20060102"):
		t, err := time.Parse("20060102", s)
		return t, err == nil && t.Year() >= first && t.Year() <= last
	case len(s) == len("2006.01") && s[4] == '.':
		t, err := time.Parse("2006.01", s)
		day := min(now.UTC().Day(), t.AddDate(0, 1, -1).Day())
		return t.AddDate(0, 0, day-1), err == nil && t.Year() >= first && t.Year() <= last
	default:
		return time.Time{}, false
	}
}

// parseEpoch reads a number since 1970. The size of the number tells whether it counts seconds, milliseconds,
// microseconds or nanoseconds: each unit ends with the year 5138.
func parseEpoch(s string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil && isDigits(fraction) {
		unit := unitOf(math.Abs(float64(n)))
		perSecond := int64(time.Second / unit)
		nanos := n % perSecond * int64(unit)
		if len(fraction) <= len("123456789") && unit == time.Second {
			part, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
			if strings.HasPrefix(whole, "-") {
				part = -part
			}
			nanos += part
		}
		return time.Unix(n/perSecond, nanos).UTC(), true
	}
	if strings.Trim(s, "+-.eE0123456789") != "" {
		return time.Time{}, false // a number by Go's rules, but not by JSON's
	}
	n, err := strconv.ParseFloat(s, 64)
	unit := unitOf(math.Abs(n))
	if err != nil || math.Abs(n) > math.MaxInt64 {
		return time.Time{}, false
	}
	perSecond := float64(time.Second / unit)
	seconds := math.Floor(n / perSecond)
	micros := math.Round((n - seconds*perSecond) * float64(unit) / float64(time.Microsecond))
	return time.Unix(int64(seconds), int64(micros)*int64(time.Microsecond)).UTC(), true
}

// unitOf returns what a number since 1970 counts.
func unitOf(n float64) time.Duration {
	switch {
	case n < 1e11:
		return time.Second
	case n < 1e14:
		return time.Millisecond
	case n < 1e17:
		return time.Microsecond
	default:
		return time.Nanosecond
	}
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }
