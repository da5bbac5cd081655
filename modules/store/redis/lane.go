package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

const (
	// heavy is how many digests and commands one round trip carries at most, beside settlements: a server that takes a
	// microsecond for each has them done in a fraction of the deadline.
	heavy = 4096
	// longestQueue bounds the calls that wait.
	longestQueue = 16 << 10
)

// call is one call of the store, on its way to a server.
type call struct {
	ops []op
	// weight is how many digests or draws the call has.
	weight  int
	started time.Time
	err     error
	// wake tells a call that waits how it goes on: it has ended, or it leads the next round trip.
	wake chan verdict
	// reservation is room for the arguments of a call that reserves. abandoned says that a goroutine still uses it.
	reservation reservation
	abandoned   bool
}

type verdict bool

const (
	ended verdict = false
	lead  verdict = true
)

var calls = sync.Pool{New: func() any { return &call{wake: make(chan verdict, 1)} }}

// newCall returns a call that the caller gives back to calls when it has ended.
func newCall(weight int, ops ...op) *call {
	c := calls.Get().(*call)
	c.ops, c.weight, c.err = append(c.ops[:0], ops...), weight, nil
	return c
}

// result returns the command of the call's op i, with its answer.
func (c *call) result(i int) redis.Cmder { return c.ops[i].cmd }

func (c *call) free() {
	clear(c.ops) // the answers may be large
	if !c.abandoned {
		calls.Put(c)
	}
}

// lane is a way to a server: one round trip is under way at a time, and takes along all that has come meanwhile. The
// first of the calls that wait makes the next round trip, in its own goroutine.
type lane struct {
	shard *shard
	// replicated says that a round trip ends with WAIT, so that replicas have what it has written.
	replicated bool
	breaker    breaker

	mu    sync.Mutex
	queue []*call
	busy  bool
}

// do makes the call, and returns its error. The call ends within the deadline of the store, or of ctx.
func (l *lane) do(ctx context.Context, c *call) error {
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	if err := l.breaker.err(); err != nil {
		return err
	}
	c.started = time.Now()
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(c.started.Add(l.shard.store.settings().Timeout)) {
		return l.doWithin(ctx, c)
	}
	l.run(c)
	return c.err
}

// doWithin makes a call that may have to be left before it has ended.
func (l *lane) doWithin(ctx context.Context, c *call) error {
	own := &call{ops: slices.Clone(c.ops), weight: c.weight, started: c.started, wake: make(chan verdict, 1)}
	result := make(chan struct{})
	if !l.shard.store.spawn(func(group *panics.Group) {
		group.Go("a call of the store", func() {
			defer close(result)
			own.err = errInterrupted
			l.run(own)
		})
	}) {
		return unavailable(errStopped)
	}
	select {
	case <-result:
		copy(c.ops, own.ops)
		c.err = own.err
		return c.err
	case <-ctx.Done():
		c.abandoned = true
		return unavailable(ctx.Err())
	}
}

// run makes the call: it waits for the round trip under way, if there is one, and goes with the next.
func (l *lane) run(c *call) {
	l.mu.Lock()
	if len(l.queue) >= longestQueue {
		l.mu.Unlock()
		c.err = unavailable(errLate)
		return
	}
	l.queue = append(l.queue, c)
	waits := l.busy
	l.busy = true
	l.mu.Unlock()
	if waits && <-c.wake == ended {
		return
	}
	settings := l.shard.store.settings()
	batch, late := l.board(time.Now(), settings.Timeout)
	// Whatever happens to this goroutine, those behind it go on.
	defer l.leave(c, batch)
	if late {
		for _, c := range batch {
			c.err = unavailable(errLate)
		}
		return
	}
	l.travel(batch, settings)
}

// board takes the calls that go together from the queue, the first at any rate. A call that has waited too long for the
// round trip before this one would make this one too short for the others, and would wait for it in vain: such calls
// come by themselves, to be ended.
func (l *lane) board(now time.Time, timeout time.Duration) (batch []*call, late bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	isLate := func(c *call) bool { return c.started.Add(timeout * 3 / 4).Before(now) }
	late = isLate(l.queue[0])
	n, weight := 1, l.queue[0].weight
	for n < len(l.queue) && isLate(l.queue[n]) == late && (late || weight+l.queue[n].weight <= heavy) {
		weight += l.queue[n].weight
		n++
	}
	batch = l.queue[:n:n]
	l.queue = l.queue[n:]
	return batch, late
}

// leave ends the calls of a round trip, and has the next one begin. If the breaker is open, it ends all that wait.
func (l *lane) leave(leader *call, batch []*call) {
	for _, c := range batch {
		if c != leader {
			c.wake <- ended
		}
	}
	away := l.breaker.err()
	l.mu.Lock()
	var failed []*call
	if away != nil {
		failed, l.queue = l.queue, nil
	}
	l.busy = len(l.queue) > 0
	var next *call
	if l.busy {
		next = l.queue[0]
	}
	l.mu.Unlock()
	for _, c := range failed {
		c.err = away
		c.wake <- ended
	}
	if next != nil {
		next.wake <- lead
	}
}

// travel makes a round trip with the calls and, on the first lane, with the settlements that wait.
func (l *lane) travel(batch []*call, settings store.Config) {
	for _, c := range batch {
		c.err = errInterrupted // until it is known better
	}
	ctx, cancel := context.WithDeadline(noContext, batch[0].started.Add(settings.Timeout))
	defer cancel()
	var groups []*group
	if !l.replicated {
		groups = l.shard.settlements.take(behind)
	}
	told := false
	defer func() {
		if !told {
			l.shard.settlements.putBack(groups)
		}
	}()
	ops := make([]op, 0, len(groups)+len(batch))
	for _, g := range groups {
		ops = append(ops, g.op(l.shard.store.keys))
	}
	for _, c := range batch {
		ops = append(ops, c.ops...)
	}
	err := l.exchange(ctx, ops, len(batch), settings)
	told = true
	n := l.shard.conclude(groups, ops)
	for _, c := range batch {
		c.err = nil
		for i := range c.ops {
			c.ops[i] = ops[n]
			c.err = cmp.Or(c.err, asError(ops[n].cmd.Err()))
			n++
		}
		if c.err == nil && l.replicated && err != nil {
			c.err = unavailable(err)
		}
	}
	l.judge(err)
	if l.shard.settlements.waiting() > behind {
		l.trip(fmt.Errorf("%d digests wait to be settled", l.shard.settlements.waiting()), 1)
	}
}

var errInterrupted = unavailable(errors.New("the round trip was interrupted"))

// judge notes how a round trip has ended.
func (l *lane) judge(err error) {
	if err != nil {
		l.trip(err, l.shard.store.settings().Breaker.Failures)
		return
	}
	l.breaker.succeeded()
}

// trip notes a failure. If that opens the breaker, a goroutine looks from now on whether the server is there again.
func (l *lane) trip(err error, limit int) {
	if !l.breaker.failed(err, limit) {
		return
	}
	l.shard.store.metrics.opened.Inc(1)
	l.shard.log.Warn("Redis does not answer: calls fail at once until it does", zap.Error(err))
	l.shard.keep("the look for Redis", l.await)
	l.shard.store.servers.changed()
}

// await closes the breaker when the server serves.
func (l *lane) await(ctx context.Context) {
	for {
		err := l.probe(ctx)
		if err == nil {
			l.shard.log.Info("Redis answers again", zap.Duration("after", l.breaker.close()))
			l.shard.store.tellAll()
			return
		}
		if ctx.Err() != nil {
			return
		}
		l.breaker.last.Store(&failure{err, time.Now()})
		l.shard.store.servers.changed()
		if !waited(ctx, l.shard.store.settings().Breaker.Pause) {
			return
		}
	}
}

// probe returns nil if the server takes writes as fast as calls need it, and has been told what has been settled.
func (l *lane) probe(ctx context.Context) error {
	settings := l.shard.store.settings()
	write := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		key := l.shard.store.keys.probe(l.shard.probeTag())
		cmd := redis.NewCmd(ctx, "set", key, 1, "px", patience.Milliseconds())
		return l.exchange(ctx, []op{{cmd: cmd}}, 0, settings)
	}
	// The first one may have to open a connection.
	for _, limit := range []time.Duration{patience, settings.Timeout} {
		if err := write(limit); err != nil {
			return err
		}
	}
	for !l.replicated && l.shard.settlements.waiting() > drained {
		if err := l.shard.settle(ctx, 2*together); err != nil {
			return err
		}
	}
	return nil
}

// exchange makes one round trip with the ops, and puts what has to be sent in another way in their places. Its error
// says that the server did not serve; what became of the single ops is in their commands. calls is how many calls of
// the store the ops are for.
func (l *lane) exchange(ctx context.Context, ops []op, calls int, settings store.Config) error {
	began := time.Now()
	err := l.send(ctx, ops, settings)
	took := time.Since(began)
	l.shard.store.metrics.tripped(took, calls, len(ops), err)
	if err == nil {
		l.shard.answered(took)
	}
	return err
}

func (l *lane) send(ctx context.Context, ops []op, settings store.Config) error {
	pipe := l.shard.client.Pipeline()
	for _, o := range ops {
		_ = pipe.Process(ctx, o.cmd)
	}
	var wait *redis.IntCmd
	replicas := settings.Redis.Replicas
	if l.replicated && replicas > 0 {
		// The answer has to come before the deadline of the calls.
		wait = redis.NewIntCmd(ctx, "wait", replicas, max(1, (settings.Timeout/2).Milliseconds()))
		_ = pipe.Process(ctx, wait)
	}
	_, err := pipe.Exec(ctx)
	if err == nil && wait == nil {
		return nil
	}
	told := slices.ContainsFunc(ops, func(o op) bool { return o.cmd.Err() != nil }) || wait != nil && wait.Err() != nil
	if err != nil && !told {
		// It is not an answer to a command, but to what opens a connection, such as a login.
		err = fmt.Errorf("no connection: %s", err) //nolint:errorlint // it is not to be taken for an answer
		for _, o := range ops {
			o.cmd.SetErr(err)
		}
		return err
	}
	if fateOf(err) == away && !isReply(err) {
		return err
	}
	if err := l.sendAgain(ctx, ops); err != nil {
		return err
	}
	for _, o := range ops {
		if err := o.cmd.Err(); fateOf(err) == away {
			return err
		}
	}
	if wait != nil {
		if err := wait.Err(); err != nil {
			return err
		}
		if wait.Val() < int64(replicas) {
			return fmt.Errorf("%d of %d replicas have what was written (store.redis.replicas)", wait.Val(), replicas)
		}
	}
	return nil
}

func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// sendAgain sends what the server did not know or no longer has: scripts with their source, and commands whose keys
// another server of the Cluster has.
func (l *lane) sendAgain(ctx context.Context, ops []op) error {
	var again []int
	client := redis.UniversalClient(l.shard.client)
	resettled := false
	for i, o := range ops {
		f := fateOf(o.cmd.Err())
		switch {
		case f == moved:
			client = l.shard.store.client
			l.shard.store.servers.changed()
		case f == unknown:
			resettled = resettled || o.script == settleScript
		case resettled && o.script == reserveScript:
			// It has not seen what stood before it. To reserve again does no harm.
		default:
			continue
		}
		again = append(again, i)
	}
	if len(again) == 0 {
		return nil
	}
	pipe := client.Pipeline()
	for _, i := range again {
		ops[i] = ops[i].again()
		_ = pipe.Process(ctx, ops[i].cmd)
	}
	if _, err := pipe.Exec(ctx); fateOf(err) == away && !isReply(err) {
		return err
	}
	return nil
}
