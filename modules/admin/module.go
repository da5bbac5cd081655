package admin

import (
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/client"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
)

// Module is the operators' listener.
//
// Provides *Server, a member of the background parts, a start fact, *audit.Log, and client.Own for commands. Requires
// prometheus.Gatherer and *observability.Health (modules/observability). It takes the value group "endpoints" of
// endpoint.Endpoint (see endpoint.As), and adds the listener's own endpoints to those. Config section: "admin".
func Module() module.Module {
	return module.Module{
		Name:   "admin",
		Config: DefaultConfig(),
		Probes: []configs.Rule{auditCanBeKept},
		Metrics: module.Metrics{
			"audit_failures_total": "Lines that the audit log did not take. What they tell of was refused.",
		},
		Options: fx.Provide(
			newAudit,
			func(cfg Config) client.Own { return client.Own{Listen: cfg.Listen, Token: cfg.Token} },
			endpoint.AsEach(Endpoints),
			fx.Annotate(newServer, fx.ParamTags(``, ``, `group:"endpoints"`)),
			module.AsBackground(func(s *Server) *Server { return s }),
			module.AsStartFact(newStartFact),
		),
		Requires: []module.Requirement{
			module.Require[prometheus.Gatherer]("modules/observability"),
			module.Require[*observability.Health]("modules/observability"),
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

func newAudit(live *configs.Live, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle) (*audit.Log, error) {
	config, err := configs.Current[Config](live)
	if err != nil {
		return nil, err
	}
	path := func() string { return config.Now().Audit.File }
	auditLog := audit.New(path, os.Stderr, log, scope.Counter("audit_failures_total"))
	lifecycle.Append(fx.StopHook(auditLog.Close))
	return auditLog, nil
}

func newServer(
	live *configs.Live, build module.Build, endpoints []endpoint.Endpoint, log *zap.Logger, lifecycle fx.Lifecycle,
	shutdowner fx.Shutdowner,
) (*Server, error) {
	server, err := NewServer(live, build.Version, endpoints, log, func(err error) {
		log.Error("the operators' listener failed: the service stops", zap.Error(err))
		if err := shutdowner.Shutdown(fx.ExitCode(1)); err != nil {
			log.Error("the service could not be told to stop", zap.Error(err))
		}
	})
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: server.Start, OnStop: server.Stop})
	return server, nil
}

func newStartFact(server *Server) module.StartFact {
	return module.StartFact{Rank: 50, Name: "metrics", Text: server.StartLine}
}
