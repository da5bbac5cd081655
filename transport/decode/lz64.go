package decode

import (
	"bytes"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

var errLZ64 = events.Errorf(events.Invalid, "failed to decode request: decompress_lz64: failed decompress to UTF16")

// lz64 undoes compressToBase64 of the JavaScript library lz-string. That is LZ78 over UTF-16 units. The codes become
// wider as the dictionary grows, and their stream is written as base64.
//
// Every entry of the dictionary is a string that the output already holds: the string that was put out last, and the
// first unit of the string that follows it. So an entry is a span of the output, and lengths can be known before there
// is any output. run first measures without an output, and then fills one that is just large enough.
//
// The output is UTF-8 except for surrogates. These are put out one by one, in three bytes each, because only both of
// them together show whether they are a pair. See joinSurrogates.
type lz64 struct {
	budget *memory.Budget
	// lease is for the entries.
	lease   memory.Lease
	entries []span
	// width is the width of the next code in bits. left is how many entries may be added until the codes become wider.
	width uint
	left  int
	// surrogates is set if the output has surrogates to join.
	surrogates bool
}

// span is a string of the output, by byte offsets. The last two bits of head are the size of the string's first unit in
// bytes, and the bits above them are the size of the string.
type span struct{ start, head uint32 }

func newSpan(start int64, size, first uint32) span {
	return span{start: uint32(start), head: size<<2 | first}
}

func (s span) size() uint32  { return s.head >> 2 }
func (s span) first() uint32 { return s.head & 3 }

const (
	// maxLZ64 is the longest output that a span can describe.
	maxLZ64 = 1<<30 - 1

	spanSize = 8
	// minEntries is the size of the smallest dictionary that is made, maxEntries that of the largest that is kept for
	// another request.
	minEntries, maxEntries = 1 << 12, 1 << 16

	// The codes that are not entries.
	codeByte, codeUnit, codeEnd = 0, 1, 2
	reserved                    = 3
)

// lzBits reads codes. The first bit of a code is its lowest, but the first bit of a base64 character is its highest. So
// lzBits reverses the bits of each character.
type lzBits struct {
	src   []byte
	bits  uint64
	count uint
}

// next returns the next code of the given width.
func (r *lzBits) next(width uint) (uint32, bool) {
	for r.count < width {
		if len(r.src) == 0 {
			return 0, false
		}
		value := base64Values[r.src[0]]
		r.src = r.src[1:]
		if value == base64Skip {
			continue
		}
		if value >= 64 {
			return 0, false
		}
		r.bits |= uint64(bits.Reverse8(value)>>2) << r.count
		r.count += 6
	}
	code := uint32(r.bits & (1<<width - 1))
	r.bits >>= width
	r.count -= width
	return code, true
}

// open reserves the memory that the dictionary has from the budget.
func (z *lz64) open(budget *memory.Budget) error {
	z.budget, z.lease, z.surrogates = budget, budget.Lease(), false
	if z.entries == nil {
		return z.enlarge(minEntries)
	}
	if !z.lease.Reserve(int64(cap(z.entries)) * spanSize) {
		return memory.ErrSpent
	}
	return nil
}

// close gives the memory back. A dictionary that has become large is not kept.
func (z *lz64) close() {
	z.lease.Release()
	if cap(z.entries) > maxEntries {
		z.entries = nil
	}
}

// run decodes src into out and returns the length of the output. If out is nil, run only adds up that length.
func (z *lz64) run(out, src []byte, limit int64) (size int64, err error) {
	limit = min(limit, maxLZ64)
	z.entries = append(z.entries[:0], make([]span, reserved)...)
	z.width, z.left = 2, 1
	codes := lzBits{src: src}
	var last span
	for {
		code, ok := codes.next(z.width)
		if !ok {
			return 0, errLZ64
		}
		var entry span
		switch {
		case code == codeEnd:
			return size, nil
		case code < codeEnd:
			unit, ok := codes.next(8 << code)
			if !ok {
				return 0, errLZ64
			}
			n := unitSize(unit)
			entry = newSpan(size, n, n)
			z.surrogates = z.surrogates || isSurrogate(unit)
			if out != nil {
				putUnit(out[size:], unit)
			}
			if err := z.add(entry); err != nil {
				return 0, err
			}
		case int(code) < len(z.entries):
			entry = z.entries[code]
		case int(code) == len(z.entries) && size > 0:
			// The code names the entry that is made below.
			entry = newSpan(int64(last.start), last.size()+last.first(), last.first())
		default:
			return 0, errLZ64
		}
		end := size + int64(entry.size())
		if end > limit {
			return 0, events.Errorf(events.TooLarge,
				"maximum event size exceeded: Decompressed LZ64 payload would exceed %d bytes", limit)
		}
		if out != nil {
			// The entry may begin in the output so far and end in its own copy, so it takes two copies. A unit that
			// came with the code is there already.
			done := copy(out[size:end], out[entry.start:size])
			copy(out[size+int64(done):end], out[size:])
		}
		if size > 0 {
			if err := z.add(newSpan(int64(last.start), last.size()+entry.first(), last.first())); err != nil {
				return 0, err
			}
		}
		last = newSpan(size, entry.size(), entry.first())
		size = end
	}
}

// add adds an entry to the dictionary. The codes become wider as the dictionary grows.
func (z *lz64) add(entry span) error {
	if len(z.entries) == cap(z.entries) {
		if err := z.enlarge(2 * cap(z.entries)); err != nil {
			return err
		}
	}
	z.entries = append(z.entries, entry)
	if z.left--; z.left == 0 {
		z.left = 1 << z.width
		z.width++
	}
	return nil
}

// enlarge gives the dictionary room for n entries. It fails if the budget has no memory for them.
func (z *lz64) enlarge(n int) error {
	lease := z.budget.Lease()
	if !lease.Reserve(int64(n) * spanSize) {
		return memory.ErrSpent
	}
	larger := make([]span, len(z.entries), n)
	copy(larger, z.entries)
	z.lease.Release()
	z.entries, z.lease = larger, lease
	return nil
}

func isSurrogate(unit uint32) bool { return unit >= 0xd800 && unit < 0xe000 }

// unitSize returns how many bytes a UTF-16 unit takes in the output.
func unitSize(unit uint32) uint32 {
	switch {
	case unit < 0x80:
		return 1
	case unit < 0x800:
		return 2
	default:
		return 3
	}
}

func putUnit(dst []byte, unit uint32) {
	switch unitSize(unit) {
	case 1:
		dst[0] = byte(unit)
	case 2:
		dst[0], dst[1] = 0xc0|byte(unit>>6), 0x80|byte(unit&0x3f)
	default:
		dst[0], dst[1], dst[2] = 0xe0|byte(unit>>12), 0x80|byte(unit>>6&0x3f), 0x80|byte(unit&0x3f)
	}
}

// joinSurrogates makes UTF-8 of a text in which surrogates stand for themselves, in three bytes each. It works in
// place. A pair becomes the character that it means, a lone surrogate U+FFFD, as browsers write it when they encode
// text themselves. joinSurrogates returns the text and the number of lone surrogates.
func joinSurrogates(b []byte) (text []byte, replaced int) {
	text = b[:0]
	for {
		// Only a surrogate begins with 0xed and has a second byte of 0xa0 or more.
		plain := bytes.IndexByte(b, 0xed)
		if plain < 0 {
			return append(text, b...), replaced
		}
		high := surrogate(b[plain:])
		if high == 0 {
			plain++
			text, b = append(text, b[:plain]...), b[plain:]
			continue
		}
		text, b = append(text, b[:plain]...), b[plain:]
		if low := surrogate(b[3:]); high < 0xdc00 && low >= 0xdc00 {
			text, b = utf8.AppendRune(text, utf16.DecodeRune(high, low)), b[6:]
		} else {
			text, b = utf8.AppendRune(text, utf8.RuneError), b[3:]
			replaced++
		}
	}
}

// hasSurrogate reports whether the text has a surrogate that stands for itself.
func hasSurrogate(b []byte) bool {
	for {
		at := bytes.IndexByte(b, 0xed)
		if at < 0 {
			return false
		}
		if surrogate(b[at:]) != 0 {
			return true
		}
		b = b[at+1:]
	}
}

// surrogate returns the surrogate that b begins with, or 0 if there is none.
func surrogate(b []byte) rune {
	if len(b) < 3 || b[0] != 0xed || b[1] < 0xa0 || b[1] > 0xbf || b[2] < 0x80 || b[2] > 0xbf {
		return 0
	}
	return 0xd000 | rune(b[1]&0x3f)<<6 | rune(b[2]&0x3f)
}
