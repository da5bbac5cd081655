package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// removals are the things that somebody may do to a spool under the service. All of them take the log's segments away.
var removals = map[string]func(t *testing.T, cfg Config, l *Log){
	"the spool": func(t *testing.T, cfg Config, _ *Log) { require.NoError(t, os.RemoveAll(cfg.Dir)) },
	"the spool and what is above": func(t *testing.T, cfg Config, _ *Log) {
		require.NoError(t, os.RemoveAll(filepath.Dir(cfg.Dir)))
	},
	"the log": func(t *testing.T, _ Config, l *Log) { require.NoError(t, os.RemoveAll(l.dir)) },
	"the segments": func(t *testing.T, _ Config, l *Log) {
		for _, path := range segmentFiles(t, l) {
			require.NoError(t, os.Remove(path))
		}
	},
	"the log, replaced by an empty one": func(t *testing.T, _ Config, l *Log) {
		require.NoError(t, os.Rename(l.dir, filepath.Join(t.TempDir(), "moved")))
		require.NoError(t, os.Mkdir(l.dir, 0o700))
	},
	"the spool, replaced by an empty one": func(t *testing.T, cfg Config, _ *Log) {
		require.NoError(t, os.Rename(cfg.Dir, filepath.Join(t.TempDir(), "moved")))
		require.NoError(t, os.Mkdir(cfg.Dir, 0o700))
	},
}

func TestNoCommitIsAcknowledgedIntoAFileThatWasRemoved(t *testing.T) {
	for name, remove := range removals {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Dir = filepath.Join(filepath.Dir(cfg.Dir), "above", "spool")
			cfg.SegmentBytes = 500
			s, logs := observed(t, cfg, disk{})
			l := s.Log("topic")
			appendEach(t, l, 0, 30)
			l.DoneRange(1, 11)
			remove(t, cfg, l)
			require.EqualValues(t, 31, appendAll(t, l, "after"))

			stats := l.Stats()
			require.EqualValues(t, 20, stats.LostRecords)
			require.EqualValues(t, 20, stats.CorruptRecords)
			require.EqualValues(t, 1, stats.Records)
			require.EqualValues(t, 31, stats.First)
			require.Equal(t, stats.Bytes, s.Usage().Bytes)
			said := logs.FilterMessageSnippet("files of a log in the spool were removed")
			require.Equal(t, 1, said.Len())
			require.Equal(t, []got{{31, "after"}}, readAll(t, l, 1000))
			require.Equal(t, stats, l.Stats(), "nothing is counted twice")
			appendAll(t, l, "more")
			said = logs.FilterMessageSnippet("files of a log in the spool were removed")
			require.Equal(t, 1, said.Len(), "it is logged once")

			_, err := Open(cfg, zap.NewNop())
			require.ErrorIs(t, err, ErrInUse, "the directory is still that of this process")
			require.NoError(t, s.Close())
			l = openSpool(t, cfg).Log("topic")
			require.Equal(t, []got{{31, "after"}, {32, "more"}}, readAll(t, l, 1000))
			require.Zero(t, l.Stats().CorruptRecords)
			require.Zero(t, l.Stats().UnreadableCursors)
		})
	}
}

func TestFilesThatGoDuringACommitAreWrittenAgain(t *testing.T) {
	for name, remove := range removals {
		for _, first := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				cfg := testConfig(t)
				cfg.Dir = filepath.Join(filepath.Dir(cfg.Dir), "above", "spool")
				disk := newFaulty()
				s, _ := observed(t, cfg, disk)
				l := s.Log("topic")
				want := []got{{1, "a"}, {2, "b"}}
				if !first {
					appendAll(t, l, "before")
					l.Done(1)
					want = []got{{2, "a"}, {3, "b"}}
				}
				var once sync.Once
				disk.set(func(op, path string) error {
					if op == "sync" && strings.HasSuffix(path, segmentSuffix) {
						once.Do(func() { remove(t, cfg, l) })
					}
					return nil
				})
				appendAll(t, l, "a", "b")
				disk.set(nil)
				require.Zero(t, l.Stats().LostRecords)
				require.NoError(t, s.Close())
				require.Equal(t, want, readAll(t, openSpool(t, cfg).Log("topic"), 1000))
			})
		}
	}
}

func TestAFileThatIsRemovedAgainAndAgainFailsTheAppend(t *testing.T) {
	disk := newFaulty()
	s, _ := observed(t, testConfig(t), disk)
	l := s.Log("topic")
	disk.set(func(op, path string) error {
		if op == "sync" && strings.HasSuffix(path, segmentSuffix) {
			return os.Remove(path)
		}
		return nil
	})
	_, err := l.Append(t.Context(), payloads("a"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Zero(t, l.Stats().Records)
	disk.set(nil)
	appendAll(t, l, "b")
}

func TestADirectoryThatCannotBeMadeAnewFailsTheAppend(t *testing.T) {
	cfg := testConfig(t)
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	appendAll(t, l, "a")
	require.NoError(t, os.RemoveAll(cfg.Dir))
	disk.failing("makeDir", "", syscall.EACCES)
	_, err := l.Append(t.Context(), payloads("b"))
	require.ErrorIs(t, err, syscall.EACCES)
	require.ErrorContains(t, s.Usable(), "permission denied")
	disk.set(nil)
	appendAll(t, l, "c")
	require.Equal(t, []got{{3, "c"}}, readAll(t, l, 100))
	require.EqualValues(t, 1, l.Stats().LostRecords)
}

func TestASegmentThatIsRemovedCostsWhatItHeld(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	s, _ := observed(t, cfg, disk{})
	l := s.Log("topic")
	appendEach(t, l, 0, 40)
	files := segmentFiles(t, l)
	third, fourth := firstOf(t, files[2]), firstOf(t, files[3])
	l.Done(third) // out of turn: a record that is done is no loss
	require.NoError(t, os.Remove(files[2]))
	require.NoError(t, s.probe(), "it is noticed without an Append")
	require.Equal(t, fourth-third-1, l.Stats().LostRecords)
	require.Equal(t, l.Stats().Bytes, s.Usage().Bytes)
	require.Equal(t, append(expected(1, third), expected(fourth, 41)...), readAll(t, l, 1000))
	require.Equal(t, fourth-third-1, l.Stats().CorruptRecords)
	require.EqualValues(t, 1, l.Stats().CorruptRegions)
}

func TestWhatIsReadAlreadyIsNotLostWithItsFile(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	s, _ := observed(t, cfg, disk{})
	l := s.Log("topic")
	appendEach(t, l, 0, 40)
	files := segmentFiles(t, l)
	second, third := firstOf(t, files[1]), firstOf(t, files[2])
	// A drain has read the first segment and one record of the second. It has these records in its memory, and the
	// second segment open.
	var chunk Chunk
	var read []got
	for len(read) < int(second) {
		require.NoError(t, l.Read(&chunk, 1))
		read = append(read, got{chunk.Records[0].Seq, string(chunk.Records[0].Payload)})
	}
	require.NoError(t, os.RemoveAll(cfg.Dir))
	appendAll(t, l, "after")
	require.Equal(t, 41-third, l.Stats().LostRecords)
	require.Len(t, segmentFiles(t, l), 1)
	read = append(read, readAll(t, l, 1000)...)
	require.Equal(t, append(expected(1, third), got{41, "after"}), read)
	l.DoneRange(1, third)
	l.Done(41)
	require.Zero(t, l.Stats().Records)
	require.Equal(t, 41-third, l.Stats().CorruptRecords)
	require.NoError(t, s.Close())
}

func TestWhatIsInAFileThatReadHasOpenIsNotLostWithIt(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	s, _ := observed(t, cfg, disk{})
	l := s.Log("topic")
	appendEach(t, l, 0, 40)
	second := firstOf(t, segmentFiles(t, l)[1])
	var chunk Chunk
	require.NoError(t, l.Read(&chunk, 1))
	l.Rewind()
	require.NoError(t, os.RemoveAll(cfg.Dir))
	appendAll(t, l, "after")
	require.Equal(t, 41-second, l.Stats().LostRecords)
	require.Equal(t, append(expected(1, second), got{41, "after"}), readAll(t, l, 1000))
	require.Equal(t, 41-second, l.Stats().CorruptRecords)
}

func TestAReaderGoesOnBehindASegmentThatIsGone(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	appendEach(t, l, 0, 40)
	files := segmentFiles(t, l)
	second, third := firstOf(t, files[1]), firstOf(t, files[2])
	disk.failing("open", filepath.Base(files[1]), syscall.EMFILE)
	var chunk Chunk
	require.NoError(t, l.Read(&chunk, 1<<20))
	require.Len(t, chunk.Records, int(second)-1)
	require.ErrorIs(t, l.Read(&chunk, 1<<20), syscall.EMFILE)
	disk.set(nil)
	require.NoError(t, os.Remove(files[1]))
	require.NoError(t, s.probe())
	require.Equal(t, third-second, l.Stats().LostRecords)
	for _, file := range files[3:] {
		require.NoError(t, os.Remove(file))
	}
	require.NoError(t, s.probe())
	require.Equal(t, expected(third, firstOf(t, files[3])), readAll(t, l, 1<<20), "nothing is read twice")
	require.Empty(t, readAll(t, l, 1<<20))
}

func TestAReaderStaysBehindALastSegmentThatIsGone(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 50
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	appendAll(t, l, "a")
	appendAll(t, l, strings.Repeat("b", 50))
	files := segmentFiles(t, l)
	require.Len(t, files, 2)
	disk.failing("open", filepath.Base(files[1]), syscall.EMFILE)
	var chunk Chunk
	require.NoError(t, l.Read(&chunk, 1))
	require.ErrorIs(t, l.Read(&chunk, 1), syscall.EMFILE)
	disk.set(nil)
	require.NoError(t, os.Remove(files[1]))
	require.NoError(t, s.probe())
	require.Empty(t, readAll(t, l, 100), "nothing is read twice")
	appendAll(t, l, "c")
	require.Equal(t, []got{{3, "c"}}, readAll(t, l, 100))
}

func TestACursorThatIsRemovedIsMadeAnew(t *testing.T) {
	cfg := testConfig(t)
	s, logs := observed(t, cfg, disk{})
	l := s.Log("topic")
	appendEach(t, l, 0, 10)
	l.DoneRange(1, 4)
	for _, use := range []func(){
		func() { appendAll(t, l, value(10)) },
		func() { l.Done(4) },
		func() { require.NoError(t, s.probe()) },
	} {
		logs.TakeAll()
		require.NoError(t, os.Remove(l.cursorFile.path))
		use()
		require.Equal(t, 1, logs.FilterMessageSnippet("the cursor of a log in the spool was removed").Len())
		data, err := os.ReadFile(l.cursorFile.path)
		require.NoError(t, err)
		m, _, ok := decodeCursor(data)
		require.True(t, ok)
		require.Equal(t, l.checkpoint(), m)
	}
	require.NoError(t, s.Close())
	l = openSpool(t, cfg).Log("topic")
	require.Equal(t, expected(5, 12), readAll(t, l, 1000))
	require.Zero(t, l.Stats().UnreadableCursors)
}

func TestWhatIsInACursorThatHasTakenThePlaceOfAnotherIsForgotten(t *testing.T) {
	cfg := testConfig(t)
	s, _ := observed(t, cfg, disk{})
	l := s.Log("topic")
	appendEach(t, l, 0, 10)
	require.NoError(t, os.Remove(l.cursorFile.path))
	foreign := make([]byte, cursorSize)
	copy(foreign, appendSlot(nil, checkpoint{cursor: 500, committed: 600}))
	copy(foreign[slotApart:], appendSlot(nil, checkpoint{cursor: 501, committed: 600}))
	require.NoError(t, os.WriteFile(l.cursorFile.path, foreign, 0o600))
	appendAll(t, l, value(10))
	require.NoError(t, s.directory.release()) // as if the process were killed
	s.directory.taken.Store(true)
	require.Equal(t, expected(1, 12), readAll(t, openSpool(t, cfg).Log("topic"), 1000))
}

func TestALockThatIsRemovedIsTakenAgain(t *testing.T) {
	for name, use := range map[string]func(s *Spool){
		"append": func(s *Spool) { appendAll(t, s.Log("topic"), "a") },
		"usable": func(s *Spool) { require.NoError(t, s.probe()) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			s, logs := observed(t, cfg, disk{})
			require.NoError(t, os.Remove(s.directory.lockPath()))
			use(s)
			require.Equal(t, 1, logs.FilterMessageSnippet("lock of the spool").Len())
			_, err := Open(cfg, zap.NewNop())
			require.ErrorIs(t, err, ErrInUse)
			use(s)
			require.Equal(t, 1, logs.FilterMessageSnippet("lock of the spool").Len())
		})
	}
}

func TestADirectoryThatAnotherProcessHasTakenIsLeftAlone(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	s, logs := observed(t, cfg, disk{})
	l := s.Log("topic")
	appendEach(t, l, 0, 30)
	require.NoError(t, os.Remove(s.directory.lockPath()))
	other := openSpool(t, cfg)
	_, err := l.Append(t.Context(), payloads("not mine"))
	require.ErrorIs(t, err, ErrInUse)
	require.Equal(t, 1, logs.FilterMessageSnippet("another process has made its own").Len())
	require.ErrorIs(t, l.Read(new(Chunk), 1000), ErrInUse)
	require.ErrorIs(t, s.Usable(), ErrInUse)
	_, err = s.Drop("topic")
	require.ErrorIs(t, err, ErrInUse)
	files := segmentFiles(t, l)
	l.DoneRange(1, 31)
	require.Equal(t, files, segmentFiles(t, l))
	require.ErrorIs(t, s.Close(), ErrInUse, "its cursor is not written")
	require.Equal(t, expected(1, 31), readAll(t, other.Log("topic"), 1000))
}

func TestADirectoryThatAnotherProcessHasHadIsLeftAlone(t *testing.T) {
	cfg := testConfig(t)
	s, _ := observed(t, cfg, disk{})
	l := s.Log("topic")
	appendEach(t, l, 0, 3)
	require.NoError(t, os.Remove(s.directory.lockPath()))
	other := openSpool(t, cfg)
	other.Log("topic").DoneRange(1, 4)
	require.NoError(t, other.Close())
	_, err := l.Append(t.Context(), payloads("a number that the other may have used"))
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorIs(t, s.Close(), ErrInUse)
	openSpool(t, cfg)
}

func TestMovingTheDirectoryWhileManyAppendLosesNothingUnnoticed(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 2000
	s, _ := observed(t, cfg, disk{})
	const writers, each = 4, 100
	var (
		all          sync.WaitGroup
		mu           sync.Mutex
		acknowledged int
	)
	topics := []string{"one", "two"}
	for w := range writers {
		all.Go(func() {
			for range each {
				_, err := s.Log(topics[w%2]).Append(t.Context(), payloads("payload"))
				mu.Lock()
				if err == nil {
					acknowledged++
				} else {
					require.True(t, errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist), err)
				}
				mu.Unlock()
			}
		})
	}
	away := t.TempDir()
	for i := range 20 {
		_ = os.Rename(cfg.Dir, filepath.Join(away, string(rune('a'+i)))) // the directory may not exist again yet
		_ = s.probe()                                                    // the probe makes the directory anew, too
	}
	all.Wait()
	kept, lost := 0, 0
	for _, topic := range topics {
		kept += len(readAll(t, s.Log(topic), 1000))
		lost += int(s.Log(topic).Stats().LostRecords)
	}
	require.Equal(t, acknowledged, kept+lost)
}
