package app_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

// diary is a list of notes on what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.lines...)
}

// hook notes when it starts and stops.
func (d *diary) hook(name string) fx.Hook {
	return fx.StartStopHook(func() { d.note("start %s", name) }, func() { d.note("stop %s", name) })
}

// observability provides a logger whose lines the test can read, and the metrics scope that the test gives.
func observability(scope tally.Scope, level zapcore.Level) (module.Module, *observer.ObservedLogs) {
	core, logs := observer.New(level)
	return module.Module{Name: "observability", Options: fx.Provide(
		func() *zap.Logger { return zap.New(core) },
		func() tally.Scope { return scope },
	)}, logs
}

func quiet() module.Module {
	m, _ := observability(tally.NoopScope, zapcore.ErrorLevel)
	return m
}

type root struct{}

func (root) Root() {}

type background struct{}

func (background) Background() {}

// shelf is the type that the module "store" provides and the module "front" needs.
type shelf interface{ books() int }

type plank int

func (p plank) books() int { return int(p) }

type storeConfig struct {
	Books int           `key:"books" doc:"How many books there are."`
	Start time.Duration `key:"start" doc:"How long a start may take."`
	Stop  time.Duration `key:"stop" doc:"How long a stop may take."`
}

func (c storeConfig) StartBudget() time.Duration { return c.Start }
func (c storeConfig) StopBudget() time.Duration  { return c.Stop }

func store(d *diary) module.Module {
	return module.Module{
		Name:   "store",
		Config: storeConfig{Books: 3, Start: time.Second, Stop: 2 * time.Second},
		Options: fx.Provide(func(c storeConfig, lc fx.Lifecycle) shelf {
			lc.Append(d.hook("store"))
			return plank(c.Books)
		}),
	}
}

type frontConfig struct {
	Stop time.Duration `key:"stop" doc:"How long a stop may take."`
}

func (c frontConfig) StopBudget() time.Duration { return c.Stop }

// front is a module that provides the root.
func front(d *diary) module.Module {
	return module.Module{
		Name:   "front",
		Config: frontConfig{Stop: 3 * time.Second},
		Options: fx.Provide(
			func(s shelf, lc fx.Lifecycle) module.Root {
				lc.Append(d.hook("front"))
				d.note("front sees %d books", s.books())
				return root{}
			},
		),
		Requires: []module.Requirement{module.Require[shelf]("modules/store")},
	}
}

// office is a module that runs beside the root.
func office(d *diary) module.Module {
	return module.Module{Name: "office", Options: fx.Provide(module.AsBackground(func(lc fx.Lifecycle) background {
		lc.Append(d.hook("office"))
		return background{}
	}))}
}

func build(t *testing.T, modules []module.Module, extra ...fx.Option) *app.App {
	t.Helper()
	a, err := app.Build(modules, configs.Source{}, extra...)
	require.NoError(t, err)
	return a
}

func TestBackgroundStartsBeforeTheRootAndStopsAfterIt(t *testing.T) {
	// The order of the modules must not matter, so both are tried.
	for _, reverse := range []bool{false, true} {
		d := &diary{}
		modules := []module.Module{quiet(), office(d), store(d), front(d)}
		if reverse {
			modules = []module.Module{front(d), store(d), office(d), quiet()}
		}
		a := build(t, modules)
		require.NoError(t, a.Start(t.Context()))
		require.NoError(t, a.Stop(t.Context()))
		require.Equal(t, []string{
			"front sees 3 books",
			"start office", "start store", "start front",
			"stop front", "stop store", "stop office",
		}, d.read())
	}
}

func TestConfigurationReachesTheModules(t *testing.T) {
	d := &diary{}
	a, err := app.Build([]module.Module{quiet(), store(d), front(d)},
		configs.Source{Environ: []string{"CAPTURE_STORE__BOOKS=12"}})
	require.NoError(t, err)
	require.Equal(t, []string{"front sees 12 books"}, d.read())
	require.Equal(t, 12, a.Config().Section("store").(storeConfig).Books)
}

func TestRootDecoratorsReplaceAnyPart(t *testing.T) {
	d := &diary{}
	build(t, []module.Module{quiet(), store(d), front(d)}, fx.Decorate(func() shelf { return plank(99) }))
	require.Equal(t, []string{"front sees 99 books"}, d.read(), "and the replaced part was never built")
}

func TestExtraOptionsDoNotChangeTheOrderOfTheHooks(t *testing.T) {
	d := &diary{}
	var shelf shelf
	a := build(t, []module.Module{quiet(), office(d), store(d), front(d)}, fx.Populate(&shelf))
	require.Equal(t, 3, shelf.books())
	require.NoError(t, a.Start(t.Context()))
	require.NoError(t, a.Stop(t.Context()))
	require.Equal(t, []string{"start office", "start store", "start front"}, d.read()[1:4])
}

func TestExtraOptionsThatAskForAMissingTypeAreToldSo(t *testing.T) {
	d := &diary{}
	type unheard struct{}
	_, err := app.Build([]module.Module{quiet(), store(d), front(d)}, configs.Source{}, fx.Invoke(func(unheard) {}))
	require.ErrorContains(t, err, "the modules of this build do not fit together: missing dependencies for function ")
	require.ErrorContains(t, err, "missing type: app_test.unheard")
}

func TestModulesGetTheirOwnLoggerAndScope(t *testing.T) {
	scope := tally.NewTestScope("capture", nil)
	observe, logs := observability(scope, zapcore.InfoLevel)
	front := module.Module{Name: "front", Options: fx.Provide(func(log *zap.Logger, scope tally.Scope) module.Root {
		log.Info("hello")
		scope.Counter("hellos").Inc(1)
		return root{}
	})}
	build(t, []module.Module{observe, front})
	require.Len(t, logs.FilterMessage("hello").All(), 1)
	require.Equal(t, "front", logs.FilterMessage("hello").All()[0].LoggerName)
	require.Contains(t, scope.Snapshot().Counters(), "capture.front.hellos+")
}

func TestLevelDebugTellsOfTheModulesAndNotOfTheWiringOfTheGraph(t *testing.T) {
	observe, logs := observability(tally.NoopScope, zapcore.DebugLevel)
	d := &diary{}
	a := build(t, []module.Module{observe, store(d), front(d)})
	require.NoError(t, a.Start(t.Context()))
	require.NoError(t, a.Stop(t.Context()))
	started := logs.FilterMessage("started").FilterField(zap.String("module", "store")).All()
	require.Len(t, started, 1)
	for _, entry := range logs.All() {
		require.Equal(t, zapcore.DebugLevel, entry.Level, entry.Message)
		require.Contains(t, []string{"started", "stopped"}, entry.Message)
	}
}

func TestMissingTypesNameTheModuleToInclude(t *testing.T) {
	d := &diary{}
	_, err := app.Build([]module.Module{front(d)}, configs.Source{})
	var missing *app.MissingError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []string{
		"nothing in this build provides *zap.Logger: include the module modules/observability " +
			"(github.com/opencapture/capture/modules/observability), or one of yours that provides it",
		"nothing in this build provides tally.Scope: include the module modules/observability " +
			"(github.com/opencapture/capture/modules/observability), or one of yours that provides it",
		"nothing in this build provides app_test.shelf: include the module modules/store " +
			"(github.com/opencapture/capture/modules/store), or one of yours that provides it",
	}, strings.Split(err.Error(), "\n"))

	_, err = app.Build([]module.Module{quiet(), store(d)}, configs.Source{})
	require.EqualError(t, err, "nothing in this build provides module.Root: include the module transport "+
		"(github.com/opencapture/capture/transport), or one of yours that provides it")
}

func TestMissingTypesThatNobodyDeclaredAreNamedWithTheConstructorThatAsks(t *testing.T) {
	type unheard struct{}
	needy := module.Module{Name: "front",
		Options: fx.Provide(func(*unheard, reflect.Kind) module.Root { return root{} })}
	_, err := app.Build([]module.Module{quiet(), needy}, configs.Source{})
	require.Regexp(t, `^the modules of this build do not fit together: missing dependencies for function .*`+
		`\.TestMissingTypesThatNobodyDeclared.* \(.*app_test\.go:\d+\): `+
		`missing types: \*app_test\.unheard; reflect\.Kind$`, err.Error())
}

func TestConstructorErrorsAreReportedAsTheyAre(t *testing.T) {
	broken := errors.New("store: the key file is not readable")
	d := &diary{}
	failing := module.Module{Name: "store", Options: fx.Provide(func() (shelf, error) { return nil, broken })}
	_, err := app.Build([]module.Module{quiet(), failing, front(d)}, configs.Source{})
	require.EqualError(t, err, "store: the key file is not readable")
	require.ErrorIs(t, err, broken)
}

func TestTwoProvidersOfATypeAreReportedWithoutAStack(t *testing.T) {
	d := &diary{}
	other := module.Module{Name: "other", Options: fx.Provide(func() shelf { return plank(1) })}
	_, err := app.Build([]module.Module{quiet(), store(d), other, front(d)}, configs.Source{})
	require.ErrorContains(t, err, "the modules of this build do not fit together: cannot provide")
	require.ErrorContains(t, err, "already provided")
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), "module.Root", "which is behind what Fx has refused, and not missing")
}

func TestTwoModulesOfOneNameAreAnError(t *testing.T) {
	d := &diary{}
	_, err := app.Build([]module.Module{quiet(), store(d), store(d), front(d)}, configs.Source{})
	require.EqualError(t, err, "store: two modules of this build have this name: leave one out")
	_, err = app.Build([]module.Module{{Name: "app"}}, configs.Source{})
	require.EqualError(t, err, "app: two modules of this build have this name: leave one out")
}

func TestHookBudgetsMustFitTheTimeouts(t *testing.T) {
	d := &diary{}
	modules := []module.Module{quiet(), store(d), front(d)}
	_, err := app.Build(modules,
		configs.Source{Environ: []string{"CAPTURE_APP__STOP_TIMEOUT=4s", "CAPTURE_APP__START_TIMEOUT=1ms"}})
	require.EqualError(t, err,
		"app.start_timeout: is 1ms, but the modules reserve 1s to start (store 1s): raise it, or lower theirs "+
			"(CAPTURE_APP__START_TIMEOUT)\n"+
			"app.stop_timeout: is 4s, but the modules reserve 5s to stop (store 2s, front 3s): raise it, or lower "+
			"theirs (CAPTURE_APP__STOP_TIMEOUT)")
	_, err = app.Build(modules, configs.Source{Environ: []string{"CAPTURE_APP__STOP_TIMEOUT=5s"}})
	require.NoError(t, err)
	_, err = app.Build(modules,
		configs.Source{Environ: []string{"CAPTURE_APP__STOP_TIMEOUT=-5s", "CAPTURE_APP__START_TIMEOUT=0s"}})
	require.ErrorContains(t, err, "app.start_timeout: must be positive, got 0s")
	require.ErrorContains(t, err, "app.stop_timeout: must be positive, got -5s")
}

func TestFactsAreOrderedAndAligned(t *testing.T) {
	fact := func(rank int, name, text string) any {
		return module.AsStartFact(func() module.StartFact {
			return module.StartFact{Rank: rank, Name: name, Text: func() string { return text }}
		})
	}
	d := &diary{}
	facts := module.Module{Name: "facts", Options: fx.Provide(
		fact(20, "sink", "kafka"), fact(10, "listening", "http://127.0.0.1:8000"), fact(30, "silent", ""),
		fact(20, "metrics", "on"),
	)}
	a := build(t, []module.Module{quiet(), store(d), front(d), facts})
	require.Equal(t, "listening  http://127.0.0.1:8000\nmetrics    on\nsink       kafka\n", a.Facts())
}

// stuck is a module with a start or stop hook that ignores its context and ends only when the test says so.
func stuck(released <-chan struct{}, start, stop bool) module.Module {
	wait := func(really bool) func(context.Context) error {
		return func(context.Context) error {
			if really {
				<-released
			}
			return nil
		}
	}
	return module.Module{Name: "stuck", Options: fx.Provide(func(_ shelf, lc fx.Lifecycle) module.Root {
		lc.Append(fx.Hook{OnStart: wait(start), OnStop: wait(stop)})
		return root{}
	})}
}

func TestAStartThatTimesOutNamesTheModuleAndStopsTheOthers(t *testing.T) {
	d := &diary{}
	released := make(chan struct{})
	defer close(released)
	a, err := app.Build([]module.Module{quiet(), store(d), stuck(released, true, false)},
		configs.Source{Environ: []string{"CAPTURE_APP__START_TIMEOUT=20ms", "CAPTURE_STORE__START=0s"}})
	require.NoError(t, err)
	err = a.Start(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "stuck did not start: ")
	require.Equal(t, []string{"start store", "stop store"}, d.read())
}

func TestAStartThatFailsStopsWhatHasStarted(t *testing.T) {
	d := &diary{}
	taken := errors.New("listen :8000: address already in use")
	failing := module.Module{Name: "front", Options: fx.Provide(func(_ shelf, lc fx.Lifecycle) module.Root {
		lc.Append(fx.StartHook(func() error { return taken }))
		return root{}
	})}
	a := build(t, []module.Module{quiet(), store(d), failing})
	err := a.Start(t.Context())
	require.ErrorIs(t, err, taken)
	require.EqualError(t, err, "front did not start: listen :8000: address already in use")
	require.Equal(t, []string{"start store", "stop store"}, d.read())
}

func TestAStopThatTimesOutSaysWhatDidNotFinish(t *testing.T) {
	d := &diary{}
	released := make(chan struct{})
	a, err := app.Build([]module.Module{quiet(), office(d), store(d), stuck(released, false, true)},
		configs.Source{Environ: []string{"CAPTURE_APP__STOP_TIMEOUT=20ms", "CAPTURE_STORE__STOP=0s"}})
	require.NoError(t, err)
	require.NoError(t, a.Start(t.Context()))
	err = a.Stop(t.Context())
	require.EqualError(t, err, "the service did not stop in time (app.stop_timeout is 20ms): stuck did not finish; "+
		"never reached: store, office")
	close(released)
}

func TestAStopThatTimesOutStillReportsWhatFailedBefore(t *testing.T) {
	d := &diary{}
	released := make(chan struct{})
	lossy := module.Module{Name: "lossy",
		Options: fx.Provide(module.AsStartFact(func(_ module.Root, lc fx.Lifecycle) module.StartFact {
			lc.Append(fx.StopHook(func() error { return errors.New("12 messages unflushed") }))
			return module.StartFact{Text: func() string { return "" }}
		}))}
	a, err := app.Build([]module.Module{quiet(), store(d), stuck(released, false, true), lossy},
		configs.Source{Environ: []string{"CAPTURE_APP__STOP_TIMEOUT=20ms", "CAPTURE_STORE__STOP=0s"}})
	require.NoError(t, err)
	require.NoError(t, a.Start(t.Context()))
	require.EqualError(t, a.Stop(t.Context()),
		"the service did not stop in time (app.stop_timeout is 20ms): stuck did not finish; never reached: store\n"+
			"lossy did not stop cleanly: 12 messages unflushed")
	close(released)
}

func TestAStopHookThatFailsDoesNotKeepTheOthersFromRunning(t *testing.T) {
	d := &diary{}
	mod := module.Module{Name: "front", Options: fx.Provide(func(_ shelf, lc fx.Lifecycle) module.Root {
		lc.Append(fx.StopHook(func() error { return errors.New("12 messages unflushed") }))
		return root{}
	})}
	a := build(t, []module.Module{quiet(), store(d), mod})
	require.NoError(t, a.Start(t.Context()))
	require.EqualError(t, a.Stop(t.Context()), "front did not stop cleanly: 12 messages unflushed")
	require.Equal(t, []string{"start store", "stop store"}, d.read())
}

func TestWaitReportsAShutdownThatCameEarly(t *testing.T) {
	mod := module.Module{Name: "front", Options: fx.Provide(func(s fx.Shutdowner, lc fx.Lifecycle) module.Root {
		lc.Append(fx.StartHook(func() error { return s.Shutdown(fx.ExitCode(3)) }))
		return root{}
	})}
	a := build(t, []module.Module{quiet(), mod})
	require.NoError(t, a.Start(t.Context()))
	require.Equal(t, 3, (<-a.Wait()).ExitCode)
	require.NoError(t, a.Stop(t.Context()))
}

// panicking builds an app of two modules. The hooks of the second module panic.
func panicking(t *testing.T, d *diary, hook fx.Hook) (*app.App, *observer.ObservedLogs) {
	t.Helper()
	watched, logs := observability(tally.NoopScope, zapcore.ErrorLevel)
	sound := module.Module{Name: "sound", Options: fx.Invoke(func(lifecycle fx.Lifecycle) {
		lifecycle.Append(d.hook("sound"))
	})}
	broken := module.Module{Name: "broken", Options: fx.Options(
		fx.Provide(func() module.Root { return root{} }),
		fx.Invoke(func(lifecycle fx.Lifecycle) { lifecycle.Append(hook) }),
	)}
	a, err := app.Build([]module.Module{watched, sound, broken}, configs.Source{})
	require.NoError(t, err)
	return a, logs
}

func TestAStartHookThatPanicsIsAStartThatFails(t *testing.T) {
	d := &diary{}
	a, logs := panicking(t, d, fx.StartHook(func() { panic("no key") }))
	require.ErrorContains(t, a.Start(t.Context()), "broken did not start: panic: no key")
	require.Equal(t, []string{"start sound", "stop sound"}, d.read())
	told := logs.FilterMessage("the start of broken panicked").All()
	require.Len(t, told, 1)
	require.Contains(t, told[0].ContextMap()["stack"], "TestAStartHookThatPanicsIsAStartThatFails")
}

func TestAStopHookThatPanicsLetsTheOthersStop(t *testing.T) {
	d := &diary{}
	a, logs := panicking(t, d, fx.StopHook(func() { panic("no key") }))
	require.NoError(t, a.Start(t.Context()))
	require.ErrorContains(t, a.Stop(t.Context()), "broken did not stop cleanly: panic: no key")
	require.Equal(t, []string{"start sound", "stop sound"}, d.read())
	require.Len(t, logs.FilterMessage("the stop of broken panicked").All(), 1)
}
