package project

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Origin is a site, as a browser names it in the header Origin: a scheme, a host, and a port unless the port is the
// scheme's own. It may stand for all sites below a host.
type Origin struct {
	// scheme and host are in lower case. host is in the form of DNS, with xn-- for letters that are not ASCII. port is
	// empty for the scheme's own.
	scheme, host, port string
	// below is set if the origin stands for the hosts below host, at any depth, and not for host itself.
	below bool
}

// opaque is what a browser sends for a page that belongs to no site, such as a file or a sandboxed frame.
const opaque = "null"

// ParseOrigin reads an origin: https://example.com, http://localhost:3000, capacitor://localhost,
// https://*.example.com for all hosts below example.com, or null for pages that belong to no site.
func ParseOrigin(text string) (Origin, error) {
	fault := func(format string, args ...any) (Origin, error) {
		return Origin{}, fmt.Errorf("must be a site such as https://example.com or https://*.example.com, got %s%s",
			shown(text), fmt.Sprintf(format, args...))
	}
	if text == opaque {
		return Origin{scheme: opaque}, nil
	}
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return fault(": the scheme is missing")
	}
	o := Origin{scheme: strings.ToLower(scheme)}
	if !isScheme(o.scheme) {
		return fault(": %s is no scheme", shown(scheme))
	}
	rest = strings.TrimSuffix(rest, "/")
	if strings.ContainsAny(rest, "/?#@\\") {
		return fault(": an origin has no path, query or user")
	}
	host, port, ok := splitPort(rest)
	if !ok {
		return fault(": the port must be a number from 1 to 65535")
	}
	if o.host, o.below = strings.CutPrefix(host, "*."); strings.Contains(o.host, "*") {
		return fault(": a * may only stand in front, as in *.example.com")
	}
	if strings.HasPrefix(o.host, "[") {
		address, err := netip.ParseAddr(strings.Trim(o.host, "[]"))
		if err != nil || !address.Is6() || address.Zone() != "" || o.below {
			return fault(": the host is no address")
		}
		o.host = "[" + address.String() + "]"
	} else {
		if o.host = toHost(o.host); o.host == "" {
			return fault(": the host is no name")
		}
	}
	if port != defaultPort(o.scheme) {
		o.port = port
	}
	return o, nil
}

// hosts writes names in the form of DNS. It takes names that browsers take, such as those with an underscore.
var hosts = idna.New(idna.MapForLookup(), idna.StrictDomainName(false), idna.BidiRule())

// toHost returns a name in the form of DNS, or "" for a text that is no name. Some texts that are no names have a form
// that is not itself a name.
func toHost(name string) string {
	host, err := hosts.ToASCII(name)
	if err != nil || host == "" || host[0] == '.' || strings.ContainsFunc(host, isNoHostLetter) {
		return ""
	}
	if again, err := hosts.ToASCII(host); err != nil || again != host {
		return ""
	}
	return host
}

// String writes the origin as ParseOrigin reads it.
func (o Origin) String() string {
	if o.scheme == opaque && o.host == "" {
		return opaque
	}
	text := o.scheme + "://"
	if o.below {
		text += "*."
	}
	text += o.host
	if o.port != "" {
		text += ":" + o.port
	}
	return text
}

// Matches reports whether a header Origin names the site, or one of the sites. Schemes and hosts are compared as URLs
// are: without regard to case, and a scheme's own port is as good as none. A header that no browser sends matches no
// site.
func (o *Origin) Matches(header string) bool {
	scheme, rest, found := strings.Cut(header, "://")
	if !found {
		return header == opaque && o.scheme == opaque && o.host == ""
	}
	host, port, ok := splitPort(rest)
	if !ok || !sameFolded(scheme, o.scheme) {
		return false
	}
	if port != o.port && (o.port != "" || port != defaultPort(o.scheme)) {
		return false
	}
	if !o.below {
		return sameFolded(host, o.host)
	}
	dot := len(host) - len(o.host) - 1
	return dot > 0 && host[dot] == '.' && sameFolded(host[dot+1:], o.host) &&
		!strings.ContainsFunc(host[:dot], isNoHostLetter)
}

// sameFolded compares schemes or hosts without regard to case. own is of ASCII. What Unicode folds into a letter of
// ASCII, such as the long s, is longer than the letter, so a text that has one is not as long.
func sameFolded(host, own string) bool { return len(host) == len(own) && strings.EqualFold(host, own) }

// splitPort splits a host from a port. The port is empty if there is none, and has no leading zero.
func splitPort(text string) (host, port string, ok bool) {
	at := strings.LastIndexByte(text, ':')
	if at < 0 || strings.HasSuffix(text, "]") {
		return text, "", true
	}
	host, port = text[:at], text[at+1:]
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' {
		return "", "", false
	}
	return host, port, true
}

func defaultPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return ""
}

// isScheme reports whether a text in lower case is the scheme of a URL.
func isScheme(text string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z':
		case i > 0 && ('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return text != ""
}

// isNoHostLetter reports whether the name of a host in the form of DNS cannot have the letter.
func isNoHostLetter(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '.', r == '_':
		return false
	}
	return true
}
