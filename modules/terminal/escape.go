package terminal

import (
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape returns a piece of text, such as the cell of a table, without anything that a terminal obeys. Line feeds and
// tabs are escaped as well, so the piece stays one line. A text that needs no escapes is returned as it is.
func Escape(text string) string {
	if at := first([]byte(text), false); at < 0 {
		return text
	}
	return string(appendEscaped(nil, []byte(text), false))
}

// EscapeLines is Escape for text that has been laid out: it keeps line feeds and tabs.
func EscapeLines(text []byte) []byte {
	if first(text, true) < 0 {
		return text
	}
	return appendEscaped(nil, text, true)
}

// first returns where the first character stands that has to be escaped, or -1.
func first(text []byte, lines bool) int {
	for i := 0; i < len(text); {
		r, size := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(text[i:])
		}
		if r == utf8.RuneError && size == 1 || obeyed(r, lines) {
			return i
		}
		i += size
	}
	return -1
}

func appendEscaped(to, text []byte, lines bool) []byte {
	for {
		at := first(text, lines)
		if at < 0 {
			return append(to, text...)
		}
		to = append(to, text[:at]...)
		r, size := utf8.DecodeRune(text[at:])
		to = appendEscape(to, r)
		text = text[at+size:]
	}
}

// appendEscape writes a character as JSON does. A byte that is no UTF-8 is U+FFFD here.
func appendEscape(to []byte, r rune) []byte {
	switch r {
	case '\n':
		return append(to, `\n`...)
	case '\r':
		return append(to, `\r`...)
	case '\t':
		return append(to, `\t`...)
	}
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		return fmt.Appendf(to, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(to, `\u%04x`, r)
}

const (
	nonJoiner = '\u200c'
	joiner    = '\u200d'
)

// obeyed reports whether a terminal obeys a character instead of showing it.
func obeyed(r rune, lines bool) bool {
	switch {
	case r < ' ':
		return !lines || r != '\n' && r != '\t'
	case r < 0x7f:
		return false
	case r < 0xa0:
		return true // DEL and C1
	case r == nonJoiner, r == joiner:
		return false
	case r == '\u2028', r == '\u2029':
		return true
	}
	return unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Prepended_Concatenation_Mark, r)
}
