package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/store"
)

// small is a store of a quarter of a megabyte, in memory, with a clock.
func small(t *testing.T) (*Store, *clock, tally.TestScope) {
	t.Helper()
	c, scope := &clock{now: time.Now()}, tally.NewTestScope("", nil)
	s := started(t, New(Config{Memory: 256 << 10, Counters: 64 << 10, Now: c.Now}, zap.NewNop(), scope))
	return s, c, scope
}

func claimOf(t *testing.T, s *Store, owner store.Owner, d store.Digest) store.Claim {
	t.Helper()
	claims := make([]store.Claim, 1)
	require.NoError(t, s.Reserve(t.Context(), "token", owner, []store.Digest{d}, time.Nanosecond, claims))
	s.Settle("token", owner, nil, 0, []store.Digest{d})
	return claims[0]
}

func doneCount(t *testing.T, s *Store, digests []store.Digest) (done int) {
	t.Helper()
	for _, d := range digests {
		if claimOf(t, s, 9, d) == store.Done {
			done++
		}
	}
	return done
}

func (d *digests) bytes() (bytes int64) {
	for i := range d.shards {
		d.shards[i].mu.Lock()
		bytes += int64(len(d.shards[i].tags)) * slotBytes
		d.shards[i].mu.Unlock()
	}
	return bytes
}

func TestAFullTableForgetsWhatIsOldest(t *testing.T) {
	s, c, scope := small(t)
	const total = 40_000
	all := randomDigests(total)
	for at := 0; at < total; at += 100 {
		c.pass(time.Millisecond)
		s.Settle("token", 1, all[at:at+100], time.Hour, nil)
		require.LessOrEqual(t, s.digests.bytes(), int64(256<<10))
	}
	size := s.digests.size()
	evicted := scope.Snapshot().Counters()["local_evicted_total+"].Value()
	require.EqualValues(t, total, size+evicted, "what is gone is counted")
	require.Greater(t, size, int64(8_000))
	// A sixteenth goes at a time, so what is there is nearly all that has room, and it is the newest.
	kept := all[total-int(size):]
	require.GreaterOrEqual(t, doneCount(t, s, kept), len(kept)*97/100)
	require.Zero(t, doneCount(t, s, all[:total-int(size)-2000]))
}

func TestABurstInATimeThatIsShortForgetsAPart(t *testing.T) {
	s, _, _ := small(t)
	all := randomDigests(20_000) // within one moment
	for at := 0; at < len(all); at += 250 {
		s.Settle("token", 1, all[at:at+250], time.Hour, nil)
		require.Positive(t, doneCount(t, s, all[at:at+250]))
	}
	require.Greater(t, s.digests.size(), int64(7_000))
	require.Greater(t, doneCount(t, s, all[16_000:]), 3_800)
}

func TestReservationsHaveABound(t *testing.T) {
	s, c, scope := small(t)
	limit := int(s.digests.maxWork)
	all := randomDigests(limit + 1)
	claims := make([]store.Claim, len(all))
	err := s.Reserve(t.Context(), "token", 1, all, time.Minute, claims)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "store.local.memory")
	require.EqualValues(t, 1, scope.Snapshot().Counters()["local_full_total+"].Value())
	require.NoError(t, s.Reserve(t.Context(), "token", 1, all[:1], time.Minute, claims[:1]), "what is there goes on")
	require.Equal(t, store.Reserved, claims[0])
	s.Settle("token", 1, all[:1], time.Hour, all[1:2])
	require.NoError(t, s.Reserve(t.Context(), "token", 2, all[limit-1:], time.Minute, claims[:2]))
	require.Equal(t, store.Busy, claims[0])
	require.Equal(t, store.Reserved, claims[1])
	c.pass(time.Minute)
	s.tidyOnce()
	require.Zero(t, s.digests.inWork.Load(), "those whose lease is over make room")
	require.NoError(t, s.Reserve(t.Context(), "token", 3, all[2:limit], time.Minute, claims[:limit-2]))
}

func TestCountersHaveABound(t *testing.T) {
	s, c, _ := small(t)
	draw := func(counter string) error {
		draws := []store.QuotaDraw{{
			Counter: counter, Node: "node", Limit: 5, Need: 1,
			Start: c.Now().Add(-time.Hour), End: c.Now().Add(time.Hour),
		}}
		return s.Take(t.Context(), "token", draws, nil)
	}
	count := 0
	var err error
	for ; err == nil; count++ {
		err = draw(strings.Repeat("x", count+1))
	}
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "store.local.counters")
	require.Equal(t, 64<<10/counterBytes, count-1)
	require.NoError(t, draw("x"), "what is there goes on")
	require.ErrorIs(t, s.Take(t.Context(), "other", nil, []store.RateDraw{{Counter: "r", Interval: 1, Burst: 1}}),
		store.ErrUnavailable)
	c.pass(time.Hour + grace)
	s.tidyOnce()
	require.Positive(t, s.counters.count.Load(), "the grace is not over")
	c.pass(time.Nanosecond)
	s.tidyOnce()
	require.Zero(t, s.counters.count.Load())
	rates := []store.RateDraw{{Counter: "r", Interval: 1, Burst: 1, Need: 1}}
	require.NoError(t, s.Take(t.Context(), "other", nil, rates))
	c.pass(time.Second)
	s.tidyOnce()
	require.Zero(t, s.counters.count.Load(), "a rate that is full need not be known")
	for i := range s.counters.shards {
		require.Empty(t, s.counters.shards[i].tokens)
	}
}

func TestRecordsHaveABound(t *testing.T) {
	s := started(t, New(roomy("", nil), zap.NewNop(), tally.NoopScope))
	k, err := s.kind("project")
	require.NoError(t, err)
	is := store.Fields{"a": "b"}
	k.byName = make(map[string]store.Fields, maxRecords)
	for i := range maxRecords {
		k.byName[strconv.Itoa(i)] = is
	}
	require.ErrorContains(t, s.Put(t.Context(), "project", "one more", nil, is), "one more is too many")
	require.NoError(t, s.Put(t.Context(), "project", "7", is, store.Fields{"a": "c"}), "a change takes no room")
	require.NoError(t, s.Put(t.Context(), "rule", "1", nil, is), "each kind has its own")
	require.NoError(t, s.Put(t.Context(), "project", "8", is, nil))
	require.NoError(t, s.Put(t.Context(), "project", "one more", nil, is), "one has left")
}

func TestALogThatIsLongBecomesASnapshot(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("x", maxName-3)
	draws := make([]store.QuotaDraw, maxDraws)
	taken := 0
	for written := 0; written <= logBytes; written += maxDraws * maxName {
		for i := range draws {
			draws[i] = store.QuotaDraw{
				Counter: fmt.Sprint(long, taken%100), Node: fmt.Sprint("node", taken), Limit: 1 << 30, Need: 1,
				Start: time.Unix(0, 0), End: f.clock.Now().Add(5000 * time.Hour),
			}
			taken++
		}
		require.NoError(t, f.Take(t.Context(), "token", draws, nil))
	}
	logs := func() []string {
		found, err := filepath.Glob(filepath.Join(f.dir, counterPrefix+"*"+logSuffix))
		require.NoError(t, err)
		return found
	}
	before := logs()
	require.Len(t, before, 1)
	f.tidied(t, func() bool { return len(logs()) == 1 && logs()[0] != before[0] })
	f.reopen(t)
	usage, err := f.Usage(t.Context(), "token")
	require.NoError(t, err)
	used := int64(0)
	for _, counter := range usage {
		used += counter.Used
	}
	require.EqualValues(t, taken, used)
}

func TestThePausesAfterFaultsGrowAndBeginAnew(t *testing.T) {
	var b backoff
	require.True(t, b.isTime(0))
	want := firstPause
	for range 20 {
		b.after(errFull, 0)
		require.False(t, b.isTime(int64(want)-1))
		require.True(t, b.isTime(int64(want)), "after %s", want)
		want = min(2*want, lastPause)
	}
	b.after(nil, 0)
	b.after(errFull, 0)
	require.True(t, b.isTime(int64(firstPause)))
}

func TestGenerationsComeAndGo(t *testing.T) {
	s, c, _ := small(t)
	const window = 16 * time.Minute
	type committed struct {
		digest store.Digest
		at     time.Time
	}
	var recent []committed
	for step := range 1500 { // some 30 windows
		c.pass(20 * time.Second)
		d := randomDigests(1)[0]
		s.Settle("token", 1, []store.Digest{d}, window, nil)
		recent = append(recent, committed{d, c.Now()})
		if step%10 == 0 {
			s.tidyOnce()
		}
		require.LessOrEqual(t, len(s.digests.generations()), perWindow+3)
		for len(recent) > 0 && c.Now().Sub(recent[0].at) > window+window/8 {
			require.Equal(t, store.Reserved, claimOf(t, s, 9, recent[0].digest))
			recent = recent[1:]
		}
		if step%100 == 0 {
			for _, one := range recent {
				if c.Now().Sub(one.at) < window {
					require.Equal(t, store.Done, claimOf(t, s, 9, one.digest))
				}
			}
		}
	}
	require.LessOrEqual(t, s.digests.size(), int64(60))
	require.Less(t, s.digests.bytes(), int64(64<<10), "the table has become small again")
}

func TestManyWindowsAtATimeShareTheTags(t *testing.T) {
	s, c, _ := small(t)
	all := randomDigests(1000)
	for i := range all {
		s.Settle("token", 1, all[i:i+1], time.Hour+time.Duration(i)*time.Second, nil)
		require.Equal(t, store.Done, claimOf(t, s, 9, all[i]))
	}
	require.LessOrEqual(t, len(s.digests.generations()), 255)
	require.GreaterOrEqual(t, doneCount(t, s, all), 255)
	c.pass(3 * time.Hour)
	require.Zero(t, doneCount(t, s, all))
}

func TestManyShortRunsMakeFewGenerations(t *testing.T) {
	f := newFixture(t)
	const window = time.Hour
	var all []store.Digest
	var at []time.Time
	for range 40 {
		f.clock.pass(3 * time.Minute)
		d := randomDigests(1)
		f.Settle("token", 1, d, window, nil)
		all, at = append(all, d[0]), append(at, f.clock.Now())
		written(t, f.Store)
		f.reopen(t)
		require.LessOrEqual(t, len(f.digests.generations()), 2*perWindow+2)
		for i := range all {
			switch age := f.clock.Now().Sub(at[i]); {
			case age < window:
				require.True(t, f.isDone(t, all[i]), age)
			case age > window+window/8:
				require.False(t, f.isDone(t, all[i]), age)
			}
		}
	}
	f.clock.pass(2 * window)
	f.tidyOnce()
	f.digestLog.tidy()
	files, err := filepath.Glob(filepath.Join(f.dir, digestPrefix+"*"))
	require.NoError(t, err)
	require.Empty(t, files, "the files go with their generations")
}

func TestAClockThatIsSetBackKeepsNothingForLonger(t *testing.T) {
	f := newFixture(t)
	d := randomDigests(1)
	f.Settle("token", 1, d, time.Hour, nil)
	rates := []store.RateDraw{{Counter: "rate", Interval: time.Second, Burst: 10, Need: 10}}
	require.NoError(t, f.Take(t.Context(), "token", nil, rates))
	written(t, f.Store)
	f.clock.pass(-48 * time.Hour)
	f.reopen(t)
	require.True(t, f.isDone(t, d[0]))
	require.NoError(t, f.Take(t.Context(), "token", nil, rates))
	require.Zero(t, rates[0].Given)
	require.Equal(t, 10*time.Second, rates[0].Wait, "not two days")
	f.clock.pass(10 * time.Second)
	require.NoError(t, f.Take(t.Context(), "token", nil, rates))
	require.EqualValues(t, 10, rates[0].Given)
	f.clock.pass(time.Hour + time.Hour/8)
	require.False(t, f.isDone(t, d[0]))
}

func TestAStartWithLessMemoryKeepsWhatIsNewest(t *testing.T) {
	f := newFixture(t)
	all := randomDigests(60_000)
	for at := 0; at < len(all); at += 1000 {
		f.clock.pass(time.Second)
		f.Settle("token", 1, all[at:at+1000], time.Hour, nil)
	}
	written(t, f.Store)
	f.digestLog.tidy()
	require.NoError(t, f.Stop(context.Background()))
	config := roomy(f.dir, f.clock.Now)
	config.Memory = 256 << 10
	s := started(t, New(config, zap.NewNop(), f.scope))
	require.LessOrEqual(t, s.digests.bytes(), int64(256<<10))
	require.Greater(t, s.digests.size(), int64(5_000))
	require.Equal(t, 2_000, doneCount(t, s, all[58_000:]))
	require.Zero(t, doneCount(t, s, all[:40_000]))
	size := int64(0)
	files, err := filepath.Glob(filepath.Join(f.dir, digestPrefix+"*"))
	require.NoError(t, err)
	for _, file := range files {
		info, err := os.Stat(file)
		require.NoError(t, err)
		size += info.Size()
	}
	require.Less(t, size, 2*s.digests.size()*keyBytes+1<<18, "what was forgotten is not on the disk either")
}

func TestWhatIsTooMuchForTheWriterIsWrittenAllTheSame(t *testing.T) {
	f := newFixture(t)
	all := randomDigests(maxPending + 1)
	f.Settle("token", 1, all, time.Hour, nil)
	require.Zero(t, f.digestLog.left())
	f.digestLog.tidy()
	f.reopen(t)
	require.Equal(t, len(all), doneCount(t, f.Store, all))
}

func TestDamageCostsWhatIsBehindItInItsFile(t *testing.T) {
	f := newFixture(t)
	before, behind, other := randomDigests(50), randomDigests(50), randomDigests(50)
	for _, part := range []struct {
		digests []store.Digest
		window  time.Duration
	}{{before, time.Hour}, {behind, time.Hour}, {other, 2 * time.Hour}} {
		f.Settle("token", 1, part.digests, part.window, nil)
		written(t, f.Store)
		f.draw(t, string(rune('a'+len(part.window.String()))), 5)
		f.draw(t, string(rune('x'+len(part.window.String()))), 5)
	}
	require.NoError(t, f.Stop(context.Background()))
	damage := func(name string, at int) {
		path := filepath.Join(f.dir, name)
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		content[at] ^= 0x10
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
	damage(digestName(1), headerBytes+frameBytes+50*keyBytes+frameBytes+3)
	f.open(t)
	require.Equal(t, 50, doneCount(t, f.Store, before))
	require.Zero(t, doneCount(t, f.Store, behind))
	require.Equal(t, 50, doneCount(t, f.Store, other))
	require.Len(t, f.logs.FilterMessageSnippet("a file of digests ends before its end").All(), 1)
	f.digestLog.tidy()
	f.reopen(t)
	require.Empty(t, f.logs.FilterMessageSnippet("ends before its end").All(), "it was written anew")
	require.Equal(t, 50, doneCount(t, f.Store, before))

	require.NoError(t, f.Stop(context.Background()))
	damage(digestName(f.digestLog.number), 20)
	f.open(t)
	require.Len(t, f.logs.FilterMessageSnippet("a file of digests cannot be used, and is removed").All(), 1)
}

func TestDigestsThatWereChosenDoNotMeet(t *testing.T) {
	s, _, _ := small(t)
	all := make([]store.Digest, 5_000)
	for i := range all { // such as uuids that count
		all[i][0], all[i][1] = byte(i), byte(i>>8)
	}
	s.Settle("token", 1, all, time.Hour, nil)
	longest := 0
	for i := range s.digests.shards {
		run := 0
		for _, tag := range s.digests.shards[i].tags {
			if run++; tag == 0 {
				run = 0
			}
			longest = max(longest, run)
		}
	}
	require.Less(t, longest, 300)
	require.Equal(t, len(all), doneCount(t, s, all))
}
