package posthog

// Text returns what a valid JSON string says. It may alias the value.
func Text(value []byte) string { return text(value) }

// Repair mends what real SDKs write in the place of JSON: it returns a copy, at most a third longer, in which bare NaN, Infinity
// and -Infinity are null and escapes of lone surrogates are \ufffd. It reports whether there were any.
func Repair(data []byte) (mended []byte, done bool) {
	mended, repairs := repair(data)
	return mended, repairs.numbers+repairs.surrogates > 0
}

// IsJSON reports whether a text is one JSON value, nested as deeply as the protocol allows at most. It must be valid UTF-8.
func IsJSON(data []byte) bool {
	s := scanner{data: data}
	end := s.value(s.space(0), 0)
	return end >= 0 && s.space(end) == len(data)
}

// Members calls visit for every member of a JSON object, in order, with the key as it reads and the value as it stands. The text
// must be valid UTF-8. The error says where it is not a JSON object; by then the members before the fault have been visited.
func Members(object []byte, visit func(key string, value []byte)) error {
	return members(object, func(key, value []byte) { visit(text(key), value) })
}

// members is Members with the keys as they stand.
func members(object []byte, visit func(key, value []byte)) error {
	s := scanner{data: object}
	if s.members(visit) < 0 {
		return s.err
	}
	return nil
}

func (s *scanner) members(visit func(key, value []byte)) int {
	i := s.space(0)
	if i >= len(s.data) || s.data[i] != '{' {
		return s.fail(i, "expected an object")
	}
	if i = s.space(i + 1); i >= len(s.data) || s.data[i] != '}' {
		for more := true; more; {
			key := i
			if i >= len(s.data) || s.data[i] != '"' {
				return s.fail(i, "expected a string as key")
			}
			if i = s.str(i); i < 0 {
				return -1
			}
			keyEnd := i
			if i = s.colon(i); i < 0 {
				return -1
			}
			from := i
			if i = s.value(i, 1); i < 0 {
				return -1
			}
			visit(s.data[key:keyEnd:keyEnd], s.data[from:i:i])
			i = s.space(i)
			if more = i < len(s.data) && s.data[i] == ','; more {
				i = s.space(i + 1)
			}
		}
		if i >= len(s.data) || s.data[i] != '}' {
			return s.fail(i, "expected , or } in object")
		}
	}
	if i = s.space(i + 1); i < len(s.data) {
		return s.fail(i, "unexpected text after the JSON value")
	}
	return i
}
