package local

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/opencapture/capture/modules/store"
)

func benchStore(b *testing.B, config Config) *Store {
	s := New(config, zap.NewNop(), tally.NoopScope)
	require.NoError(b, s.Start(context.Background()))
	b.Cleanup(func() { require.NoError(b, s.Stop(context.Background())) })
	return s
}

// cpu is the time that the process has had from the processors: unlike the clock, other processes do not change it.
func cpu(b *testing.B) time.Duration {
	var usage unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// report reports the time of the processors for each of so many digests or calls.
func report(b *testing.B, began time.Duration, count int, of string) {
	b.ReportMetric(float64(cpu(b)-began)/float64(count), "cpu-ns/"+of)
}

func randomDigests(n int) []store.Digest {
	all := make([]store.Digest, n)
	for i := range all {
		binary.LittleEndian.PutUint64(all[i][:], rand.Uint64())
		binary.LittleEndian.PutUint64(all[i][8:], rand.Uint64())
	}
	return all
}

// BenchmarkReserveAndSettle is the whole of deduplication for requests of so many new events, with a table that has a
// million and a disk.
func BenchmarkReserveAndSettle(b *testing.B) {
	for _, size := range []int{1, 50} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := benchStore(b, Config{Dir: b.TempDir(), Memory: 256 << 20, Counters: 1 << 20, Timeout: time.Second})
			fill := randomDigests(1_000_000)
			for at := 0; at < len(fill); at += 1000 {
				s.Settle("token", 1, fill[at:at+1000], time.Hour, nil)
			}
			written(b, s)
			digests, claims := randomDigests(size), make([]store.Claim, size)
			ctx := context.Background()
			b.ReportAllocs()
			b.ResetTimer()
			began := cpu(b)
			for n := range b.N {
				for i := range digests {
					binary.LittleEndian.PutUint64(digests[i][:], rand.Uint64())
				}
				if err := s.Reserve(ctx, "token", store.Owner(n), digests, time.Minute, claims); err != nil {
					b.Fatal(err)
				}
				s.Settle("token", store.Owner(n), digests, time.Hour, nil)
			}
			report(b, began, b.N*size, "digest")
		})
	}
}

// BenchmarkTake draws a unit of a quota and of a rate.
func BenchmarkTake(b *testing.B) {
	for _, dir := range []string{"", "disk"} {
		b.Run("dir="+dir, func(b *testing.B) {
			if dir != "" {
				dir = b.TempDir()
			}
			s := benchStore(b, Config{Dir: dir, Memory: 1 << 20, Counters: 16 << 20, Timeout: time.Second})
			tokens := make([]string, 1000)
			for i := range tokens {
				tokens[i] = fmt.Sprint("token-", i)
			}
			quotas := []store.QuotaDraw{{
				Counter: "quota:events:month:20261101", Node: "node", Start: s.Now().Add(-time.Hour),
				End: s.Now().Add(time.Hour), Limit: 1 << 40, Need: 1,
			}}
			rates := []store.RateDraw{{Counter: "rate:events", Interval: time.Microsecond, Burst: 1000, Need: 1}}
			ctx := context.Background()
			b.ReportAllocs()
			b.ResetTimer()
			began := cpu(b)
			for n := range b.N {
				quotas[0].Granted = int64(n / len(tokens))
				if err := s.Take(ctx, tokens[n%len(tokens)], quotas, rates); err != nil {
					b.Fatal(err)
				}
			}
			report(b, began, b.N, "call")
		})
	}
}

// manyDigests is how many digests the next two benchmarks keep. What they report for a digest is the same for ten
// million, which take so many times as long to make.
const manyDigests = 1_000_000

// BenchmarkMemory tells how much memory a digest takes, and BenchmarkStart how much longer a start takes for it.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		d := newDigests(1<<30, func(int64) {}, func(*generation) {})
		all := randomDigests(1000)
		runtime.GC()
		runtime.ReadMemStats(&before)
		const total = manyDigests
		began := cpu(b)
		for n := range total {
			i := n % len(all)
			binary.LittleEndian.PutUint64(all[i][:], rand.Uint64())
			d.commit(keyOf(key{}, &all[i]), 1, d.generation(0, time.Hour), 0)
		}
		report(b, began, total, "digest")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/total, "B/digest")
		runtime.KeepAlive(d)
	}
}

func BenchmarkStart(b *testing.B) {
	const total = manyDigests
	config := Config{Dir: b.TempDir(), Memory: 1 << 30, Counters: 1 << 20, Timeout: time.Second}
	s := New(config, zap.NewNop(), tally.NoopScope)
	require.NoError(b, s.Start(context.Background()))
	for range total / 10_000 {
		s.Settle("token", 1, randomDigests(10_000), time.Hour, nil)
		for s.digestLog.left() > maxPending/2 {
			time.Sleep(time.Millisecond)
		}
	}
	require.NoError(b, s.Stop(context.Background()))
	size := int64(0)
	entries, err := os.ReadDir(config.Dir)
	require.NoError(b, err)
	for _, entry := range entries {
		info, err := entry.Info()
		require.NoError(b, err)
		size += info.Size()
	}
	b.ResetTimer()
	took := time.Duration(0)
	for b.Loop() {
		began := cpu(b)
		s := New(config, zap.NewNop(), tally.NoopScope)
		require.NoError(b, s.Start(context.Background()))
		took += cpu(b) - began
		b.StopTimer()
		require.EqualValues(b, total, s.digests.size())
		require.NoError(b, s.Stop(context.Background()))
		b.StartTimer()
	}
	b.ReportMetric(float64(size)/total, "diskB/digest")
	b.ReportMetric(float64(took)/float64(b.N)/total, "cpu-ns/digest")
}
