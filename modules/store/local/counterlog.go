package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	counterPrefix, snapshotSuffix = "counters-", ".snapshot"
	// logBytes is how long the log of the counters becomes at least before a snapshot takes its place, and
	// logPerSnapshot how much longer than the snapshot before it.
	logBytes, logPerSnapshot = 1 << 20, 2
	// snapshotFrame is about how long the frames of a snapshot are.
	snapshotFrame = 32 << 10
)

// counterLog has the disk remember the counters: each change is in the log before the call that makes it returns. So a
// process that is killed loses nothing, and a loss of power what happened in the last second.
//
// An entry of the log is the state of a counter, or of a node's accounts of it, after the change. A snapshot has an
// entry for each. The counters are what the last snapshot says, and then the logs from the snapshot's number on, of
// which the last entry for each counter counts.
type counterLog struct {
	dir     *directory
	log     *zap.Logger
	timeout time.Duration // how long a call waits for the disk
	onFault func(error)

	mu      sync.Mutex
	pending *batch
	spare   *batch
	wake    chan struct{}
	// stalled is set while a write takes longer than a call waits for it: no further call waits meanwhile.
	stalled bool

	writing sync.Mutex // held while the file is written to or changed; taken before mu
	frames  *frameFile // nil while the disk does not take the changes
	lost    bool       // changes are in no file

	// Used by one goroutine at a time.
	number   uint64
	snapshot int64 // bytes of the last snapshot
	owed     bool  // the log of that number has no snapshot
}

// batch is what is written together.
type batch struct {
	text []byte
	cuts []int // where the entries of each call end
	done chan struct{}
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// The kinds of entries.
const (
	entryAccount byte = 'a'
	entryQuota   byte = 'q'
	entryRate    byte = 'r'
)

func appendText[T ~string](to []byte, text T) []byte {
	return append(binary.AppendUvarint(to, uint64(len(text))), text...)
}

func appendAccount(to []byte, token, counter string, end time.Time, a *account) []byte {
	to = appendText(appendText(append(to, entryAccount), token), counter)
	to = appendText(binary.AppendVarint(to, end.UnixNano()), a.node)
	for _, n := range []int64{int64(a.number), a.granted, a.returned, a.held, a.past} {
		to = binary.AppendVarint(to, n)
	}
	return to
}

func appendQuota(to []byte, token, counter string, end time.Time, adjusted int64) []byte {
	to = appendText(appendText(append(to, entryQuota), token), counter)
	return binary.AppendVarint(binary.AppendVarint(to, end.UnixNano()), adjusted)
}

func appendRate(to []byte, token, counter string, r *rate) []byte {
	to = appendText(appendText(append(to, entryRate), token), counter)
	return binary.AppendVarint(binary.AppendVarint(to, r.at), r.span)
}

// entries reads entries one after the other.
type entries struct {
	text []byte
	bad  bool
}

func (e *entries) number() int64 {
	n, size := binary.Varint(e.text)
	if size <= 0 {
		e.bad, e.text = true, nil
		return 0
	}
	e.text = e.text[size:]
	return n
}

func (e *entries) string() string {
	n, size := binary.Uvarint(e.text)
	if size <= 0 || n > maxName || n > uint64(len(e.text)-size) {
		e.bad, e.text = true, nil
		return ""
	}
	text := string(e.text[size : size+int(n)])
	e.text = e.text[size+int(n):]
	return text
}

// apply makes the counters what the entries say.
func (c *counters) apply(text []byte) error {
	e := &entries{text: text}
	for len(e.text) > 0 {
		kind := e.text[0]
		e.text = e.text[1:]
		token, counter := e.string(), e.string()
		switch kind {
		case entryRate:
			at, span := e.number(), e.number()
			if e.bad || counter == "" || span < 0 || span > maxSpan {
				return errDamaged
			}
			t := c.ofToken(token)
			if t.rates[counter] == nil {
				t.rates[counter] = &rate{}
				c.count.Add(1)
			}
			*t.rates[counter] = rate{at, span}
		case entryQuota:
			end, adjusted := e.number(), e.number()
			if e.bad || counter == "" || adjusted < -maxUsed || adjusted > maxUsed {
				return errDamaged
			}
			q := c.ofToken(token).quota(c, counter)
			q.end = time.Unix(0, end)
			q.used += adjusted - q.adjusted
			q.adjusted = adjusted
		case entryAccount:
			end, node := e.number(), e.string()
			number := e.number()
			a := account{
				node: node, number: uint64(number), granted: e.number(), returned: e.number(), held: e.number(),
				past: e.number(), first: uint64(number),
			}
			if e.bad || counter == "" || node == "" || min(number, a.returned, a.held, a.past) < 0 ||
				max(number, a.granted, a.past) > maxUsed || a.held > a.granted-a.returned {
				return errDamaged
			}
			q := c.ofToken(token).quota(c, counter)
			q.end = time.Unix(0, end)
			was := q.account(node)
			if was == nil {
				if len(q.nodes) >= maxNodes {
					return errDamaged
				}
				was = q.open(node, a.number)
			}
			q.used += a.used() - was.used()
			q.held += a.held - was.held
			*was = a
		default:
			return errDamaged
		}
	}
	return nil
}

// ofToken returns the counters of a token, which it makes if there are none. The caller has the shard's lock, or the
// counters for itself.
func (c *counters) ofToken(token string) *tokenCounters {
	shard := c.shard(token)
	t := shard.tokens[token]
	if t == nil {
		t = newTokenCounters()
		shard.tokens[token] = t
	}
	return t
}

// add leaves entries to the writer, in the order of the calls. The caller waits for the result, after it has given up
// its locks.
func (l *counterLog) add(encode func(to []byte) []byte) *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.pending
	if len(b.text) > maxWaiting {
		l.stalled = true // What is not written now is in the next snapshot.
		return b
	}
	text := encode(b.text)
	if len(text) > len(b.text) {
		b.text, b.cuts = text, append(b.cuts, len(text))
	}
	return b
}

// maxWaiting is about how many bytes wait for a disk that stalls.
const maxWaiting = 4 << 20

// wait waits until the disk has a batch, but only as long as a call may take.
func (l *counterLog) wait(b *batch) {
	l.mu.Lock()
	if l.stalled || len(b.text) == 0 {
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	timer := time.NewTimer(l.timeout)
	defer timer.Stop()
	select {
	case <-b.done:
	case <-timer.C:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stalled = true
	}
}

// run is the writer.
func (l *counterLog) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			l.write()
			return
		case <-l.wake:
			l.write()
		}
	}
}

// write writes what is pending.
func (l *counterLog) write() {
	l.mu.Lock()
	b := l.pending
	l.pending = l.spare
	l.spare = nil
	if l.pending == nil {
		l.pending = newBatch()
	}
	full := len(b.text) > maxWaiting
	l.mu.Unlock()

	l.writing.Lock()
	l.lost = l.lost || l.frames == nil && len(b.text) > 0 || full
	from := 0
	for _, to := range b.cuts {
		if l.frames == nil {
			break
		}
		if err := l.frames.write(append(l.frames.begin(), b.text[from:to]...)); err != nil {
			l.fail(err)
		}
		from = to
	}
	l.writing.Unlock()

	close(b.done)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = false
	if cap(b.text) <= maxFrame {
		l.spare = &batch{text: b.text[:0], cuts: b.cuts[:0], done: make(chan struct{})}
	}
}

// fail gives the file up: nobody knows where it ends. The caller holds writing.
func (l *counterLog) fail(err error) {
	if l.frames != nil {
		_ = l.frames.file.Close()
	}
	l.frames, l.lost = nil, true
	l.onFault(fmt.Errorf("write what the limits have left: %w", err))
}

// tidy syncs the log, and writes a snapshot if the log is long or is not whole.
func (l *counterLog) tidy(c *counters) error {
	l.writing.Lock()
	frames := l.frames
	whole := frames != nil && !l.lost && !l.owed && frames.size <= max(logBytes, logPerSnapshot*l.snapshot)
	l.writing.Unlock()
	if whole {
		if err := frames.file.Sync(); err == nil {
			return nil
		}
		// The system forgets what it could not write, so another file is to have it.
	}
	if err := l.rotate(c); err != nil {
		return fmt.Errorf("write what the limits have left: %w", err)
	}
	return nil
}

// rotate begins a new log, and writes a snapshot that takes the place of the logs before it.
func (l *counterLog) rotate(c *counters) error {
	l.writing.Lock()
	again := l.owed && !l.lost && l.frames != nil // The log is new, and only its snapshot could not be written.
	l.writing.Unlock()
	if !again {
		if err := l.begin(); err != nil {
			return err
		}
	}
	number := l.number
	l.owed = true
	err := l.dir.replace(counterName(number, snapshotSuffix), func(f file) (err error) {
		l.snapshot, err = writeSnapshot(f, number, c)
		return err
	})
	if err != nil {
		return err
	}
	l.owed = false
	names, err := l.dir.disk.list(l.dir.path)
	for _, name := range names {
		for _, suffix := range []string{logSuffix, snapshotSuffix} {
			if old, is := numberOf(name, counterPrefix, suffix); is && old < number {
				err = errors.Join(err, l.dir.removeIfThere(name))
			}
		}
	}
	return err
}

// begin begins a new log.
func (l *counterLog) begin() error {
	number := l.number + 1
	name := counterName(number, logSuffix)
	f, err := l.dir.create(name)
	if err != nil {
		return err
	}
	l.number = number
	frames, err := newFrameFile(f, header{kind: kindCounters, number: number})
	if err != nil {
		return errors.Join(err, f.Close(), l.dir.removeIfThere(name))
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.frames != nil {
		_ = l.frames.file.Close()
	}
	l.frames, l.lost = frames, false
	return nil
}

// lose gives the log up, since its directory was removed.
func (l *counterLog) lose() {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.frames != nil {
		_ = l.frames.file.Close()
	}
	l.frames, l.lost = nil, true
}

func counterName(number uint64, suffix string) string {
	return fmt.Sprintf("%s%020d%s", counterPrefix, number, suffix)
}

// writeSnapshot writes an entry for each counter and account. No lock is held while it writes.
func writeSnapshot(f file, number uint64, c *counters) (int64, error) {
	frames, err := newFrameFile(f, header{kind: kindCounters, number: number, a: 1})
	if err != nil {
		return 0, err
	}
	var text []byte
	var cuts []int
	for i := range c.shards {
		text, cuts = c.shards[i].encode(text[:0], cuts[:0])
		from := 0
		for _, to := range cuts {
			if err := frames.write(append(frames.begin(), text[from:to]...)); err != nil {
				return 0, err
			}
			from = to
		}
	}
	return frames.size, nil
}

// encode appends the entries of a shard, and where frames end.
func (s *counterShard) encode(text []byte, cuts []int) ([]byte, []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := 0
	cut := func(least int) {
		if len(text)-last >= least {
			last = len(text)
			cuts = append(cuts, last)
		}
	}
	for token, t := range s.tokens {
		for name, q := range t.quotas {
			text = appendQuota(text, token, name, q.end, q.adjusted)
			for i := range q.nodes {
				text = appendAccount(text, token, name, q.end, &q.nodes[i])
				cut(snapshotFrame)
			}
		}
		for name, r := range t.rates {
			text = appendRate(text, token, name, r)
			cut(snapshotFrame)
		}
	}
	cut(1)
	return text, cuts
}

// load reads the last snapshot and the logs behind it.
func (l *counterLog) load(names []string, c *counters) {
	snapshot, logs := uint64(0), []uint64(nil)
	for _, name := range names {
		if n, is := numberOf(name, counterPrefix, snapshotSuffix); is {
			snapshot = max(snapshot, n)
			l.number = max(l.number, n)
		}
		if n, is := numberOf(name, counterPrefix, logSuffix); is {
			logs = append(logs, n)
			l.number = max(l.number, n)
		}
	}
	if snapshot > 0 {
		l.loadFile(snapshot, snapshotSuffix, c)
	}
	for _, n := range logs { // in their order, since the names are sorted
		if n >= snapshot {
			l.loadFile(n, logSuffix, c)
		}
	}
}

func (l *counterLog) loadFile(number uint64, suffix string, c *counters) {
	name := counterName(number, suffix)
	err := l.dir.read(name, func(f readFile) error {
		r, err := newFrameReader(f)
		if err != nil {
			return err
		}
		if r.header.kind != kindCounters || r.header.number != number {
			return errDamaged
		}
		for {
			payload, err := r.next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = c.apply(payload)
			}
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		l.log.Warn("a file of the limits ends before its end, as after a loss of power: what was used since then is "+
			"known again when the nodes draw", zap.String("file", name), zap.Error(err))
	}
}

// close ends the log, when nobody uses it any more.
func (l *counterLog) close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.frames == nil {
		return nil
	}
	frames := l.frames
	l.frames = nil
	return errors.Join(frames.sync(), frames.file.Close())
}
