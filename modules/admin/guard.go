package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/endpoint"
)

// refusal is the status and the reason of a refused request.
type refusal struct {
	status int
	reason string
}

func (r *refusal) write(w http.ResponseWriter) {
	if r.status == http.StatusUnauthorized {
		w.Header().Add("WWW-Authenticate", `Bearer realm="capture"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="capture"`)
	}
	api.Problemf(r.status, "%s", r.reason).Write(w)
}

// guardAccess returns a handler that passes on the requests that may use the endpoint and refuses all others.
func guardAccess(e endpoint.Endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cfg := r.Context().Value(judgedBy{}).(Config) // what front put there
		if refused := cfg.refuse(e.Access, r); refused != nil {
			refused.write(w)
			return
		}
		e.Handler.ServeHTTP(w, r.WithContext(endpoint.WithCaller(r.Context(), cfg.caller(e.Access, r))))
	})
}

// caller returns who has sent a request that may use an endpoint with this access.
func (c Config) caller(access endpoint.Access, r *http.Request) endpoint.Caller {
	caller := endpoint.Caller{Address: r.RemoteAddr}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		caller.Address = peer.Addr().String()
	}
	switch {
	case access == endpoint.Anyone:
		caller.Login = "none"
	case c.Token != "":
		caller.Login = "admin.token"
	case access == endpoint.Operator:
		caller.Login = "loopback"
	default:
		caller.Login = "none"
	}
	name, _, _ := r.BasicAuth()
	if name == "" {
		name = r.Header.Get(endpoint.ActorHeader)
	}
	caller.Name = strings.ToValidUTF8(name[:min(len(name), endpoint.MaxName)], "")
	return caller
}

// answersTo reports whether a request with this Host is for the listener. An address or localhost is always accepted,
// since neither is a name that somebody else can point at the listener (DNS rebinding).
func (c Config) answersTo(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	name = canonical(name)
	for _, own := range c.Hosts {
		if name == canonical(own) {
			return true
		}
	}
	return name == "localhost"
}

// canonical removes the differences that do not matter in a name: its case, and the dot that ends a full name.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// crossOrigin detects the requests that another site makes a browser send.
var crossOrigin = http.NewCrossOriginProtection()

// refuse returns the reason why the request may not use an endpoint with this access, or nil.
func (c Config) refuse(access endpoint.Access, r *http.Request) *refusal {
	if err := checkOrigin(access, r); err != nil {
		return &refusal{http.StatusForbidden, fmt.Sprintf("another site must not have a browser do this: %s", err)}
	}
	switch {
	case access == endpoint.Anyone:
		return nil
	case c.Token != "" && !sameSecret(shownToken(r), c.Token.Reveal()):
		return &refusal{http.StatusUnauthorized,
			"show admin.token: as \"Authorization: Bearer TOKEN\", or as the password of basic authentication"}
	case c.Token == "" && access == endpoint.Operator && !fromLoopback(r):
		return &refusal{http.StatusForbidden,
			"without admin.token this works from loopback only: ask from this machine, or set a token"}
	}
	return nil
}

// checkOrigin returns an error for a request that another site makes a browser send and that may change or cost
// something. On an endpoint for operators that is every request, on the others it depends on the method.
func checkOrigin(access endpoint.Access, r *http.Request) error {
	if access != endpoint.Operator && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return nil
	}
	judged := *r
	judged.Method = http.MethodPost
	if err := crossOrigin.Check(&judged); err != nil {
		return err
	}
	// Over plain HTTP a browser sends neither Origin nor Sec-Fetch-Site with a GET, but usually the page that links
	// to it.
	if page, err := url.Parse(r.Header.Get("Referer")); err != nil || page.Host != "" && page.Host != r.Host {
		return errors.New("the Referer is a page of another site")
	}
	return nil
}

// shownToken returns the token that the request shows, or "".
func shownToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	_, password, _ := r.BasicAuth()
	return password
}

// sameSecret compares the texts in a time that depends neither on where they differ nor on how long they are.
func sameSecret(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// fromLoopback reports whether the connection is from this machine. It ignores the headers.
func fromLoopback(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().IsLoopback()
}
