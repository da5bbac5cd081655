package spool

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fileSystem is what the spool asks of the disk. Tests replace it by file systems that fail, or that lose power.
type fileSystem interface {
	// create makes a file that must not exist yet, for reading and writing.
	create(path string) (file, error)
	// open opens a file for reading.
	open(path string) (file, error)
	// edit opens a file for reading and writing.
	edit(path string) (file, error)
	// remove removes a file or an empty directory.
	remove(path string) error
	// makeDir makes one directory. It must not exist yet; the directory above it must.
	makeDir(path string) error
	// list returns what is in a directory, sorted by name.
	list(path string) ([]fs.DirEntry, error)
	// stat says which file a path leads to. os.SameFile compares the answer with the Stat of an open file.
	stat(path string) (fs.FileInfo, error)
	// syncDir makes durable which files are in a directory.
	syncDir(path string) error
	// free returns how many bytes of the disk a process without privileges may still use.
	free(path string) (int64, error)
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
}

// makeDirs makes a directory and the directories above it where they are missing. It makes the name of each durable in
// the directory above.
func makeDirs(disk fileSystem, path string) error {
	err := disk.makeDir(path)
	if above := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) && above != path {
		if err := makeDirs(disk, above); err != nil {
			return err
		}
		err = disk.makeDir(path)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := disk.syncDir(filepath.Dir(path)); err != nil {
		// The next caller would find the directory and believe that its name is durable.
		return errors.Join(err, disk.remove(path))
	}
	return nil
}

type disk struct{}

var _ fileSystem = disk{}

func (disk) create(path string) (file, error) {
	return opened(os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)) // it follows no symbolic link
}

func (disk) open(path string) (file, error) {
	return opened(os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0))
}

func (disk) edit(path string) (file, error) {
	return opened(os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0))
}

// opened returns a nil file for a nil *os.File: a file that holds a nil *os.File is not nil.
func opened(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (disk) remove(path string) error { return os.Remove(path) }

func (disk) makeDir(path string) error { return os.Mkdir(path, 0o700) }

func (disk) list(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }

func (disk) stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

func (disk) syncDir(path string) (err error) {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // nothing was written through it
	return dir.Sync()
}

func (disk) free(path string) (int64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(path, &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail * uint64(stat.Bsize)), nil
}
