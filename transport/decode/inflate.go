package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

const (
	// gzipMember is the size of the smallest gzip member, in bytes. The last four bytes of a member are the length of
	// its content, modulo 2^32.
	gzipMember = 18
	// plausibleRatio is how many times longer than itself a large payload may claim its content to be. The length of a
	// payload that claims more is measured. Batches of events compress 5 to 15 times, repetitive ones 100 times and
	// more.
	plausibleRatio = 64
	// firstRatio gives the size of the first buffer where no claimed length is believed.
	firstRatio = 4
)

// stepsInflating are the steps whose output may be many times as large as their input.
const stepsInflating = StepGzip | StepZstd | StepBrotli | StepDeflate | StepLZ64

// room bounds the output of a step: to the limit less what the request holds already, in bytes.
type room struct{ limit, held int64 }

func (r room) left() int64 { return r.limit - r.held }

// tooLarge returns the error for an output of which size bytes have been seen.
func (r room) tooLarge(size int64) error {
	return events.Errorf(events.TooLarge,
		"maximum event size exceeded: Decompressed payload would exceed %d bytes (got %d bytes)",
		r.limit, r.held+size)
}

// firstSize returns the size of the first buffer for the output of src. claim is the length that src claims for its
// output; 0 is none.
func (r room) firstSize(src []byte, claim int64) int64 {
	if claim > 0 && claim <= r.left() && (claim < memory.MaxPooled || claim <= plausibleRatio*int64(len(src))) {
		return claim
	}
	return min(firstRatio*int64(len(src)), memory.MaxPooled-1)
}

// stream is a decompressor that can be used again.
type stream interface {
	io.Reader
	// open begins with a new input.
	open(src []byte) error
}

// input is what a stream reads from. A stream is kept for another request, its input is not.
type input struct{ wire bytes.Reader }

func (i *input) close() { i.wire.Reset(nil) }

// gzipStream reads the members of a gzip file one after the other. What stands behind a member and is no member is not
// read: some clients send their whole buffer, with zeros behind the data.
type gzipStream struct {
	input
	member gzip.Reader
	src    []byte
}

func (s *gzipStream) open(src []byte) error {
	s.src = src
	s.wire.Reset(src)
	return s.next()
}

func (s *gzipStream) close() {
	s.src = nil
	s.input.close()
}

// next begins with the member that the wire is at.
func (s *gzipStream) next() error {
	err := s.member.Reset(&s.wire)
	s.member.Multistream(false)
	return err
}

// Read implements io.Reader.
func (s *gzipStream) Read(b []byte) (int, error) {
	for {
		n, err := s.member.Read(b)
		if !errors.Is(err, io.EOF) || !isGzip(s.src[len(s.src)-s.wire.Len():]) {
			return n, err
		}
		if err := s.next(); err != nil || n > 0 {
			return n, err
		}
	}
}

type zlibStream struct {
	input
	io.Reader
}

func (s *zlibStream) open(src []byte) (err error) {
	s.wire.Reset(src)
	if s.Reader == nil {
		s.Reader, err = zlib.NewReader(&s.wire)
		return err
	}
	return s.Reader.(zlib.Resetter).Reset(&s.wire, nil)
}

type flateStream struct {
	input
	io.Reader
}

func (s *flateStream) open(src []byte) error {
	s.wire.Reset(src)
	if s.Reader == nil {
		s.Reader = flate.NewReader(&s.wire)
		return nil
	}
	return s.Reader.(flate.Resetter).Reset(&s.wire, nil)
}

type brotliStream struct {
	input
	brotli.Reader
}

func (s *brotliStream) open(src []byte) error {
	s.wire.Reset(src)
	return s.Reset(&s.wire)
}

// inflateGzip undoes gzip. It takes the length of the last member for the claim, which is too small if there are
// several members, and means nothing if something else stands behind them.
func (d *Decoder) inflateGzip(src []byte, room room) (*memory.Buffer, error) {
	s := d.gzips.Get().(*gzipStream)
	defer d.gzips.Put(s)
	defer s.close()
	claim := int64(0)
	if len(src) >= gzipMember {
		claim = int64(binary.LittleEndian.Uint32(src[len(src)-4:]))
	}
	return d.inflate(s, src, room, claim, errGzip)
}

// inflateDeflate undoes what HTTP calls deflate: zlib or, as some clients understand it, the bare stream.
func (d *Decoder) inflateDeflate(src []byte, room room) (*memory.Buffer, error) {
	if isZlib(src) {
		s := d.zlibs.Get().(*zlibStream)
		defer d.zlibs.Put(s)
		defer s.close()
		return d.inflate(s, src, room, 0, errDeflate)
	}
	s := d.flates.Get().(*flateStream)
	defer d.flates.Put(s)
	defer s.close()
	return d.inflate(s, src, room, 0, errDeflate)
}

// inflateBrotli undoes brotli. Its reader has a window of up to 16 MiB, which counts against the budget while the
// reader works. A reader that may have become large is not kept.
func (d *Decoder) inflateBrotli(src []byte, room room) (*memory.Buffer, error) {
	window := brotliWindow(src)
	lease := d.budget.Lease()
	if !lease.Reserve(window) {
		return nil, memory.ErrSpent
	}
	defer lease.Release()
	s := d.brotlis.Get().(*brotliStream)
	out, err := d.inflate(s, src, room, 0, errBrotli)
	if err == nil && cap(out.Bytes) <= memory.MaxPooled {
		s.close()
		d.brotlis.Put(s)
	}
	return out, err
}

// brotliWindow returns the size of the window that a brotli stream names in its first byte (RFC 7932, section 9.1).
func brotliWindow(src []byte) int64 {
	switch first := src[0]; {
	case first&1 == 0:
		return 1 << 16
	case first>>1&7 != 0:
		return 1 << (17 + first>>1&7)
	case first>>4&7 == 0:
		return 1 << 17
	default:
		return 1 << (8 + first>>4&7)
	}
}

// inflateLZ64 undoes lz-string. It also returns how many lone surrogates it has replaced.
func (d *Decoder) inflateLZ64(src []byte, room room) (out *memory.Buffer, replaced int, err error) {
	z := d.lz64s.Get().(*lz64)
	defer d.lz64s.Put(z)
	if err := z.open(d.budget); err != nil {
		return nil, 0, err
	}
	defer z.close()
	size, err := z.run(nil, src, room.left())
	if err != nil {
		return nil, 0, err
	}
	if out, err = d.buffers.Get(size); err != nil {
		return nil, 0, err
	}
	out.Bytes = out.Bytes[:size]
	if _, err := z.run(out.Bytes, src, size); err != nil {
		d.buffers.Put(out)
		return nil, 0, err
	}
	if z.surrogates {
		out.Bytes, replaced = joinSurrogates(out.Bytes)
	}
	return out, replaced, nil
}

// inflate returns what the stream makes of src. claim is the length that src claims for its output; 0 is none. invalid
// is the error for a broken input.
//
// A buffer that is too small grows while its size is one that is pooled. Beyond that, inflate only measures the rest of
// the output, and then decompresses src again into a buffer of the measured size. A copy to a larger buffer would need
// both buffers at once, and a bomb would have had all the memory before it is known for a bomb.
func (d *Decoder) inflate(s stream, src []byte, room room, claim int64, invalid error) (*memory.Buffer, error) {
	if s.open(src) != nil {
		return nil, invalid
	}
	// The buffer has one byte more than the output, so that fill sees the end.
	out, err := d.buffers.Get(room.firstSize(src, claim) + 1)
	if err != nil {
		return nil, err
	}
	for {
		end, err := fill(out, s)
		size := int64(len(out.Bytes))
		switch {
		case size > room.left():
			err = room.tooLarge(size)
		case err != nil:
			err = invalid
		case end:
			return out, nil
		case size < memory.MaxPooled:
			out, err = d.buffers.Grow(out, 2*int64(cap(out.Bytes)))
		default:
			size, err = room.measure(s, size, invalid)
			d.buffers.Put(out)
			out = nil
			if err == nil && s.open(src) != nil {
				err = invalid
			}
			if err == nil {
				out, err = d.buffers.Get(size + 1)
			}
		}
		if err != nil {
			d.buffers.Put(out)
			return nil, err
		}
	}
}

// fill reads until the buffer is full or r is at its end. It reports whether r is at its end.
func fill(b *memory.Buffer, r io.Reader) (end bool, err error) {
	for len(b.Bytes) < cap(b.Bytes) {
		n, err := r.Read(b.Bytes[len(b.Bytes):cap(b.Bytes)])
		b.Bytes = b.Bytes[:len(b.Bytes)+n]
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// measure reads s to its end, or until it is out of room. It returns the size of the whole output, of which size bytes
// were read before.
func (r room) measure(s io.Reader, size int64, invalid error) (int64, error) {
	rest, err := io.Copy(io.Discard, io.LimitReader(s, r.left()-size+1))
	if size += rest; size > r.left() {
		return 0, r.tooLarge(size)
	}
	if err != nil {
		return 0, invalid
	}
	return size, nil
}
