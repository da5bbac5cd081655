package embedded

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/gofrs/flock"
)

// lock makes sure that one process at a time uses a directory. The operating system releases the lock with the process,
// so a crash leaves nothing to clean up. The lock file itself stays.
func lock(path string) (*flock.Flock, error) {
	file := flock.New(path, flock.SetPermissions(0o600),
		flock.SetFlag(os.O_CREATE|os.O_RDONLY|syscall.O_NOFOLLOW))
	locked, err := file.TryLock()
	if err == nil && !locked {
		err = errInUse
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return file, nil
}

var errInUse = errors.New("another process uses this directory")
