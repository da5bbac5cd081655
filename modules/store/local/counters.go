package local

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/store"
)

const (
	// counterShards is a power of two.
	counterShards = 64
	// counterBytes is about what a counter takes, with its names and one node's account.
	counterBytes = 320
	// maxNodes is how many nodes may have an account of one counter, and maxName how long a name may be in bytes. They
	// keep a mistake of a caller from filling the memory.
	maxNodes, maxName = 1 << 10, 512
	// maxDraws is how many draws a call has at most.
	maxDraws = 256
	// grace is how long a window can be looked at after its end.
	grace = time.Minute
)

// counters has the counters of all tokens.
type counters struct {
	seed   maphash.Seed
	shards [counterShards]counterShard
	max    int64
	count  atomic.Int64
}

type counterShard struct {
	mu     sync.Mutex
	tokens map[string]*tokenCounters
}

type tokenCounters struct {
	quotas map[string]*quota
	rates  map[string]*rate
}

// quota is a counter of a window.
type quota struct {
	end time.Time
	// used is what the nodes were granted and have not given back, and what Adjust has added. held is what the nodes
	// said that they hold unspent.
	used, held int64
	// adjusted is the sum of what Adjust has added.
	adjusted int64
	nodes    []account
}

// account is what a node has said of its newest account when it drew last, and what it got then.
type account struct {
	node                    string
	number                  uint64
	granted, returned, held int64
	// past is the sum of what the node's accounts before this one were granted and did not give back.
	past int64
	// first is the number of the first account that this process has heard of. The directory may know earlier ones.
	first uint64
}

// used is what the node's accounts were granted and did not give back.
func (a *account) used() int64 { return a.past + a.granted - a.returned }

// rate is a counter that fills up with time.
type rate struct {
	// at is the theoretical arrival time of GCRA: the counter is full once it is over. It is never more than span ahead
	// of the time of a draw, unless the clock was set back.
	at   int64
	span int64
}

func newCounters(bytes int64) *counters {
	c := &counters{seed: maphash.MakeSeed(), max: max(1, bytes/counterBytes)}
	for i := range c.shards {
		c.shards[i].tokens = map[string]*tokenCounters{}
	}
	return c
}

func (c *counters) shard(token string) *counterShard {
	return &c.shards[maphash.String(c.seed, token)%counterShards]
}

// Take implements store.Counters. It never waits for more than the disk, to which it writes what has changed.
func (s *Store) Take(ctx context.Context, token string, quotas []store.QuotaDraw, rates []store.RateDraw) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if err := checkDraws(token, quotas, rates); err != nil {
		return err
	}
	written, err := s.draw(token, quotas, rates)
	if err != nil {
		s.metrics.full.Inc(1)
		return err
	}
	if written != nil {
		s.counterLog.wait(written)
	}
	return nil
}

// draw makes the draws, and returns what the disk has to have before the caller may know of them.
func (s *Store) draw(token string, quotas []store.QuotaDraw, rates []store.RateDraw) (*batch, error) {
	now := s.config.Now()
	shard := s.counters.shard(token)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	t, known := shard.tokens[token]
	if !known {
		t = newTokenCounters()
	}
	if err := s.counters.checkRoom(t, quotas, rates); err != nil {
		return nil, err
	}
	if !known {
		// The caller's token may be part of a request, whose memory the next request gets.
		shard.tokens[strings.Clone(token)] = t
	}
	changed := make([]*account, len(quotas))
	for i := range quotas {
		changed[i] = s.counters.drawQuota(t, &quotas[i], now)
	}
	for i := range rates {
		s.counters.drawRate(t, &rates[i], now.UnixNano())
	}
	if s.counterLog == nil {
		return nil, nil
	}
	return s.counterLog.add(func(to []byte) []byte {
		for i, a := range changed {
			if a != nil {
				to = appendAccount(to, token, quotas[i].Counter, quotas[i].End, a)
			}
		}
		for i := range rates {
			if d := &rates[i]; d.Given > 0 || d.Return > 0 {
				to = appendRate(to, token, d.Counter, t.rates[d.Counter])
			}
		}
		return to
	}), nil
}

func newTokenCounters() *tokenCounters {
	return &tokenCounters{quotas: map[string]*quota{}, rates: map[string]*rate{}}
}

var errImpossible = errors.New("impossible draw")

// checkDraws finds the mistakes of a caller, before anything has changed.
func checkDraws(token string, quotas []store.QuotaDraw, rates []store.RateDraw) error {
	if len(quotas)+len(rates) > maxDraws {
		return fmt.Errorf("%w: %d in one call, and %d are allowed", errImpossible, len(quotas)+len(rates), maxDraws)
	}
	if len(token) > maxName {
		return fmt.Errorf("%w: the token has %d bytes, and %d are allowed", errImpossible, len(token), maxName)
	}
	for i := range quotas {
		d := &quotas[i]
		switch {
		case d.Counter == "" || len(d.Counter) > maxName || d.Node == "" || len(d.Node) > maxName:
			return fmt.Errorf("%w: the names of the counter and the node must have 1 to %d bytes", errImpossible,
				maxName)
		case d.Account > maxUsed:
			return fmt.Errorf("%w from %q: the account's number is %d, and %d is the largest", errImpossible, d.Counter,
				d.Account, int64(maxUsed))
		case min(d.Need, d.Extra, d.Limit, d.Unspent, d.Returned, d.Held) < 0 ||
			max(d.Need, d.Granted) > maxUsed || d.Held > d.Granted-d.Returned:
			return fmt.Errorf("%w from %q: need %d, extra %d, %d granted, %d returned and %d held do not go together",
				errImpossible, d.Counter, d.Need, d.Extra, d.Granted, d.Returned, d.Held)
		case !d.Start.Before(d.End):
			return fmt.Errorf("%w from %q: the window ends before it starts", errImpossible, d.Counter)
		}
	}
	for i := range rates {
		d := &rates[i]
		switch {
		case d.Counter == "" || len(d.Counter) > maxName:
			return fmt.Errorf("%w: the name of the counter must have 1 to %d bytes", errImpossible, maxName)
		case d.Need < 0 || d.Extra < 0 || d.Return < 0 || d.Burst < 0 || d.Interval <= 0 ||
			d.Burst > maxSpan/int64(d.Interval):
			return fmt.Errorf("%w from %q: need %d, extra %d, return %d, burst %d and interval %s do not go together",
				errImpossible, d.Counter, d.Need, d.Extra, d.Return, d.Burst, d.Interval)
		}
	}
	return nil
}

// maxSpan is how long the whole burst of a rate may take to fill up, in nanoseconds: 73 years.
const maxSpan = math.MaxInt64 / 4

// checkRoom returns an error if there is no room for the counters and accounts that the draws need.
func (c *counters) checkRoom(t *tokenCounters, quotas []store.QuotaDraw, rates []store.RateDraw) error {
	missing := int64(0)
	for i := range quotas {
		q := t.quotas[quotas[i].Counter]
		switch {
		case q == nil:
			missing++
		case len(q.nodes) >= maxNodes && q.account(quotas[i].Node) == nil:
			return fmt.Errorf("%d nodes have drawn from %q, and one more is too many: %w", len(q.nodes),
				quotas[i].Counter, store.ErrUnavailable)
		}
	}
	for i := range rates {
		if t.rates[rates[i].Counter] == nil {
			missing++
		}
	}
	if missing > 0 && c.count.Load()+missing > c.max {
		return fmt.Errorf("there are %d counters, which is all that store.local.counters has room for: %w",
			c.max, store.ErrUnavailable)
	}
	return nil
}

// quota returns the counter of a window, which it makes if there is none.
func (t *tokenCounters) quota(c *counters, name string) *quota {
	q := t.quotas[name]
	if q == nil {
		q = &quota{}
		t.quotas[name] = q
		c.count.Add(1)
	}
	return q
}

func (q *quota) account(node string) *account {
	for i := range q.nodes {
		if q.nodes[i].node == node {
			return &q.nodes[i]
		}
	}
	return nil
}

// open makes an account of a node that has none.
func (q *quota) open(node string, number uint64) *account {
	q.nodes = append(q.nodes, account{node: node, number: number, first: number})
	return &q.nodes[len(q.nodes)-1]
}

// replace makes an account the node's new one, of which nothing is known yet. What the one before it was granted and
// did not give back stays used.
func (q *quota) replace(a *account, number uint64) {
	past := min(a.used(), maxUsed)
	q.used += past - a.used()
	q.held -= a.held
	*a = account{node: a.node, number: number, past: past, first: a.first}
}

// drawQuota makes a draw at a time of the store's clock. It returns the account if that has changed.
func (c *counters) drawQuota(t *tokenCounters, d *store.QuotaDraw, now time.Time) *account {
	q := t.quotas[d.Counter]
	if now.Before(d.Start) || !now.Before(d.End) {
		d.Given, d.Used, d.Stale = d.Granted, 0, true
		if q != nil {
			d.Used = q.used
		}
		return nil
	}
	q = t.quota(c, d.Counter)
	q.end = d.End
	var was account
	a := q.account(d.Node)
	if a != nil {
		was = *a
	} else {
		a = q.open(d.Node, d.Account)
	}
	switch {
	case d.Account < a.number:
		d.Given, d.Used, d.Stale = d.Granted, q.used, false
		return nil
	case d.Account > a.number:
		q.replace(a, d.Account)
	}
	// What the store knows of the node may be newer than what the draw says: the answer to an earlier draw was lost, or
	// this is an old draw that comes late. It may be older, if the store has lost what it knew. The sums only grow.
	granted, returned := max(a.granted, d.Granted), max(a.returned, d.Returned)
	q.used += granted - returned - (a.granted - a.returned)
	brought := granted - d.Granted
	limit := min(d.Limit, maxUsed)
	if rest := d.Need - brought; rest <= 0 || rest <= limit-q.used {
		rest = max(0, rest)
		granted += rest
		q.used += rest
		brought += rest
		spare := d.Held + brought - d.Need
		extra := min(d.Need+min(d.Extra, maxUsed)-brought, limit-q.used, d.Unspent-(q.held-a.held)-spare)
		if extra > 0 {
			granted += extra
			q.used += extra
			brought += extra
		}
		brought -= d.Need
	}
	q.held += d.Held + brought - a.held
	a.granted, a.returned, a.held = granted, returned, d.Held+brought
	d.Given, d.Used, d.Stale = granted, q.used, false
	if *a == was {
		return nil
	}
	return a
}

// drawRate makes a draw at a time of the store's clock, in nanoseconds.
func (c *counters) drawRate(t *tokenCounters, d *store.RateDraw, now int64) *rate {
	r := t.rates[d.Counter]
	if r == nil {
		r = &rate{}
		t.rates[d.Counter] = r
		c.count.Add(1)
	}
	interval := int64(d.Interval)
	span := d.Burst * interval
	r.span = max(r.span, span)
	at := min(r.at, now+r.span) // The clock was set back.
	if back := at - now; back > 0 {
		at -= min(back, saturated(d.Return, interval))
	}
	at = max(at, now)
	d.Given, d.Wait = 0, 0
	left := max(0, now+span-at) / interval
	if d.Need <= left {
		d.Given = d.Need + min(d.Extra, left-d.Need)
		at += d.Given * interval
	} else {
		d.Wait = time.Duration(saturated(d.Need, interval) - (now + span - at))
	}
	d.Left = max(0, now+span-at) / interval
	r.at = at
	return r
}

// saturated returns a*b, and at most maxSpan.
func saturated(a, b int64) int64 {
	if a > maxSpan/b {
		return maxSpan
	}
	return a * b
}

// Usage implements store.Counters.
func (s *Store) Usage(ctx context.Context, token string) (map[string]store.Usage, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	shard := s.counters.shard(token)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	usage := map[string]store.Usage{}
	if t := shard.tokens[token]; t != nil {
		for name, q := range t.quotas {
			usage[name] = store.Usage{Used: q.used, Held: q.held, End: q.end}
		}
	}
	return usage, nil
}

// Adjust implements store.Counters.
func (s *Store) Adjust(ctx context.Context, token, counter string, n int64) (store.Usage, error) {
	if err := s.usable(ctx); err != nil {
		return store.Usage{}, err
	}
	usage, written := s.adjust(token, counter, n)
	if written != nil {
		s.counterLog.wait(written)
	}
	return usage, nil
}

func (s *Store) adjust(token, counter string, n int64) (store.Usage, *batch) {
	shard := s.counters.shard(token)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	t := shard.tokens[token]
	if t == nil || t.quotas[counter] == nil {
		return store.Usage{}, nil
	}
	q := t.quotas[counter]
	was := q.used
	if n > 0 {
		q.used += min(n, max(0, maxUsed-q.used))
	} else {
		q.used = max(q.used+max(n, -maxUsed), q.held)
	}
	q.adjusted += q.used - was
	usage := store.Usage{Used: q.used, Held: q.held}
	if s.counterLog == nil {
		return usage, nil
	}
	return usage, s.counterLog.add(func(to []byte) []byte {
		return appendQuota(to, token, counter, q.end, q.adjusted)
	})
}

// maxUsed is a limit that is as good as none. It keeps the sums of all nodes away from where they would overflow.
const maxUsed = 1 << 50

// expire removes counters whose window is over, and rates that are full: a rate that nobody knows is full as well.
func (c *counters) expire(now time.Time) {
	for i := range c.shards {
		shard := &c.shards[i]
		shard.mu.Lock()
		for token, t := range shard.tokens {
			for name, q := range t.quotas {
				if now.Sub(q.end) > grace {
					delete(t.quotas, name)
					c.count.Add(-1)
				}
			}
			for name, r := range t.rates {
				if r.at <= now.UnixNano() {
					delete(t.rates, name)
					c.count.Add(-1)
				}
			}
			if len(t.quotas)+len(t.rates) == 0 {
				delete(shard.tokens, token)
			}
		}
		shard.mu.Unlock()
	}
}

// merge adds what a directory has to what this process knows, which has done without the directory so far. A node is
// part of one process at a time, so what the directory has of a node is older than what the process knows of it.
func (c *counters) merge(from *counters) {
	for i := range from.shards {
		for token, theirs := range from.shards[i].tokens {
			shard := c.shard(token)
			shard.mu.Lock()
			ours := c.ofToken(token)
			for name, q := range theirs.quotas {
				ours.quota(c, name).merge(q)
			}
			for name, r := range theirs.rates {
				if known := ours.rates[name]; known != nil {
					known.at, known.span = max(known.at, r.at), max(known.span, r.span)
				} else {
					ours.rates[name] = r
					c.count.Add(1)
				}
			}
			shard.mu.Unlock()
		}
	}
}

func (q *quota) merge(from *quota) {
	if from.end.After(q.end) {
		q.end = from.end
	}
	q.adjusted += from.adjusted
	q.used += from.adjusted
	for _, a := range from.nodes {
		known := q.account(a.node)
		if known == nil {
			q.nodes = append(q.nodes, a)
			q.used += a.used()
			q.held += a.held
			continue
		}
		was := known.used()
		known.merge(&a)
		q.used += known.used() - was
	}
}

// merge adds what a directory has of a node's accounts. Of an account that both know, the sums that are greater count,
// since sums only grow. If the process knows that the account was replaced, it knows the last sums.
func (a *account) merge(from *account) {
	past := from.past
	switch {
	case from.number != a.first: // the process knows nothing of it
		past = from.used()
	case from.number == a.number:
		a.granted, a.returned = max(a.granted, from.granted), max(a.returned, from.returned)
	}
	a.past = min(a.past+past, maxUsed)
}
