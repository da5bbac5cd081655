package routing

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
)

// dlqReason is the reason why an event is set aside, in the word that PostHog's pipeline knows.
const dlqReason = "event_restriction"

// Stage applies the rules. Start and Stop are each called once, Start first. Process is safe for concurrent use at any
// time.
type Stage struct {
	policy  *configs.Value[*policy]
	topics  *configs.Value[[]string] // nil in a build without Kafka
	metrics metrics
	log     *zap.Logger

	shared     atomic.Pointer[shared]
	publishing sync.Mutex
	records    *records
	posthog    *posthog

	cancel context.CancelFunc
	group  *panics.Group
}

var _ events.Stage = (*Stage)(nil)

// policy holds the rules of one configuration.
type policy struct {
	Config
	*index
}

// shared holds the rules that do not come from the configuration. It never changes: another one takes its place.
type shared struct {
	store, posthog *index
	// sessions are the sessions whose recordings PostHog has put into overflow, each with the time until which.
	sessions map[string]time.Time
	// state is how the rules of the store stand.
	state state
}

// NewStage returns the stage of the section, which reads further rules from the store.
func NewStage(live *configs.Live, from store.Store, log *zap.Logger, scope tally.Scope) (*Stage, error) {
	policy, err := configs.NewValue(live, func(cfg Config) (*policy, error) { return newPolicy(cfg), nil })
	if err != nil {
		return nil, err
	}
	s := &Stage{policy: policy, metrics: newMetrics(scope), log: log, group: panics.NewGroup(log)}
	if _, err := configs.SectionOf[produce.Topics](live.View().Set()); err == nil {
		if s.topics, err = configs.NewValue(live, func(topics produce.Topics) ([]string, error) {
			return topics.Names(), nil
		}); err != nil {
			return nil, err
		}
	}
	s.records, s.posthog = newRecords(from, s), newPostHog(from, s)
	s.shared.Store(&shared{store: newIndex(nil), posthog: newIndex(nil), state: s.records.state()})
	if err := s.follow(live); err != nil {
		return nil, err
	}
	return s, nil
}

// follow has the rules judged anew when the configuration changes what they are judged by.
func (s *Stage) follow(live *configs.Live) error {
	anew := configs.Change{Commit: func() {
		s.records.wake()
		s.posthog.wake()
	}}
	if s.topics != nil {
		err := configs.Follow(live, func(_, _ produce.Topics) (configs.Change, error) { return anew, nil })
		if err != nil {
			return err
		}
	}
	return configs.Follow(live, func(_, _ Config) (configs.Change, error) { return anew, nil })
}

func newPolicy(cfg Config) *policy { return &policy{Config: cfg, index: newIndex(cfg.rules())} }

// Phase is events.PhaseRoute.
func (s *Stage) Phase() events.Phase { return events.PhaseRoute }

// Name is "routing".
func (s *Stage) Name() string { return "routing" }

// startTime is how long the start waits for the rules of the stores.
const startTime = 2 * time.Second

// Start reads the rules, so that the first request is judged by them, and goes on to read them. That a store does not
// answer is no error.
func (s *Stage) Start(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, startTime)
	s.records.step(limited)
	s.posthog.step(limited)
	cancel()
	ctx, s.cancel = context.WithCancel(context.Background())
	s.group.Keep(ctx, "the reader of rules", s.records.keep)
	if s.posthog.store.HasPostHog() {
		s.group.Keep(ctx, "the reader of PostHog's restrictions", s.posthog.keep)
	}
	return nil
}

// Stop ends the reading of rules. Those in force stay.
func (s *Stage) Stop(context.Context) error {
	s.cancel()
	s.group.Wait()
	return nil
}

// User tells the store whether events fail without it.
func (s *Stage) User() store.User {
	return store.User{Name: s.Name(), Closed: func() bool {
		return s.policy.Now().isClosed() && s.shared.Load().state == unread
	}}
}

// publish puts what change makes of the shared rules in force.
func (s *Stage) publish(change func(*shared)) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	next := *s.shared.Load()
	change(&next)
	s.shared.Store(&next)
}

// checkTopic returns an error if a rule sends events to a topic that is none of the service's.
func (s *Stage) checkTopic(r *restriction.Rule) error {
	if s.topics == nil {
		return nil
	}
	return r.CheckTopic(s.topics.Now())
}

var errNoRules = events.Errorf(events.Unavailable,
	"the rules of the shared state cannot be read, and routing.on_store_failure is closed")

// Process applies the rules to the batch's pending events. It returns no Settle and no error. The rules of the
// configuration are those of Batch.Config. Those of the stores are the ones in force when Process begins: it takes them
// once, so that all events of the batch are judged by the same rules.
func (s *Stage) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	policy, shared := s.policy.In(batch.Config), s.shared.Load()
	if policy.HistoricalOnly && !batch.Historical {
		for i := range batch.Events {
			batch.Events[i].Drop(events.ReasonNotHistorical)
		}
		return nil, nil
	}
	if shared.state == unread || shared.state == ignored {
		s.pass(batch, policy, shared.state)
	}
	j := judge{sessions: shared.sessions, received: batch.Received}
	for _, index := range [...]*index{shared.posthog, shared.store, policy.index} {
		if project := index.projects[batch.Token]; project != nil {
			j.projects[j.n] = project
			j.n++
		}
	}
	if j.n == 0 && policy.HistoricalAfter == 0 && len(j.sessions) == 0 {
		return nil, nil
	}
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		if policy.isOld(event, batch.Received) {
			event.Lane = events.LaneHistorical
		}
		j.judge(event)
	}
	for action, n := range j.applied {
		if n > 0 {
			s.metrics.applied[action].Inc(n)
		}
	}
	return nil, nil
}

// pass is what becomes of the events while the rules of the store are not known.
func (s *Stage) pass(batch *events.Batch, policy *policy, state state) {
	if state == unread && policy.isClosed() {
		s.metrics.refused.Inc(int64(batch.FailPending(events.ReasonStore, errNoRules)))
		return
	}
	s.metrics.admissions.Inc(int64(batch.Pending()))
}

// isOld reports whether an ordinary event is old enough for the historical lane.
func (p *policy) isOld(event *events.Event, received time.Time) bool {
	return p.HistoricalAfter > 0 && event.Lane == events.LaneMain && received.Sub(event.Timestamp) >= p.HistoricalAfter
}

// judge applies rules to the events of a batch.
type judge struct {
	projects [sourceCount]*project
	n        int

	sessions map[string]time.Time
	received time.Time

	applied [restriction.ActionCount]int64
}

func (j *judge) judge(event *events.Event) {
	var v verdict
	var s session
	for _, project := range j.projects[:j.n] {
		project.judge(event, &s, &v)
	}
	if r := v[restriction.Drop]; r != nil {
		event.DropByRule(j.apply(r))
		return
	}
	switch event.Lane {
	case events.LaneHeatmaps, events.LaneClientWarnings, events.LaneLogs:
		return
	}
	// The rule whose destination counts comes last, since it gives the event its Rule.
	routing := &event.Routing
	if r := v[restriction.SkipPerson]; r != nil {
		routing.SkipPerson, routing.Rule = true, j.apply(r)
	}
	j.overflow(event, v[restriction.Overflow])
	if r := v[restriction.Topic]; r != nil {
		routing.Topic, routing.Rule = r.Topic, j.apply(r)
	}
	if r := v[restriction.DLQ]; r != nil {
		routing.DLQ, routing.Rule = dlqReason, j.apply(r)
	}
}

// apply notes that the rule has decided about an event. It returns the rule's id.
func (j *judge) apply(r *rule) (id string) {
	j.applied[r.Action]++
	r.count.Add(1)
	return r.id
}

// sessionsRule is what stands for a rule where PostHog has put a session into overflow.
const sessionsRule = "posthog/capture-overflow/replay"

// overflow moves the event to overflow if its lane has one, by the rule or because of its session.
func (j *judge) overflow(event *events.Event, r *rule) {
	routing := &event.Routing
	switch {
	case event.Lane == events.LaneRecordings:
		if until, is := j.sessions[event.SessionID]; is && j.received.Before(until) {
			routing.Overflow, routing.Rule = true, sessionsRule
			j.applied[restriction.Overflow]++
		} else if r != nil {
			// The parts of a session keep their order, and a recording has no person to leave alone.
			routing.Overflow, routing.Rule = true, j.apply(r)
		}
	case r != nil && (event.Lane == events.LaneMain || event.Lane == events.LaneAI):
		routing.Overflow, routing.Unkeyed, routing.SkipPerson, routing.Rule = true, true, true, j.apply(r)
	}
}
