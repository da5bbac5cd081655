package transport

import (
	"bufio"
	"errors"
	"io"
	"time"

	"github.com/gofiber/fiber/v2"
)

const (
	// maxChunk is the largest chunk of a body, in bytes. No limit of a body is larger.
	maxChunk = 1 << 31

	// maxChunkLine is how many bytes may stand beside a chunk's size, and in the trailers.
	maxChunkLine = 4 << 10

	// maxUnread is how many bytes of a body that no route has read the server skips, unless skip says another number.
	maxUnread = 256 << 10
)

// stream is the body of one request on the wire. It ends where the head said, or with the last chunk; it never reads a
// byte of the next request. An error stays: then nobody knows where the body ends.
type stream struct {
	conn   *conn
	reader *bufio.Reader

	left      int64 // of the body, or of the chunk
	isChunked bool
	done      bool // the body was read to its end
	err       error
	// room is how many bytes that nobody has read are skipped after the answer. The connection of a longer body ends.
	room int64
	// waits has the client wait for a leave to send the body. It gets the leave when somebody reads the body.
	waits bool

	pace pace
}

// Read implements io.Reader. It returns io.EOF at the body's end, io.ErrUnexpectedEOF if the client has left before, a
// net.Error with Timeout if the client is slower than it may be, and errChunking.
func (s *stream) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.read(p)
	s.err = err
	s.done = s.done || errors.Is(err, io.EOF)
	return n, err
}

func (s *stream) read(p []byte) (int, error) {
	s.pace.begin()
	if s.waits {
		s.waits = false
		// The last answer on the connection has left its deadline behind.
		_ = s.conn.SetWriteDeadline(s.pace.deadline())
		if _, err := io.WriteString(s.conn.Conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return 0, err
		}
	}
	if s.isChunked && s.left == 0 {
		if err := s.chunk(); err != nil {
			return 0, cut(err)
		}
		if s.left == 0 {
			if err := s.trailers(); err != nil {
				return 0, cut(err)
			}
			return 0, io.EOF
		}
	}
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.reader.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	switch {
	case err != nil:
		return n, cut(err)
	case s.left > 0:
	case s.isChunked:
		err = cut(s.lineEnd())
	default:
		s.done = true
	}
	return n, err
}

// cut is the error of a body, of which io.EOF is never the end.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// chunk reads the line with a chunk's size. Extensions are skipped.
func (s *stream) chunk() error {
	digits, isExtension, isPadded := 0, false, false
	for range maxChunkLine {
		b, err := s.reader.ReadByte()
		if err != nil {
			return err
		}
		digit, isDigit := hexDigit(b)
		switch {
		case b == '\r' && digits > 0:
			_ = s.reader.UnreadByte()
			return s.lineEnd()
		case b < ' ' && b != '\t' || b == 0x7f:
			return errChunking
		case isExtension:
		case isDigit && !isPadded:
			digits++
			if s.left = s.left<<4 | digit; s.left > maxChunk {
				return errChunking
			}
		case digits == 0:
			return errChunking
		case b == ';' && !isPadded:
			isExtension = true
		case b == ' ' || b == '\t':
			isPadded = true
		default:
			return errChunking
		}
	}
	return errChunking
}

func hexDigit(b byte) (digit int64, ok bool) {
	switch {
	case b >= '0' && b <= '9':
		return int64(b - '0'), true
	case b >= 'a' && b <= 'f':
		return int64(b-'a') + 10, true
	case b >= 'A' && b <= 'F':
		return int64(b-'A') + 10, true
	default:
		return 0, false
	}
}

// lineEnd reads the two bytes that end a line.
func (s *stream) lineEnd() error {
	for _, want := range []byte("\r\n") {
		switch b, err := s.reader.ReadByte(); {
		case err != nil:
			return err
		case b != want:
			return errChunking
		}
	}
	return nil
}

// trailers reads the fields behind the last chunk, and drops them. One that would say anew where the body ends is an
// error.
func (s *stream) trailers() error {
	for room := maxChunkLine; ; {
		line, err := s.reader.ReadSlice('\n')
		if room -= len(line); room < 0 || errors.Is(err, bufio.ErrBufferFull) {
			return errChunking
		}
		if err != nil {
			return err
		}
		if len(line) < 2 || line[len(line)-2] != '\r' {
			return errChunking
		}
		if line = line[:len(line)-2]; len(line) == 0 {
			return nil
		}
		name, _, fault := splitField(line)
		if fault != nil || lineFault(line, false, true, true) != nil || is(name, fiber.HeaderContentLength) ||
			is(name, fiber.HeaderTransferEncoding) || is(name, fiber.HeaderHost) {
			return errChunking
		}
	}
}

// rest reports whether the connection is of use after the answer, as far as the body is concerned: it skips what is
// left if that is little.
func (s *stream) rest() bool {
	if s.done {
		return true
	}
	_, err := io.CopyN(io.Discard, s, s.room+1)
	return errors.Is(err, io.EOF)
}

// isShort reports whether what is left of the body may be skipped.
func (s *stream) isShort() bool {
	return s.done || s.err == nil && !s.waits && (s.isChunked || s.left <= s.room)
}

// pace is how fast a client must send a body: to its end within the timeout, and never more than grace behind the rate.
// Bytes that came early make up for no more than grace: a client that sends much at once cannot hold it for long.
type pace struct {
	timeout, grace time.Duration
	rate           int64 // in bytes per second; 0 for none
	end, due       time.Time
}

// begin starts the clock, unless it runs. It starts when the server begins to read, so that a client does not answer
// for the time that the server took.
func (p *pace) begin() {
	if p.end.IsZero() {
		now := time.Now()
		p.end, p.due = now.Add(p.timeout), now.Add(p.grace)
	}
}

// deadline is when the next byte must have come.
func (p *pace) deadline() time.Time {
	if p.rate > 0 && p.due.Before(p.end) {
		return p.due
	}
	return p.end
}

// came moves the deadline on by what n bytes are worth.
func (p *pace) came(n int, now time.Time) {
	if p.rate == 0 {
		return
	}
	p.due = p.due.Add(time.Duration(int64(n) * int64(time.Second) / p.rate))
	if latest := now.Add(p.grace); p.due.After(latest) {
		p.due = latest
	}
}
