package spool

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"pgregory.net/rapid"
)

// volatile is a disk that can lose its power: it knows which of its content would be left. It keeps the files in a real
// directory.
type volatile struct {
	disk
	root string
	// before is called before every operation that changes something; it may be nil.
	before func()
	// fail makes the syncs of segments fail, "before" or "behind" their effect; it is empty if they do not fail.
	fail string

	mu    sync.Mutex
	nodes map[string]*node // by path, as a process sees them
}

// node is a file or a directory.
type node struct {
	isDir   bool
	durable []byte           // the content of a file that is durable
	names   map[string]*node // the entries of a directory that are durable
}

// fate decides what a loss of power does to names and content that were not synced.
type fate struct {
	created func() bool                       // whether a new name stays
	removed func(name string) bool            // whether a removed name is gone
	content func(durable, seen []byte) []byte // what a file then holds
}

// worst is a disk that keeps only what it must keep.
var worst = fate{
	created: func() bool { return false },
	removed: func(string) bool { return true },
	content: func(durable, _ []byte) []byte { return durable },
}

// unordered is like worst, but the removed segments come back, and no other removed file does.
var unordered = fate{
	created: worst.created,
	removed: func(name string) bool { return !strings.HasSuffix(name, segmentSuffix) },
	content: worst.content,
}

// killed is a disk that keeps its power: only the process has ended.
var killed = fate{
	created: func() bool { return true },
	removed: func(string) bool { return true },
	content: func(_, seen []byte) []byte { return seen },
}

// newVolatile makes a disk of a real directory. All content of the directory counts as durable.
func newVolatile(t require.TestingT, root string) *volatile {
	v := &volatile{root: root, nodes: map[string]*node{}}
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() == lockName {
			return err
		}
		n := &node{isDir: entry.IsDir(), names: map[string]*node{}}
		if !n.isDir {
			if n.durable, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		v.nodes[path] = n
		if above := v.nodes[filepath.Dir(path)]; above != nil {
			above.names[entry.Name()] = n
		}
		return nil
	}))
	return v
}

func (v *volatile) add(path string, n *node) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n.names = map[string]*node{}
	v.nodes[path] = n
}

type volatileFile struct {
	file
	disk *volatile
	node *node
	path string
}

func (v *volatile) wrap(path string, f file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return &volatileFile{file: f, disk: v, node: v.nodes[path], path: path}, nil
}

func (v *volatile) about() {
	if v.before != nil {
		v.before()
	}
}

func (v *volatile) create(path string) (file, error) {
	v.about()
	f, err := v.disk.create(path)
	if err == nil {
		v.add(path, &node{})
	}
	return v.wrap(path, f, err)
}

func (v *volatile) edit(path string) (file, error) {
	f, err := v.disk.edit(path)
	return v.wrap(path, f, err)
}

func (v *volatile) makeDir(path string) error {
	v.about()
	err := v.disk.makeDir(path)
	if err == nil {
		v.add(path, &node{isDir: true})
	}
	return err
}

func (v *volatile) remove(path string) error {
	v.about()
	err := v.disk.remove(path)
	if err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.nodes, path)
	}
	return err
}

func (v *volatile) syncDir(path string) error {
	v.about()
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.nodes[path]
	if n == nil {
		return nil // above the root
	}
	n.names = v.entries(path)
	return nil
}

// entries returns what a process sees in a directory.
func (v *volatile) entries(dir string) map[string]*node {
	names := map[string]*node{}
	for path, n := range v.nodes {
		if filepath.Dir(path) == dir && path != dir {
			names[filepath.Base(path)] = n
		}
	}
	return names
}

func (f *volatileFile) WriteAt(data []byte, off int64) (int, error) {
	f.disk.about()
	return f.file.WriteAt(data, off)
}

func (f *volatileFile) Sync() error {
	f.disk.about()
	fails := ""
	if strings.HasSuffix(f.path, segmentSuffix) {
		fails = f.disk.fail
	}
	if fails == "before" {
		return syscall.EIO
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	content := make([]byte, info.Size())
	if _, err := f.ReadAt(content, 0); err != nil && len(content) > 0 {
		return err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.node.durable = content
	if fails != "" {
		return syscall.EIO
	}
	return nil
}

// image writes the content that a loss of power leaves to another directory, and returns that directory.
func (v *volatile) image(t require.TestingT, to string, what fate) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leave(t, v.root, v.nodes[v.root], to, what)
	return to
}

func (v *volatile) leave(t require.TestingT, path string, n *node, to string, what fate) {
	if !n.isDir {
		content := n.durable
		if seen, err := os.ReadFile(path); v.nodes[path] == n {
			require.NoError(t, err)
			if !bytes.Equal(seen, content) {
				content = what.content(content, seen)
			}
		}
		require.NoError(t, os.WriteFile(to, content, 0o600))
		return
	}
	require.NoError(t, os.MkdirAll(to, 0o700))
	now := v.entries(path)
	for _, name := range sortedNames(n.names, now) {
		left := n.names[name]
		if seen := now[name]; seen != left {
			switch {
			case seen != nil && what.created():
				left = seen
			case seen == nil && what.removed(name):
				left = nil
			}
		}
		if left != nil {
			v.leave(t, filepath.Join(path, name), left, filepath.Join(to, name), what)
		}
	}
}

func sortedNames(sets ...map[string]*node) []string {
	var names []string
	for _, set := range sets {
		for name := range set {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// powered is a spool on a disk that can lose its power.
type powered struct {
	t     require.TestingT
	cfg   Config
	disk  *volatile
	spool *Spool
}

func newPowered(t testing.TB) *powered {
	cfg := testConfig(t)
	root := filepath.Dir(cfg.Dir)
	cfg.Dir = filepath.Join(root, "a", "b", "spool")
	cfg.SegmentBytes = 500
	p := &powered{t: t, cfg: cfg, disk: newVolatile(t, root)}
	p.open()
	t.Cleanup(func() { _ = p.spool.Close() })
	return p
}

func (p *powered) open() {
	s, err := open(p.cfg, zap.NewNop(), p.disk)
	require.NoError(p.t, err)
	s.failFast = 0
	p.spool = s
}

// fail cuts the power, and opens the spool with the content that is left.
func (p *powered) fail(to string, what fate) { p.resume(p.disk.image(p.t, to, what)) }

// loseAt takes an image of the content that would be left if the power failed before operation number "operation" from
// now on, and calls note at that moment. resume opens the image. It reports false if there were not so many operations.
func (p *powered) loseAt(operation int, to string, what fate, note func()) (resume func() bool) {
	count := 0
	p.disk.before = func() {
		if count == operation {
			p.disk.image(p.t, to, what)
			note()
		}
		count++
	}
	return func() bool {
		p.disk.before = nil
		if count <= operation {
			return false
		}
		p.resume(to)
		return true
	}
}

// resume opens the spool with the content that a loss of power has left.
func (p *powered) resume(image string) {
	below, err := filepath.Rel(p.disk.root, p.cfg.Dir)
	require.NoError(p.t, err)
	p.disk = newVolatile(p.t, image)
	_ = p.spool.Close() // nobody looks at its disk any more
	p.cfg.Dir = filepath.Join(image, below)
	p.open()
}

func requireNothingLost(t require.TestingT, l *Log) {
	require.Zero(t, l.Stats().CorruptRegions, "nothing is taken for lost")
	require.Zero(t, l.Stats().CorruptRecords)
	require.Zero(t, l.Stats().UnreadableCursors)
}

func TestAnAcknowledgedRecordSurvivesAPowerLoss(t *testing.T) {
	p := newPowered(t)
	for n := range 60 {
		appendAll(t, p.spool.Log("topic"), value(n))
		if n%7 == 0 {
			p.fail(t.TempDir(), worst)
		}
		if n == 10 { // record 11 is in a segment that existed before its commit
			require.Equal(t, expected(1, 12), readAll(t, p.spool.Log("topic"), 1000))
		}
	}
	p.fail(t.TempDir(), worst)
	l := p.spool.Log("topic")
	require.Equal(t, expected(1, 61), readAll(t, l, 1000))
	requireNothingLost(t, l)
}

func TestAppendsAndDonesAreSafeAtEveryEndOfTheProcess(t *testing.T) {
	for _, what := range []fate{worst, unordered, killed} {
		for crash := 0; useWithPowerLoss(t, crash, what); crash++ {
			require.Less(t, crash, 1000)
		}
	}
}

// useWithPowerLoss appends and delivers, and cuts the power before operation number crash. It reports whether there
// were so many operations.
func useWithPowerLoss(t *testing.T, crash int, what fate) bool {
	p := newPowered(t)
	l := p.spool.Log("topic")
	acknowledged, delivered := uint64(0), uint64(0)
	atCrash := acknowledged
	image := p.loseAt(crash, t.TempDir(), what, func() { atCrash = acknowledged })
	for n := range 40 {
		acknowledged = appendAll(t, l, value(n))
		if n%10 == 9 {
			delivered = acknowledged - 3
			l.DoneRange(1, delivered+1)
		}
		if n == 20 {
			require.NoError(t, p.spool.Close())
			p.open()
			l = p.spool.Log("topic")
		}
	}
	if !image() {
		return false
	}
	l = p.spool.Log("topic")
	requireNothingLost(t, l)
	first, next := l.Stats().First, l.Stats().Next
	require.LessOrEqual(t, first, delivered+1)
	require.Greater(t, next, atCrash)
	read := readAll(t, l, 1000)
	require.GreaterOrEqual(t, uint64(len(read)), atCrash+1-min(first, atCrash+1))
	require.Equal(t, expected(first, first+uint64(len(read))), read)
	requireNothingLost(t, l)
	return true
}

func TestTheNameOfANewSegmentIsDurableBeforeItsFirstRecordIsAcknowledged(t *testing.T) {
	p := newPowered(t)
	l := p.spool.Log("topic")
	for n := 0; len(segmentFiles(t, l)) < 3; n++ {
		appendAll(t, l, value(n))
		before := l.Stats().Next
		p.fail(t.TempDir(), worst)
		l = p.spool.Log("topic")
		require.Equal(t, before, l.Stats().Next)
	}
	require.Equal(t, expected(1, l.Stats().Next), readAll(t, l, 1000))
}

func TestTheDirectoriesThatTheSpoolHasMadeSurviveAPowerLoss(t *testing.T) {
	p := newPowered(t)
	appendAll(t, p.spool.Log("topic"), "a")
	p.fail(t.TempDir(), worst)
	require.Equal(t, []got{{1, "a"}}, readAll(t, p.spool.Log("topic"), 100))
}

func TestADirectoryThatAKilledProcessHasMadeSurvivesAPowerLoss(t *testing.T) {
	p := newPowered(t)
	require.NoError(t, p.spool.Close())
	// The process is killed before the name of the directory is durable.
	require.NoError(t, p.disk.makeDir(filepath.Join(p.cfg.Dir, "topic")))
	p.open()
	appendAll(t, p.spool.Log("topic"), "a")
	p.fail(t.TempDir(), worst)
	require.Equal(t, []got{{1, "a"}}, readAll(t, p.spool.Log("topic"), 100))
}

func TestACursorThatWasMadeAnewSurvivesAPowerLoss(t *testing.T) {
	for _, use := range []func(l *Log){
		func(l *Log) { appendAll(t, l, value(10)) },
		func(l *Log) { l.Done(4) },
	} {
		p := newPowered(t)
		l := p.spool.Log("topic")
		appendEach(t, l, 0, 10)
		l.DoneRange(1, 4)
		require.NoError(t, p.disk.remove(l.cursorFile.path))
		use(l)
		first := l.Stats().First
		p.fail(t.TempDir(), worst)
		requireNothingLost(t, p.spool.Log("topic"))
		require.Equal(t, first, p.spool.Log("topic").Stats().First)
	}
}

func TestADirectoryWhoseNameCannotBeMadeDurableIsMadeAgain(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "a", "b", "c")
	for _, above := range []string{root, filepath.Join(root, "a"), filepath.Join(root, "a", "b")} {
		disk := newFaulty()
		disk.set(func(op, path string) error {
			if op == "syncDir" && path == above {
				return errors.New("not now")
			}
			return nil
		})
		require.Error(t, makeDirs(disk, path))
		disk.set(nil)
		synced := disk.count("syncDir")
		require.NoError(t, makeDirs(disk, path))
		require.Greater(t, disk.count("syncDir"), synced)
		require.NoError(t, os.RemoveAll(filepath.Join(root, "a")))
	}
}

func TestASegmentIsRemovedOnceTheCursorIsDurable(t *testing.T) {
	p := newPowered(t)
	l := p.spool.Log("topic")
	for n := range 100 {
		seq := appendAll(t, l, value(n))
		if n%3 == 0 {
			l.DoneRange(1, seq)
		}
		if n%10 == 0 {
			p.fail(t.TempDir(), worst)
			l = p.spool.Log("topic")
			requireNothingLost(t, l)
		}
	}
	// This covers also the last segment of a log whose records are all done, and the segments that Open removes.
	for range 2 {
		l.DoneRange(1, l.Stats().Next)
		require.True(t, p.spool.reclaim() || len(segmentFiles(t, l)) == 0)
		p.fail(t.TempDir(), worst)
		l = p.spool.Log("topic")
		requireNothingLost(t, l)
		require.EqualValues(t, 101, l.Stats().Next)
	}
}

func TestOpenRemovesSegmentsOnceTheCursorIsDurable(t *testing.T) {
	p := newPowered(t)
	l := p.spool.Log("topic")
	appendEach(t, l, 0, 60)
	files := segmentFiles(t, l)
	// The process is killed after the cursor was written and before it was synced.
	l.mu.Lock()
	l.cursor = 40
	l.mu.Unlock()
	require.True(t, l.save(false))
	require.NoError(t, p.spool.directory.release())
	killed := p.spool
	defer killed.Close() //nolint:errcheck // nobody looks at its disk any more
	p.open()
	require.Less(t, len(segmentFiles(t, p.spool.Log("topic"))), len(files))
	p.fail(t.TempDir(), worst)
	requireNothingLost(t, p.spool.Log("topic"))
	require.Equal(t, expected(40, 61), readAll(t, p.spool.Log("topic"), 1000))
}

func TestSegmentsStayWhileTheCursorCannotBeWritten(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	appendEach(t, l, 0, 60)
	files := len(segmentFiles(t, l))
	disk.set(func(op, path string) error {
		if (op == "write" || op == "sync") && strings.HasSuffix(path, cursorName) {
			return errors.New("not now")
		}
		return nil
	})
	l.DoneRange(1, 50)
	require.Len(t, segmentFiles(t, l), files, "an Open would take them for lost")
	disk.set(nil)
	l.DoneRange(50, 61)
	require.LessOrEqual(t, len(segmentFiles(t, l)), 1)
	require.Equal(t, l.Stats().Bytes, s.Usage().Bytes)
}

func TestADamagedSlotOfTheCursorIsNoLossOfRecords(t *testing.T) {
	for slot := range int64(2) {
		cfg, files := kept(t, 60)
		s, _ := observed(t, cfg, disk{})
		l := s.Log("topic")
		l.Done(1)
		l.DoneRange(2, firstOf(t, files[3])+1)
		require.NoError(t, s.directory.release()) // as if the process were killed
		s.directory.taken.Store(true)
		require.Less(t, len(segmentFiles(t, l)), len(files))
		flip(t, l.cursorFile.path, slot*slotApart+2)
		l = openSpool(t, cfg).Log("topic")
		requireNothingLost(t, l)
		require.Equal(t, expected(firstOf(t, files[3])+1, 61), readAll(t, l, 1000))
	}
}

func TestWhatAKilledProcessHasNotSyncedIsNoLossAfterAPowerLoss(t *testing.T) {
	p := newPowered(t)
	l := p.spool.Log("topic")
	appendAll(t, l, "a")
	require.NoError(t, p.spool.Close())
	// The process is killed between the write and the sync.
	path := filepath.Join(l.dir, segmentName(1))
	f, err := p.disk.edit(path)
	require.NoError(t, err)
	_, err = f.WriteAt(appendRecord(nil, 2, 2, []byte("b")), headerSize+headSize+1)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	p.open()
	appendAll(t, p.spool.Log("topic"), "c")
	p.fail(t.TempDir(), worst)
	l = p.spool.Log("topic")
	require.Equal(t, []got{{1, "a"}, {2, "b"}, {3, "c"}}, readAll(t, l, 100))
	requireNothingLost(t, l)
}

// TestANewSegmentThatIsStillEmptyCostsNoOther kills the process after it has made a segment and before its first write
// to that segment. In some cases the segments before it are done.
func TestANewSegmentThatIsStillEmptyCostsNoOther(t *testing.T) {
	for _, done := range []int{0, 1, 2} {
		for _, left := range [][]byte{nil, header(61)} {
			cfg, files := kept(t, 60)
			first := firstOf(t, files[done])
			cursor := appendSlot(nil, checkpoint{cursor: first, committed: 61})
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(files[0]), cursorName), cursor, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(files[0]), segmentName(61)), left, 0o600))
			s, _ := observed(t, cfg, disk{})
			l := s.Log("topic")
			require.Equal(t, files[done:], segmentFiles(t, l))
			require.Equal(t, expected(first, 61), readAll(t, l, 1000))
			requireNothingLost(t, l)
			require.Equal(t, 61-first, l.Stats().Records)
			require.Equal(t, l.Stats().Bytes, s.Usage().Bytes)
		}
	}
}

// TestALogThatIsDoneIsEmptyBehindASegmentWithoutARecord cuts the power in the first commit to a segment, which leaves a
// name and a length. The numbers of that commit are no records.
func TestALogThatIsDoneIsEmptyBehindASegmentWithoutARecord(t *testing.T) {
	for _, delivered := range []uint64{1, 30, 61} { // the cursor
		for _, left := range [][]byte{make([]byte, 5000), append(header(61), make([]byte, 5000)...), nil} {
			cfg, files := kept(t, 60)
			path := filepath.Join(filepath.Dir(files[0]), segmentName(61))
			require.NoError(t, os.WriteFile(path, left, 0o600))
			cursor := appendSlot(nil, checkpoint{cursor: delivered, committed: 61})
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(files[0]), cursorName), cursor, 0o600))
			s := openSpool(t, cfg)
			l := s.Log("topic")
			require.Equal(t, 61-delivered, l.Stats().Records)
			appended := appendAll(t, l, "new")
			require.Equal(t, 62-delivered, l.Stats().Records)
			require.Equal(t, append(expected(delivered, 61), got{appended, "new"}), readAll(t, l, 1000))
			require.Equal(t, 62-delivered, l.Stats().Records)
			l.DoneRange(1, appended+1)
			require.Zero(t, l.Stats().Records)
			require.Equal(t, appended+1, l.Stats().First)
			requireNothingLost(t, l)
			require.NoError(t, s.Close())
			require.Empty(t, segmentFiles(t, l))
		}
	}
}

// TestRecordsThatFailedAreNoLossIfTheHeaderBehindThemIsTorn makes a commit fail, and cuts the power in the next commit.
// The torn header of the next segment cannot tell that the numbers before it were never acknowledged.
func TestRecordsThatFailedAreNoLossIfTheHeaderBehindThemIsTorn(t *testing.T) {
	for _, delivered := range []uint64{0, 1, 2} {
		for _, torn := range []int{0, headerSize, 3000} {
			cfg := testConfig(t)
			disk := newFaulty()
			s, _ := observed(t, cfg, disk)
			l := s.Log("topic")
			appendAll(t, l, "a", "b")
			disk.failing("sync", segmentSuffix, syscall.EIO)
			_, err := l.Append(t.Context(), payloads("failed", "failed"))
			require.ErrorIs(t, err, syscall.EIO)
			disk.set(nil)
			l.DoneRange(1, delivered+1)
			require.NoError(t, s.directory.release()) // as if the process had ended
			s.directory.taken.Store(true)
			require.NoError(t, os.WriteFile(filepath.Join(l.dir, segmentName(5)), make([]byte, torn), 0o600))

			s, _ = observed(t, cfg, disk)
			l = s.Log("topic")
			requireNothingLost(t, l)
			require.Equal(t, 2-delivered, l.Stats().Records)
			require.Equal(t, []got{{1, "a"}, {2, "b"}}[delivered:], append([]got{}, readAll(t, l, 1000)...))
			seq := appendAll(t, l, "new")
			require.Greater(t, seq, uint64(2))
			require.Equal(t, []got{{seq, "new"}}, readAll(t, l, 1000))
			l.DoneRange(1, seq+1)
			require.Zero(t, l.Stats().Records)
			requireNothingLost(t, l)
		}
	}
}

// TestNumbersThatFailedAreNoLossAfterTheCursorHasPassedThem cuts the power in a commit, kills the process after the
// next start, and cuts the power once more. The second loss of power brings back an older cursor.
func TestNumbersThatFailedAreNoLossAfterTheCursorHasPassedThem(t *testing.T) {
	cfg, files := kept(t, 60)
	s := openSpool(t, cfg)
	l := s.Log("topic")
	l.DoneRange(1, 61)
	require.NoError(t, s.Close())
	before, err := os.ReadFile(l.cursorFile.path)
	require.NoError(t, err)
	path := filepath.Join(filepath.Dir(files[0]), segmentName(61))
	require.NoError(t, os.WriteFile(path, make([]byte, 1000), 0o600))
	for range 2 {
		s = openSpool(t, cfg)
		l = s.Log("topic")
		require.EqualValues(t, 62, l.Stats().First)
		require.NoError(t, s.Close())
	}
	s = openSpool(t, cfg)
	require.EqualValues(t, 62, appendAll(t, s.Log("topic"), "new"))
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(l.cursorFile.path, before, 0o600))

	l = openSpool(t, cfg).Log("topic")
	require.Equal(t, []got{{62, "new"}}, readAll(t, l, 1000))
	requireNothingLost(t, l)
	l.Done(62)
	require.Zero(t, l.Stats().Records)
}

// chance is a disk on which a loss of power may leave any content. It draws all its decisions in advance, since other
// goroutines ask for them.
func chance(t *rapid.T) fate {
	coins := rapid.SliceOfN(rapid.Bool(), 20, 20).Draw(t, "coins")
	flip := func() bool {
		coins = append(coins[1:], coins[0])
		return coins[len(coins)-1]
	}
	either := func(durable, seen []byte) []byte {
		if flip() {
			return seen
		}
		return durable
	}
	return fate{created: flip, removed: func(string) bool { return flip() },
		content: func(durable, seen []byte) []byte {
			left := bytes.Clone(either(durable, seen))
			for at := 0; at < len(left); at += slotApart {
				from := either(durable, seen)
				if to := min(at+slotApart, len(left)); at < len(from) {
					clear(left[at:to])
					copy(left[at:to], from[at:min(to, len(from))])
				}
			}
			return left
		}}
}

// TestAPowerLossCostsNothingThatWasAcknowledged lets chance decide which other content is left.
func TestAPowerLossCostsNothingThatWasAcknowledged(t *testing.T) {
	root, disks := t.TempDir(), 0
	next := func() string {
		disks++
		return filepath.Join(root, strconv.Itoa(disks))
	}
	rapid.Check(t, func(t *rapid.T) {
		to := next()
		require.NoError(t, os.Mkdir(to, 0o700))
		p := &powered{t: t, disk: newVolatile(t, to), cfg: Config{
			Dir: filepath.Join(to, "a", "spool"), MaxBytes: 1 << 30, MaxPending: 1 << 20,
			SegmentBytes: rapid.Int64Range(100, 5000).Draw(t, "segment"),
		}}
		p.open()
		defer func() { _ = p.spool.Close() }()
		acknowledged, done := map[uint64]string{}, map[uint64]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				values := rapid.SliceOfN(rapid.StringN(0, 60, 200), 1, 4).Draw(t, "values")
				first := appendAll(t, p.spool.Log("topic"), values...)
				for i, value := range values {
					acknowledged[first+uint64(i)] = value
				}
			},
			"done": func(t *rapid.T) {
				l := p.spool.Log("topic")
				first := l.Stats().First
				from := rapid.Uint64Range(first, first+4).Draw(t, "from")
				for seq := from; seq < from+rapid.Uint64Range(1, 20).Draw(t, "n"); seq++ {
					l.Done(seq)
					if _, ok := acknowledged[seq]; ok {
						done[seq] = true
					}
				}
			},
			"reopen": func(t *rapid.T) {
				require.NoError(t, p.spool.Close())
				p.open()
			},
			"kill": func(t *rapid.T) {
				killed := p.spool
				require.NoError(t, killed.directory.release())
				p.open()
				killed.directory.taken.Store(true)
				_ = killed.Close()
			},
			"power loss": func(t *rapid.T) {
				p.fail(next(), rapid.SampledFrom([]fate{worst, chance(t)}).Draw(t, "fate"))
			},
			"power loss in an append": func(t *rapid.T) {
				values := rapid.SliceOfN(rapid.StringN(0, 300, 900), 1, 6).Draw(t, "values")
				resume := p.loseAt(rapid.IntRange(0, 6).Draw(t, "operation"), next(), chance(t), func() {})
				first := appendAll(t, p.spool.Log("topic"), values...)
				if resume() {
					return // the append had not returned
				}
				for i, value := range values {
					acknowledged[first+uint64(i)] = value
				}
			},
			"power loss in a start": func(t *rapid.T) {
				require.NoError(t, p.spool.Close())
				resume := p.loseAt(rapid.IntRange(0, 6).Draw(t, "operation"), next(), chance(t), func() {})
				p.open()
				resume()
			},
			"commit that fails": func(t *rapid.T) {
				// The disk says that the sync has failed. The content may be durable all the same.
				l := p.spool.Log("topic")
				select {
				case <-l.Changed(): // from an earlier commit
				default:
				}
				p.disk.fail = rapid.SampledFrom([]string{"before", "behind"}).Draw(t, "the sync")
				_, err := l.Append(t.Context(), payloads(
					rapid.SliceOfN(rapid.StringN(0, 300, 900), 1, 4).Draw(t, "values")...))
				require.Error(t, err)
				<-l.Changed() // the cursor has been written
				p.disk.fail = ""
			},
			"": func(t *rapid.T) {
				l := p.spool.Log("topic")
				l.Rewind()
				read := map[uint64]string{}
				for _, r := range readAll(t, l, 300) {
					read[r.seq] = r.value
				}
				for seq, value := range acknowledged {
					if seen, ok := read[seq]; ok || !done[seq] {
						require.True(t, ok, "record %d was acknowledged and is gone", seq)
						require.Equal(t, value, seen)
					}
				}
				require.Zero(t, l.Stats().CorruptRecords)
			},
		})
	})
}
