//go:build hostile && linux

package hostile

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// strangers has the service count the addresses of the loopback, as it counts those of the Internet.
var strangers = append([]string{"CAPTURE_TRANSPORT__TRUSTED_PROXIES=192.0.2.1"}, narrow...)

// However many connections one address has, and however slowly they send: the client at another address is served.
func TestOneClientCannotTakeItAll(t *testing.T) {
	const post = "POST /e/ HTTP/1.1\r\nHost: x\r\n"
	for name, text := range map[string]string{
		"slow-bodies": post + "Content-Length: 1000000\r\n\r\n" + strings.Repeat(" ", 900_000),
		"slow-chunks": post + "Transfer-Encoding: chunked\r\n\r\ne0000\r\n" + strings.Repeat(" ", 900_000),
		"slow-heads":  post + "X-Long: " + strings.Repeat("x", 60_000),
		"slow-fields": post + strings.Repeat("X: y\r\n", 500),
		"slow-starts": "",
	} {
		t.Run(name, func(t *testing.T) {
			a := attack{name: name, attackers: 719, answers: []int{
				http.StatusRequestTimeout, http.StatusServiceUnavailable,
			}}
			within := bounds{memory: budget + beside}
			besiege(t, start(t, strangers...), a, 3*time.Second, within, func(ctx context.Context, address string) int {
				return hold(ctx, address, text)
			})
		})
	}
}

// What is ambiguous is refused, however often it comes.
func TestNothingAmbiguousIsTaken(t *testing.T) {
	const post = "POST /e/ HTTP/1.1\r\nHost: x\r\n"
	const hidden = post + "Content-Length: 0\r\n\r\n"
	for name, text := range map[string]string{
		"two-lengths":      post + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + hidden,
		"length-and-chunk": post + "Content-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"bare-line-feeds":  post + "X: y\nContent-Length: 44\n\n" + hidden,
		"folded-length":    post + "X: y\r\n Content-Length: 44\r\n\r\n" + hidden,
	} {
		t.Run(name, func(t *testing.T) {
			a := attack{name: name, attackers: 16, answers: []int{http.StatusBadRequest}}
			within := bounds{memory: budget + beside}
			besiege(t, start(t, narrow...), a, time.Second, within, func(ctx context.Context, address string) int {
				return hold(ctx, address, text)
			})
		})
	}
}

// hold opens a connection from an address of its own, sends a text and waits for an answer, or for the end.
func hold(ctx context.Context, address, text string) (status int) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		<-time.After(pause)
		return unfinished
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() { _, _ = io.WriteString(conn, text) }()
	response, err := http.ReadResponse(bufio.NewReaderSize(conn, 512), nil)
	<-time.After(pause)
	if err != nil {
		return unfinished
	}
	_ = response.Body.Close()
	return response.StatusCode
}
