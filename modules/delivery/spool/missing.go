package spool

import (
	"errors"
	"io/fs"
	"slices"

	"go.uber.org/zap"
)

// attempts is how often a commit is written before it fails, if somebody removes its file each time.
const attempts = 3

// verify returns nil if the segment that was written is where Open looks for it, in a directory that this process has
// locked. The error is fs.ErrNotExist if somebody has removed the file, or a directory above it, or has put another in
// its place. The bytes that were written to the file are then lost when this process ends, although the disk has
// confirmed them.
func (l *Log) verify() error {
	if err := l.spool.directory.hold(); err != nil {
		return err
	}
	return l.spool.directory.isAt(l.path(l.active.segment), l.active.info)
}

// renew prepares another attempt to write, after an attempt has found that files are gone. The caller holds writing.
func (l *Log) renew() {
	// The next attempt looks for the directory and the cursor, and makes them if they are missing.
	l.exists.Store(false)
	if l.active != nil && errors.Is(l.spool.directory.isAt(l.path(l.active.segment), l.active.info), fs.ErrNotExist) {
		l.closeActive()
	}
	l.giveUpMissing()
}

// closeActive ends the writing to a segment. It ignores the error of closing the file: every commit in the file was
// synced, or the file is gone. The caller holds writing.
func (l *Log) closeActive() {
	if l.active != nil {
		_ = l.active.file.Close()
		l.active = nil
	}
}

// giveUpMissing takes segments whose files are gone out of the log, and counts their undelivered records as lost. It
// reports whether there were such segments. The caller holds writing.
func (l *Log) giveUpMissing() bool {
	gone := l.missing()
	if len(gone) == 0 {
		return false
	}
	lost := l.strike(gone)
	l.log.Error("files of a log in the spool were removed while it was in use: see what removes files there. "+
		"The records that they held and that were not delivered are lost",
		zap.Uint64("records", lost), zap.Int("files", len(gone)), zap.String("directory", l.dir))
	return true
}

// strike takes segments whose files are gone out of the log, and returns how many records are lost with them. The
// caller holds writing.
func (l *Log) strike(gone []missingSegment) (lost uint64) {
	freed := int64(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range gone {
		i := slices.IndexFunc(l.segments, func(s segment) bool { return s.first == m.first })
		if i < 0 {
			continue // its records were done meanwhile
		}
		l.segments = slices.Delete(l.segments, i, i+1)
		if l.active != nil && l.active.first == m.first {
			l.closeActive()
		}
		n, _ := l.markCommitted(span{m.first, m.behind})
		l.markCommitted(span{m.behind, m.next}) // numbers of commits that failed
		lost += n
		freed += m.size
	}
	l.bytes -= freed
	l.damage.LostRecords += lost
	l.damage.CorruptRecords += lost
	if lost > 0 {
		l.damage.CorruptRegions++
	}
	l.spool.release(freed)
	return lost
}

// missingSegment is a segment whose file is gone.
type missingSegment struct {
	segment
	behind uint64 // the number behind its last record
	next   uint64 // the first number of the segment that follows
}

// missing returns the segments whose files are gone, except the segments that Read has begun to read. The caller of
// Read has records of such a segment, and will deliver them. While Read has the file open, it can return the other
// records too; otherwise Read itself counts them as lost.
func (l *Log) missing() []missingSegment {
	l.mu.Lock()
	segments, committed := slices.Clone(l.segments), l.committed
	l.mu.Unlock()
	opened, passed := l.opened.Load(), l.passed.Load()
	var gone []missingSegment
	for i, s := range segments {
		if s.first == opened || s.first < passed {
			continue
		}
		if _, err := l.spool.fs.stat(l.path(s)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		m := missingSegment{segment: s, behind: committed, next: committed}
		if i+1 < len(segments) {
			m.behind, m.next = l.follows(segments[i+1]), segments[i+1].first
		}
		gone = append(gone, m)
	}
	return gone
}

// examine does for a log without commits what a commit does: it notices that files are gone. If the last commit has
// failed, examine finds out whether the next one would succeed. It takes no lock that a commit needs before it knows
// that the disk answers.
func (l *Log) examine() {
	if l.exists.Load() {
		if len(l.missing()) > 0 {
			l.renounce()
		}
		l.restoreCursor()
	}
	if l.lastFailure() == nil {
		return
	}
	if err := probe(l.spool.fs, l.dir); err == nil || errors.Is(err, fs.ErrNotExist) {
		l.mu.Lock()
		l.failure = nil
		l.mu.Unlock()
	}
}

// renounce gives up the missing segments, and records that in the cursor.
func (l *Log) renounce() {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.giveUpMissing() {
		l.save(false)
	}
}

// restoreCursor writes the cursor anew if its file was removed. If the directory is gone too, the next Append makes
// both anew.
func (l *Log) restoreCursor() {
	l.saving.Lock()
	defer l.saving.Unlock()
	if l.cursorFile.isGone() {
		l.saveFailed = l.saveLocked(true) != nil
	}
}

// lastFailure returns why the last commit has failed, or nil if it has succeeded.
func (l *Log) lastFailure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}
