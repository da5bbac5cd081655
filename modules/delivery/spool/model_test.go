package spool

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"pgregory.net/rapid"
)

// model is the expected state of a log.
type model struct {
	cfg   Config
	disk  *faulty
	spool *Spool
	log   *Log
	chunk Chunk

	values map[uint64]string // the acknowledged records
	begins map[uint64]uint64 // the first record of each record's commit
	next   uint64
	done   map[uint64]bool
	lost   map[uint64]bool // the damaged records
	read   uint64          // the last record that this pass has read
	// vague is set when a header is lost: then nobody can tell the gap of a failed commit from a loss.
	failed, vague bool
}

// left returns the numbers that this pass has still to read.
func (m *model) left() []uint64 {
	var left []uint64
	for seq := m.read + 1; seq < m.next; seq++ {
		if _, ok := m.values[seq]; ok && !m.done[seq] && !m.lost[seq] {
			left = append(left, seq)
		}
	}
	return left
}

func (m *model) open(t require.TestingT) {
	s, err := open(m.cfg, zap.NewNop(), m.disk)
	require.NoError(t, err)
	s.failFast = 0
	m.spool, m.log, m.read = s, s.Log("topic"), 0
	m.rewound()
}

func (m *model) rewound() { m.read = m.log.Stats().First - 1 }

// reopen closes the log, changes its files, and opens it again. After that only the records before the cursor are done.
func (m *model) reopen(t require.TestingT, change func()) {
	require.NoError(t, m.spool.Close())
	change()
	m.open(t)
	first := m.log.Stats().First
	for seq := range m.done {
		if seq >= first {
			delete(m.done, seq)
		}
	}
	// The numbers of failed records may be used again after that, the numbers of acknowledged records never.
	acknowledged := uint64(0)
	for seq := range m.values {
		acknowledged = max(acknowledged, seq)
	}
	m.next = m.log.Stats().Next
	require.Greater(t, m.next, acknowledged)
}

func (m *model) append(t tester, values ...string) {
	require.Equal(t, m.next, appendAll(t, m.log, values...))
	m.acknowledged(values...)
}

// acknowledged notes the records of a commit that was acknowledged.
func (m *model) acknowledged(values ...string) {
	begin := m.next
	for _, value := range values {
		m.values[m.next], m.begins[m.next] = value, begin
		m.next++
	}
}

// readOn reads a chunk and reports whether it holds any record.
func (m *model) readOn(t require.TestingT, maxBytes int) bool {
	require.NoError(t, m.log.Read(&m.chunk, maxBytes))
	left := m.left()
	if len(left) == 0 {
		require.Empty(t, m.chunk.Records)
		return false
	}
	require.NotEmpty(t, m.chunk.Records)
	size := 0
	for i, r := range m.chunk.Records {
		require.Equal(t, left[i], r.Seq)
		require.Equal(t, m.values[r.Seq], string(r.Payload))
		size += headSize + len(r.Payload)
		m.read = r.Seq
	}
	require.True(t, size <= maxBytes || len(m.chunk.Records) == 1)
	return true
}

// extent is the place of a record.
type extent struct {
	seq      uint64
	from, to int64
}

// layout returns the places of a segment's records, as they were appended.
func (m *model) layout(t require.TestingT, path string) []extent {
	first, ok := parseSegmentName(filepath.Base(path))
	require.True(t, ok)
	var all []extent
	at := int64(headerSize)
	for seq := first; ; seq++ {
		value, ok := m.values[seq]
		if !ok || len(all) > 0 && m.exists(seq) {
			return all
		}
		all = append(all, extent{seq, at, at + headSize + int64(len(value))})
		at = all[len(all)-1].to
	}
}

// exists reports whether there is a segment that starts with this record.
func (m *model) exists(first uint64) bool {
	_, err := os.Stat(filepath.Join(m.cfg.Dir, "topic", segmentName(first)))
	return err == nil
}

// damaged notes which records are damaged in the rest of a segment that was changed from an offset on. A second change
// of the same byte may restore it. Then damaged does further harm, since the cursor may have passed the record.
func (m *model) damaged(extents []extent, data []byte, from int) {
	if from < headerSize && m.failed {
		m.vague = true
	}
	for _, e := range extents {
		whole := appendRecord(nil, e.seq, m.begins[e.seq], []byte(m.values[e.seq]))
		if int64(len(data)) < e.to || !bytes.Equal(data[e.from:e.to], whole) {
			m.lost[e.seq] = true
		} else if m.lost[e.seq] {
			data[e.from] ^= 0xff
		}
	}
}

func TestALogIsWhatItsModelIs(t *testing.T) {
	root, logs := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		logs++
		dir := filepath.Join(root, strconv.Itoa(logs))
		m := &model{
			cfg: Config{
				Dir: dir, MaxBytes: 1 << 30, MaxPending: 1 << 20,
				SegmentBytes: rapid.Int64Range(100, 3000).Draw(t, "segment"),
			},
			disk: newFaulty(), next: 1, values: map[uint64]string{}, begins: map[uint64]uint64{},
			done: map[uint64]bool{}, lost: map[uint64]bool{},
		}
		m.open(t)
		defer func() { _ = m.spool.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				values := rapid.SliceOfN(rapid.StringN(0, 120, 300), 1, 8).Draw(t, "values")
				m.append(t, values...)
			},
			"fail": func(t *rapid.T) {
				op := rapid.SampledFrom([]string{"sync", "write", "create"}).Draw(t, "op")
				m.disk.failing(op, segmentSuffix, syscall.EIO)
				_, err := m.log.Append(t.Context(), payloads("a", "b"))
				m.disk.set(nil)
				if err == nil {
					require.Equal(t, "create", op)
					m.acknowledged("a", "b")
				} else {
					m.failed = true
					m.next += 2
				}
			},
			"read": func(t *rapid.T) { m.readOn(t, rapid.IntRange(0, 1000).Draw(t, "bytes")) },
			"done": func(t *rapid.T) {
				from := rapid.Uint64Range(1, m.next).Draw(t, "from")
				for seq := from; seq < from+rapid.Uint64Range(1, 20).Draw(t, "n"); seq++ {
					if _, ok := m.values[seq]; ok {
						m.log.Done(seq)
						m.done[seq] = true
					}
				}
			},
			"done what was read": func(*rapid.T) {
				for seq := range m.values {
					if seq <= m.read {
						m.done[seq] = true
					}
				}
				m.log.DoneRange(1, m.read+1)
			},
			"rewind": func(*rapid.T) {
				m.log.Rewind()
				m.rewound()
			},
			"reopen": func(t *rapid.T) { m.reopen(t, func() {}) },
			"damage": func(t *rapid.T) {
				cursor := uint64(1)
				m.reopen(t, func() {
					if data, err := os.ReadFile(m.log.cursorFile.path); err == nil {
						saved, _, _ := decodeCursor(data)
						cursor = max(cursor, saved.cursor)
					}
					m.damage(t)
				})
				for m.readOn(t, 500) {
				}
				lost := uint64(0)
				for seq := range m.lost {
					if seq >= cursor {
						lost++
					}
				}
				if !m.vague {
					require.Equal(t, lost, m.log.Stats().CorruptRecords)
				}
			},
			"damage the cursor": func(t *rapid.T) {
				if len(m.lost) > 0 {
					return // an older cursor knows fewer committed records, and so hides other damage
				}
				m.reopen(t, func() {
					data, err := os.ReadFile(m.log.cursorFile.path)
					if err != nil {
						return
					}
					slot := rapid.IntRange(0, 1).Draw(t, "slot")
					data[slot*slotApart+rapid.IntRange(0, slotSize-1).Draw(t, "at")] ^= 1
					require.NoError(t, os.WriteFile(m.log.cursorFile.path, data, 0o600))
				})
				require.Zero(t, m.log.Stats().CorruptRecords)
				for range 2 { // so that both slots are written again
					m.append(t, "")
				}
			},
			"": func(t *rapid.T) {
				stats := m.log.Stats()
				require.Equal(t, m.next, stats.Next)
				for seq := range m.values {
					require.True(t, seq >= stats.First || m.done[seq] || m.lost[seq], "the cursor has passed %d", seq)
				}
				require.Equal(t, stats.Bytes, m.spool.Usage().Bytes)
			},
		})
		m.log.Rewind()
		m.rewound()
		for m.readOn(t, 1000) {
		}
		m.log.DoneRange(1, m.next)
		require.Equal(t, m.next, m.log.Stats().First)
		require.Zero(t, m.log.Stats().Records)
		require.NoError(t, m.spool.Close())
		files, err := filepath.Glob(filepath.Join(dir, "topic", "*"+segmentSuffix))
		require.NoError(t, err)
		require.Empty(t, files)
	})
}

// damage does harm to one of the segments.
func (m *model) damage(t *rapid.T) {
	files, err := filepath.Glob(filepath.Join(m.cfg.Dir, "topic", "*"+segmentSuffix))
	require.NoError(t, err)
	if len(files) == 0 {
		return
	}
	path := rapid.SampledFrom(files).Draw(t, "file")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	extents := m.layout(t, path)
	kind := rapid.SampledFrom([]string{"flip", "overwrite", "truncate", "remove"}).Draw(t, "kind")
	if kind == "remove" {
		m.damaged(extents, nil, 0)
		require.NoError(t, os.Remove(path))
		return
	}
	if len(data) == 0 {
		return
	}
	from := rapid.IntRange(0, len(data)-1).Draw(t, "from")
	to := from + 1
	switch kind {
	case "truncate":
		m.damaged(extents, data[:from], from)
		require.NoError(t, os.Truncate(path, int64(from)))
		return
	case "overwrite":
		to = min(len(data), from+rapid.IntRange(1, 500).Draw(t, "n"))
	}
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "noise"), 0))
	for i := range data[from:to] {
		data[from+i] ^= byte(1 + random.IntN(255))
	}
	m.damaged(extents, data, from)
	require.NoError(t, os.WriteFile(path, data, 0o600))
}
