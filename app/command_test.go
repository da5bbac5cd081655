package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

// asMain is a variable of the environment. If it is set, the test binary behaves as a capture binary of fake modules.
const asMain = "CAPTURE_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		d := &diary{}
		app.Main(quiet(), store(d), front(d), greeter("ready"))
	}
	goleak.VerifyTestMain(m)
}

// greeter is a module whose only part is a start fact.
func greeter(text string) module.Module {
	return module.Module{Name: "greeter", Options: fx.Provide(module.AsStartFact(func() module.StartFact {
		return module.StartFact{Name: "greeting", Text: func() string { return text }}
	}))}
}

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// patience is how long a test waits before it says that something hangs. It is no measure of speed.
const patience = 2 * time.Minute

// run is a command line that is under way.
type run struct {
	out, err buffer
	signals  chan os.Signal
	code     chan int
}

func start(modules []module.Module, environ []string, args ...string) *run {
	r := &run{signals: make(chan os.Signal, 2), code: make(chan int, 1)}
	go func() { r.code <- app.Run(args, environ, &r.out, &r.err, r.signals, modules...) }()
	return r
}

// finish waits for the command line to end and returns its exit code.
func (r *run) finish(t *testing.T) int {
	t.Helper()
	select {
	case code := <-r.code:
		return code
	case <-time.After(patience):
		t.Fatalf("the command did not end\nstdout: %s\nstderr: %s", &r.out, &r.err)
		return 0
	}
}

// command executes a command line that ends by itself.
func command(t *testing.T, modules []module.Module, environ []string, args ...string) (code int, out, err string) {
	t.Helper()
	r := start(modules, environ, args...)
	code = r.finish(t)
	return code, r.out.String(), r.err.String()
}

func stock(d *diary) []module.Module { return []module.Module{quiet(), store(d), front(d)} }

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, time.Millisecond)
}

func TestServeIsTheDefaultAndEndsBySignal(t *testing.T) {
	for _, args := range [][]string{nil, {"serve"}} {
		d := &diary{}
		r := start(append(stock(d), greeter("hello")), nil, args...)
		eventually(t, func() bool { return r.out.String() == "greeting  hello\n" })
		r.signals <- syscall.SIGTERM
		require.Zero(t, r.finish(t))
		require.Empty(t, r.err.String())
		require.Equal(t, []string{"front sees 3 books", "start store", "start front", "stop front", "stop store"},
			d.read())
	}
}

func TestASecondSignalEndsAStopAtOnce(t *testing.T) {
	for sig, code := range map[os.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		d := &diary{}
		stopping, released, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
		slow := module.Module{Name: "slow", Options: fx.Provide(func(lc fx.Lifecycle) module.Root {
			lc.Append(fx.StopHook(func() { close(stopping); <-released; close(stopped) }))
			return root{}
		})}
		r := start([]module.Module{quiet(), slow, greeter("hello")}, nil)
		eventually(t, func() bool { return r.out.String() != "" })
		r.signals <- syscall.SIGTERM
		<-stopping
		r.signals <- sig
		require.Equal(t, code, r.finish(t))
		require.Empty(t, d.read())
		close(released)
		<-stopped
	}
}

func TestASignalDuringStartUndoesTheStart(t *testing.T) {
	d := &diary{}
	starting := make(chan struct{})
	slow := module.Module{Name: "slow", Options: fx.Provide(func(_ shelf, lc fx.Lifecycle) module.Root {
		lc.Append(fx.StartHook(func(ctx context.Context) error {
			close(starting)
			<-ctx.Done()
			return ctx.Err()
		}))
		return root{}
	})}
	r := start([]module.Module{quiet(), store(d), slow}, nil)
	<-starting
	r.signals <- syscall.SIGINT
	require.Zero(t, r.finish(t))
	require.Empty(t, r.err.String())
	require.Equal(t, []string{"start store", "stop store"}, d.read())
}

func TestAFailureAtRunTimeStopsEverythingAndSetsTheExitCode(t *testing.T) {
	d := &diary{}
	failed := make(chan struct{})
	mod := module.Module{Name: "front",
		Options: fx.Provide(func(_ shelf, down fx.Shutdowner, lc fx.Lifecycle) module.Root {
			lc.Append(d.hook("front"))
			go func() {
				<-failed
				_ = down.Shutdown(fx.ExitCode(7))
			}()
			return root{}
		})}
	r := start([]module.Module{quiet(), store(d), mod, greeter("hello")}, nil)
	eventually(t, func() bool { return r.out.String() != "" })
	close(failed)
	require.Equal(t, 7, r.finish(t))
	require.Equal(t, "the service ended because a part of it failed: see the log\n", r.err.String())
	require.Equal(t, []string{"start store", "start front", "stop front", "stop store"}, d.read())
}

func TestAStopThatTimesOutExitsNonZero(t *testing.T) {
	d := &diary{}
	released := make(chan struct{})
	r := start([]module.Module{quiet(), store(d), stuck(released, false, true), greeter("hello")},
		[]string{"CAPTURE_APP__STOP_TIMEOUT=20ms", "CAPTURE_STORE__STOP=0s"})
	eventually(t, func() bool { return r.out.String() != "" })
	r.signals <- syscall.SIGTERM
	require.Equal(t, 1, r.finish(t))
	require.Equal(t, "the service did not stop in time (app.stop_timeout is 20ms): stuck did not finish; never "+
		"reached: store\n", r.err.String())
	close(released)
}

func TestAStartThatFailsExitsNonZero(t *testing.T) {
	mod := module.Module{Name: "front", Options: fx.Provide(func(lc fx.Lifecycle) module.Root {
		lc.Append(fx.StartHook(func() error { return errors.New("listen :8000: address already in use") }))
		return root{}
	})}
	code, out, err := command(t, []module.Module{quiet(), mod, greeter("hello")}, nil)
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Equal(t, "front did not start: listen :8000: address already in use\n", err)
}

func TestServeReportsFaultsAndMissingModules(t *testing.T) {
	d := &diary{}
	code, out, err := command(t, stock(d), []string{"CAPTURE_STORE__BOOKS=many"}, "serve")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Equal(t, "store.books: \"many\" is not a whole number (CAPTURE_STORE__BOOKS)\n", err)

	code, _, err = command(t, []module.Module{quiet()}, nil)
	require.Equal(t, 1, code)
	require.Equal(t, "nothing in this build provides module.Root: include the module transport "+
		"(github.com/opencapture/capture/transport), or one of yours that provides it\n", err)
}

func TestConfigValidate(t *testing.T) {
	d := &diary{}
	code, out, err := command(t, stock(d), nil, "config", "validate")
	require.Zero(t, code)
	require.Equal(t, "configuration is valid\n", out)
	require.Equal(t, "next: capture\n", err)

	file := filepath.Join(t.TempDir(), "a.yaml")
	require.NoError(t, os.WriteFile(file, []byte("store: {boks: 1}\nfront: {stop: 100s}\n"), 0o600))
	code, out, err = command(t, stock(d), []string{"CAPTURE_STORE__BOOKS=x"}, "config", "validate", "--config", file)
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Equal(t, []string{
		"store.boks: unknown key, did you mean store.books? (" + file + ":1)",
		`store.books: "x" is not a whole number (CAPTURE_STORE__BOOKS)`,
		"app.stop_timeout: is 45s, but the modules reserve 1m42s to stop (store 2s, front 1m40s): " +
			"raise it, or lower theirs",
		"",
	}, strings.Split(err, "\n"))
	code, out, err = command(t, stock(d), nil, "config", "validate", "--config", file, "--output", "json")
	require.Equal(t, 1, code)
	require.Equal(t, `{"key":"store.boks","message":"unknown key, did you mean store.books? (`+file+`:1)"}
{"key":"app.stop_timeout","message":"is 45s, but the modules reserve 1m42s to stop (store 2s, front 1m40s): `+
		`raise it, or lower theirs"}
`, out)
	require.Empty(t, err)
	require.NoError(t, os.WriteFile(file, []byte("front: {stop: 10s}\n"), 0o600))
	code, out, err = command(t, stock(d), nil, "config", "validate", "--config", file, "--output", "json")
	require.Zero(t, code, err)
	require.Empty(t, out)
	code, _, err = command(t, stock(d), nil, "config", "validate", "--config", file)
	require.Zero(t, code)
	require.Equal(t, "next: capture --config "+file+"\n", err)
	require.Empty(t, d.read(), "nothing is built")
}

// What the service needs of its machine is not there: validate says so, although the configuration is sound.
func TestConfigValidateLooksAtTheMachine(t *testing.T) {
	d := &diary{}
	modules := stock(d)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	modules[1].Probes = []configs.Rule{func(*configs.Set) error {
		var faults configs.Faults
		faults.CheckDir("store.dir", filepath.Join(t.TempDir(), "can", "be", "made"), "nothing")
		faults.CheckDir("store.books", filepath.Join(file, "spool"), "no books are kept")
		return faults.Err()
	}}
	code, out, err := command(t, modules, []string{"CAPTURE_STORE__BOOKS=3"}, "config", "validate")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Equal(t, fmt.Sprintf("store.books: %q cannot be used: stat %s/spool: not a directory: no books are kept "+
		"(CAPTURE_STORE__BOOKS)\n", file+"/spool", file), err)
	require.NoFileExists(t, filepath.Join(filepath.Dir(file), "can"), "nothing is made")

	code, _, err = command(t, modules, nil, "config", "print")
	require.Zero(t, code, "only validate looks at the machine: %s", err)
}

func TestConfigPrintShowsTheRestOfAConfigurationWithFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	text := "store: {boks: 1, books: many, start: 2s}\nfront: {stop: 100s}\n"
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	code, out, err := command(t, stock(&diary{}), nil, "config", "print", "--config", file)
	require.Equal(t, 1, code)
	require.Contains(t, out, "\n# FAULT: store.boks: unknown key, did you mean store.books? ("+file+":1)\n")
	require.Contains(t, out, "\n  # FAULT: \"many\" is not a whole number ("+file+":1)\n  books: 3 # the default\n")
	require.Contains(t, out, "\n  start: 2s # "+file+":1\n")
	require.Contains(t, out, "\n  # FAULT: is 45s, but the modules reserve 1m42s to stop")
	require.Contains(t, err, "store.boks: unknown key")
	require.Contains(t, err, "app.stop_timeout: is 45s")
	var again map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(out), &again), "what it prints is a configuration file all the same")

	code, out, err = command(t, stock(&diary{}), nil, "config", "print", "--config", "no/such/file.yaml")
	require.Equal(t, 1, code)
	require.Contains(t, out, "# FAULT: no/such/file.yaml: cannot be read: ")
	require.Contains(t, out, "\n  books: 3\n")
	require.Contains(t, err, "no/such/file.yaml")
}

func TestVariablesOfPostHogsServiceArePointedToTheTranslation(t *testing.T) {
	code, _, err := command(t, stock(&diary{}), []string{"CAPTURE_MODE=events", "CAPTURE_STORE__BOKS=1"})
	require.Equal(t, 1, code)
	require.Equal(t, "mode: unknown environment variable CAPTURE_MODE: it is one of PostHog's own capture service, "+
		"and \"capture config from-posthog-env\" translates its environment into a configuration file\n"+
		"store.boks: unknown environment variable CAPTURE_STORE__BOKS, did you mean CAPTURE_STORE__BOOKS?\n", err)

	const found = "variables of PostHog's own capture service have no effect here: KAFKA_HOSTS, OVERFLOW_ENABLED: " +
		"\"capture config from-posthog-env\" translates its environment into a configuration file"
	environ := []string{
		"OVERFLOW_ENABLED=true", "KAFKA_HOSTS=kafka:9092", "LOG_LEVEL=info", "KAFKA_PORT=tcp://10.0.0.1:1",
	}
	code, _, err = command(t, stock(&diary{}), environ, "config", "validate")
	require.Zero(t, code)
	require.Equal(t, found+"\nnext: capture\n", err)

	observe, logs := observability(tally.NoopScope, zapcore.InfoLevel)
	d := &diary{}
	a, fault := app.Build([]module.Module{observe, store(d), front(d)}, configs.Source{Environ: environ})
	require.NoError(t, fault)
	require.NoError(t, a.Start(t.Context()))
	require.NoError(t, a.Stop(t.Context()))
	require.Equal(t, 1, logs.FilterMessage(found).Len())

	code, _, err = command(t, stock(&diary{}), []string{"LOG_LEVEL=info", "PATH=/bin"}, "config", "validate")
	require.Zero(t, code)
	require.Equal(t, "next: capture\n", err)
}

func TestConfigPrintShowsWhatIsInEffect(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1.yaml"), filepath.Join(dir, "2.yaml")
	require.NoError(t, os.WriteFile(first, []byte("store:\n  books: 1\n  start: 2s\n"), 0o600))
	require.NoError(t, os.WriteFile(second, []byte("store:\n  books: 2\n"), 0o600))
	code, out, err := command(t, stock(&diary{}), []string{"CAPTURE_FRONT__STOP=1s"},
		"--config", first, "config", "print", "--config", second)
	require.Zero(t, code, err)
	require.Equal(t, fmt.Sprintf(`# terminationGracePeriodSeconds: 50
# That is app.stop_timeout (45s) and 5s to spare.

app:
  start_timeout: 20s
  stop_timeout: 45s
  memory_limit: 0

store:
  books: 2 # %s:2
  start: 2s # %s:3
  stop: 2s

front:
  stop: 1s # CAPTURE_FRONT__STOP
`, second, first), out)
}

func TestConfigReferenceHoldsTheAppsSectionToo(t *testing.T) {
	code, out, err := command(t, stock(&diary{}), nil, "config", "reference")
	require.Zero(t, code, err)
	require.Contains(t, out,
		"app:\n  # How long all modules together may take to start. Duration.\n  start_timeout: 20s\n")
	require.Contains(t, out, "store:\n  # How many books there are.\n  books: 3\n")
}

func TestConfigFromPostHogEnvTranslatesTheEnvironmentOrAFile(t *testing.T) {
	d := &diary{}
	transport := module.Module{Name: "transport", Config: struct {
		Listen string `key:"listen" doc:"Where it listens."`
	}{}}
	build := append(stock(d), transport)
	code, out, err := command(t, build, []string{"ADDRESS=0.0.0.0:3000", "CAPTURE_MODE=events"},
		"config", "from-posthog-env")
	require.Zero(t, code, err)
	require.Contains(t, out, "\ntransport:\n  listen: 0.0.0.0:3000 # ADDRESS\n")
	require.Contains(t, out,
		"# - transport.serve: analytics (CAPTURE_MODE=events): the module transport of this build has no such key.\n")
	require.Contains(t, out,
		"# - kafka.topics.create: false (PostHog has made its topics): include the module kafka.\n")

	file := filepath.Join(t.TempDir(), ".env")
	require.NoError(t, os.WriteFile(file, []byte("ADDRESS=127.0.0.1:3001\n"), 0o600))
	code, out, err = command(t, build, []string{"ADDRESS=0.0.0.0:3000"},
		"config", "from-posthog-env", "--env-file", file)
	require.Zero(t, code, err)
	require.Contains(t, out, "  listen: 127.0.0.1:3001 # ADDRESS\n")
	require.Equal(t, "next: write this to a file, read its comments, and check it with "+
		"capture config validate --config FILE\n", err)
	require.Empty(t, d.read(), "nothing is built")
}

func TestConfigFromPostHogEnvReportsWhatItCannotRead(t *testing.T) {
	d := &diary{}
	environ := []string{"CAPTURE_MODE=foo", "KAFKA_PRODUCER_LINGER_MS=abc"}
	code, out, err := command(t, stock(d), environ, "config", "from-posthog-env")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Equal(t, []string{
		`KAFKA_PRODUCER_LINGER_MS: must be a whole number of milliseconds from 0 to 2147483647, got "abc"`,
		`CAPTURE_MODE: must be one of events, recordings, ai, import, got "foo"`,
		"",
	}, strings.Split(err, "\n"))

	file := filepath.Join(t.TempDir(), "compose.yaml")
	require.NoError(t, os.WriteFile(file, []byte("services:\n"), 0o600))
	code, _, err = command(t, stock(d), nil, "config", "from-posthog-env", "--env-file", file)
	require.Equal(t, 1, code)
	require.Equal(t, file+": line 1 is not NAME=value\n", err)

	code, _, err = command(t, stock(d), nil, "config", "from-posthog-env", "--env-file", file+".missing")
	require.Equal(t, 1, code)
	require.Contains(t, err, file+".missing")
}

func TestGraphIsWrittenWithoutBuildingAnything(t *testing.T) {
	d := &diary{}
	code, out, err := command(t, stock(d), nil, "graph")
	require.Zero(t, code, err)
	require.True(t, strings.HasPrefix(out, "digraph {"), out)
	require.Contains(t, out, "module.Root")
	require.Contains(t, out, "app_test.shelf")
	require.Empty(t, d.read())
}

func TestVersionNamesTheBuild(t *testing.T) {
	code, out, err := command(t, nil, nil, "version")
	require.Zero(t, code, err)
	require.True(t, strings.HasPrefix(out, "capture "), out)
	code, flag, err := command(t, nil, nil, "--version")
	require.Zero(t, code, err)
	require.Equal(t, out, flag)
	code, object, err := command(t, nil, nil, "version", "--output", "json")
	require.Zero(t, code, err)
	var build struct{ Version, Go string }
	require.NoError(t, json.Unmarshal([]byte(object), &build))
	require.Equal(t, runtime.Version(), build.Go)
	require.Contains(t, out, build.Version)

	info := &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Version: "(devel)"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "abcdef"}, {Key: "vcs.modified", Value: "true"},
		}}
	require.Equal(t, "capture version (devel) commit abcdef (modified) go1.26.0", app.Describe("", info))
	require.Equal(t, "capture version v1.2.3 commit abcdef (modified) go1.26.0", app.Describe("v1.2.3", info))
	require.True(t, strings.HasPrefix(app.Describe("", nil), "capture version (unknown) go"))
}

// lister is a module whose command takes a flag, arguments and parts of the graph.
func lister(d *diary, list func(use module.Invocation, author string, books int, log *zap.Logger) error) module.Module {
	var author string
	mod := store(d)
	mod.Commands = []module.Command{{
		Use:     "list [TITLE...]",
		Short:   "List the books",
		Example: "  capture list",
		Flags:   func(flags *module.Flags) { flags.StringVar(&author, "author", "", "whose books") },
		Run: func(use module.Invocation, s shelf, log *zap.Logger) error {
			return list(use, author, s.books(), log)
		},
	}}
	return mod
}

func TestAModulesCommandGetsPartsOfTheGraphThatIsNotStarted(t *testing.T) {
	d := &diary{}
	mod := lister(d, func(use module.Invocation, author string, books int, log *zap.Logger) error {
		_, err := fmt.Fprintf(use.Out, "%d books by %s: %v, %s", books, author, use.Args, log.Name())
		return err
	})
	code, out, err := command(t, []module.Module{quiet(), mod, front(d)}, []string{"CAPTURE_STORE__BOOKS=5"},
		"list", "--author", "eve", "short", "long")
	require.Zero(t, code, err)
	require.Equal(t, "5 books by eve: [short long], store", out)
	require.Empty(t, d.read(), "neither was the root built nor a hook run")
}

func TestAModulesCommandReportsItsErrorAndWhatTheBuildLacks(t *testing.T) {
	d := &diary{}
	mod := lister(d, func(module.Invocation, string, int, *zap.Logger) error {
		return errors.New("the shelf is locked")
	})
	code, _, err := command(t, []module.Module{quiet(), mod}, nil, "list")
	require.Equal(t, 1, code)
	require.Equal(t, "the shelf is locked\n", err)

	code, _, err = command(t, []module.Module{mod}, nil, "list")
	require.Equal(t, 1, code)
	require.Contains(t, err, "nothing in this build provides *zap.Logger: include the module modules/observability")
}

func TestASignalEndsAModulesCommand(t *testing.T) {
	listing := make(chan struct{})
	mod := lister(&diary{}, func(use module.Invocation, _ string, _ int, _ *zap.Logger) error {
		close(listing)
		<-use.Context.Done()
		return fmt.Errorf("list: %w", use.Context.Err())
	})
	r := start([]module.Module{quiet(), mod}, nil, "list")
	<-listing
	r.signals <- syscall.SIGINT
	require.Zero(t, r.finish(t))
	require.Empty(t, r.err.String())
}

// library is a module whose command has commands below it.
func library(d *diary) module.Module {
	var shelf string
	var genres []string
	mod := store(d)
	mod.Commands = []module.Command{{
		Use: "books", Short: "Work on the books", Example: "  capture books list",
		Commands: []module.Command{
			{
				Use: "list", Short: "List the books", Example: "  capture books list --output json",
				Output: module.Table,
				Flags: func(flags *module.Flags) {
					flags.StringVar(&shelf, "shelf", "upper", "which `SHELF` to look at")
				},
				Values: map[string]any{"shelf": []string{"upper", "lower"}},
				Run: func(use module.Invocation, c storeConfig) error {
					list := use.List("title", "number")
					for i := range c.Books {
						title := fmt.Sprintf("Volume %d\x1b[31m of the %s shelf", i, shelf)
						if err := list.Add(map[string]any{"title": title, "number": i}, title, i); err != nil {
							return err
						}
					}
					return list.Flush()
				},
			},
			{
				Use: "lend TITLE TO", Short: "Lend a book", Example: "  capture books lend It Eve",
				Values: map[string]any{"TITLE": func(c storeConfig) ([]string, error) {
					return []string{fmt.Sprintf("Volume %d", c.Books), "It"}, nil
				}},
				Run: func(use module.Invocation) error {
					if use.Args[0] == "It" {
						return module.Misusef("%s is lent to nobody", use.Args[0])
					}
					return errors.New("the shelf is locked")
				},
			},
			{
				Use: "count [SHELF...]", Short: "Count the books", Example: "  capture books count",
				Flags:  func(flags *module.Flags) { flags.StringArrayVar(&genres, "genre", nil, "count only these") },
				Values: map[string]any{"genre": []string{"crime", "verse"}},
				Run: func(use module.Invocation) error {
					_, err := fmt.Fprint(use.Out, genres, use.Args)
					return err
				},
			},
		},
	}}
	return mod
}

func TestWhatIsTypedWronglyIsOneLineAndExitCodeTwo(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"sevre", `unknown command "sevre" for "capture", did you mean serve?`},
		{"nothing-like-it", `unknown command "nothing-like-it" for "capture"`},
		{"serve now", `capture serve takes no arguments, got "now"`},
		{"config valdate", `unknown command "valdate" for "capture config", did you mean validate?`},
		{"help books lst", `unknown command "lst" for "capture books", did you mean list?`},
		{"completion tcsh", `unknown command "tcsh" for "capture completion"`},
		{"--verbose", "capture: unknown flag: --verbose"},
		{"sevre --verbose", `unknown command "sevre" for "capture", did you mean serve?`},
		{"books lst --shelf lower", `unknown command "lst" for "capture books", did you mean list?`},
		{"books lend It ''", "capture books lend: TO is empty"},
		{"books count upper ''", "capture books count: SHELF is empty"},
		{"books list --shlef lower", "capture books list: unknown flag: --shlef, did you mean --shelf?"},
		{"--config", "capture: flag needs an argument: --config"},
		{"--config=", "capture: --config is empty"},
		{"books list --config a.yaml --config=", "capture books list: --config is empty"},
		{"config from-posthog-env --env-file=", "capture config from-posthog-env: --env-file is empty"},
		{"books lend It", "capture books lend: TO is missing"},
		{"books lend It to Eve", `capture books lend: "Eve" is an argument too many`},
		{"books list --output yaml", `capture books list: --output must be table or json, got "yaml"`},
		{"books list --shelf middle", `capture books list: --shelf must be upper or lower, got "middle"`},
		{"books count --genre verse --genre prose",
			"capture books count: --genre must be crime or verse, got \"prose\""},
		{"books lend It Eve", "capture books lend: It is lent to nobody"},
	} {
		words := strings.Fields(test.line)
		for i := range words {
			words[i] = strings.Trim(words[i], "'")
		}
		code, out, err := command(t, []module.Module{quiet(), library(&diary{})}, nil, words...)
		require.Equal(t, 2, code, test.line)
		require.Empty(t, out, test.line)
		require.Regexp(t, "^"+regexp.QuoteMeta(test.want)+` \(see capture[a-z -]* --help\)\n$`, err)
	}
}

func TestWhatFailsIsExitCodeOne(t *testing.T) {
	code, _, err := command(t, []module.Module{quiet(), library(&diary{})}, nil, "books", "lend", "Emma", "Eve")
	require.Equal(t, 1, code)
	require.Equal(t, "the shelf is locked\n", err)
	build := []module.Module{quiet(), library(&diary{})}
	code, _, err = command(t, build, []string{"CAPTURE_STORE__BOOKS=x"}, "books", "list")
	require.Equal(t, 1, code, "the configuration has a fault")
	require.Equal(t, "store.books: \"x\" is not a whole number (CAPTURE_STORE__BOOKS)\n", err)
}

func TestAListIsATableForPeopleAndJSONForPrograms(t *testing.T) {
	build, environ := []module.Module{quiet(), library(&diary{})}, []string{"CAPTURE_STORE__BOOKS=2"}
	code, out, err := command(t, build, environ, "books", "list")
	require.Zero(t, code, err)
	require.Equal(t, `title                                  number
Volume 0\u001b[31m of the upper shelf  0
Volume 1\u001b[31m of the upper shelf  1
`, out)
	code, out, err = command(t, build, environ, "books", "list", "--output", "json", "--shelf", "lower")
	require.Zero(t, code, err)
	require.Equal(t, `{"number":0,"title":"Volume 0\u001b[31m of the lower shelf"}
{"number":1,"title":"Volume 1\u001b[31m of the lower shelf"}
`, out)
}

func TestHelpListsTheCommands(t *testing.T) {
	build := []module.Module{quiet(), library(&diary{})}
	for _, line := range []string{"--help", "help"} {
		code, out, err := command(t, build, nil, line)
		require.Zero(t, code, err)
		for _, name := range []string{"serve", "config", "graph", "version", "completion", "help", "books"} {
			require.Contains(t, out, "\n  "+name+" ")
		}
	}
	for _, line := range []string{"books", "books --help", "help books"} {
		code, out, err := command(t, build, nil, strings.Fields(line)...)
		require.Zero(t, code, err)
		require.Contains(t, out, "\n  lend ", line)
	}
	code, out, err := command(t, build, nil, "help", "books", "lend")
	require.Zero(t, code, err)
	require.Contains(t, out, "Lend a book.\n\nUsage:\n  capture books lend TITLE TO [flags]\n\n"+
		"Examples:\n  capture books lend It Eve\n")
	code, out, err = command(t, build, nil, "books", "count", "--genre", "verse", "--genre", "crime", "upper", "lower")
	require.Zero(t, code, err)
	require.Equal(t, "[verse crime] [upper lower]", out)
}

// full is an output that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestHelpThatCannotBeWrittenIsAnError(t *testing.T) {
	for _, line := range []string{"help", "--help", "books", "help books lend", "books list --help", "version"} {
		r := &run{}
		code := app.Run(strings.Fields(line), nil, full{}, &r.err, nil, quiet(), library(&diary{}))
		require.Equal(t, 1, code, line)
		require.Equal(t, "no space left on device\n", r.err.String(), line)
	}
}

func TestTheShellCompletesCommandsFlagsAndValues(t *testing.T) {
	for line, want := range map[string][]string{
		"boo":                   {"books\tWork on the books"},
		"books l":               {"list\tList the books", "lend\tLend a book"},
		"books list --o":        {"--output\tprint a `FORMAT`: table, for people, or json, an object a line"},
		"books list --output ":  {"table", "json"},
		"books list --shelf ":   {"upper", "lower"},
		"books lend ":           {"Volume 7", "It"},
		"books lend It ":        nil,
		"books lend It Eve ":    nil,
		"books count ":          nil,
		"help books l":          {"list\tList the books", "lend\tLend a book"},
		"help bokos ":           nil,
		"completion z":          {"zsh\tWrite the completion script for zsh"},
		"--config ":             {"yaml", "yml"},
		"books count --genre c": {"crime"},
		"config from-posthog-env --env-": {
			"--env-file\t`FILE` to read instead of the environment: an .env file, or what \"env\" prints",
		},
	} {
		args := append([]string{"__complete"}, strings.Split(line, " ")...)
		code, out, err := command(t, []module.Module{quiet(), library(&diary{})}, []string{"CAPTURE_STORE__BOOKS=7"},
			args...)
		require.Zero(t, code, err)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		require.ElementsMatch(t, want, lines[:len(lines)-1], line)
	}
}

func TestCompletionScriptsAreWritten(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, out, err := command(t, stock(&diary{}), nil, "completion", shell)
		require.Zero(t, code, err)
		require.Contains(t, out, "__complete", shell)
	}
}

func TestMainServesUntilTheProcessIsTerminated(t *testing.T) {
	process := exec.CommandContext(t.Context(), os.Args[0])
	process.Env = append(os.Environ(), asMain+"=1")
	out, err := process.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, process.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "greeting  ready\n", line)
	require.NoError(t, process.Process.Signal(syscall.SIGTERM))
	require.NoError(t, process.Wait(), "a stop by SIGTERM exits 0")
}

// speaker is a section that listens on an address.
type speaker struct {
	Listen string `key:"listen" doc:"Address."`
}

func (s speaker) Listens(*configs.Set) map[string]string {
	return map[string]string{"listen": s.Listen}
}

// 203.0.113.9 is an address for documentation, which no machine has.
func TestConfigValidateKnowsTheAddressesOfTheMachine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close() //nolint:errcheck // it is only taken
	for address, want := range map[string]string{
		"203.0.113.9:8000":    "speaker.listen: this machine cannot listen on 203.0.113.9: bind: ",
		taken.Addr().String(): "",
		":8000":               "",
		"kafka.invalid:8000":  "",
		"[2001:db8::1]:8000":  "speaker.listen: this machine cannot listen on 2001:db8::1: ",
		"0.0.0.0:8000":        "",
	} {
		modules := append(stock(&diary{}), module.Module{Name: "speaker", Config: speaker{Listen: address}})
		code, _, said := command(t, modules, nil, "config", "validate")
		if want == "" {
			require.Zero(t, code, "%s: the running service may have the port, and no name is looked up: %s",
				address, said)
		} else {
			require.Equal(t, 1, code)
			require.Contains(t, said, want)
		}
	}
}
