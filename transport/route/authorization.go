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
	default:
		return "the Authorization header has a scheme other than Bearer"
	}
}

// Authorization returns the token of the Authorization header and the kind of the header. The token's shape is not
// checked; without a token it is "". The header is read in the spellings that occur: Bearer in any case or more than
// once, %20, a plus or a colon behind it, the token alone, and quotes around either.
func (r *Request) Authorization() (token string, scheme Scheme) {
	value := unquote(r.Get("Authorization"))
	if strings.IndexByte(value, '%') >= 0 {
		if plain, err := url.PathUnescape(value); err == nil {
			value = unquote(plain)
		}
	}
	if value == "" {
		return "", SchemeNone
	}
	if rest, ok := cutBearer(value); ok {
		for ok {
			value = unquote(rest)
			rest, ok = cutBearer(value)
		}
		if value == "" {
			return "", SchemeEmpty
		}
		return value, SchemeBearer
	}
	word, _, several := strings.Cut(value, " ")
	switch {
	case strings.EqualFold(word, "Basic"):
		return "", SchemeBasic
	case several:
		return "", SchemeOther
	default:
		return value, SchemeBare
	}
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
