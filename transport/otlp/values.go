package otlp

import (
	"fmt"
	"strconv"
	"strings"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/opencapture/capture/modules/jsonscan"
)

var (
	anyValue = (*commonpb.AnyValue)(nil).ProtoReflect().Descriptor()
	keyValue = (*commonpb.KeyValue)(nil).ProtoReflect().Descriptor()
	// intValue and doubleValue are fields of anyValue.
	intValue, doubleValue = anyValue.Fields().ByName("int_value"), anyValue.Fields().ByName("double_value")
)

// valueMender writes requests in OTLP/JSON anew, so that each value is one that its field can hold. A value that is not
// becomes what it plainly means, as 5 where a text should be, or is left out. So are null, members that are unknown,
// and the second of two members that exclude each other. A valueMender goes over the text once, as the messages'
// descriptors lead it. Without an out, it only counts what it would write.
type valueMender struct {
	scan jsonscan.Scanner
	// out is what was written, or nil. size is how many bytes that is or would be.
	out  []byte
	size int
	// changed is set if any value was not what OTLP has in its place.
	changed bool
	// fault says why the text cannot be mended, if it is JSON.
	fault error
}

// newValueMender returns a valueMender that only counts. It passes over what is nested deeper than the scanner goes,
// because only members that are unknown, and so are left out, can be.
func newValueMender(text []byte) valueMender {
	return valueMender{scan: jsonscan.Scanner{Data: text, PassDeep: true}}
}

// requests mends all requests of a text, and returns why it cannot. The places in a fault are those of the text.
func (m *valueMender) requests(descriptor protoreflect.MessageDescriptor) error {
	text := m.scan.Data
	for at := m.scan.Space(0); at < len(text); at = m.scan.Space(at) {
		if text[at] != '{' {
			if fault := m.scan.End(m.scan.Value(at, 0)); fault != nil {
				return fault
			}
			return fmt.Errorf("the request at byte %d is not an object", at)
		}
		switch at = m.message(descriptor, at, maxDepth); {
		case m.fault != nil:
			return m.fault
		case at < 0:
			return m.scan.Err
		}
		m.write("\n")
	}
	return nil
}

func (m *valueMender) write(text string) {
	m.size += len(text)
	if m.out != nil {
		m.out = append(m.out, text...)
	}
}

// back takes back what was written since the size was the given one, because it is left out.
func (m *valueMender) back(size int) {
	m.size, m.changed = size, true
	if m.out != nil {
		m.out = m.out[:size]
	}
}

// fail notes why the text cannot be mended.
func (m *valueMender) fail(fault error) int {
	m.fault = fault
	return -1
}

// message mends the object at i. As all that mend a value, it returns the place after it, or -1. depth is how many more
// levels of messages may be nested.
func (m *valueMender) message(descriptor protoreflect.MessageDescriptor, i, depth int) int {
	if depth == 0 {
		return m.fail(errDepth)
	}
	var fields, oneofs uint64 // those that are there
	m.write("{")
	i, more := m.scan.Open(i, 0)
	for more {
		key, at := m.scan.Member(i)
		if at < 0 {
			return -1
		}
		field := fieldOf(descriptor, key)
		if field == nil || m.isNull(at) {
			if i = m.scan.Value(at, 0); i < 0 {
				return -1
			}
			i, more = m.scan.Next(i)
			continue
		}
		bit, group := uint64(1)<<field.Index(), uint64(0)
		if oneof := field.ContainingOneof(); oneof != nil {
			group = 1 << oneof.Index()
		}
		kept := fields&bit == 0 && oneofs&group == 0
		switch {
		case kept:
			i, kept = m.member(field, at, depth, fields != 0)
		case field.IsList():
			return m.fail(fmt.Errorf("%s stands twice in one object, the second time at byte %d", field.JSONName(), at))
		default:
			m.changed = true
			i = m.scan.Value(at, 0)
		}
		switch {
		case i < 0:
			return -1
		case kept:
			fields, oneofs = fields|bit, oneofs|group
		case depth == maxDepth:
			return m.fail(fmt.Errorf("%s at byte %d is neither a list nor an object", field.JSONName(), at))
		}
		i, more = m.scan.Next(i)
	}
	m.write("}")
	return i
}

// fieldOf returns the field that a name in JSON or in protobuf names, or nil.
func fieldOf(descriptor protoreflect.MessageDescriptor, key []byte) protoreflect.FieldDescriptor {
	name := jsonscan.Alias(key)
	if field := descriptor.Fields().ByJSONName(name); field != nil {
		return field
	}
	return descriptor.Fields().ByTextName(name)
}

// member writes a member of a message whose value is at i. It writes nothing and reports false if the value is left
// out. A fraction that stands for an integer stays, as a double.
func (m *valueMender) member(field protoreflect.FieldDescriptor, i, depth int, comma bool) (end int, kept bool) {
	before := m.size
	if comma {
		m.write(",")
	}
	start := m.size
	m.write(`"` + field.JSONName() + `":`)
	if field.IsList() {
		end, kept = m.list(field, i, depth)
	} else {
		end, kept = m.single(field, i, depth)
	}
	if !kept && end >= 0 && field == intValue {
		m.back(start)
		m.write(`"` + doubleValue.JSONName() + `":`)
		kept = m.scalar(doubleValue, m.scan.Data[i:end])
	}
	if !kept {
		m.back(before)
	}
	return end, kept
}

// list mends the list at i. An object stands for the list of its only element. It stands for that of its values if its
// names are numbers, as PHP writes a list with gaps, and for attributes if it names what no attribute has.
func (m *valueMender) list(field protoreflect.FieldDescriptor, i, depth int) (end int, kept bool) {
	open := m.first(i)
	if open != '[' && (open != '{' || field.Kind() != protoreflect.MessageKind) {
		return m.scan.Value(i, 0), false
	}
	m.write("[")
	if open == '[' {
		end = m.elements(field, i, depth)
	} else {
		m.changed = true
		end = m.members(field, i, depth)
	}
	m.write("]")
	return end, end >= 0
}

// elements mends the elements of the list at i.
func (m *valueMender) elements(field protoreflect.FieldDescriptor, i, depth int) int {
	if i = m.scan.Space(i + 1); m.first(i) == ']' {
		return i + 1
	}
	comma, more := false, true
	for more {
		kept := false
		if i, kept = m.element(field, i, depth, comma); i < 0 {
			return -1
		}
		comma = comma || kept
		i, more = m.scan.NextElement(i)
	}
	return i
}

// element mends an element of a list. An element that is left out leaves no gap, but a value that is not set in a list
// of values, so that the others keep their places.
func (m *valueMender) element(field protoreflect.FieldDescriptor, i, depth int, comma bool) (end int, kept bool) {
	before := m.size
	if comma {
		m.write(",")
	}
	start := m.size
	if m.isNull(i) {
		end = m.scan.Value(i, 0)
	} else {
		end, kept = m.single(field, i, depth)
	}
	switch {
	case kept || end < 0:
		return end, kept
	case field.Message() == anyValue:
		m.back(start)
		m.write("{}")
		return end, true
	default:
		m.back(before)
		return end, false
	}
}

// members mends the object at i, which stands where a list of messages should.
func (m *valueMender) members(field protoreflect.FieldDescriptor, i, depth int) int {
	start := i
	i, more := m.scan.Open(i, 0)
	numbers, comma := false, false
	for first := true; more; first = false {
		key, at := m.scan.Member(i)
		if at < 0 {
			return -1
		}
		if first {
			numbers = isNumber(key)
			if !numbers && (field.Message() != keyValue || fieldOf(keyValue, key) != nil) {
				return m.message(field.Message(), start, depth-1)
			}
		}
		if numbers {
			var kept bool
			i, kept = m.element(field, at, depth, comma)
			comma = comma || kept
		} else {
			i = m.attribute(i, at, depth-1, !first)
		}
		if i < 0 {
			return -1
		}
		i, more = m.scan.Next(i)
	}
	return i
}

func isNumber(key []byte) bool {
	return len(key) > 0 && strings.Trim(jsonscan.Alias(key), "0123456789") == ""
}

// attribute writes a member of an object as an attribute. Its name begins at i, and its value at the other place.
func (m *valueMender) attribute(i, value, depth int, comma bool) (end int) {
	if comma {
		m.write(",")
	}
	m.write(`{"key":` + jsonscan.Alias(m.scan.Data[i:m.scan.Value(i, 0)]))
	m.write(`,"value":`)
	if m.isNull(value) {
		end = m.scan.Value(value, 0)
		m.write("null")
	} else if end = m.any(value, depth-1); end < 0 {
		return -1
	}
	m.write("}")
	return end
}

// single mends the value at i of a field that is no list, or of an element of a list.
func (m *valueMender) single(field protoreflect.FieldDescriptor, i, depth int) (end int, kept bool) {
	switch message := field.Message(); {
	case message == nil:
		if end = m.scan.Value(i, 0); end < 0 {
			return -1, false
		}
		return end, m.scalar(field, m.scan.Data[i:end])
	case m.first(i) == '{':
		end = m.message(message, i, depth-1)
	case message == anyValue:
		end = m.any(i, depth-1)
	case m.first(i) == '[':
		return m.inList(message, i, depth-1)
	default:
		return m.scan.Value(i, 0), false
	}
	return end, end >= 0
}

// inList mends a list that stands for a message. It is that of the message's values, if the message has any. Else PHP
// writes an empty object like this.
func (m *valueMender) inList(message protoreflect.MessageDescriptor, i, depth int) (end int, kept bool) {
	values := message.Fields().ByName("values")
	if values == nil {
		return m.scan.Value(i, 0), false
	}
	if depth == 0 {
		return m.fail(errDepth), false
	}
	m.changed = true
	m.write(`{"values":`)
	end, kept = m.list(values, i, depth)
	m.write("}")
	return end, kept
}

// any writes the value at i, which is plain JSON, as one of OTLP's. A value for which OTLP has no room is not set.
func (m *valueMender) any(i, depth int) int {
	if depth == 0 {
		return m.fail(errDepth)
	}
	var name string
	data := m.scan.Data
	m.changed = true
	switch m.first(i) {
	case '{':
		return m.message(anyValue, i, depth)
	case '[':
		m.write(`{"arrayValue":`)
		end, _ := m.inList(anyValue.Fields().ByName("array_value").Message(), i, depth-1)
		m.write("}")
		return end
	case '"':
		name = `"stringValue":`
	case 't', 'f':
		name = `"boolValue":`
	default:
		name = `"intValue":`
	}
	end := m.scan.Value(i, 0)
	if end < 0 {
		return -1
	}
	raw := data[i:end]
	if name == `"intValue":` && !holds(protoreflect.Int64Kind, raw) {
		name = `"doubleValue":`
		if !holds(protoreflect.DoubleKind, raw) {
			m.write("{}")
			return end
		}
	}
	m.write("{" + name)
	m.write(jsonscan.Alias(raw))
	m.write("}")
	return end
}

// first returns the first byte of the value at i, or 0 at the end of the text.
func (m *valueMender) first(i int) byte {
	if i >= len(m.scan.Data) {
		return 0
	}
	return m.scan.Data[i]
}

func (m *valueMender) isNull(i int) bool { return m.first(i) == 'n' }

// scalar writes a value that is no message. It reports false for what the field cannot hold and does not plainly mean.
func (m *valueMender) scalar(field protoreflect.FieldDescriptor, raw []byte) bool {
	kind := field.Kind()
	if kind == protoreflect.EnumKind {
		return m.enum(field.Enum(), raw)
	}
	if holds(kind, raw) {
		m.write(jsonscan.Alias(raw))
		return true
	}
	m.changed = true
	if raw[0] == '{' || raw[0] == '[' {
		return false
	}
	text, isText := shortText(raw)
	switch {
	case kind == protoreflect.StringKind:
		m.write(`"`)
		m.write(jsonscan.Alias(raw))
		m.write(`"`)
		return true
	case kind == protoreflect.BoolKind:
		switch strings.ToLower(text) {
		case "true", "1":
			m.write("true")
			return true
		case "false", "0":
			m.write("false")
			return true
		}
	case kind != protoreflect.BytesKind && isText && text != "" && jsonscan.Valid([]byte(text)) &&
		holds(kind, []byte(text)): // There is space around the number.
		m.write(text)
		return true
	}
	return false
}

// enum writes the value of an enum. It may be a number in a string, or a name without what all names begin with.
func (m *valueMender) enum(enum protoreflect.EnumDescriptor, raw []byte) bool {
	if raw[0] != '"' && holds(protoreflect.Int32Kind, raw) {
		m.write(jsonscan.Alias(raw))
		return true
	}
	text, isText := shortText(raw)
	if isText {
		values := enum.Values()
		if values.ByName(protoreflect.Name(text)) != nil && len(text) == len(raw)-2 {
			m.write(jsonscan.Alias(raw))
			return true
		}
		m.changed = true
		if number, err := strconv.ParseInt(text, 10, 32); err == nil {
			m.write(strconv.FormatInt(number, 10))
			return true
		}
		prefix := strings.TrimSuffix(string(values.ByNumber(0).Name()), "UNSPECIFIED")
		prefix = strings.TrimSuffix(prefix, "UNSET")
		name := strings.ToUpper(text)
		if value := values.ByName(protoreflect.Name(prefix + name)); value != nil {
			m.write(`"` + prefix + name + `"`)
			return true
		}
		if value := values.ByName(protoreflect.Name(name)); value != nil {
			m.write(`"` + name + `"`)
			return true
		}
	}
	m.changed = true
	return false
}

// maxShort is the longest string, in bytes, in which a number, a truth value or the name of an enum is looked for.
const maxShort = 100

// shortText returns what stands in a string, without the space around it, or else the value as it is. A string that is
// too long has no text.
func shortText(raw []byte) (text string, isText bool) {
	switch {
	case len(raw) > maxShort:
		return "", false
	case raw[0] == '"':
		return strings.TrimSpace(jsonscan.Text(raw)), true
	default:
		return jsonscan.Alias(raw), false
	}
}

// holds reports whether the JSON library takes a value for a field of the kind. It asks the library where that may say
// something else than one would think, as of 1e3 for an integer.
func holds(kind protoreflect.Kind, raw []byte) bool {
	var in proto.Message
	switch kind {
	case protoreflect.StringKind:
		return raw[0] == '"'
	case protoreflect.BoolKind:
		return raw[0] == 't' || raw[0] == 'f'
	case protoreflect.BytesKind:
		in = &wrapperspb.BytesValue{}
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		in = &wrapperspb.DoubleValue{}
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		in = &wrapperspb.Int32Value{}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		in = &wrapperspb.Int64Value{}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		in = &wrapperspb.UInt32Value{}
	default:
		in = &wrapperspb.UInt64Value{}
	}
	return protojson.Unmarshal(raw, in) == nil
}
