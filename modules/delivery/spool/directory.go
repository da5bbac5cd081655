package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/gofrs/flock"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/private"
)

const (
	// lockName and probeName are not the directories of logs: the name of such a directory never starts with a dot.
	lockName  = ".lock"
	probeName = ".probe"

	// probeSize is how many bytes a probe writes: so many that a file system has to find a block for them.
	probeSize = 4 << 10
	// lockAttempts is how often the lock is taken if its file is removed in the same moment.
	lockAttempts = 3
)

// errReplaced means that a path leads to another file than before. It counts as a file that does not exist.
var errReplaced = fmt.Errorf("another file is in its place: %w", fs.ErrNotExist)

// directory is the spool's directory, with the lock that keeps other processes out of it. Its methods are safe for
// concurrent use.
type directory struct {
	fs   fileSystem
	path string
	log  *zap.Logger

	lock  atomic.Pointer[lock] // nil while the directory is not locked
	taken atomic.Bool          // another process has the directory, and this process never touches it again

	relocking sync.Mutex // held by the goroutine that makes the lock anew
}

// lock is a lock that this process holds, and the file of the lock.
type lock struct {
	*flock.Flock
	file fs.FileInfo
}

func (d *directory) lockPath() string { return filepath.Join(d.path, lockName) }

// take makes the directory if it is missing and locks it. It returns ErrInUse if another process has the lock, and
// private.ErrNotPrivate if other users could put files into the directory.
func (d *directory) take() error {
	for range lockAttempts {
		// Nothing is made behind a symbolic link of another user.
		if err := private.Check(d.path); errors.Is(err, private.ErrNotPrivate) {
			return err
		}
		if err := makeDirs(d.fs, d.path); err != nil {
			return err
		}
		if err := private.Check(d.path); errors.Is(err, fs.ErrNotExist) {
			continue // the directory was removed again
		} else if err != nil {
			return err
		}
		l := &lock{Flock: flock.New(d.lockPath(), flock.SetPermissions(0o600),
			flock.SetFlag(os.O_CREATE|os.O_RDONLY|syscall.O_NOFOLLOW))}
		locked, err := l.TryLock()
		if errors.Is(err, fs.ErrNotExist) {
			continue // the directory was removed again
		}
		if err == nil && !locked {
			err = ErrInUse
		}
		if err == nil {
			l.file, err = l.Stat()
		}
		if err != nil {
			return errors.Join(err, l.Close())
		}
		if d.isAt(d.lockPath(), l.file) == nil {
			d.lock.Store(l)
			return nil
		}
		_ = l.Close() // a lock on a file that other processes do not see locks nothing
	}
	return fmt.Errorf("%s is removed as often as it is made: %w", d.lockPath(), fs.ErrNotExist)
}

// isAt returns nil if the path leads to the known file. The error is fs.ErrNotExist if it leads to no file or to
// another.
func (d *directory) isAt(path string, known fs.FileInfo) error {
	found, err := d.fs.stat(path)
	switch {
	case err != nil:
		return err
	case !os.SameFile(found, known):
		return fmt.Errorf("%s: %w", path, errReplaced)
	default:
		return nil
	}
}

// hold returns nil if the directory exists and this process has locked it. If somebody has removed the directory or the
// lock, hold makes both anew. Once another process has made a lock of its own, hold returns ErrInUse for ever, even
// after that process has ended: the knowledge that this process has of the files is out of date.
func (d *directory) hold() error {
	if err := d.isHeld(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.relocking.Lock()
	defer d.relocking.Unlock()
	err := d.isHeld()
	if !errors.Is(err, fs.ErrNotExist) {
		return err // another log has made it anew
	}
	removed := d.lock.Load()
	// A lock of another process may be free again, but that process has used the directory meanwhile.
	if !errors.Is(err, errReplaced) {
		err = d.take()
	}
	switch {
	case errors.Is(err, ErrInUse), errors.Is(err, errReplaced):
		d.taken.Store(true)
		d.log.Error("the lock of the spool was removed and another process has made its own: this process leaves the "+
			"directory alone until it is opened again", zap.String("directory", d.path))
		return d.isHeld()
	case err != nil:
		return fmt.Errorf("make the directory anew: %w", err)
	}
	_ = removed.Close() // the lock on a file that is gone
	d.log.Error("the lock of the spool, or its directory, was removed while the spool was in use, and is made anew: "+
		"see what removes files there", zap.String("directory", d.path))
	return nil
}

// isHeld returns nil if the lock's file is where it was when this process locked it, and an error that is
// fs.ErrNotExist if it is not. A directory that Inspect has opened was never locked, and counts as held.
func (d *directory) isHeld() error {
	if d.taken.Load() {
		return fmt.Errorf("%s: %w", d.path, ErrInUse)
	}
	if l := d.lock.Load(); l != nil {
		return d.isAt(d.lockPath(), l.file)
	}
	return nil
}

// probe finds out whether a small file can be made, written, synced and removed in a directory.
func probe(disk fileSystem, dir string) error {
	path := filepath.Join(dir, probeName)
	if err := disk.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := disk.create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, probeSize), 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), disk.remove(path))
}

// release gives the lock up.
func (d *directory) release() error {
	if l := d.lock.Load(); l != nil {
		return l.Close()
	}
	return nil
}
