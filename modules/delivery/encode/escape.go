package encode

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

const (
	eachByte = 0x0101010101010101
	lowBits  = 0x7f * eachByte
	highBits = 0x80 * eachByte
	escapeIn = 256 // bytes that are escaped between two looks at the room that is left
)

// appendEscaped appends src escaped for a place inside a JSON string, without the quotes around it. src must be valid
// UTF-8.
//
// This is the hottest loop of the service: an event's JSON goes into a string of another JSON value, and about every
// eighth byte is a quote. So the loop works on eight bytes at a time, and a quote costs no branch but the inner loop's
// own. It stores the word whole. Then, for each special byte, it writes a backslash and stores the rest of the word
// again behind it, one place further.
func appendEscaped(dst, src []byte) []byte {
	for len(src) >= 8 {
		part := src[:min(len(src), escapeIn)&^7]
		src = src[len(part):]
		dst = slices.Grow(dst, 2*len(part)+8)
		n, room := len(dst), dst[:cap(dst)]
		for len(part) >= 8 {
			word := binary.LittleEndian.Uint64(part)
			if anyControl(word) {
				dst = appendEscapedBytes(room[:n], part[:8])
				dst = slices.Grow(dst, 2*len(part)+8)
				n, room = len(dst), dst[:cap(dst)]
				part = part[8:]
				continue
			}
			part = part[8:]
			special := quotesAndBackslashes(word)
			out := (*[24]byte)(room[n:])
			binary.LittleEndian.PutUint64(out[:], word)
			n += 8
			for shifted := uint(0); special != 0; special &= special - 1 {
				bit := uint(bits.TrailingZeros64(special)) &^ 7
				at := (bit>>3 + shifted) & 15
				out[at] = '\\'
				binary.LittleEndian.PutUint64(out[at+1:], word>>(bit&63))
				shifted++
				n++
			}
		}
		dst = room[:n]
	}
	return appendEscapedBytes(dst, src)
}

// escapedLen returns how many bytes appendEscaped appends.
func escapedLen(src []byte) int {
	n := len(src)
	for len(src) >= 8 {
		if word := binary.LittleEndian.Uint64(src); anyControl(word) {
			n += escapes(src[:8])
		} else {
			n += bits.OnesCount64(quotesAndBackslashes(word))
		}
		src = src[8:]
	}
	return n + escapes(src)
}

// escapes returns by how many bytes src grows when it is escaped.
func escapes(src []byte) int {
	n := 0
	for _, c := range src {
		switch {
		case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t':
			n++
		case c < 0x20:
			n += len(`\u0000`) - 1
		}
	}
	return n
}

// appendTwiceEscaped appends src escaped for a place inside a JSON string that is itself inside another JSON string,
// without quotes around it.
func appendTwiceEscaped(dst, src []byte) []byte {
	start := len(dst)
	dst = appendEscaped(dst, src)
	if len(dst)-start == len(src) {
		return dst
	}
	return appendEscaped(dst[:start], append([]byte(nil), dst[start:]...))
}

// quotesAndBackslashes returns a word with the high bit of each byte that is a quote or a backslash.
func quotesAndBackslashes(word uint64) uint64 {
	quotes := word ^ '"'*eachByte
	backslashes := word ^ '\\'*eachByte
	neither := (quotes&lowBits + lowBits | quotes) & (backslashes&lowBits + lowBits | backslashes)
	return ^neither & highBits
}

// anyControl reports whether a byte of the word is below 0x20. In JSON as clients send it such a byte is whitespace
// between tokens, which is rare. (A borrow can also flag the byte above a byte below 0x20; the result stays right.)
func anyControl(word uint64) bool {
	return (word-0x20*eachByte)&^word&highBits != 0
}

func appendEscapedBytes(dst, src []byte) []byte {
	const hex = "0123456789abcdef"
	for _, c := range src {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= 0x20:
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return dst
}
