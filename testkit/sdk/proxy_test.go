//go:build sdk

package sdk

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// fault is what the proxy does to a request instead of passing it on.
type fault int

const (
	noFault fault = iota
	// unavailable answers 503 with a Retry-After of a second, as an overloaded service does.
	unavailable
	// cut closes the connection without an answer.
	cut
	// lost passes the request on to the service and closes the connection in the place of the answer.
	lost
)

// proxy stands between an SDK and the service. The service sees nothing of the requests that get a fault, except lost.
type proxy struct {
	url string
	// faults holds what becomes of the first requests with events.
	faults []fault
	// loses says that every request with a body that was not there before gets the fault lost, unless the one before it
	// got it: a body may change when it is sent again.
	loses bool

	mu sync.Mutex
	// bodies are the digests of all bodies with events. losing is set if the latest request was lost. answers counts
	// what the service has answered to lost requests, by status.
	bodies  map[[sha256.Size]byte]bool
	losing  bool
	answers map[int]int
	// paths counts the requests with events by path, without the query and a slash at the end.
	paths map[string]int
	// ended counts the requests with events that have come to their end.
	ended int
	// refused counts what the service has answered with an error, by method, path and status.
	refused map[string]int
}

// endedPath is where a driver asks for how many of its requests with events have come to their end.
const endedPath = "/e2e/ended"

// newProxy starts a proxy and ends it when the test ends.
func newProxy(t *testing.T, target string, loses bool, faults ...fault) *proxy {
	to, err := url.Parse(target)
	require.NoError(t, err)
	p := &proxy{
		faults: faults, loses: loses, paths: map[string]int{}, refused: map[string]int{},
		bodies: map[[sha256.Size]byte]bool{}, answers: map[int]int{},
	}
	forward := &httputil.ReverseProxy{
		// The service sees the SDK's own host and no further hop.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(answer *http.Response) error {
			if answer.StatusCode >= http.StatusBadRequest {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.refused[answer.Request.Method+" "+trimmed(answer.Request.URL)+": "+answer.Status]++
			}
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == endedPath {
			p.mu.Lock()
			defer p.mu.Unlock()
			_, _ = fmt.Fprint(w, p.ended)
			return
		}
		if bringsEvents(r) {
			defer p.end()
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		switch p.next(r, body) {
		case noFault:
			forward.ServeHTTP(w, r)
		case unavailable:
			// A browser reads an answer only if it may.
			if origin := r.Header.Get("Origin"); origin != "" {
				w.Header().Set("Access-Control-Allow-Origin", origin)
				w.Header().Set("Access-Control-Allow-Credentials", "true")
				w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
			}
			w.Header().Set("Retry-After", "1")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":"service_unavailable","error_description":"the proxy `+
				`plays an overloaded service"}`)
		case cut:
			panic(http.ErrAbortHandler)
		case lost:
			answer := httptest.NewRecorder()
			forward.ServeHTTP(answer, r)
			p.mu.Lock()
			p.answers[answer.Code]++
			p.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// trimmed is the path without the slash that some SDKs put at its end.
func trimmed(u *url.URL) string { return strings.TrimSuffix(u.Path, "/") }

// bringsEvents reports whether a request has events, other than recordings.
func bringsEvents(r *http.Request) bool {
	switch trimmed(r.URL) {
	case "/batch", "/e", "/i/v0/e", "/capture", "/track", "/engage", "/i/v0/ai/batch",
		"/i/v1/analytics/events", "/i/v1/ai/events":
		return r.Method != http.MethodOptions
	}
	return false
}

// end counts a request that has come to its end.
func (p *proxy) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended++
}

// next counts the request and takes the fault that waits for it.
func (p *proxy) next(r *http.Request, body []byte) fault {
	if !bringsEvents(r) {
		return noFault
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths[trimmed(r.URL)]++
	if digest := sha256.Sum256(body); p.loses {
		p.losing = !p.losing && !p.bodies[digest]
		p.bodies[digest] = true
		if p.losing {
			return lost
		}
	}
	if len(p.faults) == 0 {
		return noFault
	}
	first := p.faults[0]
	p.faults = p.faults[1:]
	return first
}
