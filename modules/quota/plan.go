package quota

import (
	"slices"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// plan is the limits of a project in the form in which they are applied. It never changes.
type plan struct {
	limits *events.Limits
	zone   *time.Location
	// limited has the resources that have a limit.
	limited [events.ResourceCount]bool
	// quotas has for each resource at most one quota of a period: the smallest.
	quotas [events.ResourceCount][]events.Quota
	rates  [events.ResourceCount]rate
	// users has the rate of each user. Its limit is 0 if there is none.
	users                   [events.ResourceCount]rate
	any, hasRates, hasUsers bool
}

// rate is a rate in the form in which it is drawn. Its limit is 0 if there is none.
type rate struct {
	events.Rate
	// hold is how long the node may hold what it has drawn. burst is the burst for the store: smaller than that of the
	// rate by what fills up in that time, and by what the nodes keep.
	hold  time.Duration
	burst int64
	// kept is how much all nodes may draw at once to keep it for horizon, and how much more they may in each horizon.
	// 0: they keep nothing.
	kept int64
}

// keptInterval is the time in which the nodes may draw one more unit to keep.
func (r *rate) keptInterval() time.Duration {
	return (horizon + time.Duration(r.kept) - 1) / time.Duration(r.kept)
}

const (
	// longestHold is how long a node holds what it has drawn from a rate at most.
	longestHold = time.Second
	// smallBurst is the burst below which a node holds nothing: a tenth of it would be hardly anything.
	smallBurst = 20
	// heldShare is the part of a burst, one in so many, that fills up while a node holds what it has drawn, and that
	// the nodes keep. If they keep something, it is half of that: one part in keptShare that they may draw at once,
	// and as much again that they draw while they keep it.
	heldShare, keptShare = 10, 40
	// leastKept is how much the nodes have to be allowed to keep, so that it is worth a second draw, and mostKept is
	// more than they need.
	leastKept, mostKept = 10, 1_000_000_000
)

// newRate prepares a rate. Where a request passes as a whole or not at all, nothing is held, so that a request as large
// as the burst can pass. keep says that the nodes may keep some of what they draw.
func newRate(r events.Rate, whole, keep bool) rate {
	made := rate{Rate: r, burst: r.Burst}
	if whole || r.Burst < smallBurst {
		return made
	}
	interval, held := r.Interval(), r.Burst/heldShare
	if keep && r.Burst/keptShare >= leastKept {
		made.kept = min(r.Burst/keptShare, mostKept)
		held /= 2
	}
	made.hold = min(longestHold, time.Duration(held)*interval)
	made.burst -= int64((made.hold+interval-1)/interval) + 2*made.kept
	return made
}

func newPlan(limits *events.Limits) *plan {
	p := &plan{limits: limits, zone: limits.Zone}
	if p.zone == nil {
		p.zone = time.UTC
	}
	for _, quota := range limits.Quotas {
		p.limited[quota.Resource], p.any = true, true
		p.add(quota)
	}
	for _, r := range limits.Rates {
		p.limited[r.Resource], p.any, p.hasRates = true, true, true
		p.rates[r.Resource] = newRate(r, limits.Whole, true)
	}
	for _, r := range limits.UserRates {
		p.hasUsers = true
		p.users[r.Resource] = newRate(r, false, false) // those that have an account send much
	}
	return p
}

func (p *plan) add(quota events.Quota) {
	quotas := p.quotas[quota.Resource]
	for i := range quotas {
		if quotas[i].Period == quota.Period {
			quotas[i].Limit = min(quotas[i].Limit, quota.Limit)
			return
		}
	}
	p.quotas[quota.Resource] = append(quotas, quota)
}

// sameAs reports whether the limits of the plan say the same. A project's record that is read again is another one that
// mostly says the same.
func (p *plan) sameAs(limits *events.Limits) bool {
	own := p.limits
	if own == limits {
		return true
	}
	if len(own.Quotas) != len(limits.Quotas) || len(own.Rates) != len(limits.Rates) ||
		!slices.Equal(own.UserRates, limits.UserRates) || own.Over != limits.Over ||
		own.Whole != limits.Whole || zoneName(own.Zone) != zoneName(limits.Zone) {
		return false
	}
	for i := range own.Quotas {
		if own.Quotas[i] != limits.Quotas[i] {
			return false
		}
	}
	for i := range own.Rates {
		if own.Rates[i] != limits.Rates[i] {
			return false
		}
	}
	return true
}

func zoneName(zone *time.Location) string {
	if zone == nil {
		return time.UTC.String()
	}
	return zone.String()
}
