package decode

import (
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"github.com/opencapture/capture/modules/events"
)

// What gzip and zstd begin with after a program has taken their bytes for characters and written these as UTF-8: by
// Latin-1, by Windows-1252, and by UTF-8 itself, in which the bytes that are no characters become U+FFFD or "?".
var (
	packedTexts = [...]string{"\x1f\u008b\x08", "\x1f\u2039\x08", "(\u00b5/\u00fd"}
	mangled     = [...]string{"\x1f\ufffd\x08", "\x1f?\x08", "(\ufffd/\ufffd"}
)

var errMangled = events.Errorf(events.Invalid, "failed to decode request: a program on the way, such as a proxy, has "+
	"read the compressed body as text and has replaced what is no text, which cannot be undone: it must pass the body "+
	"on as bytes")

func beginsWithOneOf(b []byte, beginnings []string) bool {
	for _, beginning := range beginnings {
		if len(b) >= len(beginning) && string(b[:len(beginning)]) == beginning {
			return true
		}
	}
	return false
}

// isPackedText reports whether b is a compression whose bytes were written as the characters of Latin-1 or
// Windows-1252, in UTF-8.
func isPackedText(b []byte) bool { return beginsWithOneOf(b, packedTexts[:]) }

// isMangled reports whether b was a compression before a program replaced its bytes.
func isMangled(b []byte) bool { return beginsWithOneOf(b, mangled[:]) }

// wasText reports whether b, which is named brotli or deflate, went through a program that took it for text. No such
// stream of some length is UTF-8 by chance. lost is set if bytes were replaced.
func wasText(b []byte) (text, lost bool) {
	if isText(b) || !utf8.Valid(b) {
		return false, false
	}
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if _, ok := byteOf(r); !ok && r != utf8.RuneError {
			return false, false
		}
		lost = lost || r == utf8.RuneError
		b = b[n:]
	}
	return true, lost
}

// byteOf returns the byte that was written as a character.
func byteOf(r rune) (byte, bool) {
	if r <= 0xff {
		return byte(r), true
	}
	return charmap.Windows1252.EncodeRune(r)
}

// undoPackedText makes bytes of the characters that bytes were written as. It works in place, unless the bytes are the
// client's.
func (p *Payload) undoPackedText() error {
	out := p.buffer
	if out == nil {
		var err error
		if out, err = p.decoder.buffers.Get(int64(len(p.Bytes))); err != nil {
			return err
		}
		out.Bytes = append(out.Bytes, p.Bytes...)
		p.become(out, 0)
	}
	p.Steps |= StepLatin1
	text := p.Bytes
	p.Bytes = text[:0]
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		text = text[n:]
		plain, ok := byteOf(r)
		if !ok {
			return errMangled
		}
		p.Bytes = append(p.Bytes, plain)
	}
	return nil
}
