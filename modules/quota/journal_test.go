package quota

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// A process that is killed leaves its accounts to the next one, which goes on with what they hold.
func TestAKilledProcessLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		dir := t.TempDir()
		limits := quotas("events=100000/day")
		first := shared.start(dir, nil)
		for range 100 {
			first.send("phc_a", limits, 5)
			time.Sleep(20 * time.Millisecond)
		}
		held := first.held("phc_a")
		require.Positive(t, held)
		name := first.journal.node
		first.kill()
		second := shared.start(dir, nil)
		require.Equal(t, name, second.journal.node)
		require.Equal(t, held, second.held("phc_a"))
		takes := shared.takes.Load()
		require.Equal(t, 5, second.send("phc_a", limits, 5))
		require.Equal(t, takes+1, shared.takes.Load(), "the store confirms the account first")
		require.Equal(t, 5, second.send("phc_a", limits, 5))
		require.Equal(t, takes+1, shared.takes.Load())
		require.NoError(t, second.stop())
		require.Equal(t, int64(510), shared.node(nil).used("phc_a", limits).Used, "exactly what has passed")
	})
}

func TestAProcessThatHasClosedTheJournalLeavesItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		dir := t.TempDir()
		limits := quotas("events=100/day")
		first := shared.start(dir, nil)
		require.Equal(t, 60, first.send("phc_a", limits, 60))
		name := first.journal.node
		require.NoError(t, first.stop())
		second := shared.start(dir, nil)
		require.Equal(t, name, second.journal.node)
		require.Equal(t, 40, second.send("phc_a", limits, 60))
	})
}

// What the accounts of a window that has ended meanwhile held is of no use.
func TestAccountsOfWindowsThatHaveEndedAreNotTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newStore(t)
		dir := t.TempDir()
		limits := quotas("events=100/minute", "events=1000/day")
		first := shared.start(dir, nil)
		require.Equal(t, 60, first.send("phc_a", limits, 60))
		first.kill()
		time.Sleep(2 * time.Minute)
		second := shared.start(dir, nil)
		second.see("phc_a", func(s *subject) { require.Len(t, s.accounts, 1) })
		used, free := second.journal.accounts()
		require.Equal(t, 1, used)
		require.Equal(t, 1023, free)
		require.Equal(t, 100, second.send("phc_a", limits, 200))
	})
}

func journalOf(dir string) string { return filepath.Join(dir, journalFile) }

// A journal that may not be what was stored last is not used: the node has a new name, and what the old one held counts
// as spent.
func TestAJournalThatMayBeOldOrDamagedIsNotUsed(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, file string, data []byte) []byte{
		"another boot of the machine": func(_ *testing.T, _ string, data []byte) []byte {
			copy(data[64:], "00000000-0000-0000-0000-000000000000")
			return sealed(data)
		},
		"a copy": func(t *testing.T, file string, data []byte) []byte {
			require.NoError(t, os.Remove(file))
			require.NoError(t, os.WriteFile(file+".other", []byte("takes the inode"), 0o600))
			return data
		},
		"another version": func(_ *testing.T, _ string, data []byte) []byte {
			binary.NativeEndian.PutUint32(data[8:], 2)
			return sealed(data)
		},
		"a damaged header":   func(_ *testing.T, _ string, data []byte) []byte { data[40] ^= 1; return data },
		"a name that is not": func(_ *testing.T, _ string, data []byte) []byte { data[40] = '!'; return sealed(data) },
		"nothing":            func(*testing.T, string, []byte) []byte { return nil },
		"missing": func(t *testing.T, file string, _ []byte) []byte {
			require.NoError(t, os.Remove(file))
			return nil
		},
		"a damaged account": func(_ *testing.T, _ string, data []byte) []byte { data[headerSize+70] ^= 1; return data },
		"an impossible account": func(_ *testing.T, _ string, data []byte) []byte {
			binary.NativeEndian.PutUint64(data[headerSize+24:], 1<<40)
			return data
		},
		"a torn end": func(_ *testing.T, _ string, data []byte) []byte { return data[:headerSize+50] },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared := newStore(t)
				dir := t.TempDir()
				limits := quotas("events=100000/day")
				first := shared.start(dir, nil)
				for range 100 {
					first.send("phc_a", limits, 5)
					time.Sleep(20 * time.Millisecond)
				}
				held, node := first.held("phc_a"), first.journal.node
				first.kill()
				data, err := os.ReadFile(journalOf(dir))
				require.NoError(t, err)
				changed := change(t, journalOf(dir), data)
				if changed != nil || name == "nothing" {
					require.NoError(t, os.WriteFile(journalOf(dir), changed, 0o600))
				}
				second := shared.start(dir, nil)
				require.NoError(t, second.journal.fault)
				if s := second.table.find("phc_a"); s != nil {
					require.Empty(t, s.accounts)
				}
				require.Equal(t, 5, second.send("phc_a", limits, 5))
				if node == second.journal.node {
					second.see("phc_a", func(s *subject) {
						require.NotEqual(t, uint64(1), s.accounts[0].slot.serial, "the account has another name")
					})
				}
				require.NoError(t, second.stop())
				require.Equal(t, 505+held, shared.node(nil).used("phc_a", limits).Used)
			})
		})
	}
}

// sealed returns the file with a checksum that is right.
func sealed(data []byte) []byte {
	j := journal{mapped: data}
	j.sumHeader()
	return data
}

func TestAJournalThatWasClosedIsUsedAfterABootOfTheMachine(t *testing.T) {
	t.Parallel()
	shared := newStore(t)
	dir := t.TempDir()
	first := shared.start(dir, nil)
	require.Equal(t, 5, first.send("phc_a", quotas("events=100/day"), 5))
	name := first.journal.node
	require.NoError(t, first.stop())
	data, err := os.ReadFile(journalOf(dir))
	require.NoError(t, err)
	copy(data[64:], "00000000-0000-0000-0000-000000000000")
	require.NoError(t, os.WriteFile(journalOf(dir), sealed(data), 0o600))
	second := shared.start(dir, nil)
	require.Equal(t, name, second.journal.node)
	require.Zero(t, second.journal.clean().Load(), "the next crash of the machine is another matter")
}

func TestWithoutAFileTheAccountsAreInMemory(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, dir string) (fault string){
		"in use": func(t *testing.T, dir string) string {
			j, _ := openJournal(dir, minAccounts)
			require.NoError(t, j.fault)
			t.Cleanup(j.release)
			return "another process uses this directory"
		},
		"open to all": func(t *testing.T, dir string) string {
			require.NoError(t, os.Chmod(dir, 0o777))
			return "all users of this machine can write to"
		},
		"a symbolic link": func(t *testing.T, dir string) string {
			require.NoError(t, os.Symlink(filepath.Join(t.TempDir(), "x"), journalOf(dir)))
			return "too many levels of symbolic links"
		},
		"a linked file": func(t *testing.T, dir string) string {
			other := filepath.Join(t.TempDir(), "x")
			require.NoError(t, os.WriteFile(other, []byte("secret"), 0o600))
			require.NoError(t, os.Link(other, journalOf(dir)))
			return "it is no file of this service"
		},
		"a readable file": func(t *testing.T, dir string) string {
			require.NoError(t, os.WriteFile(journalOf(dir), nil, 0o600))
			require.NoError(t, os.Chmod(journalOf(dir), 0o644))
			return "it is no file of this service"
		},
		"a directory": func(t *testing.T, dir string) string {
			require.NoError(t, os.Mkdir(journalOf(dir), 0o700))
			return "is a directory"
		},
	} {
		shared := newStore(t)
		dir := t.TempDir()
		fault := prepare(t, dir)
		node := shared.start(dir, nil)
		require.ErrorContains(t, node.journal.fault, fault, name)
		require.Equal(t, 1, node.logs.FilterMessageSnippet("is in memory only").Len())
		limits := quotas("events=100/day")
		require.Equal(t, 100, node.send("phc_a", limits, 200))
		require.Equal(t, node.journal.fault.Error(), node.state().JournalFault)
		require.NoError(t, node.stop())
	}
}

func TestAJournalGrowsAndNeverShrinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, found := openJournal(dir, 100)
	require.Empty(t, found)
	quota := events.Quota{Resource: events.ResourceEvents, Period: events.PerDay}
	start, end := quota.Period.Window(time.Now().UTC())
	for range 100 {
		require.NotNil(t, j.take("phc_a", quota, start, end))
	}
	require.Nil(t, j.take("phc_a", quota, start, end), "there is no room")
	require.Nil(t, j.take("", quota, start, end))
	j.release()
	j, found = openJournal(dir, 64)
	require.Len(t, found, 100)
	require.Nil(t, j.take("phc_a", quota, start, end))
	j.release()
	j, found = openJournal(dir, 200)
	require.Len(t, found, 100)
	last := uint64(0)
	for _, s := range found {
		last = max(last, s.serial)
	}
	for range 100 {
		s := j.take("phc_a", quota, start, end)
		require.Greater(t, s.serial, last, "a later account has a larger number")
		last = s.serial
	}
	j.give(found[7])
	s := j.take("phc_b", quota, start, end)
	require.Same(t, found[7], s)
	require.Greater(t, s.serial, last, "also in the same place")
	require.NoError(t, j.close())
	require.Nil(t, j.take("phc_a", quota, start, end))
}

// Whatever the file has in it, it is read without a crash, and only accounts that are sound are taken up.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	j, _ := openJournal(dir, 2)
	quota := events.Quota{Resource: events.ResourceEvents, Period: events.PerDay}
	start, end := quota.Period.Window(time.Now().UTC())
	j.take("phc_a", quota, start, end).granted.Store(5)
	j.release()
	data, err := os.ReadFile(journalOf(dir))
	require.NoError(f, err)
	f.Add(data)
	f.Add(data[:headerSize+20])
	f.Fuzz(func(t *testing.T, data []byte) {
		file := journalOf(dir)
		require.NoError(t, os.WriteFile(file, data, 0o600)) // it is the same inode
		if len(data) >= headerSize {
			require.NoError(t, os.WriteFile(file, sealed(data), 0o600))
		}
		j, found := openJournal(dir, 2)
		defer j.release()
		require.NoError(t, j.fault)
		require.True(t, isNodeName(j.node))
		for _, s := range found {
			require.True(t, s.sound())
		}
		used, free := j.accounts()
		require.Equal(t, len(j.slots), used+free)
	})
}
