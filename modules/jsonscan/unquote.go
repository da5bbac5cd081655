package jsonscan

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// Unquote appends the text of the JSON string that src begins with to dst. It returns the text, and how many bytes of
// src the string takes with both of its quotes; 0 if the string has no end or a malformed escape, and the text is then
// what stands before that.
//
// The escape of a lone surrogate becomes the surrogate in three bytes, as if it were a character, so that the caller
// can tell that a character is lost. All else that is no escape stays as it is. The text is never longer than src, and
// dst may be the beginning of src's own memory, because no byte is written before it has been read.
func Unquote(dst, src []byte) (text []byte, n int) {
	if len(src) == 0 || src[0] != '"' {
		return dst, 0
	}
	for i := 1; ; {
		stop := bytes.IndexAny(src[i:], `"\`)
		if stop < 0 {
			return append(dst, src[i:]...), 0
		}
		dst = append(dst, src[i:i+stop]...)
		if i += stop; src[i] == '"' {
			return dst, i + 1
		}
		if i+1 == len(src) {
			return dst, 0
		}
		plain := byte(0)
		switch c := src[i+1]; c {
		case '"', '\\', '/':
			plain = c
		case 'b':
			plain = '\b'
		case 'f':
			plain = '\f'
		case 'n':
			plain = '\n'
		case 'r':
			plain = '\r'
		case 't':
			plain = '\t'
		case 'u':
			unit, ok := hex4(src, i+2)
			if !ok {
				return dst, 0
			}
			i += 6
			first := rune(unit)
			if pair := pairOf(first, src, i); pair != utf8.RuneError {
				dst = utf8.AppendRune(dst, pair)
				i += 6
			} else if utf16.IsSurrogate(first) {
				dst = append(dst, 0xe0|byte(unit>>12), 0x80|byte(unit>>6&0x3f), 0x80|byte(unit&0x3f))
			} else {
				dst = utf8.AppendRune(dst, first)
			}
			continue
		default:
			return dst, 0
		}
		dst = append(dst, plain)
		i += 2
	}
}

// pairOf returns the character that a surrogate and the escape at i make together; utf8.RuneError if they are no pair.
func pairOf(first rune, src []byte, i int) rune {
	if low, ok := lowSurrogate(src, i); !ok || !low {
		return utf8.RuneError
	}
	unit, _ := hex4(src, i+2) // lowSurrogate has read it
	return utf16.DecodeRune(first, rune(unit))
}
