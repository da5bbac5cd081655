package posthog

import "bytes"

// members goes through the members of a JSON object.
type members struct {
	scanner
	at   int
	more bool

	// key is the member's name without quotes and escapes, value its value, and whole both with what is between them.
	key          []byte
	value, whole []byte
}

// membersOf begins before the first member of the object.
func membersOf(object []byte) members {
	m := members{scanner: scanner{data: object}}
	if start := m.space(0); start >= len(object) || object[start] != '{' {
		m.at = m.fail(start, "expected an object")
	} else {
		m.at, m.more = m.open(start, 0)
	}
	return m
}

// next goes to the next member and reports whether there is one. Where the text is no object, there is none and err is set.
func (m *members) next() bool {
	if !m.more {
		return false
	}
	start := m.at
	key, at := m.member(start)
	end := -1
	if at >= 0 {
		end = m.scanner.value(at, 1)
	}
	if end < 0 {
		m.more = false
		return false
	}
	if len(key) > maxEscapedKey && bytes.IndexByte(key, '\\') >= 0 {
		key = []byte(text(m.data[start : start+len(key)+2]))
	}
	m.key, m.value, m.whole = key, m.data[at:end:end], m.data[start:end]
	m.at, m.more = m.scanner.next(end)
	return true
}

// end says what is wrong with the text once next has returned false.
func (m *members) end() *syntaxError {
	if m.err == nil {
		if after := m.space(m.at); after < len(m.data) {
			m.fail(after, "unexpected text after the JSON value")
		}
	}
	return m.err
}

// Members calls visit for every member of a JSON object, in order, with the key as it reads and the value as it stands. The text
// must be valid UTF-8. The error says where it is not a JSON object; by then the members before the fault have been visited.
func Members(object []byte, visit func(key string, value []byte)) error {
	m := membersOf(object)
	for m.next() {
		visit(alias(m.key), m.value)
	}
	if fault := m.end(); fault != nil {
		return fault
	}
	return nil
}

// without appends an object that has been scanned, without the members whose keys are unwanted; the others stay as they stand.
func without(dst, object []byte, unwanted func(key []byte) bool) []byte {
	dst = append(dst, '{')
	start := len(dst)
	for m := membersOf(object); m.next(); {
		if unwanted(m.key) {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(dst, m.whole...)
	}
	return append(dst, '}')
}
