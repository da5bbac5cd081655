package usage

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/gofrs/flock"

	"github.com/opencapture/capture/modules/private"
)

// files keeps the days on the disk: a file for each, whose lines are a header and then the rows in order, as JSON. A
// file is replaced as a whole. Its methods are not safe for concurrent use, except that reading may go on beside
// writing.
type files struct {
	dir  string
	lock *flock.Flock
}

const (
	extension = ".jsonl"
	// format is the version of the files.
	format = 1
)

// header is the first line of a file.
type header struct {
	Format int    `json:"format"`
	Day    string `json:"day"`
}

var errInUse = errors.New("another process uses this directory")

// openFiles makes the directory if it is missing, and locks it.
func openFiles(dir string) (*files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := private.Check(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "lock")
	lock := flock.New(path, flock.SetPermissions(0o600), flock.SetFlag(os.O_CREATE|os.O_RDONLY|syscall.O_NOFOLLOW))
	locked, err := lock.TryLock()
	if err == nil && !locked {
		err = errInUse
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), lock.Close())
	}
	return &files{dir: dir, lock: lock}, nil
}

func (f *files) close() error { return f.lock.Close() }

func (f *files) path(d day) string { return filepath.Join(f.dir, d.String()+extension) }

// days returns the days that have a file, in order.
func (f *files) days() ([]day, error) {
	found, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var days []day
	for _, file := range found {
		if name, ok := strings.CutSuffix(file.Name(), extension); ok {
			if d, err := parseDay(name); err == nil {
				days = append(days, d)
			}
		}
	}
	slices.Sort(days)
	return days, nil
}

// read returns the rows of a day, in order; none if the day has no file. With an error it returns the rows that can be
// read.
func (f *files) read(d day) ([]Row, error) {
	file, err := os.Open(f.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	decoder := json.NewDecoder(bufio.NewReader(file))
	var first header
	if err := decoder.Decode(&first); err != nil {
		return nil, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	if first.Format != format {
		return nil, fmt.Errorf("read %s: its format is %d, and this version knows %d", file.Name(), first.Format,
			format)
	}
	var rows []Row
	for line := 2; ; line++ {
		var row Row
		err := decoder.Decode(&row)
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err == nil {
			err = row.check(d)
		}
		if err != nil {
			return rows, fmt.Errorf("read line %d of %s: %w", line, file.Name(), err)
		}
		rows = append(rows, row)
	}
}

// write replaces the rows of a day.
func (f *files) write(d day, rows []Row) (err error) {
	temporary := f.path(d) + ".new"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary) // the next write replaces it, too
		}
	}()
	buffered := bufio.NewWriterSize(file, 1<<16)
	encoder := json.NewEncoder(buffered)
	encoder.SetEscapeHTML(false)
	err = encoder.Encode(header{format, d.String()})
	for i := 0; i < len(rows) && err == nil; i++ {
		err = encoder.Encode(&rows[i])
	}
	err = errors.Join(err, buffered.Flush())
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(temporary, f.path(d))
	}
	if err == nil {
		err = f.sync()
	}
	return err
}

// setAside keeps a file that cannot be read from being written over.
func (f *files) setAside(d day) error { return os.Rename(f.path(d), f.path(d)+".damaged") }

// keep removes all but the newest files.
func (f *files) keep(newest int) error {
	days, err := f.days()
	if err != nil || len(days) <= newest {
		return err
	}
	for _, d := range days[:len(days)-newest] {
		err = errors.Join(err, os.Remove(f.path(d)))
	}
	return err
}

func (f *files) sync() error {
	dir, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
