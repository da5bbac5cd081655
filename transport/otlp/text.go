package otlp

import (
	"bytes"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// replacement stands for bytes that are no UTF-8.
var replacement = []byte("\ufffd")

// mender writes a request in protobuf anew, with U+FFFD in the place of what is no UTF-8 in its texts. The request must
// have been counted, so that all its fields can be read.
type mender struct {
	// sizes are the sizes that the messages will have, in the order in which they begin. A message is measured before
	// it is written, because its size stands before it.
	sizes []int
	out   []byte
	// replaced is set if any text was not valid.
	replaced bool
}

// measure returns the size that a message will have.
func (m *mender) measure(descriptor protoreflect.MessageDescriptor, message []byte) int {
	place, size := len(m.sizes), 0
	m.sizes = append(m.sizes, 0)
	for len(message) > 0 {
		var found wireField
		switch found, message = nextField(descriptor, message); {
		case found.field == nil:
			size += len(found.whole)
		case found.field.Kind() == protoreflect.MessageKind:
			size += protowire.SizeTag(found.field.Number()) +
				protowire.SizeBytes(m.measure(found.field.Message(), found.value))
		default:
			size += protowire.SizeTag(found.field.Number()) + protowire.SizeBytes(len(m.valid(found.value)))
		}
	}
	m.sizes[place] = size
	return size
}

// write writes a message that has been measured. The first of sizes is its own.
func (m *mender) write(descriptor protoreflect.MessageDescriptor, message []byte) {
	m.sizes = m.sizes[1:]
	for len(message) > 0 {
		var found wireField
		if found, message = nextField(descriptor, message); found.field == nil {
			m.out = append(m.out, found.whole...)
			continue
		}
		m.out = protowire.AppendTag(m.out, found.field.Number(), protowire.BytesType)
		if found.field.Kind() == protoreflect.MessageKind {
			m.out = protowire.AppendVarint(m.out, uint64(m.sizes[0]))
			m.write(found.field.Message(), found.value)
		} else {
			m.out = protowire.AppendBytes(m.out, m.valid(found.value))
		}
	}
}

// wireField is a field of a message in protobuf.
type wireField struct {
	whole []byte
	// field is nil unless the field is a message or a text, which value then is.
	field protoreflect.FieldDescriptor
	value []byte
}

// nextField returns the first field of a message, and the rest of the message.
func nextField(descriptor protoreflect.MessageDescriptor, message []byte) (found wireField, rest []byte) {
	number, kind, tag := protowire.ConsumeTag(message)
	size := tag + protowire.ConsumeFieldValue(number, kind, message[tag:])
	found.whole = message[:size]
	field := descriptor.Fields().ByNumber(number)
	if field != nil && (field.Kind() == protoreflect.MessageKind || field.Kind() == protoreflect.StringKind) {
		found.field = field
		found.value, _ = protowire.ConsumeBytes(message[tag:])
	}
	return found, message[size:]
}

// valid returns a text with U+FFFD in the place of what is no UTF-8.
func (m *mender) valid(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	m.replaced = true
	return bytes.ToValidUTF8(text, replacement)
}
