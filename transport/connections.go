package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// connections are those that are open. They are safe for concurrent use.
type connections struct {
	mu      sync.Mutex
	open    map[*conn]struct{}
	leaving bool
	left    chan struct{} // closed when the service stops and the last connection has ended
	end     func()        // closes left
}

func newConnections() *connections {
	left := make(chan struct{})
	return &connections{open: map[*conn]struct{}{}, left: left, end: sync.OnceFunc(func() { close(left) })}
}

// add takes a connection in, unless there are most already.
func (c *connections) add(conn *conn, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= most || c.leaving {
		return false
	}
	c.open[conn] = struct{}{}
	return true
}

func (c *connections) remove(conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
	if c.leaving && len(c.open) == 0 {
		c.end()
	}
}

// leave waits until every connection has answered its request and has ended, or until ctx is over. It returns how many
// are still open.
func (c *connections) leave(ctx context.Context) (open int, err error) {
	c.mu.Lock()
	c.leaving = true
	for conn := range c.open {
		conn.leave()
	}
	if len(c.open) == 0 {
		c.end()
	}
	c.mu.Unlock()
	select {
	case <-c.left:
		return 0, nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open), ctx.Err()
}

// cut ends the connections that are left.
func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		_ = conn.Close()
	}
}

func newContexts() *sync.Pool { return &sync.Pool{New: func() any { return new(fasthttp.RequestCtx) }} }

func newReaders() *sync.Pool {
	return &sync.Pool{New: func() any { return bufio.NewReaderSize(nil, connBuffer) }}
}

func newWriters() *sync.Pool {
	return &sync.Pool{New: func() any { return bufio.NewWriterSize(nil, connBuffer) }}
}

// acceptFrom serves every new connection until the listener is closed. Where the process has no file left for a
// connection, acceptFrom waits and tries again: the connections that are open go on.
func (s *Server) acceptFrom(listener net.Listener) error {
	const longest = time.Second
	pause := time.Duration(0)
	for {
		accepted, err := listener.Accept()
		switch {
		case err == nil:
			pause = 0
			s.take(accepted)
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			pause = min(max(2*pause, 5*time.Millisecond), longest)
			s.log.Warn("a connection could not be accepted", zap.Error(err), zap.Duration("next_try", pause))
			select {
			case <-time.After(pause):
			case <-s.stopping.Done():
			}
		}
	}
}

// take serves a connection, or refuses it if there are too many of them or of its address.
func (s *Server) take(accepted net.Conn) {
	terms := s.terms.Now()
	c := &conn{Conn: accepted, server: s}
	if peer, err := netip.ParseAddrPort(accepted.RemoteAddr().String()); err == nil {
		c.caller = terms.counted(peer.Addr().Unmap())
	}
	if !s.shares.connect(c.caller, int(terms.share(int64(terms.MaxConnections)))) {
		s.turnAway(accepted, terms)
		return
	}
	if !s.connections.add(c, terms.MaxConnections) {
		s.shares.disconnect(c.caller)
		s.turnAway(accepted, terms)
		return
	}
	panics.Go(s.log, "a connection", func() {
		defer s.connections.remove(c)
		defer s.shares.disconnect(c.caller)
		defer func() { _ = c.Close() }()
		c.reader, _ = s.readers.Get().(*bufio.Reader)
		c.reader.Reset(c)
		c.serve()
		c.reader.Reset(nil)
		s.readers.Put(c.reader)
	})
}

// maxTurnedAway is how many clients that are turned away the server hears out at once. Beyond it, it closes their
// connections at once.
const maxTurnedAway = 256

// turnAway answers before the client has asked. The answer fits the kernel's buffer, so the write does not wait. Nobody
// has read who asks, so the answer is for every origin. Most clients send their request before they read, and they get
// the answer because the server hears them out.
func (s *Server) turnAway(accepted net.Conn, terms *terms) {
	const text = "service unavailable: too many open connections"
	s.metrics.unrouted.count(http.StatusServiceUnavailable)
	client, _ := netip.ParseAddrPort(accepted.RemoteAddr().String())
	s.refusals.add(refused{status: http.StatusServiceUnavailable}, "", text, "", client.Addr().Unmap())
	_ = accepted.SetWriteDeadline(time.Now().Add(lastWords))
	_, _ = fmt.Fprintf(accepted, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Access-Control-Allow-Origin: *\r\nRetry-After: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		seconds(terms.RetryAfter), len(text), text)
	if s.turnedAway.Add(1) > maxTurnedAway {
		s.turnedAway.Add(-1)
		_ = accepted.Close()
		return
	}
	panics.Go(s.log, "a client that is turned away", func() {
		defer s.turnedAway.Add(-1)
		defer func() { _ = accepted.Close() }()
		hearOut(accepted)
	})
}
