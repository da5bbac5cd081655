package transport

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/gofiber/fiber/v2"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
)

const (
	// firstBuffer is what a body gets before its bytes have come, whatever length it claims.
	firstBuffer = 16 << 10
	// maxPooledBuffer is the largest buffer that is kept for another request.
	maxPooledBuffer = 1 << 20
)

// bodies reads request bodies as they came over the wire. It is safe for concurrent use.
type bodies struct {
	budget *decode.Budget
	pool   sync.Pool
}

func newBodies(budget *decode.Budget) *bodies {
	return &bodies{budget: budget, pool: sync.Pool{New: func() any { return new(body) }}}
}

// body is what has been read of a request.
type body struct {
	bytes    []byte
	reserved int64
}

func (b *bodies) release(read *body) {
	b.budget.Release(read.reserved)
	read.reserved = 0
	if cap(read.bytes) <= maxPooledBuffer {
		read.bytes = read.bytes[:0]
		b.pool.Put(read)
	}
}

var (
	errStopped  = events.Errorf(events.SlowClient, "client stopped sending data")
	errCutShort = events.Errorf(events.Invalid, "failed to decode request: the body ended before its announced length")
	errChunking = events.Errorf(events.Invalid, "failed to decode request: invalid chunked encoding")
)

// read reads the whole body, of at most limit bytes. On an error it reads past the rest where that is small, so that the connection stays usable,
// and closes the connection after the answer where it is not. The caller releases the result.
func (b *bodies) read(c *fiber.Ctx, limit int64) (*body, *events.Error) {
	read := b.pool.Get().(*body)
	if err := b.fill(c, read, limit); err != nil {
		b.release(read)
		return nil, err
	}
	return read, nil
}

func (b *bodies) fill(c *fiber.Ctx, read *body, limit int64) *events.Error {
	stream := c.Request().BodyStream()
	if stream == nil {
		return nil
	}
	announced := int64(c.Request().Header.ContentLength())
	if announced > limit {
		b.skip(c, stream, limit)
		return tooLarge(limit)
	}
	if announced == 0 {
		return nil
	}
	if !b.grow(read, min(firstBuffer, max(announced, 512))) {
		b.skip(c, stream, limit)
		return decode.ErrSpent
	}
	for {
		if len(read.bytes) == cap(read.bytes) && int64(len(read.bytes)) != announced {
			if int64(len(read.bytes)) > limit {
				b.skip(c, stream, limit)
				return tooLarge(limit)
			}
			size := 2 * int64(cap(read.bytes))
			if announced > 0 {
				size = min(size, announced)
			}
			// One byte over the limit tells a body of just the limit from a larger one.
			if !b.grow(read, min(size, limit+1)) {
				b.skip(c, stream, limit)
				return decode.ErrSpent
			}
		}
		n, err := stream.Read(read.bytes[len(read.bytes):cap(read.bytes)])
		read.bytes = read.bytes[:len(read.bytes)+n]
		switch {
		case int64(len(read.bytes)) == announced:
			return nil
		case err == nil:
		case announced < 0 && errors.Is(err, io.EOF):
			if int64(len(read.bytes)) > limit {
				return tooLarge(limit)
			}
			return nil
		default:
			c.Context().SetConnectionClose()
			return brokenBody(err)
		}
	}
}

// grow makes room for size bytes in all and reserves what is new of them.
func (b *bodies) grow(read *body, size int64) bool {
	size = max(size, int64(cap(read.bytes)))
	if !b.budget.Reserve(size - read.reserved) {
		return false
	}
	read.reserved = size
	if size > int64(cap(read.bytes)) {
		larger := make([]byte, len(read.bytes), size)
		copy(larger, read.bytes)
		read.bytes = larger
	}
	return true
}

func tooLarge(limit int64) *events.Error {
	return events.Errorf(events.TooLarge, "maximum event size exceeded: Request body exceeds limit of %d bytes", limit)
}

func brokenBody(err error) *events.Error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return errStopped
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errCutShort
	default:
		return errChunking
	}
}

// skip reads past what is left of a body, up to as much again as the limit, and closes the connection after the answer if
// there is more: what follows on it could not be told from the body.
func (b *bodies) skip(c *fiber.Ctx, stream io.Reader, limit int64) {
	announced := int64(c.Request().Header.ContentLength())
	if stream == nil || announced == 0 {
		return
	}
	if announced > 2*limit {
		c.Context().SetConnectionClose()
		return
	}
	if announced < 0 {
		stream = io.LimitReader(stream, limit)
	}
	_, err := io.Copy(io.Discard, stream)
	if limited, ok := stream.(*io.LimitedReader); err != nil || ok && limited.N == 0 {
		c.Context().SetConnectionClose()
	}
}
