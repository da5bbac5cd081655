package spool

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/panics"
)

// panicking makes one kind of operation on files with the suffix panic.
func (f *faulty) panicking(op, suffix string) {
	f.set(func(o, path string) error {
		if o == op && strings.HasSuffix(path, suffix) {
			panic("a test says so: " + op)
		}
		return nil
	})
}

// requirePanic requires that exactly one log line tells of a panic of who, with a stack.
func requirePanic(t *testing.T, logs *observer.ObservedLogs, who string) {
	t.Helper()
	told := func() []observer.LoggedEntry { return logs.FilterMessage(who + " panicked").All() }
	require.Eventually(t, func() bool { return len(told()) > 0 }, wait, 1)
	require.Contains(t, told()[0].ContextMap()["stack"], "panicking")
}

func TestAnAppendWhoseCommitPanicsFailsAndTheLogGoesOn(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "syncDir", "stat"} {
		t.Run(op, func(t *testing.T) {
			cfg, disk := testConfig(t), newFaulty()
			s, logs := observed(t, cfg, disk)
			l := s.Log("events")
			if op != "create" && op != "syncDir" {
				appendAll(t, l, "1")
			}
			before := panics.Count()
			disk.panicking(op, "")
			_, err := l.Append(t.Context(), payloads("lost"))
			require.ErrorContains(t, err, "panic: a test says so: "+op)
			require.Greater(t, panics.Count(), before)
			requirePanic(t, logs, committer)
			require.Zero(t, l.Stats().Pending)
			disk.set(nil)
			appendAll(t, l, "2", "3")
			var values []string
			for _, record := range readAll(t, l, 1<<20) {
				values = append(values, record.value)
			}
			if op != "create" && op != "syncDir" {
				require.Equal(t, []string{"1", "2", "3"}, values)
			} else {
				require.Equal(t, []string{"2", "3"}, values)
			}
			require.NoError(t, s.Close())

			again := openSpool(t, cfg)
			read := readAll(t, again.Log("events"), 1<<20)
			require.Equal(t, "3", read[len(read)-1].value)
			require.Zero(t, again.Log("events").Stats().CorruptRecords)
		})
	}
}

func TestAnAppendIsAnsweredThoughGivingUpItsSegmentPanics(t *testing.T) {
	disk := newFaulty()
	s, logs := observed(t, testConfig(t), disk)
	l := s.Log("events")
	appendAll(t, l, "1")
	disk.set(func(op, _ string) error {
		if op == "sync" || op == "truncate" {
			panic("a test says so: " + op)
		}
		return nil
	})
	_, err := l.Append(t.Context(), payloads("lost"))
	require.ErrorContains(t, err, "panic: a test says so: sync")
	require.Equal(t, 2, logs.FilterMessage(committer+" panicked").Len())
	disk.set(nil)
	appendAll(t, l, "2")
	read := readAll(t, l, 1<<20)
	require.Equal(t, "1", read[0].value)
	require.Equal(t, "2", read[1].value)
}

func TestARecordWhoseCheckpointPanicsIsAcknowledged(t *testing.T) {
	disk := newFaulty()
	s, logs := observed(t, testConfig(t), disk)
	l := s.Log("events")
	appendAll(t, l, "1")
	disk.panicking("write", cursorName)
	appendAll(t, l, "2")
	requirePanic(t, logs, committer)
	disk.set(nil)
	appendAll(t, l, "3")
	require.Len(t, readAll(t, l, 1<<20), 3)
}

func TestAProbeThatPanicsIsAFailedProbe(t *testing.T) {
	disk := newFaulty()
	s, logs := observed(t, testConfig(t), disk)
	l := s.Log("events")
	appendAll(t, l, "1")
	disk.failing("sync", "", context.DeadlineExceeded)
	_, err := l.Append(t.Context(), payloads("lost"))
	require.Error(t, err)
	disk.panicking("create", probeName)
	require.Eventually(t, func() bool {
		return s.Usable() != nil && logs.FilterMessage(prober+" panicked").Len() > 0
	}, wait, 1)
	disk.set(nil)
	require.Eventually(t, func() bool { return s.Usable() == nil }, wait, 1)
	require.NoError(t, s.Close())
}

func TestAQuestionForFreeSpaceThatPanicsIsOneWithoutAnAnswer(t *testing.T) {
	disk := newFaulty()
	core, logs := observer.New(zap.DebugLevel)
	free := freeSpace{fs: disk, dir: t.TempDir(), log: zap.New(core), bytes: -1}
	disk.panicking("free", "")
	require.EqualValues(t, -1, free.left())
	requirePanic(t, logs, "the question for free space")
	disk.set(nil)
	require.Eventually(t, func() bool { return free.left() > 0 }, wait, 1)
}

func TestALogWhoseEndPanicsLetsTheOthersEndInOrder(t *testing.T) {
	cfg, disk := testConfig(t), newFaulty()
	s, _ := observed(t, cfg, disk)
	for _, name := range []string{"a", "b", "c"} {
		appendAll(t, s.Log(name), "1", "2")
		s.Log(name).Done(1)
	}
	disk.set(func(op, path string) error {
		if op == "sync" && strings.Contains(path, "/b/") {
			panic("a test says so")
		}
		return nil
	})
	require.ErrorContains(t, s.Close(), "close log b: panic: a test says so")
	again := openSpool(t, cfg)
	for _, name := range []string{"a", "b", "c"} {
		read := readAll(t, again.Log(name), 1<<20)
		require.Equal(t, "2", read[len(read)-1].value, name)
	}
}
