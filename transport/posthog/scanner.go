package posthog

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// maxDepth is how many arrays and objects may be open at once, the request's own included.
const maxDepth = 128

// syntaxError says where the text stops being JSON.
type syntaxError struct {
	offset int
	what   string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.what, e.offset) }

// scanner checks JSON and finds where values end. Its methods take the position of a value's first byte and return the one
// after its last, or -1 after setting err. The text must be valid UTF-8.
type scanner struct {
	data []byte
	err  *syntaxError
	// escapes counts the escape sequences met, so that a string without any can be told.
	escapes int
	// repairable is set when the fault is one of the two that repair mends.
	repairable bool
}

func (s *scanner) fail(offset int, what string) int {
	if s.err == nil {
		if offset >= len(s.data) {
			what = "unexpected end of JSON"
		}
		s.err = &syntaxError{offset: offset, what: what}
	}
	return -1
}

func (s *scanner) needsRepair(offset int, what string) int {
	if s.err == nil {
		s.repairable = true
	}
	return s.fail(offset, what)
}

// space skips white space.
func (s *scanner) space(i int) int {
	for i < len(s.data) {
		switch s.data[i] {
		case ' ', '\n', '\r', '\t':
			i++
		default:
			return i
		}
	}
	return i
}

const (
	ones   = 0x0101010101010101
	highs  = 0x8080808080808080
	quotes = '"' * ones
	slashs = '\\' * ones
	spaces = ' ' * ones
)

// str skips the string whose opening quote is at i. The lowest bit that the masks set is always right (a borrow only runs
// upwards), and only the lowest is used.
func (s *scanner) str(i int) int {
	data := s.data
	i++
	for {
		if i+8 <= len(data) {
			word := binary.LittleEndian.Uint64(data[i:])
			quote, slash := word^quotes, word^slashs
			stop := ((quote - ones) &^ quote) | ((slash - ones) &^ slash) | ((word - spaces) &^ word)
			if stop &= highs; stop == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(stop) >> 3
		} else {
			for i < len(data) && data[i] >= ' ' && data[i] != '"' && data[i] != '\\' {
				i++
			}
			if i >= len(data) {
				return s.fail(i, "unterminated string")
			}
		}
		switch data[i] {
		case '"':
			return i + 1
		case '\\':
			if i = s.escape(i); i < 0 {
				return -1
			}
		default:
			return s.fail(i, "control character in string")
		}
	}
}

// escape skips the escape sequence at i, both halves of a surrogate pair at once.
func (s *scanner) escape(i int) int {
	s.escapes++
	if i+1 >= len(s.data) {
		return s.fail(len(s.data), "unterminated string")
	}
	switch s.data[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		unit, ok := hex4(s.data, i+2)
		if !ok {
			return s.fail(min(i+2, len(s.data)-1), "invalid \\u escape")
		}
		if unit < 0xd800 || unit > 0xdfff {
			return i + 6
		}
		if low, ok := lowSurrogate(s.data, i+6); ok && unit < 0xdc00 && low {
			return i + 12
		}
		return s.needsRepair(i, "lone surrogate escape")
	default:
		return s.fail(i+1, "invalid escape in string")
	}
}

// hex4 reads the four hexadecimal digits at i.
func hex4(data []byte, i int) (unit uint16, ok bool) {
	if i+4 > len(data) {
		return 0, false
	}
	for _, c := range data[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		unit = unit<<4 | uint16(c)
	}
	return unit, true
}

// lowSurrogate reports whether an escape of a low surrogate stands at i; ok is false where no \u escape does.
func lowSurrogate(data []byte, i int) (low, ok bool) {
	if i+6 > len(data) || data[i] != '\\' || data[i+1] != 'u' {
		return false, false
	}
	unit, ok := hex4(data, i+2)
	return unit >= 0xdc00 && unit <= 0xdfff, ok
}

// value skips the value at i; depth is how many arrays and objects are open around it.
func (s *scanner) value(i, depth int) int {
	if i >= len(s.data) {
		return s.fail(i, "expected a value")
	}
	switch s.data[i] {
	case '"':
		return s.str(i)
	case '{', '[':
		return s.container(i, depth)
	default:
		return s.scalar(i)
	}
}

// container skips the array or object at i without recursion: which of the open ones are objects is kept in a bit a level.
func (s *scanner) container(i, depth int) int {
	data := s.data
	var objects [maxDepth/64 + 1]uint64
	outer := depth
	for {
		// data[i] opens an array or object.
		object := data[i] == '{'
		depth++
		if depth > maxDepth {
			return s.fail(i, fmt.Sprintf("nested deeper than %d levels", maxDepth))
		}
		if object {
			objects[depth>>6] |= 1 << (depth & 63)
		} else {
			objects[depth>>6] &^= 1 << (depth & 63)
		}
		i = s.space(i + 1)
		if i < len(data) && data[i] == closing(object) {
			i++
			depth--
		} else {
			if object {
				if i = s.key(i); i < 0 {
					return -1
				}
			}
			if i < len(data) && (data[i] == '{' || data[i] == '[') {
				continue
			}
			if i = s.simple(i); i < 0 {
				return -1
			}
		}
		// A value has ended at i: go on with its surroundings until the next one opens something.
		opened := false
		for depth > outer && !opened {
			object = objects[depth>>6]&(1<<(depth&63)) != 0
			if i < len(data) && data[i] != ',' {
				i = s.space(i)
			}
			switch {
			case i < len(data) && data[i] == ',':
				i = s.space(i + 1)
				if object {
					if i = s.key(i); i < 0 {
						return -1
					}
				}
				if i < len(data) && (data[i] == '{' || data[i] == '[') {
					opened = true
				} else if i = s.simple(i); i < 0 {
					return -1
				}
			case i < len(data) && data[i] == closing(object):
				i++
				depth--
			case object:
				return s.fail(i, "expected , or } in object")
			default:
				return s.fail(i, "expected , or ] in array")
			}
		}
		if !opened {
			return i
		}
	}
}

func closing(object bool) byte {
	if object {
		return '}'
	}
	return ']'
}

// key skips an object's key, its colon and the white space around it.
func (s *scanner) key(i int) int {
	if i >= len(s.data) || s.data[i] != '"' {
		return s.fail(i, "expected a string as key")
	}
	if i = s.str(i); i < 0 {
		return -1
	}
	return s.colon(i)
}

// colon skips a colon and the white space around it.
func (s *scanner) colon(i int) int {
	if i < len(s.data) && s.data[i] != ':' {
		i = s.space(i)
	}
	if i >= len(s.data) || s.data[i] != ':' {
		return s.fail(i, "expected : after key")
	}
	return s.space(i + 1)
}

// simple skips a value that is neither an array nor an object.
func (s *scanner) simple(i int) int {
	if i < len(s.data) && s.data[i] == '"' {
		return s.str(i)
	}
	return s.scalar(i)
}

// scalar skips a number, true, false or null.
func (s *scanner) scalar(i int) int {
	if i >= len(s.data) {
		return s.fail(i, "expected a value")
	}
	switch c := s.data[i]; {
	case c == 't':
		return s.literal(i, "true")
	case c == 'f':
		return s.literal(i, "false")
	case c == 'n':
		return s.literal(i, "null")
	case c == '-' || c >= '0' && c <= '9':
		return s.number(i)
	case c == 'N' && hasPrefixAt(s.data, i, "NaN"), c == 'I' && hasPrefixAt(s.data, i, "Infinity"):
		return s.needsRepair(i, "NaN or Infinity")
	default:
		return s.fail(i, "expected a value")
	}
}

func hasPrefixAt(data []byte, i int, text string) bool {
	return len(data)-i >= len(text) && string(data[i:i+len(text)]) == text
}

func (s *scanner) literal(i int, text string) int {
	if !hasPrefixAt(s.data, i, text) {
		return s.fail(i, "expected a value")
	}
	return i + len(text)
}

func (s *scanner) number(i int) int {
	data := s.data
	if data[i] == '-' {
		i++
		if hasPrefixAt(data, i, "Infinity") {
			return s.needsRepair(i-1, "NaN or Infinity")
		}
	}
	switch {
	case i < len(data) && data[i] == '0':
		i++
	case i < len(data) && data[i] >= '1' && data[i] <= '9':
		i = digits(data, i)
	default:
		return s.fail(i, "invalid number")
	}
	if i < len(data) && data[i] == '.' {
		end := digits(data, i+1)
		if end == i+1 {
			return s.fail(end, "invalid number")
		}
		i = end
	}
	if i < len(data) && (data[i] == 'e' || data[i] == 'E') {
		i++
		if i < len(data) && (data[i] == '+' || data[i] == '-') {
			i++
		}
		end := digits(data, i)
		if end == i {
			return s.fail(end, "invalid number")
		}
		i = end
	}
	return i
}

func digits(data []byte, i int) int {
	for i < len(data) && data[i] >= '0' && data[i] <= '9' {
		i++
	}
	return i
}
