package spool

import (
	"errors"
	"hash/crc32"
	"io/fs"
	"slices"

	"go.uber.org/zap"
)

// Record is a record that was read.
type Record struct {
	Seq     uint64
	Payload []byte
}

// Chunk is what a Read has read. The zero Chunk is ready for use; it keeps its memory from Read to Read.
type Chunk struct {
	Records []Record
	buf     []byte
}

const (
	// windowSize is the least that is read at a time.
	windowSize = 64 << 10
	// patience is how often a place of a file must fail to be read before it counts as damaged.
	patience = 3
	// placesKept and placesApart say how many places are remembered for Rewind, and how far from each other.
	placesKept  = 256
	placesApart = 1 << 20
)

var errUnstable = errors.New("spool: a segment reads differently from time to time")

// place is where in a log a record is expected.
type place struct {
	segment uint64 // its first record
	off     int64
	last    uint64 // the record before
}

func (p place) before(other place) bool {
	return p.segment < other.segment || p.segment == other.segment && p.off < other.off
}

// reader is how far a log was read.
type reader struct {
	placed   bool
	at       place
	from     uint64 // what is before it is passed over
	scanner  *scanner
	opened   uint64  // the segment that the scanner reads
	failures int     // how often in a row the disk failed to read at this place
	places   []place // where Rewind may go
	counted  place   // damage before it was counted
	missing  uint64  // the segment that was found to be gone
}

// portion is what a reader may see of a segment.
type portion struct {
	segment
	path      string
	committed uint64 // the log's
	limit     uint64 // its records have numbers below
	next      segment
	last      bool // whether there is no next one
}

// loss is what could not be read.
type loss struct {
	from, to uint64 // the numbers of the records, to excluded
	bytes    int64
	segment  uint64
	off      int64
}

// Read fills the chunk with the committed records that follow those it has returned before, of at most maxBytes with a head
// of 20 bytes each, but at least one if there is any. It starts at the cursor, leaves out what is done, and does not wait: no
// records means that there are none. The payloads are valid until the next Read with the same chunk.
//
// Records that are damaged are skipped, counted, and count as done. A file that cannot be read is an error; a place in a file
// that fails three times in a row is damaged. After Close the error is ErrClosed.
func (l *Log) Read(chunk *Chunk, maxBytes int) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	chunk.Records = chunk.Records[:0]
	if int64(cap(chunk.buf)) > 4*max(int64(maxBytes), windowSize) {
		chunk.buf = nil
	}
	if l.reader.scanner != nil {
		l.reader.scanner.window = nil // it may be of another chunk
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

// Rewind makes the next Read start at the cursor again.
func (l *Log) Rewind() {
	l.reading.Lock()
	defer l.reading.Unlock()
	l.reader.placed = false
	l.passed.Store(0)
}

// locate returns the segment that the reader is in, after having placed it. It reports false if there is nothing to be read.
func (l *Log) locate() (portion, bool, error) {
	r := &l.reader
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return portion{}, false, ErrClosed
	}
	if l.spool.directory.taken.Load() {
		return portion{}, false, errInUse
	}
	if len(l.segments) == 0 {
		return portion{}, false, nil
	}
	i := 0
	if r.placed && max(r.at.last+1, r.from) >= l.cursor {
		// The segment that the reader was in is not there any more if everything in it is done, or if its file is gone.
		i = slices.IndexFunc(l.segments, func(s segment) bool { return s.first >= r.at.segment })
		if i < 0 {
			return portion{}, false, nil
		}
		if first := l.segments[i].first; first > r.at.segment {
			r.at = place{segment: first, last: first - 1}
		}
	} else {
		i = r.seek(l.segments, l.cursor)
	}
	p := portion{segment: l.segments[i], path: l.path(l.segments[i]), committed: l.committed, limit: l.next, last: i+1 == len(l.segments)}
	if !p.last {
		p.next = l.segments[i+1]
		p.limit = p.next.first
	}
	return p, true, nil
}

// seek places the reader so that it comes to the cursor, and returns the index of its segment. The cursor is never before the
// oldest segment.
func (r *reader) seek(segments []segment, cursor uint64) int {
	i := len(segments) - 1
	for i > 0 && segments[i].first > cursor {
		i--
	}
	r.placed, r.from = true, cursor
	r.at = place{segment: segments[i].first, last: segments[i].first - 1}
	// Places before the last one that is before the cursor are of no more use.
	n := 0
	for n < len(r.places) && r.places[n].last < cursor {
		n++
	}
	if n > 0 && r.places[n-1].segment == r.at.segment {
		r.at = r.places[n-1]
	}
	r.places = slices.Delete(r.places, 0, max(n-1, 0))
	return i
}

// remember keeps the place for Rewind if it is far enough from the last.
func (r *reader) remember() {
	if n := len(r.places); n > 0 {
		last := r.places[n-1]
		if n == placesKept || !last.before(r.at) || last.segment == r.at.segment && r.at.off-last.off < placesApart {
			return
		}
	}
	r.places = append(r.places, r.at)
}

// openSegment makes the scanner one of this portion.
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

// closeReader closes the segment that is read, if there is one. The caller holds reading.
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

// readSegment reads from the segment, and reports whether there is nothing more in it.
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

// abandon ends the writing of a segment whose file is gone: what would be written there could not be read.
func (l *Log) abandon(first uint64) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.active != nil && l.active.first == first {
		l.closeActive()
	}
}

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
			l.lose(loss{from: r.at.last + 1, to: rec.seq, bytes: rec.off - r.at.off, segment: p.first, off: r.at.off}, rec.off)
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
			// What was found valid may have been read before this, or not be remembered as it is now.
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

// readHeader passes the header. That it is damaged loses no record; what is too short for records is left to leave.
func (l *Log) readHeader(p portion) error {
	if p.size < headerSize {
		return nil
	}
	var data [headerSize]byte
	if err := l.reader.scanner.readAt(data[:], 0); err != nil {
		return err
	}
	if _, ok := decodeHeader(data[:]); !ok {
		l.lose(loss{from: p.first, to: p.first, bytes: headerSize, segment: p.first}, headerSize)
	}
	l.reader.at.off = headerSize
	return nil
}

// load places the scanner's window in the chunk's memory.
func (l *Log) load(chunk *Chunk, off, size int64) error {
	if int64(cap(chunk.buf)) < size {
		chunk.buf = make([]byte, size)
	}
	return l.reader.scanner.load(chunk.buf[:size], off)
}

// leave ends the reading of a segment in which there is nothing more, and reports whether there is another behind it.
func (l *Log) leave(p portion) bool {
	r := &l.reader
	end := l.endOf(p)
	rest := p.size - r.at.off
	switch {
	case r.at.last+1 < end:
		l.lose(loss{from: r.at.last + 1, to: end, bytes: rest, segment: p.first, off: r.at.off}, p.size)
	case rest > 0 && r.counted.before(place{segment: p.first, off: p.size}):
		// All that was acknowledged was read: this is what a write that failed has left.
		r.counted = place{segment: p.first, off: p.size}
		l.mu.Lock()
		l.damage.TornBytes += rest
		l.mu.Unlock()
	}
	r.at.off, r.at.last = p.size, max(r.at.last, end-1)
	if p.last {
		return false
	}
	// Numbers between the segments were given to records that failed.
	l.DoneRange(r.at.last+1, p.next.first)
	r.at = place{segment: p.next.first, last: p.next.first - 1}
	return true
}

// follows returns the number behind the last record that was committed before the segment was made. If its header does not tell,
// that is the number of its own first.
func (l *Log) follows(s segment) uint64 {
	if s.follows > 0 {
		return s.follows
	}
	f, err := l.spool.fs.open(l.path(s))
	if err != nil {
		return s.first
	}
	defer f.Close() //nolint:errcheck // nothing was written
	var data [headerSize]byte
	if _, err := f.ReadAt(data[:], 0); err != nil {
		return s.first
	}
	if follows, ok := decodeHeader(data[:]); ok && follows <= s.first {
		return follows
	}
	return s.first
}

// lose passes over what cannot be read, up to the offset end: the records count as done. A record is counted as lost once, and only if
// it was not delivered before.
func (l *Log) lose(what loss, end int64) {
	r := &l.reader
	at := place{segment: what.segment, off: end}
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

// skip counts a loss of so many records, and logs the first.
func (l *Log) skip(what loss, records uint64) {
	l.mu.Lock()
	first := l.damage.CorruptRegions == 0
	l.damage.CorruptRegions++
	l.damage.CorruptRecords += records
	l.damage.CorruptBytes += what.bytes
	l.mu.Unlock()
	if first {
		l.log.Error("records of a log in the spool cannot be read and were skipped: check the disk, and whether anything else writes to its files; "+
			"what else is found until the next start is only counted",
			zap.Uint64("records", records), zap.Uint64("first_record", what.from), zap.Int64("bytes", what.bytes),
			zap.String("directory", l.dir), zap.String("segment", segmentName(max(what.segment, 1))), zap.Int64("offset", what.off))
	}
}

// leaveOutDone removes records that are done from the chunk.
func (l *Log) leaveOutDone(chunk *Chunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(chunk.Records) == 0 || len(l.done) == 0 && chunk.Records[0].Seq >= l.cursor {
		return
	}
	chunk.Records = slices.DeleteFunc(chunk.Records, func(r Record) bool { return r.Seq < l.cursor || l.done.contains(r.Seq) })
}
