package spool

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"

	"go.uber.org/zap"
)

// open reads the cursor, removes the segments before it, and finds the end of the last segment. The error is
// fs.ErrNotExist if another process removes files meanwhile.
func (l *Log) open() error {
	l.exists.Store(true)
	segments, err := l.listSegments()
	if err != nil {
		return err
	}
	known := l.cursorFile.load()
	m := l.cursorFile.saved
	if !known {
		if len(segments) > 0 {
			l.damage.UnreadableCursors++
			l.log.Warn("the cursor of a log cannot be read: records that were delivered may be delivered again",
				zap.String("file", l.cursorFile.path))
			m.cursor = segments[0].first
		}
		m.cursor = max(m.cursor, 1)
	}
	l.cursor = m.cursor
	gone := 0
	for gone+1 < len(segments) && segments[gone+1].first <= l.cursor {
		gone++
	}
	done := segments[:gone:gone] // what is appended must not go into the place of a segment that is kept
	segments = segments[gone:]
	l.committed = max(l.cursor, m.committed)
	l.next = l.committed
	if len(segments) > 0 {
		last := &segments[len(segments)-1]
		if err := l.findEnd(last, m.committed); err != nil {
			return err
		}
		// A segment whose acknowledged records were cut off stays until Read has counted them, although it is empty:
		// its header says which numbers before its own were never acknowledged.
		empty := last.size <= headerSize && m.committed <= last.first
		if l.maybeEnd == 0 && (empty || l.cursor >= l.committed) {
			done = append(done, *last)
			segments = segments[:len(segments)-1]
		}
	}
	l.removeAtOpen(done)
	l.segments = segments
	for _, s := range segments {
		l.bytes += s.size
	}
	l.spool.used.Add(l.bytes)
	l.undone = max(l.committed, l.maybeEnd) - l.cursor
	if l.maybeEnd == 0 {
		// Numbers that a write has taken which was cut off are no records, and nobody will deliver them.
		l.markFailed(span{l.committed, l.next})
	}
	l.findLostBeginning()
	return nil
}

func (l *Log) listSegments() ([]segment, error) {
	entries, err := l.spool.fs.list(l.dir)
	if err != nil {
		return nil, err
	}
	var segments []segment
	for _, entry := range entries {
		first, ok := parseSegmentName(entry.Name())
		if !ok || !entry.Type().IsRegular() {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process has removed it meanwhile
		}
		if err != nil {
			return nil, err
		}
		segments = append(segments, segment{first: first, size: info.Size()})
	}
	slices.SortFunc(segments, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	return segments, nil
}

// removeAtOpen removes segments that are done with, once it is durable that they are: an earlier process may have
// been killed before the cursor was.
func (l *Log) removeAtOpen(segments []segment) {
	if len(segments) == 0 {
		return
	}
	err := l.cursorFile.secure(checkpoint{cursor: l.cursor, committed: l.committed})
	for i := 0; i < len(segments) && err == nil; i++ {
		err = l.spool.fs.remove(l.path(segments[i]))
	}
	if err != nil {
		l.log.Warn("segments of the spool that are done with cannot be removed: they take space until the next start",
			zap.Error(err))
	}
}

// findEnd finds out where the last segment ends. Records with numbers below known were committed for certain. If one
// of these is damaged at the end of the segment, findEnd leaves that to Read, which counts it. Damage behind them is
// a write that was never acknowledged: findEnd cuts it off.
func (l *Log) findEnd(s *segment, known uint64) error {
	end, next, whole, err := l.scan(*s, known)
	if err != nil {
		return err
	}
	if next == s.first {
		next = l.follows(*s)
	}
	l.committed = max(l.committed, next)
	l.next = max(l.next, l.committed, s.first)
	if !whole {
		// The part that cannot be read may hold as many records as have room in the file. Their numbers are not used
		// again.
		l.next = max(l.next, s.first+uint64(s.size/headSize)+1)
		l.maybeEnd = l.next
		return nil
	}
	if next > known {
		// A process that was killed may have written these records and not synced them. From now on they are there.
		if err := l.editLast(*s, file.Sync); err != nil {
			l.log.Warn("the end of a log could not be synced", zap.Error(err))
		}
	}
	if end == s.size || next < known {
		return nil
	}
	l.damage.TornBytes += s.size - end
	l.log.Info("a write that was cut off is removed from the end of a log: it was never acknowledged",
		zap.Int64("bytes", s.size-end))
	if err := l.editLast(*s, func(f file) error { return f.Truncate(end) }); err != nil {
		l.log.Warn("the end of a log could not be cut off: it is ignored", zap.Error(err))
	}
	s.size = end
	if end <= headerSize {
		// If the file cannot be removed, the next one needs another name.
		l.next = max(l.next, s.first+1)
	}
	return nil
}

// scan reads a segment. It returns where the last record ends, the number behind that record, and whether the whole
// file could be read. Records with numbers below known were committed for certain. The error is fs.ErrNotExist, or
// nil.
func (l *Log) scan(s segment, known uint64) (end int64, next uint64, whole bool, err error) {
	f, err := l.spool.fs.open(l.path(s))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, false, err
	}
	if err != nil {
		return s.size, s.first, false, nil
	}
	defer f.Close() //nolint:errcheck // nothing was written
	sc := &scanner{file: f, size: s.size, limit: maxSeq, behind: func() uint64 { return known }, tolerant: true}
	window := make([]byte, min(windowSize, s.size))
	end, next = min(headerSize, s.size), s.first
	for {
		if !sc.holds(end) {
			_ = sc.load(window[:min(int64(len(window)), s.size-end)], end) // a tolerant scanner has no errors
		}
		r, ok, _ := sc.next(end, next-1)
		if !ok {
			return end, next, !sc.unreadable, nil
		}
		end, next = r.end(), r.seq+1
	}
}

// editLast does something to the file of the last segment.
func (l *Log) editLast(s segment, change func(file) error) error {
	f, err := l.spool.fs.edit(l.path(s))
	if err != nil {
		return err
	}
	return errors.Join(change(f), f.Close())
}

// findLostBeginning counts records between the cursor and the oldest segment as lost: their files are gone.
func (l *Log) findLostBeginning() {
	oldest := l.committed
	if len(l.segments) > 0 {
		oldest = l.segments[0].first
	}
	if l.cursor >= oldest {
		return
	}
	end := oldest
	if len(l.segments) > 0 {
		end = max(l.cursor, l.follows(l.segments[0]))
	}
	if lost, _ := l.markCommitted(span{l.cursor, end}); lost > 0 {
		l.skip(loss{from: end - lost, to: end}, lost)
	}
	l.markCommitted(span{end, oldest})
}

// gaps returns the numbers between segments, which belong to commits that failed. It reads the headers of all segments.
func (l *Log) gaps() []span {
	l.mu.Lock()
	segments := slices.Clone(l.segments)
	l.mu.Unlock()
	var gaps []span
	for _, s := range segments {
		gaps = append(gaps, span{l.follows(s), s.first})
	}
	return gaps
}
