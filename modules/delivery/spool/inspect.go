package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gofrs/flock"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/private"
)

var errReadOnly = errors.New("the spool was opened to be looked at")

// Inspect opens the logs in a directory for reading, and changes nothing. This process may have no right to write to
// the directory, and another process may use it; see InUse. Inspect may see changes that the other process makes
// meanwhile, or take them for damage. Append returns an error, and the spool forgets which records are Done. A
// directory that does not exist holds no logs.
//
// LogStats.Records of a log is the number of records that a process that opens the spool would deliver: it leaves out
// the numbers of failed records. Inspect reads the cursor and the last segment of each log, and 20 bytes of each other
// segment.
func Inspect(dir string) (*Spool, error) { return inspect(dir, disk{}) }

func inspect(dir string, disk fileSystem) (*Spool, error) {
	cfg := Config{Dir: dir, MaxBytes: math.MaxInt64, SegmentBytes: 1, MaxPending: 1}
	s, err := newSpool(cfg, zap.NewNop(), readOnly{disk})
	if err != nil {
		return nil, err
	}
	if err := s.openLogs(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, l := range s.all() {
		for _, gap := range l.gaps() {
			l.mu.Lock()
			l.markCommitted(gap)
			l.mu.Unlock()
		}
	}
	return s, nil
}

// IsThere returns nil if a service has ever kept a spool in the directory, and else an error that says what is there
// instead.
func IsThere(dir string) error {
	entries, err := os.ReadDir(dir)
	shown := dir
	if absolute, err := filepath.Abs(dir); err == nil {
		shown = absolute
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no directory %s", shown)
	case err != nil:
		return err
	}
	for _, entry := range entries {
		if entry.Name() == lockName {
			return nil
		}
	}
	if err := private.Check(dir); err != nil {
		return err // a service would not keep its spool there
	}
	return fmt.Errorf("the directory %s holds no spool", shown)
}

// InUse reports whether another process has locked the spool's directory.
func (s *Spool) InUse() bool {
	if s.directory.lock.Load() != nil {
		return false
	}
	probe := flock.New(s.directory.lockPath(), flock.SetFlag(syscall.O_NOFOLLOW))
	locked, err := probe.TryRLock()
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	defer probe.Close() //nolint:errcheck // a lock that was only looked at
	return err == nil && !locked
}

// readOnly is a file system that refuses every change.
type readOnly struct{ fileSystem }

func (readOnly) create(string) (file, error) { return nil, errReadOnly }
func (readOnly) edit(string) (file, error)   { return nil, errReadOnly }
func (readOnly) remove(string) error         { return errReadOnly }
func (readOnly) makeDir(string) error        { return errReadOnly }
func (readOnly) syncDir(string) error        { return errReadOnly }
