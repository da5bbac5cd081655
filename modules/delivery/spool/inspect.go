package spool

import (
	"errors"
	"io/fs"
	"math"

	"github.com/gofrs/flock"
	"go.uber.org/zap"
)

var errReadOnly = errors.New("the spool was opened to be looked at")

// Inspect opens the logs in a directory to be read and changes nothing: the directory may be one that this process
// cannot write to, or one that another process uses; see InUse. What that process does meanwhile may be seen, or look
// like damage. Append returns an error, and what is Done is forgotten. A directory that does not exist holds nothing.
//
// LogStats.Records of a log is what a process that opens the spool would deliver: numbers of records that failed are
// left out. Inspect reads the cursor and the last segment of each log, and of the other segments 20 bytes.
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

// InUse reports whether another process has the spool's directory.
func (s *Spool) InUse() bool {
	if s.directory.lock.Load() != nil {
		return false
	}
	probe := flock.New(s.directory.lockPath(), flock.SetFlag(0))
	locked, err := probe.TryRLock()
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	defer probe.Close() //nolint:errcheck // a lock that was only looked at
	return err == nil && !locked
}

// readOnly is a file system that nothing can be changed on.
type readOnly struct{ fileSystem }

func (readOnly) create(string) (file, error) { return nil, errReadOnly }
func (readOnly) edit(string) (file, error)   { return nil, errReadOnly }
func (readOnly) remove(string) error         { return errReadOnly }
func (readOnly) makeDir(string) error        { return errReadOnly }
func (readOnly) syncDir(string) error        { return errReadOnly }
