// Package panics keeps a panic in one part of the service from ending the others. Every goroutine of the service is started
// by it; a test in app/standard finds those that are not. A panic is counted, logged once with its stack, and ends what
// panicked. Work that has to go on is started again, with growing pauses.
//
// What a panic leaves undone is for the part itself to set right: to answer whoever waits, to give back what it has taken,
// and to begin again from a state that can be trusted. A callback that a library calls in a goroutine of its own is such a
// part as well.
//
// The count is of the process: of several services in one process, as tests have them, each shows all panics.
package panics

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Error is a panic that was caught.
type Error struct {
	Value any
	Stack []byte
}

func (e *Error) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value of the panic if that is an error.
func (e *Error) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

var count atomic.Int64

// Count is how many panics have been caught since the process began.
func Count() int64 { return count.Load() }

// Caught counts what recover has returned and returns it as an error; nil is none. It is for a deferred function that calls
// recover itself; the stack is that of the panic.
func Caught(value any) *Error {
	if value == nil {
		return nil
	}
	count.Add(1)
	return &Error{Value: value, Stack: debug.Stack()}
}

// Catch runs f and returns what it returns, or the *Error of its panic.
func Catch(f func() error) (err error) {
	defer func() {
		if caught := Caught(recover()); caught != nil {
			err = caught
		}
	}()
	return f()
}

// Log writes the line about a panic: who panicked, and the stack. It returns even if the logger panics itself.
func Log(log *zap.Logger, who string, caught *Error, fields ...zap.Field) {
	defer func() { _ = Caught(recover()) }()
	log.WithOptions(zap.AddCallerSkip(1)).Error(who+" panicked",
		append(fields, zap.Any("panic", caught.Value), zap.ByteString("stack", caught.Stack))...)
}

// Try is Catch and Log: it runs f and returns what it returns, or the *Error of its panic, which it has logged.
func Try(log *zap.Logger, who string, f func() error) (err error) {
	defer func() {
		if caught := Caught(recover()); caught != nil {
			Log(log, who, caught)
			err = caught
		}
	}()
	return f()
}

// Go runs f in a goroutine of its own. A panic is counted and logged and ends the goroutine, and nothing else. name says in
// the log whose goroutine it is.
func Go(log *zap.Logger, name string, f func()) { go Do(log, name, f) }

// AfterFunc is time.AfterFunc with the function that Go would run.
func AfterFunc(log *zap.Logger, name string, after time.Duration, f func()) *time.Timer {
	return time.AfterFunc(after, func() { Do(log, name, f) })
}

// Do runs f, and reports whether it returned. A panic is counted and logged.
func Do(log *zap.Logger, who string, f func()) (returned bool) {
	_ = Try(log, who, func() error {
		f()
		returned = true
		return nil
	})
	return returned
}

// The pauses before work that has panicked is started again: the first, and what they grow to.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
	// calm is how long work has to run until a panic counts as the first one again.
	calm = time.Minute
)

// Group is goroutines that somebody waits for. Its Go and Keep may be called at any time before Wait.
type Group struct {
	log *zap.Logger
	wg  sync.WaitGroup
}

// NewGroup returns a group that logs its members' panics.
func NewGroup(log *zap.Logger) *Group { return &Group{log: log} }

// Go is the function Go for a member of the group.
func (g *Group) Go(name string, f func()) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		Do(g.log, name, f)
	}()
}

// Keep runs f in a goroutine until f returns or ctx is over. After a panic it runs f again, with pauses that grow from a
// tenth of a second to half a minute.
func (g *Group) Keep(ctx context.Context, name string, f func(context.Context)) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		pause := firstPause
		for {
			began := time.Now()
			if Do(g.log, name, func() { f(ctx) }) {
				return
			}
			if time.Since(began) > calm {
				pause = firstPause
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			pause = min(2*pause, lastPause)
		}
	}()
}

// Wait returns when every member has ended.
func (g *Group) Wait() { g.wg.Wait() }

// Ended returns a channel that is closed when every member has ended, for whoever waits for something else as well. It is
// called when no further member begins.
func (g *Group) Ended() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.wg.Wait()
	}()
	return ended
}
