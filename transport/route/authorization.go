package route

import (
	"net/url"
	"strings"
)

// Scheme says what kind of Authorization header a request has. Its text names the kind and quotes nothing of the
// header, so it may stand in an answer.
type Scheme uint8

// The kinds of Authorization headers.
const (
	// SchemeNone: there is no header.
	SchemeNone Scheme = iota
	// SchemeBearer: the scheme is Bearer, and a token follows.
	SchemeBearer
	// SchemeBare: the header is one word without a scheme, which may be a token.
	SchemeBare
	// SchemeEmpty: the scheme is Bearer, and nothing follows.
	SchemeEmpty
	// SchemeBasic: the scheme is Basic. The header belongs to the site that the service is a part of.
	SchemeBasic
	// SchemeOther: the scheme is another one.
	SchemeOther
	// SchemePlaceholder: a word such as undefined, which a program writes for a value that is missing, stands in the
	// place of the token.
	SchemePlaceholder

	// Schemes is how many kinds there are.
	Schemes
)

// String says what the header is, as in "the Authorization header has the scheme Basic".
func (s Scheme) String() string {
	switch s {
	case SchemeNone:
		return "the Authorization header is missing"
	case SchemeBearer:
		return "the Authorization header has the scheme Bearer"
	case SchemeBare:
		return "the Authorization header has no scheme"
	case SchemeEmpty:
		return "the Authorization header has the scheme Bearer, but no token"
	case SchemeBasic:
		return "the Authorization header has the scheme Basic"
	case SchemePlaceholder:
		return "the Authorization header or X-Api-Key has undefined, null or the like in the place of the token"
	default:
		return "the Authorization header has a scheme other than Bearer"
	}
}

// Authorization returns the token of the Authorization header, or else that of the header X-Api-Key, and the kind of
// the Authorization header; SchemeBearer if the token is from X-Api-Key. The token's shape is not checked; without a
// token it is "". The header is read in the spellings that occur: Bearer in any case or more than once, %20, a plus or
// a colon behind it, the token alone, quotes around either, and the credentials of another scheme before or behind it.
func (r *Request) Authorization() (token string, scheme Scheme) {
	token, scheme = authorization(r.Get("Authorization"))
	if token != "" {
		return token, scheme
	}
	switch key := unquote(r.Get("X-Api-Key")); {
	case key == "":
		return "", scheme
	case isPlaceholder(key):
		return "", SchemePlaceholder
	default:
		return key, SchemeBearer
	}
}

// authorization returns the token and the kind of an Authorization header.
func authorization(header string) (token string, scheme Scheme) {
	value := unquote(header)
	if strings.IndexByte(value, '%') >= 0 {
		if plain, err := url.PathUnescape(value); err == nil {
			value = unquote(plain)
		}
	}
	if value == "" {
		return "", SchemeNone
	}
	for first := true; value != ""; first = false {
		var credentials string
		credentials, value = nextCredentials(value)
		if found, kind := credential(credentials); found != "" || first {
			token, scheme = found, kind
		}
		if token != "" {
			return token, scheme
		}
	}
	return "", scheme
}

// nextCredentials cuts a value in front of a second scheme: a word and a space behind a comma. A token may hold commas.
func nextCredentials(value string) (first, rest string) {
	for from := 0; ; {
		comma := strings.IndexByte(value[from:], ',')
		if comma < 0 {
			return value, ""
		}
		comma += from
		behind := strings.TrimLeft(value[comma+1:], " \t")
		word, _, several := strings.Cut(behind, " ")
		if several && isWord(word) {
			return unquote(value[:comma]), unquote(behind)
		}
		from = comma + 1
	}
}

// isWord reports whether a text has letters only.
func isWord(text string) bool {
	for i := range len(text) {
		if c := text[i] | 0x20; c < 'a' || c > 'z' {
			return false
		}
	}
	return text != ""
}

// credential returns the token and the kind of what one scheme says.
func credential(value string) (token string, scheme Scheme) {
	if rest, ok := cutBearer(value); ok {
		for ok {
			value = unquote(rest)
			rest, ok = cutBearer(value)
		}
		switch {
		case value == "":
			return "", SchemeEmpty
		case isPlaceholder(value):
			return "", SchemePlaceholder
		}
		return value, SchemeBearer
	}
	word, _, several := strings.Cut(value, " ")
	switch {
	case strings.EqualFold(word, "Basic"):
		return "", SchemeBasic
	case several:
		return "", SchemeOther
	case isPlaceholder(value):
		return "", SchemePlaceholder
	default:
		return value, SchemeBare
	}
}

// isPlaceholder reports whether a text is what programs write for a value that is missing.
func isPlaceholder(text string) bool {
	switch len(text) {
	case len("nil"), len("null"), len("undefined"), len("[object Object]"):
		return strings.EqualFold(text, "undefined") || strings.EqualFold(text, "null") ||
			strings.EqualFold(text, "none") || strings.EqualFold(text, "nil") || text == "[object Object]"
	}
	return false
}

// cutBearer takes the scheme Bearer off the beginning of a value, with what separates it from the token.
func cutBearer(value string) (rest string, ok bool) {
	const bearer = "Bearer"
	if len(value) < len(bearer) || !strings.EqualFold(value[:len(bearer)], bearer) {
		return value, false
	}
	rest = strings.TrimLeft(value[len(bearer):], " \t+:")
	return rest, rest == "" || len(rest) < len(value)-len(bearer)
}

// unquote takes white space, and quotes if there are any, off both ends of a value.
func unquote(value string) string { return strings.Trim(value, " \t\r\n\"'") }
