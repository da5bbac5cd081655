package quota

import (
	"slices"
	"sync/atomic"

	"github.com/opencapture/capture/modules/events"
)

// overdue is the part of a visit whose events have failed before anybody knew whether they are safe. They count against
// quotas until that is known: if they are stored after all, nobody brings them again, or brings a duplicate. What they
// have taken from rates is not given back, since it would be too old.
type overdue struct {
	quota   *Quota
	subject *subject // the visit has not left it
	spent   []spending
	ends    []overdueEnd
	open    atomic.Int64 // how many of them are not known
}

type overdueEnd struct {
	end      *events.Late
	resource events.Resource
}

// with adds an event of the visit. A nil overdue is one without events.
func (o *overdue) with(v *visit, end *events.Late, r events.Resource) *overdue {
	if o == nil {
		o = &overdue{quota: v.quota, subject: v.subject, spent: slices.Clone(v.spent)}
	}
	o.ends = append(o.ends, overdueEnd{end, r})
	return o
}

// listen asks the events how they end.
func (o *overdue) listen() {
	if o == nil {
		return
	}
	o.open.Store(int64(len(o.ends)))
	for _, of := range o.ends {
		of.end.Then(func(safe bool) {
			if !safe {
				o.giveBack(of.resource)
			}
			if o.open.Add(-1) == 0 {
				o.subject.visits.Add(-1)
			}
		})
	}
}

// giveBack gives back what one event has taken.
func (o *overdue) giveBack(r events.Resource) {
	o.subject.mu.Lock()
	defer o.subject.mu.Unlock()
	told := false
	for i := range o.spent {
		if spent := &o.spent[i]; spent.resource == r && spent.account.giveBack(1) && !told {
			told = true
			o.quota.metrics.refunded[r].Inc(1)
		}
	}
}
