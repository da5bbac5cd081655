package quota

import (
	"context"
	"fmt"
	"time"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

// draw is a round trip to the store for a subject, and what waits for it.
type draw struct {
	done chan struct{}
	// started is set when the draw is in flight or has ended: it is made for those who have joined before.
	started bool
	// err is why the draw has failed. It is set before done is closed.
	err error

	quotas   []store.QuotaDraw
	accounts []*account
	rates    []store.RateDraw
	buckets  []bucket
	began    int64
	// least is the smallest need of a request that has joined: where a request passes as a whole or not at all, less is
	// of no use.
	least needs
}

// bucket is a rate that is drawn from.
type bucket struct {
	account *rateAccount
	terms   *rate
	owed    int64
	// at is the place of the draw among those from rates. keeps says that the draw of what is kept stands behind it.
	at    int
	keeps bool
}

// errStale means that a window is not the one of the store's clock, although the node's clock was set by the store's.
var errStale = fmt.Errorf("the node's clock and the store's do not agree on the time: %w", store.ErrUnavailable)

// join adds what a request needs to the next draw. The subject is locked.
func (s *subject) join(need *needs) *draw {
	if s.next == nil {
		s.next = &draw{done: make(chan struct{})}
	}
	for r, n := range need {
		s.waiting[r] += n
		if least := &s.next.least[r]; n > 0 && (*least == 0 || n < *least) {
			*least = n
		}
	}
	return s.next
}

// leave takes out what a request needs, which has joined the draw. A draw that has not been started, and that nobody
// waits for any more, is no draw. The subject is locked.
func (s *subject) leave(need *needs, d *draw) {
	from := &s.waiting
	if d.started {
		from = &s.owed
	}
	for r, n := range need {
		from[r] -= n
	}
	if s.waiting == (needs{}) {
		s.next = nil
	}
}

// begin starts the next draw. The subject is locked.
func (s *subject) begin(now, mono int64) {
	d := s.next
	s.draw, s.next, d.started = d, nil, true
	for r, n := range s.waiting {
		s.owed[r] += n
		s.waiting[r] = 0
	}
	d.gather(s, now, mono)
}

// gather enters what is owed, and what of the rest is low: the round trip is made anyhow.
func (d *draw) gather(s *subject, now, mono int64) {
	d.quotas, d.accounts = d.quotas[:0], d.accounts[:0]
	d.rates, d.buckets = d.rates[:0], d.buckets[:0]
	d.began = mono
	p := s.plan.Load()
	whole := p.limits.Whole
	for r, owed := range s.owed {
		owed = s.most(r, owed, now, false)
		for _, a := range s.current[r] {
			need := owed - a.spendable(0)
			least := need
			if whole {
				least = d.least[r] - a.spendable(0)
			}
			if owed > 0 && a.mayAsk(max(0, least), now, whole) || owed == 0 && a.low() {
				d.quotas, d.accounts = append(d.quotas, a.draw(need, now)), append(d.accounts, a)
			}
		}
		rate := &p.rates[r]
		if a := s.rates[r]; a != nil && mono >= a.retryAt && (!whole || d.least[r] <= rate.burst) &&
			(a.available(mono, nil) < owed || owed == 0 && a.low(mono, rate)) {
			least := int64(1)
			if whole {
				least = d.least[r]
			}
			one, keeping := a.draw(owed, least, mono, rate, d)
			b := bucket{account: a, terms: rate, owed: owed, at: len(d.rates), keeps: keeping.Extra > 0}
			if d.rates = append(d.rates, one); b.keeps {
				d.rates = append(d.rates, keeping)
			}
			d.buckets = append(d.buckets, b)
		}
	}
}

// enter enters what the draw has brought. again is set if a second draw would bring more: the quota had less left than
// the node knew, and the requests can use the rest. stale is an account whose window is not that of the store's clock.
// The subject is locked.
func (d *draw) enter(s *subject, now, mono int64) (again bool, stale *account) {
	least := int64(1)
	for i := range d.quotas {
		a, q := d.accounts[i], &d.quotas[i]
		switch {
		case q.Stale:
			stale = a
		case a.drew(q, now):
		default:
			if s.plan.Load().limits.Whole {
				least = d.least[a.quota.Resource] - a.held()
			}
			again = again || a.left > 0 && a.left >= least
		}
	}
	for _, b := range d.buckets {
		var keeping *store.RateDraw
		if b.keeps {
			keeping = &d.rates[b.at+1]
		}
		b.account.drew(&d.rates[b.at], keeping, b.owed, d.began, mono, b.terms)
	}
	return again, stale
}

// lead makes the draw and lets those who wait go on. It draws a second time if that brings more, but never after a
// failure.
func (q *Quota) lead(ctx context.Context, s *subject, d *draw) {
	ctx = context.WithoutCancel(ctx) // others wait, too
	err := panics.Try(q.log, "a draw", func() error {
		again, err := q.round(ctx, s, d, true)
		if again {
			_, err = q.round(ctx, s, d, false)
		}
		return err
	})
	s.mu.Lock()
	d.err, s.draw = err, nil
	s.mu.Unlock()
	close(d.done)
}

// round makes one round trip. again is set if another one would bring more; the draw is then made for it. That is so
// only after the first round.
func (q *Quota) round(ctx context.Context, s *subject, d *draw, first bool) (again bool, err error) {
	if len(d.quotas)+len(d.rates) == 0 {
		return false, nil
	}
	if err = q.call(ctx, s.token, d); err != nil {
		q.metrics.draws[drawFailed].Inc(1)
		return false, err
	}
	q.metrics.draws[drawOK].Inc(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, mono := q.now(), q.mono()
	again, stale := d.enter(s, now.UnixNano(), mono)
	if stale != nil {
		if !first || !q.shift(stale, now) {
			return false, errStale
		}
		now, again, s.until = q.now(), true, 0
		s.adopt(s.plan.Load(), now, q.table)
	}
	again = again && first
	if again {
		d.gather(s, now.UnixNano(), mono)
	}
	return again, nil
}

// call calls the store.
func (q *Quota) call(ctx context.Context, token string, d *draw) error {
	err := q.counters.Take(ctx, token, d.quotas, d.rates)
	if err != nil {
		q.failing.Store(&failure{at: time.Now(), err: err})
	}
	return err
}

// mostShift is how far the node corrects its idea of the store's clock.
const mostShift = 5 * time.Second

// shift corrects the node's idea of the store's clock, after the store has said that it is not the time of an account's
// window. It reports whether it has.
func (q *Quota) shift(a *account, now time.Time) bool {
	var by time.Duration
	switch {
	case !now.Before(a.end) || now.Before(a.start):
		return true // the store's answer has set the clock
	case a.end.Sub(now) <= now.Sub(a.start):
		by = a.end.Sub(now)
	default:
		by = a.start.Sub(now) - time.Millisecond
	}
	if by.Abs() > mostShift {
		return false
	}
	q.skew.Add(int64(by))
	return true
}

// now is the time by the store's clock.
func (q *Quota) now() time.Time { return q.clock().Add(time.Duration(q.skew.Load())) }

// mono is the time since the stage began, in nanoseconds, by the monotonic clock.
func (q *Quota) mono() int64 { return int64(time.Since(q.began)) }

// needsOf adds the events of a batch that are under limits, and charges them.
func (p *plan) needsOf(batch *events.Batch, need *needs) (total int64) {
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		r := event.Resource()
		if !p.limited[r] {
			continue
		}
		event.Charge = events.ChargeOf(r, p.rates[r].Limit > 0)
		need[r]++
		total++
	}
	return total
}
