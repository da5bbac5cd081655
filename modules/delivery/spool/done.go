package spool

import (
	"errors"
	"io/fs"
	"slices"
	"sort"

	"go.uber.org/zap"
)

// Done marks records as delivered, in any order. It ignores numbers that are not committed.
//
// If the first record that was not done is among them, the cursor moves to the next record that is not done. Done then
// writes the cursor, so that it survives the end of the process, and removes the segments before it. If the cursor
// cannot be written, or a segment cannot be removed, the spool logs that once and tries again with a later Done.
func (l *Log) Done(seqs ...uint64) {
	if l.mark(seqs) {
		l.advance()
	}
}

// mark marks committed records as done, and reports whether the cursor has moved.
func (l *Log) mark(seqs []uint64) (moved bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; i < len(seqs); {
		run := span{seqs[i], seqs[i] + 1}
		for i++; i < len(seqs) && seqs[i] == run.to; i++ {
			run.to++
		}
		_, m := l.markCommitted(run)
		moved = moved || m
	}
	return moved
}

// DoneRange is Done for the numbers from "from" up to, but not including, "to".
func (l *Log) DoneRange(from, to uint64) {
	l.mu.Lock()
	_, moved := l.markCommitted(span{from, to})
	l.mu.Unlock()
	if moved {
		l.advance()
	}
}

// markCommitted marks the committed records of a span as done. It returns how many of them were not done before, and
// whether the cursor has moved. The caller holds mu.
func (l *Log) markCommitted(s span) (marked uint64, moved bool) {
	if l.closed {
		return 0, false
	}
	s = span{max(s.from, l.cursor), min(s.to, l.end())}
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

// end returns the number behind the last record of the log. If there is a segment that Open could not read, end returns
// the number behind the records that this segment may hold. The caller holds mu.
func (l *Log) end() uint64 { return max(l.committed, l.maybeEnd) }

// markFailed marks the numbers of a failed commit as done, since nobody will deliver them. It reports whether the
// cursor has moved. The caller holds mu.
func (l *Log) markFailed(s span) (moved bool) {
	l.done.add(s)
	return l.moveCursor()
}

// moveCursor moves the cursor to the first number that is not done, and reports whether it has moved. The caller
// holds mu.
func (l *Log) moveCursor() bool {
	before := l.cursor
	l.cursor = l.done.passed(before)
	return l.cursor != before
}

// advance writes the cursor after it has moved, and removes the segments that it has passed.
func (l *Log) advance() {
	l.mu.Lock()
	n := 0
	for n+1 < len(l.segments) && l.segments[n+1].first <= l.cursor {
		n++
	}
	passed := slices.Clone(l.segments[:n])
	l.segments = slices.Delete(l.segments, 0, n)
	l.mu.Unlock()
	if len(passed) == 0 {
		l.save(false)
	} else {
		l.remove(passed)
	}
	l.retire(l.spool.cfg.SegmentBytes / 4)
}

// retire removes the last segment if all its records are done, and reports whether it did. It keeps a segment that
// commits are written to until that has at least minBytes bytes. So a client that appends and delivers in turns does
// not pay for a new file each time.
func (l *Log) retire(minBytes int64) bool {
	if !l.writing.TryLock() {
		return false // a commit is under way
	}
	defer l.writing.Unlock()
	last := l.takeLast(minBytes)
	return len(last) > 0 && l.remove(last)
}

// takeLast takes the last segment out of the log, for retire. The caller holds writing.
func (l *Log) takeLast(minBytes int64) []segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) != 1 || l.cursor < l.end() {
		return nil
	}
	if l.active != nil {
		if l.active.size < minBytes {
			return nil
		}
		l.closeActive()
	}
	last := l.segments
	l.segments = nil
	return last
}

// remove removes segments from the disk once it is durable that all their records are done, and reports whether it did.
// If the cursor cannot be made durable, the segments stay until removeLeft: without them a later Open would count their
// records as lost.
func (l *Log) remove(segments []segment) bool {
	if !l.save(true) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.left = append(l.left, segments...)
		return false
	}
	l.unlink(segments)
	return true
}

// removeLeft tries again to remove the segments that could not be removed before, and reports whether there were any.
func (l *Log) removeLeft() bool {
	l.mu.Lock()
	left := len(l.left)
	l.mu.Unlock()
	return left > 0 && l.remove(nil)
}

// unlink removes the files of segments whose records are all done. It also tries again to remove the files that it
// could not remove before.
func (l *Log) unlink(segments []segment) {
	l.mu.Lock()
	left := l.left
	l.left = nil
	l.mu.Unlock()
	var failed []segment
	freed := int64(0)
	for _, s := range slices.Concat(left, segments) {
		if err := l.spool.fs.remove(l.path(s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			if len(left) == 0 {
				l.log.Warn("a segment of the spool that is done with cannot be removed: it takes space meanwhile",
					zap.Error(err))
			}
			failed = append(failed, s)
			continue
		}
		freed += s.size
	}
	l.mu.Lock()
	l.left = append(l.left, failed...)
	l.bytes -= freed
	l.mu.Unlock()
	l.spool.release(freed)
}

// save writes the cursor, durably if sync is set, and reports whether that succeeded. Of several failures it logs the
// first. It does not log a missing directory: the next Append notices that and makes the directory anew.
func (l *Log) save(sync bool) bool {
	l.saving.Lock()
	defer l.saving.Unlock()
	err := l.saveLocked(sync)
	if err != nil && !l.saveFailed && !errors.Is(err, fs.ErrNotExist) {
		l.log.Error("the cursor of the spool cannot be written: delivery goes on, and records will be delivered again "+
			"after a restart", zap.Error(err))
	}
	l.saveFailed = err != nil
	return err == nil
}

// saveLocked is save without the log message. The caller holds saving.
func (l *Log) saveLocked(sync bool) error {
	if l.spool.directory.taken.Load() {
		return ErrInUse
	}
	if sync {
		return l.cursorFile.secure(l.checkpoint())
	}
	return l.cursorFile.save(l.checkpoint())
}

// checkpoint returns how far the log has come.
func (l *Log) checkpoint() checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return checkpoint{cursor: l.cursor, committed: l.committed}
}

// span is the numbers from "from" up to, but not including, "to".
type span struct{ from, to uint64 }

// spans is a set of numbers. The spans are in ascending order, and there is a gap between any two of them. So the list
// is as long as the set has gaps, however many numbers are in it.
type spans []span

// add adds a span, and returns how many of its numbers were not in the set.
func (r *spans) add(s span) (added uint64) {
	if s.from >= s.to {
		return 0
	}
	added = s.to - s.from
	// (*r)[i:j] are the spans that s overlaps or touches.
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

// passed returns the first number from cursor on that is not in the set, and removes the smaller ones from the set.
func (r *spans) passed(cursor uint64) uint64 {
	n := 0
	for ; n < len(*r) && (*r)[n].from <= cursor; n++ {
		cursor = max(cursor, (*r)[n].to)
	}
	*r = slices.Delete(*r, 0, n)
	return cursor
}

func (r spans) contains(seq uint64) bool {
	i := sort.Search(len(r), func(i int) bool { return r[i].to > seq })
	return i < len(r) && r[i].from <= seq
}
