package quota

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/store"
)

// Module limits how many events projects send.
//
// Provides a stage (see events.AsStage), events.Allowances, a store.User, and the endpoint GET /admin/quota. It starts
// after the store and stops before it. Requires store.Store (modules/store), *zap.Logger and tally.Scope
// (modules/observability). Config section: "quota".
func Module() module.Module {
	return module.Module{
		Name:    "quota",
		Config:  DefaultConfig(),
		Probes:  []configs.Rule{dirIsUsable},
		Metrics: descriptions(),
		Options: fx.Provide(
			newQuota,
			events.AsStage(func(q *Quota) *Quota { return q }),
			func(q *Quota) events.Allowances { return q },
			store.AsUser(newUser),
			endpoint.As(newEndpoint),
		),
		Requires: []module.Requirement{
			module.Require[store.Store]("modules/store"),
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

func newQuota(
	live *configs.Live, shared store.Store, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle,
) (*Quota, error) {
	q, err := New(live, shared, log, scope)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: q.Start, OnStop: q.Stop})
	return q, nil
}
