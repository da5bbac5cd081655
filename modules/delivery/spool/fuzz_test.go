package spool

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// unsynced is a disk whose syncs return at once.
type unsynced struct{ disk }

type unsyncedFile struct{ file }

func (unsyncedFile) Sync() error { return nil }

func (unsynced) syncDir(string) error { return nil }

func (unsynced) create(path string) (file, error) {
	f, err := disk{}.create(path)
	return unsyncedFile{f}, err
}

func (unsynced) edit(path string) (file, error) {
	f, err := disk{}.edit(path)
	return unsyncedFile{f}, err
}

// FuzzReader takes its input for a segment, once as the last segment of a log and once in the middle.
func FuzzReader(f *testing.F) {
	whole := header(1)
	for seq := uint64(1); seq < 5; seq++ {
		whole = appendRecord(whole, seq, min(seq, 3), bytes.Repeat([]byte{byte(seq)}, int(seq*seq)))
	}
	f.Add([]byte{})
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(whole[headerSize:])
	f.Add(append(bytes.Clone(whole), whole...))
	f.Add(hostile(6000))
	f.Add(appendRecord(header(1), maxSeq, maxSeq, nil))
	// The damaged record claims to end where the whole record in its payload ends.
	damaged := appendRecord(header(1), 1, 1, appendRecord(nil, 1, 1, []byte("whole")))
	damaged[headerSize+headSize-1] ^= 1
	f.Add(append(damaged, "rest"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if version, _, ok := decodeHeader(data); ok && version != segmentVersion {
			t.Skip("it is kept as it is")
		}
		cfg := testConfig(t)
		dir := filepath.Join(cfg.Dir, "topic")
		require.NoError(t, os.MkdirAll(dir, 0o700))
		const first = 1_000_000
		for name, content := range map[string][]byte{
			segmentName(1):     data,
			segmentName(first): appendRecord(header(first), first, first, []byte("last")),
		} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
		read := fuzzRead(t, cfg)
		require.Equal(t, got{first, "last"}, read[len(read)-1], "what is behind is read")
		require.LessOrEqual(t, len(read)-1, len(data)/headSize)

		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(1)), data, 0o600))
		// The last segment was cut behind its last record. Read believes a damaged record that claims to end at that
		// place, and looks for no record inside it. So Read may find less, and never finds anything else.
		alone := fuzzRead(t, cfg)
		require.LessOrEqual(t, len(alone), len(read)-1)
		if len(alone) > 0 {
			require.Subset(t, read[:len(read)-1], alone)
		}

		// With a cursor, Open cuts off holes in the last commit.
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(1)), data, 0o600))
		cursor := appendSlot(nil, checkpoint{cursor: 1, committed: 1})
		require.NoError(t, os.WriteFile(filepath.Join(dir, cursorName), cursor, 0o600))
		known := fuzzRead(t, cfg)
		if len(known) > 0 {
			require.Subset(t, read[:len(read)-1], known)
		}
	})
}

// fuzzRead reads all records, and then appends and reads one more.
func fuzzRead(t *testing.T, cfg Config) []got {
	s, err := open(cfg, zap.NewNop(), unsynced{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	l := s.Log("topic")
	all := readAll(t, l, 300)
	for i := 1; i < len(all); i++ {
		require.Greater(t, all[i].seq, all[i-1].seq)
	}
	seq := appendAll(t, l, "new")
	require.Equal(t, []got{{seq, "new"}}, readAll(t, l, 300))
	if len(all) > 0 {
		require.Greater(t, seq, all[len(all)-1].seq)
	}
	l.Rewind()
	require.Len(t, readAll(t, l, 1<<20), len(all)+1)
	require.EqualValues(t, len(all)+1, l.Stats().Records)
	return all
}

// FuzzCursor takes its input for a cursor file.
func FuzzCursor(f *testing.F) {
	slots := appendSlot(nil, checkpoint{cursor: 5, committed: 9})
	slots = append(slots, make([]byte, slotApart-slotSize)...)
	slots = appendSlot(slots, checkpoint{cursor: 6, committed: 9})
	f.Add([]byte{})
	f.Add(make([]byte, cursorSize))
	f.Add(slots)
	f.Add(slots[:slotApart+slotSize-1])
	f.Add(appendSlot(nil, checkpoint{cursor: maxStart + 1}))
	f.Add(appendSlot(nil, checkpoint{cursor: maxStart, committed: maxStart}))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, slot, ok := decodeCursor(data)
		if ok {
			require.Equal(t, data[slot*slotApart:][:16], appendSlot(nil, m)[:16])
		}
		cfg := testConfig(t)
		dir := filepath.Join(cfg.Dir, "topic")
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, cursorName), data, 0o600))
		segment := header(1)
		for seq := range uint64(10) {
			segment = appendRecord(segment, seq+1, seq+1, []byte(value(int(seq))))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(1)), segment, 0o600))
		s, err := open(cfg, zap.NewNop(), unsynced{})
		require.NoError(t, err)
		l := s.Log("topic")
		from := uint64(1)
		if ok {
			from = m.cursor
		}
		require.Equal(t, expected(min(from, 11), 11), readAll(t, l, 100))
		next := appendAll(t, l, "new")
		require.GreaterOrEqual(t, next, max(from, 11))
		l.DoneRange(1, next)
		require.Equal(t, next, l.Stats().First)
		require.NoError(t, s.Close())
		require.Equal(t, []got{{next, "new"}}, readAll(t, openSpool(t, cfg).Log("topic"), 100))
	})
}
