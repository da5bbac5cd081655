package events

import (
	"strings"
	"unicode/utf8"
)

// MaxToken is the longest token of a project, in bytes.
const MaxToken = 64

// CheckToken returns a project's token without surrounding white space, or the fault of a bad one as a word of the
// protocol: empty, too_long, not_ascii, personal_api_key or null_byte.
func CheckToken(text string) (token, fault string) {
	token = strings.TrimSpace(text)
	switch {
	case token == "":
		return "", "empty"
	case len(token) > MaxToken:
		return "", "too_long"
	}
	for i := range len(token) {
		if token[i] >= utf8.RuneSelf {
			return "", "not_ascii"
		}
	}
	switch {
	case strings.HasPrefix(token, "phx_"):
		return "", "personal_api_key"
	case strings.IndexByte(token, 0) >= 0:
		return "", "null_byte"
	}
	return token, ""
}
