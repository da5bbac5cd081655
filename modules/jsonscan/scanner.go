package jsonscan

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// MaxDepth is how many arrays and objects may be open at once, the outermost included.
const MaxDepth = 128

// SyntaxError says where the text stops being JSON.
type SyntaxError struct {
	offset int
	what   string
}

// Origin returns the fault of a text that Repair has made of data as a fault of data, where the client can find it.
func (e *SyntaxError) Origin(data []byte) *SyntaxError {
	offset := e.offset
	faults, found := faults{data: data}, Repairs{}
	for faults.next(&found) && faults.from < offset {
		offset = max(faults.from, offset-len(faults.by)+faults.at-faults.from)
	}
	return &SyntaxError{offset: offset, what: e.what}
}

// Error says what is wrong, and at which byte.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.what, e.offset) }

// Span is a value's place in the text. The zero Span is that of an absent value, because no value ends at 0.
type Span struct{ From, To uint32 }

// SpanOf returns the place from one position to another.
func SpanOf(from, to int) Span { return Span{From: uint32(from), To: uint32(to)} }

// In returns the value, or nil if it is absent. An append to the value does not write into the text.
func (p Span) In(data []byte) []byte {
	if p.To == 0 {
		return nil
	}
	return data[p.From:p.To:p.To]
}

// Scanner checks JSON and finds where values end. Its methods take the position of a value's first byte. They return
// the position after the value's last byte, or -1 after setting Err. A depth is how many arrays and objects are open
// around a value. A Scanner that has only its Data set is ready.
type Scanner struct {
	Data []byte
	Err  *SyntaxError
	// escapes counts the escape sequences met. It shows whether a string had any.
	escapes int
	// Repairable is set if the fault is one that Repair mends.
	Repairable bool
	// PassDeep has the scanner pass over what is nested deeper than MaxDepth, and count it in Deep, where it would fail
	// otherwise. It does not check such a value: whoever sets PassDeep keeps none that Deep has counted.
	PassDeep bool
	Deep     int
}

// Fail notes a fault of the text at the offset, unless there is one already, and returns -1.
func (s *Scanner) Fail(offset int, what string) int {
	if s.Err == nil {
		if offset >= len(s.Data) {
			what = "unexpected end of JSON"
		}
		s.Err = &SyntaxError{offset: offset, what: what}
	}
	return -1
}

func (s *Scanner) needsRepair(offset int, what string) int {
	if s.Err == nil {
		s.Repairable = true
	}
	return s.Fail(offset, what)
}

// Space skips white space.
func (s *Scanner) Space(i int) int {
	for i < len(s.Data) {
		switch s.Data[i] {
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

// str skips the string whose opening quote is at i. The lowest bit that the masks set is always right, because a borrow
// only runs upwards, and str uses only that bit.
func (s *Scanner) str(i int) int {
	data := s.Data
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
				return s.Fail(i, "unterminated string")
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
			return s.needsRepair(i, "control character in string")
		}
	}
}

// escape skips the escape sequence at i. It skips both halves of a surrogate pair at once.
func (s *Scanner) escape(i int) int {
	s.escapes++
	if i+1 >= len(s.Data) {
		return s.Fail(len(s.Data), "unterminated string")
	}
	switch s.Data[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		unit, ok := hex4(s.Data, i+2)
		if !ok {
			return s.Fail(min(i+2, len(s.Data)-1), "invalid \\u escape")
		}
		if unit < 0xd800 || unit > 0xdfff {
			return i + 6
		}
		if low, ok := lowSurrogate(s.Data, i+6); ok && unit < 0xdc00 && low {
			return i + 12
		}
		return s.needsRepair(i, "lone surrogate escape")
	default:
		return s.Fail(i+1, "invalid escape in string")
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

// lowSurrogate reports whether the escape of a low surrogate stands at i. ok is false if no \u escape stands there.
func lowSurrogate(data []byte, i int) (low, ok bool) {
	if i+6 > len(data) || data[i] != '\\' || data[i+1] != 'u' {
		return false, false
	}
	unit, ok := hex4(data, i+2)
	return unit >= 0xdc00 && unit <= 0xdfff, ok
}

// Value skips the value at i.
func (s *Scanner) Value(i, depth int) int {
	if i >= len(s.Data) {
		return s.Fail(i, "expected a value")
	}
	switch s.Data[i] {
	case '"':
		return s.str(i)
	case '{', '[':
		return s.container(i, depth)
	default:
		return s.scalar(i)
	}
}

// container skips the array or object at i without recursion. For every level it keeps a bit that says whether an
// object is open there.
func (s *Scanner) container(i, depth int) int {
	data := s.Data
	var objects [MaxDepth/64 + 1]uint64
	outer := depth
	for {
		// data[i] opens an array or object.
		object := data[i] == '{'
		depth++
		if depth > MaxDepth {
			if i = s.passDeep(i); i < 0 {
				return -1
			}
			depth--
		} else {
			if object {
				objects[depth>>6] |= 1 << (depth & 63)
			} else {
				objects[depth>>6] &^= 1 << (depth & 63)
			}
			i = s.Space(i + 1)
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
		}
		// A value has ended at i. Go on after it until a value opens an array or object, or until all are closed.
		opened := false
		for depth > outer && !opened {
			object = objects[depth>>6]&(1<<(depth&63)) != 0
			if i < len(data) && data[i] != ',' {
				i = s.Space(i)
			}
			switch {
			case i < len(data) && data[i] == ',':
				i = s.Space(i + 1)
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
				return s.Fail(i, "expected , or } in object")
			default:
				return s.Fail(i, "expected , or ] in array")
			}
		}
		if !opened {
			return i
		}
	}
}

// passDeep passes over the array or object at i, which is nested too deep, to the bracket that closes it.
func (s *Scanner) passDeep(i int) int {
	if !s.PassDeep {
		return s.Fail(i, fmt.Sprintf("nested deeper than %d levels", MaxDepth))
	}
	s.Deep++
	for open := 0; i < len(s.Data); {
		switch s.Data[i] {
		case '"':
			if i = s.str(i); i < 0 {
				return -1
			}
			continue
		case '{', '[':
			open++
		case '}', ']':
			if open--; open == 0 {
				return i + 1
			}
		}
		i++
	}
	return s.Fail(i, "expected ] or }")
}

func closing(object bool) byte {
	if object {
		return '}'
	}
	return ']'
}

// key skips an object's key, its colon and the white space around it.
func (s *Scanner) key(i int) int {
	if i >= len(s.Data) || s.Data[i] != '"' {
		return s.Fail(i, "expected a string as key")
	}
	if i = s.str(i); i < 0 {
		return -1
	}
	return s.colon(i)
}

// colon skips a colon and the white space around it.
func (s *Scanner) colon(i int) int {
	if i < len(s.Data) && s.Data[i] != ':' {
		i = s.Space(i)
	}
	if i >= len(s.Data) || s.Data[i] != ':' {
		return s.Fail(i, "expected : after key")
	}
	return s.Space(i + 1)
}

// simple skips a value that is neither an array nor an object.
func (s *Scanner) simple(i int) int {
	if i < len(s.Data) && s.Data[i] == '"' {
		return s.str(i)
	}
	return s.scalar(i)
}

// scalar skips a number, true, false or null.
func (s *Scanner) scalar(i int) int {
	if i >= len(s.Data) {
		return s.Fail(i, "expected a value")
	}
	switch c := s.Data[i]; {
	case c == 't':
		return s.literal(i, "true")
	case c == 'f':
		return s.literal(i, "false")
	case c == 'n':
		return s.literal(i, "null")
	case c == '-' || c >= '0' && c <= '9':
		return s.number(i)
	default:
		return s.badScalar(i, i, "expected a value")
	}
}

// badScalar notes what is wrong at an offset with the value that begins at i.
func (s *Scanner) badScalar(i, offset int, what string) int {
	if isNotFinite(token(s.Data, i)) {
		return s.needsRepair(i, "NaN or Infinity")
	}
	return s.Fail(offset, what)
}

func hasPrefixAt(data []byte, i int, text string) bool {
	return len(data)-i >= len(text) && string(data[i:i+len(text)]) == text
}

func (s *Scanner) literal(i int, text string) int {
	if !hasPrefixAt(s.Data, i, text) {
		return s.badScalar(i, i, "expected a value")
	}
	return i + len(text)
}

func (s *Scanner) number(i int) int {
	data, start := s.Data, i
	if data[i] == '-' {
		i++
	}
	switch {
	case i < len(data) && data[i] == '0':
		i++
	case i < len(data) && data[i] >= '1' && data[i] <= '9':
		i = digits(data, i)
	default:
		return s.badScalar(start, i, "invalid number")
	}
	if i < len(data) && data[i] == '.' {
		end := digits(data, i+1)
		if end == i+1 {
			return s.badScalar(start, end, "invalid number")
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
			return s.Fail(end, "invalid number")
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

// Open enters the object at i. It returns the place of the first key and true. For an empty object it returns the place
// after the object and false.
func (s *Scanner) Open(i, depth int) (at int, more bool) {
	if depth >= MaxDepth {
		return s.Fail(i, fmt.Sprintf("nested deeper than %d levels", MaxDepth)), false
	}
	i = s.Space(i + 1)
	if i < len(s.Data) && s.Data[i] == '}' {
		return i + 1, false
	}
	return i, true
}

// MaxEscapedKey is the longest key with escapes, in bytes, whose escapes Member undoes. No caller looks for a longer
// one.
const MaxEscapedKey = 6 * 23

// Member reads the key at i. It returns the key without its quotes, and the place of its value. It undoes the escapes
// of a key of up to MaxEscapedKey bytes.
func (s *Scanner) Member(i int) (key []byte, at int) {
	if i >= len(s.Data) || s.Data[i] != '"' {
		return nil, s.Fail(i, "expected a string as key")
	}
	before := s.escapes
	end := s.str(i)
	if end < 0 {
		return nil, -1
	}
	key = s.Data[i+1 : end-1]
	if s.escapes != before && len(key) <= MaxEscapedKey {
		key = []byte(Text(s.Data[i:end]))
	}
	return key, s.colon(end)
}

// Next goes on after a member's value. It returns the place of the next key and true. After the last member it returns
// the place after the object and false.
func (s *Scanner) Next(i int) (at int, more bool) {
	i = s.Space(i)
	if i < len(s.Data) {
		switch s.Data[i] {
		case ',':
			return s.Space(i + 1), true
		case '}':
			return i + 1, false
		}
	}
	return s.Fail(i, "expected , or } in object"), false
}

// NextElement goes on after an array's element. It returns the place of the next element and true. After the last
// element it returns the place after the array and false.
func (s *Scanner) NextElement(i int) (at int, more bool) {
	i = s.Space(i)
	if i < len(s.Data) {
		switch s.Data[i] {
		case ',':
			return s.Space(i + 1), true
		case ']':
			return i + 1, false
		}
	}
	return s.Fail(i, "expected , or ] in array"), false
}

// Present returns a value's text, or nil if the value is absent or null.
func (s *Scanner) Present(at Span) []byte {
	raw := at.In(s.Data)
	if len(raw) == 4 && raw[0] == 'n' {
		return nil
	}
	return raw
}

// Text returns the text of a JSON string that has been scanned. If the string has no escapes, the text aliases raw.
// Else it is a copy, no longer than raw.
func Text(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	if !IsEscaped(raw) {
		return Alias(inner)
	}
	return Alias(AppendText(make([]byte, 0, len(inner)), raw))
}

// IsEscaped reports whether a JSON string has escapes, so that its text is a copy.
func IsEscaped(raw []byte) bool { return bytes.IndexByte(raw, '\\') >= 0 }

// AppendText appends the text of a JSON string that has been scanned. The text is no longer than the string.
func AppendText(dst, raw []byte) []byte {
	raw = raw[1 : len(raw)-1]
	for {
		at := bytes.IndexByte(raw, '\\')
		if at < 0 {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:at]...)
		c := raw[at+1]
		raw = raw[at+2:]
		switch c {
		case 'u':
			unit, _ := hex4(raw, 0)
			r := rune(unit)
			if raw = raw[4:]; utf16.IsSurrogate(r) {
				// A scanned string has surrogates in pairs only, but it may be cut off in a pair.
				if low, isEscape := lowSurrogate(raw, 0); low && isEscape {
					unit, _ = hex4(raw, 2)
					r, raw = utf16.DecodeRune(r, rune(unit)), raw[6:]
				} else {
					r = utf8.RuneError
				}
			}
			dst = utf8.AppendRune(dst, r)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		default:
			dst = append(dst, c)
		}
	}
}

// Alias returns the bytes as a string without a copy. The string is valid as long as the bytes are and do not change.
func Alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// End checks that only white space follows a value that ends at i. It returns what is wrong with the text, or nil.
func (s *Scanner) End(i int) *SyntaxError {
	if i >= 0 {
		if i = s.Space(i); i < len(s.Data) {
			s.Fail(i, "unexpected text after the JSON value")
		}
	}
	return s.Err
}

// Valid reports whether a text is one JSON value.
func Valid(data []byte) bool {
	s := Scanner{Data: data}
	return s.End(s.Value(s.Space(0), 0)) == nil
}
