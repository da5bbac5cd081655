package routing

import (
	"context"
	"strings"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

// dlqReason is the reason why an event is set aside, in the word that PostHog's pipeline knows.
const dlqReason = "event_restriction"

// Stage applies the rules of the configuration that a batch is judged by. It is safe for concurrent use.
type Stage struct{ policy *configs.Value[*policy] }

// policy holds the rules of one configuration.
type policy struct {
	projects        map[string]*project
	historicalAfter time.Duration
	historicalOnly  bool
}

var _ events.Stage = (*Stage)(nil)

// project holds the rules for one token.
type project struct {
	// all holds the rules for every event, users the rules for the events of one distinct_id. The rules of a user
	// include those of all.
	all   rules
	users map[string]*rules
}

type rules struct {
	drop, overflow, skipPerson, dlq bool
	topic                           string
}

// NewStage returns the stage of the section.
func NewStage(live *configs.Live) (*Stage, error) {
	policy, err := configs.NewValue(live, func(cfg Config) (*policy, error) { return newPolicy(cfg), nil })
	if err != nil {
		return nil, err
	}
	return &Stage{policy: policy}, nil
}

func newPolicy(cfg Config) *policy {
	p := &policy{
		projects: map[string]*project{}, historicalAfter: cfg.HistoricalAfter, historicalOnly: cfg.HistoricalOnly,
	}
	for _, list := range []struct {
		who []string
		set func(*rules)
	}{
		{cfg.Drop, func(r *rules) { r.drop = true }},
		{cfg.Overflow, func(r *rules) { r.overflow = true }},
		{cfg.SkipPerson, func(r *rules) { r.skipPerson = true }},
		{cfg.DLQ, func(r *rules) { r.dlq = true }},
	} {
		for _, who := range list.who {
			list.set(p.rules(who))
		}
	}
	for _, rule := range cfg.Topics {
		who, topic, _ := cutTopic(rule)
		p.rules(who).topic = topic
	}
	for _, project := range p.projects {
		for _, user := range project.users {
			user.join(project.all)
		}
	}
	return p
}

// rules returns the rules of a token or token:distinct_id. The caller adds to them.
func (p *policy) rules(who string) *rules {
	token, distinctID, one := strings.Cut(who, ":")
	of := p.projects[token]
	if of == nil {
		of = &project{users: map[string]*rules{}}
		p.projects[token] = of
	}
	if !one {
		return &of.all
	}
	if of.users[distinctID] == nil {
		of.users[distinctID] = &rules{}
	}
	return of.users[distinctID]
}

// join adds the rules for all users to the rules of one user.
func (r *rules) join(all rules) {
	r.drop = r.drop || all.drop
	r.overflow = r.overflow || all.overflow
	r.skipPerson = r.skipPerson || all.skipPerson
	r.dlq = r.dlq || all.dlq
	if r.topic == "" {
		r.topic = all.topic
	}
}

// Phase is events.PhaseRoute.
func (s *Stage) Phase() events.Phase { return events.PhaseRoute }

// Name is "routing".
func (s *Stage) Name() string { return "routing" }

// Process applies the rules to the batch's pending events. It returns no Settle and no error.
func (s *Stage) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	policy := s.policy.In(batch.Config)
	refused := policy.historicalOnly && !batch.Historical
	project := policy.projects[batch.Token]
	if !refused && project == nil && policy.historicalAfter == 0 {
		return nil, nil
	}
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		if refused {
			event.Drop(events.ReasonNotHistorical)
			continue
		}
		if policy.isOld(event, batch.Received) {
			event.Lane = events.LaneHistorical
		}
		if project != nil {
			project.of(event).apply(event)
		}
	}
	return nil, nil
}

// isOld reports whether an ordinary event is old enough for the historical lane.
func (p *policy) isOld(event *events.Event, received time.Time) bool {
	return p.historicalAfter > 0 && event.Lane == events.LaneMain && received.Sub(event.Timestamp) >= p.historicalAfter
}

// of returns the rules for an event.
func (p *project) of(event *events.Event) *rules {
	if rules, own := p.users[event.DistinctID]; own {
		return rules
	}
	return &p.all
}

func (r *rules) apply(event *events.Event) {
	if r.drop {
		event.Drop(events.ReasonRule)
		return
	}
	switch event.Lane {
	case events.LaneHeatmaps, events.LaneClientWarnings, events.LaneLogs:
		return
	}
	routing := &event.Routing
	if r.dlq {
		routing.DLQ = dlqReason
	}
	if r.topic != "" {
		routing.Topic = r.topic
	}
	routing.SkipPerson = routing.SkipPerson || r.skipPerson
	if !r.overflow {
		return
	}
	switch event.Lane {
	case events.LaneMain, events.LaneAI:
		routing.Overflow, routing.Unkeyed, routing.SkipPerson = true, true, true
	case events.LaneRecordings:
		// The parts of a session keep their order, and a recording has no person to leave alone.
		routing.Overflow = true
	}
}
