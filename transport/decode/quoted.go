package decode

import (
	"bytes"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
)

// maxQuoted is how many JSON strings a request may lie in, one in the other.
const maxQuoted = 3

var (
	errQuoted     = events.Errorf(events.Invalid, "failed to decode request: invalid JSON string around the request")
	errManyQuotes = events.Errorf(events.Invalid,
		"failed to decode request: the request lies in more than %d JSON strings, one in the other", maxQuoted)
	errQuotedBatch = events.Errorf(events.Invalid,
		"failed to decode request: batch is a JSON string that does not hold one array and nothing else")
)

// isQuoted reports whether b begins with a JSON string that begins like something that is worth decoding. Any other
// string stays as it is: it would only be turned from one text that is no request into another.
func isQuoted(b []byte) bool {
	b = bytes.TrimLeft(bytes.TrimPrefix(b, byteOrderMark), " \t\r\n")
	if len(b) == 0 || b[0] != '"' {
		return false
	}
	var head [sniffed]byte
	text, _ := jsonscan.Unquote(head[:0], b[:min(len(b), sniffed)])
	return isJSON(text) || isForm(text) || isPackedText(text) || isMangled(text) || isQuoted(text) ||
		isBase64Of(text[:len(text)&^3], true)
}

// undoQuotes takes the request out of the JSON string that it is. It works in place, unless the bytes are the client's.
func (p *Payload) undoQuotes() error {
	if p.quoted++; p.quoted > maxQuoted {
		return errManyQuotes
	}
	quoted := bytes.TrimSpace(bytes.TrimPrefix(p.Bytes, byteOrderMark))
	out := p.buffer
	dst := quoted[:0]
	if out == nil {
		var err error
		if out, err = p.decoder.buffers.Get(int64(len(quoted))); err != nil {
			return err
		}
		dst = out.Bytes
	}
	text, n := jsonscan.Unquote(dst, quoted)
	if n != len(quoted) {
		if out != p.buffer {
			p.decoder.buffers.Put(out)
		}
		return errQuoted
	}
	if out == p.buffer {
		p.Bytes = text
		p.Steps |= StepQuotes
		return nil
	}
	out.Bytes = text
	p.become(out, StepQuotes)
	return nil
}

// Unquote makes the payload a copy of text, in which the JSON string from one position to another is replaced by what
// the string says: an array. text is the payload's own text, or one that was made of it. Unquote serves clients that
// send an array as a string.
//
// Its error is an *events.Error: Invalid if the string does not hold one array and nothing else, or if the request lies
// in too many strings, Unavailable if the budget is spent.
func (p *Payload) Unquote(text []byte, from, to int) error {
	if p.quoted++; p.quoted > maxQuoted {
		return errManyQuotes
	}
	out, err := p.decoder.buffers.Get(int64(len(text)))
	if err != nil {
		return err
	}
	out.Bytes, _ = jsonscan.Unquote(append(out.Bytes, text[:from]...), text[from:to])
	if !isClosed(out.Bytes[from:]) {
		p.decoder.buffers.Put(out)
		return errQuotedBatch
	}
	out.Bytes = append(out.Bytes, text[to:]...)
	p.become(out, StepQuotes)
	return nil
}

// IsQuotedArray reports whether a JSON value is a string that begins like an array, or like such a string.
func IsQuotedArray(value []byte) bool {
	if len(value) == 0 || value[0] != '"' {
		return false
	}
	var head [sniffed]byte
	text, _ := jsonscan.Unquote(head[:0], value[:min(len(value), sniffed)])
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && text[0] == '[' || IsQuotedArray(text)
}

// isClosed reports whether the array, object or string that b begins with ends where b ends. It looks at brackets and
// quotes only: the scanner judges the rest, after the repairs that it may need.
func isClosed(b []byte) bool {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] != '[' && b[0] != '{' && b[0] != '"' {
		return false
	}
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '[', '{':
			depth++
			continue
		case ']', '}':
			depth--
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		default:
			continue
		}
		if depth <= 0 {
			return i == len(b)-1
		}
	}
	return false
}
