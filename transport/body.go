package transport

import (
	"errors"
	"io"
	"net"

	"github.com/gofiber/fiber/v2"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

// firstBuffer is what a body gets before its bytes have come, whatever length it claims.
const firstBuffer = 16 << 10

// bodies reads request bodies as they came over the wire. It is safe for concurrent use.
type bodies struct{ buffers *memory.Buffers }

var (
	errStopped  = events.Errorf(events.SlowClient, "client stopped sending data")
	errCutShort = events.Errorf(events.Invalid, "failed to decode request: the body ended before its announced length")
	errChunking = events.Errorf(events.Invalid, "failed to decode request: invalid chunked encoding")
)

// read reads the whole body, of at most limit bytes; nil is none. On an error it reads past the rest where that is small, so that
// the connection stays usable, and closes the connection after the answer where it is not. The caller puts the result back.
func (b *bodies) read(c *fiber.Ctx, limit int64) (*memory.Buffer, error) {
	stream := c.Request().BodyStream()
	announced := int64(c.Request().Header.ContentLength())
	size := int64(firstBuffer)
	switch {
	case stream == nil || announced == 0:
		return nil, nil
	case announced > limit:
		b.skip(c, stream, limit)
		return nil, tooLarge(limit)
	case announced > 0:
		size = min(size, announced)
	}
	read, err := b.buffers.Get(size)
	if err != nil {
		b.skip(c, stream, limit)
		return nil, err
	}
	if read, err = b.fill(c, read, announced, limit); err != nil {
		b.buffers.Put(read)
		return nil, err
	}
	return read, nil
}

// fill reads the body into the buffer, or a larger one that takes its place.
func (b *bodies) fill(c *fiber.Ctx, read *memory.Buffer, announced, limit int64) (*memory.Buffer, error) {
	stream := c.Request().BodyStream()
	for {
		if size := int64(len(read.Bytes)); size == int64(cap(read.Bytes)) && size != announced {
			if size > limit {
				b.skip(c, stream, limit)
				return read, tooLarge(limit)
			}
			// One byte over the limit tells a body of just the limit from a larger one.
			size = min(2*size, limit+1)
			if announced > 0 {
				size = min(size, announced)
			}
			var err error
			if read, err = b.buffers.Grow(read, size); err != nil {
				b.skip(c, stream, limit)
				return read, err
			}
		}
		n, err := stream.Read(read.Bytes[len(read.Bytes):cap(read.Bytes)])
		read.Bytes = read.Bytes[:len(read.Bytes)+n]
		switch {
		case int64(len(read.Bytes)) == announced:
			return read, nil
		case err == nil:
		case announced < 0 && errors.Is(err, io.EOF):
			if int64(len(read.Bytes)) > limit {
				return read, tooLarge(limit)
			}
			return read, nil
		default:
			c.Context().SetConnectionClose()
			return read, brokenBody(err)
		}
	}
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
