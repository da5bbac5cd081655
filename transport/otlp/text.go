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
	m.fields(descriptor, message, func(whole []byte, _ protowire.Number, field protoreflect.FieldDescriptor, value []byte) {
		switch {
		case field == nil:
			size += len(whole)
		case field.Kind() == protoreflect.MessageKind:
			size += protowire.SizeTag(field.Number()) + protowire.SizeBytes(m.measure(field.Message(), value))
		default:
			size += protowire.SizeTag(field.Number()) + protowire.SizeBytes(len(m.valid(value)))
		}
	})
	m.sizes[place] = size
	return size
}

// write writes a message that has been measured. The first of sizes is its own.
func (m *mender) write(descriptor protoreflect.MessageDescriptor, message []byte) {
	m.sizes = m.sizes[1:]
	m.fields(descriptor, message, func(whole []byte, number protowire.Number, field protoreflect.FieldDescriptor, value []byte) {
		if field == nil {
			m.out = append(m.out, whole...)
			return
		}
		m.out = protowire.AppendTag(m.out, number, protowire.BytesType)
		if field.Kind() == protoreflect.MessageKind {
			m.out = protowire.AppendVarint(m.out, uint64(m.sizes[0]))
			m.write(field.Message(), value)
			return
		}
		m.out = protowire.AppendBytes(m.out, m.valid(value))
	})
}

// fields calls visit for each field of a message. For a message or a text, field is set and value is what it holds. Any
// other field is to be taken whole.
func (m *mender) fields(
	descriptor protoreflect.MessageDescriptor, message []byte,
	visit func(whole []byte, number protowire.Number, field protoreflect.FieldDescriptor, value []byte),
) {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		size := tag + protowire.ConsumeFieldValue(number, kind, message[tag:])
		field := descriptor.Fields().ByNumber(number)
		if field != nil && field.Kind() != protoreflect.MessageKind && field.Kind() != protoreflect.StringKind {
			field = nil
		}
		var value []byte
		if field != nil {
			value, _ = protowire.ConsumeBytes(message[tag:])
		}
		visit(message[:size], number, field, value)
		message = message[size:]
	}
}

// valid returns a text with U+FFFD in the place of what is no UTF-8.
func (m *mender) valid(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	m.replaced = true
	return bytes.ToValidUTF8(text, replacement)
}
