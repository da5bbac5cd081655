package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/store"
)

// memoryFile is a file in memory.
type memoryFile struct{ bytes.Buffer }

func (*memoryFile) Sync() error  { return nil }
func (*memoryFile) Close() error { return nil }

// damaged returns a text as a script of damage leaves it: each step cuts, changes, repeats or swaps some bytes.
func damaged(text, script []byte) []byte {
	text = bytes.Clone(text)
	for ; len(script) >= 6 && len(text) > 0; script = script[6:] {
		at := int(binary.LittleEndian.Uint16(script[1:])) % len(text)
		with := int(binary.LittleEndian.Uint16(script[3:])) % len(text)
		from, to := min(at, with), max(at, with)
		switch script[0] % 5 {
		case 0:
			text = text[:at]
		case 1:
			text[at] ^= script[5] | 1
		case 2:
			text = append(text[:from:from], text[to:]...)
		case 3:
			text = append(text[:to:to], text[from:]...)
		case 4:
			clear(text[from:to])
		}
	}
	return text
}

// FuzzDamagedFrames: a file that was damaged has the first of its frames and no others.
func FuzzDamagedFrames(f *testing.F) {
	f.Add(3, []byte{})
	f.Add(5, []byte{1, 60, 0, 0, 0, 1})
	f.Add(5, []byte{3, 52, 0, 90, 0, 1})
	f.Add(9, []byte{2, 52, 0, 90, 0, 1, 0, 99, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, frames int, script []byte) {
		var file memoryFile
		w, err := newFrameFile(&file, header{kind: kindDigests, number: 7, a: 1, b: 2, c: 3})
		require.NoError(t, err)
		var written [][]byte
		for i := range max(0, min(frames, 50)) {
			payload := fmt.Append(nil, "payload ", i, " ", i*i)
			require.NoError(t, w.write(append(w.begin(), payload...)))
			written = append(written, payload)
		}
		require.EqualValues(t, file.Len(), w.size)
		r, err := newFrameReader(bytes.NewReader(damaged(file.Bytes(), script)))
		if err != nil {
			require.NotEmpty(t, script)
			return
		}
		require.Equal(t, header{kind: kindDigests, number: 7, a: 1, b: 2, c: 3}, r.header)
		read := 0
		for ; ; read++ {
			payload, err := r.next()
			if err != nil {
				break
			}
			require.Less(t, read, len(written))
			require.Equal(t, string(written[read]), string(payload))
		}
		if len(script) < 6 {
			require.Len(t, written, read)
		}
	})
}

// FuzzEntries: entries that nobody has written leave counters that are sound.
func FuzzEntries(f *testing.F) {
	end := time.Unix(1<<33, 0)
	valid := appendAccount(nil, "token", "quota", end, &account{
		node: "node", number: 7, granted: 9, returned: 2, held: 3, past: 4,
	})
	valid = appendQuota(valid, "token", "quota", end, -4)
	valid = appendRate(valid, "token", "rate", &rate{5, 6})
	f.Add(valid)
	f.Add(valid[:len(valid)-3])
	f.Add(appendAccount(nil, "", "q", end, &account{
		node: "n", number: maxUsed, granted: maxUsed, held: maxUsed, past: maxUsed,
	}))
	f.Add(appendAccount(nil, "", "q", end, &account{node: "n", number: 1 << 63}))
	f.Add(appendAccount(nil, "", "q", end, &account{node: "n", past: -1}))
	f.Add(appendAccount(nil, "", "q", end, &account{node: "n", past: maxUsed + 1}))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := newCounters(1 << 20)
		_ = c.apply(text)
		count := int64(0)
		for i := range c.shards {
			for _, known := range c.shards[i].tokens {
				for name, q := range known.quotas {
					require.NotEmpty(t, name)
					used, held := q.adjusted, int64(0)
					for _, a := range q.nodes {
						require.GreaterOrEqual(t, a.granted-a.returned, a.held)
						require.GreaterOrEqual(t, min(a.held, a.past), int64(0))
						require.LessOrEqual(t, max(a.number, uint64(a.past)), uint64(maxUsed))
						used, held = used+a.past+a.granted-a.returned, held+a.held
					}
					require.Equal(t, used, q.used)
					require.Equal(t, held, q.held)
					count++
				}
				count += int64(len(known.rates))
			}
		}
		require.Equal(t, count, c.count.Load())
		// What they say, they say again.
		var again []byte
		for i := range c.shards {
			again, _ = c.shards[i].encode(again, nil)
		}
		other := newCounters(1 << 20)
		require.NoError(t, other.apply(again))
		require.Equal(t, c.quotas(), other.quotas())
		require.Equal(t, c.count.Load(), other.count.Load())
	})
}

// quotas returns the counters of windows, by their tokens and names.
func (c *counters) quotas() map[[2]string]quota {
	all := map[[2]string]quota{}
	for i := range c.shards {
		for token, known := range c.shards[i].tokens {
			for name, q := range known.quotas {
				all[[2]string{token, name}] = *q
			}
		}
	}
	return all
}

// FuzzRecords: what is no file of records is refused, and what is one is written as it was read.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"version":1,"records":{"a":{"b":"c"},"d":{}}}`))
	f.Add([]byte(`{"version":1,"records":{"a":{"b":null}}}`))
	f.Add([]byte("{\"version\":1,\"records\":{\"\xff\":{\"b\":\"\\ud800\"}}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		byName, err := decodeRecords(text)
		if err != nil {
			return
		}
		for name, fields := range byName {
			require.NoError(t, checkRecord(name, fields))
			require.NotEmpty(t, fields)
		}
		s := New(roomy(t.TempDir(), nil), zap.NewNop(), tally.NoopScope)
		require.NoError(t, s.dir.take())
		defer func() { require.NoError(t, s.dir.release()) }()
		k, err := s.kind("project")
		require.NoError(t, err)
		require.NoError(t, s.saveRecords("project", k, byName))
		again, err := s.readRecords("records-project.json")
		require.NoError(t, err)
		require.Equal(t, byName, again)
	})
}

// FuzzDirectory: a store starts on whatever its files have become, and knows nothing that it did not know before.
func FuzzDirectory(f *testing.F) {
	base := f.TempDir()
	now := time.Now()
	c := &clock{now: now}
	s := New(roomy(base, c.Now), zap.NewNop(), tally.NoopScope)
	require.NoError(f, s.Start(context.Background()))
	known := randomDigests(20)
	s.Settle("token", 1, known[:10], time.Hour, nil)
	written(f, s)
	s.Settle("token", 1, known[10:], time.Hour, nil)
	for node := range 5 {
		draws := []store.QuotaDraw{{
			Counter: "quota", Node: fmt.Sprint("node-", node), Limit: 100, Need: 5,
			Start: now.Add(-1), End: now.Add(time.Hour),
		}}
		require.NoError(f, s.Take(context.Background(), "token", draws, nil))
	}
	for number := uint64(1); number <= 3; number++ {
		draws := []store.QuotaDraw{{
			Counter: "quota", Node: "node-0", Account: number, Limit: 100, Need: 5,
			Start: now.Add(-1), End: now.Add(time.Hour),
		}}
		require.NoError(f, s.Take(context.Background(), "token", draws, nil))
	}
	require.NoError(f, s.Put(context.Background(), "project", "a", nil, store.Fields{"a": "1"}))
	require.NoError(f, s.Stop(context.Background()))
	files := map[string][]byte{}
	entries, err := os.ReadDir(base)
	require.NoError(f, err)
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(base, entry.Name()))
		require.NoError(f, err)
		files[entry.Name()] = content
	}
	unknown := randomDigests(20)
	f.Add(byte(0), []byte{})
	f.Add(byte(1), []byte{1, 60, 0, 0, 0, 1})
	f.Add(byte(2), []byte{0, 90, 0, 0, 0, 1})
	f.Add(byte(3), []byte{3, 52, 0, 90, 0, 1})
	f.Fuzz(func(t *testing.T, which byte, script []byte) {
		dir := t.TempDir()
		for n, name := range slices.Sorted(maps.Keys(files)) {
			content := files[name]
			if which == 0 || int(which)%len(files) == n%len(files) {
				content = damaged(content, script)
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
		s := started(t, New(roomy(dir, c.Now), zap.NewNop(), tally.NoopScope))
		claims := make([]store.Claim, 20)
		require.NoError(t, s.Reserve(t.Context(), "token", 2, unknown, time.Minute, claims))
		for _, claim := range claims {
			require.Equal(t, store.Reserved, claim)
		}
		require.LessOrEqual(t, s.digests.size(), int64(20))
		usage, err := s.Usage(t.Context(), "token")
		require.NoError(t, err)
		require.LessOrEqual(t, usage["quota"].Used, int64(40))
		require.Zero(t, usage["quota"].Used%5)
		if len(script) < 6 {
			require.NoError(t, s.Reserve(t.Context(), "token", 2, known, time.Minute, claims))
			for _, claim := range claims {
				require.Equal(t, store.Done, claim)
			}
			require.EqualValues(t, 40, usage["quota"].Used)
		}
	})
}
