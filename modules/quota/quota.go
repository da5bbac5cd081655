package quota

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

// Quota is the stage that counts events against limits. Start and Stop are each called once, Start first. Process and
// the Settle that it returns are safe for concurrent use after Start and before Stop.
type Quota struct {
	config   Config
	settings *configs.Value[*settings]
	counters store.Counters
	clock    func() time.Time
	log      *zap.Logger
	metrics  *metrics
	billing  *billing

	journal *journal
	table   *table
	visits  sync.Pool
	hot     *hot
	crowds  sync.Pool

	// skew is what the node adds to the store's clock, as it knows it, in nanoseconds: see shift. began is the start of
	// mono.
	skew    atomic.Int64
	began   time.Time
	failing atomic.Pointer[failure]

	// started is set when the journal is open, and stopped when it is about to be closed.
	started, stopped atomic.Bool
	cancel           context.CancelFunc
	work             *panics.Group
}

// failure is the last call of the store that has failed.
type failure struct {
	at  time.Time
	err error
}

var (
	_ events.Stage      = (*Quota)(nil)
	_ events.Allowances = (*Quota)(nil)
)

// New returns the stage of the section. It opens no file.
func New(live *configs.Live, shared store.Store, log *zap.Logger, scope tally.Scope) (*Quota, error) {
	config, err := configs.SectionOf[Config](live.View().Set())
	if err != nil {
		return nil, err
	}
	prepared, err := configs.NewValue(live, newSettings)
	if err != nil {
		return nil, err
	}
	q := &Quota{
		config: config, settings: prepared, counters: shared, clock: shared.Now, log: log, metrics: newMetrics(scope),
		began: time.Now(), work: panics.NewGroup(log),
	}
	q.billing = newBilling(shared, q)
	q.hot, q.crowds.New = newHot(config.MaxUsers), func() any { return new(crowd) }
	q.visits.New = func() any { return newVisit(q) }
	return q, nil
}

// Start opens the journal and takes up the accounts that are in it. A journal that cannot be used is no error: the log
// says what follows.
func (q *Quota) Start(context.Context) error {
	j, found := openJournal(q.config.Dir, q.config.MaxAccounts)
	q.journal, q.table = j, newTable(j, q.config.MaxAccounts)
	if j.fault != nil {
		q.log.Warn("what this node holds of the limits is in memory only: if the process is killed, it counts as "+
			"spent", zap.Error(j.fault))
	}
	q.metrics.journal.Update(truth(j.fault == nil))
	q.restore(found)
	ctx, cancel := context.WithCancel(context.Background())
	q.cancel = cancel
	q.work.Keep(ctx, "the keeper of quotas", q.keep)
	if q.billing.has() {
		q.billing.read(ctx)
		q.work.Keep(ctx, "the reader of PostHog's limits", q.billing.keep)
	}
	q.started.Store(true)
	return nil
}

// restore takes up the accounts that an earlier process has left, except those whose windows have ended for long.
func (q *Quota) restore(found []*slot) {
	now := q.now()
	for _, s := range found {
		start, end := time.Unix(s.start, 0), time.Unix(s.end, 0)
		if now.Sub(end) > late {
			q.journal.give(s)
			continue
		}
		subject := q.table.subject(string(s.token[:s.size]))
		if subject == nil {
			q.journal.give(s)
			continue
		}
		quota := events.Quota{Resource: events.Resource(s.resource), Period: events.Period(s.period)}
		a := newAccount(q.journal, s, quota, start, end)
		a.told, a.unsure, a.usedAt = a.held(), true, now.UnixNano()
		subject.accounts = append(subject.accounts, a)
	}
}

const (
	// tick is how often the keeper looks after the accounts.
	tick = time.Second
	// late is how long an account stays after the end of its window.
	late = 10 * time.Second
	// returners is how many calls of the store give back at a time.
	returners = 4
	// stopPause is how long a stop waits before it tries again to give back.
	stopPause = 100 * time.Millisecond
)

// keep looks after the accounts until ctx is over.
func (q *Quota) keep(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			q.look(ctx, resting)
		case <-ctx.Done():
			return
		}
	}
}

// look gives back what has rested for so long, removes what has ended, and measures the rest.
func (q *Quota) look(ctx context.Context, rested time.Duration) {
	q.skew.Store(0)
	var rest []*subject
	held := int64(0)
	now := q.now().UnixNano()
	q.table.all(func(s *subject) {
		holds, rests := q.tidy(s, now, rested)
		held += holds
		if rests {
			rest = append(rest, s)
		}
	})
	used, _ := q.journal.accounts()
	q.metrics.accounts.Update(float64(used))
	q.metrics.users.Update(float64(q.hot.count()))
	q.metrics.held.Update(float64(held))
	_ = q.giveBack(ctx, rest, rested)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// tidy removes the accounts of a subject whose windows have ended for long, and the subject if it has none. It returns
// how much the subject holds, and whether some of it has rested.
func (q *Quota) tidy(s *subject, now int64, rested time.Duration) (holds int64, rests bool) {
	s.mu.Lock()
	empty := false
	if s.draw == nil {
		for i := len(s.accounts) - 1; i >= 0; i-- {
			a := s.accounts[i]
			switch {
			case now-a.until > int64(late):
				s.forget(i, q.table)
			case now < a.until:
				holds += a.held()
				rests = rests || a.rests(now, rested)
			}
		}
		empty = len(s.accounts) == 0 && now-s.usedAt > int64(resting)
	}
	s.mu.Unlock()
	if empty {
		q.table.remove(s)
	}
	return holds, rests
}

// settled reports whether the node holds nothing, and the store knows that.
func (a *account) settled() bool { return a.held() == 0 && a.told == 0 && !a.unsure }

// rests reports whether the node holds something, or the store may think so, that nobody has used for so long.
func (a *account) rests(now int64, rested time.Duration) bool {
	return now-a.usedAt >= int64(rested) && !a.settled()
}

// giveBack gives back to the store what the subjects hold and nobody has used for so long. It returns the last error.
func (q *Quota) giveBack(ctx context.Context, subjects []*subject, rested time.Duration) error {
	next, failed := atomic.Int64{}, atomic.Pointer[failure]{}
	group := panics.NewGroup(q.log)
	for range min(returners, len(subjects)) {
		group.Go("who gives back what nobody has used", func() {
			for i := next.Add(1); i <= int64(len(subjects)) && ctx.Err() == nil; i = next.Add(1) {
				if err := q.giveBackOf(ctx, subjects[i-1], rested); err != nil {
					failed.Store(&failure{err: err})
					return // the store is away; there will be another time
				}
			}
		})
	}
	group.Wait()
	if last := failed.Load(); last != nil {
		return last.err
	}
	return ctx.Err()
}

// giveBackOf gives back what a subject holds, except what requests have drawn and not taken yet. Requests that need the
// store meanwhile wait for the call.
func (q *Quota) giveBackOf(ctx context.Context, s *subject, rested time.Duration) (err error) {
	s.mu.Lock()
	if s.draw != nil || s.gone {
		s.mu.Unlock()
		return nil
	}
	d := &draw{done: make(chan struct{}), started: true}
	now := q.now()
	for _, a := range s.accounts {
		if now.Before(a.end) && s.owed[a.quota.Resource] == 0 && a.rests(now.UnixNano(), rested) {
			d.quotas, d.accounts = append(d.quotas, a.drawBack()), append(d.accounts, a)
		}
	}
	if len(d.quotas) == 0 {
		s.mu.Unlock()
		return nil
	}
	s.draw = d
	s.mu.Unlock()
	err = panics.Try(q.log, "a draw that gives back", func() error { return q.call(ctx, s.token, d) })
	s.mu.Lock()
	if err == nil {
		q.metrics.draws[drawReturned].Inc(1)
		d.enter(s, q.now().UnixNano(), q.mono())
	} else {
		q.metrics.draws[drawReturnFailed].Inc(1)
	}
	d.err, s.draw = err, nil
	s.mu.Unlock()
	close(d.done)
	return err
}

// Stop gives back all that the node holds and closes the journal. While the store does not answer, Stop tries again
// until the configured time or ctx is over. Its error says what is not given back: the journal keeps that for the next
// process.
func (q *Quota) Stop(ctx context.Context) error {
	q.cancel()
	q.work.Wait()
	ctx, cancel := context.WithTimeout(ctx, q.config.StopTimeout)
	defer cancel()
	var subjects []*subject
	q.table.all(func(s *subject) { subjects = append(subjects, s) })
	err := q.giveBack(ctx, subjects, 0)
	for err != nil && waited(ctx, stopPause) {
		err = q.giveBack(ctx, subjects, 0)
	}
	q.stopped.Store(true)
	left := int64(0)
	q.table.all(func(s *subject) { left += s.close(q.now()) })
	if closed := q.journal.close(); closed != nil {
		return closed
	}
	if err != nil && left > 0 {
		return fmt.Errorf("quota: shares of limits for %d events were not given back; they are noted for the next "+
			"start: %w", left, err)
	}
	return nil
}

// waited waits for a time. It reports false if ctx is over before.
func waited(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// close takes the subject's accounts out of the journal. A request that comes, or ends, after that changes nothing in
// it. It returns how much the store thinks that the node holds.
func (s *subject) close(now time.Time) (left int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.draw != nil {
		d := s.draw
		s.mu.Unlock()
		<-d.done
		s.mu.Lock()
	}
	for _, a := range s.accounts {
		if now.Before(a.end) {
			left += a.told
		}
		a.ended, a.slot = true, new(slot)
	}
	return left
}
