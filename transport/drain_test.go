package transport

import (
	"context"
	"fmt"
	"io"
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

// keeper is a client that keeps its connection, and goes from the old server to the young one when it is told that the
// connection ends. It counts no request as failed that it could not have known to send elsewhere.
type keeper struct {
	old, young *fixture
	began      func() // after the first answer
	moved      func()
}

// run sends one request after the other until halt. The first that fails ends it.
func (k *keeper) run(t *testing.T, halt <-chan struct{}) error {
	at, conn := k.old, k.old.dial(t)
	for sent := 0; ; sent++ {
		select {
		case <-halt:
			return nil
		default:
		}
		if _, err := io.WriteString(conn, request("POST", "/e/", "", event)); err != nil {
			return err
		}
		response, err := http.ReadResponse(conn.answers, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d: %w", response.StatusCode, err)
		}
		if sent == 0 {
			k.began()
		}
		if response.Close && at == k.old {
			at, conn = k.young, k.young.dial(t)
			k.moved()
		}
	}
}

// A client that keeps its connections, and goes elsewhere when the service says so, loses no request over a stop.
func TestAStopFailsNoRequestOfAClientThatKeepsItsConnections(t *testing.T) {
	const count = 12
	patient := func(c *Config) { c.DrainDelay = patience }
	old, young := serve(t, patient), serve(t, patient)
	var clients, began, moved sync.WaitGroup
	began.Add(count)
	moved.Add(count)
	halt := make(chan struct{})
	for range count {
		k := &keeper{old: old, young: young, began: sync.OnceFunc(began.Done), moved: sync.OnceFunc(moved.Done)}
		clients.Go(func() {
			defer k.began()
			defer k.moved()
			assert.NoError(t, k.run(t, halt))
		})
	}
	began.Wait()
	end := old.drain(t)
	moved.Wait()
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

// A request may be answered in the moment in which a stop begins, so that its answer promises that the connection goes
// on. The connection then ends as an idle one.
func TestAConnectionThatIsBusyWhenAStopBeginsDoesNotGoOn(t *testing.T) {
	f := serve(t, func(c *Config) { c.IdleTimeout = patience })
	c := f.dial(t)
	text := request("POST", "/e/", "", event)
	_, err := io.WriteString(c, text[:30])
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		f.connections.mu.Lock()
		defer f.connections.mu.Unlock()
		for conn := range f.connections.open {
			conn.leave()
			conn.mu.Lock()
			defer conn.mu.Unlock()
			return !conn.isIdle
		}
		return false
	}, patience, time.Millisecond)
	response, body := c.send("POST", text[30:])
	require.Equal(t, 200, response.StatusCode, body)
	require.False(t, response.Close)
	begin := time.Now()
	c.requireEnd()
	require.Less(t, time.Since(begin), patience/2)
}

// A stop does not wait longer than it may for a request that is still on its way. It cuts off the connection, which is
// no fault: nothing was promised on it.
func TestAStopCutsOffARequestThatDoesNotCome(t *testing.T) {
	f := serve(t, func(c *Config) { c.StopTimeout = 50 * time.Millisecond })
	c := f.dial(t)
	c.requireUsable()
	_, err := io.WriteString(c, "POST /e/ HT")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !f.anyIdle() }, patience, time.Millisecond)
	require.NoError(t, f.Stop(context.Background()))
	c.requireClosed()
}

// anyIdle reports whether a connection waits for a request.
func (f *fixture) anyIdle() bool {
	f.connections.mu.Lock()
	defer f.connections.mu.Unlock()
	for conn := range f.connections.open {
		conn.mu.Lock()
		isIdle := conn.isIdle
		conn.mu.Unlock()
		if isIdle {
			return true
		}
	}
	return false
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

// A client that still sends when its head was refused reads the refusal, too.
func TestAClientThatStillSendsItsHeadReadsItsRefusal(t *testing.T) {
	f := serve(t, nil)
	for _, head := range []string{"GET / HTTP/1.1\r\nHost: x\r\nNo Name: x\r\n", "GET  / HTTP/1.1\r\n", "A\n"} {
		c := f.dial(t)
		_, err := io.WriteString(c, head)
		require.NoError(t, err)
		c.requireHeardOut(http.StatusBadRequest)
	}
}

// A client that is turned away because there are too many connections reads why, although it has sent its request.
func TestAClientThatIsTurnedAwayReadsWhy(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxConnections = 1 })
	f.dial(t).requireUsable()
	for range 20 {
		f.dial(t).requireHeardOut(http.StatusServiceUnavailable)
	}
	require.Eventually(t, func() bool { return f.turnedAway.Load() == 0 }, patience, time.Millisecond)
}

// Clients that are turned away in great numbers are not heard out: their connections would be as many as those that
// are served.
func TestNoMoreThanSomeClientsAreHeardOut(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxConnections = 1 })
	f.dial(t).requireUsable()
	f.turnedAway.Store(maxTurnedAway)
	c := f.dial(t)
	response, _ := c.answer("POST")
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	c.requireClosed()
	require.EqualValues(t, maxTurnedAway, f.turnedAway.Load())
}

// requireHeardOut waits for an answer, sends more in spite of it, and then reads the answer.
func (c *connection) requireHeardOut(status int) {
	c.t.Helper()
	_, err := c.answers.Peek(1)
	require.NoError(c.t, err)
	for range 2 {
		_, err := c.Write(make([]byte, 10_000))
		require.NoError(c.t, err)
	}
	response, _ := c.answer("POST")
	require.Equal(c.t, status, response.StatusCode)
	require.True(c.t, response.Close)
	c.requireEnd()
}
