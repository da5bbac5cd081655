package quota

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
)

// PostHog's application writes the projects that have used up what is paid for into sorted sets, one for a resource.
// The members are tokens, the scores the times until which a limit holds.
const (
	billingKey = "@posthog/quota-limits/"
	// billingPeriod is how often the sets are read.
	billingPeriod = 5 * time.Second
)

// billingNames are the names of PostHog's resources. PostHog has no limit for logs.
var billingNames = map[events.Resource]string{
	events.ResourceEvents: "events", events.ResourceRecordings: "recordings", events.ResourceExceptions: "exceptions",
	events.ResourceAI: "llm_events", events.ResourceSurveys: "surveys",
}

// billing has PostHog's own limits, as they were read last.
type billing struct {
	source store.PostHog
	quota  *Quota
	// sets is nil while no project is over a limit.
	sets atomic.Pointer[billingSets]
	last atomic.Pointer[billingState]
}

type billingSets [events.ResourceCount]map[string]time.Time

// billingState is how the last attempt to read a limit ended.
type billingState struct {
	at  time.Time // of the last success for all resources
	err error
}

func newBilling(source store.PostHog, q *Quota) *billing { return &billing{source: source, quota: q} }

func (b *billing) has() bool { return b.source.HasPostHog() }

func (b *billing) keep(ctx context.Context) {
	ticker := time.NewTicker(billingPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			b.read(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// read reads the limits. What cannot be read stays as it was.
func (b *billing) read(ctx context.Context) {
	now := b.quota.clock()
	var sets billingSets
	if before := b.sets.Load(); before != nil {
		sets = *before
	}
	var failed error
	tokens := 0
	for r, name := range billingNames {
		set, err := b.source.SortedSet(ctx, billingKey+name, now)
		if err != nil {
			failed = err
			b.quota.metrics.billingErrors.Inc(1)
		} else {
			sets[r] = set
		}
		tokens += len(sets[r])
		b.quota.metrics.billingTokens[r].Update(float64(len(sets[r])))
	}
	state := billingState{at: now, err: failed}
	if before := b.last.Load(); failed != nil {
		state.at = time.Time{}
		if before != nil {
			state.at = before.at
		}
		if before == nil || before.err == nil {
			b.quota.log.Warn("PostHog's own limits cannot be read; those that were read before stay in force",
				zap.Error(failed))
		}
	}
	b.last.Store(&state)
	if tokens == 0 {
		b.sets.Store(nil)
		return
	}
	b.sets.Store(&sets)
}

// judge drops the events of projects that are over one of PostHog's limits.
func (b *billing) judge(batch *events.Batch, q *Quota) {
	sets := b.sets.Load()
	if sets == nil {
		return
	}
	now := b.quota.clock()
	var dropped needs
	var until [events.ResourceCount]time.Time
	limited := false
	for r, set := range sets {
		if t, ok := set[batch.Token]; ok && t.After(now) {
			until[r], limited = t, true
		}
	}
	if !limited {
		return
	}
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		if r := event.Resource(); !until[r].IsZero() {
			event.Drop(events.ReasonQuota)
			dropped[r]++
		}
	}
	for r, n := range dropped {
		if n > 0 {
			q.metrics.billing[r].Inc(n)
			batch.Standings.Add(events.Standing{
				Resource: events.Resource(r), Kind: events.LimitBilling, Over: true, Reset: until[r].Sub(now),
			})
		}
	}
}
