package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencapture/capture/modules/private"
)

// file is the end of a file. It is not safe for concurrent use.
type file struct {
	path string
	open *os.File
	// torn is set if the last write may have left a part of a line.
	torn bool
}

// append writes a line to the end of the file at the path, and syncs it.
func (f *file) append(path string, text []byte) error {
	if err := f.follow(path); err != nil {
		return err
	}
	if f.torn {
		text = append([]byte{'\n'}, text...)
	}
	f.torn = true
	if _, err := f.open.Write(text); err != nil {
		return err
	}
	f.torn = false
	if err := f.open.Sync(); err != nil {
		// After a failed sync nobody knows what the disk has, and another sync would not tell: begin anew.
		f.close()
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// follow makes sure that the open file is the one at the path. It may have been moved away or removed.
func (f *file) follow(path string) error {
	if f.open != nil && f.path == path {
		mine, err := f.open.Stat()
		if err != nil {
			return err
		}
		there, err := os.Lstat(path)
		if err == nil && os.SameFile(mine, there) {
			return nil
		}
	}
	f.close()
	dir := filepath.Dir(path)
	if err := private.Check(dir); err != nil {
		return err
	}
	opened, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	torn, err := endsTorn(opened)
	if err != nil {
		return errors.Join(err, opened.Close())
	}
	if err := syncDir(dir); err != nil {
		return errors.Join(err, opened.Close())
	}
	f.path, f.open, f.torn = path, opened, torn
	return nil
}

var errNoFile = errors.New("it is no regular file")

// endsTorn reports whether the file ends within a line.
func endsTorn(opened *os.File) (bool, error) {
	info, err := opened.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("open %s: %w", opened.Name(), errNoFile)
	}
	if info.Size() == 0 {
		return false, nil
	}
	last := make([]byte, 1)
	if _, err := opened.ReadAt(last, info.Size()-1); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return last[0] != '\n', nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f *file) close() {
	if f.open != nil {
		_ = f.open.Close() // every line has been synced
		f.open = nil
	}
}
