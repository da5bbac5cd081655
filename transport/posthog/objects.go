package posthog

import (
	"bytes"

	"github.com/opencapture/capture/modules/jsonscan"
)

// PHP writes an empty map as an empty array, because it has only one type for both.

// isEmptyArray reports whether a JSON value is an array without elements.
func isEmptyArray(raw []byte) bool {
	return len(raw) >= 2 && raw[0] == '[' && len(bytes.TrimLeft(raw[1:], " \t\r\n")) == 1
}

// AsObject returns an empty object for an empty array, and any other JSON value as it is.
func AsObject(raw []byte) []byte {
	if isEmptyArray(raw) {
		return noProperties
	}
	return raw
}

// IsEmptyArray reports whether a property is one of those that are objects, and whether its value is an empty array.
func IsEmptyArray(key, value []byte) bool {
	switch string(key) {
	case "$set", "$set_once", "$group_set", "$groups":
		return isEmptyArray(value)
	}
	return false
}

// FillObjects makes the properties for which IsEmptyArray is true empty objects. The properties are an object that has
// been scanned. FillObjects writes into their memory.
func FillObjects(properties []byte) {
	for m := jsonscan.MembersOf(properties); m.Next(); {
		if IsEmptyArray(m.Key, m.Value) {
			m.Value[0], m.Value[len(m.Value)-1] = '{', '}'
		}
	}
}
