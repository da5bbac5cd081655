package setup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

const (
	// maxAnswer is the largest answer that is passed on, in bytes. The scripts of SDKs have a few hundred kilobytes.
	maxAnswer = 32 << 20
	// firstBuffer is the size in bytes of the first buffer for an answer of unknown length.
	firstBuffer = 16 << 10
	// maxIdle is how many connections to the upstream are kept between requests.
	maxIdle = 64
	// logEvery is the least time between two log lines of a failing upstream.
	logEvery = time.Minute
)

// Proxy passes the set-up calls, and the calls for the scripts of SDKs, on to a PostHog host. Requests and answers go
// through as they are, with their encodings, entity tags and redirects. The exceptions are the headers that concern a
// single connection, and these:
//
//   - A request's cookies stay here. If this service shares a site with an application, the cookies are that
//     application's, and no call of an SDK needs them. Authorization, which SDKs do need, is passed on.
//   - Only X-Forwarded-For, -Proto and -Host say who the client is. The address is the one that this service believes
//     (transport.trusted_proxies). The protocol is the one that a proxy in front of this service names, else http.
//   - An answer's CORS headers and request id are this server's own. Headers that speak for the upstream's host as a
//     whole, such as its cookies and its Strict-Transport-Security, are left out: here they would speak for this host.
//
// If the upstream cannot be reached, or does not answer in time, the client is answered 502 with Retry-After. If there
// is no memory for the answer, the client is answered 503. Proxy is safe for concurrent use.
type Proxy struct {
	upstream  string
	timeout   time.Duration
	transport *http.Transport
	budget    *memory.Budget
	log       *zap.Logger
}

// NewProxy returns a proxy to the upstream, a URL of scheme, host and perhaps a path. timeout is how long the upstream
// may take to give its whole answer. An answer counts against the budget until it is written.
func NewProxy(upstream string, timeout time.Duration, budget *memory.Budget, log *zap.Logger) *Proxy {
	return &Proxy{
		upstream: strings.TrimSuffix(upstream, "/"),
		timeout:  timeout,
		transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DisableCompression:  true,
			MaxIdleConns:        maxIdle,
			MaxIdleConnsPerHost: maxIdle,
			IdleConnTimeout:     time.Minute,
		},
		budget: budget,
		log: log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, logEvery, 1, 0)
		})),
	}
}

// Close closes the connections that no request uses.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }

// Routes returns the routes of the paths that are passed on.
func (p *Proxy) Routes() []route.Route {
	get, both := []string{http.MethodGet, http.MethodHead}, []string{http.MethodGet, http.MethodHead, http.MethodPost}
	var routes []route.Route
	for _, passed := range []struct {
		path    string
		methods []string
	}{
		{"/flags", both},
		{"/decide", both},
		{"/array/*", get},
		{"/flags/definitions", get},
		{"/api/feature_flag/local_evaluation", get},
		{"/api/surveys", get},
		{"/static/*", get},
	} {
		routes = append(routes, route.Route{
			Group: route.Setup, Path: passed.path, Methods: passed.methods,
			MaxBody: route.Fixed(maxBody), Handle: p.Forward,
		})
	}
	return routes
}

var (
	errUnreachable = errors.New("the upstream did not answer")
	errSwitched    = errors.New("the upstream changed protocols, which nobody had asked it to")
	errHuge        = fmt.Errorf("the upstream's answer exceeds %d bytes", maxAnswer)
)

// Forward passes a request on to the upstream, and the upstream's answer back.
func (p *Proxy) Forward(ctx context.Context, request *route.Request) route.Response {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	// The body is copied, because the transport may still be sending it when the answer is there.
	sent := p.budget.Lease()
	if !sent.Reserve(int64(len(request.Body))) {
		return route.Refusal(memory.ErrSpent)
	}
	defer sent.Release()
	outgoing, err := p.outgoing(ctx, request)
	if err != nil {
		return route.Response{Status: http.StatusNotFound, ContentType: route.TypeText, Body: "not found"}
	}

	answer, err := p.transport.RoundTrip(outgoing)
	if err != nil {
		return p.fail(errUnreachable, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode == http.StatusSwitchingProtocols {
		return p.fail(errUnreachable, errSwitched)
	}
	body, lease, err := p.read(answer)
	switch {
	case errors.Is(err, memory.ErrSpent):
		return route.Refusal(memory.ErrSpent)
	case errors.Is(err, errHuge):
		return p.fail(errHuge, err)
	case err != nil:
		return p.fail(errUnreachable, err)
	}
	if len(body) == 0 {
		lease.Release()
		return route.Response{
			Status: answer.StatusCode, ContentType: answer.Header.Get("Content-Type"), Header: passedBack(answer),
		}
	}
	return route.Response{
		Status: answer.StatusCode, ContentType: cmp.Or(answer.Header.Get("Content-Type"), "application/octet-stream"),
		Bytes: body, Done: lease.Release, Header: passedBack(answer),
	}
}

// fail answers that the upstream is to blame. The client reads told; cause is for the log alone.
func (p *Proxy) fail(told, cause error) route.Response {
	p.log.Warn("transport.upstream fails", zap.Error(cause))
	return route.Response{Status: http.StatusBadGateway, ContentType: route.TypeText, Body: told.Error(), Retry: true}
}

// outgoing makes the request to the upstream. A path that leads elsewhere than it seems to is an error.
func (p *Proxy) outgoing(ctx context.Context, request *route.Request) (*http.Request, error) {
	target := p.upstream + request.Path
	if request.RawQuery != "" {
		target += "?" + request.RawQuery
	}
	outgoing, err := http.NewRequestWithContext(ctx, request.Method, target, bytes.NewReader(bytes.Clone(request.Body)))
	if err != nil {
		return nil, err
	}
	if climbs(outgoing.URL) {
		return nil, errors.New("a path with dots in the place of a segment")
	}

	header := outgoing.Header
	if request.Header != nil {
		request.Header.VisitAll(func(name, value []byte) { header.Add(string(name), string(value)) })
	}
	removeHops(header)
	for _, name := range []string{"Host", "Content-Length", "Expect", "Cookie", "Forwarded", "X-Real-Ip"} {
		header.Del(name)
	}
	scheme := header.Get("X-Forwarded-Proto")
	if scheme != "https" {
		scheme = "http"
	}
	header.Set("X-Forwarded-Proto", scheme)
	header.Set("X-Forwarded-For", request.ClientIP)
	header.Set("X-Forwarded-Host", request.Get("Host"))
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", "") // Else the transport would name itself.
	}
	return outgoing, nil
}

// climbs reports whether a path has a segment . or .., by which it could reach a path that must not be passed on.
func climbs(u *url.URL) bool {
	return slices.ContainsFunc(strings.FieldsFunc(u.Path, func(c rune) bool { return c == '/' || c == '\\' }),
		func(segment string) bool { return segment == "." || segment == ".." })
}

// read reads an answer's body. The lease holds the body's capacity; if read returns an error, the lease is empty.
func (p *Proxy) read(answer *http.Response) (body []byte, lease memory.Lease, err error) {
	lease = p.budget.Lease()
	defer func() {
		if err != nil {
			lease.Release()
		}
	}()
	if answer.Body == http.NoBody { // An answer to HEAD has no body, whatever length it names.
		return nil, lease, nil
	}
	if answer.ContentLength > maxAnswer {
		return nil, lease, errHuge
	}
	size := int64(firstBuffer)
	if answer.ContentLength >= 0 {
		size = answer.ContentLength + 1 // With one byte more, Read sees the end.
	}
	for {
		if len(body) == cap(body) {
			if !lease.Raise(size) {
				return body, lease, memory.ErrSpent
			}
			larger := make([]byte, len(body), size)
			copy(larger, body)
			body, size = larger, min(2*size, maxAnswer+1)
		}
		n, err := answer.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > maxAnswer:
			return body, lease, errHuge
		case errors.Is(err, io.EOF):
			return body, lease, nil
		case err != nil:
			return body, lease, err
		}
	}
}

// passedBack returns the headers of an answer that are for the client. The content type goes with the body, and so does
// the length. Only an answer to HEAD, which has no body, has its length among the headers.
func passedBack(answer *http.Response) []route.Field {
	header := answer.Header.Clone()
	removeHops(header)
	for _, name := range []string{
		"Content-Length", "Content-Type", "Date", "X-Request-Id",
		"Alt-Svc", "Clear-Site-Data", "Nel", "Report-To", "Set-Cookie", "Strict-Transport-Security",
	} {
		header.Del(name)
	}
	var fields []route.Field
	if answer.Request.Method == http.MethodHead && answer.ContentLength >= 0 {
		fields = append(fields, route.Field{Name: "Content-Length", Value: strconv.FormatInt(answer.ContentLength, 10)})
	}
	for name, values := range header {
		if strings.HasPrefix(name, "Access-Control-") {
			continue
		}
		for _, value := range values {
			fields = append(fields, route.Field{Name: name, Value: value})
		}
	}
	return fields
}

// removeHops removes the headers that concern a single connection (RFC 9110, 7.6.1), and the headers that Connection
// names.
func removeHops(header http.Header) {
	for _, list := range header.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{
		"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade",
	} {
		header.Del(name)
	}
}
