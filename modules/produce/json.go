package produce

import (
	"encoding/json"
	"unicode/utf8"
)

// JSONOf returns the value of a message as JSON, for programs that read what a command prints: the value itself if it
// is JSON, a string if it is other text, and nil if it is no text. JSON text is UTF-8, so JSON with other bytes in it
// is none. The result may share its memory with the value.
func JSONOf(value []byte) json.RawMessage {
	switch {
	case !utf8.Valid(value):
		return nil
	case json.Valid(value):
		return value
	}
	text, _ := json.Marshal(string(value)) // a string can always be marshalled
	return text
}
