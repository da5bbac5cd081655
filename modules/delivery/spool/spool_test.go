package spool

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"pgregory.net/rapid"
)

func TestAFullSpoolRefusesAppendsUntilItIsDrained(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxBytes, cfg.SegmentBytes = 10_000, 1000
	s := openSpool(t, cfg)
	l := s.Log("topic")
	payload := payloads(strings.Repeat("x", 200-headSize))
	appended := 0
	for range 100 {
		_, err := l.Append(t.Context(), payload)
		if err != nil {
			require.ErrorIs(t, err, ErrFull)
			break
		}
		appended++
	}
	require.InDelta(t, 45, appended, 5)
	usage := s.Usage()
	require.True(t, usage.Full)
	require.EqualValues(t, 10_000, usage.Max)
	require.Equal(t, l.Stats().Bytes, usage.Bytes)
	require.Positive(t, usage.Free)
	_, err := s.Log("other").Append(t.Context(), payload)
	require.ErrorIs(t, err, ErrFull, "the limit is for all logs together")

	l.DoneRange(1, 10)
	require.False(t, s.Usage().Full)
	appendAll(t, s.Log("other"), "fits")
	require.NoError(t, s.Close())

	s = openSpool(t, cfg)
	require.Equal(t, usage.Bytes-2*(headerSize+4*200)+headerSize+headSize+4, s.Usage().Bytes, "counted again at start")
}

func TestWhatIsDoneWithGivesItsSpaceBackWhenTheSpoolIsFull(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxBytes, cfg.SegmentBytes = 1000, 10_000
	s := openSpool(t, cfg)
	for range 50 {
		first := appendAll(t, s.Log("one"), strings.Repeat("x", 300))
		s.Log("one").Done(first)
		first = appendAll(t, s.Log("two"), strings.Repeat("x", 300))
		s.Log("two").Done(first)
	}
}

func TestSegmentsThatCouldNotBeRemovedMakeRoomLater(t *testing.T) {
	for _, test := range []struct{ op, suffix string }{{"write", cursorName}, {"remove", segmentSuffix}} {
		cfg := testConfig(t)
		cfg.MaxBytes, cfg.SegmentBytes = 3000, 1000
		disk := newFaulty()
		s, _ := observed(t, cfg, disk)
		l := s.Log("topic")
		for range 3 {
			appendAll(t, l, strings.Repeat("x", 900))
		}
		disk.failing(test.op, test.suffix, syscall.EIO)
		l.DoneRange(1, 4)
		_, err := l.Append(t.Context(), payloads(strings.Repeat("x", 900)))
		require.ErrorIs(t, err, ErrFull)
		disk.set(nil)
		appendAll(t, l, strings.Repeat("x", 900))
		require.Len(t, segmentFiles(t, l), 1)
	}
}

func TestTheReserveOfTheDiskIsKept(t *testing.T) {
	cfg := testConfig(t)
	cfg.Reserve = 1000
	disk := newFaulty()
	disk.set(func(op, _ string) error {
		if op == "free" {
			return freeError(1500)
		}
		return nil
	})
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	appendAll(t, l, strings.Repeat("x", 200))
	_, err := l.Append(t.Context(), payloads(strings.Repeat("x", 900)))
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, "to stay free")
	require.True(t, s.Usage().Full)
	require.Len(t, readAll(t, l, 1000), 1)
	l.Done(1)
	require.NoError(t, s.Close(), "a full disk is drained")
}

func TestADiskThatDoesNotSayWhatIsFreeIsUsed(t *testing.T) {
	cfg := testConfig(t)
	cfg.Reserve = 1000
	disk := newFaulty()
	disk.failing("free", "", syscall.ENOSYS)
	s, logs := observed(t, cfg, disk)
	appendAll(t, s.Log("topic"), "a")
	require.EqualValues(t, -1, s.Usage().Free)
	require.False(t, s.Usage().Full)
	require.Equal(t, 1, logs.FilterMessageSnippet("reserve").Len())
}

func TestLogsAreThoseThatHaveADirectory(t *testing.T) {
	cfg := testConfig(t)
	s := openSpool(t, cfg)
	b := s.Log("b")
	require.Same(t, b, s.Log("b"))
	require.Empty(t, s.Logs())
	names := []string{"", "..", "a/b", "b", "topic.with-all_1", "ünï"}
	for _, name := range names {
		appendAll(t, s.Log(name), name)
	}
	entries, err := os.ReadDir(cfg.Dir)
	require.NoError(t, err)
	require.Len(t, entries, len(names)+1, "one directory each, and the lock")
	require.NoError(t, os.Mkdir(filepath.Join(cfg.Dir, "no%log"), 0o700))
	require.NoError(t, s.Close())

	core := newFaulty()
	s, logs := observed(t, cfg, core)
	require.Equal(t, 1, logs.FilterMessageSnippet("no log").Len())
	var found []string
	for _, l := range s.Logs() {
		found = append(found, l.Name())
		require.Equal(t, []got{{1, l.Name()}}, readAll(t, l, 100))
	}
	require.Equal(t, names, found)
}

func TestEveryNameIsADirectoryOfItsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.StringMatching(`[.%/a-c]{0,6}`)).Draw(t, "name")
		dir := escape(name)
		require.Regexp(t, `^[0-9A-Za-z_%-][0-9A-Za-z._%-]*$`, dir)
		back, ok := unescape(dir)
		require.True(t, ok)
		require.Equal(t, name, back)
		if back, ok := unescape(name); ok {
			require.Equal(t, name, escape(back))
		}
	})
}

func TestADirectoryThatCannotBeUsedIsNamed(t *testing.T) {
	cfg := testConfig(t)
	require.NoError(t, os.WriteFile(cfg.Dir, nil, 0o600))
	_, err := Open(cfg, zap.NewNop())
	require.ErrorContains(t, err, cfg.Dir)
	require.ErrorContains(t, err, "may write to it")

	cfg = testConfig(t)
	disk := newFaulty()
	disk.failing("create", probeName, syscall.EROFS)
	_, err = open(cfg, zap.NewNop(), disk)
	require.ErrorIs(t, err, syscall.EROFS)
	require.ErrorContains(t, err, cfg.Dir)

	disk.failing("create", probeName, syscall.ENOSPC)
	s, _ := observed(t, cfg, disk)
	require.NoError(t, s.Close(), "a full disk can still be drained")

	for _, cfg := range []Config{{MaxBytes: 1, SegmentBytes: 1, MaxPending: 1}, {Dir: cfg.Dir}} {
		_, err = Open(cfg, zap.NewNop())
		require.Error(t, err)
	}
}

func TestADirectoryIsUsedOnce(t *testing.T) {
	cfg := testConfig(t)
	s := openSpool(t, cfg)
	_, err := Open(cfg, zap.NewNop())
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, cfg.Dir)
	require.NoError(t, s.Close())
	openSpool(t, cfg)
}

func TestALogThatCannotBeMadeFailsItsAppend(t *testing.T) {
	for _, op := range []string{"makeDir", "create", "sync", "syncDir"} {
		disk := newFaulty()
		s, _ := observed(t, testConfig(t), disk)
		disk.set(func(o, path string) error {
			if o == op && !strings.HasSuffix(path, segmentSuffix) {
				return syscall.ENOSPC
			}
			return nil
		})
		_, err := s.Log("topic").Append(t.Context(), payloads("a"))
		require.ErrorIs(t, err, syscall.ENOSPC, op)
		disk.set(nil)
		require.EqualValues(t, 2, appendAll(t, s.Log("topic"), "b"))
		require.Equal(t, []got{{2, "b"}}, readAll(t, s.Log("topic"), 100))
	}
}

func TestOpeningDoesNotDependOnHowMuchIsKept(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 1000
	s := openSpool(t, cfg)
	appendEach(t, s.Log("topic"), 0, 400)
	require.NoError(t, s.Close())

	disk := newFaulty()
	opened := map[string]bool{}
	disk.set(func(op, path string) error {
		if op == "open" {
			opened[filepath.Base(path)] = true
		}
		return nil
	})
	s, _ = observed(t, cfg, disk)
	files := segmentFiles(t, s.Log("topic"))
	require.Greater(t, len(files), 20)
	require.Equal(t, map[string]bool{cursorName: true, filepath.Base(files[len(files)-1]): true}, opened)
	disk.set(nil)
	require.Equal(t, expected(1, 401), readAll(t, s.Log("topic"), 1000))
}

func BenchmarkOpen(b *testing.B) {
	cfg := testConfig(b)
	s := openSpool(b, cfg)
	payload := make([]byte, 1024)
	batch := make([][]byte, 1000)
	for i := range batch {
		batch[i] = payload
	}
	for range 500 {
		_, err := s.Log("topic").Append(context.Background(), batch)
		require.NoError(b, err)
	}
	require.NoError(b, s.Close())
	for b.Loop() {
		s, err := Open(cfg, zap.NewNop())
		require.NoError(b, err)
		require.NoError(b, s.Close())
	}
}
