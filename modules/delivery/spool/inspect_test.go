package spool

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInspectReadsWithoutChangingAnything(t *testing.T) {
	cfg := testConfig(t)
	s := openSpool(t, cfg)
	appendAll(t, s.Log("t"), "a", "b", "c")
	s.Log("t").Done(1)
	require.False(t, s.InUse(), "by another")

	for range 2 { // twice, since the first look must leave no trace
		looked, err := Inspect(cfg.Dir)
		require.NoError(t, err)
		require.True(t, looked.InUse())
		require.Len(t, looked.Logs(), 1)
		require.Equal(t, []got{{2, "b"}, {3, "c"}}, readAll(t, looked.Log("t"), 1<<20))
		_, err = looked.Log("new").Append(t.Context(), payloads("d"))
		require.ErrorIs(t, err, errReadOnly)
		require.NoError(t, looked.Close())
	}
	require.NoError(t, s.Close())
	looked, err := Inspect(cfg.Dir)
	require.NoError(t, err)
	require.False(t, looked.InUse())
	require.EqualValues(t, 2, looked.Log("t").Stats().Records)
}

// tree returns the files in a directory, with their sizes and times.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		files[path] = fmt.Sprint(info.Size(), info.ModTime(), info.Mode())
		return err
	}))
	return files
}

func TestInspectWorksOnADirectoryThatCannotBeWrittenTo(t *testing.T) {
	cfg, files := kept(t, 60)
	s := openSpool(t, cfg)
	cursor := firstOf(t, files[1]) + 3
	s.Log("topic").DoneRange(1, cursor)
	require.NoError(t, s.Close())
	// The torn write gives Open something to repair. Segment 1, which the cursor has passed, gives it something to
	// remove.
	f, err := os.OpenFile(files[len(files)-1], os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("torn")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(files[0]), segmentName(1)), header(1), 0o600))
	for _, dir := range []string{filepath.Join(cfg.Dir, "topic"), cfg.Dir} {
		require.NoError(t, os.Chmod(dir, 0o500))
		t.Cleanup(func() { _ = os.Chmod(dir, 0o700) }) // so that the test can remove it
	}
	before := tree(t, cfg.Dir)

	looked, err := Inspect(cfg.Dir)
	require.NoError(t, err)
	require.False(t, looked.InUse())
	l := looked.Log("topic")
	require.Equal(t, 61-cursor, l.Stats().Records)
	require.Equal(t, expected(cursor, 61), readAll(t, l, 1000))
	require.ErrorIs(t, looked.Usable(), errReadOnly)
	_, err = looked.Drop("topic")
	require.ErrorIs(t, err, errReadOnly)
	require.NoError(t, looked.Close())
	require.Equal(t, before, tree(t, cfg.Dir))
}

func TestInspectCountsWhatWaitsInALogAndNothingElse(t *testing.T) {
	cfg := testConfig(t)
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("t")
	waiting := func() uint64 {
		looked, err := Inspect(cfg.Dir)
		require.NoError(t, err)
		defer looked.Close() //nolint:errcheck // nothing was written
		return looked.Log("t").Stats().Records
	}
	failing := func() {
		disk.failing("sync", segmentSuffix, syscall.EIO)
		_, err := l.Append(t.Context(), payloads("failed", "failed", "failed"))
		require.ErrorIs(t, err, syscall.EIO)
		disk.set(nil)
	}
	appendAll(t, l, "a", "b")
	require.EqualValues(t, 2, waiting())
	failing()
	require.EqualValues(t, 2, waiting(), "what failed is not there")
	appendAll(t, l, "c", "d")
	require.EqualValues(t, 4, waiting(), "the numbers between are no records")
	l.DoneRange(1, 4)
	require.EqualValues(t, 2, waiting())
	l.DoneRange(1, 100)
	require.NotEmpty(t, segmentFiles(t, l))
	require.Zero(t, waiting(), "all is done, although there is still a segment")
	failing()
	require.Zero(t, waiting())
	require.NoError(t, s.Close())
	require.Zero(t, waiting())
}

func TestInspectDoesNotReadEverything(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 10_000
	s := openSpool(t, cfg)
	for range 40 {
		appendAll(t, s.Log("t"), strings.Repeat("x", 5_000), strings.Repeat("y", 4_000))
	}
	disk := newFaulty()
	read := int64(0)
	disk.set(func(op, path string) error {
		if op == "read" && strings.HasSuffix(path, segmentSuffix) {
			read++
		}
		return nil
	})
	looked, err := inspect(cfg.Dir, disk)
	require.NoError(t, err)
	require.EqualValues(t, 80, looked.Log("t").Stats().Records)
	require.LessOrEqual(t, read, int64(40+5), "a header of each segment, and the last one")
	require.NoError(t, looked.Close())
}

func TestInspectWhileAnotherProcessWorksIsRight(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 300
	s := openSpool(t, cfg)
	appendAll(t, s.Log("t"), "first")
	stop := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			l := s.Log("t")
			first := appendAll(t, l, "some", "records")
			l.DoneRange(1, first+2)
			s.reclaim()
		}
	})
	for range 300 {
		looked, err := Inspect(cfg.Dir)
		require.NoError(t, err)
		require.LessOrEqual(t, looked.Log("t").Stats().Records, uint64(10), "there are never more than three")
		require.NoError(t, looked.Close())
	}
	close(stop)
	working.Wait()
}

func TestInspectOfNothingFindsNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	looked, err := Inspect(dir)
	require.NoError(t, err)
	require.False(t, looked.InUse())
	require.Empty(t, looked.Logs())
	require.Empty(t, readAll(t, looked.Log("t"), 1<<20))
	require.NoError(t, looked.Close())
	_, err = os.Stat(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAnExemptAppendPassesTheLimits(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxBytes = 200
	s := openSpool(t, cfg)
	l := s.Log("t")
	for range 10 {
		if _, err := l.Append(t.Context(), payloads("0123456789")); err != nil {
			require.ErrorIs(t, err, ErrFull)
			break
		}
	}
	require.Less(t, s.Usage().Room, int64(headSize+10))
	other := s.Log("other")
	_, err := other.AppendExempt(t.Context(), payloads("0123456789"))
	require.NoError(t, err)
	require.Greater(t, s.Usage().Bytes, cfg.MaxBytes)
	require.Equal(t, l.Stats().Bytes+other.Stats().Bytes, s.Usage().Bytes, "it counts all the same")
	require.Zero(t, s.Usage().Room)
	require.True(t, s.Usage().Full)
	_, err = other.Append(t.Context(), payloads("0123456789"))
	require.ErrorIs(t, err, ErrFull, "the same log takes both")
}
