package posthog

import "bytes"

// members goes through the members of a JSON object that has been scanned before.
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
	m.at, m.more = m.open(0, 0)
	return m
}

// next goes to the next member and reports whether there is one.
func (m *members) next() bool {
	if !m.more {
		return false
	}
	start := m.at
	key, at := m.member(start)
	// What was scanned within its surroundings is not nested deeper on its own.
	end := m.scanner.value(at, 0)
	if len(key) > maxEscapedKey && bytes.IndexByte(key, '\\') >= 0 {
		key = []byte(text(m.data[start : start+len(key)+2]))
	}
	m.key, m.value, m.whole = key, m.data[at:end], m.data[start:end]
	m.at, m.more = m.scanner.next(end)
	return true
}

// without appends the object without the members whose keys are unwanted, the others as they stand.
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
