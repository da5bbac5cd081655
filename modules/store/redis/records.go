package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/opencapture/capture/modules/store"
)

const (
	// maxKind is how long the name of a kind of records may be, maxRecord how long the name, fields and values of a
	// record may be together.
	maxKind, maxRecord = 64, 64 << 10
	// scanned is how many keys Redis looks at in one step of List.
	scanned = 1000
)

func checkKind(kind string) error {
	if kind == "" || strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" || len(kind) > maxKind {
		return fmt.Errorf("%q is no kind of records: it must have 1 to %d of a to z, 0 to 9, _ and -", kind, maxKind)
	}
	return nil
}

func checkRecord(kind, name string, fields store.Fields) error {
	size := len(name)
	for field, value := range fields {
		size += len(field) + len(value)
	}
	switch {
	case name == "":
		return errors.New("a record needs a name")
	case size > maxRecord:
		return fmt.Errorf("the record has %d bytes, and %d are allowed", size, maxRecord)
	}
	return checkKind(kind)
}

// Get implements store.Records.
func (s *Store) Get(ctx context.Context, kind, name string) (store.Fields, error) {
	fields, err := s.get(ctx, kind, name)
	return fields, s.metrics.count(callGet, err)
}

func (s *Store) get(ctx context.Context, kind, name string) (store.Fields, error) {
	if err := checkKind(kind); err != nil {
		return nil, err
	}
	key := s.keys.record(kind, name)
	c := newCall(1, op{cmd: redis.NewMapStringStringCmd(noContext, "hgetall", key)})
	defer c.free()
	if err := s.do(ctx, key, tag(name), c); err != nil {
		return nil, err
	}
	if fields := c.result(0).(*redis.MapStringStringCmd).Val(); len(fields) > 0 {
		return fields, nil
	}
	return nil, nil
}

// Put implements store.Records.
func (s *Store) Put(ctx context.Context, kind, name string, before, after store.Fields) error {
	return s.metrics.count(callPut, s.put(ctx, kind, name, before, after))
}

func (s *Store) put(ctx context.Context, kind, name string, before, after store.Fields) error {
	if err := checkRecord(kind, name, after); err != nil {
		return err
	}
	key := s.keys.record(kind, name)
	args := make([]any, 3, 7+2*len(before)+2*len(after))
	args[2] = 1
	args = append(args, key, s.keys.channel(kind), name, len(before))
	for _, fields := range []store.Fields{before, after} {
		for field, value := range fields {
			args = append(args, field, value)
		}
	}
	c := newCall(1+len(before)+len(after), putScript.run(args))
	defer c.free()
	if err := s.do(ctx, key, tag(name), c); err != nil {
		return err
	}
	written, ok := c.result(0).(*redis.Cmd).Val().(int64)
	switch {
	case !ok:
		return errShape
	case written == 0:
		return fmt.Errorf("%s %q: %w", kind, name, store.ErrConflict)
	}
	return nil
}

// List implements store.Records. It looks through all keys of Redis, in steps that take no more than a call may take.
func (s *Store) List(ctx context.Context, kind, after string, limit int) ([]string, error) {
	names, err := s.list(ctx, kind, after, limit)
	return names, s.metrics.count(callList, err)
}

func (s *Store) list(ctx context.Context, kind, after string, limit int) ([]string, error) {
	if err := checkKind(kind); err != nil || limit <= 0 {
		return nil, err
	}
	servers := s.servers.all()
	if len(servers) == 0 {
		return nil, unavailable(errUnknown)
	}
	found := map[string]bool{}
	for _, shard := range servers {
		if err := s.scan(ctx, shard, kind, func(name string) {
			if name <= after || found[name] {
				return
			}
			found[name] = true
			if len(found) > 2*limit+scanned {
				keepFirst(found, limit)
			}
		}); err != nil {
			return nil, err
		}
	}
	keepFirst(found, limit)
	return slices.Sorted(maps.Keys(found)), nil
}

// keepFirst leaves only the first names of a set.
func keepFirst(names map[string]bool, limit int) {
	sorted := slices.Sorted(maps.Keys(names))
	for _, name := range sorted[min(limit, len(sorted)):] {
		delete(names, name)
	}
}

// scan calls each for the records of a kind that a server has, for some of them more than once.
func (s *Store) scan(ctx context.Context, shard *shard, kind string, each func(name string)) error {
	cursor := uint64(0)
	for {
		if s.stopped.Load() {
			return unavailable(errStopped)
		}
		if err := shard.lanes[0].breaker.err(); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, max(s.settings().Timeout, patience))
		page, next, err := shard.client.ScanType(limited, cursor, s.keys.recordPattern(kind), scanned, "hash").Result()
		cancel()
		if err != nil {
			return asError(err)
		}
		for _, key := range page {
			if name, ok := s.keys.recordName(kind, key); ok {
				each(name)
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// notices has who is to be told of changed records.
type notices struct {
	mu     sync.Mutex
	byKind map[string][]func(name string)
	// listening is closed when the node hears of changes for the first time.
	listening chan struct{}
	heard     sync.Once
}

func (n *notices) hear() { n.heard.Do(func() { close(n.listening) }) }

// Watch implements store.Records.
func (s *Store) Watch(kind string, changed func(name string)) {
	if err := checkKind(kind); err != nil {
		panic(err) // the kind is in the code of the caller
	}
	s.notices.mu.Lock()
	defer s.notices.mu.Unlock()
	s.notices.byKind[kind] = append(s.notices.byKind[kind], changed)
}

func (s *Store) tell(kind, name string) {
	s.notices.mu.Lock()
	watchers := s.notices.byKind[kind]
	s.notices.mu.Unlock()
	s.metrics.notices.Inc(1)
	for _, changed := range watchers {
		changed(name)
	}
}

// tellAll says of every kind that its records may have changed.
func (s *Store) tellAll() {
	s.notices.mu.Lock()
	kinds := slices.Collect(maps.Keys(s.notices.byKind))
	s.notices.mu.Unlock()
	for _, kind := range kinds {
		s.tell(kind, "")
	}
}

// watch listens for notices of changed records. Redis keeps no notice for a node that is away: whenever the connection
// is new, all records may have changed.
func (s *Store) watch(ctx context.Context) {
	s.notices.mu.Lock()
	kinds := map[string]string{}
	for kind := range s.notices.byKind {
		kinds[s.keys.channel(kind)] = kind
	}
	s.notices.mu.Unlock()
	if len(kinds) == 0 {
		s.notices.hear()
		return
	}
	for ctx.Err() == nil {
		_ = s.listen(ctx, kinds) // what is wrong with Redis is told by the shards
		timer := time.NewTimer(listenAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

const (
	// listenAgain is how long the node waits before it listens again after its connection has broken.
	listenAgain = 200 * time.Millisecond
	// listenFor is how long the node listens before it looks whether it has to stop, or to ask whether the server is
	// still there; deafAfter is how often it hears nothing at all before it takes the connection for broken.
	listenFor = 200 * time.Millisecond
	deafAfter = 10
)

// listen tells of notices until the connection breaks. kinds are the kinds of records by their channels.
func (s *Store) listen(ctx context.Context, kinds map[string]string) error {
	heard := s.client.Subscribe(ctx, slices.Sorted(maps.Keys(kinds))...)
	defer func() { _ = heard.Close() }()
	for silent, subscribed := 0, 0; ; {
		message, err := heard.ReceiveTimeout(ctx, listenFor)
		var timeout net.Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			silent = 0
		case !errors.As(err, &timeout) || !timeout.Timeout() || silent >= deafAfter:
			return err
		default:
			if silent++; silent == deafAfter/2 {
				if err := heard.Ping(ctx); err != nil {
					return err
				}
			}
			continue
		}
		switch message := message.(type) {
		case *redis.Subscription:
			if kind, known := kinds[message.Channel]; known {
				s.tell(kind, "")
			}
			if subscribed++; subscribed == len(kinds) {
				s.notices.hear()
			}
		case *redis.Message:
			if kind, known := kinds[message.Channel]; known {
				s.tell(kind, message.Payload)
			}
		}
	}
}
