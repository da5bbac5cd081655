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

	"github.com/opencapture/capture/app/posthogenv"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
)

// App is a graph that has been built. The caller starts it once and stops it once.
type App struct {
	fx    *fx.App
	live  *configs.Live
	own   Config
	graph *graph
	hooks *hooks
	facts []module.StartFact
	log   *zap.Logger
	// outside is the memory limit that was set before the configuration was loaded.
	outside given

	reloader *reloader
}

// Build loads the configuration of the modules from the source and builds their graph, without starting it. An error is
// written for the person who runs or composes the service: a *configs.FaultsError lists the faults of the
// configuration, a *MissingError lists the types that no module provides; any other error is the one that a constructor
// returned.
//
// Extra options join the graph at its root scope. The app and the modules decorate only inside the scopes of the
// modules and leave the root scope to the caller. A test can therefore replace a part of any module with
// fx.Decorate(func() T { ... }).
func Build(modules []module.Module, source configs.Source, extra ...fx.Option) (*App, error) {
	reloader := newReloader(modules, source)
	set, err := reloader.load()
	if err != nil {
		return nil, err
	}
	hooks := &hooks{log: zap.NewNop()}
	live := configs.NewLive(set, reloader.load)
	outside := givenMemory()
	g := newGraph(modules, live, outside, hooks)
	a := &App{
		live: live, own: set.Section(section).(Config), graph: g, hooks: hooks, outside: outside, reloader: reloader,
	}
	// The graph is asked for the root before the extra options ask for anything. So the extra options do not change the
	// order of the hooks.
	root := fx.Invoke(func(p rootParams) {
		a.facts = append(slices.Clip(p.Facts), module.StartFact{Rank: 60, Name: "memory", Text: func() string {
			return a.memory().String()
		}})
		a.log = p.Log.Named("app")
		a.hooks.log = a.log
	})
	a.fx, err = g.build(append([]fx.Option{g.keepLog(), root}, extra...)...)
	if err != nil {
		g.flush()
		return nil, err
	}
	return a, nil
}

// rootParams lists the parts that a graph is built for. The order of the fields matters: Fx builds them one after the
// other, and the hook that is appended first starts first and stops last. So the background members stop after
// everything that the root needs.
type rootParams struct {
	fx.In

	Log        *zap.Logger
	Background []module.Background `group:"background"`
	Root       module.Root
	Facts      []module.StartFact `group:"start_facts"`
}

// memory returns the plan of the configuration in force.
func (a *App) memory() memoryPlan { return planMemory(a.graph.modules, a.Config(), a.outside) }

// limitMemory gives the runtime, and so the whole process, the memory limit of the configuration in force, and of every
// later one. It is called before Start.
func (a *App) limitMemory() {
	a.memory().apply(a.log)
	a.live.Report(func(status configs.Status) {
		if len(status.Changed) > 0 {
			panics.Go(a.log, "the memory limit", func() { a.memory().apply(a.log) })
		}
	})
}

// Config returns the configuration in force.
func (a *App) Config() *configs.Set { return a.live.View().Set() }

// Start runs the start hooks, one after the other, until ctx or app.start_timeout is over. When a hook fails, Start
// stops the modules that have started and returns an error that names the module of the failed hook.
func (a *App) Start(ctx context.Context) error {
	starting, cancel := context.WithTimeout(ctx, a.own.StartTimeout)
	defer cancel()
	// When a start fails, Fx runs the stop hooks with the context that Start was given. If that were the context that
	// has just run out, no stop hook would run at all. So Fx gets a longer context, and the hooks end the start by the
	// shorter one.
	outer, cancelOuter := context.WithTimeout(context.WithoutCancel(ctx), a.own.StartTimeout+a.own.StopTimeout)
	defer cancelOuter()
	a.hooks.starting = starting
	err := a.fx.Start(outer)
	if err != nil {
		a.graph.flush()
		return err
	}
	if found := posthogenv.Found(a.reloader.source.Environ); found != "" {
		a.log.Warn(found)
	}
	a.reloader.start(a.live, a.log)
	return nil
}

// Reload loads the configuration from its source and puts it in force, as SIGHUP does. An error says why the old
// configuration stays in force.
func (a *App) Reload() error {
	_, err := a.live.Reload()
	return err
}

// Wait returns a channel that reports when the service should end: because a module asked fx.Shutdowner, which gives
// the exit code, or because of SIGINT or SIGTERM, which the report names. Wait is for use between Start and Stop.
func (a *App) Wait() <-chan fx.ShutdownSignal { return a.fx.Wait() }

// Stop runs the stop hooks in reverse order until ctx or app.stop_timeout is over. A hook that fails does not keep the
// others from running. If the time runs out, the error names the modules that had not finished. Before Stop returns, it
// writes the lines that were logged until then, as far as somebody reads them.
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

// Facts returns the start facts, one a line, aligned. It is for use after Start.
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

// graph is the modules of a build in the form of Fx options.
type graph struct {
	modules []module.Module
	options []fx.Option
	events  *eventLog
	log     *zap.Logger
}

func newGraph(modules []module.Module, live *configs.Live, outside given, hooks *hooks) *graph {
	set := live.View().Set()
	limit := module.MemoryLimit(planMemory(modules, set, outside).outer)
	g := &graph{
		modules: modules, events: newEventLog(), log: zap.NewNop(),
		options: []fx.Option{fx.Supply(live, thisBuild(), limit, module.AllMetrics(modules))},
	}
	for _, m := range modules {
		g.options = append(g.options, moduleOption(m, set, hooks))
	}
	return g
}

// keepLog asks for the logger, so that flush has it even if Fx can build nothing else. It is the first option that asks
// the graph for anything.
func (g *graph) keepLog() fx.Option {
	return fx.Invoke(func(log *zap.Logger) { g.log = log })
}

// flush writes the lines that have been logged. It ignores an error, since there is no other place to report it to.
func (g *graph) flush() { _ = g.log.Sync() }

// moduleOption is the module's scope in the graph. Its decorations hold for this module alone.
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

// build makes the Fx graph of the modules and the extra options. The graph that it returns can be started.
func (g *graph) build(extra ...fx.Option) (*fx.App, error) {
	options := slices.Concat(g.options, extra, []fx.Option{
		fx.WithLogger(g.events.logger),
		// App applies its own timeouts, so Fx's must not run out before them.
		fx.StartTimeout(time.Hour),
		fx.StopTimeout(time.Hour),
	})
	built := fx.New(options...)
	if err := built.Err(); err != nil {
		return nil, explain(err, g.modules, g.events)
	}
	return built, nil
}
