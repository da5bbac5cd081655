package observability

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/opencapture/capture/modules/panics"
)

const (
	// maxWaiting is how many bytes of lines may wait to be written: a few thousand lines.
	maxWaiting = 1 << 20

	// maxWrite is how many bytes Linux puts into a pipe as a whole (PIPE_BUF). The Writer writes no more lines together
	// than that, so that they are not torn where several processes write to one pipe.
	maxWrite = 4096

	// flushTimeout is how long Sync waits at most.
	flushTimeout = time.Second
)

// errUnread is the error of a Sync whose time is over.
var errUnread = errors.New("log lines are still to be written, since nobody reads them")

// Writer writes log lines and never makes the service wait for their reader. Write puts a line into a bounded buffer. A
// goroutine, which runs only while lines wait, writes the buffer to the output.
//
// The Writer drops and counts a line that does not fit the buffer, because the reader of a pipe has stopped reading. It
// also drops and counts a line that cannot be written, because the reader is gone, the disk is full, or the output
// panics. Once lines can be written again, one more line says how many are missing.
//
// Lines that still wait when the process ends are lost, so the code that ends the process calls Sync before. A Writer
// is safe for concurrent use.
type Writer struct {
	out io.Writer
	// notice returns the line that says how many lines are missing.
	notice func(lines int) []byte

	mu      sync.Mutex
	waiting []byte        // whole lines
	done    chan struct{} // closed when no line waits any more; nil while no line waits
	missing int           // dropped lines that no notice has counted yet

	dropped atomic.Int64
}

var _ zapcore.WriteSyncer = (*Writer)(nil)

// newWriter returns a writer to out.
func newWriter(out io.Writer, notice func(lines int) []byte) *Writer {
	return &Writer{out: out, notice: notice}
}

// Write takes a line with its line feed. It never fails, because the line is written later.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting)+len(line) > maxWaiting {
		w.drop(line)
		return len(line), nil
	}
	w.waiting = append(w.waiting, line...)
	if w.done == nil {
		w.done = make(chan struct{})
		panics.Go(zap.NewNop(), "the writer of the log", w.run) // no logger: it cannot log about itself
	}
	return len(line), nil
}

// drop counts lines that will not be written. The caller holds the lock.
func (w *Writer) drop(lines []byte) {
	n := bytes.Count(lines, newline)
	w.missing += n
	w.dropped.Add(int64(n))
}

// Sync waits until all lines are written or dropped, for a second at most. If lines are left then, it returns an error.
func (w *Writer) Sync() error {
	w.mu.Lock()
	done := w.done
	w.mu.Unlock()
	if done == nil {
		return nil
	}
	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return errUnread
	}
}

// Dropped returns how many lines have been dropped so far.
func (w *Writer) Dropped() int64 { return w.dropped.Load() }

// run writes the waiting lines until no line waits.
func (w *Writer) run() {
	var written []byte
	for {
		w.mu.Lock()
		lines, missing := w.waiting, w.missing
		if len(lines) == 0 {
			close(w.done)
			w.done = nil
			w.mu.Unlock()
			return
		}
		w.waiting, w.missing = written[:0], 0
		w.mu.Unlock()

		works := w.write(lines)
		if missing > 0 && works {
			_, err := w.put(func() []byte { return w.notice(missing) })
			works = err == nil
		}
		if !works {
			w.mu.Lock()
			w.missing += missing
			w.mu.Unlock()
		}
		written = lines
	}
}

// write writes lines and reports whether the last of them went through.
func (w *Writer) write(lines []byte) (works bool) {
	for len(lines) > 0 {
		n := together(lines)
		m, err := w.put(func() []byte { return lines[:n] })
		if works = err == nil; !works {
			w.mu.Lock()
			w.drop(lines[m:n])
			w.mu.Unlock()
		}
		lines = lines[n:]
	}
	return works
}

// put writes some lines in one call of the output. It returns a panic as an error. Nobody can log that error.
func (w *Writer) put(lines func() []byte) (n int, err error) {
	err = panics.Catch(func() error {
		n, err = w.out.Write(lines())
		return err
	})
	return n, err
}

// together returns how many bytes to write at once: whole lines of up to maxWrite bytes, or a single longer line.
func together(lines []byte) int {
	if len(lines) <= maxWrite {
		return len(lines)
	}
	if end := bytes.LastIndexByte(lines[:maxWrite], '\n'); end >= 0 {
		return end + 1
	}
	if end := bytes.IndexByte(lines, '\n'); end >= 0 {
		return end + 1
	}
	return len(lines)
}

var newline = []byte("\n")

// newDroppedLines returns the metric that counts the lines that a writer has dropped.
func newDroppedLines(w *Writer) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: metricPrefix + "_observability_log_lines_dropped_total",
		Help: "Log lines that were not written, because nobody read them or because they could not be written.",
	}, func() float64 { return float64(w.Dropped()) })
}
