package jsonscan

import "bytes"

// Repairs counts what Repair has mended, by kind.
type Repairs struct {
	Numbers    int // bare NaN, Infinity, -Infinity
	Surrogates int // escapes of lone surrogates
}

// Any reports whether anything was mended.
func (r Repairs) Any() bool { return r != Repairs{} }

// Repair returns a copy of the text in which bare NaN, Infinity and -Infinity are null, and escapes of lone surrogates
// are \ufffd. It does not judge the rest. Neither mend can turn other invalid text into JSON: it moves no quote, and a
// null that touches another token is as invalid as the word before it was. The copy is at most a third longer.
func Repair(data []byte) ([]byte, Repairs) {
	var done Repairs
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
				done.Surrogates++
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
			done.Numbers++
			out = append(out, "null"...)
			i += n
			continue
		}
		out = append(out, data[i])
		i++
	}
	return out, done
}

// escapeLen returns the length of the escape sequence at i, and whether it is the escape of a lone surrogate.
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
