package redis

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

// servers knows which server has a key. It is safe for concurrent use.
type servers interface {
	// shard returns the server that has the keys with a tag. key is one of them.
	shard(key, tag string) (*shard, error)
	// all returns every server that takes writes, as far as they are known.
	all() []*shard
	// changed says that other servers may take writes now.
	changed()
	// start looks for the servers until ctx is over, and begins to look after them.
	start(ctx context.Context) error
}

// one is the only server, or the primary that Sentinels name.
type one struct{ of *shard }

func newOne(s *Store, client *redis.Client, server store.Server) one {
	address := server.Addrs[0]
	if server.Master != "" {
		address = "the primary of " + server.Master
	}
	return one{newShard(s, client, address)}
}

func (o one) shard(string, string) (*shard, error) { return o.of, nil }
func (o one) all() []*shard                        { return []*shard{o.of} }
func (one) changed()                               {}

func (o one) start(context.Context) error {
	o.of.keep("the care of Redis", o.of.tend)
	return nil
}

// many are the primaries of a Cluster.
type many struct {
	store  *Store
	client *redis.ClusterClient
	// hint wakes the goroutine that looks for the primaries.
	hint  chan struct{}
	known atomic.Bool // whether the slots are

	mu     sync.RWMutex
	shards map[*redis.Client]*shard
	// retired are the servers that were primaries lately. Calls that had begun may still leave settlements there.
	retired []*shard
}

func newMany(s *Store, client *redis.ClusterClient) *many {
	return &many{store: s, client: client, hint: make(chan struct{}, 1), shards: map[*redis.Client]*shard{}}
}

func (m *many) shard(key, tag string) (*shard, error) {
	if !m.known.Load() {
		return nil, errUnknown // to ask now would let requests wait
	}
	client, err := m.client.MasterForKey(noContext, key)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	found := m.shards[client]
	m.mu.RUnlock()
	if found == nil {
		found = m.add(client)
	}
	if found.tagged.Load() == nil {
		own := strings.Clone(tag) // the caller's may be part of a request
		found.tagged.Store(&own)
	}
	return found, nil
}

// add returns the shard of a primary, which it makes if there is none yet.
func (m *many) add(client *redis.Client) *shard {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.shards[client]
	if found == nil {
		found = newShard(m.store, client, client.Options().Addr)
		m.shards[client] = found
		found.keep("the care of a server of the Redis Cluster", found.tend)
	}
	return found
}

func (m *many) all() []*shard {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := make([]*shard, 0, len(m.shards))
	for _, shard := range m.shards {
		all = append(all, shard)
	}
	return all
}

func (m *many) changed() {
	select {
	case m.hint <- struct{}{}:
	default:
	}
}

func (m *many) start(ctx context.Context) error {
	err := m.refresh(ctx)
	m.store.spawn(func(group *panics.Group) {
		group.Keep(m.store.ctx, "the look for the servers of the Redis Cluster", m.watch)
	})
	return err
}

const (
	// refreshEvery is how often the primaries are looked for, and refreshPause how long the next look waits after one
	// that was asked for.
	refreshEvery = time.Second
	refreshPause = 100 * time.Millisecond
	// mostRetired is how many servers that are no primaries any more are looked through for settlements.
	mostRetired = 64
)

func (m *many) watch(ctx context.Context) {
	timer := time.NewTimer(refreshEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-m.hint:
		}
		limited, cancel := context.WithTimeout(ctx, patience)
		_ = m.refresh(limited) // the next look is not far, and the shards say what is wrong
		cancel()
		timer.Reset(refreshPause)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(refreshEvery)
	}
}

// refresh asks the Cluster for its primaries.
func (m *many) refresh(ctx context.Context) error {
	var mu sync.Mutex
	primaries := map[*redis.Client]bool{}
	err := m.client.ForEachMaster(ctx, func(_ context.Context, client *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		primaries[client] = true
		return nil
	})
	if err == nil && len(primaries) == 0 {
		err = errUnknown
	}
	if err != nil {
		return errors.Join(errUnknown, err)
	}
	m.known.Store(true)
	for client := range primaries {
		m.add(client)
	}
	m.mu.Lock()
	for client, shard := range m.shards {
		if !primaries[client] {
			delete(m.shards, client)
			shard.cancel()
			m.retired = append(m.retired, shard)
		}
	}
	retired := m.retired
	if len(retired) > mostRetired {
		m.retired = retired[len(retired)-mostRetired:]
	}
	m.mu.Unlock()
	m.store.settleElsewhere(m.store.lost.take(int(m.store.queue.most)))
	for _, shard := range retired {
		m.store.settleElsewhere(shard.settlements.take(int(m.store.queue.most)))
	}
	return nil
}
