package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

var (
	// ErrFull means that the spool has reached its limit, or the disk its reserve.
	ErrFull = errors.New("the spool is full")
	// ErrClosed means that Close has begun.
	ErrClosed = errors.New("the spool is closed")
	// ErrTooLarge means that a payload has more than MaxPayload bytes.
	ErrTooLarge = errors.New("the payload is too large for the spool")
	// ErrInUse means that another process uses the directory. If an Append or a Read returns ErrInUse, somebody has
	// removed the lock of this process, and another process has taken it. This Spool is then useless, but another Open
	// may succeed.
	ErrInUse = errors.New("another process uses this directory")
)

// Config says where a spool is and how many bytes it may take.
type Config struct {
	// Dir is the directory. Open makes it if it is missing. One process at a time uses it.
	Dir string
	// MaxBytes is how many bytes of the disk all logs may take together. It should be many times SegmentBytes: a
	// segment gives its bytes back only when all its records are done.
	MaxBytes int64
	// Reserve is how many bytes of the disk stay free.
	Reserve int64
	// SegmentBytes is the size from which a segment is followed by another.
	SegmentBytes int64
	// MaxPending is how many bytes of a log may wait for the disk. An Append of more bytes waits until it can go alone.
	MaxPending int64
	// OnSync is called after every fsync of records, with how long the fsync took. Each log calls OnSync from a
	// goroutine of its own. OnSync may be nil.
	OnSync func(time.Duration)
}

func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return errors.New("spool: Dir is empty")
	case c.MaxBytes <= 0 || c.SegmentBytes <= 0 || c.MaxPending <= 0:
		return fmt.Errorf("spool: MaxBytes, SegmentBytes and MaxPending must be positive, got %d, %d and %d",
			c.MaxBytes, c.SegmentBytes, c.MaxPending)
	}
	return nil
}

// Usage is how many bytes of the disk a spool takes, and how many it may still take.
type Usage struct {
	Bytes int64 // of all logs, with the records that are on their way to the disk
	Max   int64 // the limit of Bytes
	Free  int64 // bytes of the disk that are free; -1 if that is not known
	Room  int64 // bytes that may still be appended, by the limit and what the disk has to spare
	Full  bool  // whether the last Append was refused, or the smallest one would be
}

// Spool is a directory of logs. Its methods are safe for concurrent use.
type Spool struct {
	cfg       Config
	fs        fileSystem
	log       *zap.Logger
	directory directory

	// failFast is how long after a failed write a log refuses Appends without trying.
	failFast time.Duration

	maxBytes atomic.Int64 // of the directory
	keepFree atomic.Int64 // bytes of the disk

	used    atomic.Int64 // bytes of segments, and of records on their way
	refused atomic.Bool  // whether the last Append found the spool full
	free    freeSpace
	health  health

	mu     sync.Mutex
	logs   map[string]*Log
	closed bool
}

const (
	defaultFailFast = time.Second
	// freeFor is how old the number of free bytes may be, and how long a caller waits for a newer number.
	freeFor = 100 * time.Millisecond
)

// Open makes the directory if it is missing, locks it for this process, and opens the logs in it. It returns an error
// if the directory cannot be used. The content of the files never makes it fail.
func Open(cfg Config, log *zap.Logger) (*Spool, error) { return open(cfg, log, disk{}) }

func open(cfg Config, log *zap.Logger, fs fileSystem) (*Spool, error) {
	s, err := newSpool(cfg, log, fs)
	if err != nil {
		return nil, err
	}
	if err := s.takeDirectory(); err != nil {
		return nil, err
	}
	if err := s.openLogs(); err != nil {
		return nil, errors.Join(err, s.directory.release())
	}
	s.health.succeeded()
	return s, nil
}

func newSpool(cfg Config, log *zap.Logger, fs fileSystem) (*Spool, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Spool{
		cfg:       cfg,
		fs:        fs,
		log:       log,
		directory: directory{fs: fs, path: cfg.Dir, log: log},
		failFast:  defaultFailFast,
		free:      freeSpace{fs: fs, dir: cfg.Dir, log: log, bytes: -1},
		health:    health{log: log},
		logs:      map[string]*Log{},
	}
	s.Limit(cfg.MaxBytes, cfg.Reserve)
	return s, nil
}

// Limit replaces MaxBytes and Reserve of the Config. A spool that is over the new limit stays full until it is below.
func (s *Spool) Limit(maxBytes, reserve int64) {
	s.maxBytes.Store(maxBytes)
	s.keepFree.Store(reserve)
	s.refused.Store(false)
}

// takeDirectory makes sure that the directory exists, can be written to, and belongs to no other process.
func (s *Spool) takeDirectory() error {
	err := s.directory.take()
	if errors.Is(err, ErrInUse) {
		return fmt.Errorf("spool: %s: %w: stop that process, or give each a directory of its own", s.cfg.Dir, err)
	}
	if err == nil {
		err = s.settle()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("spool: the directory %s cannot be used: make sure that it can be made and "+
			"that this process may write to it, or name another: %w", s.cfg.Dir, err), s.directory.release())
	}
	return nil
}

// settle finds out whether files can be made in the directory. It also makes the names of the logs' directories and of
// the spool's own durable, which an earlier process may not have done. A full disk does not stop Open.
func (s *Spool) settle() error {
	if err := probe(s.fs, s.cfg.Dir); err != nil && !full(err) {
		return err
	}
	// This process may be allowed to use the directory, but not to read the one above.
	_ = s.fs.syncDir(filepath.Dir(s.cfg.Dir))
	return s.fs.syncDir(s.cfg.Dir)
}

// openLogs opens the logs that have a directory.
func (s *Spool) openLogs() error {
	entries, err := s.fs.list(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("spool: list %s: %w", s.cfg.Dir, err)
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		name, ok := unescape(entry.Name())
		if !ok {
			s.log.Warn("a directory in the spool is no log: it is left alone",
				zap.String("directory", filepath.Join(s.cfg.Dir, entry.Name())))
			continue
		}
		l, err := s.openLog(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process has removed it meanwhile
		}
		if err != nil {
			return fmt.Errorf("spool: open %s: make sure that this process may read it, or move it away: %w",
				l.dir, err)
		}
		s.logs[name] = l
	}
	return nil
}

// openLog opens a log that has a directory. If files go missing meanwhile, it tries again: another process may use the
// directory while this process only looks at it.
func (s *Spool) openLog(name string) (l *Log, err error) {
	for range attempts {
		l = newLog(s, name)
		if err = l.open(); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return l, err
}

// Log returns the log of that name; any name will do. The first Append makes the log's directory.
func (s *Spool) Log(name string) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.logs[name]
	if l == nil {
		l = newLog(s, name)
		l.closed = s.closed
		s.logs[name] = l
	}
	return l
}

// Logs returns the logs that have a directory, sorted by name.
func (s *Spool) Logs() []*Log {
	logs := s.all()
	logs = slices.DeleteFunc(logs, func(l *Log) bool { return !l.exists.Load() })
	slices.SortFunc(logs, func(a, b *Log) int { return strings.Compare(a.name, b.name) })
	return logs
}

func (s *Spool) all() []*Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	logs := make([]*Log, 0, len(s.logs))
	for _, l := range s.logs {
		logs = append(logs, l)
	}
	return logs
}

// Usage returns how much of the disk the spool takes. The number of free bytes may be 100 ms old. If the disk does not
// answer, it may be older.
func (s *Spool) Usage() Usage {
	u := Usage{Bytes: s.used.Load(), Max: s.maxBytes.Load(), Free: s.free.left()}
	u.Room = max(0, u.Max-u.Bytes)
	if u.Free >= 0 {
		u.Room = max(0, min(u.Room, u.Free-s.keepFree.Load()))
	}
	u.Full = s.refused.Load() || u.Bytes+headSize > u.Max || u.Free >= 0 && u.Free-headSize < s.keepFree.Load()
	return u
}

// admit takes room for size bytes, or returns ErrFull (wrapped). release gives the room back.
func (s *Spool) admit(size int64) error {
	err := s.take(size)
	if err != nil && s.reclaim() {
		err = s.take(size)
	}
	if refused := err != nil; s.refused.Load() != refused {
		s.refused.Store(refused)
	}
	return err
}

// take is admit without the attempt to make room.
func (s *Spool) take(size int64) error {
	for {
		used := s.used.Load()
		if used+size > s.maxBytes.Load() {
			return fmt.Errorf("%w: %s do not fit beside %s of %s",
				ErrFull, approx(size), approx(used), approx(s.maxBytes.Load()))
		}
		if s.used.CompareAndSwap(used, used+size) {
			break
		}
	}
	if left, ok := s.free.take(size, s.keepFree.Load()); !ok {
		s.used.Add(-size)
		return fmt.Errorf("%w: the disk has %s left, and %s are to stay free",
			ErrFull, approx(left), approx(s.keepFree.Load()))
	}
	return nil
}

// release gives room back.
func (s *Spool) release(size int64) {
	if size > 0 {
		s.used.Add(-size)
		s.refused.Store(false)
	}
}

// reclaim removes segments that are still on the disk although all their records are done. It reports whether it has
// removed any.
func (s *Spool) reclaim() bool {
	removed := false
	for _, l := range s.all() {
		removed = l.retire(0) || removed
		removed = l.removeLeft() || removed
	}
	return removed
}

// Close refuses further Appends, commits the pending records, makes the cursors durable and releases the directory. If
// one of these steps fails, Close does the others all the same and returns the error. It waits for the disk. A further
// call does nothing.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	logs := s.all()
	for _, l := range logs {
		l.refuse()
	}
	s.health.close()
	var faults []error
	for _, l := range logs {
		if err := panics.Try(l.log, "the end of a log in the spool", l.close); err != nil {
			faults = append(faults, fmt.Errorf("spool: close log %s: %w", l.name, err))
		}
	}
	return errors.Join(append(faults, s.directory.release())...)
}

// freeSpace knows about how many bytes of the disk are free, without asking the disk each time. If the disk does not
// answer, callers wait only shortly and then use the last answer.
type freeSpace struct {
	fs  fileSystem
	dir string
	log *zap.Logger

	mu     sync.Mutex    // never held while the disk is asked
	at     time.Time     // when the disk was last asked
	asking chan struct{} // closed when the disk has answered; nil while no question is under way
	bytes  int64         // the disk's answer, less the bytes taken since; -1 without an answer
	failed bool          // whether a failure was logged
}

// left returns how many bytes are free, or -1 if that is not known.
func (f *freeSpace) left() int64 {
	f.refresh()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

// refresh asks the disk if the last answer is older than freeFor, and waits for the new answer for up to freeFor.
func (f *freeSpace) refresh() {
	f.mu.Lock()
	if f.asking == nil {
		if time.Since(f.at) < freeFor {
			f.mu.Unlock()
			return
		}
		f.asking, f.at = make(chan struct{}), time.Now()
		answered := f.asking
		panics.Go(f.log, "the question for free space", func() { f.ask(answered) })
	}
	asking, patience := f.asking, freeFor-time.Since(f.at)
	f.mu.Unlock()
	if patience <= 0 {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-asking:
	case <-timer.C:
	}
}

// ask asks the disk, and closes answered when the disk has answered.
func (f *freeSpace) ask(answered chan struct{}) {
	bytes := int64(-1)
	err := panics.Try(f.log, "the question for free space", func() (err error) {
		bytes, err = f.fs.free(f.dir)
		return err
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		bytes = -1
		if !f.failed && !errors.Is(err, fs.ErrNotExist) {
			f.failed = true
			f.log.Warn("the spool cannot tell how much of the disk is free: the reserve is not kept",
				zap.String("directory", f.dir), zap.Error(err))
		}
	}
	f.bytes, f.asking = bytes, nil
	close(answered)
}

// take takes size bytes if at least reserve bytes then stay free, and reports whether it did. left is how many bytes
// were free before, or -1 if nobody knows.
func (f *freeSpace) take(size, reserve int64) (left int64, ok bool) {
	f.refresh()
	f.mu.Lock()
	defer f.mu.Unlock()
	left = f.bytes
	if left < 0 {
		return left, true
	}
	if left-size < reserve {
		return left, false
	}
	f.bytes -= size
	return left, true
}

const hexDigits = "0123456789ABCDEF"

// escape returns the name of a log's directory.
func escape(name string) string {
	if name == "" {
		return "%"
	}
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

// unescape returns the name of the log that has this directory, or false if no log can have it.
func unescape(dir string) (string, bool) {
	if dir == "%" {
		return "", true
	}
	name := make([]byte, 0, len(dir))
	for i := 0; i < len(dir); i++ {
		if dir[i] != '%' {
			name = append(name, dir[i])
			continue
		}
		if i+2 >= len(dir) {
			return "", false
		}
		name = append(name, byte(strings.IndexByte(hexDigits, dir[i+1])<<4|strings.IndexByte(hexDigits, dir[i+2])))
		i += 2
	}
	return string(name), escape(string(name)) == dir
}
