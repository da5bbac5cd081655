package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/terminal"
)

// ErrNotWritten means that a line could not be written in time.
var ErrNotWritten = errors.New("the audit log cannot be written")

const (
	// writeTimeout is how long a line may take. A disk or a reader of standard error that hangs must not hold operators
	// up for good.
	writeTimeout = 5 * time.Second
	// maxWaiting is how many lines may wait for the writer.
	maxWaiting = 64
	// maxLine is how long a line may be, in bytes. A body of the listener is 1 MiB at most.
	maxLine = 4 << 20
)

// Log writes the lines of all changes, one after the other. It is safe for concurrent use.
type Log struct {
	path     func() string
	log      *zap.Logger
	failures tally.Counter
	timeout  time.Duration

	lines chan request
	start sync.Once
	stop  sync.Once
	ended chan struct{}
	file  file // the writer's own
	to    io.Writer
}

// request asks the writer for a line. The writer says once how that ended.
type request struct {
	text []byte
	to   string
	done chan error
}

// New returns a log. path returns the file that is configured now, or "" for stderr. The counter counts lines that were
// not written. The log takes no file and starts no goroutine before its first line. Close ends it.
func New(path func() string, stderr io.Writer, log *zap.Logger, failures tally.Counter) *Log {
	return &Log{
		path: path, log: log, failures: failures, timeout: writeTimeout,
		lines: make(chan request, maxWaiting), ended: make(chan struct{}), to: terminal.NewWriter(stderr),
	}
}

// Change is a change that has begun.
type Change struct {
	log   *Log
	first line
}

// Begin writes that a change is to be made by the request. After an error, which wraps ErrNotWritten, the change must
// not be made.
func (l *Log) Begin(r *http.Request, of Subject) (*Change, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotWritten, err)
	}
	c := &Change{
		log: l, first: newLine(time.Now(), id.String(), endpoint.CallerOf(r.Context()), r.Method,
			r.URL.EscapedPath(), of),
	}
	return c, l.write(r.Context(), &c.first)
}

// End writes how the change has ended: err is nil if it was made. The change stands even if the line cannot be written;
// the log of the service says so.
func (c *Change) End(ctx context.Context, err error) { c.EndWith(ctx, nil, err) }

// EndWith is End for a change whose outcome was not known before: after is the state that it led to.
func (c *Change) EndWith(ctx context.Context, after any, err error) {
	last := line{
		Time: time.Now().UTC(), ID: c.first.ID, Step: end, Kind: c.first.Kind, Name: c.first.Name, After: after,
		Result: done,
	}
	if err != nil {
		last.Result = err.Error()
	}
	if err := c.log.write(context.WithoutCancel(ctx), &last); err != nil {
		c.log.log.Error("a change was made, and the audit log does not say how it ended",
			zap.String("id", last.ID), zap.String("kind", last.Kind), zap.String("result", last.Result), zap.Error(err))
	}
}

func (l *Log) write(ctx context.Context, of *line) error {
	text, err := json.Marshal(of)
	if err == nil && len(text) > maxLine {
		err = fmt.Errorf("a line of %d bytes is too long", len(text))
	}
	if err == nil {
		err = l.hand(ctx, append(text, '\n'))
	}
	if err != nil {
		l.failures.Inc(1)
		return fmt.Errorf("%w: %w", ErrNotWritten, err)
	}
	return nil
}

var errLate = errors.New("the line was not written in time")

// hand gives a line to the writer and waits until it is written.
func (l *Log) hand(ctx context.Context, text []byte) error {
	l.start.Do(func() { panics.Go(l.log, "the audit log", l.run) })
	ctx, cancel := context.WithTimeoutCause(ctx, l.timeout, errLate)
	defer cancel()
	asked := request{text: text, to: l.path(), done: make(chan error, 1)}
	select {
	case l.lines <- asked:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ended:
		return errClosed
	}
	select {
	case err := <-asked.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ended:
		return errClosed
	}
}

var errClosed = errors.New("the service stops")

func (l *Log) run() {
	for {
		select {
		case <-l.ended:
			l.file.close()
			return
		case asked := <-l.lines:
			asked.done <- panics.Try(l.log, "the audit log", func() error { return l.append(asked) })
		}
	}
}

func (l *Log) append(asked request) error {
	if asked.to == "" {
		_, err := l.to.Write(asked.text)
		return err
	}
	return l.file.append(asked.to, asked.text)
}

// Close ends the log. Lines that come later are not written.
func (l *Log) Close() {
	l.stop.Do(func() { close(l.ended) })
}
