package observability

import (
	"context"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

// Module is the service's logs, metrics and readiness.
//
// Provides *zap.Logger (on standard error; the code that ends the process calls its Sync last), tally.Scope (the root
// scope, prefix "capture"), prometheus.Gatherer (which a scrape reads) and *Health. The module that takes the traffic
// calls Health's SetStarted and SetStopping. Requires only *configs.Live, module.Build and module.Metrics, which the
// app supplies. It takes the value groups "collectors" of prometheus.Collector (see AsCollector), "health_checks" of
// Check (see AsCheck) and "health_overrides" of Override (see AsOverride), all of which may be empty. Config section:
// "observability".
func Module() module.Module {
	return module.Module{
		Name:   "observability",
		Config: DefaultConfig(),
		Options: fx.Options(
			fx.Provide(NewRegistry, fx.Private),
			fx.Provide(
				newLogger,
				newScope,
				fx.Annotate(NewServiceCollectors, fx.ResultTags(`group:"collectors,flatten"`)),
				fx.Annotate(NewGatherer, fx.ParamTags(``, ``, `group:"collectors"`)),
				fx.Annotate(newHealth, fx.ParamTags(``, `group:"health_overrides"`, `group:"health_checks"`)),
			),
		),
	}
}

// AsCollector annotates a constructor so that the prometheus.Collector that it returns is part of every scrape.
func AsCollector(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"collectors"`))
}

// AsCheck annotates a constructor so that the Check that it returns is a condition of being ready.
func AsCheck(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"health_checks"`))
}

// AsOverride annotates a constructor so that the Override that it returns is asked when its check fails.
func AsOverride(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"health_overrides"`))
}

func newLogger(live *configs.Live, registry *prometheus.Registry) (*zap.Logger, error) {
	log, writer, err := NewLogger(live, os.Stderr)
	if err != nil {
		return nil, err
	}
	return log, registry.Register(newDroppedLines(writer))
}

func newHealth(log *zap.Logger, overrides []Override, checks ...Check) (*Health, error) {
	health, err := NewHealth(overrides, checks...)
	if err == nil {
		health.LogTo(log)
	}
	return health, err
}

func newScope(
	registry *prometheus.Registry, described module.Metrics, log *zap.Logger, lifecycle fx.Lifecycle,
) tally.Scope {
	scope, closer := NewScope(registry, described, log)
	lifecycle.Append(fx.Hook{OnStop: func(context.Context) error { return closer.Close() }})
	return scope
}
