package posthog

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// timeText is a time as people and programs write it. It reads all forms that the parser of PostHog's own service
// reads, and what the usual languages print:
//
//	2014-04-26 05:24:37 PM      2014/4/8 22:05             2014.03.30              2014年04月08日11时25分18秒
//	May 8, 2009 5:57:51 PM      oct. 7, 70                 12 Feb 2006, 19:17      14-October-2019 19:11:40.164
//	3/31/2014 22:05             03.31.2014                 171113 14:14:20         Wed, 02 Jun 2021 06:31:39 GMT
//	May 27 02:45:27             6:00pm UTC                 2017-11-25 13:31 PST    2020-07-20+08:00
//	20261123T195225Z
//
//	Mon Nov 23 2026 19:52:25 GMT+0100 (Central European Standard Time)
//
// The month goes before the day where both are numbers. A time without a zone is in UTC, a date without a time is its
// midnight, and a time without a date, or a date without a year, is of the day or the year of now in that zone. Digits
// may be of any script. The calendar is the Gregorian one.
//
// The text is taken apart into a date, a clock, a half of the day and a zone; package time reads the parts. A text with
// a part too many, or one that nobody can name, is not read: a wrong time is worse than none. That is why no library
// guesses here. The usual one takes "music, coding, artd" for a time and PST for UTC, and one that knows more takes
// milliseconds for a text.
type timeText struct {
	room  [maxTime]byte
	plain []byte

	date, clock string
	half        byte // 'a', 'p' or 0
	offset      time.Duration
	// zoned is set if there is a zone, numeric if it is a number, named if a name stands behind that number.
	zoned, numeric, named bool
}

// fold writes the text in ASCII: digits, dashes and spaces of other scripts become those of ASCII, the T between a date
// and a clock becomes a space, and marks that cannot be seen disappear. It reports false if something else is left.
func (t *timeText) fold(s string) bool {
	t.plain = t.room[:0]
	s = strings.TrimSpace(s)
	for i, r := range s {
		switch {
		case (r == 'T' || r == 't') && t.isBetweenDigits(s[i+1:]), unicode.IsSpace(r):
			r = ' '
		case r < unicode.MaxASCII:
		case unicode.IsDigit(r):
			r = '0' + digitOf(r)
		default:
			var known bool
			if r, known = folded[r]; !known {
				return false
			}
		}
		if r != nothing {
			t.plain = append(t.plain, byte(r))
		}
	}
	return len(t.plain) > 0
}

// isBetweenDigits reports whether a digit was written last, and the rest begins with one.
func (t *timeText) isBetweenDigits(rest string) bool {
	next, _ := utf8.DecodeRuneInString(rest)
	return len(t.plain) > 0 && isDigit(t.plain[len(t.plain)-1]) && unicode.IsDigit(next)
}

// nothing is what a mark that cannot be seen becomes.
const nothing = -1

// folded are the characters that stand for one of ASCII in a time.
var folded = map[rune]rune{
	'年': '-', '月': '-', '日': ' ', '时': ':', '時': ':', '分': ':', '秒': ' ',
	'：': ':', '／': '/', '．': '.', '，': ',', '،': ',', '－': '-', '−': '-', '‐': '-', '‑': '-', '–': '-', '＋': '+',
	'\u200e': nothing, '\u200f': nothing, '\u061c': nothing, '\u202a': nothing, '\u202c': nothing,
	'\u2068': nothing, '\u2069': nothing, '\ufeff': nothing,
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// digitOf returns the value of a decimal digit of any script. Unicode has the digits of a script in order, and ten of
// them, or sets of ten, in a row.
func digitOf(r rune) rune {
	n := rune(0)
	for unicode.IsDigit(r - n - 1) {
		n++
	}
	return n % 10
}

// read reads the folded text.
func (t *timeText) read(s string, now time.Time) (time.Time, bool) {
	for s = trimLeft(s); s != ""; s = trimLeft(s) {
		var ok bool
		switch c := s[0]; {
		case isDigit(c):
			s, ok = t.number(s)
		case c == '+' || c == '-':
			s, ok = t.difference(s)
		case c == '(':
			// JavaScript writes the name of the zone behind its offset.
			return t.join(now, t.zoned && s[len(s)-1] == ')')
		case c == '[':
			// So do Java and JavaScript's Temporal.
			return t.join(now, t.zoned && s[len(s)-1] == ']')
		case strings.HasPrefix(s, "m="):
			// Go writes what its monotonic clock says behind the zone.
			return t.join(now, t.zoned)
		default:
			s, ok = t.word(s)
		}
		if !ok {
			return time.Time{}, false
		}
	}
	return t.join(now, true)
}

func trimLeft(s string) string { return strings.TrimLeft(s, " ,") }

// number takes a clock or a part of the date from the beginning of the text, and returns the rest.
func (t *timeText) number(s string) (rest string, ok bool) {
	end := 1
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	if end < len(s) && s[end] == ':' {
		for end < len(s) && (isDigit(s[end]) || s[end] == ':' || s[end] == '.' ||
			s[end] == ',' && end+1 < len(s) && isDigit(s[end+1])) {
			end++
		}
		if t.clock != "" {
			return "", false
		}
		t.clock = strings.TrimRight(s[:end], ":")
		return s[end:], true
	}
	for end < len(s) && (isDigit(s[end]) || isLetter(s[end]) || s[end] == '/' || s[end] == '.' || s[end] == '-') {
		end++
	}
	date, rest := s[:end], s[end:]
	if last := len(date) - 1; date[last] == 'Z' || date[last] == 'z' {
		date, rest = date[:last], date[last:]+rest
	}
	if t.clock == "" && len(t.date) == len("20060102") && isDigits(t.date) {
		if t.clock = basicClock(date); t.clock != "" {
			return rest, true
		}
	}
	if strings.IndexFunc(date, unicode.IsLetter) < 0 {
		return rest, t.addDate(strings.TrimRight(date, ".-"))
	}
	// 12-Feb-2006 is 12 Feb 2006.
	for part := range strings.SplitSeq(date, "-") {
		if isDigits(part) {
			ok = part != "" && t.addDate(part)
		} else {
			month := monthOf(part)
			ok = month != "" && t.addDate(month)
		}
		if !ok {
			return "", false
		}
	}
	return rest, true
}

// basicClock returns the clock of ISO 8601's basic format, as 195225.5, in its extended format, and "" for anything
// else.
func basicClock(s string) string {
	digits, fraction, _ := strings.Cut(s, ".")
	if len(digits) != len("150405") || !isDigits(digits) || !isDigits(fraction) {
		return ""
	}
	return s[:2] + ":" + s[2:4] + ":" + s[4:]
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// addDate adds a part to the date. It reports false if the date has three parts already.
func (t *timeText) addDate(part string) bool {
	if t.date != "" {
		t.date += " "
	}
	t.date += part
	return strings.Count(t.date, " ") < 3
}

// word takes a word from the beginning of the text, and returns the rest.
func (t *timeText) word(s string) (rest string, ok bool) {
	end := 0
	for end < len(s) && (isLetter(s[end]) || s[end] == '.') {
		end++
	}
	word, rest := strings.ToLower(strings.ReplaceAll(s[:end], ".", "")), s[end:]
	if word == "a" || word == "p" {
		// Spanish writes a. m.
		if next := trimLeft(rest); strings.HasPrefix(next, "m.") || next == "m" {
			word, rest = word+"m", strings.TrimPrefix(next[1:], ".")
		}
	}
	if word == "amz" || word == "pmz" {
		// The formatter of a device that is set to a 12-hour clock has written more than its format asked for.
		word, rest = word[:2], "Z"+rest
	}
	switch {
	case word == "am" || word == "pm":
		ok = t.half == 0 && t.clock != ""
		t.half = word[0]
	case word == "at":
		ok = t.date != ""
	case isWeekday(word):
		ok = t.clock == ""
	case monthOf(word) != "":
		ok = t.addDate(monthOf(word))
	default:
		offset, known := zones[word]
		switch {
		case t.numeric && !t.named && word != "" && len(word) <= maxZone:
			// Ruby and Go write the zone's name behind its number, which says it better.
			t.named, ok = true, true
		case known && !t.zoned:
			t.zoned, t.offset, ok = true, offset, true
		}
	}
	return rest, ok
}

// difference takes the zone's difference from UTC from the beginning of the text, and returns the rest.
func (t *timeText) difference(s string) (rest string, ok bool) {
	end := 1
	for end < len(s) && (isDigit(s[end]) || s[end] == ':') {
		end++
	}
	digits := strings.ReplaceAll(s[1:end], ":", "")
	if len(digits)%2 == 1 {
		digits = "0" + digits // as in GMT+2
	}
	if len(digits) == 2 {
		digits += "00"
	}
	n, err := strconv.Atoi(digits)
	if len(digits) != 4 || err != nil || n/100 > 23 || n%100 > 59 || t.numeric || t.zoned && t.offset != 0 {
		return "", false
	}
	t.zoned, t.numeric = true, true
	t.offset = time.Duration(n/100)*time.Hour + time.Duration(n%100)*time.Minute
	if s[0] == '-' {
		t.offset = -t.offset
	}
	return s[end:], true
}

var months = [...]string{
	"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
	"december",
}

// monthOf returns the short name of a month that a word names, or "".
func monthOf(word string) string {
	word = strings.ToLower(word)
	for _, month := range months {
		if word == month || word == month[:3] || word == "sept" && month == "september" {
			return month[:3]
		}
	}
	return ""
}

func isWeekday(word string) bool {
	for day := time.Sunday; day <= time.Saturday; day++ {
		if name := strings.ToLower(day.String()); word == name || word == name[:3] {
			return true
		}
	}
	return word == "tues" || word == "thur" || word == "thurs"
}

// maxZone is the longest abbreviation of a zone's name.
const maxZone = 5

// zones are the names of zones that mean the same everywhere, or that RFC 2822 gives a meaning. Nobody can say what
// others mean, such as IST, of which there are three.
var zones = map[string]time.Duration{
	"z": 0, "ut": 0, "gmt": 0, "utc": 0,
	"est": -5 * time.Hour, "edt": -4 * time.Hour, "cst": -6 * time.Hour, "cdt": -5 * time.Hour,
	"mst": -7 * time.Hour, "mdt": -6 * time.Hour, "pst": -8 * time.Hour, "pdt": -7 * time.Hour,
	"akst": -9 * time.Hour, "akdt": -8 * time.Hour, "hst": -10 * time.Hour,
	"wet": 0, "west": time.Hour, "cet": time.Hour, "cest": 2 * time.Hour, "eet": 2 * time.Hour, "eest": 3 * time.Hour,
	"msk": 3 * time.Hour, "jst": 9 * time.Hour, "kst": 9 * time.Hour,
	"aest": 10 * time.Hour, "aedt": 11 * time.Hour, "nzst": 12 * time.Hour, "nzdt": 13 * time.Hour,
}

// dates are the forms of a date. The parts are apart by a space where one of them is a word.
var dates = [...]string{
	"2006-1-2", "2006/1/2", "2006.1.2", "20060102", "1/2/2006", "1/2/06", "1.2.2006", "1.2.06",
	"Jan 2 2006", "Jan 2 06", "2 Jan 2006", "2 Jan 06", "2006 Jan 2",
}

// join makes a time of the parts. all is false if not all of the text belongs to it.
func (t *timeText) join(now time.Time, all bool) (time.Time, bool) {
	day, dated := t.readDate(now.Add(t.offset))
	if !all || !dated {
		return time.Time{}, false
	}
	clock, leap, ok := t.readClock()
	if !ok {
		return time.Time{}, false
	}
	at := day.Add(clock.Sub(clock.Truncate(24 * time.Hour))).Add(-t.offset)
	if leap {
		at = at.Add(time.Second)
	}
	return at, true
}

// readDate returns the midnight with which the date begins. today is the zone's own.
func (t *timeText) readDate(today time.Time) (time.Time, bool) {
	switch {
	case t.date == "":
		return time.Date(today.Year(), today.Month(), today.Day(), 0, 0, 0, 0, time.UTC), t.clock != ""
	case len(t.date) == len("060102") && isDigits(t.date):
		day, err := time.Parse("060102", t.date)
		return day, err == nil && t.clock != ""
	case strings.Count(t.date, " ") == 1:
		day, err := time.Parse("2006 Jan 2", today.Format("2006 ")+t.date)
		return day, err == nil && t.clock != ""
	}
	for _, form := range dates {
		if day, err := time.Parse(form, t.date); err == nil {
			return day, true
		}
	}
	return time.Time{}, false
}

// readClock reads the clock and the half of the day. A leap second, which the clocks of computers do not have, is
// leap's second after the one before it.
func (t *timeText) readClock() (clock time.Time, leap, ok bool) {
	if t.clock == "" {
		return time.Time{}, false, true
	}
	text := t.clock
	if parts := strings.SplitN(text, ":", 3); len(parts) == 3 && strings.HasPrefix(parts[2], "60") {
		text, leap = parts[0]+":"+parts[1]+":59"+parts[2][2:], true
	}
	clock, err := time.Parse("15:04:05", text)
	if err != nil {
		if clock, err = time.Parse("15:04", text); err != nil {
			return time.Time{}, false, false
		}
	}
	switch hour := clock.Hour(); {
	case t.half == 'p' && hour == 0, t.half == 'a' && hour > 12:
		return time.Time{}, false, false
	case t.half == 'p' && hour < 12:
		clock = clock.Add(12 * time.Hour)
	case t.half == 'a' && hour == 12:
		clock = clock.Add(-12 * time.Hour)
	}
	return clock, leap, true
}
