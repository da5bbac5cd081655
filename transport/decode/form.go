package decode

import (
	"bytes"

	"github.com/opencapture/capture/modules/events"
)

var errForm = events.Errorf(events.Invalid, "failed to decode request: invalid urlencoded form data")

// scanForm finds the fields data and compression of a urlencoded form. It returns them as they stand, still encoded;
// data is nil if the form has none. A form that has data twice is an error, because one of the two would be lost.
func scanForm(form []byte) (data, compression []byte, err error) {
	for len(form) > 0 {
		var field []byte
		field, form, _ = bytes.Cut(form, []byte{'&'})
		name, value, _ := bytes.Cut(field, []byte{'='})
		switch string(name) {
		case "data":
			if data != nil {
				return nil, nil, errForm
			}
			data = value[:len(value):len(value)]
			if data == nil {
				data = []byte{}
			}
		case "compression":
			compression = value
		}
	}
	return data, compression, nil
}

// isEscaped reports whether a form's value has to be unescaped.
func isEscaped(value []byte) bool {
	return bytes.IndexByte(value, '%') >= 0 || bytes.IndexByte(value, '+') >= 0
}

// unescape appends the form's value, unescaped, to dst, which has room for it.
func unescape(dst, value []byte) ([]byte, error) {
	for {
		i := bytes.IndexByte(value, '%')
		plain := value
		if i >= 0 {
			plain = value[:i]
		}
		start := len(dst)
		dst = append(dst, plain...)
		for rest := dst[start:]; ; {
			plus := bytes.IndexByte(rest, '+')
			if plus < 0 {
				break
			}
			rest[plus] = ' '
			rest = rest[plus+1:]
		}
		if i < 0 {
			return dst, nil
		}
		if len(value) < i+3 {
			return dst, errForm
		}
		high, low := hexValue(value[i+1]), hexValue(value[i+2])
		if high|low > 15 {
			return dst, errForm
		}
		dst = append(dst, high<<4|low)
		value = value[i+3:]
	}
}

// hexValue returns the value of a hex digit, or 255 for any other character.
func hexValue(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	default:
		return 255
	}
}
