package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Drop removes a log with all its records, and returns how many of them were not done. It closes the log that Log has
// returned for the name; the next call of Log makes a new one. The error is fs.ErrNotExist (wrapped) if there is no log
// of that name. After another error, or if the process ends meanwhile, some of the files may stay. Their records count
// as done all the same, once the cursor was written.
func (s *Spool) Drop(name string) (records uint64, err error) {
	s.mu.Lock()
	l, closed := s.logs[name], s.closed
	s.mu.Unlock()
	switch {
	case closed:
		err = ErrClosed
	case l == nil || !l.exists.Load():
		err = fs.ErrNotExist
	default:
		err = s.directory.hold()
	}
	if err != nil {
		return 0, fmt.Errorf("spool: drop log %s: %w", name, err)
	}
	records, err = l.drop()
	if err != nil {
		return records, fmt.Errorf("spool: drop log %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[name] == l {
		delete(s.logs, name)
	}
	return records, nil
}

// drop marks all records as done, durably, and then removes the files. The order matters: the next Open would read
// segments without a cursor again.
func (l *Log) drop() (records uint64, err error) {
	l.refuse()
	<-l.ended
	l.reading.Lock()
	defer l.reading.Unlock()
	l.closeReader()
	l.writing.Lock()
	defer l.writing.Unlock()
	l.closeActive()
	gaps := l.gaps()
	l.mu.Lock()
	for _, gap := range gaps {
		l.undone -= l.done.add(span{max(gap.from, l.cursor), gap.to})
	}
	records = l.undone
	l.cursor, l.undone, l.done = max(l.cursor, l.committed, l.maybeEnd), 0, nil
	segments := l.segments
	l.segments = nil
	l.mu.Unlock()

	l.saving.Lock()
	defer l.saving.Unlock()
	if err := l.saveLocked(true); err != nil {
		return records, err
	}
	l.unlink(segments)
	if err := l.spool.fs.syncDir(l.dir); err != nil {
		return records, err
	}
	if err := l.cursorFile.close(); err != nil {
		return records, err
	}
	return records, l.removeDirectory()
}

// removeDirectory removes the log's directory and the files in it.
func (l *Log) removeDirectory() error {
	disk := l.spool.fs
	entries, err := disk.list(l.dir)
	if err != nil {
		return err
	}
	var faults []error
	for _, entry := range entries {
		if err := disk.remove(filepath.Join(l.dir, entry.Name())); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	if err := disk.remove(l.dir); err != nil {
		return err
	}
	l.exists.Store(false)
	return disk.syncDir(l.spool.cfg.Dir)
}
