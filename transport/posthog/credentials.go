package posthog

import (
	"net/url"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/route"
)

// The errors of a request without a token, by the kind of its Authorization header. Upstream's text stands alone where
// there is no such header. The errors are made once, so that such a request costs little.
var (
	errNoHeaderToken = noToken("; it must have the scheme Bearer and the project's API key")
	errNoHeadToken   = noToken(", and neither the body nor the query has a token")
)

func noToken(besides string) (errs [route.Schemes]*events.Error) {
	for scheme := range errs {
		text := "event submitted without an api_key"
		if scheme := route.Scheme(scheme); scheme != route.SchemeNone {
			text += ": " + scheme.String() + besides
		}
		errs[scheme] = events.Errorf(events.Unauthorized, "%s", text)
	}
	return errs
}

// BearerToken returns the project token of the Authorization header, after a check of the token's shape. If the header
// belongs to the site that the service is a part of, or has a word in the place of the token, the query may have it.
// The error of a request without a token says what the header is.
func BearerToken(request *route.Request) (string, *events.Error) {
	token, scheme := request.Authorization()
	switch scheme {
	case route.SchemeBasic, route.SchemeOther, route.SchemePlaceholder:
		token = QueryToken(request)
	}
	if token == "" {
		return "", errNoHeaderToken[scheme]
	}
	return Token(token)
}

// HeadToken returns the project token of the query or of the Authorization header, after a check of the token's shape.
// It is for protocols whose token may stand elsewhere than in the header. The query goes first: whoever writes a token
// there means this service, and the header may belong to the site that the service is a part of.
func HeadToken(request *route.Request) (string, *events.Error) {
	inQuery := QueryToken(request)
	inHeader, scheme := request.Authorization()
	if inQuery == "" && inHeader == "" {
		return "", errNoHeadToken[scheme]
	}
	token, fault := Token(inQuery)
	if fault != nil && inHeader != "" {
		token, fault = Token(inHeader)
	}
	return token, fault
}

// QueryToken returns the project token of the query, which is its parameter token or api_key; "" if it has none. The
// token's shape is not checked.
func QueryToken(request *route.Request) string {
	if request.RawQuery == "" {
		return ""
	}
	query, _ := url.ParseQuery(request.RawQuery) // a malformed parameter does not hide the others
	if token := query.Get("token"); token != "" {
		return token
	}
	return query.Get("api_key")
}
