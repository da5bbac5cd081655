package transport

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

// dialFrom connects from an address of the loopback.
func (f *fixture) dialFrom(t *testing.T, address string) *connection {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.Dial("tcp", f.Addr().String())
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = conn.Close() })
	return &connection{t: t, Conn: conn, answers: bufio.NewReader(conn)}
}

// stall announces a body and sends a part of it.
func (c *connection) stall(headers string, announced, sent int) {
	_, err := fmt.Fprintf(c, "POST /e/ HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", headers, announced,
		strings.Repeat(" ", sent))
	require.NoError(c.t, err)
}

func TestABodyKeepsAPace(t *testing.T) {
	start := time.Now()
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	p := pace{timeout: time.Minute, grace: 10 * time.Second, rate: 1000, end: at(60), due: at(10)}
	require.Equal(t, at(10), p.deadline(), "at first it may send nothing for the grace")
	p.came(2000, at(5))
	require.Equal(t, at(12), p.deadline(), "two seconds' worth")
	p.came(1_000_000, at(6))
	require.Equal(t, at(16), p.deadline(), "much at once makes up for no more than the grace")
	for second := 7; second < 60; second++ {
		p.came(1000, at(float64(second)))
	}
	require.Equal(t, at(60), p.deadline(), "at the rate, the timeout is what ends it")

	none := pace{timeout: time.Minute, grace: time.Second, end: at(60), due: at(1)}
	none.came(1, at(50))
	require.Equal(t, at(60), none.deadline(), "without a rate, too")
}

// A client that sends much at once and then drips holds what it sent no longer than the grace.
func TestABodyThatIsTooSlowIsA408(t *testing.T) {
	f := serve(t, func(c *Config) { c.MinBodyRate, c.BodyGrace = configs.GiB, 50*time.Millisecond })
	c := f.dial(t)
	c.stall(origin, 1_000_000, 800_000)
	response, body := c.answer("POST")
	require.Equal(t, 408, response.StatusCode)
	require.Equal(t, "client stopped sending data", body)
	requireCORS(t, response, "https://shop.example")
	c.requireClosed()
	require.Zero(t, f.budget.InUse())

	slow := serve(t, func(c *Config) { c.MinBodyRate, c.BodyGrace = 1, patience }).dial(t)
	for _, part := range strings.SplitAfter(request("POST", "/e/", "", event), ",") {
		_, err := io.WriteString(slow, part)
		require.NoError(t, err)
	}
	response, body = slow.answer("POST")
	require.Equal(t, 200, response.StatusCode, body)
}

// The pace is that of a body. An idle connection, and the next request on it, have nothing to do with it.
func TestAnIdleConnectionIsNotHeldToThePaceOfABody(t *testing.T) {
	f := serve(t, func(c *Config) { c.BodyGrace = time.Nanosecond })
	c := f.dial(t)
	for range 3 {
		c.requireUsable() // The body is there when the server begins to read it.
	}
}

// The time that a head may take begins with its first byte, however long the connection was idle.
func TestAHeadOnAConnectionThatWasIdleHasItsTime(t *testing.T) {
	f, set := serveLive(t)
	c := f.dial(t)
	c.requireUsable()
	set("  idle_timeout: 1h\n  header_timeout: 20ms\n")
	c.requireUsable()
	response, _ := c.send("POST", "POST /e/ HTTP/1.1\r\nHost: x\r\n")
	require.Equal(t, 408, response.StatusCode)
	require.True(t, response.Close)
	c.requireEnd()
}

// smallBudget gives a server a budget of 8 MiB.
func smallBudget(c *Config) {
	c.MaxBody, c.MaxDecoded, c.PostHog.MaxRecording = configs.MiB, configs.MiB, configs.MiB
	c.MaxInFlight = 8 * configs.MiB
}

// The last quarter of the budget is for small requests. Large ones from however many addresses leave it alone.
func TestLargeRequestsLeaveRoomForSmallOnes(t *testing.T) {
	f := serve(t, smallBudget)
	for range 50 {
		f.dial(t).stall("", 1_000_000, 700_000)
	}
	// The large ones have taken all that they may have when one of them is refused.
	require.Eventually(t, func() bool {
		response, _ := f.dial(t).send("POST", request("POST", "/e/", "", event+strings.Repeat(" ", 900_000)))
		return response.StatusCode == 503
	}, patience, time.Millisecond)
	require.LessOrEqual(t, f.budget.InUse(), int64(6<<20))
	for range 20 {
		f.dial(t).requireUsable()
	}
}

// An address has its share of the budget. What one client holds back shuts out nobody else, also not the senders of
// large requests.
func TestOneAddressCannotHoldTheBudget(t *testing.T) {
	f := serve(t, func(c *Config) { smallBudget(c); c.TrustedProxies = configs.List{} })
	slow := make([]*connection, 100)
	for i := range slow {
		slow[i] = f.dialFrom(t, "127.0.0.9")
		slow[i].stall(origin, 1_000_000, 700_000)
	}
	var refused *connection
	for _, c := range slow[2:] {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		if _, err := c.answers.Peek(1); err == nil {
			refused = c
			break
		}
	}
	require.NotNil(t, refused, "some of them are refused")
	require.NoError(t, refused.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(refused, strings.Repeat(" ", 300_000))
	require.NoError(t, err)
	response, body := refused.answer("POST")
	require.Equal(t, 503, response.StatusCode)
	require.Equal(t, "service unavailable: too much is being received from your address at once", body)
	require.NotEmpty(t, response.Header.Get("Retry-After"))
	requireCORS(t, response, "https://shop.example")
	require.LessOrEqual(t, f.budget.InUse(), int64(4<<20), "its quarter, of which a buffer may be the double")

	good := f.dialFrom(t, "127.0.0.8")
	for range 20 {
		good.requireUsable()
		response, body = good.send("POST", request("POST", "/e/", "", event+strings.Repeat(" ", 900_000)))
		require.Equal(t, 200, response.StatusCode, body)
	}
	for _, c := range slow {
		require.NoError(t, c.Close())
	}
	require.Eventually(t, func() bool {
		f.shares.mu.Lock()
		defer f.shares.mu.Unlock()
		return len(f.shares.of) == 1 && f.shares.of[netip.MustParseAddr("127.0.0.8")] == holding{connections: 1}
	}, patience, time.Millisecond, "what has ended is no longer counted")
}

// Heads that do not end count for their address, too.
func TestOneAddressCannotHoldTheBudgetWithHeads(t *testing.T) {
	f := serve(t, func(c *Config) { smallBudget(c); c.TrustedProxies = configs.List{} })
	require.Eventually(t, func() bool {
		c := f.dialFrom(t, "127.0.0.9")
		_, err := io.WriteString(c, "POST /e/ HTTP/1.1\r\n"+strings.Repeat("X: y\r\n", 500))
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
		if _, err := c.answers.Peek(1); err != nil {
			return false
		}
		response, body := c.answer("POST")
		return response.StatusCode == 503 && body == errShare.Error()
	}, patience, time.Millisecond)
	require.LessOrEqual(t, f.budget.InUse(), int64(2<<20))
	f.dialFrom(t, "127.0.0.8").requireUsable()
}

// Behind a trusted proxy each client has a share of its own. A proxy that names no client is counted for nobody.
func TestTheShareIsTheClientsAndNotTheProxys(t *testing.T) {
	f := serve(t, func(c *Config) { smallBudget(c); c.MaxConnections, c.MaxAddressShare = 40, 0.15 })
	large := event + strings.Repeat(" ", 900_000)
	full := func(headers string) func() bool {
		return func() bool {
			response, body := f.dial(t).send("POST", request("POST", "/e/", headers, large))
			return response.StatusCode == 503 && strings.Contains(body, "your address")
		}
	}
	forwarded := "X-Forwarded-For: 2001:db8::%x\r\n"
	for i := range 3 {
		f.dial(t).stall(fmt.Sprintf(forwarded, i), 1_000_000, 500_000)
	}
	require.Eventually(t, full(fmt.Sprintf(forwarded, 99)), patience, time.Millisecond,
		"the addresses of a network of IPv6 are one client")
	require.False(t, full("X-Forwarded-For: 2001:db8:0:1::1\r\n")())
	require.False(t, full("")(), "more than six connections of the proxy are open")
}

// An address has its share of the connections, too.
func TestOneAddressCannotHoldTheConnections(t *testing.T) {
	f := serve(t, func(c *Config) {
		c.TrustedProxies, c.MaxConnections, c.MaxAddressShare = configs.List{}, 8, 0.5
	})
	held := make([]*connection, 4)
	for i := range held {
		held[i] = f.dialFrom(t, "127.0.0.9")
		held[i].requireUsable()
	}
	requireTurnedAway := func(address string) {
		c := f.dialFrom(t, address)
		response, body := c.answer("POST")
		require.Equal(t, 503, response.StatusCode)
		require.Equal(t, "service unavailable: too many open connections", body)
		require.Equal(t, "5", response.Header.Get("Retry-After"))
		require.Equal(t, "*", response.Header.Get("Access-Control-Allow-Origin"))
		require.True(t, response.Close)
		c.requireClosed()
	}
	requireTurnedAway("127.0.0.9")
	others := make([]*connection, 4)
	for i := range others {
		others[i] = f.dialFrom(t, fmt.Sprintf("127.0.0.%d", 10+i))
		others[i].requireUsable()
	}
	for range 5 { // as often as makes no difference: what was refused is not held
		requireTurnedAway("127.0.0.8")
	}
	f.shares.mu.Lock()
	refused := f.shares.of[netip.MustParseAddr("127.0.0.8")]
	f.shares.mu.Unlock()
	require.Zero(t, refused)
	require.NoError(t, held[0].Close())
	require.Eventually(t, func() bool {
		c := f.dialFrom(t, "127.0.0.9")
		_, err := io.WriteString(c, request("POST", "/e/", "", event))
		if err != nil {
			return false
		}
		line, err := c.answers.ReadString('\n')
		return err == nil && line == "HTTP/1.1 200 OK\r\n"
	}, patience, time.Millisecond, "a connection that has ended makes room")
}

func TestSharesHoldUnderConcurrentUse(t *testing.T) {
	s := newShares()
	address := netip.MustParseAddr("192.0.2.1")
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for range 1000 {
				part := share{shares: s, address: address, most: 100}
				assert.True(t, part.raise(0))
				part.raise(30)
				part.raise(60)
				part.release()
				part.release()
			}
		})
	}
	users.Wait()
	require.Empty(t, s.of)
	nobody := share{shares: s, most: 1}
	require.True(t, nobody.raise(1<<40), "nobody has no share")
	nobody.release()
	require.Empty(t, s.of)
}

// crowded is a listener of a process that has no files left for a while.
type crowded struct {
	net.Listener
	failures int
}

func (c *crowded) Accept() (net.Conn, error) {
	if c.failures > 0 {
		c.failures--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return c.Listener.Accept()
}

// A process that has no files left refuses new connections for a while; it does not end.
func TestAListenerThatCannotAcceptTriesAgain(t *testing.T) {
	f := serve(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- f.acceptFrom(&crowded{Listener: listener, failures: 3}) }()
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	c := &connection{t: t, Conn: conn, answers: bufio.NewReader(conn)}
	c.requireUsable()
	require.NoError(t, c.Close())
	require.NoError(t, listener.Close())
	require.ErrorIs(t, <-ended, net.ErrClosed)
}
