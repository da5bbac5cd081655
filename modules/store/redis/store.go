package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

// Store is the shared state in Redis. Make one with New.
type Store struct {
	store.NoPostHog

	config  *configs.Value[store.Config]
	where   string
	log     *zap.Logger
	metrics *metrics
	keys    keys
	client  redis.UniversalClient
	servers servers
	clock   clock
	queue   queue
	// lost has settlements while nobody knows which server has their keys.
	lost    *settlements
	notices notices
	// lease is the longest lease that was reserved lately, in ns: so long it makes sense to tell what was released.
	lease atomic.Int64

	stopped atomic.Bool
	mu      sync.Mutex // guards group against members that come after the stop
	group   *panics.Group
	stop    context.CancelFunc
	ctx     context.Context
	givenUp int64 // as far as it is counted
}

var _ store.Running = (*Store)(nil)

// Backend returns the kind of store that keeps the shared state in Redis, for store.Module.
func Backend() store.Backend {
	return store.Backend{
		Name:       store.InRedis,
		New:        func(parts store.Parts) (store.Running, error) { return New(parts) },
		NewPostHog: func(parts store.Parts) (store.RunningPostHog, error) { return newPostHog(parts) },
		Metrics:    described,
	}
}

// New returns a store that does nothing until Start. It opens no connection.
func New(parts store.Parts) (*Store, error) {
	config, err := configs.Current[store.Config](parts.Live)
	if err != nil {
		return nil, err
	}
	cfg := parts.Config.Redis
	s := &Store{
		config: config, where: cfg.Server().String(), log: parts.Log, metrics: newMetrics(parts.Scope),
		keys: keys{cfg.Prefix}, queue: queue{most: int64(cfg.Queue)}, group: panics.NewGroup(parts.Log),
		notices: notices{byKind: map[string][]func(string){}, listening: make(chan struct{})},
	}
	s.lost = newSettlements(&s.queue)
	s.lease.Store(int64(usualLease))
	if s.client, err = connect(cfg.Server(), cfg.Pool, patience, loadScripts); err != nil {
		return nil, fmt.Errorf("store.redis: %w", err)
	}
	s.ctx, s.stop = context.WithCancel(noContext)
	if client, single := s.client.(*redis.Client); single {
		s.servers = newOne(s, client, cfg.Server())
	} else {
		s.servers = newMany(s, s.client.(*redis.ClusterClient))
	}
	return s, nil
}

// usualLease is how long ends of requests are told if no lease is known.
const usualLease = 30 * time.Second

func (s *Store) settings() store.Config { return s.config.Now() }

// spawn has f start members of the group, unless the store has stopped.
func (s *Store) spawn(f func(*panics.Group)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped.Load() {
		return false
	}
	f(s.group)
	return true
}

// Start implements store.Running. It waits for Redis for a second at most.
func (s *Store) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.servers.start(ctx)
	for _, shard := range s.servers.all() {
		// A server that is away from the beginning costs no request any time.
		if problem := shard.lanes[0].probe(ctx); problem != nil {
			shard.lanes[0].trip(problem, 1)
			err = errors.Join(err, problem)
		} else {
			shard.beat(ctx)
		}
	}
	if err != nil {
		s.log.Warn("the shared state cannot be reached: the service starts without it", zap.String("store", s.where),
			zap.Error(err))
	} else {
		s.log.Info("the shared state is reached", zap.String("store", s.where))
	}
	s.spawn(func(group *panics.Group) {
		group.Keep(s.ctx, "the watch over changed records", s.watch)
		group.Keep(s.ctx, "the count of what waits", s.report)
	})
	if err == nil {
		// What changes from now on is told.
		select {
		case <-s.notices.listening:
		case <-ctx.Done():
		}
	}
	return nil
}

// waited waits for a time. It reports false if ctx is over before.
func waited(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Stop implements store.Running. A server that does not answer is told again until the time for the stop is over.
func (s *Store) Stop(ctx context.Context) error {
	s.mu.Lock()
	again := s.stopped.Swap(true)
	s.mu.Unlock()
	if again {
		return nil
	}
	s.stop()
	ended := s.group.Ended()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	telling, cancel := context.WithTimeout(ctx, s.settings().StopBudget())
	defer cancel()
	shards := s.servers.all()
	problems := make([]error, len(shards))
	tellers := panics.NewGroup(s.log)
	for i, shard := range shards {
		// A server that is away takes no time from the others.
		tellers.Go("who tells Redis what has ended", func() { problems[i] = shard.settleAll(telling) })
	}
	tellers.Wait()
	err := s.client.Close()
	if n := s.queue.digests.Load(); n > 0 {
		err = errors.Join(fmt.Errorf("store: Redis was not told of %d digests that were settled: %w", n,
			errors.Join(problems...)), err)
	}
	return err
}

// report shows from time to time what waits to be settled, and what was given up.
func (s *Store) report(ctx context.Context) {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.reportOnce()
		}
	}
}

func (s *Store) reportOnce() {
	s.lost.expire(time.Now())
	open := 0
	for _, part := range s.Status().Parts {
		if !part.Reachable {
			open++
		}
	}
	s.metrics.open.Update(float64(open))
	s.metrics.waiting.Update(float64(s.queue.digests.Load()))
	if lost := s.queue.givenUp.Load() - s.givenUp; lost > 0 {
		s.givenUp += lost
		s.metrics.givenUp.Inc(lost)
		s.log.Warn("events were done that Redis could not be told: sent again, they are duplicates in Kafka",
			zap.Int64("events", lost))
	}
}

// Status implements store.Running.
func (s *Store) Status() store.Status {
	status := store.Status{
		Backend: store.InRedis, Where: s.where, Waiting: s.queue.digests.Load(), GivenUp: s.queue.givenUp.Load(),
	}
	shards := s.servers.all()
	status.Reachable = len(shards) > 0
	for _, shard := range shards {
		part := shard.status()
		status.Reachable = status.Reachable && part.Reachable
		status.Parts = append(status.Parts, part)
	}
	return status
}

// Now implements store.Store.
func (s *Store) Now() time.Time { return s.clock.now() }

// do makes a call to the server that has the key.
func (s *Store) do(ctx context.Context, key, tag string, c *call) error {
	if s.stopped.Load() {
		return unavailable(errStopped)
	}
	shard, err := s.servers.shard(key, tag)
	if err != nil {
		return unavailable(err)
	}
	return shard.lanes[0].do(ctx, c)
}
