package quota

import (
	"context"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// visit is one request's business with a subject, from its judgement to its settlement. Visits are used again.
type visit struct {
	quota   *Quota
	subject *subject
	settle  events.Settle // end; bound once, because binding it allocates

	need needs
	// charged events pass and are counted against quotas and rate. Behind them, loose events pass and are counted
	// against quotas only, since the rate could not be asked. over are the events over the rate, and open those that
	// pass uncounted. What then remains of the need is over a quota or, in lost, fails for want of the store.
	charged, loose, over, open needs
	lost                       [events.ResourceCount]bool
	// wait is how long a client should wait that is over a rate.
	wait time.Duration

	// spent is what the request has taken from accounts, and drained what from rates.
	spent   []spending
	drained []draining
}

type spending struct {
	account  *account
	resource events.Resource
	n        int64
}

type draining struct {
	bucket   *rateAccount
	resource events.Resource
	of       drained
	draws    uint64
}

func newVisit(q *Quota) *visit {
	v := &visit{quota: q}
	v.settle = v.end
	return v
}

// Phase is events.PhaseQuota.
func (q *Quota) Phase() events.Phase { return events.PhaseQuota }

// Name is "quota".
func (q *Quota) Name() string { return "quota" }

// Process judges the events that have no outcome yet. The Settle gives back what was counted for events that were not
// accepted.
func (q *Quota) Process(ctx context.Context, batch *events.Batch) (events.Settle, error) {
	set := q.settings.In(batch.Config)
	if set.posthog {
		q.billing.judge(batch, q)
	}
	p := set.plan
	var s *subject
	if project := batch.Project; project != nil && project.Limits != nil {
		s = q.table.find(batch.Token)
		p = planOf(s, project.Limits)
	}
	if p.hasUsers {
		if !p.any && p != set.plan && (s == nil || s.plan.Load() != p) {
			q.keepPlan(batch.Token, p)
		}
		q.judgeUsers(ctx, p, set, batch)
	}
	if !p.any {
		return nil, nil
	}
	v := q.visits.Get().(*visit)
	if p.needsOf(batch, &v.need) == 0 {
		q.put(v)
		return nil, nil
	}
	if s == nil {
		s = q.table.subject(batch.Token)
	}
	for !q.judge(ctx, s, p, v, set, batch) {
		s = q.table.subject(batch.Token) // the one before has left the table
	}
	v.mark(p, batch)
	if len(v.spent)+len(v.drained) == 0 {
		v.leave()
		return nil, nil
	}
	return v.settle, nil
}

// keepPlan keeps a plan that needs no accounts, so that not every request makes it anew.
func (q *Quota) keepPlan(token string, p *plan) {
	s := q.table.subject(token)
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := q.now(); !s.gone {
		s.adopt(p, now, q.table)
		s.usedAt = now.UnixNano()
	}
}

// planOf returns the plan of limits: that of the subject if it says the same.
func planOf(s *subject, limits *events.Limits) *plan {
	if s != nil {
		if p := s.plan.Load(); p != nil && p.sameAs(limits) {
			return p
		}
	}
	return newPlan(limits)
}

// judge decides how many events pass, and takes what they need from the accounts. It returns false if the subject has
// left the table. A subject that is nil stands for a token that there is no room for.
func (q *Quota) judge(
	ctx context.Context, s *subject, p *plan, v *visit, set *settings, batch *events.Batch,
) (done bool) {
	if s == nil || q.stopped.Load() {
		q.metrics.full.Inc(1)
		v.decide(&findings{}, failed{}, set)
		return true
	}
	now, mono := q.now(), int64(0)
	if p.hasRates {
		mono = q.mono()
	}
	var mine *draw
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false
	}
	v.subject = s
	s.visits.Add(1)
	s.touched = min(s.touched+1, mostTouches)
	room := s.adopt(p, now, q.table)
	f := s.look(&v.need, now.UnixNano(), mono, nil)
	var err error
	if f.missing {
		mine, err = q.await(ctx, s, &v.need)
		now, mono = q.now(), q.mono()
		room = s.adopt(p, now, q.table)
		f = s.look(&v.need, now.UnixNano(), mono, mine)
	}
	if !room {
		q.metrics.full.Inc(1)
		if !set.open {
			f = findings{}
		}
	}
	s.usedAt = now.UnixNano()
	v.decide(&f, s.failed(&v.need, mono, err != nil || !room), set)
	v.take(p, &f, now.UnixNano(), mono, mine, batch)
	return true
}

// await waits for a draw, or makes one, until the request has what it needs or knows that it does not get it. It
// returns the draw that was made for the request, if there was one. If a draw fails, all fail who waited for it. The
// subject is locked, but not meanwhile.
func (q *Quota) await(ctx context.Context, s *subject, need *needs) (made *draw, err error) {
	mine := s.join(need)
	defer s.leave(need, mine)
	for {
		switch current := s.draw; {
		case q.stopped.Load():
			return nil, errStopped
		case mine.started:
			s.mu.Unlock()
			<-mine.done
			s.mu.Lock()
			return mine, mine.err
		case current == nil:
			s.begin(q.now().UnixNano(), q.mono())
			s.mu.Unlock()
			q.lead(ctx, s, mine)
			s.mu.Lock()
			return mine, mine.err
		default:
			s.mu.Unlock()
			<-current.done
			s.mu.Lock()
			if current.err != nil {
				return nil, current.err
			}
			if !mine.started && !s.look(need, q.now().UnixNano(), q.mono(), nil).missing {
				return nil, nil // what the others have drawn is enough
			}
		}
	}
}

// failed says for which resources it is not known whether there is room, since the store was not there to ask.
type failed struct{ quota, rate [events.ResourceCount]bool }

// failed returns what is not known. A limit that is known to be used up stays so without the store.
func (s *subject) failed(need *needs, mono int64, failing bool) (f failed) {
	if !failing {
		return f
	}
	p := s.plan.Load()
	for r, n := range need {
		if n == 0 || !p.limited[r] {
			continue
		}
		f.quota[r] = true
		for _, a := range s.current[r] {
			if a.held() < n && a.exhausted() {
				f.quota[r] = false
			}
		}
		f.rate[r] = s.rates[r] != nil && mono >= s.rates[r].retryAt
	}
	return f
}

// decide divides the events of each resource.
func (v *visit) decide(f *findings, unknown failed, set *settings) {
	for r, n := range v.need {
		if n == 0 {
			continue
		}
		pass, rest := f.quota[r], n-f.quota[r]
		if v.subject == nil || unknown.quota[r] && rest > 0 {
			if set.open {
				v.open[r] = rest
			} else {
				v.lost[r] = true
			}
		}
		v.charged[r] = f.rate[r]
		if over := pass - f.rate[r]; over > 0 {
			switch {
			case !unknown.rate[r]:
				v.over[r] = over
			case set.open:
				v.loose[r] = over
			default:
				v.lost[r] = true
			}
		}
	}
}

// take takes from the accounts what the events that pass need, and notes where the limits stand. The subject is locked.
func (v *visit) take(p *plan, f *findings, now, mono int64, mine *draw, batch *events.Batch) {
	s := v.subject
	for r, n := range v.need {
		if n == 0 {
			continue
		}
		resource := events.Resource(r)
		spend := v.charged[r] + v.loose[r]
		if p.limits.Over == events.OverOverflow {
			spend += v.over[r]
		}
		least := int64(-1)
		if f.quota[r]+v.open[r] < n && !v.lost[r] {
			least = s.least(r)
		}
		for _, a := range s.current[r] {
			room := a.room()
			over := room == least || room < n && least >= 0 && p.limits.Whole
			if spend > 0 {
				a.spend(spend, now)
				v.spent = append(v.spent, spending{a, resource, spend})
			}
			batch.Standings.Add(a.standing(now, over))
		}
		if a := s.rates[r]; a != nil {
			if v.charged[r] > 0 {
				of := a.spend(v.charged[r], mono, mine)
				v.drained = append(v.drained, draining{a, resource, of, a.draws})
			}
			standing := a.standing(mono, &p.rates[r], v.over[r], p.limits.Whole)
			if standing.Over {
				v.wait = max(v.wait, standing.Reset)
			}
			batch.Standings.Add(standing)
		}
	}
}

var (
	errStopped = events.Errorf(events.Unavailable, "the service stops")

	errOver = events.Errorf(events.RateLimited, "the project sends faster than its limits allow")
	errAway = events.Errorf(events.Unavailable, "how much the project has sent is not known, since the store of the "+
		"shared state does not answer")
)

// mark carries the decision out, in the order of the events.
func (v *visit) mark(p *plan, batch *events.Batch) {
	q := v.quota
	all := true
	for r, n := range v.need {
		if n > 0 {
			all = all && v.charged[r] == n
			q.metrics.count(events.Resource(r), v)
		}
	}
	if all {
		return
	}
	charged, loose, over, open := v.charged, v.loose, v.over, v.open
	for i := range batch.Events {
		event := &batch.Events[i]
		r, counted := event.Charge.Quota()
		if !counted || !event.Pending() {
			continue
		}
		switch {
		case charged[r] > 0:
			charged[r]--
		case loose[r] > 0:
			loose[r]--
			event.Charge = events.ChargeOf(r, false)
		case over[r] > 0:
			over[r]--
			v.overRate(event, r, p.limits.Over)
		case open[r] > 0:
			open[r]--
			event.Charge = 0
		case v.lost[r]:
			event.Charge = 0
			event.Fail(events.ReasonStore, errAway)
		default:
			event.Charge = 0
			event.Drop(events.ReasonQuota)
		}
	}
	if v.wait > 0 && p.limits.Over == events.OverReject {
		batch.RetryAfter = max(batch.RetryAfter, v.wait)
	}
}

// overRate treats an event that is over its rate.
func (v *visit) overRate(event *events.Event, r events.Resource, over events.Over) {
	switch over {
	case events.OverDrop:
		event.Charge = 0
		event.Drop(events.ReasonRateLimited)
	case events.OverReject:
		event.Charge = 0
		event.Fail(events.ReasonRateLimited, errOver)
	default:
		event.Charge = events.ChargeOf(r, false)
		event.Routing.Overflow, event.Routing.Unkeyed = true, true
	}
}

// end gives back what was taken for events that were not accepted. Events of which it is known only later whether they
// are safe count until then.
func (v *visit) end(_ context.Context, batch *events.Batch) {
	var kept, rated needs
	var later *overdue
	for i := range batch.Events {
		event := &batch.Events[i]
		r, counted := event.Charge.Quota()
		late := event.Outcome.Late
		safe := event.Outcome.State == events.StateAccepted && event.Outcome.Reason != events.ReasonDuplicate
		if !counted || !safe && late == nil {
			continue
		}
		kept[r]++
		if event.Charge.Rate() {
			rated[r]++
		}
		if late != nil {
			later = later.with(v, late, r)
		}
	}
	if v.owes(&kept, &rated) {
		v.giveBack(&kept, &rated)
	}
	if later != nil {
		v.subject = nil // later leaves it
	}
	v.leave()
	later.listen()
}

// owes reports whether there is something to give back.
func (v *visit) owes(kept, rated *needs) bool {
	for i := range v.spent {
		if v.spent[i].n > kept[v.spent[i].resource] {
			return true
		}
	}
	for i := range v.drained {
		if r := v.drained[i].resource; v.charged[r] > rated[r] {
			return true
		}
	}
	return false
}

// giveBack gives back to the accounts that were spent from. What belongs to a window that has ended is of no use any
// more, and what was drawn from a rate before the last draw is too old.
func (v *visit) giveBack(kept, rated *needs) {
	s := v.subject
	mono := v.quota.mono()
	s.mu.Lock()
	defer s.mu.Unlock()
	var told [events.ResourceCount]bool
	for i := range v.spent {
		spent := &v.spent[i]
		r := spent.resource
		if n := spent.n - kept[r]; n > 0 && spent.account.giveBack(n) && !told[r] {
			told[r] = true
			v.quota.metrics.refunded[r].Inc(n)
		}
	}
	for i := range v.drained {
		drained := &v.drained[i]
		if n := v.charged[drained.resource] - rated[drained.resource]; n > 0 {
			drained.bucket.giveBack(n, drained.of, drained.draws, mono)
		}
	}
}

// leave ends the visit.
func (v *visit) leave() {
	if v.subject != nil {
		v.subject.visits.Add(-1)
	}
	v.quota.put(v)
}

// put keeps a visit for the next request.
func (q *Quota) put(v *visit) {
	clear(v.spent)
	clear(v.drained)
	*v = visit{quota: q, settle: v.settle, spent: v.spent[:0], drained: v.drained[:0]}
	q.visits.Put(v)
}
