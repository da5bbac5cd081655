package decode

import (
	"bytes"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/opencapture/capture/transport/memory"
)

// zstdWindow is the largest window that is kept while an output of unknown length is measured, in bytes. RFC 8878 wants
// decoders to take 8 MiB, and encoders use more only if they are told to.
const zstdWindow = 8 << 20

// newZstd returns a decoder that decodes into the buffer that it is given and nowhere else. Its output is its window,
// so it needs no memory of its own beyond some tables, whatever a frame claims.
func newZstd() any {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic("decode: the zstd options contradict each other: " + err.Error())
	}
	return decoder
}

// inflateZstd returns the content of zstd frames.
func (d *Decoder) inflateZstd(src []byte, room room) (*memory.Buffer, error) {
	decoder := d.zstds.Get().(*zstd.Decoder)
	defer d.zstds.Put(decoder)
	var header zstd.Header
	if err := header.Decode(src); err != nil {
		return nil, errZstd
	}
	claim := int64(0)
	if header.HasFCS {
		if header.FrameContentSize > uint64(room.left()) {
			return nil, room.tooLarge(int64(min(header.FrameContentSize, math.MaxInt64/2)))
		}
		claim = int64(header.FrameContentSize)
	}
	size := room.firstSize(src, claim)
	for measured := false; ; measured = true {
		out, err := d.buffers.Get(size + 1)
		if err != nil {
			return nil, err
		}
		text, err := decoder.DecodeAll(src, out.Bytes)
		if err == nil && int64(len(text)) <= room.left() {
			out.Bytes = text
			return out, nil
		}
		d.buffers.Put(out)
		switch {
		case err == nil:
			return nil, room.tooLarge(int64(len(text)))
		case measured:
			return nil, errZstd
		}
		// The input is broken, or the buffer is too small. The error does not always say which.
		if size, err = d.measureZstd(src, room); err != nil {
			return nil, err
		}
	}
}

// measureZstd returns how long the output is. To measure that, it needs a decoder with a window.
func (d *Decoder) measureZstd(src []byte, room room) (int64, error) {
	lease := d.budget.Lease()
	if !lease.Reserve(zstdWindow) {
		return 0, memory.ErrSpent
	}
	defer lease.Release()
	decoder, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return 0, errZstd
	}
	defer decoder.Close()
	return room.measure(decoder, 0, errZstd)
}
