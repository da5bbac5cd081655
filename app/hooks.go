package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// hooks knows the module of every lifecycle hook and how far the hook has come. So the error of a failed start or stop
// can name the module.
type hooks struct {
	log *zap.Logger
	// starting bounds the start hooks. App.Start sets it before the first hook runs.
	starting context.Context

	mu       sync.Mutex
	list     []*hook
	failures []error
}

type hook struct {
	module string
	stops  bool
	state  hookState
}

type hookState int

const (
	hookNew hookState = iota
	hookStarted
	hookStopping
	hookStopped
)

// moduleLifecycle is the fx.Lifecycle that the constructors of a module get.
type moduleLifecycle struct {
	module string
	next   fx.Lifecycle
	hooks  *hooks
}

// Append implements fx.Lifecycle.
func (l *moduleLifecycle) Append(h fx.Hook) { l.next.Append(l.hooks.watch(l.module, h)) }

func (h *hooks) watch(module string, inner fx.Hook) fx.Hook {
	entry := &hook{module: module, stops: inner.OnStop != nil}
	h.mu.Lock()
	h.list = append(h.list, entry)
	h.mu.Unlock()

	outer := fx.Hook{OnStart: func(context.Context) error {
		if err := h.starting.Err(); err != nil {
			return fmt.Errorf("%s did not start: %w", module, err)
		}
		if inner.OnStart != nil {
			began := time.Now()
			if err := h.await(h.starting, "the start of "+module, inner.OnStart); err != nil {
				return fmt.Errorf("%s did not start: %w", module, err)
			}
			h.log.Debug("started", zap.String("module", module), zap.Duration("took", time.Since(began)))
		}
		h.enter(entry, hookStarted)
		return nil
	}}
	if inner.OnStop != nil {
		outer.OnStop = func(ctx context.Context) error {
			began := time.Now()
			h.enter(entry, hookStopping)
			err := panics.Try(h.log, "the stop of "+module, func() error { return inner.OnStop(ctx) })
			h.enter(entry, hookStopped)
			h.log.Debug("stopped", zap.String("module", module), zap.Duration("took", time.Since(began)))
			if err != nil {
				err = fmt.Errorf("%s did not stop cleanly: %w", module, err)
				h.fail(err)
			}
			return err
		}
	}
	return outer
}

func (h *hooks) enter(entry *hook, state hookState) {
	h.mu.Lock()
	entry.state = state
	h.mu.Unlock()
}

func (h *hooks) fail(err error) {
	h.mu.Lock()
	h.failures = append(h.failures, err)
	h.mu.Unlock()
}

// timedOut is the error of a stop that ran out of time. It includes the errors that stop hooks had returned by then,
// since Fx drops them.
func (h *hooks) timedOut(timeout time.Duration) error {
	late := fmt.Errorf("the service did not stop in time (app.stop_timeout is %s): %s", timeout, h.unfinished())
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(append([]error{late}, h.failures...)...)
}

// unfinished names the modules whose stop hooks are still running, and the modules whose stop hooks were never reached.
func (h *hooks) unfinished() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var running, waiting []string
	for i := len(h.list) - 1; i >= 0; i-- {
		switch entry := h.list[i]; {
		case entry.state == hookStopping:
			running = append(running, entry.module)
		case entry.state == hookStarted && entry.stops:
			waiting = append(waiting, entry.module)
		}
	}
	var parts []string
	if len(running) > 0 {
		parts = append(parts, strings.Join(running, ", ")+" did not finish")
	}
	if len(waiting) > 0 {
		parts = append(parts, "never reached: "+strings.Join(waiting, ", "))
	}
	if len(parts) == 0 {
		return "everything had stopped by then, but too late"
	}
	return strings.Join(parts, "; ")
}

// lastWord is how long a start hook may go on after its context is over, to return an error of its own. It is also how
// long the process, before it ends, waits for a reader to take the last lines that it prints.
const lastWord = time.Second

// await runs f and returns its error or its panic. If f goes on after the end of its context, await returns the
// context's error.
func (h *hooks) await(ctx context.Context, who string, f func(context.Context) error) error {
	done := make(chan error, 1)
	panics.Go(h.log, who, func() { done <- panics.Try(h.log, who, func() error { return f(ctx) }) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(lastWord):
		return ctx.Err()
	}
}
