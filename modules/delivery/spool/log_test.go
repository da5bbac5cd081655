package spool

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWhatWasAppendedIsReadInOrder(t *testing.T) {
	s := openSpool(t, testConfig(t))
	l := s.Log("topic")
	require.Equal(t, "topic", l.Name())
	require.Empty(t, readAll(t, l, 1000))
	require.EqualValues(t, 1, appendAll(t, l, "a", "", "c"))
	require.EqualValues(t, 4, appendAll(t, l, "d"))
	require.Equal(t, []got{{1, "a"}, {2, ""}, {3, "c"}, {4, "d"}}, readAll(t, l, 1000))
	require.Empty(t, readAll(t, l, 1000))
	require.EqualValues(t, 5, appendAll(t, l, "e"))
	require.Equal(t, []got{{5, "e"}}, readAll(t, l, 1000))
	require.Equal(t, LogStats{Records: 5, Bytes: headerSize + 5*headSize + 4, First: 1, Next: 6}, l.Stats())
	require.EqualValues(t, 6, appendAll(t, l), "an Append of nothing says what is next")
}

func TestAChunkHasNoMoreThanItsBytesButOneRecord(t *testing.T) {
	s := openSpool(t, testConfig(t))
	l := s.Log("topic")
	big := strings.Repeat("b", 300_000)
	appendAll(t, l, "12345", "12345", "12345", big, "12345")
	var chunk Chunk
	for _, want := range []int{2, 1, 1, 1, 0} {
		require.NoError(t, l.Read(&chunk, 2*headSize+10))
		require.Len(t, chunk.Records, want)
	}
	l.Rewind()
	require.Len(t, readAll(t, l, 0), 5)
	l.Rewind()
	require.NoError(t, l.Read(&chunk, 1<<20))
	require.Len(t, chunk.Records, 5)
	require.Equal(t, big, string(chunk.Records[3].Payload))
	require.NoError(t, l.Read(&chunk, 10))
	require.Less(t, cap(chunk.buf), 1<<20, "what a large chunk took is given back")
}

func TestRecordsSurviveAReopen(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 1000
	for round := range 4 {
		s := openSpool(t, cfg)
		l := s.Log("topic")
		require.Equal(t, expected(1, uint64(round*50+1)), readAll(t, l, 700))
		appendEach(t, l, round*50, round*50+50)
		require.Len(t, readAll(t, l, 700), 50)
		require.Greater(t, len(segmentFiles(t, l)), 2)
		require.NoError(t, s.Close())
	}
	info, err := os.Stat(cfg.Dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "topic", "*"))
	require.NoError(t, err)
	for _, file := range files {
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), file)
	}
}

func TestOneSyncServesAllThatWait(t *testing.T) {
	cfg := testConfig(t)
	var syncs sync.Map
	cfg.OnSync = func(took time.Duration) { syncs.Store(time.Now(), took) }
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	appendAll(t, l, "first")
	before := disk.count("sync")

	// The first sync waits until 100 other Appends have come.
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.set(func(op, path string) error {
		if op == "sync" && strings.HasSuffix(path, segmentSuffix) {
			once.Do(func() { close(held); <-release })
		}
		return nil
	})
	var all sync.WaitGroup
	all.Go(func() { appendAll(t, l, "held") })
	<-held
	for range 100 {
		all.Go(func() { appendAll(t, l, "a", "b") })
	}
	require.Eventually(t, func() bool { return l.Stats().Next == 203 }, wait, time.Millisecond)
	require.Len(t, readAll(t, l, 1000), 1, "nothing is read before it is synced")
	close(release)
	all.Wait()
	require.Equal(t, before+2, disk.count("sync"))
	require.Len(t, readAll(t, l, 100_000), 201)
	n := 0
	syncs.Range(func(_, took any) bool { n++; return took.(time.Duration) > 0 })
	require.Equal(t, 3, n)
}

func TestAnAppendWaitsForRoomOrItsContext(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxPending = 100
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.set(func(op, path string) error {
		if op == "sync" && strings.HasSuffix(path, segmentSuffix) {
			once.Do(func() { close(held); <-release })
		}
		return nil
	})
	var all sync.WaitGroup
	large := strings.Repeat("x", 200)
	all.Go(func() { appendAll(t, l, large) }) // it has more bytes than may be pending, so it goes alone
	<-held
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	all.Go(func() {
		_, err := l.Append(ctx, payloads("given up"))
		require.ErrorIs(t, err, cause)
		require.ErrorContains(t, err, "nothing was written")
	})
	require.Eventually(t, func() bool { return len(l.gate) == 1 }, wait, time.Millisecond)
	cancel(cause)
	require.Eventually(t, func() bool { return len(l.gate) == 0 }, wait, time.Millisecond)
	for range 5 {
		all.Go(func() { appendAll(t, l, strings.Repeat("y", 60)) })
	}
	require.EqualValues(t, 2, l.Stats().Next)
	close(release)
	all.Wait()
	require.Len(t, readAll(t, l, 1000), 6)
	require.Equal(t, l.Stats().Bytes, s.Usage().Bytes, "what was not written takes no room")

	_, err := l.Append(ctx, payloads("too late"))
	require.ErrorIs(t, err, cause)
}

func TestAContextThatEndsDuringTheSyncLeavesItOpenWhatBecameOfTheRecords(t *testing.T) {
	disk := newFaulty()
	s, _ := observed(t, testConfig(t), disk)
	l := s.Log("topic")
	held, release := make(chan struct{}), make(chan struct{})
	disk.set(func(op, path string) error {
		if op == "sync" && strings.HasSuffix(path, segmentSuffix) {
			close(held)
			<-release
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := l.Append(ctx, payloads("a"))
		failed <- err
	}()
	<-held
	cancel()
	err := <-failed
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "may still become durable")
	close(release)
	<-l.Changed()
	require.Equal(t, []got{{1, "a"}}, readAll(t, l, 100))
}

func TestARecordIsPendingUntilItsCommitHasEnded(t *testing.T) {
	for _, failure := range []error{nil, syscall.EIO} {
		disk := newFaulty()
		s, _ := observed(t, testConfig(t), disk)
		l := s.Log("topic")
		held, release := make(chan struct{}), make(chan struct{})
		disk.set(func(op, path string) error {
			if op == "sync" && strings.HasSuffix(path, segmentSuffix) {
				close(held)
				<-release
				disk.set(nil)
				return failure
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() {
			_, err := l.Append(ctx, payloads("a", "b"))
			given <- err
		}()
		<-held
		cancel()
		require.ErrorIs(t, <-given, context.Canceled)
		stats := l.Stats()
		require.EqualValues(t, 2, stats.Pending, "nobody waits for them, and yet they are on their way")
		require.Zero(t, stats.Records)
		select {
		case <-l.Changed():
			require.Fail(t, "nothing has changed yet")
		default:
		}

		// A record is Pending, counts in Records, or is gone: while any is Pending, both are in Pending or Records.
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			for stats := l.Stats(); stats.Pending > 0; stats = l.Stats() {
				assert.EqualValues(t, 2, stats.Pending+stats.Records)
			}
		}()
		close(release)
		select {
		case <-l.Changed():
		case <-time.After(wait):
			require.Fail(t, "a commit that ends is no change")
		}
		<-watched
		stats = l.Stats()
		require.Zero(t, stats.Pending)
		if failure == nil {
			require.EqualValues(t, 2, stats.Records)
			require.Equal(t, []got{{1, "a"}, {2, "b"}}, readAll(t, l, 100))
		} else {
			require.Zero(t, stats.Records)
			require.Empty(t, readAll(t, l, 100))
		}
	}
}

func TestRecordsBehindACommitThatFailsAreNotPendingForEver(t *testing.T) {
	disk := newFaulty()
	s, _ := observed(t, testConfig(t), disk)
	l := s.Log("topic")
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.set(func(op, path string) error {
		if op == "sync" && strings.HasSuffix(path, segmentSuffix) {
			once.Do(func() { close(held) })
			<-release
			return syscall.EIO
		}
		return nil
	})
	var all sync.WaitGroup
	all.Go(func() { _, _ = l.Append(t.Context(), payloads("a")) })
	<-held
	all.Go(func() { _, _ = l.Append(t.Context(), payloads("b", "c")) })
	require.Eventually(t, func() bool { return l.Stats().Pending == 3 }, wait, time.Millisecond)
	close(release)
	all.Wait()
	require.Zero(t, l.Stats().Pending)
}

func TestAWaiterMissesNoWakeUp(t *testing.T) {
	s := openSpool(t, testConfig(t))
	l := s.Log("topic")
	const records = 500
	var appending sync.WaitGroup
	defer appending.Wait()
	appending.Go(func() { appendEach(t, l, 0, records) })
	var chunk Chunk
	timeout := time.After(wait)
	for read := 0; read < records; read += len(chunk.Records) {
		require.NoError(t, l.Read(&chunk, 1<<20))
		if len(chunk.Records) > 0 {
			continue
		}
		select {
		case <-l.Changed():
		case <-timeout:
			require.Fail(t, "a wake-up is missing", "%d read", read)
		}
	}
}

func TestDoneInAnyOrderMovesTheCursorToTheFirstThatIsNot(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	s := openSpool(t, cfg)
	l := s.Log("topic")
	appendEach(t, l, 0, 100)
	for _, step := range []struct {
		done   []uint64
		cursor uint64
		open   uint64
		spans  int
	}{
		{[]uint64{1, 2, 3}, 4, 97, 0},
		{[]uint64{6, 5}, 4, 95, 1},
		{[]uint64{8, 10, 12}, 4, 92, 4},
		{[]uint64{5, 6, 2, 8}, 4, 92, 4},
		{[]uint64{11, 9}, 4, 90, 2},
		{[]uint64{4}, 7, 89, 1},
		{[]uint64{200, 0}, 7, 89, 1},
		{[]uint64{7}, 13, 88, 0},
	} {
		l.Done(step.done...)
		stats := l.Stats()
		require.Equal(t, step.cursor, stats.First, step)
		require.Equal(t, step.open, stats.Records, step)
		require.Len(t, l.done, step.spans, step)
	}
	l.DoneRange(20, 30)
	l.Rewind()
	require.Equal(t, append(expected(13, 20), expected(30, 101)...), readAll(t, l, 300), "what is done is left out")
	files := len(segmentFiles(t, l))
	l.DoneRange(0, 1000)
	require.EqualValues(t, 101, l.Stats().First)
	require.Zero(t, l.Stats().Records)
	require.Greater(t, files, 5)
	require.LessOrEqual(t, len(segmentFiles(t, l)), 1)
	require.NoError(t, s.Close())
	require.Empty(t, segmentFiles(t, l), "a log that is done with is empty")

	l = openSpool(t, cfg).Log("topic")
	require.EqualValues(t, 101, appendAll(t, l, "next"), "numbers go on")
	require.Equal(t, []got{{101, "next"}}, readAll(t, l, 100))
}

func TestTheCursorSurvivesAReopenWithoutClose(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	s := openSpool(t, cfg)
	l := s.Log("topic")
	appendEach(t, l, 0, 100)
	l.DoneRange(1, 42)
	require.NoError(t, s.directory.release()) // as if the process were killed
	second := openSpool(t, cfg)
	require.Equal(t, expected(42, 101), readAll(t, second.Log("topic"), 10_000))
	require.EqualValues(t, 59, second.Log("topic").Stats().Records)
	require.NoError(t, second.Close())
}

func TestRewindStartsAtTheCursor(t *testing.T) {
	cfg := testConfig(t)
	s := openSpool(t, cfg)
	l := s.Log("topic")
	big := strings.Repeat("x", 1<<20)
	for range 20 {
		appendAll(t, l, big, "small")
	}
	for cursor := uint64(1); cursor < 40; cursor += 3 {
		l.DoneRange(1, cursor)
		l.Rewind()
		var chunk Chunk
		require.NoError(t, l.Read(&chunk, 100))
		require.Equal(t, cursor, chunk.Records[0].Seq)
		require.LessOrEqual(t, len(l.reader.positions), positionsKept)
		require.Len(t, readAll(t, l, 100), int(40-cursor))
	}
}

func TestAFailedCommitIsReportedAndNeverSafeLater(t *testing.T) {
	for _, test := range []struct {
		op, suffix string
		err        error
	}{
		{"write", segmentSuffix, syscall.ENOSPC},
		{"write", segmentSuffix, syscall.EIO},
		{"sync", segmentSuffix, syscall.EIO},
		{"create", segmentSuffix, syscall.EROFS},
		{"syncDir", "topic", syscall.EIO},
	} {
		for _, truncates := range []bool{true, false} {
			t.Run(test.op+" "+test.err.Error(), func(t *testing.T) {
				cfg := testConfig(t)
				disk := newFaulty()
				s, logs := observed(t, cfg, disk)
				l := s.Log("topic")
				appendAll(t, l, "before")
				if test.op == "create" || test.op == "syncDir" {
					l.Done(1)
					require.True(t, s.reclaim(), "the next needs a new segment")
				}
				used := s.Usage().Bytes
				disk.set(func(op, path string) error {
					fails := op == test.op && strings.HasSuffix(path, test.suffix)
					if fails || !truncates && (op == "truncate" || op == "remove") {
						return test.err
					}
					return nil
				})
				var all sync.WaitGroup
				for range 10 {
					all.Go(func() {
						_, err := l.Append(t.Context(), payloads("failed"))
						require.ErrorIs(t, err, test.err)
						require.ErrorContains(t, err, "may not be durable")
					})
				}
				all.Wait()
				require.Equal(t, used, s.Usage().Bytes, "what failed takes no room")
				require.NotZero(t, logs.FilterMessageSnippet("not written").Len())
				disk.set(nil)
				require.EqualValues(t, 12, appendAll(t, l, "after"), "numbers are not used again")
				read := readAll(t, l, 1000)
				require.Equal(t, got{12, "after"}, read[len(read)-1])
				require.LessOrEqual(t, len(read), 2)
				require.EqualValues(t, len(read), l.Stats().Records)
				l.Done(1)
				require.EqualValues(t, 12, l.Stats().First, "nobody waits for what failed")
				require.NoError(t, s.Close())

				again, _ := observed(t, cfg, disk)
				l = again.Log("topic")
				require.Equal(t, []got{{12, "after"}}, readAll(t, l, 1000))
				require.Equal(t, LogStats{Records: 1, Bytes: l.Stats().Bytes, First: 12, Next: 13}, l.Stats())
			})
		}
	}
}

func TestWhatAFailedCommitLeftIsNoLossAfterARestart(t *testing.T) {
	for _, op := range []string{"sync", "write"} {
		cfg := testConfig(t)
		disk := newFaulty()
		s, _ := observed(t, cfg, disk)
		l := s.Log("topic")
		appendAll(t, l, "before")
		disk.set(func(o, _ string) error {
			if o == op || o == "truncate" {
				return syscall.EIO
			}
			return nil
		})
		_, err := l.Append(t.Context(), payloads("failed"))
		require.ErrorIs(t, err, syscall.EIO)
		disk.set(nil)
		appendAll(t, l, "after")
		require.Len(t, readAll(t, l, 1000), 2)
		require.Zero(t, l.Stats().TornBytes, "this process does not look at it")
		require.NoError(t, s.Close())

		l = openSpool(t, cfg).Log("topic")
		read := readAll(t, l, 1000)
		if op == "sync" {
			require.Equal(t, []got{{1, "before"}, {2, "failed"}, {3, "after"}}, read, "it is whole, so it may be read")
			continue
		}
		require.Equal(t, []got{{1, "before"}, {3, "after"}}, read)
		require.Zero(t, l.Stats().CorruptRegions)
		require.EqualValues(t, (headSize+len("failed"))/2, l.Stats().TornBytes)
		l.Done(1)
		require.EqualValues(t, 3, l.Stats().First)
		require.EqualValues(t, 1, l.Stats().Records)
	}
}

func TestAfterAFailureAppendsFailFast(t *testing.T) {
	disk := newFaulty()
	s, _ := observed(t, testConfig(t), disk)
	s.failFast = time.Hour
	l := s.Log("topic")
	appendAll(t, l, "before")
	disk.failing("sync", segmentSuffix, syscall.EIO)
	_, err := l.Append(t.Context(), payloads("failed"))
	require.ErrorIs(t, err, syscall.EIO)
	disk.set(nil)
	writes := disk.count("write")
	_, err = l.Append(t.Context(), payloads("failed"))
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, "too early")
	require.Equal(t, writes, disk.count("write"))
	appendAll(t, s.Log("other"), "every log for itself")
}

func TestCloseCommitsWhatIsPending(t *testing.T) {
	cfg := testConfig(t)
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.set(func(op, path string) error {
		if op == "sync" && strings.HasSuffix(path, segmentSuffix) {
			once.Do(func() { close(held); <-release })
		}
		return nil
	})
	var all sync.WaitGroup
	all.Go(func() { appendAll(t, l, "held") })
	<-held
	for range 10 {
		all.Go(func() { appendAll(t, l, "pending") })
	}
	require.Eventually(t, func() bool { return l.Stats().Next == 12 }, wait, time.Millisecond)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	<-l.closing
	_, err := l.Append(t.Context(), payloads("late"))
	require.ErrorIs(t, err, ErrClosed)
	close(release)
	all.Wait()
	require.NoError(t, <-closed)
	require.NoError(t, s.Close())
	require.ErrorIs(t, l.Read(&Chunk{}, 1), ErrClosed)
	_, err = s.Log("new").Append(t.Context(), payloads("late"))
	require.ErrorIs(t, err, ErrClosed)
	l.Done(1)
	require.Len(t, readAll(t, openSpool(t, cfg).Log("topic"), 1000), 11)
}

func TestACursorThatCannotBeWrittenDoesNotStopDelivery(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	disk := newFaulty()
	s, logs := observed(t, cfg, disk)
	l := s.Log("topic")
	appendEach(t, l, 0, 60)
	disk.failing("write", cursorName, syscall.EIO)
	for seq := range uint64(50) {
		l.Done(seq)
	}
	require.Equal(t, 1, logs.FilterMessageSnippet("cursor").Len(), "logged once")
	require.EqualValues(t, 50, l.Stats().First)
	require.Equal(t, expected(50, 61), readAll(t, l, 100))
	disk.set(nil)
	l.Done(50)
	require.NoError(t, s.Close())
	require.Equal(t, expected(51, 61), readAll(t, openSpool(t, cfg).Log("topic"), 1000), "tried again with the next")
}

func TestASegmentThatCannotBeRemovedIsTriedAgain(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	disk := newFaulty()
	s, logs := observed(t, cfg, disk)
	l := s.Log("topic")
	appendEach(t, l, 0, 60)
	before := len(segmentFiles(t, l))
	disk.failing("remove", segmentSuffix, syscall.EIO)
	for seq := range uint64(30) {
		l.Done(seq)
	}
	require.Len(t, segmentFiles(t, l), before)
	require.Equal(t, 1, logs.FilterMessageSnippet("cannot be removed").Len())
	bytes := s.Usage().Bytes
	disk.set(nil)
	l.DoneRange(30, 60)
	require.Less(t, len(segmentFiles(t, l)), 3)
	require.Less(t, s.Usage().Bytes, bytes/2)
	require.Equal(t, l.Stats().Bytes, s.Usage().Bytes)
}

func TestAPayloadThatIsTooLargeIsRefused(t *testing.T) {
	l := openSpool(t, testConfig(t)).Log("topic")
	_, err := l.Append(t.Context(), [][]byte{{1}, make([]byte, MaxPayload+1)})
	require.ErrorIs(t, err, ErrTooLarge)
	require.EqualValues(t, 1, appendAll(t, l, "fits"))
}

func TestConcurrentAppendsReadsAndDonesAgree(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes, cfg.MaxPending = 5000, 2000
	s := openSpool(t, cfg)
	l := s.Log("topic")
	const writers, each = 8, 60
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range each {
				appendAll(t, l, "some", "payload")
			}
		})
	}
	var chunk Chunk
	next := uint64(1)
	deadline := time.Now().Add(wait)
	for next <= writers*each*2 {
		require.True(t, time.Now().Before(deadline))
		require.NoError(t, l.Read(&chunk, 500))
		if len(chunk.Records) == 0 {
			<-l.Changed()
			continue
		}
		for _, r := range chunk.Records {
			require.Equal(t, next, r.Seq)
			require.Equal(t, []string{"payload", "some"}[r.Seq%2], string(r.Payload))
			next++
		}
		from, to := chunk.Records[0].Seq, next
		writing.Go(func() { l.DoneRange(from, to) })
	}
	writing.Wait()
	require.Zero(t, l.Stats().Records)
	require.Zero(t, l.Stats().CorruptRegions)
}

func TestARangeOfNumbersIsASetOfNumbers(t *testing.T) {
	var r spans
	require.EqualValues(t, 0, r.add(span{5, 5}))
	require.EqualValues(t, 2, r.add(span{5, 7}))
	require.EqualValues(t, 2, r.add(span{9, 11}))
	require.EqualValues(t, 1, r.add(span{6, 8}))
	require.Equal(t, spans{{5, 8}, {9, 11}}, r)
	require.EqualValues(t, 4, r.add(span{4, 13}))
	require.Equal(t, spans{{4, 13}}, r)
	require.True(t, r.contains(12))
	require.False(t, r.contains(13))
	require.EqualValues(t, 3, r.passed(3))
	require.EqualValues(t, 13, r.passed(4))
	require.Empty(t, r)
}
