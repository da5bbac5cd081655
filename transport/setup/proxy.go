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
	// maxAnswerHeader is the largest head of an answer, in bytes.
	maxAnswerHeader = 64 << 10
	// maxStatus is the largest status that an answer can have (RFC 9110, 15).
	maxStatus = 599
	// firstBuffer is the size in bytes of the first buffer for an answer of unknown length.
	firstBuffer = 16 << 10
	// maxIdle is how many connections to the upstream are kept between requests.
	maxIdle = 64
	// logEvery is the least time between two log lines of a failing upstream.
	logEvery = time.Minute
)

// Proxy passes on to a PostHog host what this service does not serve itself: the set-up calls, the scripts of SDKs, and
// whatever else SDKs ask their host for. It lets through what it knows, and nothing else:
//
//   - The methods are GET, HEAD and POST. A request with GET or HEAD has no body.
//   - The path goes through as it is. A path with a segment . or .. is not found.
//   - The query is written anew, so that every reader of it finds the same names and values.
//   - Of the request's headers the proxy passes on those in passedOn. So cookies stay here, and nobody can tell the
//     upstream another path, method or client address than the proxy does.
//   - X-Forwarded-For, -Proto and -Host say who the client is. The address is the one that this service believes
//     (transport.trusted_proxies). The protocol is the one that such a proxy names, else http.
//   - Of the answer's headers the proxy passes back those in passedBack. So the upstream can neither set cookies nor
//     say anything about this host as a whole. CORS headers and the request id are this server's own.
//   - A redirect goes to the client. If it leads to the upstream, it leads to the same path of this host.
//
// If the upstream cannot be reached, does not answer in time, or gives an answer that is none, the client is answered
// 502 with Retry-After. If there is no memory for the answer, the client is answered 503. Proxy is safe for concurrent
// use.
type Proxy struct {
	upstream  *url.URL
	timeout   time.Duration
	transport *http.Transport
	budget    *memory.Budget
	log       *zap.Logger
}

// NewProxy returns a proxy to the upstream, a URL of scheme, host and perhaps a path. timeout is how long the upstream
// may take to give its whole answer. An answer counts against the budget until it is written.
func NewProxy(upstream string, timeout time.Duration, budget *memory.Budget, log *zap.Logger) (*Proxy, error) {
	host, err := url.Parse(strings.TrimSuffix(upstream, "/"))
	if err != nil {
		return nil, errors.New("transport.upstream is no URL") // the error of url.Parse would show a password
	}
	return &Proxy{
		upstream: host,
		timeout:  timeout,
		transport: &http.Transport{
			Proxy:                  proxyFromEnvironment,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxAnswerHeader,
			MaxIdleConns:           maxIdle,
			MaxIdleConnsPerHost:    maxIdle,
			IdleConnTimeout:        time.Minute,
		},
		budget: budget,
		log: log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, logEvery, 1, 0)
		})),
	}, nil
}

// proxyFromEnvironment is http.ProxyFromEnvironment with an error that does not show the password of the proxy.
func proxyFromEnvironment(request *http.Request) (*url.URL, error) {
	proxy, err := http.ProxyFromEnvironment(request)
	if err != nil {
		return nil, errors.New("the proxy that HTTP_PROXY or HTTPS_PROXY names has no valid URL")
	}
	return proxy, nil
}

// Close closes the connections that no request uses.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }

// Routes returns the route of everything that is passed on.
func (p *Proxy) Routes() []route.Route {
	return []route.Route{{
		Group: route.Setup, Path: route.Rest, Methods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
		Handle: p.Forward,
	}}
}

var (
	errUnreachable = errors.New("the upstream did not answer")
	errStatus      = errors.New("the upstream's answer has a status that is none")
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
	// The stream after a change of protocols (101) has no end, and no timeout reaches it.
	if answer.StatusCode < http.StatusOK || answer.StatusCode > maxStatus {
		return p.fail(errStatus, fmt.Errorf("%w: %d", errStatus, answer.StatusCode))
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
			Status: answer.StatusCode, ContentType: answer.Header.Get("Content-Type"), Header: p.passBack(answer),
		}
	}
	return route.Response{
		Status: answer.StatusCode, ContentType: cmp.Or(answer.Header.Get("Content-Type"), "application/octet-stream"),
		Bytes: body, Done: lease.Release, Header: p.passBack(answer),
	}
}

// fail answers that the upstream is to blame. The client reads told; cause is for the log alone.
func (p *Proxy) fail(told, cause error) route.Response {
	p.log.Warn("transport.upstream fails", zap.Error(cause))
	return route.Response{Status: http.StatusBadGateway, ContentType: route.TypeText, Body: told.Error(), Retry: true}
}

// outgoing makes the request to the upstream. A path that leads elsewhere than it seems to is an error.
func (p *Proxy) outgoing(ctx context.Context, request *route.Request) (*http.Request, error) {
	target := p.upstream.String() + request.Path
	if request.RawQuery != "" {
		target += "?" + rewrite(request.RawQuery)
	}
	var body io.Reader
	if request.Method == http.MethodPost {
		body = bytes.NewReader(bytes.Clone(request.Body))
	}
	outgoing, err := http.NewRequestWithContext(ctx, request.Method, target, body)
	if err != nil {
		return nil, err
	}
	if climbs(outgoing.URL) {
		return nil, errors.New("a path with dots in the place of a segment")
	}
	header, scheme := passOn(request), "http"
	if request.Secure {
		scheme = "https"
	}
	header.Set("X-Forwarded-Proto", scheme)
	header.Set("X-Forwarded-For", request.ClientIP)
	if host := request.Get("Host"); isFieldValue(host) {
		header.Set("X-Forwarded-Host", host)
	}
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", "") // Else the transport would name itself.
	}
	outgoing.Header = header
	return outgoing, nil
}

// climbs reports whether a path has a segment . or .., by which it could reach a path that must not be passed on. Some
// servers read no further than to a semicolon of a segment.
func climbs(u *url.URL) bool {
	return slices.ContainsFunc(strings.FieldsFunc(u.Path, func(c rune) bool { return c == '/' || c == '\\' }),
		func(segment string) bool {
			segment, _, _ = strings.Cut(segment, ";")
			return segment == "." || segment == ".."
		})
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
