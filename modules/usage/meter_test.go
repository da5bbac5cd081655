package usage

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/events"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func newTestMeter(t testing.TB, config Config) *Meter {
	t.Helper()
	require.NoError(t, config.Validate())
	return NewMeter(config, zap.NewNop(), tally.NoopScope)
}

// inMemoryOnly is a section without a directory.
func inMemoryOnly(tokens int) Config {
	config := DefaultConfig()
	config.Dir, config.MaxTokens = "", tokens
	return config
}

// batchOf returns a batch of the token with events that have ended as given.
func batchOf(token string, at time.Time, outcomes ...events.Outcome) *events.Batch {
	batch := &events.Batch{Token: token, Received: at}
	for _, outcome := range outcomes {
		batch.Events = append(batch.Events, events.Event{
			Name: "e", Raw: events.Raw{Properties: []byte(`{"a":1}`)}, Outcome: outcome,
		})
	}
	return batch
}

var accepted = events.Outcome{State: events.StateAccepted}

func (m *Meter) send(t testing.TB, batch *events.Batch) {
	t.Helper()
	settle, err := m.Process(t.Context(), batch)
	require.NoError(t, err)
	settle(t.Context(), batch)
}

func (m *Meter) rowsOf(t testing.TB, d day) []Row {
	t.Helper()
	rows, err := m.rows(d)
	require.NoError(t, err)
	for i := range rows {
		require.NoError(t, rows[i].check(d))
	}
	return rows
}

func received(rows []Row, of func(*Row) bool) (sum uint64) {
	for i := range rows {
		if of(&rows[i]) {
			sum += rows[i].Received
		}
	}
	return sum
}

func all(*Row) bool { return true }

func TestARowHasEveryWayToEnd(t *testing.T) {
	t.Parallel()
	m := newTestMeter(t, inMemoryOnly(10))
	m.send(t, batchOf("phc_a", noon,
		accepted,
		events.Outcome{State: events.StateAccepted, Reason: events.ReasonDuplicate},
		events.Outcome{State: events.StateDropped, Reason: events.ReasonQuota},
		events.Outcome{State: events.StateDropped, Reason: events.ReasonQuota},
		events.Outcome{State: events.StateDropped, Reason: events.ReasonRule},
		events.Outcome{State: events.StateRejected, Reason: events.ReasonInvalidUUID},
		events.Outcome{State: events.StateFailed, Reason: events.ReasonTimeout},
		events.Outcome{},
	))
	recording := batchOf("phc_a", noon.Add(time.Hour), accepted)
	recording.Events[0].Lane = events.LaneRecordings
	recording.Events[0].Recording = &events.Recording{
		Items: []events.Snapshot{{JSON: []byte(`{}`)}, {JSON: []byte(`[]`)}},
	}
	m.send(t, recording)
	m.send(t, batchOf("", noon, events.Outcome{State: events.StateRejected, Reason: events.ReasonMissingToken}))
	m.send(t, batchOf("phc_a", noon.Add(12*time.Hour), accepted))
	m.send(t, batchOf("phc_a", noon)) // without events

	require.Equal(t, []Row{{
		Day: "2026-11-30", Group: GroupNoToken, Resource: "events", Since: noon, Received: 1,
		Rejected: map[string]uint64{"missing_token": 1},
	}, {
		Day: "2026-11-30", Token: "phc_a", Resource: "events", Since: noon, Received: 8, Accepted: 2, Duplicates: 1,
		Dropped:  map[string]uint64{"quota": 2, "rule": 1},
		Rejected: map[string]uint64{"invalid_uuid": 1},
		Failed:   map[string]uint64{"sink_timeout": 1, "unsettled": 1},
		Bytes:    7,
	}, {
		Day: "2026-11-30", Token: "phc_a", Resource: "recordings", Since: noon, Received: 1, Accepted: 1, Bytes: 4,
	}}, m.rowsOf(t, dayOf(noon)))
	require.Equal(t, []Row{{
		Day: "2026-12-01", Token: "phc_a", Resource: "events", Since: noon.Add(12 * time.Hour), Received: 1,
		Accepted: 1, Bytes: 7,
	}}, m.rowsOf(t, dayOf(noon)+1))
	days, err := m.days()
	require.NoError(t, err)
	require.Equal(t, []day{dayOf(noon), dayOf(noon) + 1}, days)
}

func TestReasonsWithoutEndDoNotFillTheMemory(t *testing.T) {
	t.Parallel()
	m := newTestMeter(t, inMemoryOnly(1))
	for i := range 1000 {
		m.send(t, batchOf("phc_a", noon, events.Outcome{
			State: events.StateDropped, Reason: events.Reason(fmt.Sprint("module ", i)),
		}))
	}
	rows := m.rowsOf(t, dayOf(noon))
	require.Len(t, rows, 1)
	require.Len(t, rows[0].Dropped, maxEndings+1)
	require.Equal(t, uint64(1000-maxEndings), rows[0].Dropped[string(reasonFurther)])
}

func TestADayIsOneOfUTC(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2026-11-30T23:59:59.999Z":  "2026-11-30",
		"2026-12-01T00:00:00Z":      "2026-12-01",
		"2026-12-01T01:30:00+02:00": "2026-11-30",
		"1969-12-31T23:59:59Z":      "1969-12-31",
		"1970-01-01T00:00:00Z":      "1970-01-01",
	} {
		at, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		require.Equal(t, want, dayOf(at).String(), text)
		parsed, err := parseDay(want)
		require.NoError(t, err)
		require.Equal(t, dayOf(at), parsed)
	}
}

// A stranger can send any number of tokens, each of them once or twice.
func TestAFloodOfTokensPushesOutNobodyWhoSends(t *testing.T) {
	t.Parallel()
	m := newTestMeter(t, inMemoryOnly(100))
	random := rand.New(rand.NewPCG(1, 2))
	sent := uint64(0)
	send := func(token string, project *events.Project) {
		batch := batchOf(token, noon, accepted)
		batch.Project = project
		m.send(t, batch)
		sent++
	}
	for i := range 200 {
		send(fmt.Sprint("phc_real", i%20), nil)
	}
	for i := range 200_000 {
		stranger := fmt.Sprintf("phc_%d", random.Uint64())
		send(stranger, nil)
		if i%3 == 0 {
			send(stranger, nil)
		}
		switch {
		case i%100 == 0: // real projects, which nobody knows
			send(fmt.Sprint("phc_real", i/100%20), nil)
		case i > 100_000 && i%50 == 1: // one that begins in the middle of the flood
			send("phc_new", nil)
		case i == 150_002: // a project that has been set up, and sends once
			send("phc_known", &events.Project{})
		}
	}
	rows := m.rowsOf(t, dayOf(noon))
	require.LessOrEqual(t, len(rows), 101)
	require.Equal(t, sent, received(rows, all), "whoever loses a row, the sums are true")
	require.Equal(t, uint64(1), received(rows, func(r *Row) bool { return r.Token == "phc_known" }))
	for i := range 20 {
		token := fmt.Sprint("phc_real", i)
		require.Equal(t, uint64(110), received(rows, func(r *Row) bool { return r.Token == token }), token)
	}
	require.Greater(t, received(rows, func(r *Row) bool { return r.Token == "phc_new" }), uint64(1900), "of 2000")
}

func TestProjectsThatAreKnownGoBeforeStrangersAndAmongThemselvesByWorth(t *testing.T) {
	t.Parallel()
	m := newTestMeter(t, inMemoryOnly(2))
	known := func(token string, times int) {
		for range times {
			batch := batchOf(token, noon, accepted)
			batch.Project = &events.Project{}
			m.send(t, batch)
		}
	}
	tokens := func() (tokens []string) {
		for _, row := range m.rowsOf(t, dayOf(noon)) {
			tokens = append(tokens, row.Token+row.Group)
		}
		return tokens
	}
	for range 50 {
		m.send(t, batchOf("phc_stranger", noon, accepted))
	}
	known("phc_a", 5)
	known("phc_b", 1)
	require.Equal(t, []string{GroupOthers, "phc_a", "phc_b"}, tokens(), "the stranger has left")
	for range 50 {
		m.send(t, batchOf("phc_stranger", noon, accepted))
	}
	require.Equal(t, []string{GroupOthers, "phc_a", "phc_b"}, tokens(), "and does not come back")
	known("phc_c", 2)
	require.Equal(t, []string{GroupOthers, "phc_a", "phc_c"}, tokens())
	require.Equal(t, uint64(108), received(m.rowsOf(t, dayOf(noon)), all))
}

func TestATokenIsWorthWhatItHasSentLately(t *testing.T) {
	t.Parallel()
	m := newTestMeter(t, inMemoryOnly(2))
	known := &events.Project{}
	send := func(token string, at time.Time, project *events.Project, times int) {
		for range times {
			batch := batchOf(token, at, accepted)
			batch.Project = project
			m.send(t, batch)
		}
	}
	tokens := func() (tokens []string) {
		for _, row := range m.rowsOf(t, dayOf(noon)) {
			tokens = append(tokens, row.Token+row.Group)
		}
		return tokens
	}
	hourAgo := noon.Add(-time.Hour)
	send("phc_a", hourAgo, nil, 1)
	send("phc_b", hourAgo, nil, 1)
	send("phc_c", noon, nil, 1)
	require.Equal(t, []string{GroupOthers, "phc_a", "phc_b"}, tokens(), "as much is not more")
	require.Equal(t, noon, m.rowsOf(t, dayOf(noon))[0].Since)
	send("phc_c", noon, nil, 1)
	rows := m.rowsOf(t, dayOf(noon))
	require.Equal(t, "phc_c", rows[2].Token, "%v", rows)
	require.Equal(t, uint64(2), rows[0].Received, "the one that has left, and the first of the newcomer")
	require.Equal(t, hourAgo, rows[0].Since, "the others have what the one that has left has sent")

	// A token whose project is set up after its first events is no stranger any more, however little it has sent.
	kept := rows[1].Token
	send("phc_c", noon, nil, 5)
	send(kept, noon, known, 1)
	send("phc_d", noon, known, 1)
	require.Equal(t, []string{GroupOthers, kept, "phc_d"}, tokens())
}

func TestWhatATokenIsWorthIsHalvedEachDay(t *testing.T) {
	t.Parallel()
	m := newTestMeter(t, inMemoryOnly(10))
	for range 8 {
		m.send(t, batchOf("phc_a", noon, accepted))
	}
	m.send(t, batchOf("phc_a", noon.Add(24*time.Hour), accepted))
	require.Equal(t, uint32(9), m.shards[0].entries["phc_a"].requests)
	m.closed(dayOf(noon))
	require.Equal(t, uint32(4), m.shards[0].entries["phc_a"].requests)
	m.closed(dayOf(noon) + 1)
	require.Empty(t, m.shards[0].entries, "without counts there is no entry")
}

func TestRowsOfOneGroupAreJoined(t *testing.T) {
	t.Parallel()
	row := func(since time.Time, n uint64) Row {
		return Row{
			Day: "2026-11-30", Group: GroupOthers, Resource: "events", Since: since, Received: 3 * n, Accepted: n,
			Duplicates: n, Dropped: map[string]uint64{"quota": n}, Failed: map[string]uint64{"sink_timeout": n},
			Bytes: n,
		}
	}
	for _, rows := range [][]Row{
		{row(noon, 1), row(noon.Add(time.Hour), 2)}, {row(noon.Add(time.Hour), 2), row(noon, 1)},
	} {
		require.Equal(t, []Row{row(noon, 3)}, sorted(rows), "since the earlier time")
	}
}

func TestTheMetricsTellWhoHasARow(t *testing.T) {
	t.Parallel()
	scope := tally.NewTestScope("", nil)
	m := NewMeter(inMemoryOnly(2), zap.NewNop(), scope)
	for _, token := range []string{"phc_a", "phc_a", "phc_b", "phc_b", "phc_c", "phc_d", ""} {
		m.send(t, batchOf(token, noon, accepted))
	}
	for range 2 {
		m.save(noon)
		snapshot := scope.Snapshot()
		require.InDelta(t, 2, snapshot.Gauges()["tokens+"].Value(), 0)
		require.Equal(t, int64(2), snapshot.Counters()["others_total+"].Value(), "each request is counted once")
	}
}

func TestWithoutADirectoryTodayAndYesterdayAreKept(t *testing.T) {
	t.Parallel()
	m := newTestMeter(t, inMemoryOnly(10))
	for days := range 8 {
		m.send(t, batchOf("phc_a", noon.AddDate(0, 0, days-4), accepted))
	}
	m.save(noon)
	days, err := m.days()
	require.NoError(t, err)
	today := dayOf(noon)
	require.Equal(t, []day{today - 1, today, today + 1}, days, "and tomorrow, for a clock that was set back")
}

func TestConcurrentBatchesAreCountedExactlyAndEveryReadAddsUp(t *testing.T) {
	t.Parallel()
	config := DefaultConfig()
	config.Dir, config.MaxTokens = t.TempDir(), 200
	m := newTestMeter(t, config)
	require.NoError(t, m.Start(t.Context()))
	now := time.Now()
	outcomes := []events.Outcome{
		accepted, {State: events.StateAccepted, Reason: events.ReasonDuplicate},
		{State: events.StateDropped, Reason: events.ReasonRule},
		{State: events.StateRejected, Reason: events.ReasonTooLarge},
		{State: events.StateFailed, Reason: events.ReasonUnavailable}, {},
	}
	ledger := events.NewLedger()
	var senders, readers sync.WaitGroup
	done := make(chan struct{})
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			for _, d := range []day{dayOf(now), dayOf(now) + 1} {
				rows, err := m.rows(d)
				if err != nil {
					t.Error(err)
				}
				for i := range rows {
					if err := rows[i].check(d); err != nil {
						t.Error(err)
					}
				}
			}
			m.save(now)
		}
	})
	for worker := range uint64(8) {
		senders.Go(func() {
			random := rand.New(rand.NewPCG(worker, 1))
			for range 2000 {
				batch := batchOf(fmt.Sprint("phc_", random.IntN(400)), now.AddDate(0, 0, random.IntN(2)))
				for range random.IntN(8) {
					batch.Events = append(batch.Events, events.Event{
						Outcome: outcomes[random.IntN(len(outcomes))], Lane: events.Lanes()[random.IntN(8)],
					})
				}
				ledger.Enter(batch)
				m.count(context.Background(), batch)
			}
		})
	}
	senders.Wait()
	close(done)
	readers.Wait()
	totals := events.Totals{
		Dropped: map[events.Reason]uint64{}, Rejected: map[events.Reason]uint64{}, Failed: map[events.Reason]uint64{},
	}
	for _, d := range []day{dayOf(now), dayOf(now) + 1} {
		for _, row := range m.rowsOf(t, d) {
			totals.Received += row.Received
			totals.Accepted += row.Accepted
			totals.Duplicates += row.Duplicates
			for into, from := range map[*map[events.Reason]uint64]map[string]uint64{
				&totals.Dropped: row.Dropped, &totals.Rejected: row.Rejected, &totals.Failed: row.Failed,
			} {
				for reason, n := range from {
					(*into)[events.Reason(reason)] += n
				}
			}
		}
	}
	require.Equal(t, ledger.Snapshot(), totals)
	require.NoError(t, m.Stop(t.Context()))
}

func TestARestartLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := DefaultConfig()
		config.Dir, config.MaxTokens, config.Days = filepath.Join(t.TempDir(), "usage"), 3, 2
		start := func() *Meter {
			m := newTestMeter(t, config)
			require.NoError(t, m.Start(t.Context()))
			return m
		}
		all := func(m *Meter) (rows []Row) {
			days, err := m.days()
			require.NoError(t, err)
			for _, d := range days {
				rows = append(rows, m.rowsOf(t, d)...)
			}
			return rows
		}
		m := start()
		quota := events.Outcome{State: events.StateDropped, Reason: events.ReasonQuota}
		for _, token := range []string{"phc_a", "phc_a", "phc_b{\n\"*", "phc_c", "phc_c", "phc_d", ""} {
			m.send(t, batchOf(token, time.Now(), accepted, quota))
		}
		before := all(m)
		require.Len(t, before, 5, "a, b, c, others, without a token: %v", before)
		require.NoError(t, m.Stop(t.Context()))
		m = start()
		require.Equal(t, before, all(m))

		// A day that is over leaves memory, and stays on the disk.
		today := dayOf(time.Now())
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		days, _ := m.open()
		require.Empty(t, days)
		require.Empty(t, m.shards[0].entries)
		require.Equal(t, before, all(m))
		// What ends later than that is added.
		m.send(t, batchOf("phc_a", today.begin(), accepted))
		require.Equal(t, uint64(5), received(m.rowsOf(t, today), func(r *Row) bool { return r.Token == "phc_a" }))
		m.send(t, batchOf("phc_a", time.Now(), accepted))
		require.NoError(t, m.Stop(t.Context()))
		m = start()
		require.Equal(t, uint64(5), received(m.rowsOf(t, today), func(r *Row) bool { return r.Token == "phc_a" }))

		// The oldest days leave.
		time.Sleep(24 * time.Hour)
		m.send(t, batchOf("phc_a", time.Now(), accepted))
		require.NoError(t, m.Stop(t.Context()))
		m = start()
		days, err := m.days()
		require.NoError(t, err)
		require.Equal(t, []day{today + 1, today + 2}, days)
		require.NoError(t, m.Stop(t.Context()))
	})
}

func TestAKillLosesWhatWasCountedSinceTheLastSave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := DefaultConfig()
		config.Dir = t.TempDir()
		m := newTestMeter(t, config)
		require.NoError(t, m.Start(t.Context()))
		m.send(t, batchOf("phc_a", time.Now(), accepted))
		time.Sleep(config.SaveEvery + time.Second)
		m.send(t, batchOf("phc_a", time.Now(), accepted))
		m.cancel() // as a kill ends the process, without a last save
		m.work.Wait()
		require.NoError(t, m.files.close())
		m = newTestMeter(t, config)
		require.NoError(t, m.Start(t.Context()))
		require.Equal(t, uint64(1), received(m.rowsOf(t, dayOf(time.Now())), func(*Row) bool { return true }))
		require.NoError(t, m.Stop(t.Context()))
	})
}

func TestEverySaveHasWhatWasCountedSinceTheOneBefore(t *testing.T) {
	t.Parallel()
	config := DefaultConfig()
	config.Dir = t.TempDir()
	m := newTestMeter(t, config)
	require.NoError(t, m.Start(t.Context()))
	now := time.Now()
	for n := range uint64(3) {
		m.send(t, batchOf("phc_a", now, accepted))
		m.save(now)
		rows, err := m.files.read(dayOf(now))
		require.NoError(t, err)
		require.Equal(t, n+1, received(rows, all))
	}
	require.NoError(t, m.Stop(t.Context()))
}

func TestAWriteThatWasCutOffIsNoHindrance(t *testing.T) {
	t.Parallel()
	f, err := openFiles(t.TempDir())
	require.NoError(t, err)
	d, rows := dayOf(noon), []Row{{Day: "2026-11-30", Token: "phc_a", Resource: "events", Since: noon}}
	temporary := f.path(d) + ".new"
	require.NoError(t, os.WriteFile(temporary, bytes.Repeat([]byte("cut off"), 1000), 0o600))
	require.NoError(t, f.write(d, rows))
	got, err := f.read(d)
	require.NoError(t, err)
	require.Equal(t, rows, got)
	require.NoFileExists(t, temporary)

	require.NoError(t, os.MkdirAll(filepath.Join(f.path(d+1), "in the way"), 0o700))
	require.Error(t, f.write(d+1, rows))
	require.NoFileExists(t, f.path(d+1)+".new", "it takes no place on a disk that may be full")
	require.NoError(t, f.close())
}

func TestAClockThatIsWrongForAWhileCostsNothing(t *testing.T) {
	t.Parallel()
	config := DefaultConfig()
	config.Dir, config.Days = t.TempDir(), 3
	m := newTestMeter(t, config)
	require.NoError(t, m.Start(t.Context()))
	now := time.Now()
	for _, at := range []time.Time{now, now.AddDate(10, 0, 0), now.AddDate(-10, 0, 0), {}} {
		m.send(t, batchOf("phc_a", at, accepted))
		m.save(at)
		m.save(now)
	}
	require.Equal(t, uint64(2), received(m.rowsOf(t, dayOf(now)), all), "and a batch without a time is of today")
	days, err := m.days()
	require.NoError(t, err)
	require.Len(t, days, 3)
	open, _ := m.open()
	require.Empty(t, open)
	require.NoError(t, m.Stop(t.Context()))
}

// The first events of a day may come while a save reads what the disk has of other days.
func TestADayThatBeginsDuringASaveIsCountedOnce(t *testing.T) {
	t.Parallel()
	config := DefaultConfig()
	config.Dir = t.TempDir()
	m := newTestMeter(t, config)
	require.NoError(t, m.Start(t.Context()))
	now := time.Now()
	past, slow := now.AddDate(0, 0, -3), now.AddDate(0, 0, -2)
	m.send(t, batchOf("phc_a", past, accepted))
	m.save(now)
	open, _ := m.open()
	require.Empty(t, open, "the day is on the disk alone")

	m.send(t, batchOf("phc_a", slow, accepted))
	require.NoError(t, syscall.Mkfifo(m.files.path(dayOf(slow)), 0o600))
	saved := make(chan struct{})
	go func() {
		defer close(saved)
		m.save(now)
	}()
	// It opens as soon as the save reads the day, which then waits for what is written here.
	file, err := os.OpenFile(m.files.path(dayOf(slow)), os.O_WRONLY, 0)
	require.NoError(t, err)
	m.send(t, batchOf("phc_a", past, accepted))
	_, err = fmt.Fprintf(file, `{"format":1,"day":%q}`, dayOf(slow))
	require.NoError(t, err)
	require.NoError(t, file.Close())
	<-saved
	for range 2 {
		require.Equal(t, uint64(2), received(m.rowsOf(t, dayOf(past)), all))
		m.save(now)
	}
	require.Equal(t, uint64(1), received(m.rowsOf(t, dayOf(slow)), all))
	require.NoError(t, m.Stop(t.Context()))
}

func TestADirectoryThatCannotBeUsedIsToldAndCountingGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	used := filepath.Join(dir, "used")
	first, err := openFiles(used)
	require.NoError(t, err)
	for path, why := range map[string]string{
		open: "all users of this machine can write", filepath.Join(file, "below"): "not a directory",
		used: errInUse.Error(),
	} {
		core, logs := observer.New(zap.InfoLevel)
		scope := tally.NewTestScope("", nil)
		config := DefaultConfig()
		config.Dir = path
		m := NewMeter(config, zap.New(core), scope)
		require.NoError(t, m.Start(t.Context()))
		require.Equal(t, 1, logs.Len())
		require.Contains(t, logs.All()[0].Message, "usage.dir cannot be used")
		require.Contains(t, logs.All()[0].ContextMap()["error"], why)
		require.Equal(t, int64(1), scope.Snapshot().Counters()["save_failures_total+"].Value())
		m.send(t, batchOf("phc_a", time.Now(), accepted))
		require.Equal(t, uint64(1), received(m.rowsOf(t, dayOf(time.Now())), all))
		require.NoError(t, m.Stop(t.Context()))
	}
	require.NoError(t, first.close())
}

func TestADiskThatFailsLosesNothingOnceItWorksAgain(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	config := DefaultConfig()
	config.Dir = t.TempDir()
	scope := tally.NewTestScope("", nil)
	m := NewMeter(config, zap.New(core), scope)
	require.NoError(t, m.Start(t.Context()))
	now := time.Now()
	obstacle := m.files.path(dayOf(now)) + ".new"
	require.NoError(t, os.MkdirAll(filepath.Join(obstacle, "full"), 0o700))
	m.send(t, batchOf("phc_a", now, accepted))
	m.save(now)
	m.save(now.AddDate(0, 0, 3)) // the day is over, and stays in memory
	require.Equal(t, uint64(1), received(m.rowsOf(t, dayOf(now)), all))
	require.Equal(t, 1, logs.FilterMessageSnippet("not kept on the disk").Len(), "told once")
	require.Equal(t, int64(2), scope.Snapshot().Counters()["save_failures_total+"].Value(), "counted each time")
	require.NoError(t, os.RemoveAll(obstacle))
	m.save(now.AddDate(0, 0, 3))
	require.Equal(t, 1, logs.FilterMessageSnippet("on the disk again").Len())
	open, _ := m.open()
	require.Empty(t, open)
	require.Equal(t, uint64(1), received(m.rowsOf(t, dayOf(now)), all))

	// A disk that fails for many days does not fill the memory.
	for i := range 2 * mostOpen {
		require.NoError(t, os.MkdirAll(filepath.Join(m.files.path(dayOf(now)+day(i))+".new", "full"), 0o700))
		m.send(t, batchOf("phc_a", now.AddDate(0, 0, i), accepted))
		m.save(now.AddDate(0, 0, i+1).Add(time.Hour))
	}
	open, _ = m.open()
	require.LessOrEqual(t, len(open), mostOpen+1)
	require.NoError(t, m.Stop(t.Context()))
}

func TestADamagedFileIsReadAsFarAsItGoesAndKept(t *testing.T) {
	t.Parallel()
	today := dayOf(time.Now())
	good := fmt.Sprintf(`{"day":%q,"token":"phc_a","resource":"events","since":"2026-11-30T00:00:00Z","received":2,`+
		`"accepted":1,"dropped":{"quota":1}}`, today)
	head := `{"format":1}` + "\n" + good + "\n"
	row := func(format string) string { return head + fmt.Sprintf(format, today) }
	for name, text := range map[string]string{
		"cut":            head + good[:30],
		"no sum":         row(`{"day":%q,"token":"b","resource":"events","received":3}`),
		"other day":      head + `{"day":"1999-01-01","token":"b","resource":"events"}`,
		"other resource": row(`{"day":%q,"token":"b","resource":"x"}`),
		"other group":    row(`{"day":%q,"group":"b","resource":"events"}`),
		"nobody's":       row(`{"day":%q,"resource":"events"}`),
		"no text":        head + "\x00\x01",
		"later format":   `{"format":2}`,
		"empty":          "",
	} {
		config := DefaultConfig()
		config.Dir = t.TempDir()
		path := filepath.Join(config.Dir, today.String()+extension)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(config.Dir, "readme.jsonl"), []byte(text), 0o600))
		core, logs := observer.New(zap.InfoLevel)
		m := NewMeter(config, zap.New(core), tally.NoopScope)
		require.NoError(t, m.Start(t.Context()))
		want := uint64(2)
		if name == "later format" || name == "empty" {
			want = 0
		}
		require.Equal(t, want, received(m.rowsOf(t, today), all), name)
		require.Equal(t, 1, logs.FilterMessageSnippet("not kept on the disk as it should be").Len(), name)
		m.send(t, batchOf("phc_a", time.Now(), accepted))
		require.NoError(t, m.Stop(t.Context()))
		kept, err := os.ReadFile(path + ".damaged")
		require.NoError(t, err)
		require.Equal(t, text, string(kept))
		rows, err := (&files{dir: config.Dir}).read(today)
		require.NoError(t, err)
		require.Equal(t, want+1, received(rows, all))
	}
}

func TestTheSketchForgetsAndRarelyExaggerates(t *testing.T) {
	t.Parallel()
	s := newSketch(100)
	random := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		s.add(42)
	}
	require.Equal(t, uint32(51), s.add(42))
	high := 0
	for range 10_000 {
		if s.add(random.Uint64()) > 3 {
			high++
		}
	}
	require.Less(t, high, 500)
	require.Less(t, s.add(42), uint32(10))

	large := newSketch(10_000)
	for range 1 << 16 {
		large.add(42)
	}
	require.Equal(t, uint32(1<<16-1), large.add(42), "it does not begin anew")
}

func TestTheSectionIsChecked(t *testing.T) {
	t.Parallel()
	require.NoError(t, DefaultConfig().Validate())
	err := Config{MaxTokens: mostTokens + 1}.Validate()
	for _, fault := range []string{"max_tokens: must be from 1 to 1000000", "days: must", "save_every: must"} {
		require.ErrorContains(t, err, fault)
	}
	require.Equal(t, int64(10_000<<10), DefaultConfig().MemoryBudget(nil, 0))
	require.Positive(t, DefaultConfig().StopBudget())
}

func TestATokenTakesNoMoreMemoryThanItsBudget(t *testing.T) {
	const tokens = 10_000
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	m := newTestMeter(t, inMemoryOnly(tokens))
	for i := range tokens {
		m.send(t, batchOf(fmt.Sprintf("phc_%060d", i), noon, accepted,
			events.Outcome{State: events.StateDropped, Reason: events.ReasonQuota},
			events.Outcome{State: events.StateRejected, Reason: events.ReasonTooLarge}))
	}
	took := heap() - before
	t.Logf("%d bytes a token", took/tokens)
	require.Less(t, took, uint64(tokens*bytesOfToken))
	require.NotEmpty(t, m.shards[0].entries)
}

func BenchmarkCount(b *testing.B) {
	for _, size := range []int{1, 50} {
		b.Run(fmt.Sprintf("%d events", size), func(b *testing.B) {
			m := newTestMeter(b, inMemoryOnly(10_000))
			batches := make([]*events.Batch, 100)
			for i := range batches {
				batches[i] = batchOf(fmt.Sprint("phc_", i), noon)
				for range size {
					batches[i].Events = append(batches[i].Events, batchOf("", noon, accepted).Events...)
				}
				m.count(b.Context(), batches[i])
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					m.count(context.Background(), batches[i%len(batches)])
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/event")
		})
	}
}

func TestCountingCostsNoAllocation(t *testing.T) {
	m := newTestMeter(t, inMemoryOnly(10))
	batch := batchOf("phc_a", noon, accepted, accepted,
		events.Outcome{State: events.StateDropped, Reason: events.ReasonQuota},
		events.Outcome{State: events.StateRejected, Reason: events.ReasonTooLarge})
	require.Zero(t, testing.AllocsPerRun(100, func() {
		settle, _ := m.Process(context.Background(), batch)
		settle(context.Background(), batch)
	}))
}
