package jsonscan

import (
	"bytes"
	"unicode/utf8"
)

// Repairs counts what Repair mends, by kind.
type Repairs struct {
	Numbers    int // NaN and infinities, in the spellings of isNotFinite
	Surrogates int // escapes of lone surrogates
	Controls   int // control characters that stand bare in a string
	Bytes      int // bytes in a string that are not UTF-8
}

// Any reports whether anything is mended.
func (r Repairs) Any() bool { return r != Repairs{} }

// Survey returns what Repair mends in the text, and how many bytes the mended copy has. It makes no copy, so that a
// caller can reserve the memory first.
func Survey(data []byte) (found Repairs, size int) {
	size = len(data)
	faults := faults{data: data}
	for faults.next(&found) {
		size += len(faults.by) - (faults.at - faults.from)
	}
	return found, size
}

// Repair returns a copy of the text in which NaN and infinities are null, the escape of a lone surrogate is \ufffd, a
// control character in a string is escaped, and a byte in a string that is not UTF-8 is U+FFFD. It does not judge the
// rest. No mend can turn other invalid text into JSON: none moves a quote, and a null that touches another token is as
// invalid as the word before it was. The copy has exactly the size that Survey returns.
func Repair(data []byte) ([]byte, Repairs) {
	_, size := Survey(data)
	out := make([]byte, 0, size)
	var done Repairs
	copied := 0
	for faults := (faults{data: data}); faults.next(&done); copied = faults.at {
		out = append(out, data[copied:faults.from]...)
		out = append(out, faults.by...)
	}
	return append(out, data[copied:]...), done
}

// faults goes through the faults of a text that Repair mends.
type faults struct {
	data     []byte
	at       int
	inString bool

	// data[from:at] is the fault, and by what replaces it.
	from int
	by   string
}

// next finds the next fault and counts it. It reports false at the end of the text.
func (f *faults) next(found *Repairs) bool {
	f.by = ""
	for f.by == "" && f.at < len(f.data) {
		if f.inString {
			f.inText(found)
		} else {
			f.betweenStrings(found)
		}
	}
	return f.by != ""
}

// betweenStrings goes on to the next string, or to a fault before it.
func (f *faults) betweenStrings(found *Repairs) {
	for f.at < len(f.data) && isDelimiter(f.data[f.at]) {
		f.at++
		if f.data[f.at-1] == '"' {
			f.inString = true
			return
		}
	}
	f.from = f.at
	f.at += len(token(f.data, f.at))
	if isNotFinite(f.data[f.from:f.at]) {
		found.Numbers++
		f.by = "null"
	}
}

// inText goes on to the end of a string, or to a fault in it.
func (f *faults) inText(found *Repairs) {
	for f.at < len(f.data) {
		c := f.data[f.at]
		f.from = f.at
		f.at++
		switch {
		case c == '"':
			f.inString = false
			return
		case c == '\\':
			n, lone := escapeLen(f.data, f.from)
			f.at = f.from + n
			if lone {
				found.Surrogates++
				f.by = `\ufffd`
				return
			}
		case c < ' ':
			found.Controls++
			f.by = controls[c]
			return
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(f.data[f.from:])
			f.at = f.from + n
			if r == utf8.RuneError && n == 1 {
				found.Bytes++
				f.by = "\ufffd"
				return
			}
		}
	}
}

// controls are the escapes of the control characters.
var controls = [' ']string{
	`\u0000`, `\u0001`, `\u0002`, `\u0003`, `\u0004`, `\u0005`, `\u0006`, `\u0007`,
	`\b`, `\t`, `\n`, `\u000b`, `\f`, `\r`, `\u000e`, `\u000f`,
	`\u0010`, `\u0011`, `\u0012`, `\u0013`, `\u0014`, `\u0015`, `\u0016`, `\u0017`,
	`\u0018`, `\u0019`, `\u001a`, `\u001b`, `\u001c`, `\u001d`, `\u001e`, `\u001f`,
}

// escapeLen returns the length of the escape sequence at i, and whether it is the escape of a lone surrogate. Of a
// backslash before a character that is not ASCII, which is no escape, it returns the length of the backslash.
func escapeLen(data []byte, i int) (n int, lone bool) {
	unit, ok := uint16(0), false
	if i+1 < len(data) && data[i+1] == 'u' {
		unit, ok = hex4(data, i+2)
	}
	switch {
	case ok:
	case i+1 == len(data) || data[i+1] >= utf8.RuneSelf:
		return 1, false
	default:
		return 2, false
	}
	if unit < 0xd800 || unit > 0xdfff {
		return 6, false
	}
	if low, isEscape := lowSurrogate(data, i+6); unit < 0xdc00 && isEscape && low {
		return 12, false
	}
	return 6, true
}

// isDelimiter reports whether a character outside of strings ends a token.
func isDelimiter(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '\r', ',', ':', '[', ']', '{', '}', '"':
		return true
	}
	return false
}

// token returns what stands at i up to the next delimiter.
func token(data []byte, i int) []byte {
	end := i
	for end < len(data) && !isDelimiter(data[end]) {
		end++
	}
	return data[i:end]
}

// isNotFinite reports whether a token is what a program has written in the place of a number that is not finite. Case
// does not matter, and there may be a sign:
//
//	nan, inf, infinity         C, Go, Java, JavaScript, Python, Ruby, Rust, .NET
//	nan(ind), nan(0x7ff8)      C with the payload of the NaN
//	nanq, nans                 C on AIX
//	∞                          .NET
//	1.#INF, 1.#QNAN, 1.#J, 1.#INF00e+000    C on Windows, where the digits were rounded, too
func isNotFinite(token []byte) bool {
	if len(token) > 0 && (token[0] == '-' || token[0] == '+') {
		token = token[1:]
	}
	if rest, found := bytes.CutPrefix(token, []byte("1.#")); found {
		word := len(rest) - len(bytes.TrimLeftFunc(rest, isWord))
		exponent := bytes.TrimLeft(rest[word:], "+-")
		return word > 0 && len(rest)-word-len(exponent) <= 1 && len(bytes.TrimLeft(exponent, "0123456789")) == 0
	}
	if len(token) < len("nan") || !isName(token[:3], "nan") {
		return isName(token, "inf") || isName(token, "infinity") || string(token) == "∞"
	}
	rest := token[3:]
	if len(rest) >= 2 && rest[0] == '(' && rest[len(rest)-1] == ')' {
		return len(bytes.TrimLeftFunc(rest[1:len(rest)-1], isWord)) == 0
	}
	return len(rest) == 0 || isName(rest, "q") || isName(rest, "s")
}

// isName reports whether a token is a name in lower case, whatever the token's own case.
func isName(token []byte, name string) bool {
	if len(token) != len(name) {
		return false
	}
	for i := range token {
		if token[i]|0x20 != name[i] {
			return false
		}
	}
	return true
}

func isWord(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
}
