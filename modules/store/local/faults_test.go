package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/store"
)

// faultyDisk is a disk that fails as tests want it.
type faultyDisk struct {
	systemDisk
	mu      sync.Mutex
	creates error         // what making a file fails with
	writes  error         // what writing fails with, after half of the bytes
	syncs   error         // what the next sync fails with
	stall   chan struct{} // writing waits until it is closed
	left    int64         // what is free, if it is not 0
	did     []string      // what was made durable, and what took another's place, in order
}

// note notes what the disk has done with a file, whose number is left out.
func (d *faultyDisk) note(what, path string) {
	d.did = append(d.did, what+" "+digits.ReplaceAllString(filepath.Base(path), "N"))
}

var digits = regexp.MustCompile(`[0-9]+`)

// sofar returns what was done since the last time.
func (d *faultyDisk) sofar() (did []string) {
	d.set(func(d *faultyDisk) { did, d.did = d.did, nil })
	return did
}

func (d *faultyDisk) rename(from, to string) error {
	d.set(func(d *faultyDisk) { d.note("rename", from) })
	return d.systemDisk.rename(from, to)
}

func (d *faultyDisk) syncDir(path string) error {
	d.set(func(d *faultyDisk) { d.note("sync", path) })
	return d.systemDisk.syncDir(path)
}

func (d *faultyDisk) set(change func(*faultyDisk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *faultyDisk) create(path string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.creates != nil {
		return nil, d.creates
	}
	f, err := d.systemDisk.create(path)
	return &faultyFile{f, d, path}, err
}

func (d *faultyDisk) free(path string) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left != 0 {
		return d.left, nil
	}
	return d.systemDisk.free(path)
}

type faultyFile struct {
	file
	disk *faultyDisk
	path string
}

func (f *faultyFile) Write(text []byte) (int, error) {
	f.disk.mu.Lock()
	err, stall := f.disk.writes, f.disk.stall
	f.disk.mu.Unlock()
	if stall != nil {
		<-stall
	}
	if err != nil {
		n, _ := f.file.Write(text[:len(text)/2])
		return n, err
	}
	return f.file.Write(text)
}

func (f *faultyFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.syncs; err != nil {
		f.disk.syncs = nil
		return err
	}
	f.disk.note("sync", f.path)
	return f.file.Sync()
}

// fixture is a store on a disk that may fail, with the directory that is opened again.
type fixture struct {
	*Store
	disk  *faultyDisk
	dir   string
	clock *clock
	logs  *observer.ObservedLogs
	scope tally.TestScope
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		disk: &faultyDisk{}, dir: filepath.Join(t.TempDir(), "store"), clock: &clock{now: time.Now()},
		scope: tally.NewTestScope("", nil),
	}
	f.open(t)
	return f
}

func (f *fixture) open(t *testing.T) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	f.logs = logs
	s := newOn(f.disk, roomy(f.dir, f.clock.Now), zap.New(core), f.scope)
	f.Store = s
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
}

// reopen starts another store on the directory, after the first has ended.
func (f *fixture) reopen(t *testing.T) {
	t.Helper()
	_ = f.Stop(context.Background())
	f.open(t)
}

// tidied has the store do what it does every second, until a condition holds. Time passes for the pauses after faults.
func (f *fixture) tidied(t *testing.T, holds func() bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		f.clock.pass(lastPause)
		f.tidyOnce()
		f.digestLog.tidy()
		return holds()
	}, patience, time.Millisecond)
}

func (f *fixture) sound() bool { return f.Status().Parts[0].Reachable }

func (f *fixture) failing() bool { return !f.sound() }

func (f *fixture) gauge(name string) float64 { return f.scope.Snapshot().Gauges()[name+"+"].Value() }

func (f *fixture) count(name string) int64 { return f.scope.Snapshot().Counters()[name+"+"].Value() }

// use draws 5 of 100, and settles a digest.
func (f *fixture) use(t *testing.T, node string, d store.Digest) {
	t.Helper()
	f.draw(t, node, 5)
	f.Settle("token", 1, []store.Digest{d}, 1000*time.Hour, nil)
	written(t, f.Store)
}

func (f *fixture) draw(t *testing.T, node string, need int64) (given int64) {
	t.Helper()
	return f.drawFrom(t, account{node: node}, need)
}

// drawFrom draws from a node's account, which the node tells.
func (f *fixture) drawFrom(t *testing.T, a account, need int64) (given int64) {
	t.Helper()
	draws := []store.QuotaDraw{{
		Counter: "quota", Node: a.node, Account: a.number, Granted: a.granted, Returned: a.returned, Held: a.held,
		Limit: 100, Need: need, Start: time.Unix(0, 0), End: f.clock.Now().Add(5000 * time.Hour),
	}}
	require.NoError(t, f.Take(t.Context(), "token", draws, nil))
	return draws[0].Given
}

// accounts returns what the store keeps of the nodes' accounts.
func (f *fixture) accounts(t *testing.T) []account {
	t.Helper()
	shard := f.counters.shard("token")
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return slices.Clone(shard.tokens["token"].quotas["quota"].nodes)
}

func (f *fixture) used(t *testing.T) int64 {
	t.Helper()
	usage, err := f.Usage(t.Context(), "token")
	require.NoError(t, err)
	return usage["quota"].Used
}

func (f *fixture) isDone(t *testing.T, d store.Digest) bool {
	t.Helper()
	claims := make([]store.Claim, 1)
	require.NoError(t, f.Reserve(t.Context(), "token", 9, []store.Digest{d}, time.Nanosecond, claims))
	return claims[0] == store.Done
}

var errFull = fmt.Errorf("write: %w", syscall.ENOSPC)

func TestAFullDiskCostsNothingButWhatARestartForgets(t *testing.T) {
	f := newFixture(t)
	d := randomDigests(3)
	f.use(t, "before", d[0])
	require.NoError(t, f.Put(t.Context(), "project", "a", nil, store.Fields{"a": "1"}))
	f.disk.set(func(d *faultyDisk) { d.writes = errFull })
	f.use(t, "meanwhile", d[1])
	f.use(t, "meanwhile-2", d[1])
	require.True(t, f.isDone(t, d[1]))
	require.EqualValues(t, 15, f.used(t))
	require.ErrorIs(t, f.Put(t.Context(), "project", "a", store.Fields{"a": "1"}, nil), store.ErrUnavailable)
	fields, err := f.Get(t.Context(), "project", "a")
	require.NoError(t, err)
	require.Equal(t, store.Fields{"a": "1"}, fields, "the record stays as it was")

	require.Eventually(t, f.failing, patience, time.Millisecond)
	f.tidied(t, f.failing)
	status := f.Status()
	require.True(t, status.Reachable, "the store goes on")
	require.Contains(t, status.Parts[0].LastError, "no space left on device")
	require.EqualValues(t, 1, f.gauge("local_disk_failing"))
	require.Positive(t, f.count("local_disk_faults_total"))
	require.Len(t, f.logs.FilterMessageSnippet("the store goes on in memory").All(), 1, "once")

	f.disk.set(func(d *faultyDisk) { d.writes, d.left = nil, 1 })
	f.tidied(t, func() bool { return true })
	require.True(t, f.failing(), "what is free is for others")
	f.disk.set(func(d *faultyDisk) { d.left = 0 })
	f.tidied(t, f.sound)
	require.Zero(t, f.gauge("local_disk_failing"))
	require.Len(t, f.logs.FilterMessageSnippet("the disk has all that the store knows again").All(), 1)
	f.use(t, "after", d[2])
	require.NoError(t, f.Put(t.Context(), "project", "a", store.Fields{"a": "1"}, store.Fields{"a": "2"}))

	f.reopen(t)
	for i := range d {
		require.True(t, f.isDone(t, d[i]), i)
	}
	require.EqualValues(t, 20, f.used(t))
	fields, err = f.Get(t.Context(), "project", "a")
	require.NoError(t, err)
	require.Equal(t, store.Fields{"a": "2"}, fields)
}

func TestARestartOnAFullDiskHasWhatWasWrittenBefore(t *testing.T) {
	f := newFixture(t)
	d := randomDigests(2)
	f.use(t, "before", d[0])
	f.disk.set(func(d *faultyDisk) { d.writes = errFull })
	f.use(t, "meanwhile", d[1])
	f.reopen(t)
	require.True(t, f.isDone(t, d[0]))
	require.False(t, f.isDone(t, d[1]))
	require.EqualValues(t, 5, f.used(t))
	require.True(t, f.failing())
	f.use(t, "meanwhile", d[1])
	f.disk.set(func(d *faultyDisk) { d.writes = nil })
	f.tidied(t, f.sound)
	f.reopen(t)
	require.True(t, f.isDone(t, d[0]))
	require.True(t, f.isDone(t, d[1]))
	require.EqualValues(t, 10, f.used(t))
}

func TestADiskThatTakesNoFilesLeavesNone(t *testing.T) {
	f := newFixture(t)
	d := randomDigests(2)
	f.use(t, "before", d[0])
	f.disk.set(func(d *faultyDisk) { d.creates = syscall.EROFS })
	f.reopen(t)
	require.True(t, f.failing())
	require.True(t, f.isDone(t, d[0]))
	require.EqualValues(t, 5, f.used(t))
	require.ErrorIs(t, f.Put(t.Context(), "project", "a", nil, store.Fields{"a": "1"}), store.ErrUnavailable)
	f.use(t, "meanwhile", d[1])
	for range 5 {
		f.tidied(t, f.failing)
	}
	f.disk.set(func(d *faultyDisk) { d.creates = nil })
	f.tidied(t, f.sound)
	f.reopen(t)
	require.True(t, f.isDone(t, d[1]))
	require.EqualValues(t, 10, f.used(t))
	names, err := os.ReadDir(f.dir)
	require.NoError(t, err)
	require.LessOrEqual(t, len(names), 8, "%v", names)
}

func TestWhatASyncHasLostIsWrittenAgain(t *testing.T) {
	f := newFixture(t)
	d := randomDigests(1)
	f.use(t, "node", d[0])
	f.disk.set(func(d *faultyDisk) { d.syncs = syscall.EIO })
	f.digestLog.tidy()
	require.True(t, f.failing())
	require.Contains(t, f.Status().Parts[0].LastError, "input/output error")
	f.tidied(t, f.sound)
	f.disk.set(func(d *faultyDisk) { d.syncs = syscall.EIO })
	f.tidyOnce() // which writes a snapshot
	f.tidied(t, f.sound)
	f.reopen(t)
	require.True(t, f.isDone(t, d[0]))
	require.EqualValues(t, 5, f.used(t))
}

// What a loss of power takes is what happened in the last second, and of records nothing.
func TestWhatIsWrittenIsMadeDurable(t *testing.T) {
	f := newFixture(t)
	f.disk.sofar()
	require.NoError(t, f.Put(t.Context(), "project", "a", nil, store.Fields{"a": "1"}))
	did := slices.DeleteFunc(f.disk.sofar(), func(what string) bool { return strings.HasSuffix(what, ".log") })
	require.Equal(t, []string{
		"sync records-project.json.new", "rename records-project.json.new", "sync store",
	}, did, "the new file is whole before it takes the place, and the directory has it before the answer")

	f.use(t, "node", randomDigests(1)[0])
	f.tidyOnce()
	require.Contains(t, f.disk.sofar(), "sync counters-N.log", "once a second")
	f.use(t, "node-2", randomDigests(1)[0])
	f.digestLog.tidy()
	require.Contains(t, f.disk.sofar(), "sync digests-N.log", "once a second")

	f.use(t, "node-3", randomDigests(1)[0])
	require.NoError(t, f.Stop(context.Background()))
	did = f.disk.sofar()
	require.Contains(t, did, "sync counters-N.log", "at the stop")
	require.Contains(t, did, "sync digests-N.log", "at the stop")
}

func TestOperatorsSeeWhatTheStoreHas(t *testing.T) {
	f := newFixture(t)
	claims := make([]store.Claim, 3)
	require.NoError(t, f.Reserve(t.Context(), "token", 1, randomDigests(3), time.Hour, claims))
	f.use(t, "node", randomDigests(1)[0])
	f.tidyOnce()
	require.InDelta(t, 3, f.gauge("local_reservations"), 0)
	require.InDelta(t, 1, f.gauge("local_digests"), 0)
	require.InDelta(t, 1, f.gauge("local_counters"), 0)
	require.Zero(t, f.Status().Waiting)
	stall := make(chan struct{})
	f.disk.set(func(d *faultyDisk) { d.stall = stall })
	f.Settle("token", 1, randomDigests(5), time.Hour, nil)
	require.EqualValues(t, 5, f.Status().Waiting, "the disk does not have them yet")
	f.disk.set(func(d *faultyDisk) { d.stall = nil })
	close(stall)
	written(t, f.Store)
	require.Zero(t, f.Status().Waiting)
}

func TestADiskThatStallsHoldsUpNobodyTwice(t *testing.T) {
	f := newFixture(t)
	f.counterLog.timeout = 50 * time.Millisecond
	stall := make(chan struct{})
	f.disk.set(func(d *faultyDisk) { d.stall = stall })
	began := time.Now()
	require.EqualValues(t, 5, f.draw(t, "first", 5))
	require.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
	began = time.Now()
	for i := range 1000 {
		f.draw(t, fmt.Sprint("node-", i%19), 1)
	}
	require.Less(t, time.Since(began), 10*time.Second, "1000 waits would take 50 s")
	f.disk.set(func(d *faultyDisk) { d.stall = nil })
	close(stall)
	used := f.used(t)
	require.Eventually(t, func() bool {
		f.counterLog.mu.Lock()
		defer f.counterLog.mu.Unlock()
		return !f.counterLog.stalled
	}, patience, time.Millisecond)
	f.draw(t, "last", 5)
	f.reopen(t)
	require.Equal(t, used+5, f.used(t))
}

func TestADirectoryThatIsRemovedIsMadeAnew(t *testing.T) {
	f := newFixture(t)
	d := randomDigests(2)
	f.use(t, "node-1", d[0])
	require.NoError(t, f.Put(t.Context(), "project", "a", nil, store.Fields{"a": "1"}))
	require.NoError(t, os.RemoveAll(f.dir))
	f.use(t, "node-2", d[1])
	f.tidied(t, func() bool {
		_, err := os.Stat(filepath.Join(f.dir, secretName))
		return err == nil && f.sound()
	})
	f.reopen(t)
	require.True(t, f.isDone(t, d[0]))
	require.True(t, f.isDone(t, d[1]))
	require.EqualValues(t, 10, f.used(t))
	fields, err := f.Get(t.Context(), "project", "a")
	require.NoError(t, err)
	require.Equal(t, store.Fields{"a": "1"}, fields)
}

func TestAnotherProcessThatHasTakenTheDirectoryKeepsIt(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, os.RemoveAll(f.dir))
	other := newOn(systemDisk{}, roomy(f.dir, f.clock.Now), zap.NewNop(), tally.NoopScope)
	require.NoError(t, other.Start(t.Context()))
	f.tidied(t, f.failing)
	require.NoError(t, other.Stop(context.Background()))
	f.tidied(t, f.failing)
	require.Contains(t, f.Status().Parts[0].LastError, "another process uses this directory")
	require.EqualValues(t, 5, f.draw(t, "node", 5), "it goes on in memory")
}

// A process that is started before the one before it has ended takes over what that knew.
func TestANewProcessTakesOverFromTheOneBeforeIt(t *testing.T) {
	old := newFixture(t)
	d := randomDigests(4)
	old.use(t, "old", d[0])
	require.NoError(t, old.Put(t.Context(), "project", "a", nil, store.Fields{"a": "1"}))

	var told []string
	f := &fixture{disk: &faultyDisk{}, dir: old.dir, clock: old.clock, scope: tally.NewTestScope("", nil)}
	f.Store = newOn(f.disk, roomy(f.dir, f.clock.Now), zap.NewNop(), f.scope)
	f.Watch("project", func(name string) { told = append(told, name) })
	require.NoError(t, f.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, f.Stop(context.Background())) })
	require.True(t, f.failing())
	require.Contains(t, f.Status().Parts[0].LastError, "give each process a directory of its own (store.dir)")
	fields, err := f.Get(t.Context(), "project", "a")
	require.NoError(t, err)
	require.Equal(t, store.Fields{"a": "1"}, fields)
	require.ErrorIs(t, f.Put(t.Context(), "project", "b", nil, store.Fields{"a": "1"}), store.ErrUnavailable)
	f.use(t, "new", d[1])
	old.use(t, "old", d[2])
	require.EqualValues(t, 5, f.used(t))
	require.False(t, f.isDone(t, d[0]))
	require.NoError(t, old.Put(t.Context(), "project", "b", nil, store.Fields{"b": "2"}))
	f.tidied(t, f.failing)

	told = nil
	require.NoError(t, old.Stop(context.Background()))
	f.tidied(t, f.sound)
	require.Equal(t, []string{""}, told)
	f.use(t, "new-2", d[3])
	check := func() {
		for i := range d {
			require.True(t, f.isDone(t, d[i]), i)
		}
		require.EqualValues(t, 15, f.used(t), "old 5, whose second draw was the first again, and new 5 and 5")
		fields, err = f.Get(t.Context(), "project", "b")
		require.NoError(t, err)
		require.Equal(t, store.Fields{"b": "2"}, fields)
	}
	check()
	f.reopen(t)
	check()
}

// The directory that a process could not use at first has the accounts of its node as they were when an earlier process
// ended. What the node has done since, and what it did before, is added up once.
func TestWhatTheDirectoryHasOfANodesAccountsIsAddedOnce(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile func(t *testing.T, f *fixture)
		is        account
	}{
		"the same account": {func(t *testing.T, f *fixture) {
			f.drawFrom(t, account{node: "node", number: 2, granted: 8, returned: 3, held: 1}, 4)
		}, account{number: 2, granted: 12, returned: 3, held: 1, past: 5, first: 2}},
		"the same account, older": {func(t *testing.T, f *fixture) {
			f.drawFrom(t, account{node: "node", number: 2, granted: 4}, 0)
		}, account{number: 2, granted: 8, returned: 2, past: 5, first: 2}},
		"the same account, and then newer ones": {func(t *testing.T, f *fixture) {
			f.drawFrom(t, account{node: "node", number: 2, granted: 8, returned: 3, held: 1}, 4)
			f.drawFrom(t, account{node: "node", number: 4}, 7)
			f.drawFrom(t, account{node: "node", number: 5}, 1)
		}, account{number: 5, granted: 1, past: 5 + 9 + 7, first: 2}},
		"newer accounts": {func(t *testing.T, f *fixture) {
			f.drawFrom(t, account{node: "node", number: 4}, 7)
			f.drawFrom(t, account{node: "node", number: 5}, 1)
		}, account{number: 5, granted: 1, past: 5 + 6 + 7, first: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.drawFrom(t, account{node: "node", number: 1}, 5)
			f.drawFrom(t, account{node: "node", number: 2}, 8)
			f.drawFrom(t, account{node: "node", number: 2, granted: 8, returned: 2}, 0)
			require.NoError(t, f.Stop(context.Background()))
			require.NoError(t, os.Chmod(f.dir, 0o777))
			f.open(t)
			require.True(t, f.failing())
			test.meanwhile(t, f)
			require.NoError(t, os.Chmod(f.dir, 0o700))
			f.tidied(t, f.sound)
			check := func() {
				test.is.node = "node"
				require.Equal(t, []account{test.is}, f.accounts(t))
				require.Equal(t, test.is.used(), f.used(t))
			}
			check()
			f.reopen(t)
			test.is.first = test.is.number
			check()
		})
	}
}

// What a node's accounts have used never overflows, whatever a caller says.
func TestAccountsThatWereReplacedHaveABound(t *testing.T) {
	f := newFixture(t)
	for number := uint64(1); number <= 20; number++ {
		f.drawFrom(t, account{node: "node", number: number, granted: maxUsed, held: int64(number)}, 0)
	}
	f.drawFrom(t, account{node: "node", number: 21}, 0)
	require.EqualValues(t, maxUsed, f.used(t))
	f.reopen(t)
	require.EqualValues(t, maxUsed, f.used(t))
	require.Equal(t, []account{{node: "node", number: 21, past: maxUsed, first: 21}}, f.accounts(t))
	a := account{number: 2, past: maxUsed, first: 2}
	a.merge(&account{number: 1, granted: maxUsed, first: 1})
	require.EqualValues(t, maxUsed, a.past)
	draws := []store.QuotaDraw{{
		Counter: "quota", Node: "node", Account: maxUsed + 1, Start: time.Unix(0, 0), End: time.Unix(1<<33, 0),
	}}
	require.ErrorIs(t, f.Take(t.Context(), "token", draws, nil), errImpossible)
}

// A counter takes no more memory, and no more of a snapshot, for the accounts that a node has opened and forgotten.
func TestACounterKeepsOneAccountForEachNode(t *testing.T) {
	f := newFixture(t)
	const accounts = 2 * maxNodes
	for number := range uint64(accounts) {
		draws := []store.QuotaDraw{{
			Counter: "quota", Node: "node", Account: number, Limit: 1 << 40, Need: 2,
			Start: time.Unix(0, 0), End: f.clock.Now().Add(5000 * time.Hour),
		}}
		require.NoError(t, f.Take(t.Context(), "token", draws, nil))
	}
	is := []account{{node: "node", number: accounts - 1, granted: 2, past: 2 * (accounts - 1)}}
	require.Equal(t, is, f.accounts(t))
	f.reopen(t)                                      // on a log
	require.NoError(t, f.Stop(context.Background())) // which is a snapshot now
	f.open(t)
	is[0].first = accounts - 1
	require.Equal(t, is, f.accounts(t))
	require.EqualValues(t, 2*accounts, f.used(t))
}

func TestADirectoryThatIsOpenToAllIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "records-project.json"),
		[]byte(`{"version":1,"records":{"a":{"a":"1"}}}`), 0o600))
	f := &fixture{disk: &faultyDisk{}, dir: dir, clock: &clock{now: time.Now()}, scope: tally.NewTestScope("", nil)}
	f.open(t)
	require.True(t, f.failing())
	require.Contains(t, f.Status().Parts[0].LastError, "chmod o-w")
	fields, err := f.Get(t.Context(), "project", "a")
	require.NoError(t, err)
	require.Empty(t, fields)
	d := randomDigests(1)
	f.use(t, "node", d[0])
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing was made")
	require.NoError(t, os.Chmod(dir, 0o700))
	f.tidied(t, f.sound)
	fields, err = f.Get(t.Context(), "project", "a")
	require.NoError(t, err)
	require.Equal(t, store.Fields{"a": "1"}, fields)
	f.reopen(t)
	require.True(t, f.isDone(t, d[0]), "what happened meanwhile is on the disk now")
	require.EqualValues(t, 5, f.used(t))
}

func TestALinkInThePlaceOfAFileIsNotFollowed(t *testing.T) {
	f := newFixture(t)
	f.use(t, "node", randomDigests(1)[0])
	require.NoError(t, f.Stop(context.Background()))
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, []byte("mine"), 0o600))
	entries, err := os.ReadDir(f.dir)
	require.NoError(t, err)
	for _, entry := range entries {
		path := filepath.Join(f.dir, entry.Name())
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Symlink(victim, path))
	}
	require.NoError(t, os.Symlink(victim, filepath.Join(f.dir, "records-project.json")))
	require.NoError(t, os.Symlink(victim, filepath.Join(f.dir, secretName+newSuffix)))
	f.open(t)
	require.Zero(t, f.used(t))
	f.use(t, "node", randomDigests(1)[0])
	f.tidyOnce()
	f.digestLog.tidy()
	content, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "mine", string(content))
}

func TestAFileOfRecordsThatCannotBeReadIsSetAside(t *testing.T) {
	for name, content := range map[string]string{
		"nothing":          ``,
		"half":             `{"version":1,"records":{"a":`,
		"more":             `{"version":1,"records":{}} x`,
		"another version":  `{"version":2,"records":{}}`,
		"another field":    `{"version":1,"record":{}}`,
		"no text":          `{"version":1,"records":{"a":{"b":1}}}`,
		"a record too big": `{"version":1,"records":{"a":{"b":"` + strings.Repeat("x", maxRecordBytes) + `"}}}`,
		"no name":          `{"version":1,"records":{"":{"b":"c"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			require.NoError(t, f.Put(t.Context(), "project", "a", nil, store.Fields{"a": "1"}))
			require.NoError(t, f.Put(t.Context(), "rule", "a", nil, store.Fields{"a": "1"}))
			require.NoError(t, f.Stop(context.Background()))
			path := filepath.Join(f.dir, "records-project.json")
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			f.open(t)
			names, err := f.List(t.Context(), "project", "", 10)
			require.NoError(t, err)
			require.Empty(t, names)
			names, err = f.List(t.Context(), "rule", "", 10)
			require.NoError(t, err)
			require.Len(t, names, 1)
			require.NoError(t, f.Put(t.Context(), "project", "b", nil, store.Fields{"b": "2"}))
			aside, err := filepath.Glob(path + ".damaged-*")
			require.NoError(t, err)
			require.Len(t, aside, 1)
			kept, err := os.ReadFile(aside[0])
			require.NoError(t, err)
			require.Equal(t, content, string(kept))
			lines := f.logs.FilterMessageSnippet("a file of records cannot be read, and was set aside").All()
			require.Len(t, lines, 1)
			require.Equal(t, path, lines[0].ContextMap()["file"])
		})
	}
}

func TestAFileOfRecordsThatCannotBeSetAsideIsNotOverwritten(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, f.Stop(context.Background()))
	path := filepath.Join(f.dir, "records-project.json")
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	f.disk.set(func(d *faultyDisk) { d.creates = syscall.EROFS })
	f.Store = newOn(noRename{f.disk}, roomy(f.dir, f.clock.Now), zap.NewNop(), f.scope)
	require.NoError(t, f.Start(t.Context()))
	t.Cleanup(func() { _ = f.Stop(context.Background()) })
	err := f.Put(t.Context(), "project", "a", nil, store.Fields{"a": "1"})
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "cannot be set aside")
	f.disk.set(func(d *faultyDisk) { d.creates = nil })
	f.tidied(t, f.sound)
	require.ErrorContains(t, f.Put(t.Context(), "project", "a", nil, store.Fields{"a": "1"}), "cannot be set aside")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "mine", string(content))
}

type noRename struct{ *faultyDisk }

func (d noRename) rename(from, to string) error {
	if strings.HasSuffix(from, recordSuffix) {
		return errors.New("no")
	}
	return d.faultyDisk.rename(from, to)
}

func TestADamagedSecretIsMadeAnew(t *testing.T) {
	f := newFixture(t)
	d := randomDigests(2)
	f.use(t, "node", d[0])
	require.NoError(t, f.Stop(context.Background()))
	path := filepath.Join(f.dir, secretName)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	content[len(content)-1] ^= 1
	require.NoError(t, os.WriteFile(path, content, 0o600))
	f.open(t)
	require.False(t, f.isDone(t, d[0]))
	require.Len(t, f.logs.FilterMessageSnippet("the secret of the store cannot be read").All(), 1)
	require.EqualValues(t, 5, f.used(t), "the limits do not depend on it")
	f.use(t, "node", d[1])
	f.reopen(t)
	require.True(t, f.isDone(t, d[1]))
	require.Empty(t, f.logs.FilterMessageSnippet("cannot be").All())
}

func TestAStoreThatIsNotRunningIsUnavailable(t *testing.T) {
	s := New(roomy("", nil), zap.NewNop(), tally.NoopScope)
	check := func() {
		ctx := t.Context()
		require.ErrorIs(t, s.Reserve(ctx, "token", 1, nil, time.Second, nil), store.ErrUnavailable)
		require.ErrorIs(t, s.Take(ctx, "token", nil, nil), store.ErrUnavailable)
		_, err := s.Get(ctx, "project", "a")
		require.ErrorIs(t, err, store.ErrUnavailable)
		s.Settle("token", 1, randomDigests(1), time.Hour, nil)
		require.Zero(t, s.digests.size())
	}
	check()
	require.NoError(t, s.Stop(t.Context()))
	require.NoError(t, s.Start(t.Context()))
	require.NoError(t, s.Take(t.Context(), "token", nil, nil))
	require.NoError(t, s.Stop(t.Context()))
	check()
}
