package transport

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

// odd sends something on a connection of its own that may be a sound request, or several of them, or a part of one, and
// leaves in one way or another.
func odd(address string, random *rand.Rand) {
	size := fmt.Sprintf("%x", len(event))
	texts := []string{
		request("POST", "/e/", origin, event),
		strings.Repeat(request("POST", "/e/", "", event), 5),
		"POST /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + size + "\r\n" + event +
			"\r\n0\r\nA: b\r\n\r\n",
		request("POST", "/e/", "X-Long: "+strings.Repeat("x", 30_000)+"\r\n", event+strings.Repeat(" ", 100_000)),
		"POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + strings.Repeat(" ", 100_000),
		"POST /e/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n",
		"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
		"\x16\x03\x01\n",
	}
	from := fmt.Sprintf("127.0.0.%d", 2+random.IntN(5))
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	text := texts[random.IntN(len(texts))]
	if random.IntN(2) == 0 {
		text = text[:random.IntN(len(text)+1)]
	}
	_ = conn.SetDeadline(time.Now().Add(time.Duration(random.IntN(20)) * time.Millisecond))
	_, _ = io.WriteString(conn, text)
	switch tcp, _ := conn.(*net.TCPConn); random.IntN(3) {
	case 0:
		_ = tcp.SetLinger(0) // a reset
	case 1:
		_ = tcp.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	case 2:
		_, _ = conn.Read(make([]byte, 100))
	}
}

// Whatever clients send, and however they leave: nothing is held for them afterwards.
func TestNothingIsHeldForClientsThatHaveLeft(t *testing.T) {
	f := serve(t, func(c *Config) {
		smallBudget(c)
		c.TrustedProxies, c.MaxConnections, c.MaxAddressShare = configs.List{}, 16, 0.5
		c.MaxHeader = 16 * configs.KiB
	})
	var clients sync.WaitGroup
	for i := range 24 {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		clients.Go(func() {
			for range 50 {
				odd(f.Addr().String(), random)
			}
		})
	}
	clients.Wait()
	require.Eventually(t, func() bool {
		f.connections.mu.Lock()
		defer f.connections.mu.Unlock()
		f.shares.mu.Lock()
		defer f.shares.mu.Unlock()
		return len(f.connections.open) == 0 && len(f.shares.of) == 0 && f.budget.InUse() == 0 &&
			f.turnedAway.Load() == 0 && f.inFlight.Load() == 0
	}, patience, time.Millisecond)
	f.dial(t).requireUsable()
}
