package embedded

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock makes sure that one process at a time uses a directory. The operating system releases it with the process, so a crash
// leaves nothing to clean up; the file itself stays.
func lock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errInUse
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
}

var errInUse = errors.New("another process uses this directory")
