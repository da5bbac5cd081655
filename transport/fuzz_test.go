package transport

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"
)

// oneEnd is a connection on which the bytes of a text come, so many at a time.
type oneEnd struct {
	net.Conn
	rest []byte
	each int
}

func (o *oneEnd) Read(p []byte) (int, error) {
	if len(o.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, o.rest[:min(len(o.rest), o.each)])
	o.rest = o.rest[n:]
	return n, nil
}
func (o *oneEnd) Write(p []byte) (int, error)     { return len(p), nil }
func (o *oneEnd) SetReadDeadline(time.Time) error { return nil }

// read reads one request, and returns what follows it.
func readOne(text []byte, each int) (fault *fault, header *fasthttp.RequestHeader, body, rest []byte, err error) {
	c := &conn{Conn: &oneEnd{rest: text, each: each}}
	c.reader = bufio.NewReaderSize(c, connBuffer)
	header = &fasthttp.RequestHeader{}
	head := head{reader: c.reader, header: header, limit: 64 << 10, part: share{shares: newShares()}}
	if fault = head.parse(); fault != nil {
		return fault, header, nil, nil, nil
	}
	c.body = stream{conn: c, reader: c.reader, left: max(0, head.length), isChunked: head.length == unknownLength,
		done: head.length == 0, pace: pace{timeout: time.Hour}}
	body, err = io.ReadAll(&c.body)
	if err == nil {
		rest, err = io.ReadAll(c.reader)
	}
	return nil, header, body, rest, err
}

// FuzzFraming reads requests with the server's reader and with that of net/http. Where both take a request, they agree
// on where it ends: what lies behind it would be a request that one of them has not seen. The server's reader finds the
// same, however the bytes come.
func FuzzFraming(f *testing.F) {
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\n",
		"POST //e/?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nCookie: a=b\r\n\r\nabcPOST",
		"POST /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\nrest",
		"POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /e/ HTTP/1.0\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nab",
		"POST http://x//e/ HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\nContent-Length : 3\r\n\r\nabc",
		"\r\nPOST /e/ HTTP/1.1\nHost: x\n\nabc",
		"POST /e/ HTTP/1.1\r\nHost: x\r\nX: a\rb\r\nContent-Length: +3\r\n\r\nabc",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		fault, header, body, rest, err := readOne(text, 1<<20)
		slowFault, slowHeader, slowBody, slowRest, slowErr := readOne(text, 1)
		require.Equal(t, err != nil, slowErr != nil)
		require.Equal(t, fault == nil, slowFault == nil)
		if fault != nil {
			return
		}
		if err != nil {
			return
		}
		require.Equal(t, header.String(), slowHeader.String())
		require.Equal(t, body, slowBody)
		require.Equal(t, rest, slowRest)
		other := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(text, "\r\n")))
		request, err := http.ReadRequest(other)
		if err != nil {
			return
		}
		if strings.HasPrefix(request.Proto, "HTTP/1.") && request.Method != "CONNECT" {
			otherBody, err := io.ReadAll(request.Body)
			if err != nil {
				return
			}
			otherRest, err := io.ReadAll(other)
			require.NoError(t, err)
			require.Equal(t, request.Method, string(header.Method()))
			require.Equal(t, string(otherBody), string(body))
			require.Equal(t, string(otherRest), string(rest))
		}
	})
}
