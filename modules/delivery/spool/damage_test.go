package spool

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// kept makes a log of so many records in segments of about 1000 bytes, and closes it.
func kept(t testing.TB, records int) (Config, []string) {
	t.Helper()
	cfg := testConfig(t)
	cfg.SegmentBytes = 1000
	s := openSpool(t, cfg)
	l := s.Log("topic")
	appendEach(t, l, 0, records)
	require.NoError(t, s.Close())
	return cfg, segmentFiles(t, l)
}

func firstOf(t testing.TB, path string) uint64 {
	t.Helper()
	first, ok := parseSegmentName(filepath.Base(path))
	require.True(t, ok)
	return first
}

func TestAFlippedBitCostsOneRecord(t *testing.T) {
	cfg, files := kept(t, 60)
	path := files[1]
	first := firstOf(t, path)
	records := offsets(t, path)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for off := int64(0); off < int64(len(whole)); off += 3 {
		flip(t, path, off)
		s, logs := observed(t, cfg, disk{})
		l := s.Log("topic")
		read := readAll(t, l, 700)
		stats := l.Stats()
		require.EqualValues(t, 1, stats.CorruptRegions, "offset %d", off)
		require.Zero(t, stats.TornBytes)
		require.Equal(t, 1, logs.FilterMessageSnippet("cannot be read and were skipped").Len())
		if off < headerSize {
			require.Equal(t, expected(1, 61), read)
			require.EqualValues(t, headerSize, stats.CorruptBytes)
		} else {
			i, exact := slices.BinarySearch(records, off)
			if !exact {
				i--
			}
			lost := first + uint64(i)
			require.Equal(t, expected(1, 61, lost), read, "offset %d", off)
			require.EqualValues(t, 1, stats.CorruptRecords)
			require.Equal(t, records[i+1]-records[i], stats.CorruptBytes)
			require.EqualValues(t, 59, stats.Records, "what is lost is done")
		}
		l.Rewind()
		require.Equal(t, read, readAll(t, l, 300), "it is the same again")
		require.Equal(t, stats, l.Stats(), "and is counted once")
		require.NoError(t, s.Close())
		require.NoError(t, os.WriteFile(path, whole, 0o600))
		require.NoError(t, os.Remove(s.Log("topic").cursorFile.path))
	}
}

// TestNoFlippedBitCostsAnotherRecord flips every bit of the heads of a segment. A changed length may then lead to the
// head of another record, or to the end of the segment.
func TestNoFlippedBitCostsAnotherRecord(t *testing.T) {
	cfg := testConfig(t)
	s := openSpool(t, cfg)
	l := s.Log("topic")
	const records, size = 12, 64 // so that each bit of a length stands for a number of records
	for range records {
		appendAll(t, l, strings.Repeat("x", size-headSize))
	}
	require.NoError(t, s.Close())
	path := segmentFiles(t, l)[0]
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	cursor, err := os.ReadFile(l.cursorFile.path)
	require.NoError(t, err)
	for i := range records {
		for off := range headSize {
			for bit := range 8 {
				at := headerSize + i*size + off
				overwrite(t, path, int64(at), 1, func(b byte) byte { return b ^ 1<<bit })
				s, _ := observed(t, cfg, unsynced{})
				l := s.Log("topic")
				read := readAll(t, l, 300)
				require.Len(t, read, records-1, "bit %d of byte %d of record %d", bit, off, i+1)
				for _, r := range read {
					require.NotEqual(t, uint64(i+1), r.seq)
				}
				require.EqualValues(t, 1, l.Stats().CorruptRecords)
				require.NoError(t, s.Close())
				require.NoError(t, os.WriteFile(path, whole, 0o600))
				require.NoError(t, os.WriteFile(l.cursorFile.path, cursor, 0o600))
			}
		}
	}
}

func TestRecordsThatFailedAreNoLossWhereTheSegmentBehindThemIsCutOff(t *testing.T) {
	for _, size := range []int64{headerSize, headerSize + headSize/2} {
		cfg := testConfig(t)
		disk := newFaulty()
		s, _ := observed(t, cfg, disk)
		l := s.Log("topic")
		appendAll(t, l, "a")
		disk.failing("sync", segmentSuffix, syscall.EIO)
		_, err := l.Append(t.Context(), payloads("failed", "failed"))
		require.ErrorIs(t, err, syscall.EIO)
		disk.set(nil)
		appendAll(t, l, "d")
		require.NoError(t, s.Close())
		require.NoError(t, os.Truncate(segmentFiles(t, l)[1], size))
		s, _ = observed(t, cfg, disk)
		l = s.Log("topic")
		require.Equal(t, []got{{1, "a"}}, readAll(t, l, 100))
		require.EqualValues(t, 1, l.Stats().CorruptRecords, "only the fourth was ever acknowledged")
		require.Equal(t, size-headerSize, l.Stats().CorruptBytes)
		require.EqualValues(t, 5, appendAll(t, l, "e"))
		require.Equal(t, []got{{5, "e"}}, readAll(t, l, 100))
	}
}

func TestADamagedRecordThatWasDeliveredIsNoLoss(t *testing.T) {
	cfg, files := kept(t, 60)
	s := openSpool(t, cfg)
	l := s.Log("topic")
	first := firstOf(t, files[1])
	l.Done(first + 1)
	records := offsets(t, files[1])
	flip(t, files[1], records[1]+headSize)
	require.Equal(t, expected(1, 61, first+1), readAll(t, l, 1000))
	require.Zero(t, l.Stats().CorruptRecords)
	require.EqualValues(t, 1, l.Stats().CorruptRegions)
}

func TestTheCursorPassesWhatIsLost(t *testing.T) {
	cfg, files := kept(t, 60)
	for _, path := range files[1:3] {
		overwrite(t, path, headerSize+5, 400, func(byte) byte { return 0 })
	}
	s := openSpool(t, cfg)
	l := s.Log("topic")
	for _, r := range readAll(t, l, 500) {
		l.Done(r.seq)
	}
	stats := l.Stats()
	require.EqualValues(t, 61, stats.First)
	require.Zero(t, stats.Records)
	require.EqualValues(t, 2, stats.CorruptRegions)
	require.NoError(t, s.Close())
	require.Empty(t, segmentFiles(t, l))
}

func TestAnOverwrittenRegionCostsWhatItTouches(t *testing.T) {
	cfg, files := kept(t, 60)
	path := files[1]
	first, records := firstOf(t, path), offsets(t, path)
	overwrite(t, path, records[2]+1, records[5]-records[2], func(byte) byte { return 0xff })
	l := openSpool(t, cfg).Log("topic")
	require.Equal(t, expected(1, 61, first+2, first+3, first+4, first+5), readAll(t, l, 100_000))
	require.EqualValues(t, 4, l.Stats().CorruptRecords)
	require.EqualValues(t, 1, l.Stats().CorruptRegions)
	require.Equal(t, records[6]-records[2], l.Stats().CorruptBytes)
}

func TestATruncatedOrMissingSegmentCostsWhatItHeld(t *testing.T) {
	cfg, files := kept(t, 100)
	second, third := firstOf(t, files[1]), firstOf(t, files[2])
	fourth, fifth := firstOf(t, files[3]), firstOf(t, files[4])
	records := offsets(t, files[1])
	require.NoError(t, os.Truncate(files[1], records[3]+7))
	require.NoError(t, os.Remove(files[3]))
	l := openSpool(t, cfg).Log("topic")
	var lost []uint64
	for seq := second + 3; seq < third; seq++ {
		lost = append(lost, seq)
	}
	for seq := fourth; seq < fifth; seq++ {
		lost = append(lost, seq)
	}
	require.Equal(t, expected(1, 101, lost...), readAll(t, l, 700))
	stats := l.Stats()
	require.EqualValues(t, len(lost), stats.CorruptRecords)
	require.EqualValues(t, 2, stats.CorruptRegions)
	require.EqualValues(t, 7, stats.CorruptBytes)
	require.EqualValues(t, 100-len(lost), stats.Records)
}

func TestSegmentsThatAreMissingAtTheBeginningOrTheEndAreLost(t *testing.T) {
	cfg, files := kept(t, 60)
	second, last := firstOf(t, files[1]), firstOf(t, files[len(files)-1])
	require.NoError(t, os.Remove(files[0]))
	require.NoError(t, os.Remove(files[len(files)-1]))
	s := openSpool(t, cfg)
	l := s.Log("topic")
	require.Equal(t, second-1, l.Stats().CorruptRecords, "that is known at once")
	require.Equal(t, expected(second, last), readAll(t, l, 700))
	require.Equal(t, second-1+61-last, l.Stats().CorruptRecords)
	require.EqualValues(t, 61, appendAll(t, l, value(60)), "numbers are not used again")
	require.Equal(t, expected(61, 62), readAll(t, l, 700))
	require.NoError(t, s.Close())

	for _, file := range segmentFiles(t, l) {
		require.NoError(t, os.Remove(file))
	}
	l = openSpool(t, cfg).Log("topic")
	require.Empty(t, readAll(t, l, 100))
	require.Zero(t, l.Stats().Records)
	require.EqualValues(t, 62, l.Stats().Next)
}

func TestASegmentThatGoesMissingWhileItIsNeededIsLost(t *testing.T) {
	cfg, files := kept(t, 60)
	l := openSpool(t, cfg).Log("topic")
	require.NoError(t, os.Remove(files[2]))
	third, fourth := firstOf(t, files[2]), firstOf(t, files[3])
	require.Equal(t, append(expected(1, third), expected(fourth, 61)...), readAll(t, l, 700))
	require.Equal(t, fourth-third, l.Stats().CorruptRecords)
}

func TestASegmentThatGoesMissingWhileItIsWrittenIsFollowedByAnother(t *testing.T) {
	l := openSpool(t, testConfig(t)).Log("topic")
	appendEach(t, l, 0, 5)
	require.NoError(t, os.Remove(segmentFiles(t, l)[0]))
	require.Empty(t, readAll(t, l, 700))
	require.EqualValues(t, 5, l.Stats().CorruptRecords)
	appendEach(t, l, 5, 9)
	require.Equal(t, expected(6, 10), readAll(t, l, 700))
	require.EqualValues(t, 5, l.Stats().CorruptRecords)
}

func TestATornTailIsCutOff(t *testing.T) {
	for _, torn := range []string{
		"\xde",
		"\xde\xc0\x7a\xda\x05\x00\x00\x00",
		strings.Repeat("\x00", 5000),
		string(appendRecord(nil, 61, 61, []byte("torn"))[:23]),
	} {
		cfg, files := kept(t, 60)
		path := files[len(files)-1]
		size := offsets(t, path)
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteString(torn)
		require.NoError(t, err)
		require.NoError(t, f.Close())

		l := openSpool(t, cfg).Log("topic")
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, size[len(size)-1], info.Size())
		require.EqualValues(t, 61, appendAll(t, l, value(60)))
		require.Equal(t, expected(1, 62), readAll(t, l, 700))
		require.Zero(t, l.Stats().CorruptRegions, "what was never acknowledged is no loss")
		require.EqualValues(t, len(torn), l.Stats().TornBytes)
	}
}

func TestATornTailThatCannotBeCutOffIsIgnored(t *testing.T) {
	cfg, files := kept(t, 60)
	path := files[len(files)-1]
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("torn")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	disk := newFaulty()
	disk.failing("truncate", segmentSuffix, syscall.EROFS)
	for range 2 {
		s, _ := observed(t, cfg, disk)
		l := s.Log("topic")
		require.Len(t, readAll(t, l, 700), int(l.Stats().Next)-1)
		appendAll(t, l, "more")
		require.Len(t, readAll(t, l, 700), 1)
		require.Zero(t, l.Stats().CorruptRegions)
		require.EqualValues(t, 4, l.Stats().TornBytes)
		require.NoError(t, s.Close())
	}
}

func TestDamageAtTheEndOfALogIsALossIfItWasAcknowledged(t *testing.T) {
	cfg, files := kept(t, 60)
	path := files[len(files)-1]
	records := offsets(t, path)
	flip(t, path, records[len(records)-2]+3)
	s := openSpool(t, cfg)
	l := s.Log("topic")
	require.Equal(t, expected(1, 60), readAll(t, l, 700))
	require.EqualValues(t, 1, l.Stats().CorruptRecords)
	require.Zero(t, l.Stats().TornBytes)
	require.EqualValues(t, 61, appendAll(t, l, value(60)))
	require.Equal(t, expected(61, 62), readAll(t, l, 700))
}

func TestACursorThatCannotBeReadStartsAtTheOldestSegment(t *testing.T) {
	cfg, files := kept(t, 60)
	s := openSpool(t, cfg)
	l := s.Log("topic")
	l.DoneRange(1, firstOf(t, files[2])+2)
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(l.cursorFile.path, []byte("nonsense"), 0o600))
	s, logs := observed(t, cfg, disk{})
	l = s.Log("topic")
	require.Equal(t, expected(firstOf(t, files[2]), 61), readAll(t, l, 700))
	require.Equal(t, 1, logs.FilterMessageSnippet("cursor of a log cannot be read").Len())
	require.EqualValues(t, 1, l.Stats().UnreadableCursors)
	require.Zero(t, l.Stats().CorruptRegions)
	l.DoneRange(1, 50)
	require.NoError(t, s.Close())
	require.Equal(t, expected(50, 61), readAll(t, openSpool(t, cfg).Log("topic"), 700))
}

func TestASlotThatCannotBeReadLeavesTheOther(t *testing.T) {
	for slot := range int64(2) {
		cfg, _ := kept(t, 60)
		s := openSpool(t, cfg)
		l := s.Log("topic")
		for seq := range uint64(20) {
			l.Done(seq)
		}
		require.NoError(t, s.Close())
		flip(t, l.cursorFile.path, slot*slotApart+2)
		first := openSpool(t, cfg).Log("topic").Stats().First
		require.Contains(t, []uint64{19, 20}, first)
	}
}

func TestALengthThatIsDamagedTakesNoMemory(t *testing.T) {
	cfg := testConfig(t)
	s := openSpool(t, cfg)
	appendAll(t, s.Log("topic"), "a", strings.Repeat("b", 20<<20), "c")
	require.NoError(t, s.Close())
	path := segmentFiles(t, s.Log("topic"))[0]
	overwrite(t, path, headerSize+4, 4, func(byte) byte { return 0 })
	overwrite(t, path, headerSize+6, 1, func(byte) byte { return 0x30 }) // 3 MiB, which the file is large enough for
	l := openSpool(t, cfg).Log("topic")
	var chunk Chunk
	require.NoError(t, l.Read(&chunk, 100))
	require.EqualValues(t, 2, chunk.Records[0].Seq)
	l.Rewind()
	chunk = Chunk{}
	overwrite(t, path, headerSize+2*headSize+1+5000, 1, func(byte) byte { return 0 })
	require.ErrorIs(t, l.Read(&chunk, 100), errUnstable, "it was another when it was looked at first")
	require.NoError(t, l.Read(&chunk, 100))
	require.EqualValues(t, 3, chunk.Records[0].Seq)
	require.LessOrEqual(t, cap(chunk.buf), windowSize)
}

func TestAPlaceThatCannotBeReadIsAnErrorAndThenDamage(t *testing.T) {
	cfg, files := kept(t, 60)
	path := files[1]
	records := offsets(t, path)
	first := firstOf(t, path)
	disk := newFaulty()
	s, _ := observed(t, cfg, disk)
	l := s.Log("topic")
	var chunk Chunk
	require.NoError(t, l.Read(&chunk, 1<<20))
	require.Len(t, chunk.Records, int(first)-1)
	disk.set(func(op, p string) error {
		if op == "read" && p == path {
			return badBlockError{records[3], records[3] + 10}
		}
		return nil
	})
	require.ErrorAs(t, l.Read(&chunk, 1<<20), &badBlockError{})
	disk.set(nil)
	require.NoError(t, l.Read(&chunk, 1), "it may be for once only")
	require.Equal(t, first, chunk.Records[0].Seq)
	disk.set(func(op, p string) error {
		if op == "read" && p == path {
			return badBlockError{records[3], records[3] + 10}
		}
		return nil
	})
	for range patience {
		require.ErrorAs(t, l.Read(&chunk, 1<<20), &badBlockError{})
	}
	var read []uint64
	for failures := 0; len(read) == 0 || read[len(read)-1] < 60; {
		if err := l.Read(&chunk, 1<<20); err != nil {
			failures++
			require.LessOrEqual(t, failures, patience)
		}
		for _, r := range chunk.Records {
			read = append(read, r.Seq)
		}
	}
	want := []uint64{first + 1, first + 2, firstOf(t, files[2])}
	require.Equal(t, want, read[:3], "what is before and behind is read")
	require.Equal(t, firstOf(t, files[2])-first-3, l.Stats().CorruptRecords)

	disk.failing("open", segmentSuffix, syscall.EMFILE)
	l.Rewind()
	l.closeReader()
	for range patience + 2 {
		require.ErrorIs(t, l.Read(&chunk, 100), syscall.EMFILE, "a file that cannot be opened is not given up")
	}
}

func TestALastSegmentThatCannotBeReadIsKept(t *testing.T) {
	for _, cursor := range []bool{true, false} {
		cfg, files := kept(t, 60)
		path := files[len(files)-1]
		oldest := uint64(1)
		if !cursor {
			oldest = firstOf(t, path)
			require.NoError(t, os.Remove(filepath.Join(filepath.Dir(path), cursorName)))
			for _, file := range files[:len(files)-1] {
				require.NoError(t, os.Remove(file))
			}
		}
		disk := newFaulty()
		disk.failing("open", path, syscall.EIO)
		s, _ := observed(t, cfg, disk)
		l := s.Log("topic")
		next := appendAll(t, l, "new")
		require.Greater(t, next, uint64(60))
		disk.set(nil)
		read := append(expected(oldest, 61), got{next, "new"})
		require.Equal(t, read, readAll(t, l, 1000))
		require.Zero(t, l.Stats().CorruptRegions)
		l.Rewind()
		require.Equal(t, read, readAll(t, l, 1000), "nothing of it is done")
		l.DoneRange(1, 61)
		require.Equal(t, next, l.Stats().First)
		require.EqualValues(t, 1, l.Stats().Records)
	}
}

// hostile returns a segment in which every place claims to be a long record, with a plausible head.
func hostile(size int) []byte {
	data := header(1)
	for seq := uint64(1); len(data) < size; seq++ {
		data = binary.LittleEndian.AppendUint32(data, recordMagic)
		data = binary.LittleEndian.AppendUint32(data, uint32(max(0, size-len(data)-4096)))
		data = binary.LittleEndian.AppendUint64(data, seq)
		data = binary.LittleEndian.AppendUint32(data, 0)
		data = binary.LittleEndian.AppendUint32(data, uint32(seq))
		if seq%2 == 0 {
			data = appendRecord(data, seq, seq, []byte("whole"))
		}
	}
	return data
}

func TestASearchThroughHostileContentIsNotQuadratic(t *testing.T) {
	cfg := testConfig(t)
	s := openSpool(t, cfg)
	l := s.Log("topic")
	appendAll(t, l, "a")
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(segmentFiles(t, l)[0], hostile(2<<20), 0o600))
	s = openSpool(t, cfg)
	read := readAll(t, s.Log("topic"), 1<<20)
	require.Greater(t, len(read), 10_000)
	for _, r := range read {
		require.Equal(t, "whole", r.value)
		require.Zero(t, r.seq%2)
	}
}

func TestTheChecksumOfAPartFollowsFromThoseOfPrefixes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data")
		at := rapid.IntRange(0, len(data)).Draw(t, "at")
		sum := crc32.Checksum(data[:at], castagnoli)
		rest := crc32.Checksum(data[at:], castagnoli)
		require.Equal(t, crc32.Checksum(data, castagnoli), advance(sum, int64(len(data)-at))^rest)
	})
	long := make([]byte, MaxPayload)
	require.Equal(t, crc32.Update(5, castagnoli, long), advance(5, MaxPayload)^crc32.Checksum(long, castagnoli))
}
