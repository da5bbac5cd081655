package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"slices"

	"go.uber.org/zap"
)

// Record is a record that was read.
type Record struct {
	Seq     uint64
	Payload []byte
}

// Chunk holds the records that a Read has returned. The zero Chunk is ready for use. A Chunk keeps its memory for the
// next Read.
type Chunk struct {
	Records []Record
	buf     []byte
}

const (
	// windowSize is the least number of bytes that Read reads at a time.
	windowSize = 64 << 10
	// patience is how often in a row a place of a file must fail to be read before it counts as damaged.
	patience = 3
	// positionsKept is how many positions are kept for Rewind. positionsApart is how many bytes are between two of
	// them.
	positionsKept  = 256
	positionsApart = 1 << 20
)

var (
	errUnstable = errors.New("spool: a segment reads differently from time to time")
	errVersion  = errors.New("another version of the service has written it: start that one, or move the file away")
)

// position is where in a log the next record is expected.
type position struct {
	segment uint64 // the number of the segment's first record
	off     int64  // the offset in the segment
	last    uint64 // the number of the record before
}

func (p position) before(other position) bool {
	return p.segment < other.segment || p.segment == other.segment && p.off < other.off
}

// reader is the state of Read.
type reader struct {
	placed    bool // whether at is valid
	at        position
	from      uint64 // records with smaller numbers were done when the reader was placed
	scanner   *scanner
	opened    uint64     // the number of the first record of the segment that the scanner reads
	failures  int        // how often in a row the disk has failed to read at this position
	positions []position // where Rewind may start, in ascending order
	counted   position   // damage before this position was counted
	missing   uint64     // the number of the first record of the last segment whose file was not there
}

// portion is the part of a segment that a reader may look at.
type portion struct {
	segment
	path      string
	committed uint64  // the number behind the log's last committed record
	limit     uint64  // every record of the segment has a smaller number
	next      segment // the segment that follows; invalid if last is set
	last      bool    // whether none follows
}

// loss is a part of a segment that cannot be read.
type loss struct {
	from, to uint64 // the numbers of the records in it: from "from" up to, but not including, "to"
	bytes    int64
	segment  uint64 // the number of the segment's first record
	off      int64
}

// Read fills the chunk with the committed records that follow those it has returned before. The first Read starts at
// the cursor. Read leaves out records that are done. The records of a chunk have at most maxBytes bytes together, each
// with a head of 24 bytes; but a chunk has at least one record. Read does not wait: a chunk without records means that
// there are none. The payloads are valid until the next Read with the same chunk.
//
// Read skips damaged records, counts them and marks them as done. It returns an error if a file cannot be read. A place
// in a file that fails three times in a row counts as damaged. After Close the error is ErrClosed.
func (l *Log) Read(chunk *Chunk, maxBytes int) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	chunk.Records = chunk.Records[:0]
	if int64(cap(chunk.buf)) > 4*max(int64(maxBytes), windowSize) {
		chunk.buf = nil
	}
	if l.reader.scanner != nil {
		l.reader.scanner.window = nil // it may be the memory of another chunk
	}
	defer func() { l.passed.Store(l.reader.at.last + 1) }()
	for {
		p, ok, err := l.locate()
		if !ok || err != nil {
			return err
		}
		exhausted, err := l.readSegment(p, chunk, int64(maxBytes))
		l.leaveOutDone(chunk)
		switch {
		case len(chunk.Records) > 0:
			return nil
		case err != nil:
			return err
		case exhausted && !l.leave(p):
			return nil
		}
	}
}

// Rewind makes the next Read start at the cursor again, so that Read returns the records that are not done once more.
func (l *Log) Rewind() {
	l.reading.Lock()
	defer l.reading.Unlock()
	l.reader.placed = false
	l.passed.Store(0)
}

// locate returns the segment that the reader is in. It places the reader at the cursor if the reader has no position,
// or a position before the cursor. It reports false if there is nothing to read.
func (l *Log) locate() (portion, bool, error) {
	r := &l.reader
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return portion{}, false, ErrClosed
	}
	if l.spool.directory.taken.Load() {
		return portion{}, false, ErrInUse
	}
	if len(l.segments) == 0 {
		return portion{}, false, nil
	}
	i := 0
	if r.placed && max(r.at.last+1, r.from) >= l.cursor {
		// The log may have removed the segment that the reader was in: all its records were done, or its file is gone.
		i = slices.IndexFunc(l.segments, func(s segment) bool { return s.first >= r.at.segment })
		if i < 0 {
			return portion{}, false, nil
		}
		if first := l.segments[i].first; first > r.at.segment {
			r.at = position{segment: first, last: first - 1}
		}
	} else {
		i = r.seek(l.segments, l.cursor)
	}
	s := l.segments[i]
	p := portion{segment: s, path: l.path(s), committed: l.committed, limit: l.next, last: i+1 == len(l.segments)}
	if !p.last {
		p.next = l.segments[i+1]
		p.limit = p.next.first
	}
	return p, true, nil
}

// seek places the reader at the last known position before the cursor, and returns the index of the segment. The cursor
// is never before the oldest segment.
func (r *reader) seek(segments []segment, cursor uint64) int {
	i := len(segments) - 1
	for i > 0 && segments[i].first > cursor {
		i--
	}
	r.placed, r.from = true, cursor
	r.at = position{segment: segments[i].first, last: segments[i].first - 1}
	// Of the positions before the cursor only the last will be used again.
	n := 0
	for n < len(r.positions) && r.positions[n].last < cursor {
		n++
	}
	if n > 0 && r.positions[n-1].segment == r.at.segment {
		r.at = r.positions[n-1]
	}
	r.positions = slices.Delete(r.positions, 0, max(n-1, 0))
	return i
}

// remember keeps the position for Rewind if it is far enough from the last one.
func (r *reader) remember() {
	if n := len(r.positions); n > 0 {
		last := r.positions[n-1]
		near := last.segment == r.at.segment && r.at.off-last.off < positionsApart
		if n == positionsKept || !last.before(r.at) || near {
			return
		}
	}
	r.positions = append(r.positions, r.at)
}

// openSegment opens the segment for the scanner, unless it is open.
func (l *Log) openSegment(p portion) error {
	r := &l.reader
	if r.scanner == nil || r.opened != p.first {
		l.closeReader()
		f, err := l.spool.fs.open(p.path)
		if err != nil {
			return err
		}
		r.scanner, r.opened = &scanner{file: f}, p.first
		l.opened.Store(p.first)
	}
	r.scanner.behind = func() uint64 { return l.endOf(p) }
	r.scanner.size, r.scanner.limit = p.size, p.limit
	r.scanner.tolerant = r.failures >= patience
	return nil
}

// closeReader closes the segment that is being read, if there is one. The caller holds reading.
func (l *Log) closeReader() {
	if r := &l.reader; r.scanner != nil {
		l.opened.Store(0)
		_ = r.scanner.file.Close() // nothing was written
		r.scanner = nil
	}
}

// endOf returns the number behind the last record that was committed to a segment.
func (l *Log) endOf(p portion) uint64 {
	if p.last {
		return p.committed
	}
	return l.follows(p.next)
}

// readSegment reads records of the segment, and reports whether it has reached the segment's end.
func (l *Log) readSegment(p portion, chunk *Chunk, maxBytes int64) (exhausted bool, err error) {
	r := &l.reader
	err = l.openSegment(p)
	if errors.Is(err, fs.ErrNotExist) {
		l.abandon(p.first)
		r.at.off, r.missing = p.size, p.first
		return true, nil
	}
	if err != nil {
		return false, err
	}
	r.remember()
	before := r.at
	exhausted, err = l.scanSegment(p, chunk, maxBytes)
	switch {
	case r.at != before:
		r.failures = 0
	case err != nil:
		r.failures++
	}
	return exhausted, err
}

// abandon ends the writing to a segment whose file is gone.
func (l *Log) abandon(first uint64) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.active != nil && l.active.first == first {
		l.closeActive()
	}
}

// scanSegment reads records into the chunk until the chunk is full or the segment ends.
func (l *Log) scanSegment(p portion, chunk *Chunk, maxBytes int64) (exhausted bool, err error) {
	r := &l.reader
	sc := r.scanner
	if r.at.off == 0 {
		if err := l.readHeader(p); err != nil {
			return false, err
		}
	}
	for room := maxBytes; r.at.off < p.size; {
		if !sc.holds(r.at.off) {
			if len(chunk.Records) > 0 && sc.sums == nil {
				return false, nil
			}
			if len(chunk.Records) == 0 {
				if err := l.load(chunk, r.at.off, min(max(maxBytes, windowSize), p.size-r.at.off)); err != nil {
					return false, err
				}
			}
		}
		rec, ok, err := sc.next(r.at.off, r.at.last)
		if err != nil {
			return false, err
		}
		if !ok {
			return true, nil
		}
		if rec.off > r.at.off {
			damage := loss{from: r.at.last + 1, to: rec.seq, segment: p.first, off: r.at.off}
			damage.bytes = rec.off - damage.off
			if !p.last && damage.from >= l.endOf(p) && rec.begin <= damage.from {
				l.tear(damage, rec.off) // a failed write has left it
			} else {
				l.lose(damage, rec.off)
			}
			r.at.off, r.at.last = rec.off, rec.seq-1
		}
		if rec.seq >= r.from {
			size := rec.end() - rec.off
			if len(chunk.Records) > 0 && size > room {
				return false, nil
			}
			payload, inWindow := sc.inWindow(rec.off+headSize, rec.length)
			if !inWindow && len(chunk.Records) > 0 {
				return false, nil
			}
			if !inWindow {
				if err := l.load(chunk, rec.off, size); err != nil {
					return false, err
				}
				payload = sc.window[headSize:]
			}
			// The scanner may have read these bytes earlier to check them: the disk may return other bytes now.
			if (!inWindow || sc.sums != nil) && crc32.Update(rec.head, castagnoli, payload) != rec.sum {
				l.closeReader()
				return false, errUnstable
			}
			chunk.Records = append(chunk.Records, Record{Seq: rec.seq, Payload: payload})
			room -= size
		}
		r.at.off, r.at.last = rec.end(), rec.seq
	}
	return true, nil
}

// readHeader skips the header. A damaged header costs no record. A file that is too short for a header is handled by
// leave. If the segment has another version, readHeader returns an error. Read keeps returning it, and does not pass
// the segment.
func (l *Log) readHeader(p portion) error {
	if p.size < headerSize {
		return nil
	}
	var data [headerSize]byte
	if err := l.reader.scanner.readAt(data[:], 0); err != nil {
		return err
	}
	damage := loss{from: p.first, to: p.first, bytes: headerSize, segment: p.first}
	switch version, _, ok := decodeHeader(data[:]); {
	case ok && version != segmentVersion:
		return fmt.Errorf("spool: %s has version %d, and this is version %d: %w",
			p.path, version, segmentVersion, errVersion)
	case !ok && !p.last && l.endOf(p) <= p.first:
		l.tear(damage, headerSize) // no record of the segment was ever acknowledged
	case !ok:
		l.lose(damage, headerSize)
	}
	l.reader.at.off = headerSize
	return nil
}

// load reads a window for the scanner into the chunk's memory.
func (l *Log) load(chunk *Chunk, off, size int64) error {
	if int64(cap(chunk.buf)) < size {
		chunk.buf = make([]byte, size)
	}
	return l.reader.scanner.load(chunk.buf[:size], off)
}

// leave moves the reader from the end of a segment to the next one, and reports whether there is a next one. It counts
// the records that are missing at the end.
func (l *Log) leave(p portion) bool {
	r := &l.reader
	end := l.endOf(p)
	rest := p.size - r.at.off
	switch {
	case r.at.last+1 < end:
		l.lose(loss{from: r.at.last + 1, to: end, bytes: rest, segment: p.first, off: r.at.off}, p.size)
	case rest > 0:
		// Read has returned all records that were acknowledged. A failed write has left the rest.
		l.tear(loss{bytes: rest, segment: p.first}, p.size)
	}
	r.at.off, r.at.last = p.size, max(r.at.last, end-1)
	if p.last {
		return false
	}
	// The numbers between two segments belong to commits that failed.
	l.DoneRange(r.at.last+1, p.next.first)
	r.at = position{segment: p.next.first, last: p.next.first - 1}
	return true
}

// follows returns the number behind the last record that was committed before the segment was made. It reads the number
// from the segment's header. If that header cannot be read, the header of the next segment may tell that nothing was
// committed to this one. Otherwise follows returns the number of the segment's own first record.
func (l *Log) follows(s segment) uint64 {
	if s.follows > 0 {
		return s.follows
	}
	if follows, ok := l.readFollows(s); ok {
		return follows
	}
	l.mu.Lock()
	i := slices.IndexFunc(l.segments, func(next segment) bool { return next.first > s.first })
	next := segment{first: math.MaxUint64, follows: math.MaxUint64}
	if i >= 0 {
		next = l.segments[i]
	}
	l.mu.Unlock()
	return min(s.first, l.follows(next))
}

// readFollows reads the number for follows from the segment's header, and reports whether it could.
func (l *Log) readFollows(s segment) (follows uint64, ok bool) {
	f, err := l.spool.fs.open(l.path(s))
	if err != nil {
		return 0, false
	}
	defer f.Close() //nolint:errcheck // nothing was written
	var data [headerSize]byte
	if _, err := f.ReadAt(data[:], 0); err != nil {
		return 0, false
	}
	_, follows, ok = decodeHeader(data[:])
	return follows, ok && follows <= s.first
}

// tear passes the rest of a write that was never acknowledged. It counts the bytes before the offset end only once.
func (l *Log) tear(what loss, end int64) {
	if at := (position{segment: what.segment, off: end}); l.reader.counted.before(at) {
		l.reader.counted = at
		l.mu.Lock()
		l.damage.TornBytes += what.bytes
		l.mu.Unlock()
	}
	l.DoneRange(what.from, what.to)
}

// lose marks records that cannot be read as done. It counts a record only if it was not done before, and the bytes
// before the offset end only once.
func (l *Log) lose(what loss, end int64) {
	r := &l.reader
	at := position{segment: what.segment, off: end}
	counted := !r.counted.before(at)
	if !counted {
		r.counted = at
	}
	if counted || max(what.from, r.from) > what.to {
		what.bytes = 0
	}
	l.mu.Lock()
	records, moved := l.markCommitted(span{what.from, what.to})
	if r.missing == what.segment {
		l.damage.LostRecords += records
	}
	l.mu.Unlock()
	if records > 0 || what.bytes > 0 {
		l.skip(what, records)
	}
	if moved {
		l.advance()
	}
}

// skip counts a loss of records, and logs the first loss.
func (l *Log) skip(what loss, records uint64) {
	l.mu.Lock()
	first := l.damage.CorruptRegions == 0
	l.damage.CorruptRegions++
	l.damage.CorruptRecords += records
	l.damage.CorruptBytes += what.bytes
	l.mu.Unlock()
	if first {
		l.log.Error("records of a log in the spool cannot be read and were skipped: check the disk, and whether "+
			"anything else writes to its files; what else is found until the next start is only counted",
			zap.Uint64("records", records), zap.Uint64("first_record", what.from), zap.Int64("bytes", what.bytes),
			zap.String("directory", l.dir), zap.String("segment", segmentName(max(what.segment, 1))),
			zap.Int64("offset", what.off))
	}
}

// leaveOutDone removes the records that are done from the chunk.
func (l *Log) leaveOutDone(chunk *Chunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(chunk.Records) == 0 || len(l.done) == 0 && chunk.Records[0].Seq >= l.cursor {
		return
	}
	chunk.Records = slices.DeleteFunc(chunk.Records, func(r Record) bool {
		return r.Seq < l.cursor || l.done.contains(r.Seq)
	})
}
