//go:build hostile && linux

package hostile

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The upstream gets the requests that clients made, and no other: none is hidden in a body or in a line, and no header
// says that it was another path, another method or another client.
func TestNothingIsSmuggledToTheUpstream(t *testing.T) {
	const forged = "X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\n" +
		"X_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nCF-Connecting-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n" +
		"True-Client-IP: 6.6.6.6\r\nUpgrade: websocket\r\nConnection: X-Forwarded-For, close\r\nCookie: owned=1\r\n"
	const hidden = "DELETE /admin HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, text := range map[string]string{
		"proxy/headers": "GET /static/array.js HTTP/1.1\r\nHost: x\r\n" + forged + "\r\n",
		"proxy/body": fmt.Sprintf("GET /static/array.js HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s",
			len(hidden), hidden),
		"proxy/query": "GET /static/array.js?a=%0d%0a%0d%0aDELETE%20/admin;b=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"proxy/dots":  "GET /static/..%2f..%2fadmin HTTP/1.1\r\nHost: x\r\n\r\n",
		"proxy/post": fmt.Sprintf("POST /api/unknown HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+
			"%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden),
	} {
		t.Run(name, func(t *testing.T) {
			upstream := newUpstream(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			a := attack{name: name, attackers: 16, answers: []int{http.StatusOK, http.StatusNotFound}}
			if name != "proxy/dots" {
				a.until = upstream.asked
			}
			within := bounds{memory: budget + beside}
			service := start(t, append(narrow, "CAPTURE_TRANSPORT__UPSTREAM=http://"+upstream.address)...)
			besiege(t, service, a, time.Second, within, func(ctx context.Context, address string) int {
				return hold(ctx, address, text)
			})
			for _, head := range upstream.heads() {
				line, rest, _ := strings.Cut(head, "\r\n")
				assert.Regexp(t, `^(GET /static/array\.js|POST /api/unknown)(\?\S*)? HTTP/1\.1$`, line)
				assert.NotContains(t, line, ";")
				assert.NotRegexp(t, `(?i)6\.6\.6\.6|owned|websocket|override|original|rewrite|/admin`, rest)
				if strings.HasPrefix(line, http.MethodGet) {
					assert.NotRegexp(t, `(?im)^(content-length|transfer-encoding):`, rest)
				}
			}
		})
	}
}

// Whatever the upstream answers, a client gets an answer that is one, and the good client is served.
func TestAnUpstreamThatMisbehavesHurtsNobody(t *testing.T) {
	for name, answer := range map[string]string{
		"upstream/switch":  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
		"upstream/status":  "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
		"upstream/head":    "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"upstream/endless": "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + strings.Repeat("x", 1<<20),
		"upstream/broken":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx",
		"upstream/silent":  "",
	} {
		t.Run(name, func(t *testing.T) {
			upstream := newUpstream(t, answer)
			a := attack{
				name: name, attackers: 64, answers: []int{http.StatusBadGateway, http.StatusServiceUnavailable},
				until: upstream.asked,
			}
			within := bounds{memory: budget + beside}
			service := start(t, append(narrow, "CAPTURE_TRANSPORT__UPSTREAM=http://"+upstream.address,
				"CAPTURE_TRANSPORT__UPSTREAM_TIMEOUT=500ms")...)
			besiege(t, service, a, 2*time.Second, within, func(ctx context.Context, address string) int {
				return hold(ctx, address, "GET /static/array.js HTTP/1.1\r\nHost: x\r\n\r\n")
			})
		})
	}
}

// upstream is a host that reads heads as they stand on the wire, and gives every request the same answer.
type upstream struct {
	address string
	answer  string

	mu  sync.Mutex
	all []string
}

// newUpstream starts an upstream, which ends with the test. It reads no more of a connection than one request after the
// other, so a request that was hidden in another one shows as a head of its own.
func newUpstream(t *testing.T, answer string) *upstream {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	u := &upstream{address: listener.Addr().String(), answer: answer}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go u.serve(t.Context(), conn)
		}
	}()
	return u
}

func (u *upstream) serve(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	reader := bufio.NewReader(conn)
	for {
		head, err := readHead(reader)
		if err != nil {
			return
		}
		u.mu.Lock()
		u.all = append(u.all, head)
		u.mu.Unlock()
		request, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head), reader)))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, request.Body)
		if u.answer == "" {
			<-ctx.Done()
			return
		}
		if _, err := io.WriteString(conn, u.answer); err != nil || !strings.HasSuffix(u.answer, "ok") {
			return
		}
	}
}

// readHead reads up to the empty line that ends a head.
func readHead(reader *bufio.Reader) (string, error) {
	var head bytes.Buffer
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return "", err
		}
		head.WriteString(line)
		if line == "\r\n" {
			return head.String(), nil
		}
	}
}

// asked reports whether there was a request.
func (u *upstream) asked() bool { return len(u.heads()) > 0 }

// heads returns the heads of all requests so far.
func (u *upstream) heads() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.all...)
}
