package otlp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/memory"
)

const (
	// maxDepth is how deep messages may be nested. A list within a list takes two levels, an object within an object
	// three.
	maxDepth = 100
	// maxValues is how many messages, and texts in lists, a request may consist of. An attribute is one message, its
	// value another.
	maxValues = 500_000
	// valueSize is about the memory in bytes that one of these takes beside its text, once it is decoded and while its
	// attributes are looked up.
	valueSize = 224
)

var (
	errManyValues = events.Errorf(events.TooLarge, "request holds more than %d values: send smaller batches", maxValues)
	errText       = events.Errorf(events.Invalid, "failed to parse request: JSON must be valid UTF-8")
	errDepth      = errors.New("values are nested too deeply")
)

// isProtobuf reports whether a content type names protobuf.
func isProtobuf(contentType string) bool {
	return strings.Contains(strings.ToLower(contentType), "protobuf")
}

// isJSON reports whether a body is JSON, else it is protobuf. A message in protobuf never begins with a brace. For any
// other body the content type decides, if it names one of the two.
func isJSON(body []byte, contentType string) bool {
	switch {
	case len(body) > 0 && body[0] == '{':
		return true
	case isProtobuf(contentType):
		return false
	default:
		return strings.Contains(strings.ToLower(contentType), "json") ||
			bytes.HasPrefix(bytes.TrimSpace(body), []byte("{"))
	}
}

// request is a decoded request and the memory that is reserved for it.
type request struct {
	lease memory.Lease
	// repaired is set if the JSON had to be mended.
	repaired bool
}

// decode reads a body into the message. It counts the values of the body and reserves their memory before it decodes
// them.
func (r *request) decode(body []byte, contentType string, into proto.Message) *events.Error {
	if isJSON(body, contentType) {
		return r.decodeJSON(body, into)
	}
	count := counter{left: maxValues}
	if err := count.message(into.ProtoReflect().Descriptor(), body, maxDepth); err != nil {
		return events.Errorf(events.Invalid, "failed to parse request: invalid protobuf: %w", err)
	}
	switch {
	case count.left < 0:
		return errManyValues
	case !r.lease.Reserve(int64(len(body)) + int64(maxValues-count.left)*valueSize):
		return memory.ErrSpent
	}
	if err := (proto.UnmarshalOptions{
		DiscardUnknown: true, RecursionLimit: maxDepth,
	}).Unmarshal(body, into); err != nil {
		return events.Errorf(events.Invalid, "failed to parse request: invalid protobuf: %w", err)
	}
	return nil
}

// decodeJSON reads JSON. If the JSON is invalid, it first mends what real SDKs get wrong.
func (r *request) decodeJSON(body []byte, into proto.Message) *events.Error {
	values := valuesOf(body)
	switch {
	case values > maxValues:
		return errManyValues
	case !utf8.Valid(body):
		return errText
	case !r.lease.Reserve(int64(len(body)) + int64(values)*valueSize):
		return memory.ErrSpent
	}
	options := protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxDepth}
	fault := options.Unmarshal(body, into)
	if fault == nil {
		return nil
	}
	if !jsonscan.Valid(body) {
		if _, size := jsonscan.Survey(body); !r.lease.Reserve(int64(size)) {
			return memory.ErrSpent
		}
		mended, done := jsonscan.Repair(body)
		if done.Any() && options.Unmarshal(mended, into) == nil {
			r.repaired = true
			return nil
		}
	}
	return events.Errorf(events.Invalid, "failed to parse request: invalid OTLP/JSON: %w", fault)
}

// valuesOf counts the values that JSON would become, without decoding it. An object is a message. A string that is
// neither a key nor a member's value is a text in a list.
func valuesOf(text []byte) (n int) {
	before := byte(0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case ' ', '\t', '\n', '\r':
			continue
		case '{':
			n++
		case '"':
			i = endOf(text, i)
			if before == ':' {
				before = 0
				continue
			}
			n++
		case ':':
			if before == '"' {
				n-- // The string was a key.
			}
		}
		before = c
	}
	return n
}

// endOf returns the place of the closing quote of the string that begins at i.
func endOf(text []byte, i int) int {
	for i++; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i
}

// counter counts the values that a request in protobuf would become, without decoding it.
type counter struct{ left int }

// message counts the values in a message. depth is how many more levels may be nested. The count stops as soon as there
// are too many values.
func (c *counter) message(descriptor protoreflect.MessageDescriptor, text []byte, depth int) error {
	if depth == 0 {
		return errDepth
	}
	for len(text) > 0 && c.left >= 0 {
		number, kind, n := protowire.ConsumeTag(text)
		if n < 0 {
			return protowire.ParseError(n)
		}
		text = text[n:]
		field := descriptor.Fields().ByNumber(number)
		isMessage := field != nil && field.Kind() == protoreflect.MessageKind
		if kind != protowire.BytesType || field == nil || !isMessage && !field.IsList() {
			if n = protowire.ConsumeFieldValue(number, kind, text); n < 0 {
				return protowire.ParseError(n)
			}
			text = text[n:]
			continue
		}
		inner, n := protowire.ConsumeBytes(text)
		if n < 0 {
			return protowire.ParseError(n)
		}
		text = text[n:]
		c.left--
		if !isMessage {
			continue
		}
		if err := c.message(field.Message(), inner, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// idOf returns the id of a trace or span as hexadecimal digits, or "" if the id is absent or all zeros. OTLP/JSON
// writes ids as hexadecimal digits, and all other bytes as base64. So the JSON decoder has read these digits as base64,
// and the id has another size. Encoding it as base64 gives the digits back.
func idOf(id []byte, size int) string {
	text := hex.EncodeToString(id)
	if len(id) != size {
		if digits := base64.StdEncoding.EncodeToString(id); isHex(digits) {
			text = strings.ToLower(digits)
		}
	}
	if strings.Trim(text, "0") == "" {
		return ""
	}
	return text
}

func isHex(text string) bool {
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
