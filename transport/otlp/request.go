package otlp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/decode"
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
	errDepth      = errors.New("values are nested too deeply")
	errShape      = errors.New("a value is not what OTLP has there")
	errType       = errors.New("a field has another type than in OTLP")
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
	// kind says what the request should hold.
	kind answers
	// decoder finds the text that JSON is written in. config judges the request.
	decoder *decode.Decoder
	config  *configs.View
	// repaired is set if the JSON had to be mended.
	repaired bool
}

// decode reads a body into the message. If the body is not what its first byte and the content type promise, decode
// tries the other encoding before it refuses the body.
func (r *request) decode(body []byte, contentType string, into proto.Message) *events.Error {
	likely := r.decodeProtobuf
	other := func(body []byte, into proto.Message) *events.Error { return r.decodeText(body, contentType, into) }
	if isJSON(body, contentType) {
		likely, other = other, likely
	}
	fault := likely(body, into)
	if fault == nil || fault.Code != events.Invalid {
		return fault
	}
	r.repaired = false
	switch second := other(body, into); {
	case second == nil && isFilled(into):
		return nil
	case second != nil && second.Code == events.Unavailable:
		return second
	}
	r.repaired = false
	return fault
}

// isFilled reports whether a request's list of resources has any.
func isFilled(data proto.Message) bool { return resourcesOf(data).Len() > 0 }

// resourcesOf returns the list that is the only field of a request.
func resourcesOf(data proto.Message) protoreflect.List {
	message := data.ProtoReflect()
	return message.Mutable(message.Descriptor().Fields().Get(0)).List()
}

// decodeProtobuf counts the values of the body and reserves their memory before it decodes them.
func (r *request) decodeProtobuf(body []byte, into proto.Message) *events.Error {
	count := counter{left: maxValues}
	switch err := count.message(into.ProtoReflect().Descriptor(), body, maxDepth); {
	case errors.Is(err, errType):
		return r.invalid("protobuf", fmt.Errorf("%w, where this path takes %s", err, r.kind.items))
	case err != nil:
		return r.invalid("protobuf", err)
	}
	if count.left < 0 {
		return errManyValues
	}
	if fault := r.lease.Take(int64(len(body)) + int64(maxValues-count.left)*valueSize); fault != nil {
		return fault
	}
	options := proto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxDepth}
	fault := options.Unmarshal(body, into)
	if fault == nil {
		return nil
	}
	mended, err := r.mendProtobuf(body, into.ProtoReflect().Descriptor(), maxValues-count.left)
	switch {
	case err != nil:
		return err
	case mended != nil && options.Unmarshal(mended, into) == nil:
		r.repaired = true
		return nil
	default:
		return r.invalid("protobuf", fault)
	}
}

// mendProtobuf returns a copy of a body whose texts are valid UTF-8, or nil if they are so already. values is how many
// the body has.
func (r *request) mendProtobuf(
	body []byte, descriptor protoreflect.MessageDescriptor, values int,
) ([]byte, *events.Error) {
	// A byte that is no UTF-8 becomes three. The longest of the texts is copied twice.
	if fault := r.lease.Take(int64(len(body))*6 + int64(values)*int64(unsafe.Sizeof(0))); fault != nil {
		return nil, fault
	}
	mend := mender{sizes: make([]int, 0, values+1)}
	size := mend.measure(descriptor, body)
	if !mend.replaced {
		return nil, nil
	}
	mend.out = make([]byte, 0, size)
	mend.write(descriptor, body)
	return mend.out, nil
}

func (r *request) invalid(encoding string, err error) *events.Error {
	return events.Errorf(events.Invalid, "failed to parse request: invalid %s: %w", encoding, err)
}

// decodeText reads JSON that may lie in a JSON string, or be written in another charset.
func (r *request) decodeText(body []byte, contentType string, into proto.Message) *events.Error {
	text, err := r.decoder.Text(decode.Input{Body: body, ContentType: contentType, Config: r.config})
	if fault := (*events.Error)(nil); errors.As(err, &fault) {
		return fault
	}
	if text != nil {
		defer text.Release()
		body = text.Bytes
	}
	return r.decodeJSON(bytes.TrimPrefix(body, []byte("\ufeff")), into)
}

// decodeJSON reads JSON, counting and reserving as decodeProtobuf does. If the JSON is invalid, it first mends what
// real SDKs get wrong. If OTLP has no such values in their places, it mends the values.
func (r *request) decodeJSON(body []byte, into proto.Message) *events.Error {
	values, named := valuesOf(body)
	if values > maxValues {
		return errManyValues
	}
	if fault := r.lease.Take(int64(len(body)) + int64(values)*valueSize); fault != nil {
		return fault
	}
	if !utf8.Valid(body) {
		if fault := r.lease.Take(int64(len(body)) * int64(len(replacement))); fault != nil {
			return fault
		}
		body, r.repaired = bytes.ToValidUTF8(body, replacement), true
	}
	text, read := body, unmarshalJSON(body, into)
	if !read {
		if done, size := jsonscan.Survey(body); done.Any() {
			if spent := r.lease.Take(int64(size)); spent != nil {
				return spent
			}
			text, _ = jsonscan.Repair(body)
			read, r.repaired = unmarshalJSON(text, into), true
		}
	}
	if !read || named {
		if fault := r.mendValues(text, values, read, into); fault != nil {
			if syntax := (*jsonscan.SyntaxError)(nil); errors.As(fault, &syntax) {
				return r.invalid("OTLP/JSON", syntax.Origin(body))
			}
			return fault
		}
	}
	if !isFilled(into) {
		return r.foreign(text)
	}
	return nil
}

// mendValues reads JSON anew once its values are mended. values is how many there are. If the library has read the text
// and no value has to be mended, the message stays as it is.
func (r *request) mendValues(text []byte, values int, read bool, into proto.Message) *events.Error {
	// The library decodes a text on its own to see whether the text is base64.
	if fault := r.lease.Take(2 * int64(len(text))); fault != nil {
		return fault
	}
	descriptor := into.ProtoReflect().Descriptor()
	count := newValueMender(text)
	if err := count.requests(descriptor); err != nil {
		return r.invalid("OTLP/JSON", err)
	}
	if read && !count.changed {
		return nil
	}
	if fault := r.lease.Take(int64(count.size)); fault != nil {
		return fault
	}
	mend := newValueMender(text)
	mend.out = make([]byte, 0, count.size)
	if err := mend.requests(descriptor); err != nil {
		return r.invalid("OTLP/JSON", err)
	}
	more, _ := valuesOf(mend.out)
	if more > maxValues {
		return errManyValues
	}
	if fault := r.lease.Take(int64(max(0, more-values)) * valueSize); fault != nil {
		return fault
	}
	r.repaired = true
	if !unmarshalJSON(mend.out, into) {
		return r.invalid("OTLP/JSON", errShape) // None is known that the library refuses.
	}
	return nil
}

// unmarshalJSON reads one request, or several that follow each other, as in JSON Lines, into one message. It reports
// whether the library takes them all. It does not return the library's errors, because they quote the text.
func unmarshalJSON(text []byte, into proto.Message) bool {
	options := protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxDepth}
	if options.Unmarshal(text, into) == nil {
		return true
	}
	proto.Reset(into)
	scan := jsonscan.Scanner{Data: text, PassDeep: true} // The library looks at what is nested deeply.
	for at := scan.Space(0); at < len(text); {
		end := scan.Value(at, 0)
		if end < 0 || end == len(text) && at == 0 {
			return false
		}
		next := into.ProtoReflect().New().Interface()
		if options.Unmarshal(text[at:end], next) != nil {
			return false
		}
		all, more := resourcesOf(into), resourcesOf(next)
		for i := range more.Len() {
			all.Append(more.Get(i))
		}
		at = scan.Space(end)
	}
	return true
}

// lists are the lists of OTLP's requests, by their names in JSON and in protobuf.
var lists = map[string]string{
	"resourceSpans": "resourceSpans", "resource_spans": "resourceSpans",
	"resourceLogs": "resourceLogs", "resource_logs": "resourceLogs",
	"resourceMetrics": "resourceMetrics", "resource_metrics": "resourceMetrics",
}

// foreign refuses JSON that has members, but not the list that the path is about. It takes an empty request, which
// exporters may send.
func (r *request) foreign(body []byte) *events.Error {
	found, empty := "no list of OTLP's", true
	for members := jsonscan.MembersOf(body); members.Next(); empty = false {
		switch list := lists[string(members.Key)]; list {
		case r.kind.list:
			return nil
		case "":
		default:
			found = list
		}
	}
	if empty {
		return nil
	}
	return events.Errorf(events.Invalid, "failed to parse request: expected %s, because this path takes %s, found %s",
		r.kind.list, r.kind.items, found)
}

// valuesOf counts the values that JSON would become, without decoding it. An object is a message. A string that is
// neither a key nor a member's value is a text in a list. named is set if the value of an enum is a string. Of these
// the library takes only the names that it knows, and leaves out others without a word.
func valuesOf(text []byte) (n int, named bool) {
	before := byte(0)
	var key []byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case ' ', '\t', '\n', '\r':
			continue
		case '{':
			n++
		case '"':
			start := i + 1
			i = endOf(text, i)
			if before == ':' {
				named = named || isEnum(key)
				before = 0
				continue
			}
			key = text[start:max(start, min(i, len(text)))]
			n++
		case ':':
			if before == '"' {
				n-- // The string was a key.
			}
		}
		before = c
	}
	return n, named
}

// isEnum reports whether a member of that name is an enum in OTLP's spans and log records.
func isEnum(key []byte) bool {
	switch string(key) {
	case "severityNumber", "severity_number", "kind", "code":
		return true
	default:
		return false
	}
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
		if field != nil && kind != typeOf(field) {
			return errType
		}
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

// typeOf returns how a field is encoded. A field that is encoded in another way is that of another message. The library
// would ignore the field, and so take spans for empty log records.
func typeOf(field protoreflect.FieldDescriptor) protowire.Type {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.StringKind, protoreflect.BytesKind:
		return protowire.BytesType
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	default:
		return protowire.VarintType
	}
}

// idOf returns the id of a trace or span as hexadecimal digits, or "" if the id is absent or all zeros. OTLP/JSON
// writes ids as hexadecimal digits, and all other bytes as base64. So the JSON decoder has read these digits as base64,
// and the id has another size. Encoding it as base64 gives the digits back. Some exporters write the base64 of the
// bytes or of the digits, or the id of a trace as a UUID with hyphens.
func idOf(id []byte, size int) string {
	text := hex.EncodeToString(id)
	if len(id) == 2*size && isHex(string(id)) {
		text = strings.ToLower(string(id))
	} else if len(id) != size {
		if digits := base64.StdEncoding.EncodeToString(id); isHex(digits) {
			text = strings.ToLower(digits)
		} else if parsed, err := uuid.Parse(base64.URLEncoding.EncodeToString(id)); err == nil && size == len(parsed) {
			text = hex.EncodeToString(parsed[:])
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
