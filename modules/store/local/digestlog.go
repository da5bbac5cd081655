package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/store"
)

const (
	digestPrefix, logSuffix = "digests-", ".log"
	// gather is how long the writer waits after a write, so that the commits of many requests are one write.
	gather = 2 * time.Millisecond
	// syncEvery is how often what was written is synced.
	syncEvery = time.Second
	// maxPending is how many digests wait for the writer at most: 4 MiB.
	maxPending = 1 << 18
	keyBytes   = 16
	// keysPerFrame is how many digests a frame has at most.
	keysPerFrame = 1 << 12
)

// digestLog writes what is done to the disk, a file or more for each generation. A goroutine of its own, the writer,
// does everything with the files; requests only leave their digests to it.
type digestLog struct {
	dir     *directory
	digests *digests
	log     *zap.Logger
	clock   func() time.Time
	now     func() int64
	salt    uint64 // tells the digests of one secret from those of another
	// onFault is told of an error of the disk, and of nil when the files are whole again.
	onFault func(error)

	mu      sync.Mutex
	pending []commits
	spare   []commits // what pending was before, to be used again
	waiting int       // digests that the writer has not written yet
	ended   []*generation
	wake    chan struct{}

	// busy is held by the goroutine that does something with the files, and guards what follows.
	busy   sync.Mutex
	number uint64 // of the last file
	files  map[*generation]*savedGeneration
	failed bool
	retry  backoff
}

// commits are digests of one generation.
type commits struct {
	g    *generation
	keys []key
}

// savedGeneration is what the disk has of a generation.
type savedGeneration struct {
	numbers []uint64
	open    *frameFile // the last file, if it can be written to
}

// add leaves the digests of a settlement to the writer.
func (l *digestLog) add(g *generation, mask key, digests []store.Digest) {
	l.mu.Lock()
	wake := len(l.pending) == 0
	if l.waiting+len(digests) > maxPending {
		l.mu.Unlock()
		g.unsaved.Store(true)
		return
	}
	if n := len(l.pending); n == 0 || l.pending[n-1].g != g {
		if n < cap(l.pending) {
			l.pending = l.pending[:n+1]
			l.pending[n].g, l.pending[n].keys = g, l.pending[n].keys[:0]
		} else {
			l.pending = append(l.pending, commits{g: g})
		}
	}
	last := &l.pending[len(l.pending)-1]
	for i := range digests {
		last.keys = append(last.keys, keyOf(mask, &digests[i]))
	}
	l.waiting += len(digests)
	l.mu.Unlock()
	if wake {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// left returns how many digests are not written yet.
func (l *digestLog) left() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(l.waiting)
}

// remove leaves the files of a generation that has ended to the writer.
func (l *digestLog) remove(g *generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, g)
}

// run is the writer. When ctx is over it writes what is left.
func (l *digestLog) run(ctx context.Context) {
	ticker := time.NewTicker(syncEvery)
	defer ticker.Stop()
	pause := time.NewTimer(gather)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush()
			l.close()
			return
		case <-ticker.C:
			l.tidy()
			continue
		case <-l.wake:
			l.flush()
		}
		pause.Reset(gather)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

// tidy writes what is pending, mends what the disk lacks, and syncs.
func (l *digestLog) tidy() {
	l.busy.Lock()
	defer l.busy.Unlock()
	l.write()
	l.mend()
	l.sync()
}

// flush writes what is pending.
func (l *digestLog) flush() {
	l.busy.Lock()
	defer l.busy.Unlock()
	l.write()
}

// write writes what is pending, and removes the files of what has ended.
func (l *digestLog) write() {
	l.mu.Lock()
	pending, ended := l.pending, l.ended
	l.pending, l.spare, l.ended = l.spare[:0], pending, nil
	l.mu.Unlock()
	written := 0
	for _, c := range pending {
		written += len(c.keys)
		if c.g.ended.Load() || c.g.unsaved.Load() { // What is unsaved will be written whole.
			continue
		}
		if err := l.append(c.g, c.keys); err != nil {
			c.g.unsaved.Store(true)
			l.fault(err)
		}
	}
	for _, g := range ended {
		l.drop(g)
	}
	for i := range pending {
		if cap(pending[i].keys) > keysPerFrame {
			pending[i].keys = nil // of a burst
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting -= written
}

// append writes digests to the file of their generation.
func (l *digestLog) append(g *generation, keys []key) error {
	of := l.files[g]
	if of == nil {
		of = &savedGeneration{}
		l.files[g] = of
	}
	if of.open == nil {
		if err := l.create(g, of); err != nil {
			return err
		}
	}
	for len(keys) > 0 {
		n := min(len(keys), keysPerFrame)
		frame := of.open.begin()
		for _, k := range keys[:n] {
			frame = binary.LittleEndian.AppendUint64(frame, k[0])
			frame = binary.LittleEndian.AppendUint64(frame, k[1])
		}
		if err := of.open.write(frame); err != nil {
			_ = of.open.file.Close()
			of.open = nil
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// create begins a file of a generation.
func (l *digestLog) create(g *generation, of *savedGeneration) error {
	number := l.number + 1
	end := l.clock().Add(time.Duration(g.end - l.now()))
	f, err := l.dir.create(digestName(number))
	if err != nil {
		return err
	}
	l.number = number
	open, err := newFrameFile(f, header{
		kind: kindDigests, number: number, a: uint64(end.UnixNano()), b: uint64(g.window), c: l.salt,
	})
	if err != nil {
		return errors.Join(err, f.Close(), l.dir.removeIfThere(digestName(number)))
	}
	of.numbers, of.open = append(of.numbers, number), open
	return nil
}

func digestName(number uint64) string {
	return fmt.Sprintf("%s%020d%s", digestPrefix, number, logSuffix)
}

// drop removes the files of a generation.
func (l *digestLog) drop(g *generation) {
	of := l.files[g]
	if of == nil {
		return
	}
	delete(l.files, g)
	if of.open != nil {
		_ = of.open.file.Close()
	}
	l.removeFiles(of.numbers)
}

// removeFiles removes files. One that stays behind costs its place on the disk until the next start.
func (l *digestLog) removeFiles(numbers []uint64) {
	for _, number := range numbers {
		if err := l.dir.removeIfThere(digestName(number)); err != nil && !errors.Is(err, errNotLocked) {
			l.log.Warn("a file of the store could not be removed", zap.Error(err))
		}
	}
}

// mend writes the generations whole of which the disk lacks digests.
func (l *digestLog) mend() {
	now := l.now()
	if !l.retry.isTime(now) {
		return
	}
	for _, g := range l.digests.generations() {
		if !g.unsaved.Load() {
			continue
		}
		if err := l.rewrite(g); err != nil {
			l.retry.after(err, now)
			l.fault(err)
			return
		}
	}
	l.retry.after(nil, now)
	if l.failed {
		l.failed = false
		l.onFault(nil)
	}
}

// spareBytes is how much of the disk is left to others when files are written anew.
const spareBytes = 64 << 20

// rewrite writes all digests of a generation to a new file, which takes the place of those before.
func (l *digestLog) rewrite(g *generation) error {
	needed := l.digests.sizes[g.tag].Load()*keyBytes + spareBytes
	if free, err := l.dir.disk.free(l.dir.path); err == nil && free < needed {
		return fmt.Errorf("%d bytes are free, and %d are needed: %w", free, needed, syscall.ENOSPC)
	}
	g.unsaved.Store(false) // What is committed from here on is pending, or makes it unsaved again.
	before := l.files[g]
	delete(l.files, g)
	var keys []key
	var err error
	for i := range l.digests.shards {
		keys = l.digests.collect(keys[:0], &l.digests.shards[i], g.tag)
		if err == nil && len(keys) > 0 {
			err = l.append(g, keys)
		}
	}
	if err != nil {
		g.unsaved.Store(true)
		l.drop(g)
		if before != nil {
			l.files[g] = before
		}
		return err
	}
	if before != nil {
		if before.open != nil {
			_ = before.open.file.Close()
		}
		l.removeFiles(before.numbers)
	}
	return nil
}

// sync has the disk keep what was written.
func (l *digestLog) sync() {
	for g, of := range l.files {
		if of.open == nil {
			continue
		}
		if err := of.open.sync(); err != nil {
			// The system forgets what it could not write: it is written again, to another file.
			_ = of.open.file.Close()
			of.open = nil
			g.unsaved.Store(true)
			l.fault(err)
		}
	}
}

func (l *digestLog) fault(err error) {
	l.failed = true
	l.onFault(fmt.Errorf("write what was delivered: %w", err))
}

func (l *digestLog) close() {
	l.busy.Lock()
	defer l.busy.Unlock()
	l.sync()
	for _, of := range l.files {
		if of.open != nil {
			_ = of.open.file.Close()
		}
	}
}

// load reads the files. Damage costs what is behind it in its file.
func (l *digestLog) load(names []string) (loaded int64) {
	l.busy.Lock()
	defer l.busy.Unlock()
	type found struct {
		name string
		size int64
		header
	}
	var files []found
	total := int64(0)
	for _, name := range names {
		number, is := numberOf(name, digestPrefix, logSuffix)
		if !is {
			continue
		}
		l.number = max(l.number, number)
		h, size, err := l.peek(name)
		end := int64(0)
		if err == nil {
			end = l.endOf(h)
		}
		switch {
		case errors.Is(err, errVersion):
			l.log.Warn("digests of another release of the service are left as they are", zap.String("file", name),
				zap.Error(err))
		case err != nil || h.kind != kindDigests || h.number != number || h.c != l.salt || h.b == 0:
			l.log.Warn("a file of digests cannot be used, and is removed: events that were delivered before may be "+
				"taken for new ones", zap.String("file", name), zap.Error(err))
			l.removeFiles([]uint64{number})
		case end <= l.now():
			l.removeFiles([]uint64{number})
		default:
			files = append(files, found{name, size, h})
			total += size / keyBytes
		}
	}
	l.digests.expect(total)
	slices.SortStableFunc(files, func(a, b found) int {
		return int(min(1, max(-1, l.endOf(a.header)-l.endOf(b.header))))
	})
	for _, f := range files {
		// With some slack the files of many short runs make no more generations than those of a long one.
		g := l.digests.loaded(time.Duration(f.b), l.endOf(f.header), int64(f.b)/(2*perWindow))
		if l.files[g] == nil {
			l.files[g] = &savedGeneration{}
		}
		l.files[g].numbers = append(l.files[g].numbers, f.number)
		n, err := l.loadFile(f.name, g)
		loaded += n
		if err != nil {
			g.unsaved.Store(true) // so that the next start finds a file without damage
			l.log.Warn("a file of digests ends before its end, as after a loss of power: events that were delivered "+
				"before may be taken for new ones", zap.String("file", f.name), zap.Int64("digests", n), zap.Error(err))
		}
	}
	l.write() // The table may have been too small for all: what has gone goes from the disk.
	return loaded
}

// endOf is when the digests of a file end, on the clock of the store. A clock that was set back does not keep them for
// longer than their window.
func (l *digestLog) endOf(h header) int64 {
	now, window := l.now(), min(int64(h.b), longestWindow)
	left := min(int64(h.a)-l.clock().UnixNano(), window+window/perWindow)
	return now + left
}

// longestWindow keeps sums of times from an overflow: a century.
const longestWindow = int64(100 * 365 * 24 * time.Hour)

// peek returns the header and the size of a file.
func (l *digestLog) peek(name string) (h header, size int64, err error) {
	err = l.dir.read(name, func(f readFile) error {
		r, err := newFrameReader(io.LimitReader(f, headerBytes))
		if err != nil {
			return err
		}
		found, err := f.Stat()
		if err != nil {
			return err
		}
		h, size = r.header, found.Size()
		return nil
	})
	return h, size, err
}

func (l *digestLog) loadFile(name string, g *generation) (loaded int64, err error) {
	err = l.dir.read(name, func(f readFile) error {
		r, err := newFrameReader(f)
		if err != nil {
			return err
		}
		var keys []key
		for !g.ended.Load() { // There may be no room for it.
			payload, err := r.next()
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			case len(payload)%keyBytes != 0:
				return errDamaged
			}
			keys = keys[:0]
			for ; len(payload) > 0; payload = payload[keyBytes:] {
				keys = append(keys, key{
					binary.LittleEndian.Uint64(payload), binary.LittleEndian.Uint64(payload[8:]),
				})
			}
			if l.digests.isFull(g) { // The file is of a process that had more memory.
				g = l.digests.loaded(g.window, g.end, 0)
				g.unsaved.Store(true)
			}
			l.digests.load(keys, g, l.now())
			loaded += int64(len(keys))
		}
		return nil
	})
	return loaded, err
}

// numberOf returns the number in the name of a file.
func numberOf(name, prefix, suffix string) (uint64, bool) {
	digits, hasPrefix := strings.CutPrefix(name, prefix)
	digits, hasSuffix := strings.CutSuffix(digits, suffix)
	number, err := strconv.ParseUint(digits, 10, 63)
	return number, hasPrefix && hasSuffix && err == nil && len(digits) == 20
}
