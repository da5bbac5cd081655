package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/gofrs/flock"

	"github.com/opencapture/capture/modules/private"
)

// disk is what the store asks of the disk. Tests replace it by disks that are full or that fail.
type disk interface {
	// makeDir makes a directory and those above it, where they are missing.
	makeDir(path string) error
	// create makes a file that must not exist yet, for writing.
	create(path string) (file, error)
	// open opens a file for reading.
	open(path string) (readFile, error)
	rename(from, to string) error
	remove(path string) error
	// list returns the names of what is in a directory, sorted.
	list(path string) ([]string, error)
	// free returns how many bytes of the disk a process without privileges may still use.
	free(path string) (int64, error)
	// syncDir makes durable which files are in a directory.
	syncDir(path string) error
}

type readFile interface {
	io.ReadCloser
	Stat() (fs.FileInfo, error)
}

type file interface {
	io.Writer
	Sync() error
	Close() error
}

// systemDisk is the disk of the system. It follows no symbolic link that is in the place of a file.
type systemDisk struct{}

func (systemDisk) makeDir(path string) error { return os.MkdirAll(path, 0o700) }
func (systemDisk) remove(path string) error  { return os.Remove(path) }

func (systemDisk) rename(from, to string) error {
	return os.Rename(from, to) //nolint:gosec // Where the files are is the operator's to say, in store.dir.
}

func (systemDisk) create(path string) (file, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
}

func (systemDisk) open(path string) (readFile, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	found, err := f.Stat()
	if err == nil && !found.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (systemDisk) list(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

func (systemDisk) free(path string) (int64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(path, &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail) * stat.Bsize, nil
}

func (systemDisk) syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// errInUse means that another process uses the directory.
var errInUse = errors.New("another process uses this directory: give each process a directory of its own " +
	"(store.dir), or let them share a Redis (store.redis.addrs)")

// directory is the directory of the store, with the lock that keeps other processes out of it. Its methods are safe for
// concurrent use, but for take, look and release.
type directory struct {
	disk disk
	path string

	lock *flock.Flock
	file fs.FileInfo // of the lock
	// held is set while the directory is locked and can be written to, as far as is known.
	held atomic.Bool
	// taken is set for ever when another process has used the directory: what this process knows of it is out of date.
	taken bool
}

const lockName = ".lock"

// take makes the directory if it is missing and locks it. It returns errInUse if another process has the lock, and
// private.ErrNotPrivate if other users could put files into the directory.
func (d *directory) take() error {
	if d.taken {
		return fmt.Errorf("%s: %w", d.path, errInUse)
	}
	// Nothing is made behind a symbolic link of another user.
	if err := private.Check(d.path); errors.Is(err, private.ErrNotPrivate) {
		return err
	}
	if err := d.disk.makeDir(d.path); err != nil {
		return err
	}
	if err := private.Check(d.path); err != nil {
		return err
	}
	lock := flock.New(d.join(lockName), flock.SetPermissions(0o600),
		flock.SetFlag(os.O_CREATE|os.O_RDONLY|syscall.O_NOFOLLOW))
	locked, err := lock.TryLock()
	if err == nil && !locked {
		err = fmt.Errorf("%s: %w", d.path, errInUse)
	}
	if err == nil {
		d.file, err = lock.Stat()
	}
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	_ = d.release() // of a lock whose file is gone
	d.lock = lock
	d.held.Store(true)
	return nil
}

// look finds out whether the directory is still locked. Somebody may have removed it.
func (d *directory) look() error {
	if d.lock == nil {
		return errNotLocked
	}
	found, err := os.Lstat(d.join(lockName))
	if err == nil && !os.SameFile(found, d.file) {
		d.taken = true
		err = fmt.Errorf("the lock of %s was removed, and another process has made its own: %w", d.path, errInUse)
	}
	if err != nil {
		d.held.Store(false)
	}
	return err
}

var errNotLocked = errors.New("the directory is not locked")

func (d *directory) release() error {
	d.held.Store(false)
	if d.lock == nil {
		return nil
	}
	lock := d.lock
	d.lock = nil
	return lock.Close()
}

// create makes a file that must not exist yet.
func (d *directory) create(name string) (file, error) {
	if !d.held.Load() {
		return nil, errNotLocked
	}
	return d.disk.create(d.join(name))
}

func (d *directory) join(name string) string { return filepath.Join(d.path, name) }

// read has a function read a file.
func (d *directory) read(name string, read func(readFile) error) error {
	f, err := d.disk.open(d.join(name))
	if err != nil {
		return err
	}
	return errors.Join(read(f), f.Close())
}

// replace writes a file whole: whatever happens, the file has either what it had or the new content.
func (d *directory) replace(name string, write func(file) error) error {
	next := d.join(name + newSuffix)
	if err := d.removeIfThere(name + newSuffix); err != nil {
		return err
	}
	f, err := d.create(name + newSuffix)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.disk.rename(next, d.join(name))
	}
	if err != nil {
		return errors.Join(err, d.removeIfThere(name+newSuffix))
	}
	return d.disk.syncDir(d.path)
}

// rename gives a file another name.
func (d *directory) rename(from, to string) error {
	if !d.held.Load() {
		return errNotLocked
	}
	if err := d.disk.rename(d.join(from), d.join(to)); err != nil {
		return err
	}
	return d.disk.syncDir(d.path)
}

// newSuffix ends the name of a file that is not whole yet.
const newSuffix = ".new"

// removeIfThere removes a file, if the directory is locked.
func (d *directory) removeIfThere(name string) error {
	if !d.held.Load() {
		return errNotLocked
	}
	if err := d.disk.remove(d.join(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
