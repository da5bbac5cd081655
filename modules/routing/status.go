package routing

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/endpoint"
)

// Status tells an operator which rules are in force on a node.
type Status struct {
	Sources []SourceStatus `json:"sources" doc:"Where rules come from, and how they stand."`
	Rules   []RuleStatus   `json:"rules,omitempty" doc:"The rules of the token that was asked for."`
}

// SourceStatus tells how the rules of a source stand.
type SourceStatus struct {
	Source string `json:"source" doc:"Where the rules come from: posthog, store (the shared state) or config."`
	State  string `json:"state" doc:"current: in force, as they are there. unread: none were read since the start. stale: the source has not answered for routing.rules_stale_after, and the rules are in force. ignored: the same, and they are not in force, for PostHog those of one document at least. off: switched off."`

	Rules       int        `json:"rules" doc:"How many rules are in force."`
	Tokens      int        `json:"tokens" doc:"How many tokens these rules concern."`
	Sessions    int        `json:"sessions,omitempty" doc:"How many sessions PostHog has put into overflow."`
	AnsweredAt  *time.Time `json:"answered_at,omitempty" doc:"When the source last answered; for PostHog, when the oldest of its documents was read."`
	Error       string     `json:"error,omitempty" doc:"Why the last attempt to read rules failed."`
	BrokenRules int        `json:"broken_rules" doc:"How many rules have faults and are not in force."`
	Broken      []Broken   `json:"broken,omitempty" doc:"The first 100 of these rules."`
}

// Broken is a rule that has faults.
type Broken struct {
	Rule   string `json:"rule" doc:"The id of the rule."`
	Faults string `json:"faults" doc:"What is wrong with it, a fault a line."`
}

// RuleStatus is a rule in force.
type RuleStatus struct {
	Rule   string            `json:"rule" doc:"The id of the rule, as in the log and in the header dlq_rule."`
	Fields map[string]string `json:"fields" doc:"The rule, as docs/restrictions.md has it."`
	Events uint64            `json:"events" doc:"How many events the rule has decided about on this node since it was read as it is."`
}

// maxShown is how many rules of a token are shown.
const maxShown = 1000

func (s *Stage) status(token string) Status {
	policy, shared := s.policy.Now(), s.shared.Load()
	var status Status
	if posthog := s.posthog.status.Load(); posthog != nil {
		status.Sources = append(status.Sources, *posthog)
	}
	status.Sources = append(status.Sources, *s.records.status.Load(), SourceStatus{
		Source: fromConfig.String(), State: current.String(), Rules: policy.size, Tokens: len(policy.projects),
	})
	for _, index := range []*index{shared.posthog, shared.store, policy.index} {
		project := index.projects[token]
		if project == nil {
			continue
		}
		for _, r := range project.rules {
			if len(status.Rules) < maxShown {
				status.Rules = append(status.Rules, RuleStatus{
					Rule: r.id, Fields: r.Fields(), Events: r.count.Load(),
				})
			}
		}
	}
	return status
}

// Endpoint shows operators which rules are in force.
func (s *Stage) Endpoint(log *zap.Logger) endpoint.Endpoint {
	return api.New(nil, log).Endpoint(api.Operation{
		Pattern: "GET /admin/routing",
		About:   "Which rules are in force on this node, how old they are, and which have faults.",
		Access:  endpoint.Reader,
		Parameters: []endpoint.Parameter{
			{In: endpoint.Query, Name: "token", About: "Show the rules of this token as well, up to 1000 of them."},
		},
		Answers: []endpoint.Answer{{Status: http.StatusOK, About: "How the rules stand.", Of: Status{}}},
		Handle: func(call *api.Call) (*api.Answer, error) {
			return api.OK(s.status(call.Query("token"))), nil
		},
	})
}
