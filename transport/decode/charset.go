package decode

import (
	"bytes"
	"errors"
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// isUTF16 reports whether b is UTF-16: by its byte order mark, or because JSON begins with two ASCII characters, of
// which every other byte is zero (RFC 4627, section 3).
func isUTF16(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	switch {
	case b[0] == 0xff && b[1] == 0xfe || b[0] == 0xfe && b[1] == 0xff:
		return true
	case b[1] == 0 && b[3] == 0:
		return isJSON(b[:1]) || isSpaceOrQuote(b[0])
	case b[0] == 0 && b[2] == 0:
		return isJSON(b[1:2]) || isSpaceOrQuote(b[1])
	default:
		return false
	}
}

func isSpaceOrQuote(c byte) bool { return c == '"' || c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// undoUTF16 writes a text in UTF-8.
func (p *Payload) undoUTF16() error {
	order := unicode.LittleEndian
	if p.Bytes[0] == 0 || p.Bytes[0] == 0xfe {
		order = unicode.BigEndian
	}
	return p.undoCharset(unicode.UTF16(order, unicode.UseBOM))
}

// charsetOf returns the encoding that a content type declares; nil if it declares none, one that is not known, or
// UTF-8.
func charsetOf(contentType string) encoding.Encoding {
	if strings.IndexByte(contentType, ';') < 0 {
		return nil
	}
	_, parameters, err := mime.ParseMediaType(contentType)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return nil
	}
	charset, err := htmlindex.Get(parameters["charset"])
	if err != nil || charset == unicode.UTF8 || charset == encoding.Replacement {
		return nil
	}
	return charset
}

// isISO2022 reports whether a text that is declared to be ISO-2022-JP is that. The charset writes every character in 7
// bits, so the text is UTF-8 as well, but JSON has no escape characters.
func isISO2022(b []byte, contentType string) bool {
	return strings.Contains(contentType, "2022") && bytes.IndexByte(b, 0x1b) >= 0
}

// undoCharset writes a text in UTF-8. What means nothing in the charset becomes U+FFFD and is counted.
func (p *Payload) undoCharset(charset encoding.Encoding) error {
	d, room := p.decoder, p.room()
	scratch, err := d.buffers.Get(1)
	if err != nil {
		return err
	}
	size, err := convert(charset, scratch.Bytes[:cap(scratch.Bytes)], p.Bytes, func(size int) bool {
		return int64(size) <= room.left()
	})
	d.buffers.Put(scratch)
	switch {
	case err != nil:
		return errText
	case int64(size) > room.left():
		return room.tooLarge(int64(size))
	}
	// Some decoders want room for any character before they write one.
	out, err := d.buffers.Get(int64(size) + utf8.UTFMax)
	if err != nil {
		return err
	}
	if _, err = convert(charset, out.Bytes[:size+utf8.UTFMax], p.Bytes, nil); err != nil {
		d.buffers.Put(out)
		return errText
	}
	out.Bytes = out.Bytes[:size]
	p.Replaced += bytes.Count(out.Bytes, []byte("\ufffd"))
	p.become(out, StepCharset)
	return nil
}

// convert writes src in UTF-8 to dst and returns the size of the result, in bytes. If more is given, dst is only
// scratch: convert writes over it as often as needed, and ends early when more(size) is false.
func convert(charset encoding.Encoding, dst, src []byte, more func(size int) bool) (size int, err error) {
	decoder := charset.NewDecoder()
	for {
		n, read, err := decoder.Transform(dst, src, true)
		size, src = size+n, src[read:]
		switch {
		case err == nil:
			return size, nil
		case more == nil || !errors.Is(err, transform.ErrShortDst) || n+read == 0:
			return size, err
		case !more(size):
			return size, nil
		}
	}
}
