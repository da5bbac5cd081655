package redis

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/opencapture/capture/modules/store"
)

const (
	// largest is the largest number that the scripts add without rounding.
	largest = 1 << 52
	// mostAccounts is the largest number of an account.
	mostAccounts = 1 << 50
	// longestSpan is how long the whole burst of a rate may take to fill up.
	longestSpan = math.MaxInt64 / 4
	// grace is how long a window can be looked at after its end.
	grace = time.Minute
	// mostDraws is how many draws one call may have.
	mostDraws = 256
	// mostCounters is how many counters of a token Usage returns at most.
	mostCounters = 10_000
	// The numbers of values that the script takes and returns.
	quotaArgs, quotaResults = 13, 3
	rateArgs, rateResults   = 5, 3
	clockResults            = 2
)

// Take implements store.Counters. All draws are made in one step, at one time of the server.
func (s *Store) Take(ctx context.Context, token string, quotas []store.QuotaDraw, rates []store.RateDraw) error {
	if len(quotas)+len(rates) == 0 {
		return nil
	}
	return s.metrics.count(callTake, s.take(ctx, token, quotas, rates))
}

func (s *Store) take(ctx context.Context, token string, quotas []store.QuotaDraw, rates []store.RateDraw) error {
	n := 1 + len(quotas) + len(rates)
	if n > mostDraws {
		return fmt.Errorf("%w: %d draws are too many for one call, %d are allowed", errImpossible, n-1, mostDraws-1)
	}
	list := s.keys.counters(token)
	args := make([]any, 3, 4+n+len(quotas)*quotaArgs+len(rates)*rateArgs)
	args[2] = n
	args = append(args, list)
	for i := range quotas {
		key, err := s.checkQuota(token, &quotas[i])
		if err != nil {
			return err
		}
		args = append(args, key)
	}
	for i := range rates {
		key, err := s.checkRate(token, &rates[i])
		if err != nil {
			return err
		}
		args = append(args, key)
	}
	args = append(args, len(quotas))
	for i := range quotas {
		d := &quotas[i]
		args = append(args, d.Counter, d.Node, d.Account, d.Start.UnixMicro(), d.End.UnixMicro(),
			d.End.Add(grace).UnixMilli(), min(d.Limit, largest), min(d.Unspent, largest), d.Granted, d.Returned, d.Held,
			d.Need, d.Extra)
	}
	for i := range rates {
		d := &rates[i]
		args = append(args, int64(d.Interval), d.Burst, d.Need, d.Extra, d.Return)
	}
	c := newCall(n, takeScript.run(args))
	defer c.free()
	if s.stopped.Load() {
		return unavailable(errStopped)
	}
	shard, err := s.servers.shard(list, token)
	if err != nil {
		return unavailable(err)
	}
	sent := time.Now()
	if err := shard.lane().do(ctx, c); err != nil {
		return err
	}
	results, err := numbers(c.result(0).(*redis.Cmd), clockResults+len(quotas)*quotaResults+len(rates)*rateResults)
	if err != nil {
		return err
	}
	s.clock.learn(sent, time.Now(), results[0], results[1])
	results = results[clockResults:]
	for i := range quotas {
		d := &quotas[i]
		d.Given, d.Used, d.Stale = results[0], results[1], results[2] == 1
		results = results[quotaResults:]
	}
	for i := range rates {
		d := &rates[i]
		d.Given, d.Left, d.Wait = results[0], results[1], time.Duration(results[2])
		results = results[rateResults:]
	}
	return nil
}

func (s *Store) checkQuota(token string, d *store.QuotaDraw) (key string, err error) {
	switch {
	case d.Node == "" || len(d.Node) > maxName:
		return "", fmt.Errorf("%w from %q: the name of the node must have 1 to %d bytes", errImpossible, d.Counter,
			maxName)
	case d.Account > mostAccounts:
		return "", fmt.Errorf("%w from %q: the account's number is %d, and %d is the largest", errImpossible, d.Counter,
			d.Account, int64(mostAccounts))
	case min(d.Need, d.Extra, d.Limit, d.Unspent, d.Granted, d.Returned, d.Held) < 0 ||
		max(d.Need, d.Extra, d.Granted, d.Returned) > largest || d.Held > d.Granted-d.Returned:
		return "", fmt.Errorf("%w from %q: need %d, extra %d, and %d granted, %d returned and %d held do not go "+
			"together", errImpossible, d.Counter, d.Need, d.Extra, d.Granted, d.Returned, d.Held)
	case !d.Start.Before(d.End):
		return "", fmt.Errorf("%w from %q: the window ends before it starts", errImpossible, d.Counter)
	}
	return s.keys.counter(token, d.Counter)
}

func (s *Store) checkRate(token string, d *store.RateDraw) (key string, err error) {
	if min(d.Need, d.Extra, d.Return, d.Burst) < 0 || max(d.Need, d.Extra, d.Return) > largest || d.Interval <= 0 ||
		d.Burst > longestSpan/int64(d.Interval) {
		return "", fmt.Errorf("%w from %q: need %d, extra %d, return %d, burst %d and interval %s do not go together",
			errImpossible, d.Counter, d.Need, d.Extra, d.Return, d.Burst, d.Interval)
	}
	return s.keys.counter(token, d.Counter)
}

// numbers returns the answer of a script that answers with so many numbers.
func numbers(cmd *redis.Cmd, n int) ([]int64, error) {
	list, ok := cmd.Val().([]any)
	if !ok || len(list) != n {
		return nil, errShape
	}
	all := make([]int64, n)
	for i := range list {
		if all[i], ok = list[i].(int64); !ok {
			return nil, errShape
		}
	}
	return all, nil
}

// Usage implements store.Counters. It makes two round trips: operators ask for it, and no request does.
func (s *Store) Usage(ctx context.Context, token string) (map[string]store.Usage, error) {
	usage, err := s.usage(ctx, token)
	return usage, s.metrics.count(callUsage, err)
}

func (s *Store) usage(ctx context.Context, token string) (map[string]store.Usage, error) {
	list := s.keys.counters(token)
	names := newCall(1, op{
		cmd: redis.NewStringSliceCmd(noContext, "zrange", list, 0, mostCounters-1, "rev", "withscores"),
	})
	defer names.free()
	if err := s.do(ctx, list, token, names); err != nil {
		return nil, err
	}
	found := names.result(0).(*redis.StringSliceCmd).Val()
	c := newCall(len(found) / 2)
	defer c.free()
	for i := 0; i+1 < len(found); i += 2 {
		key, err := s.keys.counter(token, found[i])
		if err != nil {
			return nil, err
		}
		c.ops = append(c.ops, op{cmd: redis.NewSliceCmd(noContext, "hmget", key, "used", "held")})
	}
	usage := map[string]store.Usage{}
	if len(c.ops) == 0 {
		return usage, nil
	}
	if err := s.do(ctx, list, token, c); err != nil {
		return nil, err
	}
	for i := range c.ops {
		of, exists, err := readUsage(c.result(i).(*redis.SliceCmd).Val(), found[2*i+1])
		if err != nil {
			return nil, fmt.Errorf("the counter %q: %w", found[2*i], err)
		}
		if exists {
			usage[found[2*i]] = of
		}
	}
	return usage, nil
}

// readUsage reads what a counter has, and until when it is kept.
func readUsage(fields []any, until string) (of store.Usage, exists bool, err error) {
	if len(fields) != 2 || fields[0] == nil || fields[1] == nil {
		return of, false, nil
	}
	for i, into := range []*int64{&of.Used, &of.Held} {
		text, _ := fields[i].(string)
		if *into, err = strconv.ParseInt(text, 10, 64); err != nil {
			return of, false, err
		}
	}
	millis, err := strconv.ParseFloat(until, 64)
	of.End = time.UnixMilli(int64(millis)).Add(-grace)
	return of, true, err
}

// Adjust implements store.Counters.
func (s *Store) Adjust(ctx context.Context, token, counter string, n int64) (store.Usage, error) {
	usage, err := s.adjust(ctx, token, counter, n)
	return usage, s.metrics.count(callAdjust, err)
}

func (s *Store) adjust(ctx context.Context, token, counter string, n int64) (usage store.Usage, err error) {
	key, err := s.keys.counter(token, counter)
	if err != nil {
		return usage, err
	}
	c := newCall(1, adjustScript.run([]any{nil, nil, 1, key, max(-largest, min(n, largest)), int64(largest)}))
	defer c.free()
	if err := s.do(ctx, key, token, c); err != nil {
		return usage, err
	}
	results, err := numbers(c.result(0).(*redis.Cmd), 2)
	if err != nil {
		return usage, err
	}
	usage.Used, usage.Held = results[0], results[1]
	return usage, nil
}
