package transport

import (
	"errors"
	"io"
	"net"

	"github.com/gofiber/fiber/v2"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

// firstBuffer is the size of a body's first buffer in bytes, whatever length the client announces.
const firstBuffer = 16 << 10

// bodies reads request bodies as they come over the wire. It is safe for concurrent use.
type bodies struct{ buffers *memory.Buffers }

var (
	errShare = events.Errorf(events.Unavailable,
		"service unavailable: too much is being received from your address at once")
	errStopped  = events.Errorf(events.SlowClient, "client stopped sending data")
	errCutShort = events.Errorf(events.Invalid, "failed to decode request: the body ended before its announced length")
	errChunking = events.Errorf(events.Invalid, "failed to decode request: invalid chunked encoding")
)

// read reads the whole body, of at most limit bytes. It returns nil for a request without a body. The rest of a body
// that it refuses is skipped after the answer, so that a client that sends all before it reads gets the answer; the
// connection of a body that is far larger ends with it. The caller puts the buffer back, and releases the part of its
// address's share.
func (b *bodies) read(c *fiber.Ctx, limit int64, part *share) (*memory.Buffer, error) {
	stream := c.Request().BodyStream()
	announced := int64(c.Request().Header.ContentLength())
	size, whole := int64(firstBuffer), int64(firstBuffer)
	if announced > 0 {
		size, whole = min(size, announced), announced
	}
	switch {
	case stream == nil || announced == 0:
		return nil, nil
	case announced > limit:
		skip(c, limit)
		return nil, tooLarge(limit)
	case !part.raise(size):
		skip(c, limit)
		return nil, errShare
	}
	read, err := b.buffers.GetFor(size, whole)
	if err != nil {
		skip(c, limit)
		return nil, err
	}
	if read, err = b.fill(stream, read, announced, limit, part); err != nil {
		b.buffers.Put(read)
		skip(c, limit)
		return nil, err
	}
	return read, nil
}

// fill reads the body into the buffer and, as the body grows, into larger ones. It returns the buffer in use, also with
// an error.
func (b *bodies) fill(
	stream io.Reader, read *memory.Buffer, announced, limit int64, part *share,
) (*memory.Buffer, error) {
	for {
		if size := int64(len(read.Bytes)); size == int64(cap(read.Bytes)) && size != announced {
			if size > limit {
				return read, tooLarge(limit)
			}
			// The last buffer has one byte more than the limit, which tells a body of just the limit from a larger one.
			size = min(2*size, limit+1)
			if announced > 0 {
				size = min(size, announced)
			}
			if !part.raise(size) {
				return read, errShare
			}
			var err error
			if read, err = b.buffers.Grow(read, size); err != nil {
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

// skip has the server read past the rest of a body after the answer, if that is at most as much again as the limit. The
// connection of a larger body ends with the answer.
func skip(c *fiber.Ctx, limit int64) {
	body, ok := c.Request().BodyStream().(*stream)
	switch announced := int64(c.Request().Header.ContentLength()); {
	case !ok:
	case announced < 0:
		body.room = limit
	case announced <= 2*limit:
		body.room = body.left
	default:
		body.room = 0
	}
}
