package transport

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/transport/memory"
)

const (
	// connBuffer is the buffer in bytes that an idle connection holds. A larger head takes more memory as it comes.
	connBuffer = 4 << 10

	// lastWords is how long a stop waits for a request that is on its way to an idle connection.
	lastWords = 100 * time.Millisecond

	// parting is how long the server listens to a client that still sends after its last answer. If the server closed
	// the connection at once, the client's kernel might throw the answer away.
	parting = 500 * time.Millisecond
)

// conn is one client's connection. It answers one request after the other.
type conn struct {
	net.Conn
	server *Server
	reader *bufio.Reader
	body   stream
	caller netip.Addr // for whom the connection is counted

	mu        sync.Mutex
	isIdle    bool
	isLeaving bool // the service stops: what comes within lastWords is the last
}

// serve answers requests until the connection ends.
func (c *conn) serve() {
	for isFirst := true; c.await(isFirst); isFirst = false {
		if !c.answer() {
			return
		}
	}
}

// await waits for the first byte of a request. It returns false if none comes.
func (c *conn) await(isFirst bool) bool {
	if c.reader.Buffered() > 0 {
		return true
	}
	terms := c.server.terms.Now()
	timeout := terms.IdleTimeout
	if isFirst {
		timeout = terms.HeaderTimeout
	}
	c.mu.Lock()
	if c.isLeaving {
		timeout = min(timeout, lastWords)
	}
	c.isIdle = true
	_ = c.SetReadDeadline(time.Now().Add(timeout))
	c.mu.Unlock()
	_, err := c.reader.Peek(1)
	c.mu.Lock()
	c.isIdle = false
	c.mu.Unlock()
	return err == nil
}

// leave has an idle connection end, and any other connection after its answer.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isLeaving = true
	if c.isIdle {
		_ = c.SetReadDeadline(time.Now().Add(lastWords))
	}
}

// Read implements io.Reader for the connection's buffer. While a body comes, its pace holds.
func (c *conn) Read(p []byte) (int, error) {
	pace := &c.body.pace
	if pace.end.IsZero() {
		return c.Conn.Read(p)
	}
	_ = c.SetReadDeadline(pace.deadline())
	n, err := c.Conn.Read(p)
	pace.came(n, time.Now())
	return n, err
}

// answer reads one request and answers it. It returns whether another may follow.
func (c *conn) answer() (goesOn bool) {
	s := c.server
	terms := s.terms.Now()
	ctx, _ := s.contexts.Get().(*fasthttp.RequestCtx)
	_ = c.SetReadDeadline(time.Now().Add(terms.HeaderTimeout))
	head := head{
		reader: c.reader, header: &ctx.Request.Header, limit: int(terms.MaxHeader), lease: s.budget.Lease(),
		part: share{shares: s.shares, address: c.caller, most: terms.share(int64(terms.MaxInFlight))},
	}
	defer head.lease.Release()
	defer head.part.release()
	fault := head.parse()
	// The context's time is when the head was there.
	ctx.Init2(c, nil, false)
	if fault == nil && len(ctx.URI().PathOriginal()) == 0 {
		// fasthttp reads no path behind a host that is none.
		fault = errHost
	}
	c.body = stream{
		conn: c, reader: c.reader, left: max(0, head.length), isChunked: head.length == unknownLength,
		done: fault == nil && head.length == 0, waits: head.waits, room: maxUnread,
		pace: pace{timeout: terms.BodyTimeout, grace: terms.BodyGrace, rate: int64(terms.MinBodyRate)},
	}
	if fault == nil && head.length != 0 {
		ctx.Request.SetBodyStream(&c.body, int(head.length))
	}
	switch {
	case fault != nil:
		s.refuseHead(ctx, fault, terms)
	case !slices.Contains(fiber.DefaultMethods, string(ctx.Method())):
		// Fiber would answer by itself, so that no page could read it.
		s.refuseHead(ctx, errMethod, terms)
	default:
		s.contain(ctx, s.handler)
	}
	goesOn = fault == nil && !head.closing && !ctx.Response.ConnectionClose() && !s.draining.Load() && c.body.isShort()
	if !goesOn {
		ctx.Response.SetConnectionClose()
	} else if head.old {
		ctx.Response.Header.Set(fiber.HeaderConnection, "keep-alive")
	}
	ctx.Response.SkipBody = ctx.IsHead()
	sent := c.send(&ctx.Response, terms.WriteTimeout)
	goesOn = sent && goesOn && c.body.rest()
	if sent && !goesOn {
		c.part()
	}
	c.body.pace = pace{}
	// A context keeps its memory. What was large is left to the garbage collector: nothing counts it any more.
	isSmall := head.lease.Held() == 0 && (ctx.Response.IsBodyStream() || len(ctx.Response.Body()) <= memory.Small)
	ctx.Request.Reset()
	ctx.Response.Reset()
	if isSmall {
		s.contexts.Put(ctx)
	}
	return goesOn
}

// send writes an answer.
func (c *conn) send(answer *fasthttp.Response, timeout time.Duration) bool {
	_ = c.SetWriteDeadline(time.Now().Add(timeout))
	w, _ := c.server.writers.Get().(*bufio.Writer)
	w.Reset(c.Conn)
	err := answer.Write(w)
	if err == nil {
		err = w.Flush()
	}
	w.Reset(nil)
	c.server.writers.Put(w)
	return err == nil
}

// part ends a connection so that the client can read the last answer: it hears out what the client still sends.
func (c *conn) part() {
	if !c.body.done || c.reader.Buffered() > 0 {
		hearOut(c.Conn)
	}
}

// hearOut tells a client that no further answer comes, and reads past what the client still sends, for parting at most.
func hearOut(client net.Conn) {
	half, ok := client.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = client.SetReadDeadline(time.Now().Add(parting))
	_, _ = io.CopyN(io.Discard, client, maxUnread)
}

// contain answers 500 where a handler panics outside a route: what a route does is contained by observe.
func (s *Server) contain(ctx *fasthttp.RequestCtx, handler fasthttp.RequestHandler) {
	defer func() {
		if caught := panics.Caught(recover()); caught != nil {
			panics.Log(s.log, "request", caught, zap.ByteString("path", bytes.Clone(ctx.Path())))
			ctx.Error("internal server error", http.StatusInternalServerError)
			allowOrigin(ctx)
		}
	}()
	handler(ctx)
}

// refuseHead answers a request that no handler sees. Where the origin is unknown, it may be in the part that nobody has
// read: then the answer is for every page that sends no credentials.
func (s *Server) refuseHead(ctx *fasthttp.RequestCtx, fault *fault, terms *terms) {
	allowOrigin(ctx)
	if len(ctx.Response.Header.Peek(fiber.HeaderAccessControlAllowOrigin)) == 0 {
		ctx.Response.Header.Set(fiber.HeaderAccessControlAllowOrigin, "*")
	}
	if fault.status == http.StatusServiceUnavailable {
		ctx.Response.Header.Set(fiber.HeaderRetryAfter, seconds(terms.RetryAfter))
	}
	ctx.Response.SetStatusCode(fault.status)
	ctx.Response.Header.SetContentType(fiber.MIMETextPlainCharsetUTF8)
	ctx.Response.SetBodyString(fault.text)
	s.metrics.unrouted.count(fault.status)
	client, _ := netip.AddrFromSlice(ctx.RemoteIP())
	s.refusals.add(refused{status: fault.status}, "", fault.text, "", client.Unmap()) // its path may be unread
}
