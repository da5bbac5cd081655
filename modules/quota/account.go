package quota

import (
	"time"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
)

const (
	// horizon is for how long the node draws ahead, by what the account has spent of late. Requests go to the store as
	// often as that for each busy token.
	horizon = 10 * time.Second
	// unspentShare is the part of a quota, one in so many, that all nodes together hold unspent at most.
	unspentShare = 100
	// nodesTogether is how many nodes can hold a share at the same time: each draws so small a part ahead of what all
	// may hold.
	nodesTogether = 8
	// pause is how long the node takes the store's word that a quota is used up.
	pause = time.Second
	// shortPause is the same for a rate of which the node holds nothing, if an event takes longer than that.
	shortPause = 100 * time.Millisecond
	// resting is how long an account has to be unused until the node gives back what it holds.
	resting = 5 * time.Second
	// leastSpan is the time over which the demand is measured at least, so that two requests that come together are not
	// taken for a flood.
	leastSpan = time.Second
	// growth is how many times as much a node draws ahead from a rate the next time, at most.
	growth = 8
)

// account is the node's account of a quota in a window. The subject's lock guards it. Times are in nanoseconds since
// 1970, by the store's clock.
type account struct {
	quota      events.Quota
	counter    string
	node       string
	start, end time.Time
	until      int64 // end
	slot       *slot

	// confirmed is set when the store has answered a draw from this account in this process. Until then the node does
	// not spend what an earlier process has left: it might be the time of another window.
	confirmed bool
	// told is how much the store thinks that the node holds. unsure is set if it may think otherwise, and may have
	// granted what the node does not know of: a call was not answered.
	told   int64
	unsure bool
	// used is what the nodes had of the limit when the store last said so. left is how much of the limit was left then.
	used, left int64
	// retryAt is when the store may be asked again for more than left.
	retryAt int64

	// demand is how many events a second the account has spent of late. drawn is when the node drew last, and spent
	// what it has spent since.
	demand float64
	drawn  int64
	spent  int64
	// usedAt is when the account was last spent from.
	usedAt int64
	// ended is set when the account is given up. Nothing is given back to it any more.
	ended bool
}

func (a *account) held() int64 { return a.slot.held.Load() }

// spendable returns how much of what the node holds may be spent, if so much is reserved.
func (a *account) spendable(reserved int64) int64 {
	if !a.confirmed {
		return 0
	}
	return max(0, a.held()-reserved)
}

// spend takes n of what the node holds.
func (a *account) spend(n, now int64) {
	a.slot.held.Store(a.held() - n)
	a.spent += n
	a.usedAt = now
}

// giveBack is the opposite of spend. It reports whether the account is still there to take it.
func (a *account) giveBack(n int64) bool {
	if a.ended {
		return false
	}
	a.slot.held.Store(a.held() + n)
	a.spent -= n
	return true
}

// exhausted reports whether the quota was used up when the store was last asked, and nobody has asked since.
func (a *account) exhausted() bool { return a.quota.Limit == 0 || a.confirmed && a.left == 0 }

// mayAsk reports whether the store may have n more.
func (a *account) mayAsk(n, now int64, whole bool) bool {
	switch {
	case a.quota.Limit == 0 || whole && n > a.quota.Limit:
		return false
	case now >= a.retryAt:
		return true
	case whole:
		return n <= a.left
	default:
		return a.left > 0
	}
}

// ahead returns how much the node should hold beyond what requests need now.
func (a *account) ahead(now int64) int64 {
	if a.drawn > 0 {
		a.demand = max(float64(a.spent)/max(leastSpan, time.Duration(now-a.drawn)).Seconds(), a.demand/2)
	}
	return min(int64(a.demand*horizon.Seconds()), a.quota.Limit/unspentShare/nodesTogether)
}

// low reports whether the node will soon have to draw again.
func (a *account) low() bool {
	return a.retryAt == 0 && float64(a.spendable(0)) < a.demand*horizon.Seconds()/4
}

// draw returns a draw of need units beyond what the node holds, and of some ahead. If need is negative, the node holds
// more than it needs.
func (a *account) draw(need, now int64) store.QuotaDraw {
	d := a.statement()
	d.Need, d.Extra = min(max(0, need), a.quota.Limit), a.ahead(now)
	if now < a.retryAt {
		d.Need = min(d.Need, a.left)
	}
	if need < 0 {
		d.Extra = max(0, d.Extra+need)
	}
	a.drawn, a.spent, a.unsure = now, 0, true
	return d
}

// drawBack returns a draw that gives back all that the node holds.
func (a *account) drawBack() store.QuotaDraw {
	held := a.held()
	a.slot.held.Store(0)
	a.slot.returned.Store(a.slot.returned.Load() + held)
	a.demand, a.drawn, a.spent, a.unsure = 0, 0, 0, true
	return a.statement()
}

// statement returns a draw of nothing.
func (a *account) statement() store.QuotaDraw {
	return store.QuotaDraw{
		Counter: a.counter, Node: a.node, Account: a.slot.serial, Start: a.start, End: a.end, Limit: a.quota.Limit,
		Unspent: a.quota.Limit / unspentShare, Granted: a.slot.granted.Load(), Returned: a.slot.returned.Load(),
		Held: a.held(),
	}
}

// drew enters what a draw has brought, and reports whether the need was met.
func (a *account) drew(d *store.QuotaDraw, now int64) (met bool) {
	brought := max(0, d.Given-d.Granted)
	a.slot.granted.Store(d.Granted + brought)
	a.slot.held.Store(a.held() + brought)
	a.confirmed, a.unsure = true, false
	a.told = d.Held + max(0, brought-d.Need)
	a.used, a.left = d.Used, max(0, d.Limit-d.Used)
	met = brought >= d.Need
	a.retryAt = 0
	if !met || a.left == 0 {
		a.retryAt = now + int64(pause)
	}
	return met
}

// room returns how many more events pass, as far as the node knows.
func (a *account) room() int64 {
	if !a.confirmed {
		return a.quota.Limit
	}
	return min(a.held()+a.left, a.quota.Limit)
}

// standing tells where the account stands. over says that it has kept events from passing.
func (a *account) standing(now int64, over bool) events.Standing {
	return events.Standing{
		Resource: a.quota.Resource, Kind: events.LimitKind(a.quota.Period), Over: over, Limit: a.quota.Limit,
		Window: a.end.Sub(a.start), Remaining: a.room(), Reset: max(0, time.Duration(a.until-now)),
	}
}

// rateAccount is what the node has drawn from a rate. The subject's lock guards it. Times are in nanoseconds since the
// stage began, by the monotonic clock.
//
// What is not spent in time is forgotten, and not given back: the counter may have been full since, so that it would
// have room for more than its burst.
//
// A project that sends little would have to draw for each request, since what is held ends so soon. So a node draws for
// it what it keeps for horizon. How much all nodes keep has a counter of its own, which bounds it: all that passes in a
// time was drawn in that time and the hold before, or is of what was drawn to be kept in the horizon before.
type rateAccount struct {
	rate    events.Rate
	counter string
	// held is what is left of the last draw. It may be spent until expires, and by the requests that have waited for
	// that draw. draws is the number of draws so far. old is what is left of the draws before, to be spent until
	// oldExpires.
	held, expires   int64
	old, oldExpires int64
	// kept is what the last draw has brought to be kept, until keptUntil. keepAt is when the node may ask for more.
	kept, keptUntil, keepAt int64
	last                    *draw
	draws                   uint64
	// left is how many units there were at the time of the last draw. retryAt is when the store may be asked again.
	left, at, retryAt int64

	demand float64
	drawn  int64
	spent  int64
}

// available returns how much of the rate a request may spend. mine is the draw that it has waited for, or nil.
func (a *rateAccount) available(now int64, mine *draw) (n int64) {
	if now < a.oldExpires {
		n = a.old
	}
	if now < a.expires || mine != nil && mine == a.last {
		n += a.held
	}
	if now < a.keptUntil {
		n += a.kept
	}
	return n
}

// drained is what a request has taken of what the last draw has brought: of what is held, and of what is kept.
type drained struct{ held, kept int64 }

// spend takes n, of what expires first. There is as much available. It returns how much of that is of the last draw.
// mine is the draw that the request has waited for, or nil.
func (a *rateAccount) spend(n, now int64, mine *draw) (of drained) {
	a.spent += n
	if now < a.oldExpires {
		old := min(n, a.old)
		a.old -= old
		n -= old
	}
	if now < a.expires || mine != nil && mine == a.last {
		of.held = min(n, a.held)
		a.held -= of.held
	}
	of.kept = n - of.held
	a.kept -= of.kept
	return of
}

// giveBack is the opposite of spend, for n of what was of the last draw after so many draws. It is too late once there
// was another one.
func (a *rateAccount) giveBack(n int64, of drained, draws uint64, now int64) {
	if a.draws != draws {
		return
	}
	kept := min(n, of.kept)
	if now < a.keptUntil {
		a.kept += kept
		a.spent -= kept
	}
	if held := min(n-kept, of.held); now < a.expires {
		a.held += held
		a.spent -= held
	}
}

// low reports whether the node will soon have to draw again, although it need not yet.
func (a *rateAccount) low(now int64, r *rate) bool {
	if a.demand == 0 || now < a.keptUntil && float64(a.kept) >= a.demand*horizon.Seconds()/4 {
		return false
	}
	return now >= a.expires-int64(r.hold)/2
}

// keep returns how much the node should draw to keep it, instead of what it would hold ahead: 0 if that is more, or if
// the nodes keep as much as they may.
func (a *rateAccount) keep(r *rate, ahead, now int64) int64 {
	keep := min(int64(a.demand*horizon.Seconds()), r.kept/nodesTogether, a.spare(r))
	if keep <= ahead || now < a.keepAt {
		return 0
	}
	return keep
}

// draw returns a draw for n units, or as many as there are, but no fewer than least. If it also is for units to keep,
// keeping is the draw that says how many of them are.
func (a *rateAccount) draw(n, least, now int64, r *rate, mine *draw) (d, keeping store.RateDraw) {
	if a.drawn > 0 && r.hold > 0 {
		span := max(r.hold/growth, time.Duration(now-a.drawn))
		a.demand = max(float64(a.spent)/span.Seconds(), a.demand/2)
	}
	ahead := min(int64(a.demand*r.hold.Seconds()), r.Burst/heldShare, a.spare(r))
	keep := a.keep(r, ahead, now)
	ahead = max(ahead, keep)
	if now >= a.oldExpires || a.old == 0 {
		a.old, a.oldExpires = 0, maxTime
	}
	a.age(a.held, a.expires, now)
	a.age(a.kept, a.keptUntil, now)
	n, least = max(0, n-a.old), max(0, least-a.old)
	a.held, a.expires, a.kept, a.keptUntil, a.drawn, a.spent = 0, 0, 0, 0, now, 0
	a.draws++
	a.last = mine
	d = store.RateDraw{
		Counter: a.counter, Interval: r.Interval(), Burst: r.burst, Need: min(n, least),
		Extra: max(0, n-least) + ahead,
	}
	if keep > 0 {
		keeping = store.RateDraw{
			Counter: a.counter + keptCounter, Interval: r.keptInterval(), Burst: r.kept, Extra: keep,
		}
	}
	return d, keeping
}

// spare returns how much may be drawn ahead without harm: what was in the upper half of the burst when the store last
// said so. What is drawn ahead and not spent in time is lost, so whoever sends within the rate would run out of it.
// From the lower half nothing is drawn ahead, so there it fills up.
func (a *rateAccount) spare(r *rate) int64 { return max(0, a.left-r.burst/2) }

// keptCounter is what the counter of what the nodes keep of a rate has behind the rate's name.
const keptCounter = ":kept"

// age makes what is left of the last draw a part of what is old.
func (a *rateAccount) age(n, expires, now int64) {
	if now < expires && n > 0 {
		a.old, a.oldExpires = a.old+n, min(a.oldExpires, expires)
	}
}

// drew enters what a draw has brought, of n units that are owed. keeping is the draw that says how many of them the
// node may keep, or nil. began is when the draw began.
func (a *rateAccount) drew(d, keeping *store.RateDraw, n, began, now int64, r *rate) {
	a.held, a.expires = d.Given, began+int64(r.hold)
	if keeping != nil {
		a.kept = min(keeping.Given, max(0, d.Given-max(0, n-a.old)))
		if keeping.Given < keeping.Extra {
			a.keepAt = now + int64(horizon)/2
		}
	}
	a.keptUntil = began + int64(horizon)
	a.held -= a.kept
	a.left, a.at = d.Left, now
	a.retryAt = 0
	if a.available(began, a.last) < n {
		// What fills up meanwhile is not lost: the burst has room for it.
		a.retryAt = now + int64(max(min(d.Wait, pause), r.hold/2, min(r.Interval(), shortPause)))
	}
}

// standing tells where the account stands. over is how many events of a request it has kept from passing. If they would
// have passed only together, what was too little for them is still there.
func (a *rateAccount) standing(now int64, r *rate, over int64, whole bool) events.Standing {
	interval := int64(r.Interval())
	s := events.Standing{
		Resource: r.Resource, Kind: events.LimitRate, Over: over > 0, Limit: r.Limit, Window: r.Per,
		Remaining: min(r.Burst, a.left+a.held+a.kept+a.old+(now-a.at)/interval),
	}
	if a.draws == 0 {
		s.Remaining = r.Burst
	}
	if s.Over && !whole {
		s.Remaining = 0
	}
	if s.Over {
		s.Reset = max(time.Duration(a.retryAt-now), time.Duration((min(over, r.Burst)-s.Remaining)*interval))
		return s
	}
	s.Reset = time.Duration((r.Burst - s.Remaining) * interval)
	return s
}
