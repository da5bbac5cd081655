package quota

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

// newUserAccount returns the account of a user's rate. A distinct_id may be long, and of any bytes, so its digest
// stands in the name of the counter.
func newUserAccount(rate events.Rate, distinctID string) rateAccount {
	digest := sha256.Sum256([]byte(distinctID))
	return rateAccount{rate: rate, counter: rate.UserCounter(hex.EncodeToString(digest[:16]))}
}

// mostDraws is how many draws of users a call of the store has at most.
const mostDraws = 128

// fewParties is up to how many parties are looked through one by one.
const fewParties = 16

// crowd is a request's users that have accounts. Crowds are used again.
type crowd struct {
	parties []party
	// index has the parties by their users, plus one, once there are more than a few.
	index map[*user]int32
	// of has the party of each event of the batch, plus one; 0 is none.
	of    []int32
	draws []store.RateDraw
	drawn []int
}

// party is what a request needs of a user's account.
type party struct {
	user    *user
	n, pass int64
	lost    bool
	over    int64
}

// judgeUsers judges the events of users that have rates. What is over a rate goes into overflow, is dropped, or fails.
func (q *Quota) judgeUsers(ctx context.Context, p *plan, set *settings, batch *events.Batch) {
	if q.stopped.Load() {
		return
	}
	c := q.crowds.Get().(*crowd)
	defer q.crowds.Put(c)
	now, prefix := q.mono(), q.hot.prefix(batch.Token)
	c.parties, c.of, c.draws, c.drawn = c.parties[:0], c.of[:0], c.draws[:0], c.drawn[:0]
	for i := range batch.Events {
		event := &batch.Events[i]
		place := int32(0)
		if event.Pending() {
			if r := event.Resource(); p.users[r].Limit > 0 {
				if u := q.hot.of(prefix, batch.Token, event.DistinctID, r, &p.users[r], now); u != nil {
					place = c.add(u)
				}
			}
		}
		c.of = append(c.of, place)
	}
	if len(c.parties) == 0 {
		return
	}
	q.askForUsers(ctx, p, c, batch.Token, now)
	q.markUsers(p, set, c, batch)
	clear(c.parties) // no account stays alive for a request that has ended
	c.index = nil
}

// add counts an event of a user, and returns the user's party plus one.
func (c *crowd) add(u *user) int32 {
	if place := c.find(u); place > 0 {
		c.parties[place-1].n++
		return place
	}
	c.parties = append(c.parties, party{user: u, n: 1})
	place := int32(len(c.parties))
	if place > fewParties {
		if c.index == nil {
			c.index = map[*user]int32{}
		}
		c.index[u] = place
	}
	return place
}

func (c *crowd) find(u *user) int32 {
	for i := range min(len(c.parties), fewParties) {
		if c.parties[i].user == u {
			return int32(i + 1)
		}
	}
	return c.index[u]
}

// askForUsers takes from the accounts of a request's users, after a round trip for every 128 that hold too little.
func (q *Quota) askForUsers(ctx context.Context, p *plan, c *crowd, token string, now int64) {
	order := make([]int, len(c.parties))
	for i := range order {
		order[i] = i
	}
	// In one order for all, so that no two requests wait for each other.
	slices.SortFunc(order, func(a, b int) int {
		x, y := c.parties[a].user, c.parties[b].user
		return cmp.Or(cmp.Compare(x.key, y.key), cmp.Compare(x.resource, y.resource))
	})
	for _, i := range order {
		c.parties[i].user.mu.Lock()
	}
	defer func() {
		for _, i := range order {
			c.parties[i].user.mu.Unlock()
		}
	}()
	mine := &draw{}
	for i := range c.parties {
		one := &c.parties[i]
		a, r := &one.user.account, &p.users[one.user.resource]
		if a.rate != r.Rate {
			*a = newUserAccount(r.Rate, one.user.distinctID)
		}
		if a.available(now, nil) < one.n && now >= a.retryAt {
			d, _ := a.draw(one.n, 1, now, r, mine) // they keep nothing
			c.draws, c.drawn = append(c.draws, d), append(c.drawn, i)
		}
	}
	var err error
	if len(c.draws) > 0 {
		err = panics.Try(q.log, "a draw for users", func() error {
			for draws := range slices.Chunk(c.draws, mostDraws) {
				if err := q.counters.Take(context.WithoutCancel(ctx), token, nil, draws); err != nil {
					return err // the users of the calls before are not limited either
				}
			}
			return nil
		})
		q.metrics.draws[outcomeOf(err)].Inc(1)
		if err != nil {
			q.failing.Store(&failure{at: time.Now(), err: err})
		}
	}
	began := now
	now = q.mono()
	for i, at := range c.drawn {
		one := &c.parties[at]
		if err != nil {
			one.lost = true
			continue
		}
		one.user.account.drew(&c.draws[i], nil, one.n, began, now, &p.users[one.user.resource])
	}
	for i := range c.parties {
		one := &c.parties[i]
		a := &one.user.account
		one.pass = min(one.n, a.available(now, mine))
		one.over = one.n - one.pass
		a.spend(one.pass, now, mine)
	}
}

func outcomeOf(err error) int {
	if err != nil {
		return drawFailed
	}
	return drawOK
}

// markUsers carries out what was decided, in the order of the events.
func (q *Quota) markUsers(p *plan, set *settings, c *crowd, batch *events.Batch) {
	now := q.mono()
	for i, place := range c.of {
		if place == 0 {
			continue
		}
		event, one := &batch.Events[i], &c.parties[place-1]
		if one.pass > 0 {
			one.pass--
			continue
		}
		if one.lost {
			if set.open {
				q.metrics.usersOpen.Inc(1)
			} else {
				event.Fail(events.ReasonStore, errAway)
			}
			continue
		}
		q.metrics.usersOver.Inc(1)
		switch p.limits.Over {
		case events.OverDrop:
			event.Drop(events.ReasonRateLimited)
		case events.OverReject:
			event.Fail(events.ReasonRateLimited, errUserOver)
		default:
			routing := &event.Routing
			routing.Overflow, routing.Unkeyed, routing.SkipPerson, routing.Limited = true, true, true, true
		}
	}
	var told [events.ResourceCount]bool
	for i := range c.parties {
		one := &c.parties[i]
		resource := one.user.resource
		if one.over == 0 || one.lost || told[resource] {
			continue
		}
		told[resource] = true
		one.user.mu.Lock()
		standing := one.user.account.standing(now, &p.users[resource], one.over, false)
		one.user.mu.Unlock()
		standing.Kind = events.LimitUserRate
		batch.Standings.Add(standing)
		if p.limits.Over == events.OverReject {
			batch.RetryAfter = max(batch.RetryAfter, standing.Reset)
		}
	}
}

var errUserOver = events.Errorf(events.RateLimited, "a user of the project sends faster than its limits allow")
