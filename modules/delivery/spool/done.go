package spool

import (
	"errors"
	"io/fs"
	"slices"
	"sort"

	"go.uber.org/zap"
)

// Done marks records as delivered, in any order. The cursor moves on to the first that is not, and is written when it does, so
// that the end of the process forgets nothing of it; segments before it are removed. A cursor or a segment that the disk does not
// take or give back is logged once and tried again with the next. Numbers that are not committed are ignored.
func (l *Log) Done(seqs ...uint64) {
	l.mu.Lock()
	moved := false
	for i := 0; i < len(seqs); {
		run := span{seqs[i], seqs[i] + 1}
		for i++; i < len(seqs) && seqs[i] == run.to; i++ {
			run.to++
		}
		_, m := l.markCommitted(run)
		moved = moved || m
	}
	l.mu.Unlock()
	if moved {
		l.advance()
	}
}

// DoneRange marks the records with the numbers from up to, but not including, to as delivered, as Done does.
func (l *Log) DoneRange(from, to uint64) {
	l.mu.Lock()
	_, moved := l.markCommitted(span{from, to})
	l.mu.Unlock()
	if moved {
		l.advance()
	}
}

// markCommitted marks what is committed of the span as done. It returns how many records of it were not done before, and whether the
// cursor moved.
func (l *Log) markCommitted(s span) (marked uint64, moved bool) {
	if l.closed {
		return 0, false
	}
	s = span{max(s.from, l.cursor), min(s.to, max(l.committed, l.perhaps))}
	if s.from >= s.to {
		return 0, false
	}
	if s.from > l.cursor || len(l.done) > 0 {
		marked = l.done.add(s)
		l.undone -= marked
		return marked, l.moveCursor()
	}
	marked = s.to - s.from
	l.undone -= marked
	l.cursor = s.to
	return marked, true
}

// markDone marks numbers that were never committed as done.
func (l *Log) markDone(s span) bool {
	l.done.add(s)
	return l.moveCursor()
}

func (l *Log) moveCursor() bool {
	before := l.cursor
	l.cursor = l.done.passed(before)
	return l.cursor != before
}

// advance follows the cursor after it has moved: it saves it and removes what is behind.
func (l *Log) advance() {
	l.mu.Lock()
	n := 0
	for n+1 < len(l.segments) && l.segments[n+1].first <= l.cursor {
		n++
	}
	gone := slices.Clone(l.segments[:n])
	l.segments = slices.Delete(l.segments, 0, n)
	l.mu.Unlock()
	if l.save(len(gone) > 0) {
		l.discard(gone)
	} else {
		l.keep(gone)
	}
	l.retire(l.spool.cfg.SegmentBytes / 4)
}

// retire removes the last segment if everything in it is done. One that is being written must have that many bytes: who
// appends and delivers by turns is not to pay for a new file each time. It reports whether a segment was removed.
func (l *Log) retire(bytes int64) bool {
	if !l.writing.TryLock() {
		return false
	}
	defer l.writing.Unlock()
	gone := l.takeLast(bytes)
	if len(gone) == 0 {
		return false
	}
	if !l.save(true) {
		l.keep(gone)
		return false
	}
	l.discard(gone)
	return true
}

func (l *Log) takeLast(bytes int64) []segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) != 1 || l.cursor < max(l.committed, l.perhaps) {
		return nil
	}
	if l.active != nil {
		if l.active.size < bytes {
			return nil
		}
		_ = l.active.file.Close() // it is about to be removed
		l.active = nil
	}
	gone := l.segments
	l.segments = nil
	return gone
}

// keep has the next discard remove the segments. They are not removed while it is not durable that everything in them is done: a later
// Open would take their records for lost.
func (l *Log) keep(segments []segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.garbage = append(l.garbage, segments...)
}

// discard removes segments from the disk, with those that it could not remove before.
func (l *Log) discard(gone []segment) {
	if len(gone) == 0 || l.spool.directory.taken.Load() {
		return
	}
	l.mu.Lock()
	retried := l.garbage
	l.garbage = nil
	l.mu.Unlock()
	var kept []segment
	freed := int64(0)
	for _, s := range slices.Concat(retried, gone) {
		if err := l.spool.fs.remove(l.path(s)); err != nil && !errors.Is(err, errMissing) {
			if len(retried) == 0 {
				l.log.Warn("a segment of the spool that is done with cannot be removed: it takes space until that succeeds", zap.Error(err))
			}
			kept = append(kept, s)
			continue
		}
		freed += s.size
	}
	l.mu.Lock()
	l.garbage = append(l.garbage, kept...)
	l.bytes -= freed
	l.mu.Unlock()
	l.spool.release(freed)
}

// save writes the cursor, with sync durably, and reports whether that succeeded. A failure is logged once, until a save has succeeded
// again. That the directory is gone is not logged: the next Append finds out, and makes it anew.
func (l *Log) save(sync bool) bool {
	l.saving.Lock()
	defer l.saving.Unlock()
	err := l.saveLocked(sync)
	if err != nil && !l.saveFailed && !errors.Is(err, fs.ErrNotExist) {
		l.log.Error("the cursor of the spool cannot be written: delivery goes on, and records will be delivered again after a restart", zap.Error(err))
	}
	l.saveFailed = err != nil
	return err == nil
}

// saveLocked is save for a caller that holds saving.
func (l *Log) saveLocked(sync bool) error {
	if l.spool.directory.taken.Load() {
		return errInUse
	}
	m := l.reached()
	if sync {
		return l.mark.secure(m)
	}
	return l.mark.save(m)
}

// reached returns how far the log has come.
func (l *Log) reached() mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return mark{cursor: l.cursor, committed: l.committed}
}

// span is the numbers from and beyond, to excluded.
type span struct{ from, to uint64 }

// ranges are sets of numbers as spans in ascending order that do not touch: their size is that of the gaps between them.
type ranges []span

// add adds a span and returns how many of its numbers are new.
func (r *ranges) add(s span) (added uint64) {
	if s.from >= s.to {
		return 0
	}
	added = s.to - s.from
	// Of the spans that s touches, the first and the one behind the last.
	i := sort.Search(len(*r), func(i int) bool { return (*r)[i].to >= s.from })
	j := i
	for ; j < len(*r) && (*r)[j].from <= s.to; j++ {
		old := (*r)[j]
		if from, to := max(old.from, s.from), min(old.to, s.to); from < to {
			added -= to - from
		}
	}
	if i < j {
		s.from, s.to = min(s.from, (*r)[i].from), max(s.to, (*r)[j-1].to)
	}
	*r = slices.Replace(*r, i, j, s)
	return added
}

// passed returns where cursor comes to when it passes what it meets, and forgets that.
func (r *ranges) passed(cursor uint64) uint64 {
	n := 0
	for ; n < len(*r) && (*r)[n].from <= cursor; n++ {
		cursor = max(cursor, (*r)[n].to)
	}
	*r = slices.Delete(*r, 0, n)
	return cursor
}

func (r ranges) contains(seq uint64) bool {
	i := sort.Search(len(r), func(i int) bool { return r[i].to > seq })
	return i < len(r) && r[i].from <= seq
}
