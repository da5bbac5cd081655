package decode

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// sniffed is how many bytes are looked at to tell what a text is.
const sniffed = 128

var byteOrderMark = []byte("\ufeff")

func isGzip(b []byte) bool {
	return len(b) >= 3 && b[0] == 0x1f && b[1] == 0x8b && b[2] == 8
}

func isZstd(b []byte) bool {
	return len(b) >= 4 && b[0] == 0x28 && b[1] == 0xb5 && b[2] == 0x2f && b[3] == 0xfd
}

// IsCompressed reports whether b shows by its first bytes that it is compressed: by gzip, zstd or zlib, and by the
// former two also as text.
func IsCompressed(b []byte) bool { return isGzip(b) || isZstd(b) || isPackedText(b) || isPlainZlib(b) }

// isZlib tells a zlib header from the start of a bare deflate stream. A bare stream could have these bits only in the
// padding of a stored block, where encoders write zeros.
func isZlib(b []byte) bool {
	return len(b) >= 2 && b[0]&0x0f == 8 && b[0]>>4 <= 7 && (int(b[0])<<8|int(b[1]))%31 == 0
}

// isPlainZlib reports whether b begins with the header that zlib itself writes, with its usual window and no
// dictionary, and is no text. Many who mean gzip call zlib's compress.
func isPlainZlib(b []byte) bool { return isZlib(b) && b[0] == 0x78 && b[1]&0x20 == 0 && !isText(b) }

// isJSON reports whether the first thing in b is the beginning of an object or array.
func isJSON(b []byte) bool {
	b = bytes.TrimLeft(bytes.TrimPrefix(b, byteOrderMark), " \t\r\n")
	return len(b) > 0 && (b[0] == '{' || b[0] == '[')
}

// isText reports whether b begins like a text. A single byte says too little: a brotli stream of 64 KiB and more
// usually begins with "[", and so do some deflate streams. But the first 128 bytes of such a stream are never all
// printable.
func isText(b []byte) bool {
	head := b[:min(len(b), sniffed)]
	for _, c := range head {
		if c < ' ' && c != '\t' && c != '\r' && c != '\n' || c == 0x7f {
			return false
		}
	}
	if len(b) > len(head) {
		// The cut may have gone through a character.
		for i := 0; i < utf8.UTFMax-1 && !utf8.Valid(head); i++ {
			head = head[:len(head)-1]
		}
	}
	return utf8.Valid(head)
}

// formFields are the fields by which a form is known (spec 2.3, step 2).
var formFields = [...]string{"data=", "_=", "ip=", "compression="}

// isForm reports whether b looks like a urlencoded form (spec 2.3, step 2). A JSON text may well contain "&data=", so
// the caller rules JSON out first.
func isForm(b []byte) bool {
	for field := b[:min(len(b), sniffed)]; ; {
		for _, name := range formFields {
			if len(field) >= len(name) && string(field[:len(name)]) == name {
				return true
			}
		}
		next := bytes.IndexByte(field, '&')
		if next < 0 {
			return false
		}
		field = field[next+1:]
	}
}

// hint is a compression that the client names.
type hint uint8

const (
	hintNone hint = iota
	hintOther
	hintGzip
	hintLZ64
	hintZstd
	hintBrotli
	hintDeflate
)

// hintSet is the hints of one request: the encodings of the header, the compressions of the query and the form, and the
// content type of the request or of the part of it that holds the text.
type hintSet struct {
	header      encodings
	query, form hint
	contentType string
}

func (s *hintSet) has(h hint) bool {
	return s.query == h || s.form == h || slices.Contains(s.header.names[:s.header.count], h)
}

// encodings are what Content-Encoding names, in the order in which the client has applied them.
type encodings struct {
	names [maxLayers]hint
	count int
	// tooMany is set if the header names more than maxLayers. The others are left out then.
	tooMany bool
}

// parseCompression reads the compression parameter of a query or a form. A name that it doesn't know is no hint (spec
// 2.1).
func parseCompression(name string) hint {
	switch strings.ToLower(name) {
	case "gzip", "gzip-js":
		return hintGzip
	case "lz64", "lz-string":
		return hintLZ64
	case "base64", "b64":
		return hintOther
	default:
		return hintNone
	}
}

// parseContentEncoding reads the header.
func parseContentEncoding(header string) (list encodings) {
	for header != "" {
		var name string
		name, header, _ = strings.Cut(header, ",")
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "" || name == "identity" {
			continue
		}
		if list.count == maxLayers {
			list.tooMany = true
			return list
		}
		var h hint
		switch name {
		case "x-gzip":
			h = hintGzip
		case "zstd":
			h = hintZstd
		case "br":
			h = hintBrotli
		case "deflate":
			h = hintDeflate
		default:
			h = cmp.Or(parseCompression(name), hintOther)
		}
		list.names[list.count] = h
		list.count++
	}
	return list
}
