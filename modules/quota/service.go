package quota

import (
	"context"
	"fmt"
	"math"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
)

// LimitsOf implements events.Allowances.
func (q *Quota) LimitsOf(project *events.Project) *events.Limits {
	if project != nil && project.Limits != nil {
		return project.Limits
	}
	return q.settings.Now().limits
}

// Usage implements events.Allowances.
func (q *Quota) Usage(ctx context.Context, token string, limits *events.Limits) ([]events.Allowance, error) {
	usage, err := q.counters.Usage(ctx, token)
	if err != nil {
		return nil, fmt.Errorf("read what is used: %w", err)
	}
	now := q.now().In(newPlan(limits).zone)
	allowances := make([]events.Allowance, len(limits.Quotas))
	for i, quota := range limits.Quotas {
		start, end := quota.Period.Window(now)
		used := usage[quota.Counter(start)]
		allowances[i] = events.Allowance{Quota: quota, Used: used.Used, Held: used.Held, Start: start, Reset: end}
	}
	return allowances, nil
}

// operators is the node that operators draw as. It never has anything. No node is called so: their names are of
// hexadecimal digits.
const operators = "operators"

// Refund implements events.Allowances.
func (q *Quota) Refund(
	ctx context.Context, token string, limits *events.Limits, quota events.Quota, n int64,
) (events.Allowance, error) {
	start, end := quota.Period.Window(q.now().In(newPlan(limits).zone))
	if n < 0 {
		// The counter may not exist yet, and a draw of nothing makes it.
		none := []store.QuotaDraw{{
			Counter: quota.Counter(start), Node: operators, Start: start, End: end, Limit: quota.Limit,
		}}
		if err := q.counters.Take(ctx, token, none, nil); err != nil {
			return events.Allowance{}, fmt.Errorf("make the counter: %w", err)
		}
		if none[0].Stale {
			return events.Allowance{}, fmt.Errorf("make the counter: %w", errStale)
		}
	}
	usage, err := q.counters.Adjust(ctx, token, quota.Counter(start), -max(n, -math.MaxInt64))
	if err != nil {
		return events.Allowance{}, fmt.Errorf("change what is used: %w", err)
	}
	if q.started.Load() {
		if s := q.table.find(token); s != nil {
			s.askAgain()
		}
	}
	return events.Allowance{Quota: quota, Used: usage.Used, Held: usage.Held, Start: start, Reset: end}, nil
}

// Reset implements events.Allowances.
func (q *Quota) Reset(
	ctx context.Context, token string, limits *events.Limits, quota events.Quota,
) (events.Allowance, error) {
	return q.Refund(ctx, token, limits, quota, math.MaxInt64/4)
}

// askAgain has the node ask the store again, although a quota was used up when it last did.
func (s *subject) askAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		a.retryAt = 0
	}
}
