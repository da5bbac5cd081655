package events

import (
	"context"
	"strconv"
	"time"
)

// LimitKind is a kind of limit that a project may have for a resource.
type LimitKind uint8

// The kinds. The first four are quotas, in the order of the periods.
const (
	LimitMinute LimitKind = iota
	LimitHour
	LimitDay
	LimitMonth
	// LimitRate is the rate of the project, LimitUserRate the rate of one of its users.
	LimitRate
	LimitUserRate
	// LimitBilling is a limit that PostHog's own application has set, because a project has used up what is paid for.
	LimitBilling
	limitKindCount
)

var limitKindNames = [limitKindCount]string{
	periodNames[PerMinute], periodNames[PerHour], periodNames[PerDay], periodNames[PerMonth], "rate", "user", "billing",
}

func (k LimitKind) String() string {
	if k < limitKindCount {
		return limitKindNames[k]
	}
	return "unknown"
}

var limitNames = func() (names [resourceCount][limitKindCount]string) {
	for resource := range names {
		for kind := range names[resource] {
			names[resource][kind] = resourceNames[resource] + "-" + limitKindNames[kind]
		}
	}
	return names
}()

// Standing is where a project stands with one of its limits, as far as its node knows: other nodes may have let more
// events pass since the node last heard of it.
type Standing struct {
	Resource Resource
	Kind     LimitKind
	// Over says that the limit has kept events of this batch from passing.
	Over bool
	// Limit is how many events pass in the Window. Both are 0 for LimitBilling, whose limit only PostHog knows.
	Limit  int64
	Window time.Duration
	// Remaining is how many more events may pass now.
	Remaining int64
	// Reset is how long it takes until the limit lets more pass than now: for a quota the rest of its window, for a
	// rate the time until the burst is whole again or, if the limit is Over, until events of this number may pass.
	Reset time.Duration
}

// Name returns the name of the limit, such as "events-month" or "recordings-rate". It is one of a fixed number.
func (s *Standing) Name() string {
	if s.Resource < resourceCount && s.Kind < limitKindCount {
		return limitNames[s.Resource][s.Kind]
	}
	return "unknown"
}

// tighter reports whether the standing says more to a client than the other: limits that are over go first, and then
// those of which the smallest part remains.
func (s *Standing) tighter(other *Standing) bool {
	if s.Over != other.Over {
		return s.Over
	}
	return s.part() < other.part()
}

func (s *Standing) part() float64 { return float64(s.Remaining) / max(1, float64(s.Limit)) }

// MaxStandings is how many limits of a batch its Standings hold.
const MaxStandings = 8

// Standings are the limits that a batch was judged by. They need no memory of their own.
type Standings struct {
	n   int
	all [MaxStandings]Standing
}

// Add adds a limit. If there is no room left, those stay that say most to a client: the limits that are over, and then
// those of which the smallest part remains.
func (s *Standings) Add(standing Standing) {
	if s.n < MaxStandings {
		s.all[s.n] = standing
		s.n++
		return
	}
	loosest := 0
	for i := range s.all {
		if s.all[loosest].tighter(&s.all[i]) {
			loosest = i
		}
	}
	if standing.tighter(&s.all[loosest]) {
		s.all[loosest] = standing
	}
}

// All returns the limits in the order in which they were added. The slice is part of the Standings.
func (s *Standings) All() []Standing { return s.all[:s.n] }

// Charge says which limits an event was counted against. The zero value is none. Stages may reorder, rename and add
// events, so the event itself has to know.
type Charge uint8

const (
	charged     Charge = 1 << 7
	chargedRate Charge = 1 << 6
)

// ChargeOf returns the charge of an event that was counted as one of the resource: against the quotas, and if rate is
// set also against the rate.
func ChargeOf(resource Resource, rate bool) Charge {
	charge := charged | Charge(resource)
	if rate {
		charge |= chargedRate
	}
	return charge
}

// Quota returns the resource under which the event was counted against quotas, if it was.
func (c Charge) Quota() (Resource, bool) {
	return Resource(c &^ (charged | chargedRate)), c&charged != 0
}

// Rate reports whether the event was also counted against the rate of that resource.
func (c Charge) Rate() bool { return c&chargedRate != 0 }

// Allowances tells what projects may send and how much of that they have sent, and changes the latter. It is for
// operators. modules/quota implements it. It is safe for concurrent use. The errors of the store come as they are
// (store.ErrUnavailable).
type Allowances interface {
	// LimitsOf returns the limits that hold for a project, which may be nil: its own, or else those for all projects.
	// The result is not nil and never changes.
	LimitsOf(project *Project) *Limits

	// Usage returns how much of the quotas of these limits the token has used in the windows of this moment, in the
	// order of the limits.
	Usage(ctx context.Context, token string, limits *Limits) ([]Allowance, error)

	// Refund lowers by n what the token has used of the quota in the window of this moment; a negative n raises it.
	// Reset lowers it as far as possible. Used never falls below what nodes hold at present, and never below 0. Both
	// return what is used and held then. A node that had found the quota used up sees the change within a second.
	Refund(ctx context.Context, token string, limits *Limits, quota Quota, n int64) (Allowance, error)
	Reset(ctx context.Context, token string, limits *Limits, quota Quota) (Allowance, error)
}

// Allowance is how much of a quota is used.
type Allowance struct {
	Quota Quota
	// Used is what the nodes have taken of the limit. Held is how much of that they hold and have not spent.
	Used, Held int64
	// Start and Reset are the window.
	Start, Reset time.Time
}

// Counter names the counter of the quota in the window that begins at start: "quota:events:month:20261101T0000Z". The
// name does not depend on the limit, so a changed limit counts what was used before.
func (q Quota) Counter(start time.Time) string {
	return "quota:" + q.Resource.String() + ":" + q.Period.String() + ":" + start.UTC().Format("20060102T1504Z")
}

// Counter names the counter of the rate: "rate:events:10000000:5000", with the nanoseconds that an event takes and the
// burst. A counter of a rate says when it will be full, and that means nothing to another rate: a project that had sent
// a burst at one event an hour would wait for days after its rate was raised. So a changed rate has another counter.
func (r Rate) Counter() string { return "rate:" + r.terms() }

// UserCounter names the counter of the rate for a user, whom digest stands for: "user:events:10000000:5000:digest".
func (r Rate) UserCounter(digest string) string { return "user:" + r.terms() + ":" + digest }

func (r Rate) terms() string {
	return r.Resource.String() + ":" + strconv.FormatInt(int64(r.Interval()), 10) + ":" + strconv.FormatInt(r.Burst, 10)
}
