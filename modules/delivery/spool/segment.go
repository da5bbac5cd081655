package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
)

const (
	segmentMagic   = 0x5eccc0de
	segmentVersion = 2
	headerSize     = 20

	recordMagic = 0xda7ac0de
	headSize    = 24

	// MaxPayload is how many bytes a payload may have.
	MaxPayload = 128 << 20

	segmentSuffix = ".log"
	segmentDigits = 20
)

var (
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
	recordStart = binary.LittleEndian.AppendUint32(nil, recordMagic)
)

func segmentName(first uint64) string {
	return fmt.Sprintf("%0*d%s", segmentDigits, first, segmentSuffix)
}

// parseSegmentName returns the number of the first record of the segment in a file of that name.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != segmentDigits {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0 && first <= maxStart
}

// header returns a segment's header.
func header(follows uint64) []byte {
	data := binary.LittleEndian.AppendUint32(nil, segmentMagic)
	data = binary.LittleEndian.AppendUint32(data, segmentVersion)
	data = binary.LittleEndian.AppendUint64(data, follows)
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
}

// decodeHeader returns the version and "follows" of a header of any version. It reports false if the data is no header.
func decodeHeader(data []byte) (version uint32, follows uint64, ok bool) {
	if len(data) < headerSize {
		return 0, 0, false
	}
	ok = binary.LittleEndian.Uint32(data) == segmentMagic &&
		binary.LittleEndian.Uint32(data[16:]) == crc32.Checksum(data[:16], castagnoli)
	return binary.LittleEndian.Uint32(data[4:]), binary.LittleEndian.Uint64(data[8:]), ok
}

// appendRecord appends a record. begin is the number of the first record of its commit.
func appendRecord(data []byte, seq, begin uint64, payload []byte) []byte {
	start := len(data)
	data = binary.LittleEndian.AppendUint32(data, recordMagic)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(payload)))
	data = binary.LittleEndian.AppendUint64(data, seq)
	data = binary.LittleEndian.AppendUint32(data, uint32(seq-begin))
	sum := crc32.Update(crc32.Checksum(data[start+4:], castagnoli), castagnoli, payload)
	data = binary.LittleEndian.AppendUint32(data, sum)
	return append(data, payload...)
}

// record is a record as its head describes it.
type record struct {
	off    int64  // where it starts in its segment
	seq    uint64 // its number
	begin  uint64 // the number of the first record of its commit
	length int64  // of its payload
	sum    uint32 // the checksum of the record
	head   uint32 // the checksum of the bytes between magic and checksum, which the payload continues
}

func (r record) end() int64 { return r.off + headSize + r.length }

// scanner finds the records of one segment, whatever bytes the file holds. Its caller gives it a window of the file in
// memory. The scanner reads bytes outside the window in small pieces. So its memory does not depend on the lengths that
// the file claims.
type scanner struct {
	file  file
	size  int64  // where the committed part of the file ends
	limit uint64 // a record with this number or a greater one cannot be in the segment
	// behind returns the number behind the last record that was committed to the segment, as far as that is known.
	behind func() uint64

	window   []byte
	windowAt int64 // the offset of the window in the file

	side   []byte // memory for pieces outside the window
	hunt   []byte // the piece that is searched for records
	huntAt int64  // the offset of hunt in the file
	// sums are the checksums of the first 0, sumEvery, 2*sumEvery, ... bytes of the file; nil until damage is found.
	sums []uint32

	tolerant   bool // whether bytes that the disk cannot read count as zeros
	unreadable bool // whether there were such bytes
}

const (
	sideSize = 64 << 10
	sumEvery = 4 << 10
	// blockSize is how many bytes of a file count as zeros if one of them cannot be read.
	blockSize = 4 << 10
)

// readAt fills data. A file that is too short was damaged: readAt fills the rest with zeros, which are no record.
func (s *scanner) readAt(data []byte, off int64) error {
	n, err := s.file.ReadAt(data, off)
	if err == nil || n == len(data) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		clear(data[n:])
		return nil
	}
	if !s.tolerant {
		return err
	}
	s.unreadable = true
	for n < len(data) {
		block := data[n:min(len(data), n+blockSize-int((off+int64(n))%blockSize))]
		if read, err := s.file.ReadAt(block, off+int64(n)); err != nil && read < len(block) {
			clear(block[read:])
		}
		n += len(block)
	}
	return nil
}

// load reads the window.
func (s *scanner) load(buf []byte, off int64) error {
	s.window = nil
	if err := s.readAt(buf, off); err != nil {
		return err
	}
	s.window, s.windowAt = buf, off
	return nil
}

// inWindow returns the n bytes at off if the window has them all.
func (s *scanner) inWindow(off, n int64) ([]byte, bool) {
	if off < s.windowAt || off+n > s.windowAt+int64(len(s.window)) {
		return nil, false
	}
	return s.window[off-s.windowAt:][:n], true
}

// view returns the n bytes at off; n is at most sideSize. The bytes are valid until the next call.
func (s *scanner) view(off, n int64) ([]byte, error) {
	if data, ok := s.inWindow(off, n); ok {
		return data, nil
	}
	if s.side == nil {
		s.side = make([]byte, sideSize)
	}
	return s.side[:n], s.readAt(s.side[:n], off)
}

// holds reports whether the scanner can look at off without another window: the window holds the whole record at off,
// or there is no record at off.
func (s *scanner) holds(off int64) bool {
	data, ok := s.inWindow(off, headSize)
	if !ok {
		return off+headSize > s.size
	}
	r, plausible := s.parse(data, off)
	if !plausible {
		return true
	}
	_, ok = s.inWindow(r.off, headSize+r.length)
	return ok
}

// parse decodes a head. It reports false if no record of this segment can have such a head.
func (s *scanner) parse(data []byte, off int64) (record, bool) {
	r := record{
		off:    off,
		length: int64(binary.LittleEndian.Uint32(data[4:])),
		seq:    binary.LittleEndian.Uint64(data[8:]),
		sum:    binary.LittleEndian.Uint32(data[20:]),
	}
	before := uint64(binary.LittleEndian.Uint32(data[16:]))
	r.begin = r.seq - before
	isHead := binary.LittleEndian.Uint32(data) == recordMagic
	return r, isHead && r.length <= MaxPayload && r.end() <= s.size && before < r.seq && r.seq < s.limit
}

// head returns the record at off as its head describes it. It reports false if there is no head at off.
func (s *scanner) head(off int64) (record, bool, error) {
	if off+headSize > s.size {
		return record{}, false, nil
	}
	data, err := s.view(off, headSize)
	if err != nil {
		return record{}, false, err
	}
	r, ok := s.parse(data, off)
	r.head = crc32.Checksum(data[4:20], castagnoli)
	return r, ok, nil
}

// next returns the record at off if that record is whole and its number is the one that follows last. Otherwise it
// returns the first whole record behind off. It reports false if there is none.
func (s *scanner) next(off int64, last uint64) (record, bool, error) {
	for {
		r, ok, err := s.head(off)
		if err != nil {
			return record{}, false, err
		}
		if !ok || r.seq != last+1 {
			break
		}
		valid, err := s.valid(r)
		if err != nil || valid {
			return r, valid, err
		}
		s.suspect()
		// If the damage is in the payload, the head tells where the next record starts, or that this record was the
		// last. A head that leads elsewhere is damaged itself: then whole records may follow at any place.
		if r.end() == s.size && r.seq+1 >= s.behind() {
			return record{}, false, nil
		}
		following, ok, err := s.head(r.end())
		if err != nil {
			return record{}, false, err
		}
		if !ok || following.seq != r.seq+1 {
			break
		}
		off, last = r.end(), r.seq
	}
	s.suspect()
	return s.search(off, last)
}

// suspect makes valid use the method that is fast for any content. The file holds bytes that the spool has not written;
// in the worst case somebody has made them to keep the scanner busy.
func (s *scanner) suspect() {
	if s.sums == nil {
		s.sums = []uint32{0}
	}
}

// search returns the first valid record behind off. It skips a record whose number is too great for its place: there
// has to be room between off and the record for all records that follow last.
func (s *scanner) search(off int64, last uint64) (record, bool, error) {
	for at := off + 1; at+headSize <= s.size; at++ {
		if at < s.huntAt || at+headSize > s.huntAt+int64(len(s.hunt)) {
			if s.hunt == nil {
				s.hunt = make([]byte, sideSize)
			}
			s.hunt, s.huntAt = s.hunt[:min(sideSize, s.size-at)], at
			if err := s.readAt(s.hunt, at); err != nil {
				s.hunt = s.hunt[:0]
				return record{}, false, err
			}
		}
		hunt := s.hunt[at-s.huntAt:]
		found := bytes.Index(hunt[:len(hunt)-(headSize-len(recordStart))], recordStart)
		if found < 0 {
			at += int64(len(hunt) - headSize)
			continue
		}
		at += int64(found)
		hunt = hunt[found:]
		r, ok := s.parse(hunt, at)
		if !ok || r.seq <= last || r.seq-last-1 > uint64((at-off)/headSize) {
			continue
		}
		r.head = crc32.Checksum(hunt[4:20], castagnoli)
		if valid, err := s.valid(r); err != nil || valid {
			return r, valid, err
		}
	}
	return record{}, false, nil
}

// valid reports whether the record's checksum is right. After suspect it takes the same short time for records of any
// length: a damaged segment may have many places that look like the head of a long record.
func (s *scanner) valid(r record) (bool, error) {
	start := r.off + headSize
	data, ok := s.inWindow(start, r.length)
	switch {
	case ok && (s.sums == nil || r.length <= sideSize):
		return crc32.Update(r.head, castagnoli, data) == r.sum, nil
	case s.sums == nil:
		sum := r.head
		for at := start; at < r.end(); at += sideSize {
			data, err := s.view(at, min(sideSize, r.end()-at))
			if err != nil {
				return false, err
			}
			sum = crc32.Update(sum, castagnoli, data)
		}
		return sum == r.sum, nil
	}
	before, err := s.sumOf(start)
	if err != nil {
		return false, err
	}
	all, err := s.sumOf(r.end())
	if err != nil {
		return false, err
	}
	// A checksum is linear: the checksum of the payload follows from that of the prefix and that of prefix and payload.
	return advance(r.head^before, r.length)^all == r.sum, nil
}

// sumOf returns the checksum of the file's first n bytes. All calls together read the file once, and each call reads at
// most one block more.
func (s *scanner) sumOf(n int64) (uint32, error) {
	for at := int64(len(s.sums)-1) * sumEvery; at+sumEvery <= n; at += sumEvery {
		data, err := s.view(at, sumEvery)
		if err != nil {
			return 0, err
		}
		s.sums = append(s.sums, crc32.Update(s.sums[len(s.sums)-1], castagnoli, data))
	}
	at := n / sumEvery * sumEvery
	data, err := s.view(at, n-at)
	if err != nil {
		return 0, err
	}
	return crc32.Update(s.sums[n/sumEvery], castagnoli, data), nil
}

// squares are x, x^2, x^4, x^8, ... modulo the checksum's polynomial. Their bits are in reverse order, like the bits of
// the checksum.
var squares = func() (p [32]uint32) {
	p[0] = 1 << 30
	for i := range len(p) - 1 {
		p[i+1] = multiply(p[i], p[i])
	}
	return p
}()

// multiply returns a*b modulo the checksum's polynomial.
func multiply(a, b uint32) uint32 {
	product := uint32(0)
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry != 0 {
			b ^= crc32.Castagnoli
		}
	}
	return product
}

// advance returns the checksum times x^8n modulo the polynomial. That is the part that the bytes with this checksum
// have in the checksum once n more bytes follow. n is less than 2^29.
func advance(sum uint32, n int64) uint32 {
	for i := 3; n > 0; i, n = i+1, n>>1 {
		if n&1 != 0 {
			sum = multiply(squares[i], sum)
		}
	}
	return sum
}
