package redis

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/opencapture/capture/modules/store"
)

// posthog reads the Redis of a PostHog installation.
type posthog struct {
	cfg    store.PostHogRedis
	client redis.UniversalClient

	took atomic.Int64
	last atomic.Pointer[failure]
	good atomic.Int64 // when Redis last answered, in ns since 1970
}

var _ store.RunningPostHog = (*posthog)(nil)

// postHogPool is enough connections: what reads is in the background.
const postHogPool = 4

func newPostHog(parts store.Parts) (*posthog, error) {
	client, err := connect(parts.Config.PostHog.Server(), postHogPool, parts.Config.PostHog.Timeout, nil)
	if err != nil {
		return nil, fmt.Errorf("store.posthog: %w", err)
	}
	return &posthog{cfg: parts.Config.PostHog, client: client}, nil
}

// HasPostHog implements store.PostHog.
func (*posthog) HasPostHog() bool { return true }

// scannedMembers is about how many members of a set one answer has. A small set is one answer whatever its size.
const scannedMembers = 5000

// SortedSet implements store.PostHog. It reads a large set in parts, so that PostHog's Redis serves others in between.
func (p *posthog) SortedSet(ctx context.Context, key string, now time.Time) (map[string]time.Time, error) {
	set, first := map[string]time.Time{}, float64(now.Unix())
	for cursor := uint64(0); ; {
		var members []string
		err := p.read(ctx, func(ctx context.Context) (err error) {
			members, cursor, err = p.client.ZScan(ctx, p.cfg.Prefix+key, cursor, "", scannedMembers).Result()
			return err
		})
		if err != nil {
			return nil, err
		}
		for i := 0; i+1 < len(members); i += 2 {
			if score, err := strconv.ParseFloat(members[i+1], 64); err == nil && score >= first {
				set[members[i]] = timeOf(score)
			}
		}
		if cursor == 0 {
			return set, nil
		}
	}
}

// lastSecond is the last second that a time.Time is good for: the score may be infinite.
const lastSecond = 253402300799 // the end of the year 9999

func timeOf(score float64) time.Time { return time.Unix(int64(min(score, lastSecond)), 0) }

// Members implements store.PostHog.
func (p *posthog) Members(ctx context.Context, key string) (members []string, err error) {
	err = p.read(ctx, func(ctx context.Context) (err error) {
		members, err = p.client.ZRange(ctx, p.cfg.Prefix+key, 0, -1).Result()
		return err
	})
	return members, err
}

// Strings implements store.PostHog.
func (p *posthog) Strings(ctx context.Context, keys ...string) ([]string, error) {
	values := make([]string, len(keys))
	err := p.read(ctx, func(ctx context.Context) error {
		cmds, err := p.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, key := range keys {
				pipe.Get(ctx, key)
			}
			return nil
		})
		if fateOf(err) != fine {
			return err
		}
		for i, cmd := range cmds {
			if err := cmd.Err(); fateOf(err) != fine {
				return fmt.Errorf("%q: %w", keys[i], err)
			}
			values[i] = cmd.(*redis.StringCmd).Val()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return values, nil
}

// read calls f, which waits for one answer, within the deadline of that.
func (p *posthog) read(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	if err = asError(err); err != nil {
		p.last.Store(&failure{err, time.Now()})
		return fmt.Errorf("the Redis of PostHog: %w", err)
	}
	p.took.Store(int64(time.Since(began)))
	p.good.Store(time.Now().UnixNano())
	return nil
}

// Stop implements store.RunningPostHog.
func (p *posthog) Stop(context.Context) error { return p.client.Close() }

// Status implements store.RunningPostHog.
func (p *posthog) Status() store.PartStatus {
	status := store.PartStatus{
		Address: p.cfg.Server().String(), Reachable: p.good.Load() > 0,
		LatencyMS: float64(p.took.Load()) / float64(time.Millisecond),
	}
	if last := p.last.Load(); last != nil {
		status.LastError, status.LastErrorAt = last.err.Error(), &last.at
		status.Reachable = status.Reachable && last.at.UnixNano() < p.good.Load()
	}
	return status
}
