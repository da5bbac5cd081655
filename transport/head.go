package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/opencapture/capture/transport/memory"
)

const (
	// freeHead is how much memory a head may take, in bytes, that does not count against the budget. The head of a
	// browser takes less. So a probe is answered also when the budget is spent.
	freeHead = 12 << 10

	// byteCost is how many bytes a byte of a head takes at most: in a line, in the line's growth and as a field.
	// fieldCost is what a field takes besides.
	byteCost, fieldCost = 3, 160

	// tlsHandshake is the first byte of a client that speaks TLS.
	tlsHandshake = 0x16

	// maxFields is how many fields a head may have.
	maxFields = 512

	// maxHead is how many bytes the server reads of a head, with those that it drops: cookies, and what stands behind
	// a fault.
	maxHead = 1 << 20
)

// fault is why the server does not take a request whose head it could not read. The text says nothing of what the
// client sent: what an answer repeats, a page or a terminal may run.
type fault struct {
	status int
	text   string
}

func malformed(text string) *fault {
	return &fault{status: http.StatusBadRequest, text: "failed to read request: " + text}
}

var (
	errBareCR     = malformed("a carriage return without a line feed in the head")
	errBareLF     = malformed("a line feed without a carriage return in the head")
	errControl    = malformed("a control character in the head")
	errTLS        = malformed("it begins as TLS does, and this port speaks HTTP: use http://, or a proxy that ends TLS")
	errLine       = malformed("the request line is not a method, a target and a version, with one space between")
	errMethod     = malformed("a method that nobody knows")
	errTarget     = malformed("the target is neither a path nor an http URL")
	errFold       = malformed("a header line that begins with white space")
	errName       = malformed("a header's name is empty, or has a character that no name may have")
	errLength     = malformed("the Content-Length is not a number, or there are several")
	errEncoding   = malformed("the Transfer-Encoding is not chunked alone, or there are several")
	errBothBodies = malformed("both a Content-Length and a Transfer-Encoding")
	errOldChunks  = malformed("a Transfer-Encoding in HTTP/1.0")
	errHost       = malformed("not exactly one Host, or one that is none")
	errHeadEnd    = malformed("the connection ended before the head did")
	errVersion    = &fault{status: http.StatusHTTPVersionNotSupported, text: "the version is not HTTP/1.1 or HTTP/1.0"}
	errSlowHead   = &fault{status: http.StatusRequestTimeout, text: errStopped.Error()}
	errHeadSpent  = &fault{status: http.StatusServiceUnavailable, text: memory.ErrSpent.Error()}
	errHeadShare  = &fault{status: http.StatusServiceUnavailable, text: errShare.Error()}
	errManyFields = &fault{
		status: http.StatusRequestHeaderFieldsTooLarge, text: fmt.Sprintf("more than %d headers", maxFields),
	}
)

// errEndlessHead refuses a head of which the kept part is small, but not the whole.
var errEndlessHead = &fault{
	status: http.StatusRequestHeaderFieldsTooLarge,
	text:   fmt.Sprintf("request line and headers, with the cookies, exceed %d bytes", maxHead),
}

func errLargeHead(limit int) *fault {
	return &fault{
		status: http.StatusRequestHeaderFieldsTooLarge,
		text: fmt.Sprintf("request line and headers, without cookies, exceed %d bytes: send the events in the body",
			limit),
	}
}

// head reads the head of one request, as RFC 9112 has it. It decides alone where the request ends; what could be read
// in two ways is a fault. The fields go into a header of fasthttp, which parses nothing. Cookies mean nothing here: the
// head drops them as they come, so they take no memory and count for no limit.
//
// A head takes memory as its bytes arrive, from the budget and from the share of the connection's address.
type head struct {
	reader *bufio.Reader
	header *fasthttp.RequestHeader
	limit  int // of the bytes that are kept
	lease  memory.Lease
	part   share // of the connection's address

	fault         *fault
	line          []byte // of a line that is longer than the reader's buffer
	read, kept    int
	fields, hosts int
	begun         bool // the request line is there

	// length is the length of the body; unknownLength if it comes in chunks.
	length int64
	// old is HTTP/1.0. closing has the connection end after the answer. waits has the client wait for a leave to send
	// the body.
	old, closing, waits        bool
	hasLength, isChunked, keep bool
	named                      []byte // the fields that a Connection names
}

// unknownLength is the length of a body that comes in chunks.
const unknownLength = -1

// parse reads the head to its end. After a fault it reads on only to find the origin that the answer is for: as far as
// the bytes are there, and where the head is too large, to its end, which is on its way.
func (h *head) parse() *fault {
	if first, err := h.reader.Peek(1); err == nil && first[0] == tlsHandshake {
		return errTLS // where TLS has no line feed by chance, there is no line to wait for
	}
	for {
		line, dropped, end := h.next()
		switch {
		case end != nil:
			if h.fault == nil {
				h.fault = end
			}
			return h.fault
		case dropped:
		case len(line) == 0:
			if h.begun || h.fault != nil {
				return h.finish()
			}
		case h.fault != nil:
			h.findOrigin(line)
		case !h.begun:
			h.begun = true
			h.fault = h.requestLine(line)
		default:
			h.fault = h.field(line)
		}
		if h.isOver() {
			return h.fault
		}
	}
}

// isOver reports whether nothing more of a faulty head is worth reading: without a wait no line is there.
func (h *head) isOver() bool {
	if h.fault == nil || h.fault.status == http.StatusRequestHeaderFieldsTooLarge {
		return false
	}
	buffered, _ := h.reader.Peek(h.reader.Buffered())
	return bytes.IndexByte(buffered, '\n') < 0
}

// next reads a line, without its end. It drops the line of a cookie, and after a fault any line that is longer than the
// reader's buffer. With end, nothing more can be read.
func (h *head) next() (line []byte, dropped bool, end *fault) {
	h.line = h.line[:0]
	endsWithCR := false
	for isFirst := true; ; isFirst = false {
		part, err := h.reader.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, false, brokenHead(err)
		}
		isLast := err == nil
		if h.read += len(part); h.read > maxHead {
			return nil, false, errEndlessHead
		}
		if isFirst {
			dropped = isField(part, fiber.HeaderCookie) && h.begun
		}
		if !dropped && h.fault == nil {
			h.fault = h.keepBytes(len(part))
		}
		text, cr := part, endsWithCR
		if isLast {
			text = text[:len(text)-1]
		}
		if endsWithCR = bytes.HasSuffix(text, []byte("\r")); endsWithCR {
			text = text[:len(text)-1]
		}
		if h.fault == nil {
			h.fault = lineFault(text, cr, endsWithCR, isLast)
		}
		switch {
		case isFirst && isLast:
			return text, dropped, nil
		case !isLast && h.isOver():
			return nil, false, h.fault
		}
		dropped = dropped || h.fault != nil
		if !dropped {
			h.line = append(h.line, text...)
		}
		if isLast {
			return h.line, dropped, nil
		}
	}
}

// keepBytes counts bytes that the head keeps, and reserves what they take.
func (h *head) keepBytes(n int) *fault {
	h.kept += n
	if h.kept > h.limit {
		return errLargeHead(h.limit)
	}
	if cost := int64(h.kept*byteCost + h.fields*fieldCost); cost > freeHead {
		switch {
		case !h.part.raise(cost):
			return errHeadShare
		case !h.lease.Raise(cost):
			return errHeadSpent
		}
	}
	return nil
}

// lineFault judges a part of a line. A carriage return stands before the line feed at its end, and nowhere else.
func lineFault(text []byte, hadCR, hasCR, isLast bool) *fault {
	switch {
	case hadCR && (!isLast || hasCR || len(text) > 0):
		return errBareCR
	case isLast && !hadCR && !hasCR:
		return errBareLF
	}
	for _, b := range text {
		switch {
		case b == '\r':
			return errBareCR
		case b < ' ' && b != '\t' || b == 0x7f:
			return errControl
		}
	}
	return nil
}

func brokenHead(err error) *fault {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errSlowHead
	}
	return errHeadEnd
}

// isField reports whether a line is the field of that name.
func isField(line []byte, name string) bool {
	return len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(string(line[:len(name)]), name)
}

// findOrigin takes over the origin alone.
func (h *head) findOrigin(line []byte) {
	if isField(line, fiber.HeaderOrigin) && len(h.header.Peek(fiber.HeaderOrigin)) == 0 {
		h.header.SetBytesV(fiber.HeaderOrigin, trim(line[len(fiber.HeaderOrigin)+1:]))
	}
}

// requestLine takes over method, target and version.
func (h *head) requestLine(line []byte) *fault {
	method, rest, found := bytes.Cut(line, []byte(" "))
	target, version, foundVersion := bytes.Cut(rest, []byte(" "))
	if !found || !foundVersion || !isToken(method) || len(target) == 0 || bytes.ContainsAny(target, " \t") {
		return errLine
	}
	h.header.SetMethodBytes(method)
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.old = true
		h.header.SetProtocol("HTTP/1.0")
	default:
		if bytes.HasPrefix(version, []byte("HTTP/")) && !bytes.ContainsAny(version, " \t") {
			return errVersion
		}
		return errLine
	}
	return h.target(target)
}

// target takes over the path and the query. The target of a proxy's request begins with scheme and host, which are left
// out. Slashes in a row are one: a host that was configured with a slash at its end makes //batch of /batch.
func (h *head) target(target []byte) *fault {
	for _, scheme := range []string{"http://", "https://"} {
		if len(target) > len(scheme) && strings.EqualFold(string(target[:len(scheme)]), scheme) {
			target = target[len(scheme):]
			if path := bytes.IndexAny(target, "/?"); path >= 0 {
				target = target[path:]
			} else {
				target = nil
			}
			if len(target) == 0 || target[0] == '?' {
				target = append([]byte("/"), target...)
			}
			break
		}
	}
	if string(target) == "*" && string(h.header.Method()) == fiber.MethodOptions {
		target = []byte("/")
	}
	if target[0] != '/' {
		return errTarget
	}
	path, query, hasQuery := bytes.Cut(target, []byte("?"))
	if bytes.Contains(path, []byte("//")) {
		clean := make([]byte, 0, len(target))
		for i, b := range path {
			if b != '/' || i == 0 || path[i-1] != '/' {
				clean = append(clean, b)
			}
		}
		if hasQuery {
			clean = append(append(clean, '?'), query...)
		}
		target = clean
	}
	h.header.SetRequestURIBytes(target)
	return nil
}

// field takes over a header line.
func (h *head) field(line []byte) *fault {
	name, value, fault := splitField(line)
	if h.fields++; fault == nil && h.fields > maxFields {
		fault = errManyFields
	}
	if fault != nil {
		return fault
	}
	switch {
	case is(name, fiber.HeaderContentLength):
		return h.contentLength(value)
	case is(name, fiber.HeaderTransferEncoding):
		if h.isChunked || !is(value, "chunked") {
			return errEncoding
		}
		h.isChunked = true
		return nil
	case is(name, fiber.HeaderTrailer):
		// What stands behind a body is dropped, announced or not.
		return nil
	case is(name, fiber.HeaderHost):
		if h.hosts++; h.hosts > 1 {
			return errHost
		}
	case is(name, fiber.HeaderConnection):
		h.connection(value)
		return nil
	case is(name, fiber.HeaderExpect):
		h.waits = is(value, "100-continue")
	}
	h.header.AddBytesKV(name, value)
	return nil
}

// connection takes over what a Connection says. fasthttp keeps the last of several lines, so the fields that they name
// are gathered in one.
func (h *head) connection(value []byte) {
	for token := range bytes.SplitSeq(value, []byte(",")) {
		switch token = trim(token); {
		case len(token) == 0:
		case is(token, "close"):
			h.closing = true
		case is(token, "keep-alive"):
			h.keep = true
		default:
			if len(h.named) > 0 {
				h.named = append(h.named, ", "...)
			}
			h.named = append(h.named, token...)
		}
	}
}

// splitField splits a line, which is not empty, into name and value.
func splitField(line []byte) (name, value []byte, _ *fault) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, errFold
	}
	name, value, found := bytes.Cut(line, []byte(":"))
	if !found || !isToken(name) {
		return nil, nil, errName
	}
	return name, trim(value), nil
}

// contentLength takes over a length. It has digits alone: no sign, and no second length in a list.
func (h *head) contentLength(value []byte) *fault {
	const most = 1 << 50
	if h.hasLength || len(value) == 0 {
		return errLength
	}
	h.hasLength = true
	for _, b := range value {
		if b < '0' || b > '9' || h.length > most {
			return errLength
		}
		h.length = 10*h.length + int64(b-'0')
	}
	return nil
}

// finish judges the head as a whole.
func (h *head) finish() *fault {
	switch {
	case h.fault != nil:
		return h.fault
	case h.isChunked && h.hasLength:
		return errBothBodies
	case h.isChunked && h.old:
		return errOldChunks
	case h.hosts == 0 && !h.old:
		return errHost
	case h.isChunked:
		h.length = unknownLength
	}
	if len(h.named) > 0 {
		h.header.SetBytesV(fiber.HeaderConnection, h.named)
	}
	if len(h.header.Host()) == 0 {
		// Without a host, fasthttp would look for one in the target.
		h.header.SetHost("localhost")
	}
	h.closing = h.closing || h.old && !h.keep
	h.waits = h.waits && !h.old && h.length != 0
	return nil
}

func is(text []byte, name string) bool {
	return len(text) == len(name) && strings.EqualFold(string(text), name)
}

// trim removes the white space around a value: spaces and tabs, and nothing else.
func trim(value []byte) []byte { return bytes.Trim(value, " \t") }

// isToken reports whether a text is a token of RFC 9110: a method or a field's name.
func isToken(text []byte) bool {
	for _, b := range text {
		if !tokenBytes[b] {
			return false
		}
	}
	return len(text) > 0
}

var tokenBytes = func() (is [256]bool) {
	for _, b := range []byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		is[b] = true
	}
	return is
}()
