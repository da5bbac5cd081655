package usage

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
)

const (
	// mostShards is how many parts the tokens are divided into, so that requests of different tokens do not wait for
	// each other. leastRoom is how many tokens a part has room for at least.
	mostShards = 16
	leastRoom  = 64

	// lateAfter is how long after its end a day may still have requests that end. A day that a request ends in later
	// than that is opened again.
	lateAfter = 15 * time.Minute
	// mostOpen bounds the days that are in memory because the disk does not take them.
	mostOpen = 8
)

// Meter is the stage that counts what tokens send. Start and Stop are each called once, Start first. All other methods
// are safe for concurrent use at any time.
type Meter struct {
	config  Config
	log     *zap.Logger
	metrics metrics
	settle  events.Settle // count; bound once, because binding it allocates
	seed    maphash.Seed
	shards  []shard

	// disk guards what follows, and the move of a day between memory and disk.
	disk  sync.Mutex
	files *files // nil: nothing is kept on the disk
	// loaded are the days in memory that hold what the disk has of them. saved is the number of changes that the disk
	// has.
	loaded map[day]bool
	saved  map[day]uint64
	failed bool // the last save

	cancel context.CancelFunc
	work   *panics.Group
}

var _ events.Stage = (*Meter)(nil)

type metrics struct {
	tokens   tally.Gauge
	others   tally.Counter
	failures tally.Counter
}

// NewMeter returns a meter of the section. The scope has how many tokens are counted each for itself ("tokens"), the
// requests that were counted with the others ("others_total") and the writes that failed ("save_failures_total").
func NewMeter(config Config, log *zap.Logger, scope tally.Scope) *Meter {
	parts := 1
	for parts < mostShards && config.MaxTokens/(2*parts) >= leastRoom {
		parts *= 2
	}
	m := &Meter{
		config: config, log: log, seed: maphash.MakeSeed(), shards: make([]shard, parts),
		metrics: metrics{scope.Gauge("tokens"), scope.Counter("others_total"), scope.Counter("save_failures_total")},
		loaded:  map[day]bool{}, saved: map[day]uint64{}, work: panics.NewGroup(log),
	}
	for i := range m.shards {
		m.shards[i].init((config.MaxTokens + parts - 1 - i) / parts)
	}
	m.settle = m.count
	return m
}

// Phase is events.PhaseCount, so that no stage that fails keeps a batch from the meter.
func (m *Meter) Phase() events.Phase { return events.PhaseCount }

// Name is "usage".
func (m *Meter) Name() string { return "usage" }

// Process changes nothing. The Settle that it returns counts the batch when the batch has ended.
func (m *Meter) Process(context.Context, *events.Batch) (events.Settle, error) { return m.settle, nil }

func (m *Meter) count(_ context.Context, batch *events.Batch) {
	if len(batch.Events) == 0 {
		return
	}
	var batchSums sums
	batchSums.sumUp(batch)
	received := batch.Received
	if received.IsZero() {
		received = time.Now()
	}
	hash := maphash.String(m.seed, batch.Token)
	m.shard(hash).count(batch, hash, dayOf(received), received, &batchSums)
}

func (m *Meter) shard(hash uint64) *shard {
	return &m.shards[bits.RotateLeft64(hash, 16)&uint64(len(m.shards)-1)]
}

// Start begins to keep the counts on the disk. If the directory cannot be used, the service works without it: counts
// of usage are no reason to refuse events.
func (m *Meter) Start(context.Context) error {
	m.disk.Lock()
	defer m.disk.Unlock()
	if m.config.Dir != "" {
		var err error
		if m.files, err = openFiles(m.config.Dir); err != nil {
			m.metrics.failures.Inc(1)
			m.log.Warn("usage is counted in memory only, and ends with the process: usage.dir cannot be used",
				zap.String("dir", m.config.Dir), zap.Error(err))
		}
	}
	today := dayOf(time.Now())
	for _, d := range []day{today - 1, today} {
		m.load(d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.work.Keep(ctx, "the keeper of usage", m.run)
	return nil
}

func (m *Meter) run(ctx context.Context) {
	ticker := time.NewTicker(m.config.SaveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			m.save(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// Stop writes what has been counted. Requests that end later are counted in memory only. It returns no error for a
// disk that does not take the counts, because no event is lost; the log says so.
func (m *Meter) Stop(context.Context) error {
	m.cancel()
	m.work.Wait()
	m.save(time.Now())
	m.disk.Lock()
	defer m.disk.Unlock()
	if m.files == nil {
		return nil
	}
	err := m.files.close()
	m.files = nil
	return err
}

// load takes what the disk has of a day into memory. The caller holds disk.
func (m *Meter) load(d day) {
	if m.files == nil || m.loaded[d] {
		return
	}
	rows, err := m.files.read(d)
	if err != nil {
		m.report(fmt.Errorf("the day is counted from what can be read; the file is kept as *.damaged: %w",
			errors.Join(err, m.files.setAside(d))))
	}
	m.loaded[d] = true
	for i := range rows {
		m.restore(d, &rows[i])
	}
	if err == nil && len(rows) > 0 {
		m.saved[d] += uint64(len(rows))
	}
}

// open returns the days in memory, in order, each with the number of its changes.
func (m *Meter) open() ([]day, map[day]uint64) {
	changes := map[day]uint64{}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for d, n := range s.changes {
			changes[d] += n
		}
		s.mu.Unlock()
	}
	days := make([]day, 0, len(changes))
	for d := range changes {
		days = append(days, d)
	}
	slices.Sort(days)
	return days, changes
}

// save writes the days that have changed, and takes those out of memory that are over.
func (m *Meter) save(now time.Time) {
	m.disk.Lock()
	defer m.disk.Unlock()
	m.observe()
	before, _ := m.open()
	for _, d := range before {
		m.load(d)
	}
	days, changes := m.open()
	if m.files != nil {
		// The first events of a day may have come just now. The disk may have more of it, so it is for the next time.
		days = slices.DeleteFunc(days, func(d day) bool { return !m.loaded[d] })
	}
	var fault error
	for i, d := range days {
		over := now.Sub(d.end()) > lateAfter || d > dayOf(now)+1
		if m.files == nil {
			if d < dayOf(now)-1 || d > dayOf(now)+1 {
				m.closed(d)
			}
			continue
		}
		err := m.saveDay(d, changes[d], over)
		if err != nil && len(days)-i > mostOpen {
			m.closed(d)
			err = fmt.Errorf("the counts of %s are lost: %w", d, err)
		}
		fault = errors.Join(fault, err)
	}
	if m.files != nil {
		fault = errors.Join(fault, m.files.keep(m.config.Days))
	}
	m.report(fault)
}

// saveDay writes a day. If the day is over, it leaves memory.
func (m *Meter) saveDay(d day, changes uint64, over bool) error {
	if !over {
		if m.saved[d] == changes && changes > 0 {
			return nil
		}
		if err := m.files.write(d, m.inMemory(d)); err != nil {
			return err
		}
		m.saved[d] = changes
		return nil
	}
	// The rows leave memory first, so that what is counted meanwhile is for the next time.
	rows := m.closed(d)
	if err := m.files.write(d, sorted(rows)); err != nil {
		for i := range rows {
			m.restore(d, &rows[i])
		}
		m.loaded[d] = true
		return err
	}
	return nil
}

// observe sets the metrics.
func (m *Meter) observe() {
	tokens, others := 0, int64(0)
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		tokens += len(s.entries)
		others += s.uncounted
		s.uncounted = 0
		s.mu.Unlock()
	}
	m.metrics.tokens.Update(float64(tokens))
	m.metrics.others.Inc(others)
}

// report logs that the disk does not work, and that it works again, once each.
func (m *Meter) report(err error) {
	switch {
	case err != nil:
		m.metrics.failures.Inc(1)
		if !m.failed {
			m.log.Warn("usage is not kept on the disk as it should be", zap.Error(err))
		}
	case m.failed:
		m.log.Info("usage is kept on the disk again")
	}
	m.failed = err != nil
}

// inMemory returns the rows of a day that are in memory, in order.
func (m *Meter) inMemory(d day) []Row {
	var rows []Row
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.each(func(group string, e *entry) {
			for j := range e.days {
				if of := &e.days[j]; of.day == d {
					rows = appendRows(rows, e.token, group, of)
				}
			}
		})
		s.mu.Unlock()
	}
	return sorted(rows)
}

func appendRows(rows []Row, token, group string, of *daily) []Row {
	for resource, c := range of.of {
		if c != nil {
			rows = append(rows, newRow(token, group, of, events.Resource(resource)))
		}
	}
	return rows
}

// closed takes a day out of memory.
func (m *Meter) closed(d day) (rows []Row) {
	for i := range m.shards {
		m.shards[i].close(d, func(token, group string, of *daily) { rows = appendRows(rows, token, group, of) })
	}
	delete(m.loaded, d)
	delete(m.saved, d)
	return rows
}

// restore puts a row back into memory.
func (m *Meter) restore(d day, row *Row) {
	resource, _ := events.ParseResource(row.Resource) // newRow has written it, or check has read it
	of := daily{day: d, since: row.Since.UnixNano()}
	of.of[resource] = row.counts()
	m.shard(maphash.String(m.seed, row.Token)).load(row.Token, row.Group, &of)
}

// days returns the days that have counts, in order.
func (m *Meter) days() ([]day, error) {
	m.disk.Lock()
	defer m.disk.Unlock()
	days, _ := m.open()
	if m.files != nil {
		kept, err := m.files.days()
		if err != nil {
			return nil, err
		}
		days = append(days, kept...)
	}
	slices.Sort(days)
	return slices.Compact(days), nil
}

// rows returns the rows of a day, in order.
func (m *Meter) rows(d day) ([]Row, error) {
	m.disk.Lock()
	defer m.disk.Unlock()
	_, changes := m.open()
	if m.files == nil {
		return m.inMemory(d), nil
	}
	if _, isOpen := changes[d]; !isOpen {
		return m.files.read(d)
	}
	m.load(d)
	return m.inMemory(d), nil
}
