package local

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A file of frames has a header and then frames, which are only appended. All integers are little-endian, and the
// checksums are CRC-32C:
//
//	header: magic [7]byte | version u8 | kind u8 | 7 zeros | number u64 | a u64 | b u64 | c u64 | checksum u32
//	frame:  length u32 | checksum u32 | payload
//
// The checksum of a frame is over the number of its file, its place there and the payload. So a frame counts only where
// it was written.
const (
	magic       = "capture"
	version     = 1
	headerBytes = 52
	frameBytes  = 8
	// maxFrame is how long a payload may be.
	maxFrame = 1 << 20
)

// The kinds of files.
const (
	kindDigests byte = 1 + iota
	kindCounters
	kindSecret
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the beginning of a file. What a, b and c are depends on the kind.
type header struct {
	kind    byte
	number  uint64
	a, b, c uint64
}

func (h header) encode() []byte {
	text := make([]byte, 0, headerBytes)
	text = append(text, magic...)
	text = append(text, version, h.kind, 0, 0, 0, 0, 0, 0, 0)
	for _, field := range []uint64{h.number, h.a, h.b, h.c} {
		text = binary.LittleEndian.AppendUint64(text, field)
	}
	return binary.LittleEndian.AppendUint32(text, crc32.Checksum(text, castagnoli))
}

var (
	errDamaged = errors.New("the content is damaged")
	errVersion = errors.New("the file is of another release")
)

func decodeHeader(text []byte) (header, error) {
	if len(text) != headerBytes || string(text[:len(magic)]) != magic {
		return header{}, errDamaged
	}
	body, sum := text[:headerBytes-4], binary.LittleEndian.Uint32(text[headerBytes-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return header{}, errDamaged
	}
	if body[len(magic)] != version {
		return header{}, fmt.Errorf("%w: version %d, and this one knows %d", errVersion, body[len(magic)], version)
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(body[16+8*i:]) }
	return header{kind: body[len(magic)+1], number: field(0), a: field(1), b: field(2), c: field(3)}, nil
}

// frameSum is the checksum of a frame at an offset of a file.
func frameSum(number uint64, offset int64, payload []byte) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[:8], number)
	binary.LittleEndian.PutUint64(place[8:], uint64(offset))
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, payload)
}

// frameFile is a file of frames that is being written. After an error, nothing more is written to it: nobody knows
// where it ends.
type frameFile struct {
	file   file
	number uint64
	size   int64
	frame  []byte // the frame that is being made; it begins with room for the frame's head
	dirty  bool   // not all of it is synced
}

func newFrameFile(f file, h header) (*frameFile, error) {
	if _, err := f.Write(h.encode()); err != nil {
		return nil, err
	}
	return &frameFile{file: f, number: h.number, size: headerBytes, dirty: true}, nil
}

// begin returns the buffer that the payload of the next frame is to be appended to.
func (w *frameFile) begin() []byte { return append(w.frame[:0], make([]byte, frameBytes)...) }

// write writes a frame, given the buffer with its payload. A frame without payload is not written.
func (w *frameFile) write(frame []byte) error {
	w.frame = frame
	payload := frame[frameBytes:]
	if len(payload) == 0 {
		return nil
	}
	binary.LittleEndian.PutUint32(frame, uint32(len(payload)))
	binary.LittleEndian.PutUint32(frame[4:], frameSum(w.number, w.size, payload))
	n, err := w.file.Write(frame)
	w.size += int64(n)
	w.dirty = true
	return err
}

func (w *frameFile) sync() error {
	if !w.dirty {
		return nil
	}
	w.dirty = false
	return w.file.Sync()
}

// frameReader reads a file of frames.
type frameReader struct {
	from   *bufio.Reader
	header header
	offset int64
	frame  []byte
}

func newFrameReader(from io.Reader) (*frameReader, error) {
	r := &frameReader{from: bufio.NewReaderSize(from, 256<<10), offset: headerBytes}
	text := make([]byte, headerBytes)
	if _, err := io.ReadFull(r.from, text); err != nil {
		return nil, fmt.Errorf("%w: it ends within its header", errDamaged)
	}
	var err error
	r.header, err = decodeHeader(text)
	return r, err
}

// next returns the payload of the next frame, which is valid until the next call. At the end the error is io.EOF. A
// frame that is not whole ends the file: the error is errDamaged.
func (r *frameReader) next() ([]byte, error) {
	var head [frameBytes]byte
	if n, err := io.ReadFull(r.from, head[:]); n == 0 && errors.Is(err, io.EOF) {
		return nil, io.EOF
	} else if err != nil {
		return nil, errDamaged
	}
	length := binary.LittleEndian.Uint32(head[:])
	if length == 0 || length > maxFrame {
		return nil, errDamaged
	}
	if cap(r.frame) < int(length) {
		r.frame = make([]byte, max(int(length), 64<<10))
	}
	payload := r.frame[:length]
	if _, err := io.ReadFull(r.from, payload); err != nil {
		return nil, errDamaged
	}
	if frameSum(r.header.number, r.offset, payload) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, errDamaged
	}
	r.offset += frameBytes + int64(length)
	return payload, nil
}
