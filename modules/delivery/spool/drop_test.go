package spool

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDropRemovesALogWithEverythingInIt(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 500
	s := openSpool(t, cfg)
	l := s.Log("topic")
	appendEach(t, l, 0, 60)
	appendAll(t, s.Log("other"), "stays")
	used := s.Usage().Bytes - l.Stats().Bytes
	l.DoneRange(1, 11)
	l.Done(20)
	require.Len(t, readAll(t, l, 100), 49)
	require.NoError(t, os.WriteFile(filepath.Join(l.dir, "notes"), nil, 0o600))

	records, err := s.Drop("topic")
	require.NoError(t, err)
	require.EqualValues(t, 49, records)
	require.NoDirExists(t, l.dir)
	require.Equal(t, used, s.Usage().Bytes)
	_, err = l.Append(t.Context(), payloads("late"))
	require.ErrorIs(t, err, ErrClosed)
	l.Done(30)
	require.NoDirExists(t, l.dir)

	require.EqualValues(t, 1, appendAll(t, s.Log("topic"), "new"), "the name can be used again")
	require.Equal(t, []got{{1, "stays"}}, readAll(t, s.Log("other"), 100))
	_, err = s.Drop("no such topic")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, s.Close())
	_, err = s.Drop("topic")
	require.ErrorIs(t, err, ErrClosed)
	require.Equal(t, []got{{1, "new"}}, readAll(t, openSpool(t, cfg).Log("topic"), 100))
}

func TestDropCountsWhatReadWouldHaveReturned(t *testing.T) {
	cfg := testConfig(t)
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	appendAll(t, l, "a", "b")
	disk.failing("sync", segmentSuffix, syscall.EIO)
	_, err := l.Append(t.Context(), payloads("failed", "failed"))
	require.Error(t, err)
	disk.set(nil)
	appendAll(t, l, "c")
	require.NoError(t, s.Close())
	s, _ = observed(t, cfg, disk)
	records, err := s.Drop("topic")
	require.NoError(t, err)
	require.EqualValues(t, 3, records)
}

func TestDropWaitsForTheCommitThatIsUnderWay(t *testing.T) {
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
	var all sync.WaitGroup
	all.Go(func() { appendAll(t, l, "a") })
	<-held
	all.Go(func() {
		records, err := s.Drop("topic")
		require.NoError(t, err)
		require.EqualValues(t, 1, records)
	})
	<-l.closing
	close(release)
	all.Wait()
	require.NoDirExists(t, l.dir)
}

func TestADropThatFailsBringsNothingBack(t *testing.T) {
	for _, op := range []string{"remove", "syncDir"} {
		cfg := testConfig(t)
		cfg.SegmentBytes = 500
		disk := newFaulty()
		s, _ := observed(t, cfg, disk)
		appendEach(t, s.Log("topic"), 0, 60)
		disk.failing(op, "", syscall.EIO)
		_, err := s.Drop("topic")
		require.ErrorIs(t, err, syscall.EIO)
		disk.set(nil)
		require.NoError(t, s.Close())
		l := openSpool(t, cfg).Log("topic")
		require.Empty(t, readAll(t, l, 100))
		requireNothingLost(t, l)
	}
}

func TestAPowerLossDuringADropBringsAllBackOrNothing(t *testing.T) {
	for _, what := range []fate{worst, unordered} {
		for crash := 0; dropWithPowerLoss(t, crash, what); crash++ {
			require.Less(t, crash, 1000)
		}
	}
}

// dropWithPowerLoss cuts the power before operation number crash of Drop, and reports whether Drop had so many.
func dropWithPowerLoss(t *testing.T, crash int, what fate) bool {
	p := newPowered(t)
	l := p.spool.Log("topic")
	appendEach(t, l, 0, 60)
	image := p.loseAt(crash, t.TempDir(), what, func() {})
	_, err := p.spool.Drop("topic")
	require.NoError(t, err)
	if !image() {
		return false
	}
	l = p.spool.Log("topic")
	if read := readAll(t, l, 1000); len(read) > 0 {
		require.Equal(t, expected(1, 61), read)
	}
	requireNothingLost(t, l)
	return true
}

// move moves the records of a log to another, as the command does.
func move(t tester, from, to *Log) {
	var chunk Chunk
	for {
		require.NoError(t, from.Read(&chunk, 100))
		if len(chunk.Records) == 0 {
			return
		}
		values := make([][]byte, len(chunk.Records))
		seqs := make([]uint64, len(chunk.Records))
		for i, r := range chunk.Records {
			values[i], seqs[i] = r.Payload, r.Seq
		}
		_, err := to.AppendExempt(t.Context(), values)
		require.NoError(t, err)
		from.Done(seqs...)
	}
}

func TestMovingALogToAnotherIsSafeAtEveryPowerLoss(t *testing.T) {
	for crash := 0; moveWithPowerLoss(t, crash); crash++ {
		require.Less(t, crash, 1000)
	}
}

// moveWithPowerLoss cuts the power before operation number crash of move, and reports whether move had so many.
func moveWithPowerLoss(t *testing.T, crash int) bool {
	p := newPowered(t)
	appendEach(t, p.spool.Log("from"), 0, 30)
	appendAll(t, p.spool.Log("to"), "there")
	image := p.loseAt(crash, t.TempDir(), worst, func() {})
	move(t, p.spool.Log("from"), p.spool.Log("to"))
	require.Zero(t, p.spool.Log("from").Stats().Records)
	if !image() {
		return false
	}
	// The operator runs the command again.
	move(t, p.spool.Log("from"), p.spool.Log("to"))
	moved := map[string]bool{}
	read := readAll(t, p.spool.Log("to"), 1000)
	for _, r := range read {
		moved[r.value] = true
	}
	require.NotEmpty(t, read)
	require.Equal(t, "there", read[0].value)
	for n := range 30 {
		require.True(t, moved[value(n)], "record %d is missing after a power loss at %d", n, crash)
	}
	requireNothingLost(t, p.spool.Log("from"))
	requireNothingLost(t, p.spool.Log("to"))
	return true
}
