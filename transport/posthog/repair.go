package posthog

import "bytes"

// repairs counts what repair has mended, by kind.
type repairs struct {
	numbers    int // bare NaN, Infinity, -Infinity
	surrogates int // escapes of lone surrogates
}

// repair returns a copy of the text in which bare NaN, Infinity and -Infinity are null and escapes of lone surrogates are
// \ufffd. It does not judge the rest: neither mend can turn other invalid text into JSON, because it moves no quote, and a
// null that touches another token is as invalid as what it replaces. The copy is at most a third longer.
func repair(data []byte) ([]byte, repairs) {
	var done repairs
	out := make([]byte, 0, len(data)+len(data)/16+16)
	inString := false
	for i := 0; i < len(data); {
		if inString {
			stop := bytes.IndexAny(data[i:], `"\`)
			if stop < 0 {
				out = append(out, data[i:]...)
				break
			}
			out = append(out, data[i:i+stop]...)
			i += stop
			if data[i] == '"' {
				inString = false
				out = append(out, '"')
				i++
				continue
			}
			n, lone := escapeLen(data, i)
			if lone {
				done.surrogates++
				out = append(out, `\ufffd`...)
			} else {
				out = append(out, data[i:i+n]...)
			}
			i += n
			continue
		}
		n := 0
		switch data[i] {
		case '"':
			inString = true
		case 'N':
			n = prefixLen(data[i:], "NaN")
		case 'I':
			n = prefixLen(data[i:], "Infinity")
		case '-':
			n = prefixLen(data[i:], "-Infinity")
		}
		if n > 0 {
			done.numbers++
			out = append(out, "null"...)
			i += n
			continue
		}
		out = append(out, data[i])
		i++
	}
	return out, done
}

// escapeLen returns how long the escape sequence at i is, and whether it is a lone surrogate's.
func escapeLen(data []byte, i int) (n int, lone bool) {
	unit, ok := uint16(0), false
	if i+1 < len(data) && data[i+1] == 'u' {
		unit, ok = hex4(data, i+2)
	}
	if !ok {
		return min(2, len(data)-i), false
	}
	if unit < 0xd800 || unit > 0xdfff {
		return 6, false
	}
	if low, isEscape := lowSurrogate(data, i+6); unit < 0xdc00 && isEscape && low {
		return 12, false
	}
	return 6, true
}

func prefixLen(data []byte, text string) int {
	if hasPrefixAt(data, 0, text) {
		return len(text)
	}
	return 0
}
