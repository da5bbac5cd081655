package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
)

// App is a graph that has been built: it can be started once and stopped once.
type App struct {
	fx    *fx.App
	live  *configs.Live
	own   Config
	graph *graph
	hooks *hooks
	facts []module.StartFact
	log   *zap.Logger

	reloader *reloader
}

// Build loads the configuration of the modules from the source and builds their graph, without starting it. Errors are
// written for the person who runs or composes the service: a *configs.FaultsError for the configuration, a *MissingError for
// types that no module provides, or what the constructor that failed returned.
//
// Extra options join the graph at its root. That scope is left to them: the app and the modules decorate only inside the
// modules' own scopes, so fx.Decorate(func() T { ... }) there replaces a part of any module, for tests.
func Build(modules []module.Module, source configs.Source, extra ...fx.Option) (*App, error) {
	reloader := newReloader(source.Files)
	set, err := Load(modules, source)
	if err != nil {
		return nil, err
	}
	hooks := &hooks{log: zap.NewNop()}
	live := configs.NewLive(set, func() (*configs.Set, error) { return Load(modules, source) })
	g := newGraph(modules, live, hooks)
	a := &App{live: live, own: set.Section(section).(Config), graph: g, hooks: hooks, reloader: reloader}
	// The root is asked for before the extra options ask for anything, so that they do not change the order of the hooks.
	root := fx.Invoke(func(p rootParams) {
		a.facts = p.Facts
		a.log = p.Log.Named("app")
		a.hooks.log = a.log
		g.events.connect(p.Log)
	})
	a.fx, err = g.build(append([]fx.Option{g.keepLog(), root}, extra...)...)
	if err != nil {
		g.flush()
		return nil, err
	}
	return a, nil
}

// rootParams is what a graph exists for. The order of the fields matters: Fx builds them one after the other, and a hook
// that is appended first starts first and stops last. So the background members outlive everything of the root's.
type rootParams struct {
	fx.In

	Log        *zap.Logger
	Background []module.Background `group:"background"`
	Root       module.Root
	Facts      []module.StartFact `group:"start_facts"`
}

// Config returns the configuration in force.
func (a *App) Config() *configs.Set { return a.live.View().Set() }

// Start runs the start hooks, one after the other, until ctx or app.start_timeout is over. When one fails, those that have
// started are stopped before Start returns its error, which names the module.
func (a *App) Start(ctx context.Context) error {
	starting, cancel := context.WithTimeout(ctx, a.own.StartTimeout)
	defer cancel()
	// Fx stops what has started with the context that it started with. If that were the one that just ran out, no stop hook
	// would run at all; so Fx gets a longer one, and the hooks end the start by theirs.
	outer, cancelOuter := context.WithTimeout(context.WithoutCancel(ctx), a.own.StartTimeout+a.own.StopTimeout)
	defer cancelOuter()
	a.hooks.starting = starting
	err := a.fx.Start(outer)
	if err != nil {
		a.graph.flush()
		return err
	}
	a.reloader.start(a.live, a.log)
	return nil
}

// Reload loads the configuration from its source and puts it in force, as SIGHUP does. The error says why the one in
// force stays.
func (a *App) Reload() error {
	_, err := a.live.Reload()
	return err
}

// Wait returns a channel that reports when the service should end: through fx.Shutdowner, with the exit code, or by SIGINT
// or SIGTERM, with the signal. It is for use between Start and Stop.
func (a *App) Wait() <-chan fx.ShutdownSignal { return a.fx.Wait() }

// Stop runs the stop hooks in reverse order, all of them even if some fail, until ctx or app.stop_timeout is over. If the
// time ran out, the error names the modules that had not finished. What was logged until then is written before Stop
// returns, as far as somebody reads it.
func (a *App) Stop(ctx context.Context) error {
	defer a.graph.flush()
	a.reloader.stop()
	stopping, cancel := context.WithTimeout(ctx, a.own.StopTimeout)
	defer cancel()
	err := a.fx.Stop(stopping)
	if errors.Is(err, context.DeadlineExceeded) && stopping.Err() != nil {
		return a.hooks.timedOut(a.own.StopTimeout)
	}
	return err
}

// Facts returns the start facts, a line each, aligned. It is for use after Start.
func (a *App) Facts() string {
	facts := slices.Clone(a.facts)
	slices.SortStableFunc(facts, func(x, y module.StartFact) int {
		if x.Rank != y.Rank {
			return x.Rank - y.Rank
		}
		return strings.Compare(x.Name, y.Name)
	})
	width := 0
	for _, fact := range facts {
		width = max(width, len(fact.Name))
	}
	var out strings.Builder
	for _, fact := range facts {
		text := ""
		panics.Do(a.hooks.log, "the start fact "+fact.Name, func() { text = fact.Text() })
		if text != "" {
			fmt.Fprintf(&out, "%-*s  %s\n", width, fact.Name, text)
		}
	}
	return out.String()
}

// graph is the modules of a build as Fx options.
type graph struct {
	modules []module.Module
	options []fx.Option
	events  *eventLog
	log     *zap.Logger
}

func newGraph(modules []module.Module, live *configs.Live, hooks *hooks) *graph {
	g := &graph{modules: modules, events: newEventLog(), log: zap.NewNop(), options: []fx.Option{fx.Supply(live, thisBuild())}}
	set := live.View().Set()
	for _, m := range modules {
		g.options = append(g.options, moduleOption(m, set, hooks))
	}
	return g
}

// keepLog asks for the logger, so that flush reaches it even if nothing else can be built. It goes before all else that
// the graph is asked for.
func (g *graph) keepLog() fx.Option {
	return fx.Invoke(func(log *zap.Logger) { g.log = log })
}

// flush writes what has been logged. Where that cannot be written, nobody is left to be told.
func (g *graph) flush() { _ = g.log.Sync() }

// moduleOption is the module's scope in the graph: what is decorated here is so for the module alone.
func moduleOption(m module.Module, set *configs.Set, hooks *hooks) fx.Option {
	options := []fx.Option{
		fx.Decorate(
			func(log *zap.Logger) *zap.Logger { return log.Named(m.Name) },
			func(scope tally.Scope) tally.Scope { return scope.SubScope(m.Name) },
			func(lifecycle fx.Lifecycle) fx.Lifecycle {
				return &moduleLifecycle{module: m.Name, next: lifecycle, hooks: hooks}
			},
		),
	}
	if config := set.Section(m.Name); config != nil {
		options = append(options, fx.Supply(config))
	}
	return fx.Module(m.Name, append(options, orNothing(m.Options))...)
}

// orNothing stands in for the options of a module that has none.
func orNothing(option fx.Option) fx.Option {
	if option == nil {
		return fx.Options()
	}
	return option
}

// build makes the Fx graph of the modules and extra options; what it returns can be started.
func (g *graph) build(extra ...fx.Option) (*fx.App, error) {
	options := slices.Concat(g.options, extra, []fx.Option{
		fx.WithLogger(g.events.logger),
		// The timeouts are the App's to apply: Fx's own must not come before them.
		fx.StartTimeout(time.Hour),
		fx.StopTimeout(time.Hour),
	})
	built := fx.New(options...)
	if err := built.Err(); err != nil {
		return nil, explain(err, g.modules, g.events)
	}
	return built, nil
}
