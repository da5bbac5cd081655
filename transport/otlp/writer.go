package otlp

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/memory"
)

// writer writes JSON values, one after the other. It reserves memory by its lease before it takes it. It gives up a
// value that is too large or has no room: it does no more work for that value, and end returns the error.
type writer struct {
	lease memory.Lease
	// limit is the size of the largest value, in bytes. left is how many bytes all values still to come may have
	// together.
	limit, left int

	// text is the memory at hand. The value that is being written begins at start. Finished values stay where they are.
	text  []byte
	start int
	err   *events.Error
}

// errManyBytes concerns the whole request, unlike other errors with its code.
var errManyBytes = events.Errorf(events.TooLarge,
	"the events of the request come to too many bytes, with the attributes of its resources in each of them: "+
		"send smaller batches, or shorten the resources")

// chunk is the least memory that the writer takes at once, in bytes.
const chunk = 16 << 10

// begin begins a value.
func (w *writer) begin() { w.start, w.err = len(w.text), nil }

// end returns the value that was written, or the error for which it was given up.
func (w *writer) end() ([]byte, *events.Error) {
	if w.err != nil {
		w.text = w.text[:w.start]
		return nil, w.err
	}
	w.left -= len(w.text) - w.start
	return w.text[w.start:len(w.text):len(w.text)], nil
}

// room makes room for n more bytes. It reports false for a value that is given up.
func (w *writer) room(n int) bool {
	size := len(w.text) - w.start + n
	switch {
	case w.err != nil:
		return false
	case size > w.limit:
		w.err = events.Errorf(events.TooLarge, "the event is larger than %d bytes", w.limit)
		return false
	case size > w.left:
		w.err = errManyBytes
		return false
	case len(w.text)+n <= cap(w.text):
		return true
	}
	larger := max(chunk, 2*size)
	if w.err = w.lease.Take(int64(larger)); w.err != nil {
		return false
	}
	w.text, w.start = append(make([]byte, 0, larger), w.text[w.start:]...), 0
	return true
}

// raw writes a text as it stands.
func (w *writer) raw(text string) {
	if w.room(len(text)) {
		w.text = append(w.text, text...)
	}
}

// json writes a value that is JSON already.
func (w *writer) json(value []byte) {
	if w.room(len(value)) {
		w.text = append(w.text, value...)
	}
}

// key begins a member of an object.
func (w *writer) key(name string) {
	w.comma()
	w.string(name)
	w.raw(":")
}

// comma divides two members of an object.
func (w *writer) comma() {
	if w.err == nil && w.text[len(w.text)-1] != '{' {
		w.raw(",")
	}
}

// string writes a string. Invalid UTF-8 becomes U+FFFD.
func (w *writer) string(s string) {
	const digits = "0123456789abcdef"
	if !w.room(len(s) + len(`""`)) {
		return
	}
	w.raw(`"`)
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	plain := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		w.raw(s[plain:i])
		plain = i + 1
		switch c {
		case '"', '\\':
			w.raw(`\` + s[i:i+1])
		case '\n':
			w.raw(`\n`)
		case '\r':
			w.raw(`\r`)
		case '\t':
			w.raw(`\t`)
		default:
			w.raw(`\u00` + digits[c>>4:c>>4+1] + digits[c&15:c&15+1])
		}
		if w.err != nil {
			return
		}
	}
	w.raw(s[plain:])
	w.raw(`"`)
}

func (w *writer) integer(n int64) {
	if w.room(20) {
		w.text = strconv.AppendInt(w.text, n, 10)
	}
}

// number writes a number. NaN and the infinities become null, because JSON has no numbers for them.
func (w *writer) number(f float64) {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		w.raw("null")
	case w.room(32):
		w.text = strconv.AppendFloat(w.text, f, 'g', -1, 64)
	}
}

// time writes a time as a string.
func (w *writer) time(t time.Time) {
	if w.room(len(time.RFC3339Nano) + 2) {
		w.text = append(w.text, '"')
		w.text = t.AppendFormat(w.text, time.RFC3339Nano)
		w.text = append(w.text, '"')
	}
}

// value writes an attribute's value: bytes as hexadecimal digits, as upstream does, and a value that is not set as
// null. The decoder has limited how deep values nest.
func (w *writer) value(value *commonpb.AnyValue) {
	switch v := value.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		w.string(v.StringValue)
	case *commonpb.AnyValue_BoolValue:
		w.raw(strconv.FormatBool(v.BoolValue))
	case *commonpb.AnyValue_IntValue:
		w.integer(v.IntValue)
	case *commonpb.AnyValue_DoubleValue:
		w.number(v.DoubleValue)
	case *commonpb.AnyValue_BytesValue:
		w.raw(`"`)
		if w.room(2 * len(v.BytesValue)) {
			w.text = hex.AppendEncode(w.text, v.BytesValue)
		}
		w.raw(`"`)
	case *commonpb.AnyValue_ArrayValue:
		w.raw("[")
		for i, element := range v.ArrayValue.GetValues() {
			if i > 0 {
				w.raw(",")
			}
			if w.value(element); w.err != nil {
				return
			}
		}
		w.raw("]")
	case *commonpb.AnyValue_KvlistValue:
		w.object(v.KvlistValue.GetValues())
	default:
		w.raw("null")
	}
}

// object writes attributes as an object. Of several attributes with one key the last counts.
func (w *writer) object(list []*commonpb.KeyValue) {
	if w.raw("{"); w.err != nil {
		return
	}
	for _, attribute := range newAttributes(list).list {
		w.key(attribute.GetKey())
		if w.value(attribute.GetValue()); w.err != nil {
			return
		}
	}
	w.raw("}")
}

// structured writes a value. Where the value is a string that holds a JSON object or array, it writes that in its
// place.
func (w *writer) structured(value *commonpb.AnyValue) {
	if w.err != nil {
		return
	}
	text := strings.TrimSpace(value.GetStringValue())
	if strings.HasPrefix(text, "[") || strings.HasPrefix(text, "{") {
		if jsonscan.Valid([]byte(text)) {
			w.raw(text)
			return
		}
	}
	w.value(value)
}
