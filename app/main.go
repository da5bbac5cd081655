package app

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/terminal"
)

// Main runs the command line of a build of these modules and ends the process with the exit code: 0 for success and for
// a stop by SIGINT or SIGTERM, 1 for an error, 2 for a wrong command line, the code that a module gave to fx.Shutdowner
// when the module ended the service, and 128 plus the signal's number when a second signal cut a stop short.
//
// The service needs no reader for what it prints. It goes on when standard output or standard error is a pipe whose
// reader is gone, and when the pipe is full because its reader has stopped reading. A command ends when its reader is
// gone.
//
// The process makes files that only its user can read: files 0600, directories 0700.
func Main(modules ...module.Module) {
	syscall.Umask(0o077) // the embedded broker's files have no mode of their own
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	hangups := make(chan os.Signal, 1)
	p := &process{
		modules:  modules,
		environ:  os.Environ(),
		out:      os.Stdout,
		err:      os.Stderr,
		terminal: isatty.IsTerminal(os.Stderr.Fd()),
		color:    wantsColor(os.Stdout),
		signals:  signals,
		hangups:  hangups,
		detach: func() {
			signal.Ignore(syscall.SIGPIPE)
			signal.Notify(hangups, syscall.SIGHUP)
		},
	}
	os.Exit(p.run(os.Args[1:]))
}

// wantsColor reports whether the output is a terminal whose user wants colours (see no-color.org).
func wantsColor(out *os.File) bool {
	return isatty.IsTerminal(out.Fd()) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// process is the part of its process that a command line uses.
type process struct {
	modules []module.Module
	environ []string
	out     io.Writer
	err     io.Writer
	// terminal says that err is a terminal, and color that out is one whose user wants colours.
	terminal, color bool
	signals         <-chan os.Signal
	// hangups ask the service to load its configuration again.
	hangups <-chan os.Signal
	// detach prepares the process for a service. From then on neither SIGHUP nor a write to a closed pipe, on standard
	// output or standard error, ends the process.
	detach func()
	// unsaid is why the help could not be written.
	unsaid error
	// stopSignal is the first signal that came. A second signal ends the process at once.
	stopSignal os.Signal
}

// The exit codes of failures.
const (
	exitFailed  = 1
	exitMisused = 2
)

// exitError ends the process with its code. Its cause, if any, is shown to the user.
type exitError struct {
	code  int
	cause error
}

func (e *exitError) Error() string {
	if e.cause == nil {
		return ""
	}
	return e.cause.Error()
}

func (e *exitError) Unwrap() error { return e.cause }

// run executes one command line and returns the exit code.
func (p *process) run(args []string) int {
	// What a command prints may quote anything: events, files, the answers of brokers.
	p.out, p.err = terminal.NewWriter(p.out), terminal.NewWriter(p.err)
	err := panics.Catch(func() error {
		command := p.root()
		command.SetArgs(args)
		err := command.Execute()
		return errors.Join(err, p.unsaid)
	})
	if err == nil {
		return 0
	}
	code := exitFailed
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
	}
	if text := err.Error(); text != "" {
		var panicked *panics.Error
		if errors.As(err, &panicked) {
			text += "\n\n" + string(panicked.Stack)
		}
		// If standard error cannot be written to, the user has only the exit code.
		say(p.err, text+"\n")()
	}
	return code
}

// say writes in the background, because a full pipe would block the caller. It returns a function that waits until all
// is written, for a second at most.
func say(out io.Writer, text string) (wait func()) {
	done := make(chan struct{})
	panics.Go(zap.NewNop(), "the writer of last words", func() {
		defer close(done)
		_, _ = io.WriteString(out, text)
	})
	return func() {
		select {
		case <-done:
		case <-time.After(lastWord):
		}
	}
}

// until runs a step whose context ends with the first signal. When a second signal comes, until returns at once, with
// the exit code of a killed process.
func (p *process) until(step func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if p.stopSignal != nil {
		cancel()
	}
	return p.watch(cancel, func() error { return step(ctx) })
}

// watch runs a step to its end. The first signal calls cancel, which asks the step to end; after a second signal watch
// no longer waits for the step. If the step panics, the panic is the error.
func (p *process) watch(cancel func(), step func() error) error {
	done := make(chan error, 1)
	panics.Go(zap.NewNop(), "a step", func() { done <- panics.Catch(step) })
	for {
		select {
		case err := <-done:
			return err
		case sig := <-p.signals:
			if p.stopSignal != nil {
				return killed(sig)
			}
			p.stopSignal = sig
			cancel()
		}
	}
}

func killed(sig os.Signal) error {
	number, _ := sig.(syscall.Signal)
	return &exitError{code: 128 + int(number)}
}

// serve runs the service from its start to its end.
func (p *process) serve(source configs.Source) error {
	p.detach()
	a, err := p.build(source)
	if a == nil || err != nil {
		return err
	}
	a.limitMemory()
	a.reloader.hangups = p.hangups
	if err := p.until(a.Start); err != nil {
		if p.stopSignal != nil && errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	wait := say(p.out, a.Facts())
	defer wait()

	var end fx.ShutdownSignal
	if p.stopSignal == nil {
		select {
		case end = <-a.Wait():
		case p.stopSignal = <-p.signals:
		}
	}
	err = p.watch(func() {}, func() error { return a.Stop(context.Background()) })
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		a.graph.flush()
		return err
	case err != nil:
		return &exitError{code: max(end.ExitCode, 1), cause: err}
	case end.ExitCode != 0:
		return &exitError{
			code: end.ExitCode, cause: errors.New("the service ended because a part of it failed: see the log"),
		}
	}
	return nil
}

// build builds the app. A signal ends the wait for a build that takes long, such as one that reads a pipe: then build
// returns neither an app nor an error.
func (p *process) build(source configs.Source) (*App, error) {
	type result struct {
		app *App
		err error
	}
	built := make(chan result, 1)
	panics.Go(zap.NewNop(), "the build", func() {
		var r result
		r.err = panics.Catch(func() (err error) {
			r.app, err = Build(p.modules, source)
			return err
		})
		built <- r
	})
	select {
	case r := <-built:
		return r.app, r.err
	case p.stopSignal = <-p.signals:
		return nil, nil
	}
}

// invoke calls a function of a command of the i-th module, in that module's scope of the graph. The graph is built
// without its root and is not started.
//
// A configuration with faults is an error, unless the command runs despite faults. Then nothing but what f takes is
// built: not even the logger, whose section may be at fault.
func (p *process) invoke(
	i int, source configs.Source, despiteFaults bool, f any, use module.Invocation,
) error {
	set, fault := inspect(p.modules, source)
	if fault != nil && (set == nil || !despiteFaults) {
		return fault
	}
	err := p.until(func(ctx context.Context) error {
		use.Context = ctx
		modules := slices.Clone(p.modules)
		modules[i].Options = fx.Options(orNothing(modules[i].Options), fx.Invoke(f))
		g := newGraph(modules, unchanging(set), given{}, &hooks{})
		options := []fx.Option{g.keepLog(), fx.Supply(use)}
		if fault != nil {
			options = options[1:]
		}
		_, err := g.build(options...)
		g.flush()
		return err
	})
	if p.stopSignal != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// unchanging is the configuration of a graph that never reloads.
func unchanging(set *configs.Set) *configs.Live {
	return configs.NewLive(set, func() (*configs.Set, error) { return set, nil })
}

// dot writes the graph in the language of Graphviz, without building it.
func (p *process) dot(source configs.Source) (string, error) {
	set, err := Load(p.modules, source)
	if err != nil {
		return "", err
	}
	var dot fx.DotGraph
	_, err = newGraph(p.modules, unchanging(set), given{}, &hooks{}).build(fx.Populate(&dot))
	return string(dot), err
}
