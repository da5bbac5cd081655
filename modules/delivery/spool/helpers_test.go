package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// wait is how long a test waits for a condition that must come true.
const wait = 20 * time.Second

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func testConfig(t testing.TB) Config {
	dir := filepath.Join(t.TempDir(), "spool")
	return Config{Dir: dir, MaxBytes: 1 << 30, SegmentBytes: 32 << 20, MaxPending: 8 << 20}
}

func openSpool(t testing.TB, cfg Config) *Spool {
	t.Helper()
	s, err := Open(cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// observed opens a spool on a file system that can fail, and returns the spool's log lines.
func observed(t testing.TB, cfg Config, fs fileSystem) (*Spool, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	s, err := open(cfg, zap.New(core), fs)
	require.NoError(t, err)
	s.failFast = 0
	t.Cleanup(func() { _ = s.Close() }) // the disk may have failed
	return s, logs
}

func payloads(values ...string) [][]byte {
	list := make([][]byte, len(values))
	for i, value := range values {
		list[i] = []byte(value)
	}
	return list
}

// tester is a test, or one check of a property.
type tester interface {
	require.TestingT
	Helper()
	Context() context.Context
}

func appendAll(t tester, l *Log, values ...string) uint64 {
	t.Helper()
	first, err := l.Append(t.Context(), payloads(values...))
	require.NoError(t, err)
	return first
}

// appendEach appends each value as a commit of its own.
func appendEach(t tester, l *Log, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		appendAll(t, l, value(n))
	}
}

// value returns the payload of the record after n others.
func value(n int) string { return fmt.Sprintf("%d:%s", n, strings.Repeat("x", n%97)) }

type got struct {
	seq   uint64
	value string
}

// readAll reads until a chunk has no records.
func readAll(t tester, l *Log, maxBytes int) []got {
	t.Helper()
	var (
		chunk Chunk
		all   []got
	)
	for {
		require.NoError(t, l.Read(&chunk, maxBytes))
		if len(chunk.Records) == 0 {
			return all
		}
		for _, r := range chunk.Records {
			all = append(all, got{r.Seq, string(r.Payload)})
		}
	}
}

// expected returns the records that appendEach has made of a new log: those from "from" up to, but not including, "to",
// without the exceptions.
func expected(from, to uint64, except ...uint64) []got {
	var all []got
next:
	for seq := from; seq < to; seq++ {
		for _, gone := range except {
			if seq == gone {
				continue next
			}
		}
		all = append(all, got{seq, value(int(seq - 1))})
	}
	return all
}

// segmentFiles returns the paths of the log's segments, oldest first.
func segmentFiles(t testing.TB, l *Log) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(l.dir, "*"+segmentSuffix))
	require.NoError(t, err)
	return files
}

// offsets returns where the records of an undamaged segment start, and where the last record ends.
func offsets(t testing.TB, path string) []int64 {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	require.NoError(t, err)
	first, ok := parseSegmentName(filepath.Base(path))
	require.True(t, ok)
	sc := &scanner{file: f, size: info.Size(), limit: maxSeq, behind: func() uint64 { return 0 }}
	list := []int64{headerSize}
	for last := first - 1; list[len(list)-1] < sc.size; last++ {
		r, ok, err := sc.next(list[len(list)-1], last)
		require.NoError(t, err)
		require.True(t, ok)
		list = append(list, r.end())
	}
	return list
}

func flip(t testing.TB, path string, off int64) {
	t.Helper()
	overwrite(t, path, off, 1, func(b byte) byte { return b ^ 0x10 })
}

func overwrite(t testing.TB, path string, off, n int64, with func(byte) byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := off; i < off+n; i++ {
		data[i] = with(data[i])
	}
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// faulty is a disk that fails when a test tells it to.
type faulty struct {
	disk
	mu    sync.Mutex
	fault func(op, path string) error // nil for a disk that does not fail
	calls map[string]int
}

type faultyFile struct {
	file
	disk *faulty
	path string
}

func newFaulty() *faulty { return &faulty{calls: map[string]int{}} }

// set makes an operation fail with the error that fault returns for it.
func (f *faulty) set(fault func(op, path string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// failing makes one kind of operation on files with the suffix fail.
func (f *faulty) failing(op, suffix string, err error) {
	f.set(func(o, path string) error {
		if o == op && strings.HasSuffix(path, suffix) {
			return &fs.PathError{Op: op, Path: path, Err: err}
		}
		return nil
	})
}

func (f *faulty) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

func (f *faulty) check(op, path string) error {
	f.mu.Lock()
	fault := f.fault
	f.calls[op]++
	f.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(op, path)
}

func (f *faulty) wrap(op, path string, open func(string) (file, error)) (file, error) {
	if err := f.check(op, path); err != nil {
		return nil, err
	}
	opened, err := open(path)
	if err != nil {
		return nil, err
	}
	return &faultyFile{file: opened, disk: f, path: path}, nil
}

func (f *faulty) create(path string) (file, error) { return f.wrap("create", path, f.disk.create) }
func (f *faulty) open(path string) (file, error)   { return f.wrap("open", path, f.disk.open) }
func (f *faulty) edit(path string) (file, error)   { return f.wrap("edit", path, f.disk.edit) }

func (f *faulty) remove(path string) error {
	if err := f.check("remove", path); err != nil {
		return err
	}
	return f.disk.remove(path)
}

func (f *faulty) makeDir(path string) error {
	if err := f.check("makeDir", path); err != nil {
		return err
	}
	return f.disk.makeDir(path)
}

func (f *faulty) stat(path string) (fs.FileInfo, error) {
	if err := f.check("stat", path); err != nil {
		return nil, err
	}
	return f.disk.stat(path)
}

func (f *faulty) syncDir(path string) error {
	if err := f.check("syncDir", path); err != nil {
		return err
	}
	return f.disk.syncDir(path)
}

func (f *faulty) free(path string) (int64, error) {
	if err := f.check("free", path); err != nil {
		var left freeError
		if errors.As(err, &left) {
			return int64(left), nil
		}
		return 0, err
	}
	return f.disk.free(path)
}

// freeError is a fault that makes free return so many bytes.
type freeError int64

func (freeError) Error() string { return "not the true number" }

func (f *faultyFile) ReadAt(data []byte, off int64) (int, error) {
	if err := f.disk.check("read", f.path); err != nil {
		var bad badBlockError
		if !errors.As(err, &bad) {
			return 0, err
		}
		if off < bad.to && off+int64(len(data)) > bad.from {
			n, _ := f.file.ReadAt(data[:max(0, bad.from-off)], off)
			return n, err
		}
	}
	return f.file.ReadAt(data, off)
}

// badBlockError is a fault that makes reads of a part of the file fail.
type badBlockError struct{ from, to int64 }

func (badBlockError) Error() string { return "bad block" }

func (f *faultyFile) WriteAt(data []byte, off int64) (int, error) {
	if err := f.disk.check("write", f.path); err != nil {
		// It writes a part, like a disk that fills up.
		n, _ := f.file.WriteAt(data[:len(data)/2], off)
		return n, err
	}
	return f.file.WriteAt(data, off)
}

func (f *faultyFile) Sync() error {
	if err := f.disk.check("sync", f.path); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.disk.check("truncate", f.path); err != nil {
		return err
	}
	return f.file.Truncate(size)
}
