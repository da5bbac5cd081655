package spool

import (
	"cmp"
	"errors"
	"slices"

	"go.uber.org/zap"
)

// open reads the cursor, removes what is behind it, and finds the end of the last segment.
func (l *Log) open() error {
	l.exists.Store(true)
	segments, err := l.listSegments()
	if err != nil {
		return err
	}
	known := l.mark.load()
	m := l.mark.saved
	if !known {
		if len(segments) > 0 {
			l.damage.UnreadableCursors++
			l.log.Warn("the cursor of a log cannot be read: records that were delivered may be delivered again", zap.String("file", l.mark.path))
			m.cursor = segments[0].first
		}
		m.cursor = max(m.cursor, 1)
	}
	l.cursor = m.cursor
	for len(segments) > 1 && segments[1].first <= l.cursor {
		l.removeAtOpen(segments[0])
		segments = segments[1:]
	}
	l.committed = max(l.cursor, m.committed)
	l.next = l.committed
	if len(segments) > 0 {
		last := &segments[len(segments)-1]
		l.findEnd(last, m.committed)
		if l.perhaps == 0 && (last.size <= headerSize || l.cursor >= l.committed) {
			l.removeAtOpen(*last)
			segments = segments[:len(segments)-1]
		}
	}
	l.segments = segments
	for _, s := range segments {
		l.bytes += s.size
	}
	l.spool.used.Add(l.bytes)
	l.undone = max(l.committed, l.perhaps) - l.cursor
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
		if err != nil {
			return nil, err
		}
		segments = append(segments, segment{first: first, size: info.Size()})
	}
	slices.SortFunc(segments, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	return segments, nil
}

func (l *Log) removeAtOpen(s segment) {
	if err := l.spool.fs.remove(l.path(s)); err != nil {
		l.log.Warn("a segment of the spool that is done with cannot be removed: it takes space until the next start", zap.Error(err))
	}
}

// findEnd finds where the last segment ends: known is what the log had committed for certain. A tail behind that was never
// acknowledged, and is cut off. A tail that was, but is damaged, is left to Read, which counts it.
func (l *Log) findEnd(s *segment, known uint64) {
	end, next, whole := l.scan(*s)
	if next == s.first {
		next = l.follows(*s)
	}
	l.committed = max(l.committed, next)
	l.next = max(l.next, l.committed, s.first)
	if !whole {
		// What cannot be read may hold as many records as have room in it; their numbers are not used again.
		l.next = max(l.next, s.first+uint64(s.size/headSize)+1)
		l.perhaps = l.next
		return
	}
	if end == s.size || next < known {
		return
	}
	l.damage.TornBytes += s.size - end
	l.log.Info("a write that was cut off is removed from the end of a log: it was never acknowledged", zap.Int64("bytes", s.size-end))
	if err := l.truncate(*s, end); err != nil {
		l.log.Warn("the end of a log could not be cut off: it is ignored", zap.Error(err))
	}
	s.size = end
	if end <= headerSize {
		// Should it be impossible to remove the file, then the next one must have another name.
		l.next = max(l.next, s.first+1)
	}
}

// scan reads a segment and returns where its last record ends and the number behind that, and whether all could be read.
func (l *Log) scan(s segment) (end int64, next uint64, whole bool) {
	f, err := l.spool.fs.open(l.path(s))
	if err != nil {
		return s.size, s.first, false
	}
	defer f.Close() //nolint:errcheck // nothing was written
	sc := &scanner{file: f, size: s.size, limit: maxSeq, tolerant: true}
	window := make([]byte, min(windowSize, s.size))
	end, next = min(headerSize, s.size), s.first
	for {
		if !sc.holds(end) {
			_ = sc.load(window[:min(int64(len(window)), s.size-end)], end) // a tolerant scanner has no errors
		}
		r, ok, _ := sc.next(end, next-1)
		if !ok {
			return end, next, !sc.unreadable
		}
		end, next = r.end(), r.seq+1
	}
}

func (l *Log) truncate(s segment, size int64) error {
	f, err := l.spool.fs.edit(l.path(s))
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// findLostBeginning counts records between the cursor and the oldest segment: their files are gone.
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
	if end > l.cursor {
		l.skip(loss{from: l.cursor, to: end})
	}
	l.markCommitted(span{l.cursor, oldest})
}
