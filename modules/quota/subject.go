package quota

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// subject is what the node knows of a token. A request locks it twice, each time for a moment.
type subject struct {
	token string
	// visits is how many requests have been judged and not settled. It grows only under the lock.
	visits atomic.Int32

	mu sync.Mutex
	// gone is set when the subject has left the table. Its accounts are given up.
	gone bool
	// touched counts requests, up to a few. The table lowers it when it looks for subjects to give up.
	touched uint8
	usedAt  int64

	// plan changes only under the lock, and may be read without it.
	plan atomic.Pointer[plan]
	// until is when the first of the windows ends.
	until int64
	// accounts are all of the token's accounts, those of other windows and of limits of the past included. current are
	// those of the plan in the windows of this moment.
	accounts []*account
	current  [events.ResourceCount][]*account
	rates    [events.ResourceCount]*rateAccount

	// draw is the draw in flight, nil if there is none. Requests that need one meanwhile join the next one: waiting is
	// how much they need. owed is how much the requests need that draws have been started for, and that have not been
	// judged yet. Other requests leave so much alone.
	draw, next    *draw
	waiting, owed needs
}

// needs is how many events of each resource are to pass.
type needs [events.ResourceCount]int64

// findings is how the events of a request stand.
type findings struct {
	// quota is how many events of a resource are within the quotas, rate how many of these are within the rate.
	quota, rate needs
	// missing is set if the store may have more.
	missing bool
}

// look judges a request without changing anything. now is by the store's clock, mono by the monotonic one. mine is the
// draw that was made for the request, or nil: its needs are then among those that are owed.
func (s *subject) look(need *needs, now, mono int64, mine *draw) (f findings) {
	p := s.plan.Load()
	for r, n := range need {
		if n == 0 || !p.limited[r] {
			continue
		}
		reserved := s.owed[r]
		if mine != nil {
			reserved = 0
		}
		pass, most := n, s.most(r, n, now, p.limits.Whole)
		for _, a := range s.current[r] {
			left := a.spendable(reserved)
			pass = min(pass, left)
			if left < most && a.mayAsk(n-left, now, p.limits.Whole) {
				f.missing = true
			}
		}
		f.quota[r], f.rate[r] = pass, pass
		if a := s.rates[r]; a != nil {
			left := max(0, a.available(mono, mine)-reserved)
			f.rate[r] = min(pass, left)
			if left < most && mono >= a.retryAt && (!p.limits.Whole || n <= p.rates[r].burst) {
				f.missing = true
			}
		}
	}
	if p.limits.Whole {
		f.together(p, need)
	}
	return f
}

// most returns how many of n events of a resource can pass at most, however much the store has left: there is no use in
// drawing from one quota what another one stops.
func (s *subject) most(r int, n, now int64, whole bool) int64 {
	for _, a := range s.current[r] {
		held := a.spendable(0)
		switch {
		case held >= n:
		case a.mayAsk(n-held, now, whole):
			n = min(n, a.quota.Limit)
		default:
			n = held
		}
	}
	return n
}

// least returns the room in the tightest of the quotas of a resource.
func (s *subject) least(r int) int64 {
	least := int64(maxTime)
	for _, a := range s.current[r] {
		least = min(least, a.room())
	}
	return least
}

// together lets the events of a request pass only as a whole.
func (f *findings) together(p *plan, need *needs) {
	quota, rate := true, true
	for r, n := range need {
		if p.limited[r] {
			quota = quota && f.quota[r] == n
			rate = rate && f.rate[r] == n
		}
	}
	for r := range need {
		if !quota {
			f.quota[r] = 0
		}
		if (!quota || !rate) && (p.rates[r].Limit > 0 || !quota) {
			f.rate[r] = 0
		}
	}
}

// adopt makes the plan and the windows of the moment the current ones. It reports whether there was room for all
// accounts.
func (s *subject) adopt(p *plan, now time.Time, t *table) bool {
	nanos := now.UnixNano()
	if s.plan.Load() == p && nanos < s.until {
		return true
	}
	s.plan.Store(p)
	s.until = maxTime
	whole := true
	for r := range p.quotas {
		s.current[r] = s.current[r][:0]
		for _, quota := range p.quotas[r] {
			a := s.accountOf(quota, now.In(p.zone), t)
			if a == nil {
				whole = false
				continue
			}
			s.current[r] = append(s.current[r], a)
			s.until = min(s.until, a.until)
		}
		switch rate := &p.rates[r]; {
		case rate.Limit == 0:
			s.rates[r] = nil
		case s.rates[r] == nil || s.rates[r].rate != rate.Rate:
			s.rates[r] = &rateAccount{rate: rate.Rate, counter: rate.Counter()}
		}
	}
	if !whole {
		s.until = 0 // look again at the next request
	}
	return whole
}

// maxTime is later than any window ends.
const maxTime = 1<<63 - 1

// accountOf returns the account of a quota in the window of the moment, or nil if there is no room for it.
func (s *subject) accountOf(quota events.Quota, now time.Time, t *table) *account {
	start, end := quota.Period.Window(now)
	for _, a := range s.accounts {
		if a.quota.Resource == quota.Resource && a.quota.Period == quota.Period && a.start.Equal(start) {
			if a.quota.Limit != quota.Limit {
				a.quota, a.retryAt = quota, 0
				a.left = max(0, quota.Limit-a.used)
			}
			return a
		}
	}
	slot := t.journal.take(s.token, quota, start, end)
	if slot == nil {
		return nil
	}
	a := newAccount(t.journal, slot, quota, start, end)
	a.confirmed = true // nothing is held that could be of another window
	a.left = quota.Limit
	s.accounts = append(s.accounts, a)
	return a
}

func newAccount(j *journal, s *slot, quota events.Quota, start, end time.Time) *account {
	return &account{
		quota: quota, counter: quota.Counter(start), node: j.node, start: start, end: end, until: end.UnixNano(),
		slot: s,
	}
}

// forget gives up an account.
func (s *subject) forget(i int, t *table) {
	a := s.accounts[i]
	a.ended = true
	t.journal.give(a.slot)
	s.accounts[i] = s.accounts[len(s.accounts)-1]
	s.accounts[len(s.accounts)-1] = nil
	s.accounts = s.accounts[:len(s.accounts)-1]
	s.until = 0 // the account may be a current one
}
