package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
)

// LogStats is the state of a log.
type LogStats struct {
	// Records is how many records are committed and not done. After Open it also counts numbers that were never
	// acknowledged, until Read has passed them.
	Records uint64
	// Pending is how many records wait for the disk: an Append has put them into a commit that has neither succeeded
	// nor failed yet. The Append itself may have given up meanwhile. A record goes from Pending to Records, or out of
	// both, in one step. So if a log has neither, no record of it can be read any more.
	Pending uint64
	Bytes   int64  // how many bytes of the disk the log takes
	First   uint64 // the cursor: the number of the first record that is not done
	Next    uint64 // the number that the next record gets

	// CorruptRecords is how many committed records were lost since Open, because they are damaged or their file is
	// gone. It does not count records that were done. CorruptBytes is how many bytes of the files could not be read, in
	// CorruptRegions places.
	CorruptRecords uint64
	CorruptBytes   int64
	CorruptRegions uint64
	// LostRecords is how many of the CorruptRecords were lost because somebody removed their file while the log was
	// open.
	LostRecords uint64
	// UnreadableCursors is 1 if Open could not read the cursor: delivered records may then be delivered again.
	UnreadableCursors uint64
	// TornBytes is how many bytes of writes that were never acknowledged were cut off or skipped in segments since
	// Open.
	TornBytes int64
}

// Log is a sequence of records. Its methods are safe for concurrent use; a Read waits until another Read has ended.
type Log struct {
	spool  *Spool
	name   string
	dir    string
	log    *zap.Logger
	causes *observability.Causes // why records could not be written

	exists  atomic.Bool   // whether the directory is there, with a cursor
	opened  atomic.Uint64 // the first record of the segment that Read has open; 0 without one
	passed  atomic.Uint64 // the number behind the last record that Read has returned or skipped; 0 after Rewind
	queued  atomic.Int64  // Appends that wait, because there was no room for them or for an earlier Append
	gate    chan struct{} // held by the first of the waiting Appends, so that Appends keep their order
	room    chan struct{} // gets a value when a commit has ended, for the Append that holds gate
	work    chan struct{} // gets a value when there is a pending commit, for the committer
	changed chan struct{} // gets a value when a commit has ended, for the caller of Changed
	closing chan struct{} // closed when the log takes no more Appends
	ended   chan struct{} // closed when the committer has ended

	mu          sync.Mutex // guards the fields below; never held while the disk works
	closed      bool
	running     bool // whether there is a committer
	segments    []segment
	next        uint64   // the number of the next record
	committed   uint64   // the number behind the last committed record
	maybeEnd    uint64   // the number behind the records that an unreadable segment may hold; 0 without one
	cursor      uint64   // the number of the first record that is not done
	done        spans    // the numbers beyond the cursor that are done
	undone      uint64   // how many committed records are not done
	bytes       int64    // of the disk
	pending     *commit  // the commit that Appends add to; nil if it holds no records
	spares      [][]byte // buffers for further commits; there are never more than two commits at a time
	waiting     int64    // bytes in commits that have not ended
	uncommitted uint64   // records in commits that have not ended
	failure     error    // why the last commit has failed; nil if it has not
	failedUntil time.Time
	damage      LogStats  // only its counts of lost and cut-off records and bytes are used
	left        []segment // segments that could not be removed yet

	writing sync.Mutex // guards the field below; taken before mu
	active  *active    // the segment that is written, if there is one

	reading sync.Mutex // guards the field below; taken before mu
	reader  reader

	saving     sync.Mutex // guards the fields below; taken before mu
	cursorFile cursorFile
	saveFailed bool // whether the last save has failed
}

// segment is the committed part of a segment.
type segment struct {
	first   uint64 // the number of its first record
	follows uint64 // the number behind the last record committed before it, from its header; 0 if that was not read yet
	size    int64
}

// active is the segment that commits are written to.
type active struct {
	segment
	file file
	info fs.FileInfo // which file it is
}

// commit is a group of records that are written and synced together.
type commit struct {
	data  []byte
	first uint64        // the number of its first record
	next  uint64        // the number behind its last record
	err   error         // how it ended
	done  chan struct{} // closed when it has ended
}

func newLog(s *Spool, name string) *Log {
	dir := filepath.Join(s.cfg.Dir, escape(name))
	log := s.log.With(zap.String("log", name))
	return &Log{
		spool: s,
		name:  name,
		dir:   dir,
		log:   log,
		causes: observability.NewCauses(log, "records are not written to the spool",
			"records are written to the spool again", time.Minute),
		gate:       make(chan struct{}, 1),
		room:       make(chan struct{}, 1),
		work:       make(chan struct{}, 1),
		changed:    make(chan struct{}, 1),
		closing:    make(chan struct{}),
		ended:      make(chan struct{}),
		next:       1,
		committed:  1,
		cursor:     1,
		cursorFile: cursorFile{directory: &s.directory, path: filepath.Join(dir, cursorName)},
	}
}

// tick makes sure that the channel holds a value. The channel has room for one.
func tick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// full reports whether an error says that the disk is full, or that the user's quota of it is used up.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func (l *Log) path(s segment) string { return filepath.Join(l.dir, segmentName(s.first)) }

// Name returns the log's name.
func (l *Log) Name() string { return l.name }

// Changed returns a channel that gets a value when a commit has ended, with or without success, since the last value
// was taken. It is for one waiter. A waiter that reads until Read returns nothing, and then waits for a value, misses
// no record. A value may come although there is no new record to read.
func (l *Log) Changed() <-chan struct{} { return l.changed }

// Stats returns the state of the log.
func (l *Log) Stats() LogStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	stats := l.damage
	stats.Pending = l.uncommitted
	stats.Records, stats.Bytes, stats.First, stats.Next = l.undone, l.bytes, l.cursor, l.next
	return stats
}

// Append adds the payloads as consecutive records, and returns the number of the first once all are on the disk.
// Appends that wait at the same time are written and synced together. Read sees all of the records or none. Append
// does not keep the payloads.
//
// The error is ErrTooLarge, ErrFull or ErrClosed (wrapped), the context's cause, or an error of the disk. After the
// first three nothing was written. After the last two the records may be read some day, or may not; see the package,
// and LogStats.Pending. For a second after an error of the disk, Append fails without a try. An Append without payloads
// returns the number that the next record gets.
func (l *Log) Append(ctx context.Context, payloads [][]byte) (first uint64, err error) {
	return l.append(ctx, payloads, l.spool.admit)
}

// AppendExempt is Append without the limits MaxBytes and Reserve. Its records still count against the limits of other
// Appends. It is for records that are moved from another log, which would stay full if AppendExempt refused them:
// append them to this log, then mark them as done in the other.
func (l *Log) AppendExempt(ctx context.Context, payloads [][]byte) (first uint64, err error) {
	return l.append(ctx, payloads, func(size int64) error {
		l.spool.used.Add(size)
		return nil
	})
}

// append is Append, and asks admit for room.
func (l *Log) append(ctx context.Context, payloads [][]byte, admit func(size int64) error) (first uint64, err error) {
	size := int64(0)
	for _, payload := range payloads {
		if len(payload) > MaxPayload {
			return 0, fmt.Errorf("spool: log %s: %d bytes, and at most %d: %w",
				l.name, len(payload), MaxPayload, ErrTooLarge)
		}
		size += headSize + int64(len(payload))
	}
	if err := admit(size); err != nil {
		return 0, fmt.Errorf("spool: log %s: %w", l.name, err)
	}
	c, first, err := l.enqueue(ctx, payloads, size)
	if err != nil {
		l.spool.release(size)
		return 0, fmt.Errorf("spool: log %s: nothing was written: %w", l.name, err)
	}
	if c == nil {
		return first, nil
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		select {
		case <-c.done:
		default:
			return 0, fmt.Errorf("spool: log %s: the records may still become durable: %w", l.name, context.Cause(ctx))
		}
	}
	return first, c.err
}

// enqueue waits until there is room, and adds the records to the pending commit. It returns that commit and the number
// of the first record. The commit is nil if there are no records.
func (l *Log) enqueue(ctx context.Context, payloads [][]byte, size int64) (*commit, uint64, error) {
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	if l.queued.Load() == 0 {
		if c, first, ok, err := l.tryEnqueue(payloads, size); ok || err != nil {
			return c, first, err
		}
	}
	l.queued.Add(1)
	defer l.queued.Add(-1)
	select {
	case l.gate <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	case <-l.closing:
		return nil, 0, ErrClosed
	}
	defer func() { <-l.gate }()
	for {
		c, first, ok, err := l.tryEnqueue(payloads, size)
		if ok || err != nil {
			return c, first, err
		}
		select {
		case <-l.room:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		case <-l.closing:
			return nil, 0, ErrClosed
		}
	}
}

// tryEnqueue is enqueue without waiting. It reports false if there is no room yet.
func (l *Log) tryEnqueue(payloads [][]byte, size int64) (c *commit, first uint64, ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, 0, false, ErrClosed
	case len(payloads) == 0:
		return nil, l.next, true, nil
	case l.failure != nil && time.Now().Before(l.failedUntil):
		return nil, 0, false, fmt.Errorf("the last write failed, and it is too early to try again: %w", l.failure)
	case l.waiting > 0 && l.waiting+size > l.spool.cfg.MaxPending:
		return nil, 0, false, nil
	}
	if l.pending == nil {
		l.pending = &commit{first: l.next, done: make(chan struct{})}
		if n := len(l.spares); n > 0 {
			l.pending.data, l.spares = l.spares[n-1], l.spares[:n-1]
		}
	}
	c, first = l.pending, l.next
	c.data = slices.Grow(c.data, int(size))
	for _, payload := range payloads {
		c.data = appendRecord(c.data, l.next, c.first, payload)
		l.next++
	}
	c.next = l.next
	l.waiting += size
	l.uncommitted += uint64(len(payloads))
	if !l.running {
		l.running = true
		panics.Go(l.log, committer, l.run)
	}
	tick(l.work)
	return c, first, true, nil
}

// committer names the goroutine that writes the commits of a log, for the log lines about its panics.
const committer = "the committer of a log in the spool"

// run is the committer: it writes pending commits until the log is closed. A panic ends a commit, never the committer.
func (l *Log) run() {
	defer close(l.ended)
	for open := true; open; {
		select {
		case <-l.work:
			// The last commit has woken callers that are about to append again: one sync may serve all of them.
			runtime.Gosched()
		case <-l.closing:
			open = false
		}
		panics.Do(l.log, committer, l.commit)
	}
}

// commit writes the pending commit, and wakes the Appends that wait for it. If writing panics, they get an error.
func (l *Log) commit() {
	l.mu.Lock()
	c := l.pending
	l.pending = nil
	l.mu.Unlock()
	if c == nil {
		return
	}
	if err := l.store(c); err != nil {
		l.fail(c, err)
		return
	}
	defer tick(l.changed)
	defer close(c.done) // the records are on the disk, whatever becomes of the checkpoint
	l.spool.health.succeeded()
	// The checkpoint says that these records were committed. It is written before they are acknowledged. If the process
	// is killed and the records are damaged, the next Open knows from the checkpoint that they are lost.
	l.save(false)
}

// store makes the commit durable and its records visible. If that fails, it gives up the segment that it has written
// to. A panic counts as a failed write: the log goes on with another segment, behind the last successful commit.
func (l *Log) store(c *commit) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	err := panics.Try(l.log, committer, func() error {
		if err := l.write(c); err != nil {
			return err
		}
		l.publish(c)
		return nil
	})
	if err != nil {
		panics.Do(l.log, committer, l.seal)
	}
	return err
}

// write makes the commit durable, in a file that is in the place where Open looks for it. If somebody removes files
// meanwhile, write makes them anew and writes the commit again. Read does not see the records yet.
func (l *Log) write(c *commit) error {
	for attempt := 1; ; attempt++ {
		err := l.writeOnce(c)
		if err == nil {
			err = l.verify()
		}
		if !errors.Is(err, fs.ErrNotExist) || attempt == attempts {
			return err
		}
		l.renew()
	}
}

// writeOnce writes and syncs the commit. It makes a new segment if there is none or the last one is full.
func (l *Log) writeOnce(c *commit) error {
	if l.active != nil && l.active.size+int64(len(c.data)) > l.spool.cfg.SegmentBytes {
		l.closeActive()
	}
	created := l.active == nil
	if created {
		if err := l.rotate(c.first); err != nil {
			return err
		}
	}
	if _, err := l.active.file.WriteAt(c.data, l.active.size); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	start := time.Now()
	err := l.active.file.Sync()
	if l.spool.cfg.OnSync != nil {
		l.spool.cfg.OnSync(time.Since(start))
	}
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if created {
		if err := l.spool.fs.syncDir(l.dir); err != nil {
			return fmt.Errorf("sync the directory: %w", err)
		}
	}
	return nil
}

// rotate makes a segment whose records start with the number first.
func (l *Log) rotate(first uint64) error {
	if err := l.makeDirectory(); err != nil {
		return err
	}
	l.mu.Lock()
	next := segment{first: first, follows: l.committed, size: headerSize}
	l.mu.Unlock()
	f, err := l.spool.fs.create(l.path(next))
	if err != nil {
		return fmt.Errorf("make a segment: %w", err)
	}
	l.active = &active{segment: next, file: f}
	if l.active.info, err = f.Stat(); err != nil {
		return fmt.Errorf("look at a segment: %w", err)
	}
	if _, err := f.WriteAt(header(next.follows), 0); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// makeDirectory makes the log's directory and its cursor if they are missing.
func (l *Log) makeDirectory() error {
	if l.exists.Load() {
		return nil
	}
	if err := makeDirs(l.spool.fs, l.dir); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	l.saving.Lock()
	defer l.saving.Unlock()
	if err := l.cursorFile.secure(l.checkpoint()); err != nil {
		return fmt.Errorf("make the cursor: %w", err)
	}
	l.exists.Store(true)
	return nil
}

// publish makes the records of the commit visible for Read and Stats.
func (l *Log) publish(c *commit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := int64(len(c.data))
	created := l.active.size == headerSize
	l.active.size += size
	if created {
		l.segments = append(l.segments, l.active.segment)
		l.bytes += headerSize
		l.spool.used.Add(headerSize)
	}
	l.segments[len(l.segments)-1] = l.active.segment
	l.bytes += size
	l.committed = c.next
	l.undone += c.next - c.first
	l.failure = nil
	l.finish(c)
	l.causes.Log(nil)
}

// maxSpare is the size of the largest data of a commit that is kept for another commit, in bytes.
const maxSpare = 1 << 20

// finish takes the commit out of the counts of what waits for the disk. The caller holds mu.
func (l *Log) finish(c *commit) {
	l.waiting -= int64(len(c.data))
	l.uncommitted -= c.next - c.first
	if len(l.spares) < 2 && cap(c.data) <= maxSpare {
		l.spares = append(l.spares, c.data[:0])
	}
	c.data = nil
	tick(l.room)
}

// seal gives up the segment that a failed commit was written to. It ends where the last successful commit has ended.
func (l *Log) seal() {
	if l.active == nil {
		return
	}
	given := l.active
	l.active = nil // so nobody writes to it again, even if the following code panics
	// The failed commit may have left bytes behind the end. Read does not look at them, but a later Open would.
	_ = given.file.Truncate(given.size)
	_ = given.file.Close()
	if given.size == headerSize {
		_ = l.spool.fs.remove(l.path(given.segment))
	}
}

// fail ends the commit, and the pending commit behind it, with an error.
func (l *Log) fail(c *commit, err error) {
	defer tick(l.changed)
	panics.Do(l.log, committer, func() { l.causes.Log(err) })
	if l.giveUp(c, err) {
		l.save(false)
	}
}

// giveUp fails the Appends of the commit, and of the pending commit behind it. It reports whether the cursor has moved.
func (l *Log) giveUp(c *commit, err error) (moved bool) {
	failed := []*commit{c}
	defer func() {
		for _, c := range failed {
			close(c.done)
		}
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failure, l.failedUntil = err, time.Now().Add(l.spool.failFast)
	if l.pending != nil {
		failed = append(failed, l.pending)
		l.pending = nil
	}
	for _, c := range failed {
		c.err = fmt.Errorf("spool: log %s: the records may not be durable: %w", l.name, err)
		l.spool.release(int64(len(c.data)))
		l.finish(c)
	}
	return l.markFailed(span{c.first, l.next})
}

// refuse makes the log refuse all further Appends. The committer writes the pending commit, and ends.
func (l *Log) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.closing)
	if !l.running {
		l.running = true
		close(l.ended)
	}
}

// close waits for the committer, makes the cursor durable and closes the files. The caller calls refuse before it.
func (l *Log) close() error {
	<-l.ended
	l.retire(0)
	l.reading.Lock()
	l.closeReader()
	l.reading.Unlock()
	l.writing.Lock()
	defer l.writing.Unlock()
	l.closeActive()
	if !l.exists.Load() {
		return nil
	}
	l.saving.Lock()
	defer l.saving.Unlock()
	if l.cursorFile.isUntouched(l.checkpoint()) {
		return nil
	}
	err := l.saveLocked(true)
	if errors.Is(err, errReadOnly) {
		err = nil // a spool that is only looked at forgets which records are done
	}
	return errors.Join(err, l.cursorFile.close())
}
