package spool

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// idle makes the next Usable probe, as after a while without a commit.
func idle(s *Spool) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.good, s.health.tried = time.Time{}, time.Time{}
}

func TestUsableFindsWhatIsInTheWayWithoutAnAppend(t *testing.T) {
	for _, test := range []struct {
		op  string
		err error
	}{
		{"create", syscall.EROFS},
		{"create", syscall.EACCES},
		{"create", syscall.ENOSPC}, // a disk without free inodes says the same
		{"write", syscall.ENOSPC},
		{"sync", syscall.EIO},
		{"remove", syscall.EIO},
		{"stat", syscall.EIO},
	} {
		t.Run(test.op+" "+test.err.Error(), func(t *testing.T) {
			disk := newFaulty()
			s, _ := observed(t, testConfig(t), disk)
			require.NoError(t, s.Usable())
			idle(s)
			require.NoError(t, s.Usable())
			disk.failing(test.op, "", test.err)
			idle(s)
			require.ErrorIs(t, s.Usable(), test.err)
			require.ErrorContains(t, s.Usable(), s.cfg.Dir)
			disk.set(nil)
			require.NoError(t, s.Usable(), "it is tried again")
		})
	}
}

func TestUsableTellsOfACommitThatHasFailed(t *testing.T) {
	disk := newFaulty()
	s, _ := observed(t, testConfig(t), disk)
	s.failFast = time.Hour
	appendAll(t, s.Log("topic"), "a")
	appendAll(t, s.Log("other"), "a")
	disk.failing("sync", segmentSuffix, syscall.EIO)
	_, err := s.Log("topic").Append(t.Context(), payloads("b"))
	require.ErrorIs(t, err, syscall.EIO)
	disk.set(nil)
	s.health.mu.Lock()
	s.health.tried = time.Now() // no probe is due
	s.health.mu.Unlock()
	appendAll(t, s.Log("other"), "c")
	require.ErrorIs(t, s.Usable(), syscall.EIO, "an Append to the other log says nothing of this one")
	idle(s)
	require.NoError(t, s.Usable(), "a probe in the log's directory does")
	appendAll(t, s.Log("topic"), "not too early any more")
}

func TestUsableProbesAtMostOnceASecond(t *testing.T) {
	disk := newFaulty()
	s, _ := observed(t, testConfig(t), disk)
	s.failFast = time.Hour
	idle(s)
	disk.failing("create", probeName, syscall.EROFS)
	for range 5 {
		require.ErrorIs(t, s.Usable(), syscall.EROFS)
	}
	created := disk.count("create")
	require.ErrorIs(t, s.Usable(), syscall.EROFS)
	require.Equal(t, created, disk.count("create"))
}

func TestUsableDoesNotTouchTheDiskWhileCommitsSucceed(t *testing.T) {
	disk := newFaulty()
	s, _ := observed(t, testConfig(t), disk)
	appendAll(t, s.Log("topic"), "a")
	require.NoError(t, s.Usable())
	created, synced := disk.count("create"), disk.count("sync")
	for range 100 {
		require.NoError(t, s.Usable())
	}
	require.Equal(t, created, disk.count("create"))
	require.Equal(t, synced, disk.count("sync"))
}

func TestUsableDoesNotWaitForADiskThatHangs(t *testing.T) {
	disk := newFaulty()
	s, _ := observed(t, testConfig(t), disk)
	l := s.Log("topic")
	appendAll(t, l, "a")
	hang := make(chan struct{})
	resume := sync.OnceFunc(func() { close(hang) })
	defer resume()
	disk.set(func(op, path string) error {
		if op == "sync" && strings.HasSuffix(path, probeName) || op == "free" {
			<-hang
		}
		return nil
	})
	idle(s)
	start := time.Now()
	require.ErrorIs(t, s.Usable(), ErrNoAnswer)
	require.Less(t, time.Since(start), wait)
	for range 10 { // later calls do not wait for the probe at all; they wait for the number of free bytes
		start = time.Now()
		require.ErrorIs(t, s.Usable(), ErrNoAnswer)
		require.Less(t, time.Since(start), probePatience)
	}
	appendAll(t, l, "the probe holds nothing that an Append needs")
	resume()
	require.Eventually(t, func() bool { return s.Usable() == nil }, wait, time.Millisecond)
}

func TestUsableTellsThatThereIsNoRoom(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxBytes = 10_000
	s, _ := observed(t, cfg, disk{})
	l := s.Log("topic")
	appendAll(t, l, strings.Repeat("x", 9_000))
	require.ErrorIs(t, s.Usable(), ErrFull)
	l.Done(1)
	usable := func() bool { return s.Usable() == nil }
	require.Eventually(t, usable, wait, time.Millisecond, "a segment that is done with makes room")

	cfg = testConfig(t)
	cfg.Reserve = 1000
	disk := newFaulty()
	disk.set(func(op, _ string) error {
		if op == "free" {
			return freeError(1500)
		}
		return nil
	})
	s, _ = observed(t, cfg, disk)
	require.ErrorIs(t, s.Usable(), ErrFull)
}

func TestUsableFindsADirectoryThatWasRemoved(t *testing.T) {
	cfg := testConfig(t)
	s, logs := observed(t, cfg, disk{})
	appendAll(t, s.Log("topic"), "a")
	require.NoError(t, os.RemoveAll(cfg.Dir))
	idle(s)
	require.NoError(t, s.Usable(), "it is there again")
	require.DirExists(t, cfg.Dir)
	require.Equal(t, 1, logs.FilterMessageSnippet("lock of the spool, or its directory, was removed").Len())
	require.EqualValues(t, 1, s.Log("topic").Stats().LostRecords)
	require.Zero(t, s.Log("topic").Stats().Records)

	faulty := newFaulty()
	s, _ = observed(t, testConfig(t), faulty)
	require.NoError(t, os.RemoveAll(s.cfg.Dir))
	faulty.failing("makeDir", "", syscall.EACCES)
	idle(s)
	require.ErrorIs(t, s.Usable(), syscall.EACCES, "unless that is impossible")
}

func TestASpoolThatIsClosedIsNotUsable(t *testing.T) {
	disk := newFaulty()
	s, _ := observed(t, testConfig(t), disk)
	held, release := make(chan struct{}), make(chan struct{})
	disk.set(func(op, path string) error {
		if op == "create" && strings.HasSuffix(path, probeName) {
			close(held)
			<-release
		}
		return nil
	})
	idle(s)
	probing := make(chan error, 1)
	go func() { probing <- s.Usable() }()
	<-held
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	require.Eventually(t, s.isClosed, wait, time.Millisecond)
	select {
	case err := <-closed:
		require.NoError(t, err)
		require.Fail(t, "Close does not wait for the probe, whose file would be left")
	default:
	}
	close(release)
	require.NoError(t, <-closed)
	require.NoError(t, <-probing)
	require.ErrorIs(t, s.Usable(), ErrClosed)
	entries, err := os.ReadDir(s.cfg.Dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "the lock")
}

func TestAnAppendDoesNotWaitForTheNumberOfFreeBytes(t *testing.T) {
	disk := newFaulty()
	cfg := testConfig(t)
	cfg.Reserve = 1
	s, _ := observed(t, cfg, disk)
	appendAll(t, s.Log("topic"), "a")
	hang := make(chan struct{})
	defer close(hang)
	disk.set(func(op, _ string) error {
		if op == "free" {
			<-hang
			return errors.New("late")
		}
		return nil
	})
	require.Eventually(t, func() bool {
		s.free.refresh()
		s.free.mu.Lock()
		defer s.free.mu.Unlock()
		return s.free.asking != nil
	}, wait, time.Millisecond)
	appendAll(t, s.Log("topic"), "b")
}

func BenchmarkUsable(b *testing.B) {
	s := openSpool(b, testConfig(b))
	for _, topic := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		appendAll(b, s.Log(topic), "a")
	}
	b.ReportAllocs()
	for b.Loop() {
		if s.Usable() != nil {
			b.Fatal("not usable")
		}
	}
}
