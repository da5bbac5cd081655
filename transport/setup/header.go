package setup

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/opencapture/capture/transport/route"
)

// passedOn are the headers of a request that the upstream is told. They are those that browsers and SDKs send and a
// PostHog host reads. A list of what must not pass would never be complete: each provider, proxy and framework has
// names of its own for the client's address, another path or another method. A name that ends in - stands for all names
// that begin with it.
var passedOn = newNames(
	"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Pragma", "User-Agent", "Dnt",
	"If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Range",
	"Origin", "Referer", "X-Requested-With", "Sec-Ch-", "Sec-Fetch-", "Sec-Gpc",
	"Baggage", "Traceparent", "Tracestate",
	"Posthog-", "X-Posthog-", "X-Conversations-Token",
)

// ofBody are the headers that the upstream is told of a request that has a body.
var ofBody = newNames("Content-Encoding", "Content-Language", "Content-Type")

// passedBack are the headers of an answer that the client is told. The content type goes with the body, and so does the
// length. What is not here concerns one connection, speaks for the upstream's host as a whole, where here it would
// speak for this host (Set-Cookie, Strict-Transport-Security, Service-Worker-Allowed), or is an order to a proxy in
// front of this service (X-Accel-Redirect).
var passedBack = newNames(
	"Accept-Ranges", "Age", "Cache-Control", "Content-Range", "Etag", "Expires", "Last-Modified", "Vary",
	"Content-Disposition", "Content-Encoding", "Content-Language",
	"Content-Security-Policy", "Cross-Origin-Resource-Policy", "Referrer-Policy", "X-Content-Type-Options",
	"X-Frame-Options",
	"Allow", "Retry-After", "Www-Authenticate", "Sourcemap", "X-Sourcemap", "Timing-Allow-Origin",
	"Posthog-", "X-Posthog-",
)

// names is a set of names of headers, in the form of http.CanonicalHeaderKey.
type names struct {
	whole    map[string]bool
	prefixes []string
}

func newNames(list ...string) names {
	n := names{whole: map[string]bool{}}
	for _, name := range list {
		if strings.HasSuffix(name, "-") {
			n.prefixes = append(n.prefixes, name)
		} else {
			n.whole[name] = true
		}
	}
	return n
}

func (n names) has(name string) bool {
	return n.whole[name] || slices.ContainsFunc(n.prefixes, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// passOn returns the headers of a request that the upstream is told. It leaves out the headers that Connection names
// (RFC 9110, 7.6.1), and values that no header may have.
func passOn(request *route.Request) http.Header {
	header := http.Header{}
	if request.Header == nil {
		return header
	}
	var connection []string
	request.Header.VisitAll(func(key, value []byte) {
		name := http.CanonicalHeaderKey(string(key))
		switch {
		case name == "Connection":
			connection = append(connection, string(value))
		case !isFieldValue(string(value)):
		case passedOn.has(name), request.Method == http.MethodPost && ofBody.has(name):
			header.Add(name, string(value))
		}
	})
	removeHops(header, connection)
	return header
}

// passBack returns the headers of an answer that the client is told. Only an answer to HEAD, which has no body, has its
// length among them.
func (p *Proxy) passBack(answer *http.Response) []route.Field {
	var fields []route.Field
	if answer.Request.Method == http.MethodHead && answer.ContentLength >= 0 {
		fields = append(fields, route.Field{Name: "Content-Length", Value: strconv.FormatInt(answer.ContentLength, 10)})
	}
	removeHops(answer.Header, answer.Header.Values("Connection"))
	for name, values := range answer.Header {
		if !passedBack.has(name) {
			continue
		}
		for _, value := range values {
			fields = append(fields, route.Field{Name: name, Value: value})
		}
	}
	if location := answer.Header.Get("Location"); location != "" {
		fields = append(fields, route.Field{Name: "Location", Value: p.locate(answer.Request.URL, location)})
	}
	return fields
}

// locate returns where an answer sends the client. A place of the upstream becomes the same place of this host.
func (p *Proxy) locate(asked *url.URL, location string) string {
	to, err := asked.Parse(location)
	if err != nil || to.Scheme != p.upstream.Scheme || to.Host != p.upstream.Host {
		return location
	}
	path, inside := strings.CutPrefix(to.EscapedPath(), p.upstream.EscapedPath())
	if !inside || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		return location
	}
	if to.RawQuery != "" {
		path += "?" + to.RawQuery
	}
	if to.Fragment != "" {
		path += "#" + to.EscapedFragment()
	}
	return path
}

// removeHops removes the headers that the fields of Connection name.
func removeHops(header http.Header, connection []string) {
	for _, list := range connection {
		for name := range strings.SplitSeq(list, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
}

// isFieldValue reports whether a header may have the value (RFC 9110, 5.5).
func isFieldValue(value string) bool {
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// rewrite writes a query anew, with every name and value escaped. Readers differ in what they make of a semicolon, a
// percent sign that escapes nothing, or a byte that should be escaped. Here a semicolon is a part of a value, and such
// a percent sign stands for itself, as browsers have it (URL Standard, application/x-www-form-urlencoded). The pairs
// keep their order.
func rewrite(query string) string {
	var out strings.Builder
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		if out.Len() > 0 {
			out.WriteByte('&')
		}
		name, value, valued := strings.Cut(pair, "=")
		out.WriteString(url.QueryEscape(unescape(name)))
		if valued {
			out.WriteByte('=')
			out.WriteString(url.QueryEscape(unescape(value)))
		}
	}
	return out.String()
}

// unescape returns the text of a name or value of a query.
func unescape(text string) string {
	if !strings.ContainsAny(text, "%+") {
		return text
	}
	plain := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '+':
			plain = append(plain, ' ')
		case c == '%' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]):
			plain = append(plain, fromHex(text[i+1])<<4|fromHex(text[i+2]))
			i += 2
		default:
			plain = append(plain, c)
		}
	}
	return string(plain)
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

func fromHex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
