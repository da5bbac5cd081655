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

// lz64 undoes compressToBase64 of the JavaScript library lz-string: LZ78 over UTF-16 units, in a stream of codes that
// grow with the dictionary, as base64.
//
// Every entry of the dictionary is a string that the output already holds: an entry is made of the string that was put
// out last and the first unit of the next one, which follows it. So an entry is a span of the output, and its length
// can be known before there is any output: run measures without one, and fills one that is just large enough.
//
// The output is UTF-8 but for surrogates, which are put out one by one, in three bytes each: whether two of them are a
// pair shows only when both are there. See joinSurrogates.
type lz64 struct {
	budget *memory.Budget
	// lease is of the entries.
	lease   memory.Lease
	entries []span
	// width is that of the next code in bits, left how many entries may be added until it grows.
	width uint
	left  int
	// surrogates is set if the output has to be joined.
	surrogates bool
}

// span is a string of the output, by byte offsets. head has the number of bytes of its first unit in its last two bits,
// and that of the string above them.
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
	// minEntries is the smallest dictionary that is made, maxEntries the largest that is kept for another request.
	minEntries, maxEntries = 1 << 12, 1 << 16

	// The codes that are not entries.
	codeByte, codeUnit, codeEnd = 0, 1, 2
	reserved                    = 3
)

// lzBits reads codes. The first bit of a code is its lowest, but the first bit of a base64 character its highest: so
// each character's bits are reversed.
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

// open takes what the dictionary has from the budget.
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

// close gives it back.
func (z *lz64) close() {
	z.lease.Release()
	if cap(z.entries) > maxEntries {
		z.entries = nil
	}
}

// run decodes src into out, or if that is nil only adds up the length, and returns it.
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
			// The entry that is made below.
			entry = newSpan(int64(last.start), last.size()+last.first(), last.first())
		default:
			return 0, errLZ64
		}
		end := size + int64(entry.size())
		if end > limit {
			return 0, events.Errorf(events.TooLarge, "maximum event size exceeded: Decompressed LZ64 payload would exceed %d bytes", limit)
		}
		if out != nil {
			// What is put out may begin in what there is and end in itself; a unit of its own is there already.
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

// add adds an entry to the dictionary. Codes become wider as it grows.
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

// enlarge makes the dictionary one with room for n entries, which the budget has to have.
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

// unitSize is how many bytes a UTF-16 unit takes in the output.
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

// joinSurrogates makes UTF-8 of a text in which surrogates stand for themselves, in three bytes each, in place: pairs
// become characters, lone ones U+FFFD, as browsers write them when they encode text themselves. It returns the text and
// how many were alone.
func joinSurrogates(b []byte) (text []byte, replaced int) {
	text = b[:0]
	for {
		// Only the three bytes of a surrogate begin with 0xed and have 0xa0 or more next.
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

// hasSurrogate reports whether a surrogate stands in the text for itself.
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

// surrogate returns the surrogate that b begins with, 0 if it doesn't.
func surrogate(b []byte) rune {
	if len(b) < 3 || b[0] != 0xed || b[1] < 0xa0 || b[1] > 0xbf || b[2] < 0x80 || b[2] > 0xbf {
		return 0
	}
	return 0xd000 | rune(b[1]&0x3f)<<6 | rune(b[2]&0x3f)
}
