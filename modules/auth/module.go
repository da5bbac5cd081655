package auth

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// Module decides who may send what.
//
// Provides a gate and a stage (see events.AsGate and events.AsStage), a start fact, the endpoint GET /admin/auth,
// project.Files, and a store.User. Takes the value group "authenticators" of Authenticator (see AsAuthenticator), which
// may be empty. It starts after the store. Requires store.Store and the section of modules/store, *zap.Logger and
// tally.Scope (modules/observability). Config section: "auth".
func Module() module.Module {
	return module.Module{
		Name:   "auth",
		Config: DefaultConfig(),
		Probes: []configs.Rule{replicaCanBeWritten},
		Metrics: module.Metrics{
			"requests_total": "Requests with a token, by what is known of its project: known, unknown (it belongs to " +
				"none), unsure (nobody could say), unasked (too many lookups).",
			"refused_total":  "Requests that were refused, by reason.",
			"lookups_total":  "Lookups of projects in the shared state and elsewhere, by outcome.",
			"projects":       "Projects that this node knows.",
			"broken_records": "Records of projects with faults; GET /admin/auth shows them.",
		},
		Options: fx.Provide(
			fx.Annotate(newAuth, fx.ParamTags(``, ``, ``, `group:"authenticators"`)),
			func(a *Auth) project.Files { return a },
			events.AsGate(func(a *Auth) *Auth { return a }),
			events.AsStage(func(a *Auth) *Auth { return a }),
			endpoint.As((*Auth).Endpoint),
			module.AsStartFact((*Auth).StartFact),
			store.AsUser((*Auth).StoreUser),
		),
		Requires: []module.Requirement{
			module.Require[store.Store]("modules/store"),
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

// AsAuthenticator annotates a constructor so that its result is asked whom tokens belong to. The constructor returns an
// Authenticator, or a type that implements it, and may return an error as well.
func AsAuthenticator(constructor any) any {
	return fx.Annotate(constructor, fx.As(new(Authenticator)), fx.ResultTags(`group:"authenticators"`))
}

func newAuth(
	live *configs.Live, shared store.Store, of store.Config, authenticators []Authenticator,
	log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle,
) (*Auth, error) {
	auth, err := New(live, shared, len(of.Redis.Addrs) > 0, authenticators, log, scope)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: auth.Start, OnStop: auth.Stop})
	return auth, nil
}
