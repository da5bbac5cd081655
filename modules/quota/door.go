package quota

import (
	"context"

	"github.com/opencapture/capture/modules/events"
)

// door is the stage that turns requests away of which the node knows that no event passes, before the stage that looks
// for duplicates asks the store about each of their events. So a project that sends far more than it may costs the
// others, and the store, as little as possible. It judges as Quota does, and leaves every request to it that might
// spend something. An event that is turned away may be a duplicate; its client hears of the limit instead.
type door struct{ quota *Quota }

// Phase is just before events.PhaseDedup.
func (d door) Phase() events.Phase { return events.PhaseDedup - 1 }

// Name is "quota_door".
func (d door) Name() string { return "quota_door" }

// Process ends the pending events that are under limits, or leaves all of them alone. It returns no Settle, because
// nothing is spent, and no error.
func (d door) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	q := d.quota
	set := q.settings.In(batch.Config)
	s, p := q.planFor(set, batch)
	if s == nil && p.any {
		s = q.table.find(batch.Token)
	}
	if !p.any || s == nil || !s.spent.Load() {
		return nil, nil
	}
	v := q.visits.Get().(*visit)
	if p.needsOf(batch, &v.need) == 0 || !q.turnAway(s, p, v, set, batch) {
		for i := range batch.Events {
			batch.Events[i].Charge = 0
		}
		q.put(v)
		return nil, nil
	}
	v.mark(p, batch)
	v.leave()
	return nil, nil
}

// turnAway judges a request if no event of it passes and the store need not be asked for that. It returns false, and
// has changed nothing, if that is not so.
func (q *Quota) turnAway(s *subject, p *plan, v *visit, set *settings, batch *events.Batch) bool {
	now, mono := q.now(), int64(0)
	if p.hasRates {
		mono = q.mono()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || q.stopped.Load() || !s.adopt(p, now, q.table) {
		return false
	}
	f := s.look(&v.need, now.UnixNano(), mono, nil)
	if f.missing {
		return false
	}
	v.subject = s
	v.decide(&f, failed{}, set)
	if !v.passesNone(p) {
		return false
	}
	s.visits.Add(1)
	s.touched = min(s.touched+1, mostTouches)
	s.usedAt = now.UnixNano()
	v.take(p, &f, now.UnixNano(), mono, nil, batch)
	return true
}

// passesNone reports whether none of the events under limits goes on.
func (v *visit) passesNone(p *plan) bool {
	for r := range v.need {
		if v.charged[r]+v.loose[r]+v.open[r] > 0 || v.over[r] > 0 && p.limits.Over == events.OverOverflow {
			return false
		}
	}
	return true
}
