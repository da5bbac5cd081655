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
	// rate by what fills up in that time.
	hold  time.Duration
	burst int64
}

const (
	// longestHold is how long a node holds what it has drawn from a rate at most.
	longestHold = time.Second
	// smallBurst is the burst below which a node holds nothing: a tenth of it would be hardly anything.
	smallBurst = 20
	// heldShare is the part of a burst, one in so many, that fills up while a node holds what it has drawn.
	heldShare = 10
)

// newRate prepares a rate. Where a request passes as a whole or not at all, nothing is held, so that a request as large
// as the burst can pass.
func newRate(r events.Rate, whole bool) rate {
	made := rate{Rate: r, burst: r.Burst}
	if whole || r.Burst < smallBurst {
		return made
	}
	interval := r.Interval()
	made.hold = min(longestHold, time.Duration(r.Burst/heldShare)*interval)
	made.burst -= int64((made.hold + interval - 1) / interval)
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
		p.rates[r.Resource] = newRate(r, limits.Whole)
	}
	for _, r := range limits.UserRates {
		p.hasUsers = true
		p.users[r.Resource] = newRate(r, false)
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
