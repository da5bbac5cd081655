package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// harms are the kinds of holes in a segment: each changes the bytes of a record.
var harms = map[string]func(record []byte){
	"zeros":       func(record []byte) { clear(record) },
	"the head":    func(record []byte) { clear(record[:headSize]) },
	"the payload": func(record []byte) { record[headSize] ^= 1 },
	"the length":  func(record []byte) { record[4] ^= 1 },
}

// committed makes a log with one segment. commits are the numbers of records of its commits. harm damages the records
// with the numbers holes. The cursor says that the numbers below known were committed; with 0 there is no cursor.
func committed(t *testing.T, commits []int, known uint64, holes []uint64, harm func([]byte)) Config {
	t.Helper()
	cfg := testConfig(t)
	dir := filepath.Join(cfg.Dir, "topic")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	data := header(1)
	starts := []int{0}
	for _, records := range commits {
		begin := uint64(len(starts))
		for range records {
			seq := uint64(len(starts))
			starts = append(starts, len(data))
			data = appendRecord(data, seq, begin, []byte(value(int(seq-1))))
		}
	}
	starts = append(starts, len(data))
	for _, seq := range holes {
		harm(data[starts[seq]:starts[seq+1]])
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(1)), data, 0o600))
	if known > 0 {
		cursor := appendSlot(nil, checkpoint{cursor: 1, committed: known})
		require.NoError(t, os.WriteFile(filepath.Join(dir, cursorName), cursor, 0o600))
	}
	return cfg
}

// TestAHoleInTheLastCommitIsATornWriteAndAnyOtherIsDamage has commits with the records 1 to 3, 4 to 7 and 8 to 12.
func TestAHoleInTheLastCommitIsATornWriteAndAnyOtherIsDamage(t *testing.T) {
	for name, test := range map[string]struct {
		known   uint64
		holes   []uint64
		end     uint64 // the number behind the last record that Read returns
		corrupt uint64
	}{
		"in the last commit":                   {8, []uint64{9, 10}, 9, 0},
		"at its start":                         {8, []uint64{8}, 8, 0},
		"at its end":                           {8, []uint64{11, 12}, 11, 0},
		"all of it":                            {8, []uint64{8, 9, 10, 11, 12}, 8, 0},
		"several":                              {8, []uint64{9, 11}, 9, 0},
		"in the last commit, by an old cursor": {1, []uint64{9}, 9, 0},
		"in the last commit, which was committed":   {13, []uint64{9, 11}, 13, 2},
		"at the end of it, which was committed":     {13, []uint64{12}, 12, 1},
		"in a commit before":                        {1, []uint64{5}, 13, 1},
		"at the start of the first":                 {1, []uint64{1, 2}, 13, 2},
		"a whole commit before":                     {1, []uint64{4, 5, 6, 7}, 13, 4},
		"that swallows where the last commit began": {1, []uint64{7, 8}, 13, 2},
		"that swallows a commit and that":           {1, []uint64{3, 4, 5, 6, 7, 8, 9}, 13, 7},
		"before the last commit and in it":          {1, []uint64{5, 10}, 10, 1},
		"before it and over its start":              {1, []uint64{5, 7, 8, 11}, 11, 3},
		"in a commit that was committed for sure":   {8, []uint64{5, 10}, 10, 1},
		"in the last commit, without a cursor":      {0, []uint64{9}, 13, 1},
	} {
		for kind, harm := range harms {
			t.Run(name+", "+kind, func(t *testing.T) {
				cfg := committed(t, []int{3, 4, 5}, test.known, test.holes, harm)
				want := expected(1, test.end, test.holes...)
				s := openSpool(t, cfg)
				l := s.Log("topic")
				require.Equal(t, want, readAll(t, l, 200))
				require.Equal(t, test.corrupt, l.Stats().CorruptRecords)
				require.EqualValues(t, len(want), l.Stats().Records)
				stats := l.Stats()
				l.Rewind()
				require.Equal(t, want, readAll(t, l, 1000), "it is the same again")
				require.Equal(t, stats, l.Stats(), "and is counted once")
				next := appendAll(t, l, "new")
				want = append(want, got{next, "new"})
				require.NoError(t, s.Close())

				l = openSpool(t, cfg).Log("topic")
				require.Equal(t, want, readAll(t, l, 1000), "and with another segment behind it")
				if test.corrupt == 0 {
					requireNothingLost(t, l)
				}
				l.DoneRange(1, next+1)
				require.Zero(t, l.Stats().Records)
			})
		}
	}
}

func TestATornCommitToANewSegmentIsNoLoss(t *testing.T) {
	for kind, harm := range harms {
		for first := uint64(1); first <= 5; first++ {
			t.Run(kind, func(t *testing.T) {
				cfg := committed(t, []int{5}, 1, []uint64{first}, harm)
				l := openSpool(t, cfg).Log("topic")
				require.Equal(t, expected(1, first), append([]got(nil), readAll(t, l, 1000)...))
				requireNothingLost(t, l)
				require.Positive(t, l.Stats().TornBytes)
				require.Equal(t, first-1, l.Stats().Records)
				appendAll(t, l, "new")
				require.Len(t, readAll(t, l, 1000), 1)
				requireNothingLost(t, l)
			})
		}
	}
}

// TestAHoleThatAFailedCommitHasLeftIsNoLoss makes a commit fail whose bytes cannot be cut off, and then cuts the power.
func TestAHoleThatAFailedCommitHasLeftIsNoLoss(t *testing.T) {
	for _, behind := range []bool{true, false} { // whether another commit follows
		cfg := testConfig(t)
		disk := newFaulty()
		s, _ := observed(t, cfg, disk)
		l := s.Log("topic")
		appendAll(t, l, "a", "b")
		disk.set(func(op, _ string) error {
			if op == "sync" || op == "truncate" {
				return syscall.EIO
			}
			return nil
		})
		_, err := l.Append(t.Context(), payloads("failed", "failed", "failed"))
		require.ErrorIs(t, err, syscall.EIO)
		disk.set(nil)
		want := []got{{1, "a"}, {2, "b"}}
		if behind {
			appendAll(t, l, "c")
			want = append(want, got{3, "failed"}, got{5, "failed"}, got{6, "c"})
		} else {
			want = append(want, got{3, "failed"})
		}
		require.NoError(t, s.Close())
		path := segmentFiles(t, l)[0]
		flip(t, path, offsets(t, path)[3])

		s, _ = observed(t, cfg, disk)
		l = s.Log("topic")
		require.Equal(t, want, readAll(t, l, 1000), "what is whole may be read")
		requireNothingLost(t, l)
		torn := l.Stats().TornBytes
		require.Positive(t, torn)
		l.Rewind()
		readAll(t, l, 1000)
		require.Equal(t, torn, l.Stats().TornBytes, "it is counted once")
		require.EqualValues(t, len(want), l.Stats().Records)
		l.DoneRange(1, l.Stats().Next)
		require.Zero(t, l.Stats().Records)
		require.NoError(t, s.Close())
	}
}

// TestWhatAKilledProcessHasWrittenIsDurableOnceItIsTakenForCommitted kills the process in a commit to a new segment,
// before the content or the name of the segment is synced, and then cuts the power.
func TestWhatAKilledProcessHasWrittenIsDurableOnceItIsTakenForCommitted(t *testing.T) {
	for _, synced := range []bool{false, true} {
		p := newPowered(t)
		l := p.spool.Log("topic")
		appendAll(t, l, "a")
		require.NoError(t, p.spool.Close())
		f, err := p.disk.create(filepath.Join(l.dir, segmentName(2)))
		require.NoError(t, err)
		_, err = f.WriteAt(appendRecord(header(2), 2, 2, []byte("b")), 0)
		require.NoError(t, err)
		if synced {
			require.NoError(t, f.Sync())
		}
		require.NoError(t, f.Close())

		p.open()
		l = p.spool.Log("topic")
		require.True(t, l.save(true), "the cursor says that there are two records")
		p.fail(t.TempDir(), worst)
		l = p.spool.Log("topic")
		require.Equal(t, []got{{1, "a"}, {2, "b"}}, readAll(t, l, 1000), "synced: %v", synced)
		requireNothingLost(t, l)
	}
}

// TestAFailedCommitDoesNotComeBackBetweenLaterOnes makes a commit fail although its records are durable, and kills the
// process. The next process uses the numbers again when the power is cut, in its first commit and after the next start.
func TestAFailedCommitDoesNotComeBackBetweenLaterOnes(t *testing.T) {
	p := newPowered(t)
	l := p.spool.Log("topic")
	appendAll(t, l, "a")
	p.disk.fail = "behind"
	_, err := l.Append(t.Context(), payloads("failed"))
	require.Error(t, err)
	p.disk.fail = ""
	require.NoError(t, p.spool.Close())
	p.open()
	l = p.spool.Log("topic")
	require.EqualValues(t, 2, l.Stats().Next)
	require.NoError(t, p.spool.Close())
	torn, err := p.disk.create(filepath.Join(l.dir, segmentName(2)))
	require.NoError(t, err)
	require.NoError(t, torn.Close())
	created := worst
	created.created = func() bool { return true }
	p.fail(t.TempDir(), created)
	require.True(t, p.spool.Log("topic").save(true))
	kept := worst
	kept.removed = func(string) bool { return false }
	p.fail(t.TempDir(), kept)
	l = p.spool.Log("topic")
	require.Equal(t, []got{{1, "a"}}, readAll(t, l, 1000))
	requireNothingLost(t, l)
}

// TestWhatIsCutOffDoesNotComeBack cuts the power again in the first commit behind a torn one. Of that commit's segment
// a name and a length are left. The records that Open has cut off must not count as damage.
func TestWhatIsCutOffDoesNotComeBack(t *testing.T) {
	for _, hole := range []uint64{4, 5} { // without and with a record in the same commit before the hole
		cfg := committed(t, []int{3, 5}, 4, []uint64{hole}, harms["zeros"])
		p := &powered{t: t, cfg: cfg, disk: newVolatile(t, filepath.Dir(cfg.Dir))}
		p.open()
		t.Cleanup(func() { _ = p.spool.Close() })
		l := p.spool.Log("topic")
		require.Equal(t, expected(1, hole), readAll(t, l, 1000))
		f, err := p.disk.create(filepath.Join(l.dir, segmentName(hole)))
		require.NoError(t, err)
		_, err = f.WriteAt(make([]byte, 1000), 0)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		require.NoError(t, p.disk.syncDir(l.dir))
		require.NoError(t, f.Close())
		p.fail(t.TempDir(), worst)
		l = p.spool.Log("topic")
		require.Equal(t, expected(1, hole), readAll(t, l, 1000))
		requireNothingLost(t, l)
	}
}

func TestASegmentOfAnotherVersionIsKeptWithAllThatIsBehindIt(t *testing.T) {
	for _, version := range []byte{segmentVersion - 1, segmentVersion + 1} {
		for _, which := range []int{0, 1, -1} { // the first segment, another one, the last one
			cfg, files := kept(t, 60)
			path := files[(which+len(files))%len(files)]
			whole, err := os.ReadFile(path)
			require.NoError(t, err)
			other := bytes.Clone(whole)
			other[4] = version
			binary.LittleEndian.PutUint32(other[16:], crc32.Checksum(other[:16], castagnoli))
			require.NoError(t, os.WriteFile(path, other, 0o600))

			s := openSpool(t, cfg)
			l := s.Log("topic")
			var (
				chunk Chunk
				read  uint64
			)
			for err = nil; err == nil; err = l.Read(&chunk, 1000) {
				if n := len(chunk.Records); n > 0 {
					read = chunk.Records[n-1].Seq
				}
			}
			require.ErrorIs(t, err, errVersion)
			require.ErrorContains(t, err, path)
			require.Equal(t, firstOf(t, path)-1, read)
			for range patience + 1 {
				require.ErrorIs(t, l.Read(&chunk, 1000), errVersion, "it does not count as damage one day")
			}
			next := appendAll(t, l, "new")
			require.Greater(t, next, uint64(60))
			l.DoneRange(1, 3)
			requireNothingLost(t, l)
			require.NoError(t, s.Close())
			left, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, other, left)

			// The version that can read the segment finds every record.
			require.NoError(t, os.WriteFile(path, whole, 0o600))
			l = openSpool(t, cfg).Log("topic")
			require.Equal(t, append(expected(3, 61), got{next, "new"}), readAll(t, l, 1000))
			requireNothingLost(t, l)
			l.DoneRange(1, next+1)
			require.Zero(t, l.Stats().Records)
		}
	}
}

// TestASegmentThatAnotherFollowsIsCutOffNowhere has damage in the last commit of a segment, and a cursor that does not
// know of that commit. A torn segment follows, which was made after the commit was synced.
func TestASegmentThatAnotherFollowsIsCutOffNowhere(t *testing.T) {
	for _, torn := range [][]byte{nil, make([]byte, 1000), header(9), append(header(9), make([]byte, 1000)...)} {
		cfg := committed(t, []int{3, 5}, 4, []uint64{5}, harms["zeros"])
		path := filepath.Join(cfg.Dir, "topic", segmentName(9))
		require.NoError(t, os.WriteFile(path, torn, 0o600))
		l := openSpool(t, cfg).Log("topic")
		require.Equal(t, expected(1, 9, 5), readAll(t, l, 1000))
		require.EqualValues(t, 1, l.Stats().CorruptRecords)
		next := appendAll(t, l, "new")
		require.Equal(t, []got{{next, "new"}}, readAll(t, l, 1000))
		l.DoneRange(1, next+1)
		require.Zero(t, l.Stats().Records)
	}
}

func TestATornSegmentThatCannotBeRemovedIsNoDamage(t *testing.T) {
	for _, torn := range [][]byte{nil, make([]byte, 1000), append(header(4), make([]byte, 1000)...)} {
		cfg := committed(t, []int{3}, 4, nil, nil)
		path := filepath.Join(cfg.Dir, "topic", segmentName(4))
		require.NoError(t, os.WriteFile(path, torn, 0o600))
		disk := newFaulty()
		disk.failing("remove", segmentSuffix, syscall.EIO)
		s, _ := observed(t, cfg, disk)
		next := appendAll(t, s.Log("topic"), "new")
		require.EqualValues(t, 5, next, "the next segment has another name")
		require.NoError(t, s.Close())
		s, _ = observed(t, cfg, disk)
		l := s.Log("topic")
		require.Len(t, segmentFiles(t, l), 3)
		require.Equal(t, append(expected(1, 4), got{next, "new"}), readAll(t, l, 1000))
		requireNothingLost(t, l)
		l.DoneRange(1, next+1)
		require.Zero(t, l.Stats().Records)
	}
}

// TestATornSegmentThatComesBackIsNoLoss cuts the power in the first commits to two segments, one after the other. The
// name of the first of these segments comes back.
func TestATornSegmentThatComesBackIsNoLoss(t *testing.T) {
	for _, torn := range [][]byte{nil, make([]byte, 1000)} {
		for _, cursor := range []uint64{1, 4} {
			cfg := committed(t, []int{3}, 4, nil, nil)
			dir := filepath.Join(cfg.Dir, "topic")
			slot := appendSlot(nil, checkpoint{cursor: cursor, committed: 4})
			require.NoError(t, os.WriteFile(filepath.Join(dir, cursorName), slot, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(5)), torn, 0o600))
			whole := appendRecord(header(4), 6, 6, []byte(value(5)))
			require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(6)), whole, 0o600))
			l := openSpool(t, cfg).Log("topic")
			require.Equal(t, expected(cursor, 7, 4, 5), readAll(t, l, 1000))
			requireNothingLost(t, l)
			l.Done(6)
			l.DoneRange(1, 4)
			require.Zero(t, l.Stats().Records)
		}
	}
}
