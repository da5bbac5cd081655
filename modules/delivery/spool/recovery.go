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
	// The cursor may be behind "committed". The numbers between the two belong to commits that failed: they are no
	// loss.
	l.committed = m.committed
	if l.committed == 0 {
		l.committed = l.cursor
	}
	l.next = max(l.cursor, l.committed)
	done := segments[:gone:gone] // capped, so that an append leaves the kept segments as they are
	segments, empty, err := l.findLast(segments[gone:], m.committed)
	if err != nil {
		return err
	}
	done = append(done, empty...)
	l.removeAtOpen(done)
	l.segments = segments
	for _, s := range segments {
		l.bytes += s.size
	}
	l.spool.used.Add(l.bytes)
	l.undone = max(l.cursor, l.committed, l.maybeEnd) - l.cursor
	if l.maybeEnd == 0 {
		// A write that was cut off has taken numbers. They are no records, and nobody will deliver them.
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

// removeAtOpen removes segments whose records are all done, once that is durable: an earlier process may have been
// killed before its cursor was durable.
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

// findLast finds the last segment that holds records, and its end. It returns the segments up to that one, and the
// segments that can be removed. Records with numbers below known were committed for certain; known is 0 if the cursor
// could not be read.
func (l *Log) findLast(segments []segment, known uint64) (kept, empty []segment, err error) {
	kept = segments
	for cuts := known > 0; len(kept) > 0; {
		last := &kept[len(kept)-1]
		if err := l.findEnd(last, known, cuts); err != nil {
			return nil, nil, err
		}
		// A segment whose acknowledged records were cut off stays until Read has counted them, although it is empty.
		// Its header says which numbers before its own were never acknowledged.
		holds := last.size > headerSize || known > last.first
		if l.maybeEnd > 0 || holds && l.cursor < l.committed {
			break
		}
		// The log ends in the segment before. That segment was complete when this one was made, or had a failed write
		// at its end. Without the header of this one nobody knows which, and Open must give up no record by mistake.
		follows, ok := l.readFollows(*last)
		known, cuts = max(known, follows), ok
		kept = kept[:len(kept)-1]
	}
	return kept, segments[len(kept):], nil
}

// findEnd finds the end of the last segment. Records with numbers below known were committed for certain. If one of
// these is damaged at the end of the segment, findEnd leaves the damage to Read, which counts it. Damage behind them is
// a write that was never acknowledged, and findEnd cuts it off. If cuts is set, findEnd cuts it off even if whole
// records of the same write are behind the damage.
func (l *Log) findEnd(s *segment, known uint64, cuts bool) error {
	end, next, whole, err := l.scan(*s, known, cuts)
	if err != nil {
		return err
	}
	if next > s.first {
		l.committed = max(l.committed, next)
	} else if follows, ok := l.readFollows(*s); ok {
		l.committed = max(l.committed, follows)
	}
	l.next = max(l.next, l.committed, s.first)
	if !whole {
		// The unreadable part may hold many records, and in another version records may be small. Their numbers are not
		// used again.
		l.next = max(l.next, s.first+uint64(s.size)+1)
		l.maybeEnd = l.next
		return nil
	}
	if end <= headerSize {
		// If the file cannot be removed, the next segment needs another name.
		l.next = max(l.next, s.first+1)
	}
	if end < s.size && next >= known {
		l.damage.TornBytes += s.size - end
		l.log.Info("a write that was cut off is removed from the end of a log: it was never acknowledged",
			zap.Int64("bytes", s.size-end))
		if err := l.editLast(*s, func(f file) error { return f.Truncate(end) }); err != nil {
			l.log.Warn("the end of a log could not be cut off: it is ignored", zap.Error(err))
		}
		s.size = end
	}
	// A process that was killed may not have synced its last records, the name of their file, or a cut. From now on
	// they count, and the next records get the numbers behind them.
	if err := errors.Join(l.editLast(*s, file.Sync), l.spool.fs.syncDir(l.dir)); err != nil {
		l.log.Warn("the end of a log could not be synced", zap.Error(err))
	}
	return nil
}

// scan reads a segment. It returns where the last record ends, the number behind that record, and whether the whole
// file could be read. Records with numbers below known were committed for certain. The error is fs.ErrNotExist or nil.
//
// A commit is written only after the commit before it was synced, and all its records are acknowledged together. If all
// records behind a hole belong to the commit that the hole is in, that commit was the last, and is torn. With cuts set,
// the segment ends at such a hole. If a record of a later commit is behind the hole, the records in the hole had been
// synced: the hole is damage, and scan leaves it to Read.
func (l *Log) scan(s segment, known uint64, cuts bool) (end int64, next uint64, whole bool, err error) {
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
	_ = sc.load(window, 0) // a tolerant scanner has no errors
	if version, _, ok := decodeHeader(window); ok && version != segmentVersion {
		return s.size, s.first, false, nil
	}
	end, next = min(headerSize, s.size), s.first
	var hole struct {
		off int64
		seq uint64 // the number of the first record in it; 0 if there is no hole that may be a torn write
	}
	for {
		if !sc.holds(end) {
			_ = sc.load(window[:min(int64(len(window)), s.size-end)], end)
		}
		r, ok, _ := sc.next(end, next-1)
		if !ok {
			break
		}
		if r.begin > hole.seq {
			hole.seq = 0
		}
		if cuts && hole.seq == 0 && r.seq > next && next >= max(known, r.begin) {
			hole.off, hole.seq = end, next
		}
		end, next = r.end(), r.seq+1
	}
	if hole.seq > 0 && !sc.unreadable {
		end, next = hole.off, hole.seq
	}
	return end, next, !sc.unreadable, nil
}

// editLast opens the file of the last segment, and calls change with it.
func (l *Log) editLast(s segment, change func(file) error) error {
	f, err := l.spool.fs.edit(l.path(s))
	if err != nil {
		return err
	}
	return errors.Join(change(f), f.Close())
}

// findLostBeginning counts the records between the cursor and the oldest segment as lost: their files are gone.
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

// gaps returns the numbers between segments, which belong to failed commits. It reads the headers of all segments.
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
