package redis

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

const (
	// gather is how long settlements wait for a call that takes them along.
	gather = 3 * time.Millisecond
	// heartbeat is how often a server that nobody asks is asked whether it answers, and what time it is.
	heartbeat = time.Second
)

// shard is one server that takes writes: the only one, the one that the Sentinels name, or a primary of a Cluster.
type shard struct {
	store   *Store
	address string
	client  *redis.Client
	log     *zap.Logger
	// ctx ends with the shard.
	ctx    context.Context
	cancel context.CancelFunc

	// lanes[0] is for everything, lanes[1] for draws that replicas must have.
	lanes       [2]lane
	settlements *settlements
	// kick wakes the goroutine that settles what no call has taken along.
	kick chan struct{}
	// tagged is a tag whose keys the server has: see keys.probe.
	tagged atomic.Pointer[string]

	answeredAt atomic.Int64 // in ns since 1970
	took       atomic.Int64 // how long the last round trip took, in ns
}

func newShard(s *Store, client *redis.Client, address string) *shard {
	sh := &shard{
		store: s, client: client, address: address, log: s.log.With(zap.String("server", address)),
		settlements: newSettlements(&s.queue), kick: make(chan struct{}, 1),
	}
	sh.ctx, sh.cancel = context.WithCancel(s.ctx)
	for i := range sh.lanes {
		sh.lanes[i].shard = sh
	}
	sh.lanes[1].replicated = true
	return sh
}

// lane returns the lane for draws.
func (sh *shard) lane() *lane {
	if sh.store.settings().Redis.Replicas > 0 {
		return &sh.lanes[1]
	}
	return &sh.lanes[0]
}

// keep runs f until the shard ends.
func (sh *shard) keep(name string, f func(context.Context)) {
	sh.store.spawn(func(group *panics.Group) { group.Keep(sh.ctx, name, f) })
}

func (sh *shard) answered(took time.Duration) {
	sh.answeredAt.Store(time.Now().UnixNano())
	sh.took.Store(int64(took))
}

func (sh *shard) probeTag() string {
	if tagged := sh.tagged.Load(); tagged != nil {
		return *tagged
	}
	return "any"
}

// tend settles what no call has taken along, gives up what is too old, and asks a server that nobody has asked.
func (sh *shard) tend(ctx context.Context) {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sh.kick:
			timer := time.NewTimer(gather)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			if sh.settlements.waiting() > 0 {
				sh.beat(ctx)
			}
		case <-ticker.C:
			sh.settlements.expire(time.Now())
			if time.Now().UnixNano()-sh.answeredAt.Load() >= int64(heartbeat) || sh.settlements.waiting() > 0 {
				sh.beat(ctx)
			}
		}
	}
}

// beat makes a round trip that asks for the time, with what waits to be settled.
func (sh *shard) beat(ctx context.Context) {
	c := newCall(1, op{cmd: redis.NewSliceCmd(noContext, "time")})
	defer c.free()
	began := time.Now()
	if sh.lanes[0].do(ctx, c) == nil {
		if cmd, ok := c.result(0).(*redis.SliceCmd); ok {
			if seconds, micros, ok := clockOf(cmd.Val()); ok {
				sh.store.clock.learn(began, time.Now(), seconds, micros)
			}
		}
	}
}

// conclude forgets the groups that the server has been told of, keeps the others, and returns how many there were. The
// first ops are those of the groups.
func (sh *shard) conclude(groups []*group, ops []op) int {
	var told, kept []*group
	for i, g := range groups {
		switch err := ops[i].cmd.Err(); fateOf(err) {
		case fine:
			told = append(told, g)
		case wrong:
			// The server will never take it.
			sh.log.Error("Redis refuses what has been settled", zap.Error(err))
			sh.store.queue.giveUp([]*group{g})
		default:
			kept = append(kept, g)
		}
	}
	sh.store.queue.told(told)
	sh.settlements.putBack(kept)
	return len(groups)
}

// settle tells the server of so many digests or a few more, in a round trip that no call waits for. The breaker of the
// first lane must be open, or nobody may make calls any more.
func (sh *shard) settle(ctx context.Context, most int) error {
	groups := sh.settlements.take(most)
	ops := make([]op, len(groups))
	for i, g := range groups {
		ops[i] = g.op(sh.store.keys)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := sh.lanes[0].exchange(ctx, ops, 0, sh.store.settings())
	sh.conclude(groups, ops)
	return err
}

// stopPause is how long settleAll waits before it tries again.
const stopPause = 100 * time.Millisecond

// settleAll tells the server what waits to be settled, as long as ctx allows: a server that was away a moment ago may
// take it now. See settle.
func (sh *shard) settleAll(ctx context.Context) (err error) {
	for sh.settlements.waiting() > 0 {
		if err = sh.settle(ctx, behind); err != nil && !waited(ctx, stopPause) {
			return err
		}
	}
	return err
}

func (sh *shard) status() store.PartStatus {
	status := store.PartStatus{
		Address: sh.address, Reachable: true, LatencyMS: float64(sh.took.Load()) / float64(time.Millisecond),
	}
	for i := range sh.lanes {
		b := &sh.lanes[i].breaker
		if last := b.last.Load(); last != nil && (status.LastErrorAt == nil || last.at.After(*status.LastErrorAt)) {
			status.LastError, status.LastErrorAt = last.err.Error(), &last.at
		}
		if open := b.open.Load(); open != nil {
			status.Reachable, status.BreakerOpenSince = false, &open.since
		}
	}
	return status
}
