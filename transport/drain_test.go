package transport

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// drain begins a stop that waits in its drain delay until end.
func (f *fixture) drain(t *testing.T) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- f.Stop(ctx) }()
	require.Eventually(t, f.draining.Load, patience, time.Millisecond)
	return func() {
		cancel()
		require.NoError(t, <-stopped)
	}
}

// A client that keeps its connections, and goes elsewhere when the service says so, loses no request over a stop.
func TestAStopFailsNoRequestOfAClientThatKeepsItsConnections(t *testing.T) {
	slow := func(c *Config) { c.DrainDelay = patience }
	old, young := serve(t, slow), serve(t, slow)
	var clients sync.WaitGroup
	began, toldToGo := make(chan struct{}, 12), make(chan struct{}, 12)
	halt := make(chan struct{})
	for range 12 {
		clients.Go(func() {
			at, fixture := (*connection)(nil), old
			for sent := 0; ; sent++ {
				select {
				case <-halt:
					return
				default:
				}
				if at == nil {
					conn, err := net.Dial("tcp", fixture.Addr().String())
					if !assert.NoError(t, err) {
						return
					}
					defer func() { _ = conn.Close() }()
					at = &connection{t: t, Conn: conn, answers: bufio.NewReader(conn)}
				}
				_, err := io.WriteString(at, request("POST", "/e/", "", event))
				if !assert.NoError(t, err) {
					return
				}
				response, err := http.ReadResponse(at.answers, nil)
				if !assert.NoError(t, err) || !assert.Equal(t, 200, response.StatusCode) {
					return
				}
				_, err = io.Copy(io.Discard, response.Body)
				assert.NoError(t, err)
				if sent == 0 {
					began <- struct{}{}
				}
				if response.Close && fixture == old {
					at, fixture = nil, young
					toldToGo <- struct{}{}
				}
			}
		})
	}
	for range 12 {
		<-began
	}
	end := old.drain(t)
	for range 12 {
		<-toldToGo
	}
	end()
	close(halt)
	clients.Wait()
	young.drain(t)()
}

// An idle connection stays open while the load balancer may still use it, and then ends in order: the client reads an
// end, not a reset.
func TestAnIdleConnectionServesItsLastRequestWhileTheServiceDrains(t *testing.T) {
	f := serve(t, func(c *Config) { c.DrainDelay = patience })
	used, unused, half := f.dial(t), f.dial(t), f.dial(t)
	used.requireUsable()
	unused.requireUsable()
	text := request("POST", "/e/", "", event)
	_, err := io.WriteString(half, text[:30])
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		f.connections.mu.Lock()
		defer f.connections.mu.Unlock()
		for conn := range f.connections.open {
			if conn.RemoteAddr().String() == half.LocalAddr().String() {
				conn.mu.Lock()
				defer conn.mu.Unlock()
				return !conn.isIdle && conn.reader != nil
			}
		}
		return false
	}, patience, time.Millisecond)
	end := f.drain(t)
	response, body := used.send("POST", text)
	require.Equal(t, 200, response.StatusCode, body)
	require.True(t, response.Close)
	used.requireEnd()
	fresh := f.dial(t)
	response, _ = fresh.send("GET", "GET /_readiness HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 503, response.StatusCode)
	require.True(t, response.Close)
	fresh.requireEnd()
	response, body = half.send("POST", text[30:])
	require.Equal(t, 200, response.StatusCode, body)
	require.True(t, response.Close, "a request that was on its way is answered")
	half.requireEnd()
	end()
	unused.requireEnd()
}

// requireEnd checks that the server has ended the connection in order.
func (c *connection) requireEnd() {
	c.t.Helper()
	_, err := c.answers.ReadByte()
	require.ErrorIs(c.t, err, io.EOF)
}

// A client that does not read while it sends gets the answer to a request that is refused early: the server hears it
// out before it closes the connection.
func TestAClientThatStillSendsReadsItsRefusal(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxBody = 1000 })
	for range 20 {
		c := f.dial(t)
		_, err := io.WriteString(c, "POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
		require.NoError(t, err)
		_, err = c.Write(make([]byte, 100_000))
		require.NoError(t, err)
		_, err = c.Write(make([]byte, 100_000))
		require.NoError(t, err)
		response, _ := c.answer("POST")
		require.Equal(t, 413, response.StatusCode)
		require.True(t, response.Close)
	}
}
