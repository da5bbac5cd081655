package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
)

// Members goes through the members of a JSON object.
type Members struct {
	scan Scanner
	at   int
	more bool

	// Key is the member's name without quotes and escapes, Value its value.
	Key, Value []byte
	// whole is the member as it stands.
	whole []byte
}

// MembersOf returns a Members that stands before the first member of the object.
func MembersOf(object []byte) Members {
	m := Members{scan: Scanner{Data: object}}
	if start := m.scan.Space(0); start >= len(object) || object[start] != '{' {
		m.at = m.scan.Fail(start, "expected an object")
	} else {
		m.at, m.more = m.scan.Open(start, 0)
	}
	return m
}

// Next goes to the next member and reports whether there is one. A text that is no object has none, and Err returns the
// fault.
func (m *Members) Next() bool {
	if !m.more {
		return false
	}
	start := m.at
	key, at := m.scan.Member(start)
	end := -1
	if at >= 0 {
		end = m.scan.Value(at, 1)
	}
	if end < 0 {
		m.more = false
		return false
	}
	data := m.scan.Data
	if len(key) > MaxEscapedKey && bytes.IndexByte(key, '\\') >= 0 {
		key = []byte(Text(data[start : start+len(key)+2]))
	}
	m.Key, m.Value, m.whole = key, data[at:end:end], data[start:end]
	m.at, m.more = m.scan.Next(end)
	return true
}

// Err returns what is wrong with the text, or nil. It is to be called once Next has returned false.
func (m *Members) Err() error {
	if fault := m.scan.End(m.at); fault != nil {
		return fault
	}
	return nil
}

// Get returns the value of an object's property as it stands. It returns nil if the object has no such property, or the
// text is no object.
func Get(object []byte, name string) (value []byte) {
	m := MembersOf(object)
	for m.Next() {
		if string(m.Key) == name {
			value = m.Value
		}
	}
	if m.Err() != nil {
		return nil
	}
	return value
}

// AppendSet appends the object to dst, with the property set to a JSON value. The value takes the place that the
// property has, or the end if the property is new. The other members stay as they stand. dst must share no memory with
// the object. If the text is no object, or the value no JSON, AppendSet returns an error and dst as it was.
func AppendSet(dst, object []byte, name string, value []byte) ([]byte, error) {
	scan := Scanner{Data: value}
	if scan.End(scan.Value(scan.Space(0), 1)) != nil {
		return dst, errors.New("the value is not JSON: " + scan.Err.Error())
	}
	before := len(dst)
	dst = append(dst, '{')
	start, set := len(dst), false
	m := MembersOf(object)
	for m.Next() {
		found := string(m.Key) == name
		if found && set {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		if found {
			dst, set = appendMember(dst, name, value), true
		} else {
			dst = append(dst, m.whole...)
		}
	}
	if err := m.Err(); err != nil {
		return dst[:before], err
	}
	if !set {
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = appendMember(dst, name, value)
	}
	return append(dst, '}'), nil
}

// AppendDelete appends the object to dst, without the property. It is AppendWithout for one name.
func AppendDelete(dst, object []byte, name string) []byte {
	return AppendWithout(dst, object, func(key []byte) bool { return string(key) == name })
}

// AppendWithout appends to dst an object that has been scanned, without the members whose keys are unwanted. The other
// members stay as they stand. dst may be the beginning of the object's own memory, because AppendWithout never writes
// ahead of what it has read.
func AppendWithout(dst, object []byte, unwanted func(key []byte) bool) []byte {
	m := MembersOf(object) // This reads the first brace before it is written over.
	dst = append(dst, '{')
	start := len(dst)
	for m.Next() {
		if unwanted(m.Key) {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(dst, m.whole...)
	}
	return append(dst, '}')
}

func appendMember(dst []byte, name string, value []byte) []byte {
	dst = appendString(dst, name)
	dst = append(dst, ':')
	return append(dst, value...)
}

// appendString appends a text as a JSON string. Invalid UTF-8 becomes U+FFFD.
func appendString(dst []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x80 {
			quoted, _ := json.Marshal(text) // strings always become JSON
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"')
}
